"""The passes in which a window of a table is filled, each a share of its rows. Pure.

The first pass frees room on every page; once it is committed, what it left behind is pruned, and each later pass finds
room for its rows on their own page: HOT updates, which write no index entry and hardly any new page. A row mostly grows
by being filled, and a page has now one row more of a stripe and now one less: so the first pass takes half as much
again as the others, and theirs fit. Measured on 18 (1 M rows, 41 a page): eight even passes take 3.75 us a row, these
3.3 to 3.5, one UPDATE of the whole table 5.2; other splits (4 + 4 x 3 sixteenths, 4 + 6 x 2, 4 x 3 + 2 x 2) lie
between.
"""

from __future__ import annotations

STRIPES = 17
"""A row is of one of so many, by a number of its own: a prime, so that keys with a step between them fall into all."""
PASSES = 8
"""Over a window that is walked in stripes."""


def stripes(of: int, number: int) -> tuple[int, int]:
    """The first and the last stripe that pass *number* (from 0) of so many takes: three, and then two each."""
    if of == 1:
        return 0, STRIPES - 1
    return (0, 2) if number == 0 else (2 * number + 1, 2 * number + 2)


def share(of: int, number: int = 0) -> float:
    """The share of a window's rows that a pass takes; the first takes the largest."""
    first, last = stripes(of, number)
    return (last - first + 1) / STRIPES
