"""Whose a difference is, and how it is taken back. On real servers: the mends are run and the schema is compared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from alembic_projects import INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY, AlembicProject, Told, job, table
from servers import Database

from dbwatch.clock import SystemClock
from dbwatch.migration.ddl import JournalledDdl
from dbwatch.migration.events import Direction, Outcome
from dbwatch.migration.fingerprint import Fingerprint, diff, take
from dbwatch.migration.grammar import read
from dbwatch.migration.mend import Mend, clean_up, mends
from dbwatch.migration.residue import residue
from dbwatch.migration.runner import run

CLOCK = SystemClock()
SCHEMA = (
    "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL DEFAULT 'x', age int CHECK (age > 0))",
    "CREATE INDEX users_name ON users (name)",
    "CREATE TABLE orders (id int PRIMARY KEY, user_id int CONSTRAINT of_user REFERENCES users)",
    "CREATE TABLE events (id int CHECK (id > 0), at date) PARTITION BY RANGE (at)",
    "CREATE INDEX events_at ON events (at)",
    "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
)


async def _fingerprint(db: Database) -> Fingerprint:
    return await take(db.connector, CLOCK)


async def _do(db: Database, *statements: str) -> list[JournalledDdl]:
    """Runs statements of ours; the journal's entries for them."""
    journal: list[JournalledDdl] = []
    for statement in statements:
        await db.sql(statement)
        objects = tuple(
            replace(named, schema="public" if named.schema is None else named.schema) for named in read(statement).named
        )
        journal.append(JournalledDdl(statement, "r1", True, objects, done=True))
    return journal


async def _run(db: Database, found: Sequence[Mend]) -> None:
    for mend in found:
        for statement in mend.sql:
            await db.sql(statement)


@pytest.mark.parametrize(
    "ours",
    [
        ["ALTER TABLE users ADD COLUMN phone text", "CREATE INDEX CONCURRENTLY users_phone ON users (phone)"],
        ["CREATE TABLE a (id serial PRIMARY KEY, b text UNIQUE)", "CREATE TABLE c (a_id int REFERENCES a)"],
        ["CREATE TABLE a (id int PRIMARY KEY)",
         "CREATE TABLE c (id int PRIMARY KEY, a_id int CONSTRAINT x REFERENCES a)",
         "ALTER TABLE a ADD COLUMN c_id int CONSTRAINT y REFERENCES c"],
        ["CREATE TABLE copy AS SELECT 1 AS a", "CREATE VIEW v AS TABLE copy", "CREATE VIEW w AS TABLE v"],
        ["CREATE MATERIALIZED VIEW m AS SELECT 1 AS a", "CREATE INDEX i ON m (a)", "GRANT SELECT ON m TO public"],
        ["CREATE TYPE mood AS ENUM ('ok')", "CREATE DOMAIN plus AS int", "CREATE TABLE d (m mood, p plus)"],
        ["ALTER TABLE events ADD COLUMN extra int", "CREATE INDEX events_extra ON events (extra)"],
        ["CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')"],
        ["ALTER TABLE users ADD CONSTRAINT young CHECK (age < 150) NOT VALID"],
        ["CREATE SCHEMA more", "CREATE TABLE more.t (a int)", "COMMENT ON TABLE more.t IS 'x'"],
        ["CREATE SEQUENCE q", "CREATE STATISTICS st ON id, name FROM users", "CREATE EXTENSION pg_trgm"],
        ["CREATE POLICY p ON users USING (true)", "CREATE RULE r AS ON UPDATE TO users DO ALSO NOTHING"],
        ['CREATE TABLE "Odd ""name" ("a b" int)', 'CREATE INDEX "I x" ON "Odd ""name" ("a b")'],
    ],
    ids=lambda ours: ours[-1][:40],
)  # fmt: skip
async def test_what_our_ddl_made_is_ours_and_is_taken_back_exactly(db: Database, ours: list[str]) -> None:
    await db.sql(*SCHEMA)
    before = await _fingerprint(db)
    journal = await _do(db, *ours)
    left = residue(before, await _fingerprint(db), journal)
    assert not left.not_ours
    assert left.ours
    assert all(one.created for one in left.ours)
    found = clean_up(left)
    assert not [mend for mend in found if mend.by_hand]
    await _run(db, found)
    assert diff(before, await _fingerprint(db)) == ()


