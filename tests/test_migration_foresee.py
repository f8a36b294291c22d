"""What a downgrade would make of a schema, foreseen: the same statements are then run, and the two compared."""

from __future__ import annotations

import psycopg
import pytest
from servers import Database

from dbwatch.clock import SystemClock
from dbwatch.migration import canon, fingerprint
from dbwatch.migration.ddl import Action, Named
from dbwatch.migration.fingerprint import Item
from dbwatch.migration.foresee import carried_out
from dbwatch.migration.residue import names
from dbwatch.migration.resting import WouldFail
from dbwatch.migration.scene import Scene, chosen_name

SCHEMA = (
    "CREATE TYPE mood AS ENUM ('good', 'bad')",
    "CREATE TABLE firms (id int PRIMARY KEY, name varchar(30) NOT NULL DEFAULT 'x', UNIQUE (name))",
    "CREATE TABLE users (id serial PRIMARY KEY, firm int REFERENCES firms (id) ON DELETE SET NULL, phone varchar(20), "
    "mood mood, n bigint DEFAULT 0, CONSTRAINT few CHECK (n < 10))",
    "CREATE INDEX low ON users (lower(phone)) WHERE n > 3",
    "CREATE UNIQUE INDEX both_ ON users (firm, phone DESC)",
    "CREATE TABLE orders (id uuid, at timestamptz DEFAULT CURRENT_TIMESTAMP, paid bool DEFAULT false, "
    "sent bool DEFAULT true)",
    "CREATE VIEW seen AS SELECT at FROM orders",
    "CREATE SEQUENCE apart",
)
RUN = {
    "a column with what is over it": ["ALTER TABLE users DROP COLUMN phone"],
    "a table with what belongs to it": ["DROP TABLE users", "DROP TABLE firms", "DROP TYPE mood"],
    "a table made anew": [
        "CREATE TABLE notes (id BIGSERIAL NOT NULL, body TEXT NOT NULL, firm INTEGER, PRIMARY KEY (id), "
        "CONSTRAINT theirs FOREIGN KEY (firm) REFERENCES firms (id), UNIQUE (body))",
        "CREATE INDEX ix_notes_firm ON notes (firm)",
    ],
    "dropped, and made as it was": [
        "ALTER TABLE users DROP COLUMN phone",
        "ALTER TABLE users ADD COLUMN phone VARCHAR(20)",
        "CREATE INDEX low ON users (LOWER(phone)) WHERE n > 3",
        "CREATE UNIQUE INDEX both_ ON users (firm, phone DESC)",
    ],
    "dropped, and made otherwise": [
        "DROP INDEX both_",
        "CREATE INDEX both_ ON users (firm, phone)",
        "ALTER TABLE users DROP CONSTRAINT few",
        "ALTER TABLE users ADD CONSTRAINT few CHECK (n < 11)",
    ],
    "altered, there and back": [
        "ALTER TABLE users ALTER COLUMN n TYPE INTEGER",
        "ALTER TABLE users ALTER COLUMN n TYPE BIGINT",
        "ALTER TABLE firms ALTER COLUMN name DROP NOT NULL",
        "ALTER TABLE firms ALTER COLUMN name SET NOT NULL",
        "ALTER TABLE users ALTER COLUMN n SET DEFAULT 7",
        "ALTER TABLE users ALTER COLUMN n SET DEFAULT '0'",
    ],
    "truth in other words": [
        "ALTER TABLE orders ALTER COLUMN paid SET DEFAULT '0'",
        "ALTER TABLE orders DROP COLUMN sent",
        "ALTER TABLE orders ADD COLUMN sent BOOLEAN DEFAULT ' On'",
    ],
    "altered": [
        "ALTER TABLE users ALTER COLUMN phone TYPE TEXT",
        "ALTER TABLE firms ALTER COLUMN name DROP NOT NULL, ALTER COLUMN name DROP DEFAULT",
    ],
    "renamed": [
        "ALTER TABLE users RENAME phone TO telephone",
        "ALTER INDEX low RENAME TO lower_",
        "ALTER TABLE users RENAME TO people",
        "ALTER TABLE people RENAME CONSTRAINT few TO fewer",
    ],
    "renamed, there and back": [
        "ALTER TABLE users RENAME TO people",
        "ALTER TABLE people RENAME firm TO company",
        "ALTER TABLE people RENAME company TO firm",
        "ALTER TABLE people RENAME TO users",
    ],
    "a key moved": [
        "ALTER TABLE users DROP CONSTRAINT users_firm_fkey",
        "ALTER TABLE firms DROP CONSTRAINT firms_pkey",
        "ALTER TABLE firms ADD CONSTRAINT firms_pkey PRIMARY KEY (id, name)",
    ],
    "a type and a sequence": ["CREATE TYPE hue AS ENUM ('red')", "DROP SEQUENCE apart", "DROP VIEW seen"],
}
REFUSED = {
    "a table that others refer to": "DROP TABLE firms",
    "a key that others refer to": "ALTER TABLE firms DROP CONSTRAINT firms_pkey",
    "a type that a column has": "DROP TYPE mood",
    "a column that a view shows": "ALTER TABLE orders DROP COLUMN at",
    "an index on what is not there": "CREATE INDEX i ON users (nothing)",
    "a column of nothing": "ALTER TABLE nothing ADD COLUMN a int",
    "NOT NULL over rows": "ALTER TABLE firms ADD COLUMN a int NOT NULL",
}


