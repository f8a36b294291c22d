"""What a step of a walk did: committed batches, or something that says nothing of one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbwatch.backfill.cursor import Cursor, Window
from dbwatch.backfill.legs import Leg
from dbwatch.backfill.pace import Batch
from dbwatch.backfill.part import Filled, Part


@dataclass(frozen=True, slots=True)
class Walked:
    """A committed batch of the walk."""

    batch: Batch
    keys: int
    """That it took."""
    hot: float | None
    of: int
    """Passes of the window that it is in."""
    ends: bool
    """That window ended with it."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Committed batches that were begun together."""

    walked: Sequence[Walked]
    beside_s: float | None = None
    """How long they took side by side; None: one came after the other."""


@dataclass(frozen=True, slots=True)
class Otherwise:
    """A step that says nothing of a batch: of a hunt, from one leg to the next, or past what the final scan will do."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stand:
    """Where the walk goes on: on a leg, in a window of it."""

    leg: Leg
    place: Cursor
    looked_s: float
    """What it took to find the window's end; 0 where it was open already."""

    @property
    def window(self) -> Window:
        assert self.place.window is not None
        return self.place.window


def learnt(part: Part, keys: int, filled: Filled, *, looked_s: float = 0.0, beside: float = 1.0) -> Batch:
    """What the pace learns of *part*, which is of so many *keys*; *beside*: that share of the WAL figure is its own."""
    wal = round(filled.wal_bytes * beside)
    return Batch(filled.rows, filled.seconds + looked_s, wal, keys=keys, heaviest=part.number == 0)
