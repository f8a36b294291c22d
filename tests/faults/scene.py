"""A run's table, drawn from its dice, and what the application does to it meanwhile; `v` it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

from ledger import Ledger
from servers import Database

from dbwatch.backfill.signals import NAMES

SET = "v = v + w"
"""`w` is always 1; that a column which SET reads is dropped is one of the faults."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of key. Keys are made of numbers, so that nobody has to look for one."""

    key: str
    columns: str
    types: tuple[str, ...]
    eligible: str
    """SQL of the {n}-th row that is there at the start."""
    stranger: str
    """SQL of the {n}-th one that comes later; some are below and some above those of the start."""


_NUMBER = "CASE mod({n}, 3) WHEN 0 THEN -1 - 2 * {n} WHEN 1 THEN 1 + 2 * {n} ELSE 400001 + 2 * {n} END"
SHAPES = {
    "bigint": Shape("id bigint PRIMARY KEY", "id", ("bigint",), "2 * {n}", _NUMBER),
    "uuid": Shape("id uuid PRIMARY KEY", "id", ("uuid",), "md5(({n})::text)::uuid", "md5('s' || ({n}))::uuid"),
    "composite": Shape(
        "a text, b int, PRIMARY KEY (a, b)",
        "a, b",
        ("text", "int"),
        "'k' || mod({n}, 97), {n}",
        "'k' || mod({n}, 120), -({n})",
    ),
}

