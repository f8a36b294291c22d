"""What a statement is expected to lock is what it locks: each one is run, and pg_locks is read."""

from __future__ import annotations

import pytest
from servers import Database

from dbwatch.migration.locks import LockExpectation, Mode, expect

SCHEMA = (
    "CREATE TABLE t (id int PRIMARY KEY, a varchar(9) DEFAULT 'x', b int CONSTRAINT nn CHECK (b IS NOT NULL), c int)",
    "CREATE TABLE u (id int PRIMARY KEY, t_id int CONSTRAINT fk REFERENCES t)",
    "CREATE INDEX t_a ON t (a)",
    "CREATE UNIQUE INDEX t_c ON t (c)",
    "ALTER TABLE t ADD CONSTRAINT late CHECK (id > 0) NOT VALID",
    "CREATE TABLE p (id int) PARTITION BY RANGE (id)",
    "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9)",
    "CREATE TABLE p2 (id int)",
    "CREATE SCHEMA elsewhere",
    "CREATE MATERIALIZED VIEW m AS SELECT 1 AS a",
    "CREATE UNIQUE INDEX m_a ON m (a)",
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
    "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "CREATE POLICY y ON t USING (true)",
    "INSERT INTO t SELECT i, 'x', i, i FROM generate_series(1, 50) AS i",
)

STATEMENTS = {
    "DROP TABLE u": "u: ACCESS EXCLUSIVE",
    "ALTER TABLE t DROP COLUMN a": "t: ACCESS EXCLUSIVE",
    "DROP INDEX t_a": "t_a: ACCESS EXCLUSIVE",
    "ALTER TABLE t RENAME TO v": "t: ACCESS EXCLUSIVE",
    "ALTER TABLE u SET SCHEMA elsewhere": "u: ACCESS EXCLUSIVE",
    "ALTER TABLE t RENAME COLUMN a TO aa": "t: ACCESS EXCLUSIVE",
    "ALTER INDEX t_a RENAME TO t_aa": "t_a: SHARE UPDATE EXCLUSIVE",
    "ALTER TABLE t ALTER b TYPE bigint": "t: ACCESS EXCLUSIVE, rewrites",
    "ALTER TABLE t ALTER a TYPE text": "t: ACCESS EXCLUSIVE",
    "ALTER TABLE t ADD COLUMN d int": "t: ACCESS EXCLUSIVE",
    "ALTER TABLE t ADD COLUMN d int NOT NULL DEFAULT 5": "t: ACCESS EXCLUSIVE",
    "ALTER TABLE t ADD COLUMN d timestamptz DEFAULT now()": "t: ACCESS EXCLUSIVE",
    "ALTER TABLE t ADD COLUMN d float DEFAULT random()": "t: ACCESS EXCLUSIVE, rewrites",
    "ALTER TABLE t ADD COLUMN d serial": "t: ACCESS EXCLUSIVE, rewrites",
    "ALTER TABLE t ADD COLUMN d int GENERATED ALWAYS AS (id * 2) STORED": "t: ACCESS EXCLUSIVE, rewrites",
    "ALTER TABLE t ADD COLUMN d int REFERENCES u": "t: ACCESS EXCLUSIVE; u: SHARE ROW EXCLUSIVE",
    "ALTER TABLE t ALTER b SET NOT NULL": "t: ACCESS EXCLUSIVE, scans",
    "ALTER TABLE t ALTER a SET DEFAULT 'y'": "t: ACCESS EXCLUSIVE",
    "ALTER TABLE t ALTER a SET STATISTICS 50": "t: SHARE UPDATE EXCLUSIVE",
    "ALTER TABLE t SET (fillfactor = 50)": "t: SHARE UPDATE EXCLUSIVE",
    "ALTER TABLE p2 SET UNLOGGED": "p2: ACCESS EXCLUSIVE, rewrites",
    "ALTER TABLE t ADD CONSTRAINT k CHECK (id > 0)": "t: ACCESS EXCLUSIVE, scans",
    "ALTER TABLE t ADD CONSTRAINT k CHECK (id > 0) NOT VALID": "t: ACCESS EXCLUSIVE",
    "ALTER TABLE t VALIDATE CONSTRAINT late": "t: SHARE UPDATE EXCLUSIVE, scans",
    "ALTER TABLE t ADD UNIQUE (b)": "t: ACCESS EXCLUSIVE, scans",
    "ALTER TABLE t ADD CONSTRAINT k UNIQUE USING INDEX t_c": "t: ACCESS EXCLUSIVE",
    "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (b) REFERENCES u NOT VALID": (
        "t: SHARE ROW EXCLUSIVE; u: SHARE ROW EXCLUSIVE"
    ),
    "ALTER TABLE t DISABLE TRIGGER g": "t: SHARE ROW EXCLUSIVE",
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY": "t: ACCESS EXCLUSIVE",
    "ALTER TABLE u DROP CONSTRAINT fk": "u: ACCESS EXCLUSIVE",
    "CREATE INDEX ON t (b)": "t: SHARE, scans",
    "CREATE TRIGGER h BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()": "t: SHARE ROW EXCLUSIVE",
    "DROP TRIGGER g ON t": "t: ACCESS EXCLUSIVE",
    "CREATE POLICY z ON t USING (true)": "t: ACCESS EXCLUSIVE",
    "DROP POLICY y ON t": "t: ACCESS EXCLUSIVE",
    "CREATE TABLE w (id int REFERENCES t)": "t: SHARE ROW EXCLUSIVE",
    "CREATE TABLE w PARTITION OF p FOR VALUES FROM (20) TO (30)": "p: ACCESS EXCLUSIVE",
    "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)": (
        "p: SHARE UPDATE EXCLUSIVE; p2: ACCESS EXCLUSIVE, scans"
    ),
    "ALTER TABLE p DETACH PARTITION p1": "p: ACCESS EXCLUSIVE; p1: ACCESS EXCLUSIVE",
    "REFRESH MATERIALIZED VIEW m": "m: ACCESS EXCLUSIVE, rewrites",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY m": "m: EXCLUSIVE",
    "TRUNCATE u": "u: ACCESS EXCLUSIVE",
    "UPDATE t SET b = b + 1": "t: ROW EXCLUSIVE",
    "INSERT INTO u VALUES (1, NULL)": "u: ROW EXCLUSIVE",
    "DELETE FROM u": "u: ROW EXCLUSIVE",
    "LOCK TABLE t IN SHARE MODE": "t: SHARE",
    "CREATE TABLE alone (a int)": "",
    "SELECT 1": "",
}


