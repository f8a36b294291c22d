"""A statement of the runbook, in one transaction with its own `step.done`: done exactly if the journal says so."""

from __future__ import annotations

from dataclasses import asdict

import postgast

from dbwatch.journal.events import DdlSeen, StepDone
from dbwatch.migration import grammar
from dbwatch.postgres.session import Connection, Role
from dbwatch.runbook.model import Sql
from dbwatch.steps.statement import stoppable
from dbwatch.steps.step import Done, Failed, Kit, Outcome, Unknown


def made_by(step_id: str) -> str:
    """What stands in the place of a revision where a sql step made something."""
    return f"step {step_id}"


_ALONE = frozenset(
    {"vacuum_stmt", "createdb_stmt", "dropdb_stmt", "alter_system_stmt", "create_table_space_stmt"}
    | {"drop_table_space_stmt", "create_subscription_stmt", "drop_subscription_stmt"}
)
"""Statements that PostgreSQL refuses inside a transaction, besides the CONCURRENTLY ones."""


def alone(sql: str) -> bool:
    """Whether *sql* cannot run inside a transaction, and so commits by itself. Pure."""
    try:
        nodes = [raw.stmt for raw in postgast.parse(sql).stmts]
    except (postgast.PgQueryError, UnicodeEncodeError):
        return False
    kinds = {node.WhichOneof("node") for node in nodes}
    analyze = all(not n.vacuum_stmt.is_vacuumcmd for n in nodes if n.WhichOneof("node") == "vacuum_stmt")
    return bool(kinds & (_ALONE - {"vacuum_stmt"} if analyze else _ALONE)) or grammar.read(sql).concurrently


async def run(spec: Sql, kit: Kit) -> Outcome:
    """Runs the statement; what cannot run inside a transaction runs by itself, and says so if it is cut short."""
    by_itself = alone(spec.sql)
    reading = grammar.read(spec.sql)
    if reading.named or not reading.known:
        named = [{**asdict(o), "action": str(o.action)} for o in reading.named]
        known = reading.known
        await kit.record(DdlSeen(spec.id, kit.attempt, 1, made_by(spec.id), spec.sql, by_itself, False, known, named))
    limits = kit.limits if not by_itself else kit.limits.without_timeouts()
    session = await kit.connector.open(Role.WORKER, limits=limits)
    began = kit.clock.monotonic()

    async def together(connection: Connection) -> str:
        async with connection.transaction():
            cursor = await connection.execute(spec.sql.encode())
            result = cursor.statusmessage or "done"
            taken = kit.clock.monotonic() - began
            await kit.write_in(connection, [StepDone(spec.id, kit.attempt, result, taken)])
        return result

    async def singly(connection: Connection) -> str:
        return (await connection.execute(spec.sql.encode())).statusmessage or "done"

    try:
        if by_itself:
            return Done(await stoppable(session, kit, singly, within=86_400.0))
        within = limits.statement_timeout_ms / 1000 * 1.5 + 5 if limits.statement_timeout_ms else 86_400.0
        return Done(await stoppable(session, kit, together, within=within), recorded=True)
    finally:
        await session.close()


async def recover(spec: Sql, kit: Kit) -> Outcome:
    """In a transaction the journal tells: no `step.done`, no effect. Alone, nobody can tell."""
    del kit
    if alone(spec.sql):
        return Unknown("the driver vanished while it ran outside a transaction; look whether it took effect")
    return Failed("the driver vanished while it ran; its transaction was rolled back", again=True)
