"""One child process running a migration: what it says is followed, what is committed is looked up, a stop stops it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace

from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError
from dbwatch.migration.ddl import JournalledDdl
from dbwatch.migration.events import (
    Applied,
    Cause,
    Committed,
    Connected,
    Direction,
    Failed,
    Finished,
    LogLine,
    Planned,
    StatementDone,
    StatementStarted,
)
from dbwatch.migration.forked import Spawn
from dbwatch.migration.heads import committed_count, committed_heads
from dbwatch.migration.keeping import Keeper, OnEvent
from dbwatch.migration.process import Child
from dbwatch.migration.request import Ask
from dbwatch.migration.stopping import Backend, Ladder, climb
from dbwatch.migration.wire import Garbled
from dbwatch.postgres.session import Connector, Role, Session


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every attempt of a run works with."""

    connector: Connector
    control: Session
    clock: Clock
    keeper: Keeper
    stop: asyncio.Event
    ladder: Ladder
    spawn: Spawn
    ready_s: float
    """How long the child may take until it knows its way: its imports, env.py, the connection."""


@dataclass(slots=True)
class Watched:
    """What is known of an attempt so far."""

    planned: Planned | None = None
    backends: list[Backend] = field(default_factory=list)
    ddl: dict[int, JournalledDdl] = field(default_factory=dict)
    """By the statement's number; also statements of which the grammar cannot tell what they touch."""
    lasting: list[StatementStarted] = field(default_factory=list)
    """Statements that commit by themselves, and change what no fingerprint shows."""
    done: set[int] = field(default_factory=set)
    """The numbers of the statements that the server completed."""
    sequence: list[frozenset[str]] = field(default_factory=list)
    """The heads before the first step, and after each that was applied."""
    told: int = 0
    """Steps already reported as committed."""
    finished: bool = False
    failure: Failed | None = None
    stopped: bool = False
    """We took it down the ladder."""


_LOOK_EVERY_S = 0.5
_ENDED_BY_A_STOP = ("57014", "57P01")
"""query_canceled and admin_shutdown."""


class Attempt:
    """Runs one child to its end."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._ready = asyncio.Event()
        self._eyes: Session | None = None
        self._looked = 0.0
        self._heads: frozenset[str] | None = None
        """As they were when it was looked last."""
        self.watched = Watched()

    async def run(self, ask: Ask) -> Watched:
        """What became of it. The process is gone when this returns, and its connections with it."""
        watched = self.watched
        try:
            async with await Child.start(ask, self._around.spawn) as child:
                await self._mind(child, ask)
                if not watched.finished and watched.failure is None:
                    watched.failure = Failed(Cause.DIED, f"the process for Alembic ended: {await _end(child)}")
        except OSError as error:
            watched.failure = Failed(Cause.DIED, f"the process for Alembic cannot be started: {error}")
        finally:
            if self._eyes is not None:
                await self._eyes.close()
        failure = watched.failure
        if watched.stopped and failure and (failure.cause is Cause.DIED or failure.sqlstate in _ENDED_BY_A_STOP):
            watched.failure = replace(failure, cause=Cause.STOPPED)
        return watched

    async def _mind(self, child: Child, ask: Ask) -> None:
        """Follows *child* until it has said its last; stops it where it is told to, or where it never gets ready."""
        follow = asyncio.ensure_future(self._follow(child, ask.direction is Direction.UP))
        stop = asyncio.ensure_future(self._around.stop.wait())
        ready = asyncio.ensure_future(self._ready.wait())
        try:
            await asyncio.wait({follow, stop, ready}, timeout=self._around.ready_s, return_when=asyncio.FIRST_COMPLETED)
            silent = not (follow.done() or stop.done() or ready.done())
            if not silent:
                await asyncio.wait({follow, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not follow.done():
                self.watched.stopped = not silent
                around = self._around
                await climb(
                    child, follow, around.control, lambda: self.watched.backends, around.keeper.tell, around.ladder
                )
                await asyncio.wait({follow}, timeout=1.0)  # what it said last
            if silent:
                said = f"Alembic was not ready within {self._around.ready_s:g} s: env.py hangs, or waits for a lock"
                self.watched.failure = Failed(Cause.SILENT, said)
        finally:
            for task in (follow, stop, ready):
                task.cancel()
            await asyncio.wait({follow, stop, ready})
        if not follow.cancelled():
            follow.result()

    async def _follow(self, child: Child, up: bool) -> None:
        watched = self.watched
        try:
            async for answer in child.answers():
                match answer:
                    case Planned():
                        watched.planned, watched.sequence, watched.told = answer, [answer.heads], 0
                        self._ready.set()
                    case Connected(pid=pid, backend_start=start):
                        watched.backends.append((pid, start))
                    case StatementStarted():
                        self._journal(answer)
                        await self._look(up)
                    case StatementDone():
                        self._complete(answer)
                    case Applied(heads=heads):
                        await self._look(up, at_once=True)
                        watched.sequence.append(heads)
                    case Finished():
                        watched.finished = True
                    case Failed():
                        watched.failure = answer
                    case LogLine():
                        pass
                    case _:
                        continue
                self._around.keeper.tell(answer, child.acknowledge)
                if isinstance(answer, Applied):  # it may have been committed when we looked, before we had heard of it
                    tell_committed(watched, self._heads, up, self._around.keeper.tell)
                if watched.finished or watched.failure:
                    return
        except Garbled as error:
            watched.failure = Failed(Cause.DIED, str(error))

    def _journal(self, started: StatementStarted) -> None:
        if started.lasting:
            self.watched.lasting.append(started)
        if started.objects or not started.known:
            self.watched.ddl[started.n] = JournalledDdl(
                sql=started.sql,
                revision=started.revision,
                autocommit=started.autocommit,
                objects=started.objects,
                done=False,
                known=started.known,
            )

    def _complete(self, done: StatementDone) -> None:
        self.watched.done.add(done.n)
        if (statement := self.watched.ddl.get(done.n)) is not None:
            made = {(one.kind, one.schema, one.name, one.parent): one for one in done.objects}
            objects = tuple(
                made.pop((one.kind, one.schema, one.name, one.parent), one) for one in statement.objects if one.name
            )
            self.watched.ddl[done.n] = replace(statement, objects=(*objects, *made.values()), done=True)

    async def _look(self, up: bool, *, at_once: bool = False) -> None:
        """Reads the version table from a second connection, and tells which of the applied steps are committed.

        Called when more was applied, or when a statement starts: a revision with a transaction of its own has
        committed by then. Where it cannot be read now, the look after the end will tell.
        """
        watched, now = self.watched, self._around.clock.monotonic()
        if watched.planned is None or len(watched.sequence) - 1 <= watched.told:
            return
        if not at_once and now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        with contextlib.suppress(DbwatchError):
            if self._eyes is None or not self._eyes.alive:
                self._eyes = await self._around.connector.open(Role.PROBE)
            self._heads = await committed_heads(self._eyes, watched.planned)
            tell_committed(watched, self._heads, up, self._around.keeper.tell)


def tell_committed(watched: Watched, heads: frozenset[str] | None, up: bool, on_event: OnEvent) -> None:
    """Reports each step that *heads*, just read, shows committed for the first time."""
    count = committed_count(watched.sequence, heads)
    if watched.planned is not None and count > watched.told:
        for revision in watched.planned.steps[watched.told : count]:
            on_event(Committed(revision, up))
        watched.told = count


async def _end(child: Child) -> str:
    try:
        return await asyncio.wait_for(child.ended(), 3.0)
    except TimeoutError:
        return "it closed its answers and went on; it was killed"
