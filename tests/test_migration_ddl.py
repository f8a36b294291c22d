"""What a statement names, by the grammar; what may be retried. Pure."""

from __future__ import annotations

import pytest

from dbwatch.migration.ddl import Action, JournalledDdl, Named
from dbwatch.migration.events import Cause, Failed, StatementStarted
from dbwatch.migration.fingerprint import Fingerprint, Item
from dbwatch.migration.grammar import plain, read
from dbwatch.migration.retry import Seen, may_retry, pause_s, sent_alone
from dbwatch.steps.migrate import journalled_alone


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("CREATE TABLE s.t (a int, b int CONSTRAINT c CHECK (b > 0))",
         "+table s.t +column s.t.a +column s.t.b +constraint s.t.c"),
        ("CREATE TABLE t2 PARTITION OF t DEFAULT", "+table ?.t2"),
        ("CREATE TABLE t2 AS SELECT 1", "+table ?.t2"),
        ("SELECT 1 INTO t2", "+table ?.t2"),
        ('ALTER TABLE "T" ADD COLUMN "a b" int REFERENCES u', '+column ?.T.a b +constraint ?.T.'),
        ("ALTER TABLE t DROP COLUMN a, DROP CONSTRAINT c", "-column ?.t.a -constraint ?.t.c"),
        ("ALTER TABLE t ALTER a SET NOT NULL, ALTER b TYPE text", "~column ?.t.a ~column ?.t.b"),
        ("ALTER TABLE t ADD PRIMARY KEY (a)", "+constraint ?.t. ~column ?.t.a"),
        ("ALTER TABLE t ADD CONSTRAINT p UNIQUE USING INDEX i", "+constraint ?.t.p ~index ?.t.i"),
        ("ALTER TABLE t VALIDATE CONSTRAINT c", "~constraint ?.t.c"),
        ("ALTER TABLE t ATTACH PARTITION t1 DEFAULT", "~table ?.t ~table ?.t1"),
        ("ALTER TABLE t SET (fillfactor = 70)", "~table ?.t"),
        ("ALTER TABLE t DISABLE TRIGGER g", "~trigger ?.t.g"),
        ("ALTER TABLE t RENAME TO u", "~table ?.t ~table ?.u"),
        ("ALTER TABLE s.t RENAME COLUMN a TO b", "~column s.t.a ~column s.t.b"),
        ("ALTER TABLE t SET SCHEMA s", "~table ?.t ~table s.t"),
        ("ALTER TABLE t OWNER TO me", "~table ?.t"),
        ("CREATE UNIQUE INDEX i ON s.t (a)", "+index s.t.i"),
        ("CREATE INDEX ON t (a)", "+index ?.t."),
        ("DROP INDEX s.i, j", "-index s.i -index ?.j"),
        ("DROP TABLE IF EXISTS s.t CASCADE", "-table s.t"),
        ("DROP TRIGGER g ON s.t", "-trigger s.t.g"),
        ("DROP FUNCTION s.f(int)", "-function s.f"),
        ("DROP SCHEMA s", "-schema .s"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", "+view ?.v"),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1", "+materialized view ?.v"),
        ("CREATE SEQUENCE q", "+sequence ?.q"),
        ("CREATE TYPE e AS ENUM ('a')", "+type ?.e"),
        ("ALTER TYPE e ADD VALUE 'b'", "~type ?.e"),
        ("ALTER TYPE e RENAME TO f", "~type ?.e ~type ?.f"),
        ("ALTER TYPE c ADD ATTRIBUTE a int", "~type ?.c"),
        ("CREATE DOMAIN d AS int", "+domain ?.d"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "+function ?.f"),
        ("CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'", "+procedure ?.p"),
        ("CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f()", "+trigger ?.t.g"),
        ("CREATE POLICY p ON t USING (true)", "+policy ?.t.p"),
        ("CREATE EXTENSION pg_trgm", "+extension .pg_trgm"),
        ("CREATE STATISTICS s.x ON a, b FROM t", "+statistics s.x"),
        ("CREATE PUBLICATION p", "+publication .p"),
        ("COMMENT ON COLUMN s.t.a IS 'x'", "~column s.t.a"),
        ("GRANT SELECT ON s.t, u TO me", "~table s.t ~table ?.u"),
        ("CREATE TABLE a (); DROP TABLE b", "+table ?.a -table ?.b"),
        ("INSERT INTO t VALUES (1)", ""),
        ("SET lock_timeout = '1s'", ""),
    ],
)  # fmt: skip
def test_the_grammar_names_the_objects(sql: str, named: str) -> None:
    reading = read(sql)
    assert reading.known
    assert " ".join(map(_short, reading.named)) == named