async def test_a_colleagues_work_is_not_ours_and_is_never_dropped(db: Database) -> None:
    await db.sql(*SCHEMA)
    before = await _fingerprint(db)
    journal = await _do(db, "ALTER TABLE users ADD COLUMN phone text", "CREATE INDEX ours ON users (phone)")
    await db.sql(
        "CREATE INDEX theirs ON users (age)",
        "CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')",
        "ALTER TABLE users ADD CONSTRAINT old CHECK (age < 150)",
        "CREATE TABLE notes (a int)",
    )
    left = residue(before, await _fingerprint(db), journal)
    assert {one.difference.key for one in left.ours} == {"column public.users.phone", "index public.ours"}
    assert {"index public.theirs", "table public.events_2", "table public.notes"} < {one.key for one in left.not_ours}
    await _run(db, clean_up(left))
    after = await _fingerprint(db)
    assert diff(before, after) == tuple(
        one for one in diff(before, after) if one.key in {theirs.key for theirs in left.not_ours}
    )
    assert len(diff(before, after)) == len(left.not_ours)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("CREATE TABLE made (a int)", "CREATE INDEX theirs ON made (a)"),
        ("CREATE TABLE made (a int) PARTITION BY LIST (a)", "CREATE TABLE theirs PARTITION OF made DEFAULT"),
        ("ALTER TABLE users ADD COLUMN phone text", "CREATE INDEX theirs ON users (phone, age)"),
    ],
)
async def test_what_would_take_a_colleagues_object_along_is_left_to_a_person(
    db18: Database, ours: str, theirs: str
) -> None:
    await db18.sql(*SCHEMA)
    before = await _fingerprint(db18)
    journal = await _do(db18, ours)
    await db18.sql(theirs)
    left = residue(before, await _fingerprint(db18), journal)
    assert [one.key.endswith("theirs") for one in left.not_ours if one.item.kind in ("index", "table")] == [True]
    found = clean_up(left)
    assert all(not mend.sql for mend in found)
    assert any(mend.by_hand and "theirs" in mend.note for mend in found)


async def test_what_was_made_again_by_somebody_else_has_another_oid_and_is_not_ours(db18: Database) -> None:
    await db18.sql(*SCHEMA)
    before = await _fingerprint(db18)
    [made] = await _do(db18, "CREATE INDEX phoenix ON users (age)")
    [[oid]] = await db18.sql("SELECT 'phoenix'::regclass::oid::int")
    ours = replace(made, objects=(replace(made.objects[0], oid=oid),))
    assert residue(before, await _fingerprint(db18), [ours]).ours
    await db18.sql("DROP INDEX phoenix", "CREATE INDEX phoenix ON users (age)")
    assert not residue(before, await _fingerprint(db18), [ours]).ours


async def test_a_rename_is_ours_but_nothing_is_dropped_for_it(db: Database) -> None:
    await db.sql(*SCHEMA)
    before = await _fingerprint(db)
    journal = await _do(db, "ALTER TABLE users RENAME COLUMN age TO years")
    left = residue(before, await _fingerprint(db), journal)
    assert {one.difference.key for one in left.ours} >= {"column public.users.age", "column public.users.years"}
    assert not any(one.created for one in left.ours)
    assert clean_up(left) == ()
    columns = [mend for mend in mends(diff(before, await _fingerprint(db))) if mend.difference.item.kind == "column"]
    assert all(mend.by_hand for mend in columns)


async def test_what_our_ddl_changed_is_told_as_ours(db: Database) -> None:
    await db.sql(*SCHEMA)
    before = await _fingerprint(db)
    journal = await _do(
        db,
        "ALTER TABLE users ALTER age SET NOT NULL",
        "ALTER TABLE orders ADD UNIQUE (user_id)",
        "ALTER TABLE events ALTER id SET NOT NULL",
        "GRANT SELECT ON users TO pg_monitor",
        "COMMENT ON COLUMN users.name IS 'called'",
        "DROP INDEX users_name",
        "DROP TABLE events_1",
    )
    left = residue(before, await _fingerprint(db), journal)
    assert {one.key for one in left.not_ours} == {
        "constraint public.orders.orders_user_id_key"
    }  # unnamed, not looked up
    assert not any(one.created for one in left.ours)


