"""How a table is walked: plainly, or in stripes; by keys, or by the pages of its heap. Pure.

Stripes fill a window of rows in several passes (`passes.py`), most of them by HOT updates. Measured on 18 they are up
to 1.6 times as fast as one UPDATE of the whole table, with a fifth of the bloat. They lose where an index has to be
written all the same, which the catalogue tells, or where an old snapshot keeps pages from being pruned, which the share
of HOT updates tells; neither is for ever, and so both walks are timed while it runs.

By keys a walk misses no row and needs no second look, but it reads an index, and stripes of it pay only where the key
follows the heap. By pages (`pages.py`) it is faster, whatever the key: for a WHERE that SET makes untrue, since a scan
by keys comes after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dbwatch.backfill.passes import PASSES, WINDOW_MOST
from dbwatch.backfill.target import Target, WalkFacts
from dbwatch.text import one_line

CORRELATED = 0.9
"""Correlation of the key's first column with the heap, from which on stripes by keys can pay."""
ROWS_LEAST = WINDOW_MOST
"""Rows of a table below which it is not worth a thought."""
HOT_LEAST = 0.5
"""Share of HOT updates below which stripes are given up: something keeps pages from being pruned, or fills them."""
CLEARLY = 1.25
"""Where a plain walk costs so many times the stripes it is timed again only after twice as many windows."""
STRETCH = 3
"""Batches of a plain walk that are timed together."""
LOOK_FIRST, LOOK_MOST = 16, 128
"""Windows (of stripes, or as many rows' worth of plain batches) until the other walk is timed again: at first, at most.
It doubles with each look that changes nothing."""
LOOK_SOON = 4
"""The same at first after stripes that found their pages held: mostly it is a report, which ends in a moment."""
SPARSE = 0.05
"""Share of rows to be filled below which it is walked plainly: what is hardly written leaves no bloat."""
NO_WORSE = 1.5
"""Stripes may cost so many times the plain walk: they spare the table the bloat, and what is timed is never quiet."""


class Walk(StrEnum):
    """A way to walk."""

    AUTO = "auto"
    """Whichever proves cheapest."""
    KEYSET = "keyset"
    """Plainly, by keys."""
    STRIPES = "stripes"
    """By pages where that can be, else by keys."""
    PAGES = "pages"
    """Plainly, by pages."""


def why_plain(target: Target, facts: WalkFacts, rows: int) -> str:
    """Why stripes of whatever kind cannot pay on *target* of so many *rows*, by the catalogue; empty where they can."""
    if facts.indexes:
        return f"SET changes what {', '.join(map(one_line, facts.indexes))} holds: no update of it is HOT"
    if rows < ROWS_LEAST:
        return f"{rows:,} rows are too few for it"
    return ""


def why_not_by_keys(facts: WalkFacts, key: str) -> str:
    """Why stripes by keys cannot pay, where those by pages might; *key* is its first column. Empty where they can."""
    if facts.correlation is not None and facts.correlation < CORRELATED:
        return f"{one_line(key)} does not follow the heap (correlation {facts.correlation:.2f})"
    return ""


@dataclass(frozen=True, slots=True)
class Timed:
    """What a stretch of a walk cost so far."""

    rows: int = 0
    seconds: float = 0.0
    """On the server, without waiting for locks."""
    hot_rows: float = 0.0
    counted: int = 0
    """Of *rows*, those of which it is known whether they were HOT."""
    batches: int = 0

    def plus(self, rows: int, seconds: float, hot: float | None) -> Timed:
        """With a further batch; *hot* is the share of its updates that were HOT."""
        return Timed(
            self.rows + rows,
            self.seconds + seconds,
            self.hot_rows + (rows * hot if hot is not None else 0.0),
            self.counted + (rows if hot is not None else 0),
            self.batches + 1,
        )

    @property
    def cost(self) -> float:
        """Seconds a row."""
        return self.seconds / self.rows

    @property
    def hot(self) -> float | None:
        """Share of HOT updates; None where that is not known."""
        return self.hot_rows / self.counted if self.counted else None


@dataclass(frozen=True, slots=True)
class Chooser:
    """Which walk the next window takes."""

    now: Walk
    """STRIPES, or KEYSET for a plain walk of either kind."""
    fixed: bool = False
    """A person said so, or the catalogue: nothing is timed."""
    stretch: Timed = Timed()
    """Of the present walk, since it was last judged."""
    costs: Mapping[Walk, float] = field(default_factory=dict)
    """The last known cost of each."""
    hot: float | None = None
    """Share of HOT updates in the last stretch."""
    left: int = 8
    """Windows until the other one is timed; the first are small ones."""
    between: int = LOOK_FIRST
    looking: bool = False
    """The present walk is the other one, for one window."""
    sparse: bool = False
    """The last batch found hardly a row to fill."""

    @property
    def passes(self) -> int:
        """Over the next window."""
        return PASSES if self.now is Walk.STRIPES and (self.fixed or not self.sparse) else 1

    @classmethod
    def starting(cls, wanted: Walk, why_not: str) -> Chooser:
        """At the beginning: as a person *wanted*, else in stripes unless the catalogue says *why_not*."""
        if wanted is not Walk.AUTO:
            return cls(Walk.STRIPES if wanted is Walk.STRIPES else Walk.KEYSET, fixed=True)
        return cls(Walk.KEYSET, fixed=True) if why_not else cls(Walk.STRIPES)

    def after(self, rows: int, keys: int, seconds: float, hot: float | None, *, ends: bool) -> Chooser:
        """What a committed batch teaches, which changed *rows* of its *keys*; *ends*: a window ends with it."""
        sparse = rows < SPARSE * keys
        now = self if sparse == self.sparse else replace(self, sparse=sparse)
        if rows < keys / 2 or now.sparse != self.sparse:
            # a sparse stretch tells of what is skipped, not of what is written, and one window of its end of neither
            return replace(now, stretch=Timed()) if ends else now
        stretch = self.stretch.plus(rows, seconds, hot)
        if not ends or (self.now is Walk.KEYSET and stretch.batches < STRETCH):
            return replace(now, stretch=stretch)
        seen = replace(now, stretch=Timed(), hot=stretch.hot, costs={**self.costs, self.now: stretch.cost})
        return seen if self.fixed else seen._judged()

    def _judged(self) -> Chooser:
        if self.looking:
            best = self._cheaper()
            least = LOOK_SOON if self._held else LOOK_FIRST
            clear = best is Walk.STRIPES and CLEARLY * self.costs[Walk.STRIPES] <= self.costs[Walk.KEYSET]
            longer = (4 if clear else 2) * self.between
            between = LOOK_FIRST if best is self.now else min(LOOK_MOST, max(least, longer))
            return replace(self, now=best, looking=False, left=between, between=between)
        if self._held:
            return replace(self, now=Walk.KEYSET, left=LOOK_SOON, between=LOOK_SOON)
        if self.left > 1:
            return replace(self, left=self.left - 1)
        return replace(self, now=Walk.KEYSET if self.now is Walk.STRIPES else Walk.STRIPES, looking=True)

    @property
    def _held(self) -> bool:
        """Pages could not be pruned in the last stretch of stripes."""
        return self.now is Walk.STRIPES and self.hot is not None and self.hot < HOT_LEAST

    def _cheaper(self) -> Walk:
        if self._held:
            return Walk.KEYSET
        return Walk.STRIPES if self.costs[Walk.STRIPES] <= NO_WORSE * self.costs[Walk.KEYSET] else Walk.KEYSET
