"""What is decided before anything runs, and what is refused, with the way out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from ledger import planned
from servers import Database, OwnServers

from dbwatch.backfill.fragments import read, read_key
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.statements import bound, given
from dbwatch.backfill.walk import Walk
from dbwatch.errors import Refused, UsageError
from dbwatch.postgres.session import Connector

PHONE = Spec(table="users", set="phone = legacy", where="phone IS NULL")
USERS = """
CREATE TABLE users (
    id bigint PRIMARY KEY, legacy text, phone text, upper text GENERATED ALWAYS AS (upper(legacy)) STORED
);
INSERT INTO users SELECT i, CASE WHEN i % 10 > 0 THEN '+49' || i END, NULL FROM generate_series(1, 1000) AS i;
"""


async def users(database: Database) -> Connector:
    await database.sql(USERS, "ANALYZE users")
    return database.connector


@pytest.mark.parametrize(
    ("fragments", "complaint"),
    [
        (("users", "a = 1;", "b"), "semicolon"),
        (("users", "a = 1", "b -- all of them"), "comment"),
        (("users", "a = 1 /* */", "b"), "comment"),
        (("users", "a = 1", "b) OR (c"), "syntax error"),
        (("users", "a = 1", "b RETURNING a"), "syntax error"),
        (("users", "a = 1", "b LIMIT 5"), "limit"),
        (("users", "a = 1", "b FOR UPDATE"), "locking"),
        (("users", "a = 1", "b UNION SELECT 1"), "set operation"),
        (("users", "a = 1 FROM z", "b"), "from clause"),
        (("users", "a = 1 WHERE true", "b"), "where clause"),
        (("users", "a = (SELECT 1 FROM z", "true) WHERE b"), "syntax error"),
        (("users", "a = $1", "b"), "parameter"),
        (("users AS u", "a = 1", "b"), "more than a table's name"),
        (("ONLY users", "a = 1", "b"), "more than a table's name"),
        (("users SET a = 1; DROP TABLE users", "a = 1", "b"), "semicolon"),
        (("users", " ", "b"), "no SET"),
        (("users", "a = 'x", "b"), "unterminated"),
    ],
)
def test_nothing_slips_in_with_a_fragment(fragments: tuple[str, str, str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read(*fragments)


@pytest.mark.parametrize("key", ["1", "id; x", "a.b", "*", "id FROM users", "lower(id)", ""])
def test_a_key_is_a_list_of_columns(key: str) -> None:
    with pytest.raises(UsageError):
        read_key(key)


def test_a_key_is_read_as_postgresql_reads_names() -> None:
    assert read_key('Shop, "Number"') == ("shop", "Number")


@pytest.mark.parametrize(
    ("assignments", "where", "stays"),
    [
        ("phone = legacy", "phone IS NULL", "(legacy) IS NULL"),
        ("phone = legacy", "users.phone IS NULL AND ok", "(legacy) IS NULL AND ok"),
        ("a = 'ä, b', b = (1 + 2)", "a <> 'é' AND b IS NULL", "('ä, b') <> 'é' AND ((1 + 2)) IS NULL"),
        ("a = lower(b)", "a <> lower(b)", "(lower(b)) <> lower(b)"),
        ("a = nextval('s')", "a IS NULL", None),
        ("(a, b) = (1, 2)", "a IS NULL", None),
        ("a = DEFAULT", "a IS NULL", None),
        ("a = (SELECT 1)", "a IS NULL", None),
        ("a = 1", "b IN (SELECT a FROM c)", None),
    ],
)
def test_what_stays_pending_is_where_with_the_new_values(assignments: str, where: str, stays: str | None) -> None:
    assert read("users", assignments, where).stays_pending == stays


def test_what_a_person_wrote_is_no_parameter() -> None:
    text = "v = '%%(id)s' AND id > %(id)s AND w = %(lo_1)s"
    assert given(text, {"id": "5%"}) == "v = '%%(id)s' AND id > '5%%' AND w = %(lo_1)s"


async def test_a_plan_holds_the_batch_as_it_will_run(db: Database) -> None:
    found = await planned(await users(db), PHONE)
    assert " ".join(found.batch_sql.split()) == (
        'UPDATE "public"."users" SET phone = legacy WHERE "id" > CAST(:lo_1 AS bigint)'
        ' AND "id" <= CAST(:hi_1 AS bigint) AND (phone IS NULL)'
    )
    assert (found.index, found.rows_estimate, found.pending_estimate) == ("users_pkey", 1000, 1000)


async def test_rows_that_set_leaves_pending_are_foretold_with_the_condition_to_add(db: Database) -> None:
    found = await planned(await users(db), PHONE)
    assert any("about 100 rows stay pending" in n and "AND ((legacy) IS NULL) IS NOT TRUE" in n for n in found.notes)


async def test_triggers_that_will_fire_are_named(db: Database) -> None:
    connector = await users(db)
    await db.sql(
        "CREATE TRIGGER touch BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    assert "each row fires: touch" in (await planned(connector, PHONE)).notes


async def test_a_set_that_changes_nothing_may_fire_what_does(db18: Database) -> None:
    connector = await users(db18)
    await db18.sql(
        "CREATE FUNCTION fills() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.phone := NEW.legacy; RETURN NEW; END'",
        "CREATE TRIGGER fills BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION fills()",
    )
    assert (await planned(connector, replace(PHONE, set="phone = phone"))).notes


@pytest.mark.parametrize("spec", [PHONE, replace(PHONE, key="id")], ids=["chosen", "named"])
async def test_the_next_edge_is_read_from_the_index_without_sorting(db: Database, spec: Spec) -> None:
    """The key is selected as text; sorting by that text would be another order, and the whole table each time."""
    connector = await users(db)
    statements = (await planned(connector, spec)).statements
    connection = await db.foreign()
    for text in (statements.edge(after=True, upto=True), statements.last(after=True, upto=True)):
        await connection.execute("SET enable_seqscan = off")
        rows = await connection.execute(
            b"EXPLAIN " + text.encode(), {**bound("lo", ("9",)), **bound("top", ("900",)), "n": 100}
        )
        explained = "\n".join(row[0] for row in await rows.fetchall())
        assert "Index" in explained
        assert "Sort" not in explained


REFUSED = [
    ("CREATE VIEW v AS SELECT * FROM users", {"table": "v"}, "is a view"),
    ("CREATE MATERIALIZED VIEW v AS SELECT * FROM users", {"table": "v"}, "materialized view"),
    ("", {"table": "pg_class", "set": "relname = 'x'", "where": "relname IS NULL"}, "system table"),
    ("", {"set": "upper = 'x'", "where": "upper IS NULL"}, "generated column"),
    ("ALTER TABLE users DROP CONSTRAINT users_pkey", {"walk": Walk.KEYSET}, "no key to walk by"),
    ("", {"set": "id = 1", "where": "id IS NULL", "walk": Walk.KEYSET}, "SET changes id"),
    ("", {"key": "legacy"}, r"no unique index on \(legacy\)"),
    ("CREATE UNIQUE INDEX part ON users (legacy) WHERE id > 5", {"key": "legacy"}, "only a part"),
    ("CREATE UNIQUE INDEX nulls ON users (legacy)", {"key": "legacy", "mode": "once"}, "may be NULL"),
    ("CREATE RULE r AS ON UPDATE TO users DO ALSO NOTIFY x", {}, "rewrite rules"),
    ("CREATE TABLE child () INHERITS (users)", {}, "child tables"),
    ("", {"where": "legacy IS NOT NULL"}, "stay pending for ever"),
    (
        "CREATE TABLE d (id int, CONSTRAINT k PRIMARY KEY (id) DEFERRABLE, x int)",
        {"table": "d", "set": "x = 1", "where": "x IS NULL", "undo": True},
        "deferrable",
    ),
    (
        "CREATE TABLE m (id money PRIMARY KEY, x int)",
        {"table": "m", "set": "x = 1", "where": "x IS NULL", "mode": "once"},
        "does not say its value exactly",
    ),
    ("", {"set": "phone = users.phone"}, "SET changes nothing"),
    (
        "CREATE TABLE g (id int GENERATED ALWAYS AS IDENTITY, k int PRIMARY KEY)",
        {"table": "g", "set": "id = 1", "where": "id IS NULL"},
        "GENERATED ALWAYS",
    ),
    (
        "CREATE TABLE e (k int, x int) PARTITION BY RANGE (x)",
        {"table": "e", "set": "x = 1", "where": "x IS NULL"},
        "partitioned by x, which SET changes",
    ),
    (
        "CREATE TABLE e (k int, x int) PARTITION BY LIST (k);"
        " CREATE TABLE e1 PARTITION OF e FOR VALUES IN (1) PARTITION BY HASH (x)",
        {"table": "e", "set": "x = 1", "where": "x IS NULL"},
        "partitioned by x, which SET changes",
    ),
]


@pytest.mark.parametrize(("ddl", "changes", "reason"), REFUSED, ids=[reason for _, _, reason in REFUSED])
async def test_a_refusal_says_why(db: Database, ddl: str, changes: dict[str, Any], reason: str) -> None:
    connector = await users(db)
    if ddl:
        await db.sql(ddl)
    with pytest.raises(Refused, match=reason):
        await planned(connector, replace(PHONE, **changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"table": "nobody"}, "no table"),
        ({"set": "fone = legacy"}, "no column 'fone'"),
        ({"where": "phone IS NULL AND fone > 1"}, "fone"),
        ({"set": "phone = legacy + 1"}, "cannot be run as it is written"),
        ({"where": "phone IS NULL AND id / 0 > 0"}, "cannot be run as it is written"),
        ({"batch_time_ms": 5}, "out of range"),
    ],
)
async def test_a_mistake_is_told_before_anything_runs(db: Database, changes: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        await planned(await users(db), replace(PHONE, **changes))


async def test_a_locked_table_is_told_with_its_holder_and_not_waited_for(db: Database) -> None:
    connector = await users(db)
    holder = await db.foreign("ddl", autocommit=False)
    await holder.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(Refused, match=rf"locked: by {holder.info.backend_pid} \(ddl: AccessExclusiveLock\)"):
        await asyncio.wait_for(planned(connector, PHONE), 3)


async def test_a_missing_privilege_is_told_with_the_grant(db: Database) -> None:
    await users(db)
    role = f"reader_{db.name}"
    await db.sql(f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON users TO {role}")
    try:
        with pytest.raises(Refused, match=f"GRANT SELECT, UPDATE ON public.users TO {role}"):
            await planned(Connector(db.dsn_as(role)), PHONE)
    finally:
        await db.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_row_level_security_that_hides_rows_is_refused(db: Database) -> None:
    await users(db)
    role = f"tenant_{db.name}"
    await db.sql(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, UPDATE ON users TO {role}",
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
    )
    try:
        with pytest.raises(Refused, match="row-level security"):
            await planned(Connector(db.dsn_as(role)), PHONE)
    finally:
        await db.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_a_standby_is_refused(own_server: OwnServers) -> None:
    primary = await own_server(18)
    database = await own_server.database(primary)
    await users(database)
    standby = await own_server.standby(primary)
    with pytest.raises(Refused, match="standby"):
        await planned(Connector(standby.dsn_of(database.name)), PHONE)


async def test_a_partitioned_table_is_walked_by_its_own_key(db: Database) -> None:
    await db.sql(
        "CREATE TABLE users (id bigint PRIMARY KEY, legacy text, phone text) PARTITION BY RANGE (id)",
        "CREATE TABLE u1 PARTITION OF users FOR VALUES FROM (0) TO (500)",
        "CREATE TABLE u2 PARTITION OF users FOR VALUES FROM (500) TO (2000)",
        "INSERT INTO users SELECT i, i, NULL FROM generate_series(1, 1000) AS i",
    )
    assert (await planned(db.connector, PHONE)).index == "users_pkey"


async def test_the_same_request_has_the_same_identity_and_another_has_not(db: Database) -> None:
    connector = await users(db)
    first = await planned(connector, PHONE)
    assert (await planned(connector, replace(PHONE, table="public.users", key="id", batch_time_ms=50))).spec_hash == (
        first.spec_hash
    )
    assert (await planned(connector, replace(PHONE, where="phone IS NULL AND id > 0"))).spec_hash != first.spec_hash
    assert (await planned(connector, replace(PHONE, mode="once"))).spec_hash != first.spec_hash
