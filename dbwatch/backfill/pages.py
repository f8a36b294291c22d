"""A walk by the pages of the heap instead of by keys: where a batch ends, and how its rows are named. Pure.

It reads the heap as it lies, without an index, and it needs no key. But a row that somebody else updates meanwhile may
move from a page that is still to come to one that is done, so that such a walk proves nothing: it is for a WHERE that
SET makes untrue, and another look has to follow that misses no row.

A page stands for a key here: its last place, as the text of a tid. One row without a key is named by its version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from dbwatch.backfill.keys import Key, KeyColumn

CTID = (KeyColumn("ctid", "tid"),)
"""What such a walk goes by."""
VERSION = (KeyColumn("ctid", "tid"), KeyColumn("xmin", "xid"), KeyColumn("tableoid", "oid"))
"""System columns that together name one version of a row: whoever updates the row makes another one."""
LAST = 2**16 - 1
"""No place on a page is higher."""
PLACES_PER_8KB = 291
"""As many rows as such a page can hold (MaxHeapTuplesPerPage in htup_details.h), rounded up for larger ones."""


@dataclass(frozen=True, slots=True)
class Pages:
    """How the heap of one table is walked."""

    rows_each: float
    """Rows a page, estimated."""
    ranges: bool = True
    """The server finds a range of places without reading the whole heap: from 14 on."""
    octets: int = 8192
    """Of a page."""

    def edge(self, lo: Key | None, top: Key, n: int) -> Key | None:
        """The page that ends the next *n* rows or so above *lo*, *top* at the latest; None where none is left."""
        first, end = (0 if lo is None else page(lo) + 1), page(top) + 1
        if first >= end:
            return None
        return place(min(end, first + self.pages_of(n)) - 1)

    def pages_of(self, n: int) -> int:
        """How many pages hold *n* rows or so, at least one."""
        return max(1, round(n / self.rows_each))

    def rows_of(self, lo: Key | None, hi: Key) -> int:
        """About how many rows lie above *lo* up to *hi*."""
        return max(1, round((page(hi) - (-1 if lo is None else page(lo))) * self.rows_each))

    def range(self, bounds: sql.Composable, *, after: bool) -> sql.Composable:
        """*bounds* of `ctid` above `lo` (with *after*) up to `hi`; up to 13 it is every place that there may be."""
        if self.ranges:
            return bounds
        first = "CAST((CAST(%(lo_1)s AS point))[0] AS bigint) + 1" if after else "0"
        return sql.SQL(
            "ctid = ANY(ARRAY(SELECT CAST('(' || dbwatch_p || ',' || dbwatch_o || ')' AS tid)\n"
            "        FROM generate_series({}, CAST((CAST(%(hi_1)s AS point))[0] AS bigint)) AS dbwatch_p,\n"
            "        generate_series(1, {}) AS dbwatch_o))"
        ).format(sql.SQL(first), sql.Literal(-(-self.octets // 8192) * PLACES_PER_8KB))  # fmt: skip


def place(number: int) -> Key:
    """The key that stands for page *number*."""
    return (f"({number},{LAST})",)


def page(key: Key) -> int:
    """The page that *key* stands for."""
    return int(key[0][1:].partition(",")[0])


def version_to_text(version: Key) -> str:
    """*version*, the values of VERSION, as the journal keeps it: an object of JSON, where a key is an array."""
    values = {column.name: value for column, value in zip(VERSION, version, strict=True)}
    return json.dumps(values, separators=(",", ":"))


def version_from(values: Mapping[str, str]) -> Key:
    """The values of VERSION in the object that `version_to_text` wrote. Raises KeyError where one is missing."""
    return tuple(values[column.name] for column in VERSION)


def last_of(pages: int) -> Key | None:
    """The key of the last of so many *pages*; None where there is none."""
    return place(pages - 1) if pages else None
