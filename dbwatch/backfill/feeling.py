"""What others feel of a backfill, taken in: each reading goes through the gate, into the pace and into what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dbwatch.backfill.control import Control
from dbwatch.backfill.health import Gate, Reading, Thresholds
from dbwatch.backfill.pace import Pace
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.watch import Watch
from dbwatch.clock import Clock


class Feeling:
    """Of one run. Hears each reading of *watch* at once, and has what is under way cancelled (*cancel*) where that does
    far too much harm."""

    def __init__(
        self,
        watch: Watch,
        thresholds: Thresholds,
        clock: Clock,
        control: Control,
        reporter: Reporter,
        cancel: Callable[[], Awaitable[None]],
    ) -> None:
        self.gate = Gate(thresholds)
        self.under_way = False
        """Work that may be cancelled."""
        self.cancelled_because = ""
        """Why what is under way was cancelled; empty: it was not."""
        self._watch = watch
        self._clock = clock
        self._control = control
        self._reporter = reporter
        self._cancel = cancel
        self._cancelling: asyncio.Future[None] | None = None
        self._seen: tuple[object, ...] = ()
        """What the gate was last asked about, and when."""
        watch.heard = self._hear

    def begin(self, *, cancellable: bool) -> None:
        """Something is under way from here on."""
        self.under_way, self.cancelled_because = cancellable, ""

    @property
    def allows(self) -> bool:
        """Whether a further batch may begin, as far as is known at this instant."""
        return self.gate.open and not self.cancelled_because

    def take_in(self, pace: Pace) -> Pace:
        """*pace* after what the server said since."""
        reading = self._watch.reading
        self._see(reading)
        if reading is None or reading.at == pace.felt_at:
            return pace
        memory = self.gate.memory
        self._reporter.blocked = len(reading.waiters)
        return pace.feel(self.gate.load, reading.at).among(memory.others, memory.busy)

    async def end(self) -> None:
        """Waits for nothing longer than a second."""
        if self._cancelling is not None:
            self._cancelling.cancel()
            await asyncio.wait({self._cancelling}, timeout=1.0)

    def _see(self, reading: Reading | None) -> None:
        """Asks the gate, where there is something new to ask: a reading, a person's word, or its age."""
        now = self._clock.monotonic()
        overridden = self._control.overridden(now)
        seen = (reading and reading.at, *overridden, now // (self.gate.thresholds.poll_s / 4))
        if seen == self._seen:
            return
        self._seen = seen
        self.gate = self.gate.see(reading, now, overridden)
        reporter = self._reporter
        reporter.overridden, reporter.warnings = overridden, self.gate.warnings
        reporter.signal, reporter.heap = self.gate.signal, self._watch.heap
        reporter.usual = self.gate.memory.usual(self.gate.thresholds, self._watch.usual_ms)

    def _hear(self, reading: Reading) -> None:
        """A new reading, while a batch may be under way."""
        self._reporter.harm = self._reporter.harm.after(reading.waiters)
        self._see(reading)
        if self.under_way and self.gate.cancels and not self.cancelled_because:
            self.cancelled_because = self.gate.hurt_because
            self._cancelling = asyncio.ensure_future(self._cancel())
