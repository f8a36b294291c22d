"""What a backfill will cost, told before it runs: batches, time, WAL and bloat. Pure.

The constants were measured on PostgreSQL 15 (2 cores, 2 M rows of 190 bytes, two indexes): an update in place took
3 us, one that goes to another page 2.5 us more and 2.6 us for each index; WAL is the page's image once after a
checkpoint, the new row, and for each index an entry with its share of page images. They reproduce what plain keyset
and stripes took there within 5 %; another machine is another factor of two.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbwatch.backfill.estimate import PAGE
from dbwatch.backfill.pace import DUTY_MOST, MOST
from dbwatch.backfill.walk import STRIPES, WINDOW_MOST

IN_PLACE_S = 3.0e-6
ELSEWHERE_S = 2.5e-6
INDEX_S = 2.6e-6
ROW_WAL = 60
"""Bytes of a heap record beside the row itself."""
INDEX_WAL = 125
"""Bytes of an index entry's record, its share of page images included."""
HOT_IN_STRIPES = 0.82
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


def forecast(table: Table, pending: int, *, striped: bool, batch_time_s: float) -> Forecast:
    """What filling *pending* rows of *table* will cost."""
    moved = 1 - HOT_IN_STRIPES if striped else 1.0
    each_s = IN_PLACE_S + moved * (ELSEWHERE_S + table.indexes * INDEX_S)
    fits = 0.8 * batch_time_s / each_s
    most = WINDOW_MOST // STRIPES if striped else MOST
    page_share = min(float(PAGE), table.row_bytes)
    wal = page_share + table.row_bytes + ROW_WAL + moved * table.indexes * INDEX_WAL
    return Forecast(
        batches=-(-pending // max(1, round(min(most, fits)))),
        seconds=pending * each_s / DUTY_MOST,
        wal_bytes=round(pending * wal),
        bloat_bytes=round(pending * table.row_bytes * moved),
    )
