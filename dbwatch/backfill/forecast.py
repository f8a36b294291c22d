"""What a backfill will cost, told before it runs: batches, time, WAL and bloat. Pure.

The constants lie between those measured on PostgreSQL 15 and on 18 (2 cores, 2 M rows of 190 bytes, two indexes): an
update in place takes 2.5 us, one that goes to another page 1.6 us more and 1.8 us for each index; WAL is the page's
image once after a checkpoint, the new row, and for each index an entry with its share of page images. They reproduce
what a plain walk and stripes took there within a third; another machine is another factor of two.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbwatch.backfill.estimate import PAGE
from dbwatch.backfill.pace import DUTY_MOST, MOST
from dbwatch.backfill.passes import PASSES, WINDOW_MOST, share

IN_PLACE_S = 2.5e-6
ELSEWHERE_S = 1.6e-6
INDEX_S = 1.8e-6
ROW_WAL = 60
"""Bytes of a heap record beside the row itself."""
INDEX_WAL = 125
"""Bytes of an index entry's record, its share of page images included."""
HOT_IN_STRIPES = 0.81
"""Share of HOT updates that stripes reach on pages that are full."""


@dataclass(frozen=True, slots=True)
class Table:
    """What a forecast has to know of the table."""

    rows: int
    heap_bytes: int
    indexes: int

    @property
    def row_bytes(self) -> float:
        """Of the heap, a row."""
        return self.heap_bytes / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What it will cost, to a factor of two."""

    batches: int
    seconds: float
    wal_bytes: int
    bloat_bytes: int
    """By which the heap grows where no vacuum comes along."""


def forecast(
    table: Table, pending: int, *, striped: bool, batch_time_s: float, most_per_s: int | None = None
) -> Forecast:
    """What filling *pending* rows of *table* will cost, at *most_per_s* rows a second."""
    moved = 1 - HOT_IN_STRIPES if striped else 1.0
    dearest_s = IN_PLACE_S + ELSEWHERE_S + table.indexes * INDEX_S
    each_s = IN_PLACE_S + moved * (ELSEWHERE_S + table.indexes * INDEX_S)
    fits = 0.8 * batch_time_s / dearest_s  # the first pass of stripes is as dear as a plain batch
    fits = min(fits, most_per_s) if most_per_s else fits
    window = min(WINDOW_MOST, fits / share(PASSES)) if striped else min(MOST, fits)
    page_share = min(float(PAGE), table.row_bytes)
    wal = page_share + table.row_bytes + ROW_WAL + moved * table.indexes * INDEX_WAL
    return Forecast(
        batches=-(-pending // max(1, round(window))) * (PASSES if striped else 1),
        seconds=max(pending * each_s / DUTY_MOST, pending / most_per_s if most_per_s else 0.0),
        wal_bytes=round(pending * wal),
        bloat_bytes=round(pending * table.row_bytes * moved),
    )