def _short(named: Named) -> str:
    sign = {Action.CREATE: "+", Action.DROP: "-", Action.ALTER: "~"}[named.action]
    schema = "?" if named.schema is None else named.schema
    return f"{sign}{named.kind} " + ".".join([schema, *([named.parent] if named.parent else []), named.name])


@pytest.mark.parametrize("sql", ["CREATE GIBBERISH", "DO $$ BEGIN END $$", "CALL p()", "EXECUTE q", "SELECT '\udc80'"])
def test_what_cannot_be_told_is_unknown_never_clean(sql: str) -> None:
    assert not read(sql).known


@pytest.mark.parametrize(
    ("sql", "concurrently"),
    [
        ("CREATE INDEX CONCURRENTLY i ON t (a)", True),
        ("DROP INDEX CONCURRENTLY i", True),
        ("REINDEX TABLE CONCURRENTLY t", True),
        ("REINDEX (CONCURRENTLY) INDEX i", True),
        ("ALTER TABLE t DETACH PARTITION p CONCURRENTLY", True),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY v", False),
        ("CREATE INDEX i ON t (a)", False),
        ("COMMENT ON TABLE t IS 'CONCURRENTLY'", False),
    ],
)
def test_concurrently_is_what_waits_for_old_transactions(sql: str, concurrently: bool) -> None:
    assert read(sql).concurrently is concurrently


@pytest.mark.parametrize(
    ("sql", "lasting"),
    [
        ("UPDATE t SET a = 1", True),
        ("WITH gone AS (DELETE FROM t RETURNING a) SELECT a FROM gone", True),
        ("EXPLAIN ANALYZE INSERT INTO t VALUES (1)", True),
        ("ALTER TABLE t ADD b int; UPDATE t SET b = 1", True),
        ("CREATE ROLE app", True),
        ("DO $$ BEGIN END $$", True),
        ("CREATE GIBBERISH", True),
        ("WITH one AS (SELECT 1) SELECT * FROM one", False),
        ("SET lock_timeout = '1s'", False),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", False),
        ("VACUUM t", False),
    ],
)
def test_what_no_fingerprint_would_show_is_lasting(sql: str, lasting: bool) -> None:
    assert read(sql).lasting is lasting


def test_placeholders_of_the_driver_do_not_hide_a_statement() -> None:
    assert (
        plain("UPDATE t SET a = %(a)s WHERE b LIKE 'x%%s' AND c = %s")
        == "UPDATE t SET a = $1 WHERE b LIKE 'x%s' AND c = $1"
    )
    assert read(plain("INSERT INTO t VALUES (%(a)s::VARCHAR)")).known


def test_journalled_ddl_comes_back_from_json_as_it_was() -> None:
    statement = JournalledDdl("CREATE INDEX i ON t (a)", "r1", True, read("CREATE INDEX i ON t (a)").named, done=False)
    assert JournalledDdl.from_json(statement.to_json()) == statement


def _schema(*names: str) -> Fingerprint:
    return Fingerprint(
        {f"table public.{n}": Item(f"table public.{n}", "table", "public", n, "", "", 1, n) for n in names}, {}
    )


LOCK = Failed(Cause.DATABASE, "canceling statement due to lock timeout", "55P03")
VERSION = ("public", "alembic_version")


