"""The SQL of a backfill: built once, shown by the plan, run as it is shown. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from dbwatch.backfill.keys import Key, KeyColumn, from_text, to_text
from dbwatch.backfill.pages import CTID, VERSION, Pages, version_from, version_to_text
from dbwatch.backfill.passes import STRIPES
from dbwatch.postgres.queries import marked

PINNED: Mapping[str, str] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
"""Under these settings the text of a key is its value exactly. Part of each transaction, so that they hold behind a
pooler too, and for the DBA's expressions as well, whatever a terminal's environment says."""


_INTEGERS = frozenset({"smallint", "integer", "bigint"})


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements of one backfill, in psycopg's form: `%(lo_1)s` is the first column of the last key done."""

    schema: str
    table: str
    key: tuple[KeyColumn, ...]
    assignments: str
    where: str
    stays_pending: str | None
    called: str = ""
    """What the DBA's SQL calls the table where that is not its name: a partition goes by its parent's."""
    pages: Pages | None = None
    """The bounds are pages of the heap; None: keys."""
    without_key: bool = False
    """Only rows with a NULL in their key, which no walk by keys meets."""
    nullable: bool = False
    """Rows may have a NULL in their key; one that has is named by its version."""
    places: tuple[str, ...] = ()
    """Rows are named by their places, whatever the bounds say."""
    one_by: tuple[KeyColumn, ...] = ()
    """The columns by which `hi` is one row, whatever lies around it; empty: it is the end of a range."""
    spared_by: int | None = None
    """Rows that the backfill of that id holds in quarantine are left out, and nothing of theirs is evaluated."""

    def alone(self) -> Statements:
        """The same of the one row whose key `hi` is."""
        return replace(self, one_by=self.key)

    def version(self) -> Statements:
        """The same of the one row whose version `hi` is."""
        return replace(self, one_by=VERSION)

    def one(self, name: str) -> tuple[Statements, Key]:
        """The same of the one row that `named` gave that *name*, and its `hi`."""
        values = json.loads(name)
        return (self.version(), version_from(values)) if isinstance(values, dict) else (self.alone(), from_text(name))

    def named(self, hi: Key) -> str:
        """The name of the one row that *hi* is, as the journal keeps it."""
        return version_to_text(hi) if self.one_by == VERSION else to_text(hi)

    def at(self, places: Sequence[str]) -> Statements:
        """The same of the rows in so many *places*, as `found` names them."""
        return replace(self, places=tuple(places))

    def sparing(self, id: int | None) -> Statements:
        """The same without what the backfill of that *id* holds in quarantine; None: with all."""
        return self if id == self.spared_by else replace(self, spared_by=id)

    def update(self, *, after: bool, fillable: bool = False, striped: bool = False) -> str:
        """Fills what lies above `lo` (with *after*) up to `hi`; with *fillable* only rows that SET will clear,
        *striped* only some stripes of them."""
        return self._text(
            "UPDATE {table}\nSET {assignments}\nWHERE {taken}",
            assignments=literally(self.assignments),
            taken=self.taken(after=after, fillable=fillable, striped=striped),
        )

    def taken(self, *, after: bool, fillable: bool, striped: bool) -> sql.Composable:
        """Which rows a batch takes: those that WHERE means, above `lo` (with *after*) up to `hi`; *striped* those of
        the stripes `first` to `last`."""
        condition = self._condition(stays=False if fillable else None)
        taken = sql.SQL("{}\n    AND {}").format(self.range(after=after), condition)
        if not striped:
            return taken
        text = sql.SQL("{}\n    AND pg_catalog.abs({} %% {}) BETWEEN %(first)s AND %(last)s")
        return text.format(taken, self._number(), sql.Literal(STRIPES))

    def range(self, *, after: bool) -> sql.Composable:
        """What lies above `lo` (with *after*) up to `hi`."""
        return self._range(after=after, upto="hi")

    @property
    def relation(self) -> str:
        """The table's name as SQL, for a psycopg literal."""
        return name(self.schema, self.table).as_string()

    def edge(self, *, after: bool, upto: bool) -> str:
        """The key that stands `n` keys above `lo` (with *after*), and not above `top` (with *upto*)."""
        return self._question(
            "SELECT {texts}\nFROM {table}\nWHERE {range}\nORDER BY {keys}\nOFFSET %(n)s - 1 LIMIT 1",
            range=self._range(after=after, upto="top" if upto else None),
            keys=self._order(""),
        )

    def last(self, *, after: bool, upto: bool) -> str:
        """The highest key, within the same bounds as `edge`."""
        return self._question(
            "SELECT {texts}\nFROM {table}\nWHERE {range}\nORDER BY {keys}\nLIMIT 1",
            range=self._range(after=after, upto="top" if upto else None),
            keys=self._order(" DESC"),
        )

    def found(self, *, fillable: bool = False) -> str:
        """The versions of `n` rows that are still pending, by one look at the whole table; with *fillable* only of
        those that SET will clear."""
        return self._question(
            "SELECT {version}\nFROM {table}\nWHERE {condition}\nLIMIT %(n)s",
            version=_texts(VERSION),
            condition=self._condition(stays=False if fillable else None),
        )

    def standing(self, *, after: bool) -> str:
        """The versions of all rows above `lo` (with *after*) up to `hi`, pending or not: nothing of the DBA's is
        evaluated."""
        return self._question(
            "SELECT {version}\nFROM {table}\nWHERE {range}\n    AND {condition}",
            version=_texts(VERSION),
            range=self.range(after=after),
            condition=self._without_key() if self.without_key else sql.SQL("true"),
        )

    def count(self, *, after: bool) -> str:
        """How many rows are pending above `lo` up to `hi`, and those of them that SET leaves pending."""
        return self._question(
            "SELECT count(*), count(*) FILTER (WHERE {stays})\nFROM {table}\nWHERE {range}\n    AND {condition}",
            stays=literally(self.stays_pending) if self.stays_pending else sql.SQL("false"),
            range=self._range(after=after, upto="hi"),
            condition=self._condition(stays=None),
        )

    def _question(self, template: str, **parts: sql.Composable) -> str:
        """Marked as ours: what the application's statements take is told without it."""
        return marked(self._text(template, **parts))

    def _text(self, template: str, **parts: sql.Composable) -> str:
        table = name(self.schema, self.table)
        if self.called:
            table = sql.SQL("{} AS {}").format(table, name(self.called))
        return sql.SQL(template).format(table=table, texts=_texts(self.key), **parts).as_string()

    def _order(self, direction: str) -> sql.Composable:
        """Qualified, for a bare name in ORDER BY means the column of the result: the key's *text*."""
        columns = (ordered(column, name(self.called or self.table, column.name)) for column in self.key)
        return sql.SQL(", ").join(sql.SQL("{}{}").format(column, sql.SQL(direction)) for column in columns)

    def _condition(self, *, stays: bool | None) -> sql.Composable:
        condition = sql.SQL("({})").format(literally(self.where))
        if self.without_key:
            condition = sql.SQL("{}\n    AND {}").format(self._without_key(), condition)
        if stays is not None and self.stays_pending is not None:
            condition = sql.SQL("{}\n    AND ({}) IS NOT TRUE").format(condition, literally(self.stays_pending))
        if self.spared_by is None:
            return condition
        held = sql.SQL(" OR ").join(self._held(self.spared_by))
        return sql.SQL("CASE WHEN {}\n        THEN false ELSE {} END").format(held, condition)

    def _held(self, id: int) -> Iterator[sql.Composable]:
        """What holds for a row in the quarantine of the backfill of that *id*, by key and by version; false or NULL
        for any other."""
        if self.key and not self.without_key:
            yield _among(id, self.key, range(len(self.key)))
        if self.nullable or not self.key:
            yield _among(id, VERSION, [column.name for column in VERSION])

    def _without_key(self) -> sql.Composable:
        nulls = (sql.SQL("{} IS NULL").format(name(column.name)) for column in self.key)
        return sql.SQL("({})").format(sql.SQL(" OR ").join(nulls))

    def _number(self) -> sql.Composable:
        """A number by which rows fall into stripes: a lone integer itself, so that each page has its share of each
        stripe; otherwise a hash of the key's text, for a key of several columns one that no two equal values cancel;
        without a key a hash of the row's place (from 14 on)."""
        if not self.key:
            return sql.SQL("pg_catalog.hashtid(ctid)")
        if len(self.key) == 1 and self.key[0].type in _INTEGERS:
            return name(self.key[0].name)
        hashes = (
            sql.SQL('pg_catalog.hashtextextended({}::text COLLATE "C", {})').format(name(column.name), sql.Literal(n))
            for n, column in enumerate(self.key)
        )
        return sql.SQL("({})").format(sql.SQL(" # ").join(hashes))

    def _range(self, *, after: bool, upto: str | None) -> sql.Composable:
        if self.one_by:
            ones = (ordered(column, name(column.name)) for column in self.one_by)
            equal = map(sql.SQL("{} = {}").format, ones, _values(self.one_by, "hi"))
            return sql.SQL("\n    AND ").join(equal)
        if self.places:
            return sql.SQL("ctid = ANY(CAST({} AS tid[]))").format(sql.Literal(list(self.places)))
        if self.pages is not None:
            return self.pages.range(bounds([sql.Identifier("ctid")], CTID, after=after, upto=upto), after=after)
        columns = [ordered(column, name(column.name)) for column in self.key]
        found = bounds(columns, self.key, after=after, upto=upto)
        if not self.nullable:
            return found
        there = (sql.SQL("{} IS NOT NULL").format(name(column.name)) for column in self.key)
        return sql.SQL("\n    AND ").join((found, *there))