@pytest.mark.parametrize(
    "change",
    [
        ["DROP INDEX users_name"],
        ["DROP INDEX users_name", "CREATE INDEX users_name ON users (name, id)"],
        ["CREATE INDEX extra ON users (age)", "ALTER TABLE users ADD COLUMN b int"],
        ["ALTER TABLE orders DROP CONSTRAINT of_user"],
        ["ALTER TABLE users DROP CONSTRAINT users_age_check, ADD CONSTRAINT users_age_check CHECK (age > 1)"],
        ["ALTER TABLE users ALTER name DROP NOT NULL", "ALTER TABLE users ALTER name DROP DEFAULT"],
        ["ALTER TABLE users ALTER age SET DEFAULT 5", "ALTER TABLE users ALTER age SET NOT NULL"],
        ["ALTER TABLE users DROP COLUMN age"],
        ["ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE"],
    ],
    ids=lambda change: change[-1][:50],
)  # fmt: skip
async def test_mends_bring_columns_indexes_and_constraints_back(db: Database, change: list[str]) -> None:
    await db.sql(*SCHEMA)
    before = await _fingerprint(db)
    await db.sql(*change)
    found = mends(diff(before, await _fingerprint(db)))
    assert not [mend for mend in found if mend.by_hand]
    await _run(db, found)
    assert diff(before, await _fingerprint(db)) == ()


async def test_what_cannot_be_put_back_exactly_is_said_to_be_for_a_person(db18: Database) -> None:
    await db18.sql(*SCHEMA)
    before = await _fingerprint(db18)
    await db18.sql(
        "ALTER TABLE users ALTER name TYPE varchar(9)", "DROP TABLE orders", "GRANT SELECT ON users TO public"
    )
    found = {mend.difference.key: mend for mend in mends(diff(before, await _fingerprint(db18)))}
    assert found["column public.users.name"].by_hand
    assert found["table public.orders"].by_hand
    assert found["privileges on table public.users"].by_hand
    assert found["column public.orders.id"].note == "goes with table public.orders"


async def test_a_name_that_cannot_be_shown_is_not_put_into_sql(db18: Database) -> None:
    before = await _fingerprint(db18)
    journal = await _do(db18, 'CREATE TABLE "a\u202eb" (a int)')
    found = clean_up(residue(before, await _fingerprint(db18), journal))
    assert any(mend.by_hand for mend in found)
    assert not any(mend.sql for mend in found)


async def test_a_cancelled_index_build_is_cleaned_up_to_the_fingerprint_before(db: Database, tmp_path: Path) -> None:
    await db.sql(*SCHEMA)
    project = AlembicProject(tmp_path / "shop").revision("r1", *table("extra"))
    start = await _fingerprint(db)

    async def go(direction: Direction, to: str | frozenset[str], told: Told, stop: asyncio.Event) -> Outcome:
        return await run(job(project, direction, to), db.connector, clock=CLOCK, on_event=told, stop=stop)

    assert (await go(Direction.UP, "heads", Told(), asyncio.Event())).ok
    project.revision("r2", INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY)
    before = await _fingerprint(db)
    reader = await db.foreign(autocommit=False)
    await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await reader.execute("SELECT 1")
    told, stop = Told(), asyncio.Event()
    running = asyncio.create_task(go(Direction.UP, "heads", told, stop))
    await told.statement("CREATE INDEX CONCURRENTLY")
    async with asyncio.timeout(10):
        while not await db.sql("SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"):
            assert not running.done()
    stop.set()
    outcome = await running
    await reader.rollback()
    assert outcome.residue is not None
    found = clean_up(outcome.residue)
    assert [mend.sql for mend in found] == [
        ('DROP INDEX CONCURRENTLY "public"."users_phone"',),
        ('ALTER TABLE "public"."users" DROP COLUMN "phone"',),
    ]
    assert [mend.concurrently for mend in found] == [True, False]
    await _run(db, found)
    assert diff(before, await _fingerprint(db)) == ()
    # and all the way back: the version table that Alembic made is ours as well
    down = await go(Direction.DOWN, frozenset(), Told(), asyncio.Event())
    assert down.ok
    first = JournalledDdl("", None, False, read("CREATE TABLE public.alembic_version ()").named, done=True)
    await _run(db, clean_up(residue(start, await _fingerprint(db), [first])))
    assert diff(start, await _fingerprint(db)) == ()
