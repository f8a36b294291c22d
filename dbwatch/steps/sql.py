"""A statement of the runbook, in one transaction with its own `step.done`: done exactly if the journal says so."""

from __future__ import annotations

from dataclasses import asdict

from dbwatch.journal.events import DdlSeen, StepDone
from dbwatch.migration import ddl
from dbwatch.postgres.session import Connection, Role
from dbwatch.runbook.model import Sql
from dbwatch.steps.statement import stoppable
from dbwatch.steps.step import Done, Failed, Kit, Outcome, Unknown


def made_by(step_id: str) -> str:
    """What stands in the place of a revision where a sql step made something."""
    return f"step {step_id}"


async def run(spec: Sql, kit: Kit) -> Outcome:
    """Runs the statement; what cannot run inside a transaction runs by itself, and says so if it is cut short."""
    alone = ddl.needs_autocommit(spec.sql)
    named = [asdict(o) for o in ddl.objects(spec.sql)]
    if named:
        await kit.record(DdlSeen(spec.id, kit.attempt, 1, made_by(spec.id), spec.sql, alone, False, True, named))
    limits = kit.limits if not alone else kit.limits.without_timeouts()
    session = await kit.connector.open(Role.WORKER, limits=limits)
    began = kit.clock.monotonic()

    async def together(connection: Connection) -> str:
        async with connection.transaction():
            cursor = await connection.execute(spec.sql.encode())
            result = cursor.statusmessage or "done"
            taken = kit.clock.monotonic() - began
            await kit.write_in(connection, [StepDone(spec.id, kit.attempt, result, taken)])
        return result

    async def by_itself(connection: Connection) -> str:
        return (await connection.execute(spec.sql.encode())).statusmessage or "done"

    try:
        if alone:
            return Done(await stoppable(session, kit, by_itself, within=86_400.0))
        within = limits.statement_timeout_ms / 1000 * 1.5 + 5 if limits.statement_timeout_ms else 86_400.0
        return Done(await stoppable(session, kit, together, within=within), recorded=True)
    finally:
        await session.close()


async def recover(spec: Sql, kit: Kit) -> Outcome:
    """In a transaction the journal tells: no `step.done`, no effect. Alone, nobody can tell."""
    del kit
    if ddl.needs_autocommit(spec.sql):
        return Unknown("the driver vanished while it ran outside a transaction; look whether it took effect")
    return Failed("the driver vanished while it ran; its transaction was rolled back", again=True)
