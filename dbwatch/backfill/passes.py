"""The passes in which a window of a table is filled, each a share of its rows. Pure.

The first pass frees room on every page; once it is committed, what it left behind is pruned, and each later pass finds
room for its rows on their own page: HOT updates, which write no index entry and hardly any new page. A row mostly grows
by being filled, and a page has now one row more of a stripe and now one less: so the first pass takes half as much
again as the others, and theirs fit. Measured on 18 (1 M rows, 41 a page, COMMITs that do not wait): one UPDATE of the
whole table takes 6.7 us a row; eight passes of seventeenths (3 + 7 x 2) 3.9 with a heap of 1.23; these eleven 3.7 to
4.2 with 1.20; more and smaller ones (5 + 18 x 2 of 41) 4.3 to 4.5 with 1.16: each looks at every row of the window.

Where pages have room from the beginning, by a fillfactor or because rows went, already the first pass is HOT, and fewer
and larger ones do. Measured likewise with fillfactor 85 (one UPDATE: 5.5 us): eleven passes 2.8 with 1.02, these eight
(8 x 3) 2.5 with 1.05, six (4 of 23 each) 2.5 with 1.10.
"""

from __future__ import annotations

from collections.abc import Iterator

STRIPES = 23
"""A row is of one of so many, by a number of its own: a prime, so that keys with a step between them fall into all."""
PASSES = 11
"""Over a window that is walked in stripes."""
PASSES_WITH_ROOM = 8
"""The same where pages have room from the beginning."""
_FIRST = 3
"""Stripes of the first pass."""


def stripes(of: int, number: int) -> tuple[int, int]:
    """The first and the last stripe that pass *number* (from 0) of so many takes: three, and then as many each as it
    takes."""
    if of == 1:
        return 0, STRIPES - 1
    if number == 0:
        return 0, _FIRST - 1
    each = -(-(STRIPES - _FIRST) // (of - 1))
    first = _FIRST + each * (number - 1)
    return first, min(STRIPES, first + each) - 1


def share(of: int, number: int = 0) -> float:
    """The share of a window's rows that a pass takes; the first takes the largest."""
    first, last = stripes(of, number)
    return (last - first + 1) / STRIPES


def together(windows: int, of: int, hands: int, at_once: int) -> Iterator[tuple[int, range]]:
    """The order in which several *hands* take *of* passes over so many *windows*: the number of the pass, and over
    which of them. The first, heavy one goes over one window at a time, the others over *at_once* at most."""
    for one in range(windows):
        yield 0, range(one, one + 1)
    step = max(1, min(at_once, -(-windows // hands)))
    for number in range(1, of):
        for one in range(0, windows, step):
            yield number, range(one, min(windows, one + step))