_PREPARE = (
    "ALTER TABLE t ADD w int NOT NULL DEFAULT 1, ADD poison boolean NOT NULL DEFAULT false",
    "UPDATE t SET poison = true WHERE ({columns}) IN (SELECT {eligible} FROM unnest('{{{poison}}}'::int[]) AS n)",
    "ALTER TABLE t ADD CONSTRAINT poisoned CHECK (v = 0 OR NOT poison) NOT VALID",
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN IF random() < 0.05 THEN PERFORM pg_sleep(0.001); END IF; RETURN NEW; END'",
    "CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW WHEN (OLD.v <> NEW.v) EXECUTE FUNCTION slow()",
    "CREATE TABLE keyless (id int, u int NOT NULL DEFAULT 0, v int NOT NULL DEFAULT 0, pad text NOT NULL DEFAULT '')",
    "INSERT INTO keyless SELECT nullif(mod(n, 100), 7) FROM generate_series(1, 4000) AS n",
    "CREATE TRIGGER slow BEFORE UPDATE ON keyless FOR EACH ROW WHEN (OLD.v <> NEW.v) EXECUTE FUNCTION slow()",
    "VACUUM (ANALYZE) t",
    "CHECKPOINT",
)
"""A row takes some 0.06 ms that costs nobody anything: so that much can happen before all is done."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """What differs from run to run."""

    shape: str
    rows: int
    walk: str
    batch_ms: int
    undo: bool
    poison: tuple[int, ...]
    """The numbers of the rows that refuse to be set."""
    sees: bool
    """It looks at whom it blocks, and pauses for that."""

    @classmethod
    def drawn(cls, dice: Random) -> Flavour:
        """One by chance."""
        rows = dice.choice((3_000, 8_000, 20_000))
        few = dice.choice((0, 0, 1, 3, 12))
        first = dice.randint(1, rows)
        together = dice.random() < 0.3
        poison = [min(rows, first + n) if together else dice.randint(1, rows) for n in range(few)]
        return cls(
            shape=dice.choice(list(SHAPES)),
            rows=rows,
            walk=dice.choice(("auto", "keyset", "stripes")),
            batch_ms=dice.choice((20, 40, 80)),
            undo=dice.random() < 0.3,
            poison=tuple(sorted(set(poison))),
            sees=dice.random() < 0.2,
        )

    @property
    def options(self) -> list[str]:
        """As a person gives them to `dbwatch backfill`."""
        what = ("--table", "t", "--set", SET, "--where", "true", "--mode", "once")
        return [*what, "--walk", self.walk, *(["--undo"] if self.undo else []), *self._pace]

    @property
    def keyless(self) -> list[str]:
        """The same for the table without a key."""
        return ["--table", "keyless", "--set", "v = 1", "--where", "v = 0", *self._pace]

    @property
    def keyless_once(self) -> list[str]:
        """And what is refused there."""
        return ["--table", "keyless", "--set", "u = u + 1", "--where", "true", "--mode", "once", *self._pace]

    @property
    def _pace(self) -> list[str]:
        unseen = [name for name in NAMES if not (self.sees and name in ("blocked", "active"))]
        return [
            *("--batch-time", f"{self.batch_ms}ms"),
            *(word for name in unseen for word in ("--without", name)),
        ]

    def __str__(self) -> str:
        undo, sees = ", undo" if self.undo else "", ", sees whom it blocks" if self.sees else ""
        how = f"{self.walk}, {self.batch_ms} ms{undo}"
        return f"{self.rows:,} rows by {self.shape}, {how}, {len(self.poison)} poison{sees}"


@dataclass
class Scene:
    """The table, and what can be done to it."""

    ledger: Ledger
    flavour: Flavour
    comers: Iterator[int]
    """Numbers of strangers, none twice."""

    @classmethod
    async def make(cls, database: Database, flavour: Flavour) -> Scene:
        """A new one in *database*."""
        shape = SHAPES[flavour.shape]
        rows = f"SELECT {shape.eligible.format(n='n')} FROM generate_series(1, {flavour.rows}) AS n"  # noqa: S608  # ours
        ledger = await Ledger.make(database, rows, key=shape.key, columns=shape.columns)
        poison = ",".join(map(str, flavour.poison))
        known = {"columns": shape.columns, "eligible": shape.eligible.format(n="n"), "poison": poison}
        await database.sql(*(statement.format(**known) for statement in _PREPARE))
        return cls(ledger, flavour, count(1))

    @property
    def shape(self) -> Shape:
        return SHAPES[self.flavour.shape]

    def row(self, dice: Random) -> str:
        """SQL that is true of one row of the start, which may be gone."""
        return self._is(self.shape.eligible.format(n=dice.randint(1, self.flavour.rows)))

    def pair(self, dice: Random) -> tuple[str, str]:
        """Two such rows, often of one batch, the higher one first."""
        high = dice.randint(1, self.flavour.rows)
        low = max(1, high - 97 * 17) if self.flavour.shape == "composite" else max(1, high - 17 * dice.randint(1, 3))
        return self._is(self.shape.eligible.format(n=high)), self._is(self.shape.eligible.format(n=low))

    def insert(self) -> str:
        """A stranger comes."""
        values = self.shape.stranger.format(n=next(self.comers))
        return f"INSERT INTO t ({self.shape.columns}) SELECT {values} ON CONFLICT DO NOTHING"

    def move(self, dice: Random) -> str:
        """A row that is not done gets a stranger's key. One that is done would be done again ahead of the cursor, which
        mode once excludes."""
        key = self.shape.stranger.format(n=next(self.comers))
        return (
            f"UPDATE t SET ({self.shape.columns}) = (SELECT {key})"  # noqa: S608  # ours
            f" WHERE {self.row(dice)} AND v = 0 AND NOT poison"
        )

    def delete(self, dice: Random) -> str:
        """A row goes."""
        return f"DELETE FROM t WHERE {self.row(dice)} AND NOT poison"  # noqa: S608  # ours

    def ahead(self, dice: Random) -> str:
        """A question for the keys of two rows that are not done, near each other, the lower one first."""
        texts = ", ".join(f"{column}::text" for column in self._bare)
        order = ", ".join(f"t.{column}" for column in self._bare)
        offset = dice.choice((0, 20, 300, 2000))
        numbered = f"SELECT *, row_number() OVER (ORDER BY {order}) AS n FROM t WHERE v = 0 AND NOT poison"  # noqa: S608  # ours
        return f"SELECT {texts} FROM ({numbered}) AS t WHERE n IN ({offset + 1}, {offset + 18}) ORDER BY n"  # noqa: S608  # ours

    def found(self, key: tuple[str, ...]) -> str:
        """SQL that is true of the row with that *key*."""
        texts = (f"'{text}'::{kind}" for text, kind in zip(key, self.shape.types, strict=True))
        return self._is(", ".join(texts))

    @property
    def _bare(self) -> list[str]:
        return [column.strip() for column in self.shape.columns.split(",")]

    def _is(self, key: str) -> str:
        return f"({self.shape.columns}) = ({key})"
