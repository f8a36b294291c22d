"""The passes in which a window of a table is filled, each a share of its rows. Pure.

The first pass frees room on every page; once it is committed, what it left behind is pruned, and each later pass finds
room for its rows on their own page: HOT updates, which write no index entry and hardly any new page. A row mostly grows
by being filled, so that the room on a page dwindles, and a page has now one row more of a stripe and now one less: so
the passes become smaller and smaller. Measured on 18 (1 M rows, 41 a page, COMMITs that do not wait): one UPDATE of the
whole table takes 6.0 us a row; 11 passes (3 stripes of 23, then 2 each) 3.5 to 3.7 with a heap of 1.20; these nine 3.3
to 3.5 with 1.20; eight (5, 4, 3, 3, 2, 2, 2, 2) 3.6 with 1.25. With fillfactor 85 (one UPDATE: 5.5 us): 11 passes 2.5
with 1.02, these nine 2.4 with 1.04, nine in the opposite order 2.6 with 1.07.

A batch has a bounded time, and a row of the first pass costs several times one of a light pass. So a window is larger
than one batch of its first pass, which takes it cut up. Measured on 18 beside an application at 1,050 tps (2 cores, 2 M
rows): 1,650 batches instead of 3,400 with windows of one batch. There 11 passes take 25 to 28 s and leave its p99 at 10
to 12 ms, nine 24 to 26 s at 18 to 21 ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import ceil

STRIPES = 23
"""A row is of one of so many, by a number of its own: a prime, so that keys with a step between them fall into all."""
PASSES, PASSES_AMONG_OTHERS = 9, 11
"""Over a window that is walked in stripes."""
_SHAPES = {1: (STRIPES,), PASSES: (4, 3, 3, 3, 2, 2, 2, 2, 2), PASSES_AMONG_OTHERS: (3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2)}
"""How many stripes each of so many takes."""


def stripes(of: int, number: int) -> tuple[int, int]:
    """The first and the last stripe that pass *number* (from 0) of so many takes."""
    shape = _SHAPES[of]
    first = sum(shape[:number])
    return first, first + shape[number] - 1


def cuts(keys: float, size: float) -> int:
    """Into how many batches of *size* keys so many are cut."""
    return max(1, ceil(keys / size - SPARED))


def share(of: int, number: int = 0) -> float:
    """The share of a window's rows that a pass takes; the first takes the largest."""
    first, last = stripes(of, number)
    return (last - first + 1) / STRIPES


WINDOW_MOST = 40_000
"""Rows in a window of stripes."""
LIGHT = 0.7
"""Share of a batch's time that a light pass over a window is to take: what it takes varies."""
SPARED = 0.25
"""Of a batch: so much more is taken along rather than left for another one."""
_REMEMBERS = 0.9
"""How much of the longest pass is remembered at each further one: a third after the passes of a window."""
_WEIGHS = 0.2
"""How much the newest one counts for the mean."""


@dataclass(frozen=True, slots=True)
class Light:
    """What the light passes take of late, in seconds a key: those that are not the first of their window."""

    mean: float = 0.0
    """0: there was none yet."""
    longest: float = 0.0

    def after(self, seconds: float, keys: int) -> Light:
        """With a further one, of so many *keys*."""
        each = seconds / keys
        mean = self.mean + _WEIGHS * (each - self.mean) if self.mean else each
        return Light(mean, max(each, _REMEMBERS * self.longest))

    def window(self, size: int, of: int, target_s: float, at_worst: float) -> int:
        """Rows of a window for so many passes, where a batch of *size* heavy rows takes about *target_s*.

        As large as one batch of the first pass; larger, so that the first pass takes it in several, as far as a light
        pass is known to fit: it is cheaper by the row, and each batch costs something by itself. Even if none of its
        updates were HOT it would take no longer than *at_worst* batches.
        """
        least = size / share(of)
        if of == 1 or not self.longest:
            return round(least)
        fits = LIGHT * target_s / self.longest
        return round(max(least, min(WINDOW_MOST, min(fits, at_worst * size) / share(of, 1))))

    def fit(self, within_s: float, keys: float) -> int:
        """How many of so many *keys* fit into so much time, where one of them may take as long as the longest; 0 while
        nobody knows."""
        if not self.mean:
            return 0
        return 1 + max(0, int((within_s / keys - self.longest) / self.mean))


Batch = tuple[int, int, int]
"""The number of a pass from 0, of a window, and of the cut in which that pass takes it."""


def together(cuts: Sequence[int], hands: int, fit: Sequence[int]) -> Iterator[list[Batch]]:
    """The messages in which several *hands* take their passes over windows, in their order: each some batches. The
    first pass takes a window in so many *cuts*, the others as a whole; a message takes as many batches as *fit* says of
    each pass, at most.

    Each hand has neighbouring windows, and goes over all of them with one pass after the other; what one pass left
    behind in a window can be pruned by the next, for that is a batch of its own.
    """
    most = -(-len(cuts) // hands)
    blocks = [range(first, min(len(cuts), first + most)) for first in range(0, len(cuts), most)]
    for turn in zip_longest(*(_messages(block, cuts, fit) for block in blocks)):
        yield from filter(None, turn)


_ROUNDED = 1e-9
"""By so much shares of a message may miss the whole."""


def _messages(windows: range, cuts: Sequence[int], fit: Sequence[int]) -> Iterator[list[Batch]]:
    message: list[Batch] = []
    left = 1.0
    for number, most in enumerate(fit):
        each = 1 / max(1, most)
        taken = ((number, one, cut) for one in windows for cut in range(1 if number else cuts[one]))
        for batch in taken:
            if message and (left < each - _ROUNDED or message[-1][0] < number == 1):
                yield message
                message, left = [], 1.0
            message.append(batch)
            left -= each
    if message:
        yield message
