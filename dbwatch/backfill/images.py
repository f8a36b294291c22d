"""Before-images: what a backfill overwrote, and what it wrote there, in a table of its own beside the journal. Pure.

The table is `dbwatch.before_<backfill's id>`: `key_1` .. are the row's key, `old_1` .. the values before, `new_1` ..
those that we wrote (after the row's own BEFORE triggers), in the types of the target's columns. Values are compared by
their bytes (`*=`): every type has that, json and xml too, and it tells 1.0 from 1.00, so that nothing that somebody
else wrote is taken for ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from psycopg import sql

from dbwatch.backfill.keys import KeyColumn
from dbwatch.backfill.statements import Statements, bounds, literally, name, ordered, row_of
from dbwatch.journal import SCHEMA
from dbwatch.text import one_line

READ = sql.Identifier("dbwatch read")
"""The rows as they were read and locked, up to 17: a name that no table of the DBA's SQL has."""
OLD, NEW = sql.Identifier("dbwatch old"), sql.Identifier("dbwatch new")
"""The same row before and after, from 18 on."""


@dataclass(frozen=True, slots=True)
class Images:
    """Where one backfill keeps its before-images, and of what."""

    relation: str
    """Its name in schema dbwatch."""
    schema: str
    table: str
    """Of the table that is filled."""
    key: tuple[KeyColumn, ...]
    columns: tuple[str, ...]
    """The columns that are kept."""

    @classmethod
    def of(cls, id: int, statements: Statements, columns: tuple[str, ...]) -> Images:
        """Those of the backfill of that *id*."""
        return cls(f"before_{id}", statements.schema, statements.table, statements.key, columns)

    def to_json(self) -> str:
        """As the journal keeps it."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Images:
        """The value that `to_json` wrote."""
        body = json.loads(text)
        key = tuple(KeyColumn(**column) for column in body["key"])
        return cls(**{**body, "key": key, "columns": tuple(body["columns"])})

    @property
    def named(self) -> str:
        """The table of images, for a person and as SQL: its name needs no quotes."""
        return f"{SCHEMA}.{self.relation}"

    @property
    def display(self) -> str:
        """The filled columns for a person: `public.users.phone`."""
        return one_line(f"{self.schema}.{self.table}.{', '.join(self.columns)}")

    @property
    def walk(self) -> Statements:
        """What walks the table of images by key."""
        key = tuple(KeyColumn(f"key_{n}", column.type) for n, column in enumerate(self.key, 1))
        return Statements(SCHEMA, self.relation, key, assignments="", where="true", stays_pending=None)

    def create(self) -> tuple[str, ...]:
        """The statements that make the table, in psycopg's form. Its key is compared as the walk's index does it."""
        keys = (
            sql.SQL("{} AS {}").format(ordered(column, name(column.name)), name(f"key_{n}"))
            for n, column in enumerate(self.key, 1)
        )
        values = (
            sql.SQL("{} AS {}").format(name(column), name(f"{which}_{n}"))
            for which in ("old", "new")
            for n, column in enumerate(self.columns, 1)
        )
        said = ", ".join(f"old_{n} and new_{n}: {column}" for n, column in enumerate(self.columns, 1))
        return (
            _text(
                "CREATE TABLE {} AS\nSELECT {}\nFROM {}\nWITH NO DATA", self._own, _list((*keys, *values)), self._its
            ),
            _text("ALTER TABLE {} ADD PRIMARY KEY ({})", self._own, _list(self._named("key"))),
            _text(
                "COMMENT ON TABLE {} IS {}",
                self._own,
                sql.Literal(
                    f"dbwatch: what a backfill of {self.schema}.{self.table} overwrote; {said}".replace("%", "%%")
                ),
            ),
        )

    # --- the parts of `backfill-batch-undo`

    def read(self, statements: Statements, *, after: bool, fillable: bool, striped: bool) -> str:
        """The rows of a batch, locked as an UPDATE locks them, and their values as of the lock; up to 17.

        FOR UPDATE would lock more than that, and keep out whoever inserts rows that refer to these.
        """
        found = (
            sql.SQL("{} AS {}").format(name(column), name(f"dbwatch {alias}"))
            for column, alias in zip(self._taken, [*self._numbers("key"), *self._numbers("old")], strict=True)
        )
        return _text(
            "SELECT {}\nFROM {}\nWHERE {}\nFOR NO KEY UPDATE",
            _list(found),
            self._its,
            statements.taken(after=after, fillable=fillable, striped=striped),
        )

    def update_read(self, statements: Statements, *, after: bool) -> str:
        """Fills the rows that `read` gave; up to 17. The range bounds what the join has to look at."""
        join = self._join(
            [sql.SQL("{}.{}").format(name(self.table), name(column.name)) for column in self.key],
            [sql.SQL("{}.{}").format(READ, name(f"dbwatch {alias}")) for alias in self._numbers("key")],
        )
        was = (
            sql.SQL("{}.{} AS {}").format(READ, name(f"dbwatch {alias}"), name(alias))
            for alias in (*self._numbers("key"), *self._numbers("old"))
        )
        now = (
            sql.SQL("{}.{} AS {}").format(name(self.table), name(column), name(f"new_{n}"))
            for n, column in enumerate(self.columns, 1)
        )
        return _text(
            "UPDATE {}\nSET {}\nFROM {}\nWHERE {}\n    AND {}\nRETURNING {}",
            self._its,
            literally(statements.assignments),
            READ,
            statements.range(after=after),
            join,
            _list((*was, *now)),
        )

    def returning(self) -> str:
        """Key, values before and values after, from 18 on."""
        parts = (
            *((NEW, column.name, f"key_{n}") for n, column in enumerate(self.key, 1)),
            *((OLD, column, f"old_{n}") for n, column in enumerate(self.columns, 1)),
            *((NEW, column, f"new_{n}") for n, column in enumerate(self.columns, 1)),
        )
        found = (sql.SQL("{}.{} AS {}").format(row, name(column), name(alias)) for row, column, alias in parts)
        return _text("RETURNING WITH (OLD AS {}, NEW AS {}) {}", OLD, NEW, _list(found))

    def keep(self) -> str:
        """Writes the images of what was filled; a row that SET left as it was needs none.

        A row that was filled before and is pending again has an image. What a column held when we came the second time
        is either what we had written (then the first image stays the truth) or somebody else's (then that is it).
        """
        every = [*self._named("key"), *self._named("old"), *self._named("new")]
        changes = [
            sql.SQL("{old} = CASE WHEN {untouched} THEN i.{old} ELSE excluded.{old} END").format(
                old=old, untouched=_same([written], [found])
            )
            for old, written, found in zip(
                self._named("old"), self._at("i", "new"), self._at("excluded", "old"), strict=True
            )
        ]
        changes += [sql.SQL("{new} = excluded.{new}").format(new=new) for new in self._named("new")]
        return _text(
            "INSERT INTO {} AS i ({columns})\nSELECT {columns}\nFROM filled\nWHERE NOT {same}\n"
            "ON CONFLICT ({keys}) DO UPDATE\nSET {changes}",
            self._own,
            columns=_list(every),
            same=_same(self._named("old"), self._named("new")),
            keys=_list(self._named("key")),
            changes=_list(changes),
        )

    # --- the parts of `backfill-restore`

    def restore(self, *, after: bool) -> str:
        """Brings back the rows with images above `lo` (with *after*) up to `hi` that still hold what we wrote; of each
        whether it holds what it held before, for a trigger of the table may have changed it again."""
        images, table = self._ranges(after=after)
        return _text(
            "{}\n    AND {}\n    AND {}\nRETURNING {}, {} AS back",
            self._restoring(),
            images,
            table,
            _list(self._at("i", "key")),
            _same([self._of_target(column) for column in self.columns], self._at("i", "old")),
        )

    def by_hand(self) -> str:
        """Brings everything back in one statement, for psql. What it did not bring back stays in the table."""
        return self._restoring().as_string(None).replace("%%", "%")

    def seen(self, *, after: bool) -> str:
        """The images in that range: whether the row is still there, and whether it is as it was."""
        images, table = self._ranges(after=after)
        there = sql.SQL("t.{} IS NOT NULL").format(name(self.key[0].name))
        return _text(
            "SELECT {}, {there} AS there, {there} AND {} AS as_before\nFROM {} AS i\n"
            "LEFT JOIN {} AS t ON {}\n    AND {}\nWHERE {}",
            _list(self._at("i", "key")),
            _same([self._of_target(column) for column in self.columns], self._at("i", "old")),
            self._own,
            self._its,
            self._meet,
            table,
            images,
            there=there,
        )

    def range(self, *, after: bool) -> str:
        """Which images those are."""
        return self._ranges(after=after)[0].as_string(None)

    def keys(self) -> str:
        """The columns of their key."""
        return _list(self._named("key")).as_string(None)

    # --- inside

    @property
    def own(self) -> sql.Composable:
        """The table of images."""
        return self._own

    @property
    def _own(self) -> sql.Composable:
        return name(SCHEMA, self.relation)

    @property
    def _its(self) -> sql.Composable:
        return name(self.schema, self.table)

    @property
    def _taken(self) -> list[str]:
        return [*(column.name for column in self.key), *self.columns]

    @property
    def _meet(self) -> sql.Composable:
        return self._join([self._of_target(column.name) for column in self.key], self._at("i", "key"))

    def _restoring(self) -> sql.Composed:
        back = (sql.SQL("{} = i.{}").format(name(column), name(f"old_{n}")) for n, column in enumerate(self.columns, 1))
        now = [self._of_target(column) for column in self.columns]
        return sql.SQL("UPDATE {} AS t\nSET {}\nFROM {} AS i\nWHERE {}\n    AND {}").format(
            self._its, _list(back), self._own, self._meet, _same(now, self._at("i", "new"))
        )

    def _ranges(self, *, after: bool) -> tuple[sql.Composable, sql.Composable]:
        """The range in the table of images, and the same one in the target: neither is read further than that."""
        theirs = [ordered(column, self._of_target(column.name)) for column in self.key]
        return (
            bounds(self._at("i", "key"), self.key, after=after, upto="hi"),
            bounds(theirs, self.key, after=after, upto="hi"),
        )

    def _of_target(self, column: str) -> sql.Composable:
        return sql.SQL("t.{}").format(name(column))

    def _numbers(self, which: str) -> list[str]:
        return [f"{which}_{n}" for n in range(1, len(self.key if which == "key" else self.columns) + 1)]

    def _named(self, which: str) -> list[sql.Composable]:
        return [name(alias) for alias in self._numbers(which)]

    def _at(self, where: str, which: str) -> list[sql.Composable]:
        return [sql.SQL("{}.{}").format(sql.SQL(where), column) for column in self._named(which)]

    def _join(self, theirs: Sequence[sql.Composable], ours: Sequence[sql.Composable]) -> sql.Composable:
        pairs = zip(self.key, theirs, ours, strict=True)
        equal = (sql.SQL("{} = {}").format(ordered(column, one), other) for column, one, other in pairs)
        return sql.SQL("\n    AND ").join(equal)


def _same(ones: Sequence[sql.Composable], others: Sequence[sql.Composable]) -> sql.Composable:
    """Whether both rows hold the same bytes; NULL is like NULL."""
    return sql.SQL("{}::record OPERATOR(pg_catalog.*=) {}::record").format(
        row_of(ones, always=True), row_of(others, always=True)
    )


def _list(parts: Sequence[sql.Composable] | Iterator[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)


def _text(template: str, *parts: sql.Composable, **named: sql.Composable) -> str:
    return sql.SQL(template).format(*parts, **named).as_string(None)