@pytest.mark.parametrize(
    ("failure", "attempt", "before", "after", "again"),
    [
        (LOCK, 1, Seen(frozenset("a"), _schema("t")), Seen(frozenset("a"), _schema("t")), True),
        (Failed(Cause.DATABASE, "", "40P01"), 1, Seen(frozenset(), _schema()), Seen(frozenset(), _schema()), True),
        (LOCK, 1, Seen(frozenset(), _schema()), Seen(frozenset(), _schema("alembic_version")), True),
        (LOCK, 3, Seen(frozenset("a"), _schema("t")), Seen(frozenset("a"), _schema("t")), False),
        (LOCK, 1, Seen(frozenset("a"), _schema("t")), Seen(frozenset("b"), _schema("t")), False),
        (LOCK, 1, Seen(frozenset("a"), _schema("t")), Seen(frozenset("a"), _schema("t", "u")), False),
        (LOCK, 1, Seen(frozenset("a"), _schema("t")), Seen(None, _schema("t")), False),
        (LOCK, 1, Seen(frozenset("a"), _schema("t")), Seen(frozenset("a"), None), False),
        (Failed(Cause.DATABASE, "", "42701"), 1, Seen(frozenset(), _schema()), Seen(frozenset(), _schema()), False),
        (Failed(Cause.STOPPED, "", "55P03"), 1, Seen(frozenset(), _schema()), Seen(frozenset(), _schema()), False),
    ],
)  # fmt: skip
def test_only_a_lock_that_left_nothing_behind_is_tried_again(
    failure: Failed, attempt: int, before: Seen, after: Seen, again: bool
) -> None:
    assert may_retry(failure, attempt, 3, before, after, VERSION) is again


def test_what_commits_by_itself_and_leaves_the_schema_as_it_was_is_not_sent_again() -> None:
    same = Seen(frozenset("a"), _schema("t"))
    assert not may_retry(LOCK, 1, 3, same, same, VERSION, alone=True)
    assert not may_retry(LOCK, 1, 3, same, same, VERSION, alone=True, resume=True)
    assert may_retry(LOCK, 1, 3, same, same, VERSION, resume=True)


def test_a_password_that_is_sent_alone_is_not_journalled() -> None:
    for sql, told in (
        ("ALTER ROLE app PASSWORD 'it''s secret' VALID UNTIL '2027-01-01'", "PASSWORD '***' VALID UNTIL '2027-01-01'"),
        ("CREATE ROLE app LOGIN password  $p$secret$p$", "password  '***'"),
        ("ALTER ROLE app PASSWORD NULL", "PASSWORD NULL"),
    ):
        fact = journalled_alone("s", 1, _started(1, sql))
        assert fact is not None
        assert "secret" not in fact.sql
        assert told in fact.sql
    assert journalled_alone("s", 1, _started(1, "UPDATE alembic_version SET x = 1", None)) is None


def _started(n: int, sql: str, revision: str | None = "r1", *, known: bool = True) -> StatementStarted:
    return StatementStarted(n, sql, revision, True, False, (), known, lasting=True)


@pytest.mark.parametrize(
    ("sqlstate", "left"),
    [("55P03", ["done", "CALL p()"]), ("08006", ["done", "CALL p()", "last"]), (None, ["done", "CALL p()", "last"])],
)
def test_what_may_have_committed_by_itself_is_all_but_what_the_server_refused_whole(
    sqlstate: str | None, left: list[str]
) -> None:
    sent = [
        _started(1, "committed", "r0"),
        _started(2, "done"),
        _started(3, "of env.py", None),
        _started(4, "CALL p()", known=False),
        _started(5, "last"),
    ]
    assert list(sent_alone(sent, {1, 2, 3}, Failed(Cause.DATABASE, "", sqlstate), ("r0",))) == left


def test_the_pauses_double_up_to_half_a_minute() -> None:
    assert [pause_s(k, 1.0) for k in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert pause_s(1, 0.0) == 0.5