OUTSIDE = {
    "VACUUM FULL t": "t: ACCESS EXCLUSIVE, rewrites",
    "VACUUM (ANALYZE, FULL on) t": "t: ACCESS EXCLUSIVE, rewrites",
    "VACUUM (FULL off) t": "",
    "VACUUM (FULL 0) t": "",
    "VACUUM t": "",
    "ANALYZE t": "",
    "VACUUM FULL": "",
}
"""What cannot run in a transaction, and so is not run below."""


def _told(lock: LockExpectation) -> str:
    return f"{lock.relation}: {lock.mode.label}" + ", rewrites" * lock.rewrites + ", scans" * lock.scans


@pytest.mark.parametrize(("statement", "locks"), [*STATEMENTS.items(), *OUTSIDE.items()])
def test_the_locks_of_a_statement_are_told(statement: str, locks: str) -> None:
    assert "; ".join(map(_told, expect(statement))) == locks


async def test_the_server_takes_exactly_these_locks(db: Database) -> None:
    await db.sql(*SCHEMA)
    wrong: list[str] = []
    for statement in STATEMENTS:
        oids = {
            name: oid for name, oid in await db.sql("SELECT relname, oid::int FROM pg_class WHERE relnamespace = 2200")
        }
        files = dict(
            await db.sql("SELECT oid::int, pg_relation_filenode(oid)::int FROM pg_class WHERE relnamespace = 2200")
        )
        connection = await db.foreign(autocommit=False)
        await connection.execute(statement.encode())
        held = await connection.execute(
            "SELECT relation::int, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"
        )
        modes: dict[int, Mode] = {}
        for oid, mode in await held.fetchall():
            if (known := _mode(mode)) is not None:
                modes[oid] = max(known, modes.get(oid, known))
        now = await connection.execute("SELECT oid::int, pg_relation_filenode(oid)::int FROM pg_class")
        rewritten = {oid for oid, node in await now.fetchall() if files.get(oid, node) != node}
        for lock in expect(statement):
            oid = oids[lock.relation]
            if modes.get(oid) is not lock.mode:
                wrong.append(f"{statement}: {lock.relation} has {modes.get(oid)}, not {lock.mode.label}")
            if (oid in rewritten) != lock.rewrites and not statement.startswith("TRUNCATE"):
                wrong.append(f"{statement}: {lock.relation} rewritten: {oid in rewritten}")
        await connection.rollback()
        connection.pgconn.finish()
    assert not wrong


def _mode(mode: str) -> Mode | None:
    for known in Mode:
        if mode == known.label.title().replace(" ", "") + "Lock":
            return known
    return None


def test_the_strongest_lock_of_several_statements_is_told_once() -> None:
    [lock] = expect("UPDATE t SET a = 1; ALTER TABLE t ADD COLUMN b int; CREATE INDEX ON t (a)")
    assert _told(lock) == "t: ACCESS EXCLUSIVE, scans"


def test_a_statement_that_the_grammar_does_not_know_promises_nothing() -> None:
    assert expect("CREATE GIBBERISH") == ()
