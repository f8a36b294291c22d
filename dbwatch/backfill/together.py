"""What several connections fill side by side: cut into pieces for them, until it is time for the cursor to follow.

Where stripes pay, a round is of several windows, and each hand goes over its own, pass after pass (`passes.together`):
what a pass leaves behind on a page is pruned by the next one only once no transaction of another hand is older, and
until then it fills elsewhere. Plainly, each piece is a round of its own.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.crew import Piece
from dbwatch.backfill.cursor import Window
from dbwatch.backfill.keys import Key
from dbwatch.backfill.legs import Leg
from dbwatch.backfill.pace import FULL
from dbwatch.backfill.part import Filled, Part, Timeouts
from dbwatch.backfill.passes import Light, share, together
from dbwatch.backfill.worker import BatchWorker
from dbwatch.clock import Clock

TOGETHER_S = 1.0
"""How long several workers fill until the cursor follows, and somebody looks whether they may go on."""
WINDOWS_EACH = 5
"""Windows of a round for each connection. Measured with two on 18 (2 M rows): with one window each HOT is 0.65 and the
heap 1.38, with two 0.76 and 1.26; a single connection has 0.82 and 1.20. One batch for a light pass over several
windows is a third cheaper for our side, but its snapshot is as old as it is long: 0.70 and 1.32, with ten 0.77 and
1.25."""
BESIDE = 0.9
"""Share of a batch's size that each takes: side by side they meet at the end of the table and at the disk, and what a
row costs varies more."""


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
        self._keys = max(1, round(BESIDE * worker.pace.size / share(passes)))
        pace = worker.pace
        heavy = max(1, int(pace.message_s / pace.target_s))
        light_keys = (self._keys * share(passes, number) for number in range(1, passes))
        self._fit = [heavy, *(light.fit(FULL * pace.message_s, keys) for keys in light_keys)]
        self._hands = hands
        self._most = most
        self._left = worker.pace.most_per_s or sys.maxsize
        self._until = clock.monotonic() + TOGETHER_S
        self._coming: deque[Piece] = deque()

    async def cut(self) -> Piece | None:
        """The next piece; None where the time is over, nothing is left, or no further batch may begin."""
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
        found: list[tuple[Part, int, Filled]] = []
        for piece in (piece for each in self.rounds for piece in each.pieces):
            for part in piece.parts:
                order.setdefault(part.hi, len(order))
            found += zip(piece.parts, piece.keys, piece.filled or (), strict=False)
        return sorted(found, key=lambda one: (order[one[0].hi], one[0].number))

    async def _begin_round(self) -> None:
        lows, windows = [], []
        for _ in range(1 if self._passes == 1 else self._hands * WINDOWS_EACH):
            window = await self._window()
            if window is None:
                break
            lows.append(self._lo)
            windows.append(window)
            self._lo = window.hi
        if windows:
            pieces = [
                Piece(
                    tuple(self._part(lows[one], windows[one], number) for number, one in message),
                    tuple(max(1, round(windows[one].keys * share(self._passes, number))) for number, one in message),
                )
                for message in together(len(windows), self._hands, self._fit)
            ]
            self.rounds.append(Round(windows[-1].hi, sum(window.keys for window in windows), pieces))
            self._coming.extend(pieces)

    async def _window(self) -> Window | None:
        keys = min(self._left, self._keys)
        if keys <= 0:
            return None
        hi, _ = await self._session.edge(self._statements, self._lo, self._top, keys, self._timeouts)
        if hi is None:
            return None
        if self._leg.by_pages:
            keys = self._leg.pages.rows_of(self._lo, hi)
        self._left -= keys
        return Window(hi, keys, self._passes)

    def _part(self, lo: Key | None, window: Window, number: int) -> Part:
        return Part(self._statements, lo, window.hi, 0, None, number, self._passes, moves=False)