def bounds(
    columns: Sequence[sql.Composable], key: Sequence[KeyColumn], *, after: bool, upto: str | None
) -> sql.Composable:
    """*columns*, which hold a *key*, above `lo` (with *after*) and up to the bound called *upto*."""
    sides = [(">", "lo")] if after else []
    if upto is not None:
        sides.append(("<=", upto))
    texts = (
        sql.SQL("{} {} {}").format(row_of(columns), sql.SQL(operator), row_of(list(_values(key, which))))
        for operator, which in sides
    )
    return sql.SQL("\n    AND ").join(texts) if sides else sql.SQL("true")


def _values(key: Sequence[KeyColumn], which: str) -> Iterator[sql.Composable]:
    for number, column in enumerate(key, 1):
        yield sql.SQL("CAST({} AS {})").format(sql.Placeholder(f"{which}_{number}"), literally(column.type))


def _texts(columns: Sequence[KeyColumn]) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL("{}::text").format(name(column.name)) for column in columns)


def _among(id: int, columns: Sequence[KeyColumn], parts: Sequence[int | str]) -> sql.Composable:
    """*columns* name a row that the backfill of that *id* holds in quarantine, where a name has those *parts*; NULL
    where it holds others."""
    texts = [sql.SQL('{}::text COLLATE "C"').format(name(column.name)) for column in columns]
    values = sql.SQL(", ").join(sql.SQL("q.key::json ->> {}").format(sql.Literal(part)) for part in parts)
    return sql.SQL("{} IN (SELECT {} FROM dbwatch.quarantine AS q WHERE q.backfill_id = {})").format(
        row_of(texts), values, sql.Literal(id)
    )


