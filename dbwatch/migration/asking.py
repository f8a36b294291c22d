"""Questions to an Alembic project: its chain, its SQL. Each starts a child of its own, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import Literal

from dbwatch.errors import DbwatchError, Exit
from dbwatch.migration.chain import Chain
from dbwatch.migration.events import Cause, Direction, Failed, Finished, LogLine
from dbwatch.migration.forked import Spawn, spawn
from dbwatch.migration.process import Child
from dbwatch.migration.request import Ask, Job, Project, RevisionSql, Target
from dbwatch.migration.wire import Answer, Garbled
from dbwatch.postgres.facts import ServerFacts, look, require_direct
from dbwatch.postgres.session import Connector, Role


class MigrationError(DbwatchError):
    """The project could not be asked; `failure` has the cause, `log` what it printed."""

    def __init__(self, failure: Failed, log: tuple[str, ...] = ()) -> None:
        super().__init__(failure.message)
        self.failure, self.log = failure, log
        if failure.cause in (Cause.CONFIG, Cause.ELSEWHERE, Cause.CODE):
            self.exit_code = Exit.USAGE


async def inspect(
    project: Project,
    connector: Connector,
    *,
    to: Target = "heads",
    direction: Direction = Direction.UP,
    within: float = 60.0,
    spawn: Spawn = spawn,
) -> Chain:
    """The project's revisions, the database's heads, and the steps to *to*. Nothing that env.py does is committed.

    Raises MigrationError with one sentence where the project does not load or does not answer *within* so many
    seconds, and as `Connector.open` does.
    """
    ask = request("inspect", project, connector, await _facts(connector), direction, to)
    [chain] = [answer for answer in await _asked(ask, within, spawn) if isinstance(answer, Chain)]
    return chain


async def preview(
    project: Project,
    connector: Connector,
    *,
    start: frozenset[str],
    to: Target,
    direction: Direction,
    within: float = 60.0,
    spawn: Spawn = spawn,
) -> tuple[RevisionSql, ...]:
    """The SQL of each revision between the heads *start* and *to*, rendered offline, in the order of running.

    One that looks at the database before it acts is run on a connection that may only read, as the database is now,
    and what it would change is taken down instead of sent. A revision that cannot be rendered even so says that, and
    does not hide the rest. Raises MigrationError where env.py does not load or the target cannot be reached, and as
    `Connector.open` does.
    """
    ask = request("preview", project, connector, await _facts(connector), direction, to, start=start)
    return tuple(answer for answer in await _asked(ask, within, spawn) if isinstance(answer, RevisionSql))


def request(
    what: Literal["inspect", "preview", "run"],
    project: Project,
    connector: Connector,
    facts: ServerFacts,
    direction: Direction,
    to: Target,
    *,
    start: frozenset[str] = frozenset(),
    job: Job | None = None,
    kept_within_s: float = 0.0,
) -> Ask:
    """The line that the child is sent; *job* for its limits and its fence, where something is to be run."""
    tag = job.fence.tag if job else connector.tag
    return Ask(
        what=what,
        config=str(project.config.absolute()),
        section=project.section,
        x=project.x,
        dsn=connector.dsn(Role.MIGRATE),
        system_identifier=facts.system_identifier,
        database_oid=facts.database_oid,
        started_at=facts.started_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f"),
        application_name=f"dbwatch migrate {tag}".rstrip(),
        direction=direction,
        to=to if isinstance(to, str) else tuple(sorted(to)),
        start=tuple(sorted(start)),
        lock_timeout_ms=job.lock_timeout_ms if job else 2_000,
        statement_timeout_ms=job.statement_timeout_ms if job else 10_000,
        window=str(job.fence.window) if job else "",
        epoch=job.fence.epoch if job else 0,
        resume=job.resume if job else False,
        kept_within_s=kept_within_s,
    )


async def _facts(connector: Connector) -> ServerFacts:
    session = await connector.open(Role.CONTROL)
    try:
        facts = await look(session)
    finally:
        await session.close()
    require_direct(facts)
    return facts


async def _asked(ask: Ask, within: float, spawn: Spawn) -> list[Answer]:
    """All that a child answers to *ask*. Raises MigrationError where it fails, dies or is silent."""
    answers: list[Answer] = []
    try:
        async with await Child.start(ask, spawn) as child, asyncio.timeout(within):
            async for answer in child.answers():
                answers.append(answer)
                match answer:
                    case Failed():
                        raise MigrationError(answer, tuple(one.text for one in answers if isinstance(one, LogLine)))
                    case Chain() | Finished():
                        return answers
            raise MigrationError(Failed(Cause.DIED, f"the process for Alembic ended: {await child.ended()}"))
    except TimeoutError as error:
        said = f"Alembic did not answer within {within:g} s: env.py hangs, or waits for a lock"
        raise MigrationError(Failed(Cause.SILENT, said)) from error
    except (Garbled, OSError) as error:
        raise MigrationError(Failed(Cause.DIED, f"the process for Alembic failed: {error}")) from error
