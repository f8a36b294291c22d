"""A patient step's eyes: waits outside until its way is clear, and watches who queues behind it while it knocks."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg

from dbwatch.errors import DbwatchError
from dbwatch.journal.events import StepNoted
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Limits, describe
from dbwatch.steps import behind, patience
from dbwatch.steps.behind import Behind, Queue
from dbwatch.steps.patience import KNOCK_MS, LOOK_S, NOTE_EVERY_S, GiveUp, Knock, Needs, Patience, Seen, Wait
from dbwatch.steps.step import Failed, Kit
from dbwatch.text import one_line

FAST_S, SLOW_S = 0.02, 0.25
"""How often it is looked who queues behind us: at the beginning of a statement, and later on."""
FAST_FOR_S = 1.0

Show = Callable[[Patience, str, int | None], None]
"""Takes how far the patience is, for whom the step waits now (empty: nobody), and the backend of ours that knocks."""


class Waiting:
    """The patience of one step that runs."""

    def __init__(self, kit: Kit, step: str, patient_s: float, needs: Needs, show: Show) -> None:
        now = kit.clock.monotonic()
        self.state = Patience(now, now + patient_s)
        self.needs = needs
        """What has to be free; may be set anew between two knocks."""
        self._kit, self._step, self._show = kit, step, show
        self._queue = Queue()
        self._stirred = now
        self._noted: tuple[float, frozenset[str]] = (float("-inf"), frozenset())

    async def until_clear(self) -> Failed | None:
        """Returns when it is time to knock; or with the step's end, where it was stopped or the patience is over.

        Raises Fenced as `Store.record` does.
        """
        kit = self._kit
        while not kit.stop.is_set():
            now = kit.clock.monotonic()
            try:
                self.state, move = patience.looked(self.state, await self._look(), now)
            except (DbwatchError, psycopg.Error) as error:  # what cannot be seen is not clear
                blind = f"a sight of who is in the way: {describe(error)}"
                move = Wait(LOOK_S, blind) if now < self.state.until else GiveUp(f"it waited for {blind}")
            match move:
                case Knock():
                    self.state = replace(self.state, knocks=self.state.knocks + 1)
                    self._show(self.state, "", None)
                    self.stir()
                    return None
                case GiveUp(why=why):
                    return Failed(why, again=True)
                case Wait(seconds=seconds, whom=whom):
                    self._show(self.state, whom, None)
                    await self._note(whom, now)
                    await self._pause(seconds)
        return Failed("stopped while it waited until its way was clear", again=True, stopped=True)

    def found_closed(self) -> None:
        """The knock was in vain."""
        now = self._kit.clock.monotonic()
        self.state = patience.knocked(self.state, self._kit.in_the_way(), now, random.random())

    @asynccontextmanager
    async def watching(self, pid: Callable[[], int | None]) -> AsyncIterator[None]:
        """Sees within who queues behind our backend *pid*, once there is one."""
        watching = asyncio.create_task(self._watch(pid))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait({watching})
            self._take(behind.after(self._queue, [], self._kit.clock.monotonic()))

    def stir(self) -> None:
        """A statement begins: now somebody may come to queue behind it."""
        self._stirred = self._kit.clock.monotonic()

    async def _look(self) -> list[Seen]:
        session = await self._kit.control.session()
        flat = [(need.schema, need.name, held) for need in self.needs.relations for held in sorted(need.held)]
        schemas, names, helds = zip(*flat, strict=True) if flat else ((), (), ())
        wish = {
            "schemas": list(schemas),
            "names": list(names),
            "helds": list(helds),
            "snapshots": self.needs.snapshots,
            "schema": self.needs.schema,
            "ours": f"dbwatch % {self._kit.fence.tag}",
        }
        found = await session.fetch(Seen, query("patience", session.server_version), wish, within=3.0)
        return [replace(s, who=one_line(s.who, 100), relation=one_line(s.relation, 100)) for s in found]

    async def _watch(self, pid: Callable[[], int | None]) -> None:
        clock, shown = self._kit.clock, None
        while True:
            if (ours := pid()) is not None:
                if ours != shown:
                    self._show(self.state, "", ours)
                    shown = ours
                with contextlib.suppress(DbwatchError, psycopg.Error):  # the next look may see again
                    session = await self._kit.control.session()
                    sql = query("patience-queue", session.server_version)
                    seen = await session.fetch(Behind, sql, {"pid": ours}, within=2.0)
                    self._take(behind.after(self._queue, seen, clock.monotonic()))
                    if seen:
                        self._show(self.state, "", ours)
            fresh = clock.monotonic() - self._stirred < FAST_FOR_S
            await clock.sleep(FAST_S if fresh else SLOW_S)

    def _take(self, queue: Queue) -> None:
        self._queue = queue
        if queue.worst_s > self.state.queued_s:
            self.state = replace(self.state, queued_s=queue.worst_s)

    async def _note(self, whom: str, now: float) -> None:
        """Journals for whom it waits: the first time, and where that changed, every now and then."""
        at, told = self._noted
        if whom and now - at >= NOTE_EVERY_S and (self.state.old != told or not self.state.old):
            self._noted = (now, self.state.old)
            await self._kit.record(StepNoted(self._step, f"waits for {whom}"))

    async def _pause(self, seconds: float) -> None:
        """Waits so long, or until the stop."""
        waits = {
            asyncio.ensure_future(self._kit.clock.sleep(seconds)),
            asyncio.ensure_future(self._kit.stop.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)


def knocking(limits: Limits) -> Limits:
    """*limits* for a knock: others queue behind it no longer than that."""
    return replace(limits, lock_timeout_ms=min(KNOCK_MS, limits.lock_timeout_ms or KNOCK_MS))
