"""The passes in which a window of a table is filled, each a share of its rows. Pure.

The first pass frees room on every page; once it is committed, what it left behind is pruned, and each later pass finds
room for its rows on their own page: HOT updates, which write no index entry and hardly any new page. A row mostly grows
by being filled, and a page has now one row more of a stripe and now one less: so the first pass takes half as much
again as the others, and theirs fit. Measured on 18 (1 M rows, 41 a page, COMMITs that do not wait): one UPDATE of the
whole table takes 6.7 us a row; eight passes of seventeenths (3 + 7 x 2) 3.9 with a heap of 1.23; these eleven 3.7 to
4.2 with 1.20; more and smaller ones (5 + 18 x 2 of 41) 4.3 to 4.5 with 1.16: each looks at every row of the window.

Where pages have room from the beginning, by a fillfactor or because rows went, already the first pass is HOT, and fewer
and larger ones do. Measured likewise with fillfactor 85 (one UPDATE: 5.5 us): eleven passes 2.8 with 1.02, eight
(8 x 3) 2.5 with 1.05, which was 1.064 once a plain stretch had been timed too, six (4 of 23 each) 2.5 with 1.10.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

STRIPES = 23
"""A row is of one of so many, by a number of its own: a prime, so that keys with a step between them fall into all."""
PASSES = 11
"""Over a window that is walked in stripes."""
PASSES_WITH_ROOM = 9
"""The same where pages have room from the beginning: then the first costs no more than the others."""
_FIRST = 3
"""Stripes of the first pass."""


def stripes(of: int, number: int) -> tuple[int, int]:
    """The first and the last stripe that pass *number* (from 0) of so many takes: three, and what is left is shared
    out among the others."""
    if of == 1:
        return 0, STRIPES - 1
    if number == 0:
        return 0, _FIRST - 1
    left, others = STRIPES - _FIRST, of - 1
    return _FIRST + left * (number - 1) // others, _FIRST + left * number // others - 1


def share(of: int, number: int = 0) -> float:
    """The share of a window's rows that a pass takes; the first takes the largest."""
    first, last = stripes(of, number)
    return (last - first + 1) / STRIPES


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

    def fit(self, within_s: float, keys: float) -> int:
        """How many of so many *keys* fit into so much time, where one of them may take as long as the longest; 0 while
        nobody knows."""
        if not self.mean:
            return 0
        return 1 + max(0, int((within_s / keys - self.longest) / self.mean))


def together(windows: int, of: int, hands: int, at_once: int) -> Iterator[tuple[int, range]]:
    """The order in which several *hands* take *of* passes over so many *windows*: the number of the pass, and over
    which of them. The first, heavy one goes over one window at a time, the others over *at_once* at most."""
    for one in range(windows):
        yield 0, range(one, one + 1)
    step = max(1, min(at_once, -(-windows // hands)))
    for number in range(1, of):
        for one in range(0, windows, step):
            yield number, range(one, min(windows, one + step))
