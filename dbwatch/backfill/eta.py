"""Between when and when a walk will be over, by the spread of its own recent rates. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

MEMORY_S = 240.0
"""How far back the rates are looked at: what was slow before says little of the end."""
STRETCHES = 8
LEAST_S = 8.0
"""Less than that is stretches of under a second, and one batch more or less makes all the difference: unknown."""

Seen = tuple[float, int]
"""Seconds at work, and the keys that were passed by then."""


def spread(seen: Sequence[Seen], left: int) -> tuple[float | None, float | None]:
    """The earliest and the latest end that are likely, in seconds from now, with so many keys *left*.

    The last MEMORY_S of what was *seen*, oldest first, are cut into STRETCHES of equal length, each with its rate:
    rests, and pauses for the server's health, are in it, for they will come again. The range is what is left at the
    second fastest of them and at the second slowest: six of eight stretches lay within. (None, None): too little was
    seen to say. The latest alone is None where two stretches stood still: at such a rate it never ends.

    How the rates were spread is all that it knows: that the rest of the table is like the part that was walked is
    assumed, and the final scan is not in it.
    """
    if left <= 0:
        return 0.0, 0.0
    if not seen or seen[-1][0] - seen[0][0] < LEAST_S:
        return None, None
    end = seen[-1][0]
    begin = max(seen[0][0], end - MEMORY_S)
    step = (end - begin) / STRETCHES
    passed = [_passed(seen, begin + n * step) for n in range(STRETCHES + 1)]
    rates = sorted((later - sooner) / step for sooner, later in pairwise(passed))
    slow, fast = rates[1], rates[-2]
    if fast <= 0:
        return None, None
    return left / fast, left / slow if slow > 0 else None


def _passed(seen: Sequence[Seen], at: float) -> float:
    """The keys passed by then, on the line between the two that were seen around it."""
    after = min(bisect_left(seen, at, key=lambda one: one[0]), len(seen) - 1)
    if after == 0:
        return float(seen[0][1])
    (x0, y0), (x1, y1) = seen[after - 1], seen[after]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0) if x1 > x0 else float(y1)
