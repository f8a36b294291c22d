"""The legs of a walk: one table, or its partitions one after the other, by keys or by the pages of a heap. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dbwatch.backfill.cursor import Cursor
from dbwatch.backfill.pages import Pages
from dbwatch.backfill.statements import Statements
from dbwatch.backfill.target import Heap


@dataclass(frozen=True, slots=True)
class Leg:
    """One of them."""

    keyed: Statements
    """By keys; without any where the table has none."""
    pages: Pages
    by_pages: bool
    """It is walked by the pages of its heap."""
    partition: bool = False
    oid: int = 0
    """Of a partition."""

    @property
    def statements(self) -> Statements:
        """Those of its walk."""
        return replace(self.keyed, pages=self.pages) if self.by_pages else self.keyed

    @property
    def relation(self) -> str:
        """schema.table, unquoted."""
        return f"{self.keyed.schema}.{self.keyed.table}"

    @property
    def name(self) -> str:
        """By which the cursor knows it; empty for a whole table by keys."""
        if self.by_pages:
            return _BY_PAGES + self.relation
        return self.relation if self.partition else ""

    @property
    def keyless(self) -> bool:
        return not self.keyed.key

    @property
    def beside_keys(self) -> Statements:
        """By pages, of the rows that no walk by keys meets: those with NULL in theirs, or all."""
        return replace(self.keyed, pages=self.pages, without_key=not self.keyless)


_BY_PAGES = "pages of "


def legs(whole: Statements, leaves: Sequence[Heap], pages: Pages, *, by_pages: bool) -> tuple[Leg, ...]:
    """The legs of a walk of the table of *whole* whose partitions are *leaves* (none: it is a plain one), in order.

    *pages* tells how many rows a page holds where the catalogue knows no better. Without a right to each partition, or
    where one is elsewhere, the table is walked as one, by keys.
    """
    if not leaves:
        return (Leg(whole, pages, by_pages),)
    if not divisible(leaves):
        return (Leg(whole, pages, by_pages=False),)
    ordered = sorted(leaves, key=lambda leaf: f"{leaf.schema}.{leaf.name}")
    return tuple(
        Leg(_of(whole, leaf), _fitted(pages, leaf), by_pages, partition=True, oid=leaf.oid) for leaf in ordered
    )


def divisible(leaves: Sequence[Heap]) -> bool:
    """Whether each of them can be walked by itself."""
    return all(leaf.ours and leaf.kind == "r" for leaf in leaves)


def _of(whole: Statements, leaf: Heap) -> Statements:
    return replace(whole, schema=leaf.schema, table=leaf.name, called=whole.table)


def _fitted(pages: Pages, leaf: Heap) -> Pages:
    return replace(pages, rows_each=leaf.rows / leaf.pages) if leaf.rows > 0 and leaf.pages > 0 else pages


def resumed(legs: Sequence[Leg], at: Cursor) -> tuple[tuple[Leg, ...], Cursor]:
    """The legs yet to come, the one under way first, and where on it *at* stands.

    Where that leg is gone, since its partition was dropped or the walk goes otherwise now, the next one begins.
    """
    for number, leg in enumerate(legs):
        if leg.name == at.leg:
            return tuple(legs[number:]), at
    gone = at.leg.removeprefix(_BY_PAGES)
    coming = tuple(leg for leg in legs if leg.relation >= gone)
    return coming, Cursor(leg=coming[0].name) if coming else at
