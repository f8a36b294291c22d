"""What each view shows, on every major, with few privileges, behind locks, and with hostile text."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from jam import Jam, snapshot_as
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from servers import Database, OwnServers, eventually

from dbwatch.clock import SystemClock
from dbwatch.monitor.collectors import COLLECTORS
from dbwatch.monitor.export import VIEWS, to_json
from dbwatch.monitor.poller import Poll, poll_once
from dbwatch.monitor.samples import Snapshot, Status
from dbwatch.monitor.source import Source
from dbwatch.postgres.session import Connector, Role

ALL = tuple(collector.name for collector in COLLECTORS)


@pytest.fixture
async def role(db: Database) -> AsyncIterator[str]:
    """A role that may log in, and nothing else."""
    name = f"r{uuid4().hex[:10]}"
    await db.sql(f"CREATE ROLE {name} LOGIN")
    yield name
    await db.close()
    await db.sql(f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


@pytest.fixture
async def jam(db: Database) -> AsyncIterator[Jam]:
    jam = Jam(db)
    yield jam
    await jam.close()


SHOP = (
    "CREATE TABLE users (id int PRIMARY KEY, email text)",
    "INSERT INTO users SELECT n, 'u' || n FROM generate_series(1, 1000) n",
    "CREATE INDEX users_email ON users (email)",
    "VACUUM ANALYZE users",
)


def statuses(snapshot: Snapshot) -> dict[str, tuple[Status, str]]:
    return {name: (getattr(snapshot, name).status, getattr(snapshot, name).reason) for name in ALL}


async def test_every_view_answers_on_every_major(any_db: Database) -> None:
    await any_db.sql("CREATE EXTENSION pg_stat_statements", *SHOP, "SELECT count(*) FROM users")
    snapshot = await poll_once(any_db.connector)

    assert statuses(snapshot) == {name: (Status.OK, "") for name in ALL}
    assert snapshot.connected
    assert snapshot.facts is not None
    assert snapshot.facts.major == any_db.major
    [vitals] = snapshot.vitals.rows
    assert vitals.connections >= 1
    assert vitals.database_bytes is not None
    assert vitals.wal_bytes is not None
    assert [table.relname for table in snapshot.tables.rows] == ["users"]
    [table] = snapshot.tables.rows
    assert table.bytes > 0
    assert table.last_analyze is not None or any_db.major < 15  # there counters come in later, by UDP
    assert {index.indexrelname: index.is_valid for index in snapshot.indexes.rows} == {
        "users_pkey": True,
        "users_email": True,
    }
    assert any("count(*)" in statement.query for statement in snapshot.statements.rows)


async def test_a_session_is_shown_as_the_manual_calls_it(any_db: Database) -> None:
    app = await any_db.foreign("shop", autocommit=False)
    await app.execute("SELECT txid_current()")
    snapshot = await poll_once(any_db.connector)

    [session] = [a for a in snapshot.activity.rows if a.pid == app.info.backend_pid]
    assert (session.application_name, session.state, session.datname) == ("shop", "idle in transaction", any_db.name)
    assert (session.usename, session.client, session.backend_type) == ("postgres", "127.0.0.1", "client backend")
    assert session.query == "SELECT txid_current()"
    assert session.xact_start is not None
    assert not session.hidden


async def test_an_index_build_shows_how_far_it_is_and_whom_it_waits_for(any_db: Database) -> None:
    jam = Jam(any_db)
    try:
        await any_db.sql(*SHOP)
        holder = await jam.holds("report", "SELECT 1 FROM users", "UPDATE users SET email = email WHERE id = 1")
        builder = await jam.waits("dba", "CREATE INDEX CONCURRENTLY later ON users (id, email)")
        snapshot = await poll_once(any_db.connector)
    finally:
        await jam.close()

    [build] = snapshot.progress.rows
    assert (build.pid, build.command, build.relation) == (builder, "CREATE INDEX CONCURRENTLY", "users")
    assert (build.index, build.waits_for) == ("later", holder)
    assert build.phase.startswith("waiting for writers")
    [index] = [index for index in snapshot.indexes.rows if index.indexrelname == "later"]
    assert not index.is_valid


async def test_a_standby_is_seen_from_its_primary_and_is_itself_polled(own_server: OwnServers) -> None:
    primary = await own_server(15)
    standby = await own_server.standby(primary)
    async with asyncio.timeout(10):
        while True:  # a standby that has just connected has not said yet how far it is
            [follower] = (await poll_once(Connector(primary.dsn))).replication.rows
            if follower.lag_bytes is not None:
                break
    assert (follower.application_name, follower.state) == ("standby", "streaming")

    below = await poll_once(Connector(standby.dsn))
    assert below.facts is not None
    assert below.facts.in_recovery
    assert {name: status for name, (status, _) in statuses(below).items() if status is not Status.OK} == {
        "statements": Status.UNSUPPORTED
    }
    [vitals] = below.vitals.rows
    assert vitals.wal_bytes is not None


@pytest.mark.parametrize("major", [15, 18])
async def test_a_prepared_transaction_is_a_holder_without_a_session(own_server: OwnServers, major: int) -> None:
    server = await own_server(major, settings={"max_prepared_transactions": "5"})
    database = await own_server.database(server)
    await database.sql(*SHOP, "BEGIN", "LOCK users", "PREPARE TRANSACTION 'forgotten'")
    snapshot = await poll_once(database.connector)

    [lock] = [lock for lock in snapshot.locks.rows if lock.target == "users"]
    assert (lock.pid, lock.gid, lock.mode) == (0, "forgotten", "AccessExclusiveLock")


async def test_a_plain_role_is_told_what_is_hidden_and_which_grant_mends_it(db: Database, role: str) -> None:
    await db.sql("CREATE EXTENSION pg_stat_statements", *SHOP)
    await db.foreign("shop")
    snapshot = await snapshot_as(db, role)

    mend = f"GRANT pg_monitor TO {role}"
    for name in ("vitals", "activity", "statements"):
        view = getattr(snapshot, name)
        assert view.status is Status.HIDDEN, name
        assert view.reason.endswith(f"hidden: {mend}"), name
    assert all(session.query == "" for session in snapshot.activity.rows if session.hidden)
    assert "shop" in [session.application_name for session in snapshot.activity.rows]

    await db.sql(mend)
    assert all(status is Status.OK for status, _ in statuses(await snapshot_as(db, role)).values())


async def test_waiting_sessions_are_counted_even_where_they_are_hidden(db: Database, role: str, jam: Jam) -> None:
    await db.sql(*SHOP)
    await jam.holds("report", "SELECT 1 FROM users")
    await jam.waits("dba", "ALTER TABLE users ADD c int")
    [vitals] = (await snapshot_as(db, role)).vitals.rows
    assert vitals.waiting >= 1  # other tests' sessions on this server may wait too


async def test_a_schema_that_may_not_be_used_is_named_in_the_grant(db: Database, role: str) -> None:
    await db.sql('CREATE SCHEMA "Ext"', 'CREATE EXTENSION pg_stat_statements SCHEMA "Ext"')
    assert (await poll_once(db.connector)).statements.status is Status.OK

    view = (await snapshot_as(db, role)).statements
    assert view.status is Status.HIDDEN
    assert view.reason == f'the statements are hidden: GRANT USAGE ON SCHEMA "Ext" TO {role}'


async def test_a_missing_extension_is_unsupported_until_it_is_created(db: Database) -> None:
    source = await Source.open(db.connector)
    poll = Poll(SystemClock())
    snapshot = await poll.take(source, Snapshot(), 0.001)
    assert snapshot.statements.status is Status.UNSUPPORTED
    assert "CREATE EXTENSION pg_stat_statements" in snapshot.statements.reason

    await db.sql("CREATE EXTENSION pg_stat_statements")
    for _ in range(20):
        snapshot = await poll.take(source, snapshot, 0.001)
    await source.close()
    assert snapshot.statements.status is Status.OK


async def test_an_extension_that_is_not_loaded_says_so_and_is_not_asked_again(own_server: OwnServers) -> None:
    server = await own_server(15, settings={"shared_preload_libraries": ""})
    database = await own_server.database(server)
    await database.sql("CREATE EXTENSION pg_stat_statements")
    source = await Source.open(database.connector)
    poll = Poll(SystemClock())
    first = await poll.take(source, Snapshot(), 0.001)
    assert first.statements.status is Status.UNSUPPORTED
    assert "shared_preload_libraries" in first.statements.reason
    assert "statements" in source.in_vain
    again = await poll.take(source, first, 0.001)
    assert again.statements is first.statements
    await source.close()


async def test_an_extension_older_than_the_server_is_still_read(db15: Database) -> None:
    await db15.sql("CREATE EXTENSION pg_stat_statements VERSION '1.8'", *SHOP)
    view = (await poll_once(db15.connector)).statements
    assert view.status is Status.OK
    assert view.rows

    await db15.sql("DROP EXTENSION pg_stat_statements", "CREATE EXTENSION pg_stat_statements VERSION '1.7'")
    view = (await poll_once(db15.connector)).statements
    assert (view.status, view.reason) == (
        Status.UNSUPPORTED,
        "pg_stat_statements is too old: ALTER EXTENSION pg_stat_statements UPDATE",
    )


async def test_polling_marks_its_own_statements(any_db: Database) -> None:
    await any_db.sql("CREATE EXTENSION pg_stat_statements", "SELECT 42 AS answer")
    await poll_once(any_db.connector)
    rows = (await poll_once(any_db.connector)).statements.rows

    ours = [statement.query for statement in rows if statement.ours]
    assert any("pg_stat_get_activity" in query for query in ours)
    assert any("pg_locks" in query for query in ours)
    assert [s.ours for s in rows if "AS answer" in s.query] == [False]
    assert {s.dbid for s in rows} == {rows[0].dbid}


LOCKS_HELD = (
    "LOCK TABLE users IN ACCESS EXCLUSIVE MODE",
    "TRUNCATE users",
    "DROP INDEX users_email",
    "ALTER TABLE users ALTER email TYPE varchar(80)",
)


@pytest.mark.parametrize("statement", LOCKS_HELD)
async def test_a_poll_does_not_wait_for_access_exclusive(db: Database, jam: Jam, statement: str) -> None:
    await db.sql("CREATE EXTENSION pg_stat_statements", *SHOP)
    await jam.holds("dba", statement)
    await answers_quickly(db)


async def test_a_poll_does_not_wait_behind_a_queued_access_exclusive(db: Database, jam: Jam) -> None:
    await db.sql("CREATE EXTENSION pg_stat_statements", *SHOP)
    await jam.holds("report", "SELECT 1 FROM users")
    await jam.waits("dba", "ALTER TABLE users ADD c int")
    await answers_quickly(db)


async def answers_quickly(db: Database) -> None:
    started = time.monotonic()
    snapshot = await poll_once(db.connector)
    assert time.monotonic() - started < 1.0
    assert statuses(snapshot) == {name: (Status.OK, "") for name in ALL}
    assert [table.relname for table in snapshot.tables.rows] == ["users"]


async def test_sessions_and_locks_are_seen_while_pg_database_is_locked(own_server: OwnServers) -> None:
    """New connections hang then, and so does the view pg_stat_activity: the one that is open must go on."""
    server = await own_server(18)
    database = await own_server.database(server)
    source = await Source.open(database.connector)
    poll = Poll(SystemClock())
    before = await poll.take(source, Snapshot(), 1.0)
    jam = Jam(database)
    await jam.holds("dba", "LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
    started = time.monotonic()
    poll.start_over()
    snapshot = await poll.take(source, before, 1.0)
    assert time.monotonic() - started < 2.0
    await source.close()
    await jam.close()

    assert snapshot.activity.status is snapshot.locks.status is snapshot.vitals.status is Status.OK
    assert any(session.application_name == "dba" for session in snapshot.activity.rows)
    assert snapshot.progress.status is Status.LOCKED
    assert "lock" in snapshot.progress.reason


async def test_a_view_that_fails_keeps_its_last_good_rows(db: Database) -> None:
    await db.sql("CREATE EXTENSION pg_stat_statements", *SHOP)
    source = await Source.open(db.connector)
    poll = Poll(SystemClock())
    good = await poll.take(source, Snapshot(), 1.0)
    await source.session.execute("SET statement_timeout = 1")
    async with asyncio.timeout(10):
        while True:  # how many views take longer than a millisecond is the machine's affair
            poll.start_over()
            failed = await poll.take(source, good, 1.0)
            if Status.ERROR in {status for status, _ in statuses(failed).values()}:
                break
    await source.close()

    slow = [name for name in ALL if getattr(failed, name).status is Status.ERROR]
    assert slow
    for name in slow:
        view = getattr(failed, name)
        assert "time limit" in view.reason
        assert view.rows == getattr(good, name).rows
        assert view.taken == getattr(good, name).taken
    assert failed.connected


HOSTILE = "\x1b]0;owned\x07\x1b[2J \u202egnp.exe [/] [@click=app.quit]x \u200b\ufeff tab\there 漢字 e\u0301"


async def test_hostile_text_comes_out_harmless(own_server: OwnServers, jam_of: Any) -> None:
    server = await own_server(18, settings={"track_activity_query_size": "1MB"})
    database = await own_server.database(server)
    await database.sql(
        "CREATE EXTENSION pg_stat_statements",
        sql.SQL("CREATE TABLE {} (x int)").format(sql.Identifier(HOSTILE)).as_string(),
    )
    jam = jam_of(database)
    app = await jam.session(HOSTILE)
    long = f"SELECT '{HOSTILE}', '{'x' * 100_000}', 7"
    await app.execute(long.encode())
    await jam.holds("holder", sql.SQL("LOCK TABLE {}").format(sql.Identifier(HOSTILE)).as_string())
    snapshot = await poll_once(database.connector)

    [session] = [a for a in snapshot.activity.rows if a.pid == app.info.backend_pid]
    assert session.query.startswith("SELECT '␛]0;owned␇␛[2J ·gnp.exe [/] [@click=app.quit]x")
    assert len(session.query) == 20_000
    assert session.query.endswith("…")
    [statement] = [s for s in snapshot.statements.rows if s.query.startswith("SELECT $1, $2, $3")]
    assert statement.calls == 1
    text = json.dumps(to_json(snapshot), ensure_ascii=False)
    for harmful in "\x1b\x07\u202e\u200b\ufeff\t\n":
        assert harmful not in text
    [held] = [lock for lock in snapshot.locks.rows if lock.mode == "AccessExclusiveLock"]
    assert held.target.startswith('"␛]0;owned␇␛[2J ·gnp.exe')


async def test_a_query_in_another_databases_encoding_does_not_darken_the_list(own_server: OwnServers) -> None:
    server = await own_server(15)
    await (await psycopg.AsyncConnection.connect(server.dsn, autocommit=True)).execute(
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    )
    database = await own_server.database(server)
    foreign = await psycopg.AsyncConnection.connect(server.dsn_of("latin"), application_name="old")
    await foreign.execute("SET client_encoding = 'LATIN1'")
    await foreign.execute("SELECT 'caf\xe9'")
    snapshot = await poll_once(database.connector)
    await foreign.close()

    [session] = [a for a in snapshot.activity.rows if a.application_name == "old"]
    assert session.query == "SELECT 'caf\ufffd'"


async def test_settings_of_the_role_do_not_disturb_the_reading(db: Database, role: str) -> None:
    await db.sql(
        f"GRANT pg_monitor TO {role}",
        f"ALTER ROLE {role} SET datestyle = 'SQL, DMY'",
        f"ALTER ROLE {role} SET timezone = 'Asia/Taipei'",
        f"ALTER ROLE {role} SET client_encoding = 'LATIN1'",
        f"ALTER ROLE {role} SET search_path = pg_temp",
    )
    snapshot = await snapshot_as(db, role)
    assert snapshot.vitals.status is Status.OK
    assert snapshot.at is not None
    assert snapshot.at.utcoffset() is not None


async def test_own_sessions_are_told_by_name_and_role(db: Database) -> None:
    app = await db.foreign("dbwatch worker 3f9c/4")
    other = await db.foreign("shop")
    snapshot = await poll_once(db.connector)
    assert app.info.backend_pid in snapshot.own_pids
    assert other.info.backend_pid not in snapshot.own_pids


async def test_somebody_elses_session_is_not_ours_by_its_name(db: Database, role: str) -> None:
    impostor = await db.foreign("dbwatch worker 3f9c/4", user=role)
    assert impostor.info.backend_pid not in (await poll_once(db.connector)).own_pids


async def test_own_sessions_of_another_role_than_the_monitors_are_told(db: Database, role: str) -> None:
    worker = await db.foreign("dbwatch worker 3f9c/4")
    other = await db.foreign("shop")
    apart = Connector(db.dsn, roles={Role.MONITOR: db.dsn_as(role)})
    own = (await poll_once(apart)).own_pids
    assert worker.info.backend_pid in own
    assert other.info.backend_pid not in own


async def test_a_role_that_nobody_of_us_logs_in_as_is_not_ours_by_its_name(db: Database, role: str) -> None:
    third = f"{role}_third"
    await db.sql(f"CREATE ROLE {third} LOGIN")
    try:
        impostor = await db.foreign("dbwatch worker 3f9c/4", user=third)
        apart = Connector(db.dsn, roles={Role.MONITOR: db.dsn_as(role)})
        assert impostor.info.backend_pid not in (await poll_once(apart)).own_pids
    finally:
        await db.sql(f"DROP ROLE {third}")


async def test_a_role_that_libpq_was_told_elsewhere_is_known_from_the_first_session(
    db18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGUSER", "postgres")
    connector = Connector(make_conninfo("", **{**conninfo_to_dict(db18.dsn), "user": None}))
    assert connector.users == frozenset()
    session = await connector.open(Role.WORKER)
    assert connector.tagged("3f9c/4").users == {"postgres"}
    await session.close()


async def test_scans_are_counted_since_the_last_reset(any_db: Database) -> None:
    await any_db.sql(*SHOP)
    before = await reset_of(any_db)
    [(now,)] = await any_db.sql("SELECT clock_timestamp()")
    assert before < now
    await any_db.sql("SELECT pg_stat_reset()")

    async def noticed() -> bool:
        return await reset_of(any_db) >= now

    await eventually(noticed)  # before 15 the counters are another process's, which is told by UDP


@pytest.mark.parametrize("major", [14, 15, 18])
async def test_a_crash_discards_the_counters_and_is_told_as_their_beginning(own_server: OwnServers, major: int) -> None:
    server = await own_server(major)
    database = await own_server.database(server)
    await database.sql(*SHOP, "SELECT pg_stat_reset()")
    [(before,)] = await database.sql("SELECT clock_timestamp()")
    await server.kill9()
    await server.start()
    assert await reset_of(database) > before


async def reset_of(db: Database) -> datetime:
    [reset] = {index.stats_reset for index in (await poll_once(db.connector)).indexes.rows}
    assert reset is not None
    return reset


async def test_the_json_has_the_keys_that_scripts_rely_on(db: Database) -> None:
    await db.foreign("shop")
    body = json.loads(json.dumps(to_json(await poll_once(db.connector))))

    assert set(body) == {"server", *VIEWS}
    assert body["server"]["database"] == db.name
    assert body["server"]["major"] == db.major
    assert body["server"]["vitals"]["rows"][0]["connections"] >= 1
    for name in VIEWS:
        assert set(body[name]) == {"status", "at", "reason", "rows"}
        assert body[name]["at"].endswith("+00:00")
    [session] = [row for row in body["activity"]["rows"] if row["application_name"] == "shop"]
    assert session["backend_start"].endswith("+00:00")
    assert "password" not in json.dumps(body)


async def test_more_sessions_than_shown_are_admitted(own_server: OwnServers) -> None:
    """The limit itself is 1,000 sessions; the same is true of locks, at 5,000, which are cheaper to make."""
    server = await own_server(18, settings={"max_locks_per_transaction": "256"})
    database = await own_server.database(server)
    jam = Jam(database)
    await jam.holds("dba", "SELECT pg_advisory_xact_lock(n) FROM generate_series(1, 5500) n")
    view = (await poll_once(database.connector)).locks
    await jam.close()
    assert len(view.rows) == 5_000
    assert view.status is Status.OK
    assert view.reason.startswith("5,000 of 5,5")


@pytest.fixture
async def jam_of() -> AsyncIterator[Any]:
    jams: list[Jam] = []

    def make(database: Database) -> Jam:
        jams.append(Jam(database))
        return jams[-1]

    yield make
    await asyncio.gather(*(jam.close() for jam in jams))
