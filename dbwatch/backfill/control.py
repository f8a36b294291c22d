"""What a person may do to a running backfill; all of it takes effect within a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from dbwatch.backfill.sight import require_known
from dbwatch.clock import Clock
from dbwatch.errors import UsageError

SLOWEST, FASTEST = -4, 3
"""Bounds of the manual speed; what a level means is `pace.Pace.at_level`'s to say."""

SHORTEST_BATCH_S, LONGEST_BATCH_S = 0.01, 10.0
"""As a plan and a runbook have it."""
LONGEST_OVERRIDE_S = 24 * 3600.0
"""For longer, start it without the signal."""


class StopRequested(Exception):
    """The control said stop: no error, a person's wish on its way out of the loops."""


class Control:
    """The hand on a running backfill. Belongs to one event loop; every method but `rest` returns at once."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._paused_because: str | None = None
        self._level = 0
        self._stopping = False
        self._aborting = False
        self._asked: dict[str, float] = {}
        self._until: dict[str, float] = {}
        self._target_s: float | None = None

    @property
    def paused_because(self) -> str | None:
        """Who or what paused it, in plain words; None where it may run."""
        return self._paused_because

    @property
    def level(self) -> int:
        """Manual speed, SLOWEST to FASTEST; 0 is as planned."""
        return self._level

    @property
    def target_s(self) -> float | None:
        """What a batch should take, as a person said since it began; None: as planned."""
        return self._target_s

    @property
    def stopping(self) -> bool:
        """The batch under way is finished, and then it ends."""
        return self._stopping

    @property
    def aborting(self) -> bool:
        """A cancelled batch is not to be tried again: somebody cancels the worker right now."""
        return self._aborting

    def pause(self, because: str = "paused by hand") -> None:
        """No further batch until `resume`; the one under way is finished."""
        self._paused_because = because
        self._changed.set()

    def resume(self) -> None:
        """Lets it run again; where it runs, nothing happens."""
        self._paused_because = None
        self._changed.set()

    def faster(self) -> None:
        """One level up; at FASTEST nothing happens."""
        self._level = min(FASTEST, self._level + 1)
        self._changed.set()

    def slower(self) -> None:
        """One level down; at SLOWEST nothing happens."""
        self._level = max(SLOWEST, self._level - 1)
        self._changed.set()

    def aim(self, seconds: float) -> None:
        """From the next batch on, one should take so many seconds. Raises UsageError where that is out of range."""
        if not SHORTEST_BATCH_S <= seconds <= LONGEST_BATCH_S:
            raise UsageError(f"a batch time of {seconds * 1000:g} ms is out of range", next="choose 10 ms to 10 s")
        self._target_s = seconds
        self._changed.set()

    def stop(self) -> None:
        """Finish the batch under way, then end."""
        self._stopping = True
        self._changed.set()

    def abort(self) -> None:
        """End at once: call this, then cancel the worker named in the progress. Its batch is rolled back."""
        self._aborting = True
        self.stop()

    def override(self, signal: str, seconds: float) -> None:
        """Does not look at the health signal *signal* for so many seconds; 0 looks at it again at once.

        Raises UsageError where there is no such signal, or the time is no time.
        """
        require_known([signal])
        if not 0 <= seconds <= LONGEST_OVERRIDE_S:
            raise UsageError(f"a signal is not overridden for {seconds:g} s", next="choose up to 24 h")
        self._asked[signal] = seconds
        self._changed.set()

    def overridden(self, now: float) -> Mapping[str, float]:
        """The signals that are not looked at, and the seconds that each is left out yet, at *now* on the clock of
        whoever runs the backfill: time runs from the first time this is asked."""
        self._until |= {signal: now + seconds for signal, seconds in self._asked.items()}
        self._asked = {}
        self._until = {signal: until for signal, until in self._until.items() if until > now}
        return {signal: until - now for signal, until in self._until.items()}

    async def rest(self, clock: Clock, seconds: float) -> bool:
        """Sleeps for *seconds*, or until something above is called, whichever comes first; whether nothing was."""
        self._changed.clear()
        if seconds <= 0 or self._stopping:
            await asyncio.sleep(0)
            return not self._stopping
        sleeping = asyncio.ensure_future(clock.sleep(seconds))
        changing = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({sleeping, changing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            changing.cancel()
        return not self._changed.is_set()
