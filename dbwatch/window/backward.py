"""An abort's downgrade, heard: shown at once, kept before it is committed; its retries wait no longer than need be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Protocol

from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError
from dbwatch.journal.events import AbortActionNoted, DdlSeen, Fact
from dbwatch.migration import events as me
from dbwatch.migration.ddl import Named
from dbwatch.steps import progress as shown
from dbwatch.steps.migrate import journalled_alone
from dbwatch.steps.progress import MigrationProgress
from dbwatch.window.knocking import ATTEMPTS, Lookout


class Record(Protocol):
    """Writes facts into the journal, or its local copy; False where neither takes them."""

    def __call__(self, *facts: Fact) -> Awaitable[bool]: ...


class Scribe:
    """Turns the engine's events into what is shown and into what is journalled.

    The DDL of a way back is ours as much as that of a step. It stands under the negative number of the step's attempt,
    so that nobody takes it for what the step did.
    """

    def __init__(
        self, step: str, attempt: int, number: int, show: Callable[[MigrationProgress], None], lookout: Lookout,
        record: Record,
    ) -> None:  # fmt: skip
        self._step, self._attempt, self._number = step, -max(1, attempt), number
        self._show, self._lookout, self._record = show, lookout, record
        self._progress = shown.started(step, ATTEMPTS)
        self._sent: dict[int, DdlSeen] = {}
        self._try = 1

    def hear(self, event: me.Event) -> None:
        """Called by the engine; returns at once."""
        self._progress = shown.after(self._progress, event)
        match event:
            case me.Connected(pid=pid):
                self._lookout.pid, self._lookout.seen = pid, ()
            case me.Retrying() | me.Finished() | me.Failed():
                self._lookout.pid = None
        if isinstance(event, me.Retrying) and self._lookout.words:
            note = f"{self._progress.note}; it waited for {self._lookout.words}"
            self._progress = replace(self._progress, note=note)
        self._show(self._progress)

    async def keep(self, events: Sequence[me.Event]) -> None:
        """Journals *events*. Raises as `Store.record` does, and DbwatchError where they can be kept nowhere."""
        heard = [(self._fact(event), journalled_alone(self._step, self._attempt, event)) for event in events]
        facts = [fact for both in heard for fact in both if fact is not None]
        if facts and not await self._record(*facts):
            raise DbwatchError("neither the journal nor its local copy can be written", next="make room, and go on")

    def _fact(self, event: me.Event) -> Fact | None:
        match event:
            case me.StatementStarted() as e if e.objects or not e.known:
                n = e.n + 1000 * (self._try - 1)
                objects = [_plain(o) for o in e.objects]
                seen = DdlSeen(
                    self._step, self._attempt, n, e.revision or "", e.sql, e.autocommit, False, e.known, objects
                )
                self._sent[e.n] = seen
                return seen
            case me.StatementDone() as e if e.n in self._sent:
                seen = self._sent[e.n]
                made = [_plain(o) for o in e.objects]
                kept = [o for o in seen.objects if not any(_same(o, m) for m in made)]
                return replace(seen, done=True, objects=kept + made)
            case me.Retrying(attempt=attempt):
                self._try = attempt
                return AbortActionNoted(self._number, self._progress.note)
            case me.Stopping():
                return AbortActionNoted(self._number, self._progress.note)
        return None


def _plain(named: Named) -> dict[str, object]:
    return {**asdict(named), "action": str(named.action)}


def _same(one: dict[str, object], other: dict[str, object]) -> bool:
    return all(one[k] == other[k] for k in ("action", "kind", "name", "parent"))


class Nudged:
    """A clock whose longer sleeps end early, once nobody is in the way any more."""

    def __init__(self, clock: Clock, lookout: Lookout, stop: asyncio.Event) -> None:
        self._clock, self._lookout, self._stop = clock, lookout, stop

    def monotonic(self) -> float:
        """As the clock."""
        return self._clock.monotonic()

    def now(self) -> datetime:
        """As the clock."""
        return self._clock.now()

    def server_said(self, at: datetime) -> None:
        """As the clock."""
        self._clock.server_said(at)

    async def sleep(self, seconds: float) -> None:
        """For so long at most."""
        if seconds > 0.3 and self._lookout.seen:
            await self._lookout.pause(seconds, self._stop)
        else:
            await self._clock.sleep(seconds)