def row_of(columns: Sequence[sql.Composable], *, always: bool = False) -> sql.Composable:
    """*columns* as one value to compare: the column itself where there is one, unless a row is *always* meant."""
    if len(columns) == 1 and not always:
        return columns[0]
    return sql.SQL("ROW({})" if always else "({})").format(sql.SQL(", ").join(columns))


def ordered(column: KeyColumn, reference: sql.Composable) -> sql.Composable:
    """*reference* to the column as the index orders it."""
    if column.collation is None:
        return reference
    return sql.SQL("{} COLLATE {}").format(reference, literally(column.collation))


def bound(which: str, key: Key | None) -> dict[str, str]:
    """The parameters of bound *which*; none where there is no *key*."""
    return {f"{which}_{number}": value for number, value in enumerate(key or (), 1)}


def shown(statement: str) -> str:
    """*statement* for a person: `%(lo_1)s` as `:lo_1`, and `%%` as `%`."""
    return re.sub(r"%(?:\((\w+)\)s|%)", lambda found: f":{found[1]}" if found[1] else "%", statement)


def given(statement: str, values: Mapping[str, Any]) -> str:
    """*statement* with those of its parameters in it that *values* names."""

    def literal(found: re.Match[str]) -> str:
        known = found[1] in values
        return sql.Literal(values[found[1]]).as_string(None).replace("%", "%%") if known else found[0]

    return re.sub(r"%(?:\((\w+)\)s|%)", literal, statement)


def literally(fragment: str) -> sql.Composable:
    """SQL of somebody else's as a part of a psycopg query: its percent signs are no placeholders."""
    return sql.SQL(fragment.replace("%", "%%"))


def name(*parts: str) -> sql.Composable:
    """An identifier as a part of a psycopg query."""
    return sql.Identifier(*(part.replace("%", "%%") for part in parts))
