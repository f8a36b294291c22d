"""What several connections fill side by side: cut into pieces for them, until it is time for the cursor to follow.

Where stripes pay, a round is of several windows, and each hand goes over its own, pass after pass (`passes.together`):
what a pass leaves behind on a page is pruned by the next one only once no transaction of another hand is older, and
until then it fills elsewhere. Plainly, each piece is a round of its own.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import ceil

from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.crew import Piece
from dbwatch.backfill.keys import Key
from dbwatch.backfill.legs import Leg
from dbwatch.backfill.pace import FULL
from dbwatch.backfill.part import Filled, Part, Timeouts
from dbwatch.backfill.passes import Batch, Light, cuts, share, together
from dbwatch.backfill.worker import BatchWorker
from dbwatch.clock import Clock

TOGETHER_S = 1.0
"""How long several workers fill until the cursor follows, and somebody looks whether they may go on."""
WINDOWS_EACH = 5
"""Windows of a round for each connection. Measured with two on 18 (2 M rows): with one window each HOT is 0.65 and the
heap 1.38, with two 0.76 and 1.26; a single connection has 0.82 and 1.20. One batch for a light pass over several
windows is a third cheaper for our side, but its snapshot is as old as it is long: 0.70 and 1.32, with ten 0.77 and
1.25."""
BESIDE = 0.7
"""Share of a batch's size that each takes: side by side they meet at the end of the table and at the disk, and what a
row costs varies more. Measured with 100 ms: of 0.9 one batch in a hundred takes 85 to 111 ms, of 0.7 45 to 70."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """So many keys above *lo* up to *hi*: what the first pass takes of a window in one batch."""

    lo: Key | None
    hi: Key
    keys: int

    def with_all(self, others: Sequence[_Cut]) -> _Cut:
        """Together with those that follow it."""
        last = others[-1] if others else self
        return _Cut(self.lo, last.hi, self.keys + sum(cut.keys for cut in others))


@dataclass(frozen=True, slots=True)
class Round:
    """Pieces of which the cursor passes all or none."""

    hi: Key
    keys: int
    pieces: Sequence[Piece]

    @property
    def filled(self) -> bool:
        return all(piece.filled is not None for piece in self.pieces)


class Cutter:
    """Cuts what lies above a cursor on a leg into pieces, until its time is over."""

    def __init__(
        self,
        session: BatchSession,
        worker: BatchWorker,
        clock: Clock,
        timeouts: Timeouts,
        leg: Leg,
        *,
        lo: Key | None,
        top: Key | None,
        passes: int,
        light: Light,
        hands: int,
        most: int = sys.maxsize,
        wait: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.rounds: list[Round] = []
        self._session = session
        self._worker = worker
        self._clock = clock
        self._timeouts = timeouts
        self._leg = leg
        self._statements = leg.statements
        self._lo = lo
        self._top = top
        self._passes = passes
        pace = worker.pace
        size = max(1, round(BESIDE * pace.size))
        window = light.window(size, passes, pace.target_s, pace.lighter)
        self._cuts = cuts(window * share(passes), size)
        self._keys = ceil(window / self._cuts)
        own = self._keys * share(passes)
        heavy = max(1, int(pace.message_s / (pace.target_s * own / pace.size)))
        light_keys = (window * share(passes, number) for number in range(1, passes))
        self._fit = [heavy, *(light.fit(FULL * pace.message_s, keys) for keys in light_keys)]
        self._hands = hands
        self._most = most
        self._wait = wait
        self._left = worker.pace.most_per_s or sys.maxsize
        self._until = clock.monotonic() + TOGETHER_S
        self._coming: deque[Piece] = deque()

    async def cut(self) -> Piece | None:
        """The next piece; None where the time is over, nothing is left, or no further batch may begin."""
        if self._wait is not None:
            await self._wait()
        if not self._worker.goes_on:
            return None
        if not self._coming and len(self.rounds) < self._most and self._clock.monotonic() < self._until:
            await self._begin_round()
        return self._coming.popleft() if self._coming else None

    def passed(self) -> Sequence[Round]:
        """The rounds below which all is filled, without a gap."""
        return list(takewhile(lambda each: each.filled, self.rounds))

    def done(self) -> list[tuple[Part, int, Filled]]:
        """What was filled, with the keys of each part: window by window, in the order of its passes."""
        order: dict[Key, int] = {}
        found: list[tuple[int, Part, int, Filled]] = []
        for piece in (piece for each in self.rounds for piece in each.pieces):
            places = [order.setdefault(window, len(order)) for window in piece.windows]
            found += zip(places, piece.parts, piece.keys, piece.filled or (), strict=False)
        found.sort(key=lambda one: (one[0], one[1].number))
        return [(part, keys, filled) for _, part, keys, filled in found]

    async def _begin_round(self) -> None:
        windows: list[list[_Cut]] = []
        for _ in range(1 if self._passes == 1 else self._hands * WINDOWS_EACH):
            window = [cut for _ in range(self._cuts) if (cut := await self._cut()) is not None]
            if not window:
                break
            windows.append(window)
        if windows:
            messages = together([len(window) for window in windows], self._hands, self._fit)
            pieces = [self._piece(windows, message) for message in messages]
            keys = sum(cut.keys for window in windows for cut in window)
            self.rounds.append(Round(windows[-1][-1].hi, keys, pieces))
            self._coming.extend(pieces)

    async def _cut(self) -> _Cut | None:
        keys, lo = min(self._left, self._keys), self._lo
        if keys <= 0:
            return None
        hi, _ = await self._session.edge(self._statements, lo, self._top, keys, self._timeouts)
        if hi is None:
            return None
        if self._leg.by_pages:
            keys = self._leg.pages.rows_of(lo, hi)
        self._left -= keys
        self._lo = hi
        return _Cut(lo, hi, keys)

    def _piece(self, windows: Sequence[Sequence[_Cut]], message: Sequence[Batch]) -> Piece:
        parts, keys = [], []
        for number, window, n in message:
            first, *others = windows[window][n:]
            taken = first.with_all(others) if number else first
            parts.append(Part(self._statements, taken.lo, taken.hi, 0, None, number, self._passes, moves=False))
            keys.append(max(1, round(taken.keys * share(self._passes, number))))
        return Piece(tuple(parts), tuple(keys), tuple(windows[window][-1].hi for _, window, _ in message))