async def scene(db: Database) -> Scene:
    await db.sql(*SCHEMA, "INSERT INTO firms VALUES (1)")
    now = await fingerprint.take(db.connector, SystemClock())
    return Scene.of(now, now, db.major, frozenset({"firms"}))


@pytest.mark.parametrize("case", RUN)
async def test_what_is_foreseen_is_what_is_found(db: Database, case: str) -> None:
    before = await scene(db)
    foreseen = fingerprint.diff(before.opening, carried_out(before, RUN[case], "r1").fingerprint)
    await db.sql(*RUN[case])
    found = fingerprint.diff(before.opening, await fingerprint.take(db.connector, SystemClock()))
    assert [(d.key, d.kind) for d in foreseen] == [(d.key, d.kind) for d in found]


@pytest.mark.parametrize("case", REFUSED)
async def test_what_the_server_refuses_is_foreseen(db18: Database, case: str) -> None:
    before = await scene(db18)
    with pytest.raises(WouldFail):
        carried_out(before, [REFUSED[case]], "r1")
    with pytest.raises(psycopg.Error):
        await db18.sql(REFUSED[case])


def test_two_ways_to_write_a_definition_are_one() -> None:
    def item(definition: str) -> Item:
        return Item("", "constraint", "public", "c", "t", "", 0, definition)

    assert canon.of_item(item("CHECK (((state)::text = ANY ((ARRAY['a'::character varying])::text[])))")) == (
        canon.of_item(item("CHECK (state IN ('a'))"))
    )
    assert canon.of_item(item("UNIQUE (a, b)")) != canon.of_item(item("UNIQUE (b, a)"))


def test_the_server_shortens_the_longer_part_of_a_name_that_it_chooses() -> None:
    assert chosen_name("t", "id", "seq") == "t_id_seq"
    name = chosen_name("a" * 60, "column", "not_null")
    assert len(name) == 63
    assert name.endswith("_column_not_null")


async def test_a_column_made_anew_is_still_the_one_that_the_journal_names(db18: Database) -> None:
    """It goes by its table's OID, which stays: what a revision below made, and one above dropped, comes back as its."""
    before = await scene(db18)
    [(table,)] = await db18.sql("SELECT 'users'::regclass::oid::bigint")
    anew = ["ALTER TABLE users DROP COLUMN phone", "ALTER TABLE users ADD COLUMN phone text"]
    differences = fingerprint.diff(before.opening, carried_out(before, anew, "r1").fingerprint)
    [phone] = [one for one in differences if one.item.kind == "column"]
    assert names(Named(Action.CREATE, "column", "public", "phone", "users", oid=table), phone)
