"""The twelve faults that a backfill has to survive: `pytest tests/test_backfill_faults.py -k fault_4`.

Each fault is a scene. The engine as it is comes out of it with every row set exactly once (faults/oracle.py); versions
without one protection (faults/broken.py) are put through the same scene, and the same oracle catches them. By keyset it
is done on 15, in stripes on 18. The last test holds that each of the twelve has both.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import psycopg
import pytest
from faults import broken, oracle
from ledger import ONCE, QUICK, WORKER_WAITS, Ledger, Scene, run_elsewhere, wait_for
from pooler import pgbouncer
from proxy import FaultProxy
from servers import Database, Fleet, OwnServers, new_database

from dbwatch.backfill.plan import Spec
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.run import Backfill, Result
from dbwatch.backfill.walk import Walk
from dbwatch.errors import DbwatchError, Refused
from dbwatch.postgres.session import Connector

MANY = "SELECT generate_series(2, 24000, 2)"
BATCH = b"filled AS ("
"""In the message that carries a batch, from BEGIN to COMMIT."""
LOCKED, BEFORE_IT = 896, 800
"""Rows of the first batch, in the same stripe."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scene is played, and with which engine."""

    db: Database
    servers: OwnServers
    proxy_to: FaultProxy.Factory
    walk: Walk
    patch: pytest.MonkeyPatch
    version: str = ""

    def playing(self, version: str) -> Place:
        """The same with a broken engine."""
        broken.become(version, self.patch.setattr)
        return replace(self, version=version)

    @property
    def spec(self) -> Spec:
        """What is filled."""
        return replace(ONCE, walk=self.walk)

    @property
    def patient(self) -> Spec:
        """The same, waiting for a lock as long as a scene likes to hold one."""
        return replace(self.spec, lock_timeout_ms=30_000)

    async def ledger(self, rows: str = "SELECT generate_series(2, 6000, 2)") -> Ledger:
        """The table."""
        return await Ledger.make(self.db, rows)


@pytest.fixture(params=[(15, Walk.KEYSET), (18, Walk.STRIPES)], ids=["keyset", "stripes"])
async def place(
    fleet: Fleet,
    own_server: OwnServers,
    proxy_to: FaultProxy.Factory,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Place]:
    major, walk = request.param
    async with new_database(await fleet.server(major)) as database:
        yield Place(database, own_server, proxy_to, walk, monkeypatch)


@pytest.fixture
async def elsewhere(
    db18: Database, own_server: OwnServers, proxy_to: FaultProxy.Factory, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """The place of broken versions."""
    return Place(db18, own_server, proxy_to, Walk.KEYSET, monkeypatch)


async def started(ledger: Ledger, spec: Spec) -> tuple[Backfill, Scene]:
    """A backfill whose health gate opens again soon."""
    return await ledger.backfill(spec, thresholds=QUICK)


async def pause_at(scene: Scene, batches: int) -> None:
    """Lets it run until so many batches are done, and it pauses."""
    scene.react = lambda p: scene.control.pause() if p.batches >= batches else None
    scene.control.resume()
    await scene.until(lambda p: p.state is State.PAUSED)


def go_on(scene: Scene) -> None:
    """Lets it run to its end."""
    scene.react = lambda _: None
    scene.control.resume()


async def whole(ledger: Ledger, result: Result, rows: int = 3000) -> None:
    """Holds that it is done, and each row was set once."""
    assert (result.outcome, result.rows) == (State.DONE, rows)
    assert await oracle.breaches(ledger) == []


async def times(ledger: Ledger) -> set[int]:
    """How often rows were set that were not set once."""
    return {n for _, n, _ in await ledger.violations()}


# --- 1: kill -9 in the middle of a batch

WAITS_FOR = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE application_name LIKE 'dbwatch worker%' AND datname = current_database() AND {} = ANY(pg_blocking_pids(pid))
)
"""
WORKER_GONE = """
SELECT NOT EXISTS (
    SELECT FROM pg_stat_activity WHERE application_name LIKE 'dbwatch worker%' AND datname = current_database()
)
"""


async def killed(place: Place, *, at_its_cursor: bool) -> tuple[Ledger, Result]:
    """A process waits in its batch, for a row or with all rows set for the cursor, and is killed; another goes on."""
    ledger, db = await place.ledger(), place.db
    row, journal = await db.foreign("row", autocommit=False), await db.foreign("journal", autocommit=False)
    await row.execute("SELECT FROM t WHERE id = 6000 FOR UPDATE")
    process = await run_elsewhere(db.dsn, place.patient, place.version)
    await wait_for(db, WAITS_FOR.format(row.info.backend_pid), within=30)
    if at_its_cursor:
        await journal.execute("SELECT FROM dbwatch.backfill FOR UPDATE")
        await row.rollback()
        await wait_for(db, WAITS_FOR.format(journal.info.backend_pid))
    process.kill()
    await process.wait()
    await wait_for(db, WORKER_GONE)
    await row.rollback()
    await journal.rollback()
    backfill, _ = await started(ledger, place.spec)
    return ledger, await backfill.run()


@pytest.mark.parametrize("at_its_cursor", [True, False], ids=["rows set", "rows waited for"])
async def test_fault_1_kill_9_in_the_middle_of_a_batch(place: Place, at_its_cursor: bool) -> None:
    await whole(*await killed(place, at_its_cursor=at_its_cursor))


@pytest.mark.parametrize(("version", "at_its_cursor", "n"), [("rows first", True, 2), ("cursor first", False, 0)])
async def test_fault_1_catches_who_commits_rows_and_cursor_apart(
    elsewhere: Place, version: str, at_its_cursor: bool, n: int
) -> None:
    ledger, _ = await killed(replace(elsewhere, version=version), at_its_cursor=at_its_cursor)
    assert await times(ledger) == {n}


async def test_fault_1_kills_at_any_moment(place: Place) -> None:
    ledger = await place.ledger(MANY)
    moments = random.Random(7)
    for _ in range(2):
        process = await run_elsewhere(place.db.dsn, place.spec)
        assert process.stdout is not None
        await process.stdout.readline()
        for _ in range(moments.randint(0, 6)):
            await process.stdout.readline()
        await asyncio.sleep(moments.random() * 0.02)
        process.kill()
        await process.wait()
    backfill, _ = await started(ledger, place.spec)
    await whole(ledger, await backfill.run(), 12_000)


# --- 2: the answer to a COMMIT is lost


async def answers_lost(place: Place) -> tuple[Ledger, Result]:
    """Three batches commit, and nobody hears of it."""
    ledger = await place.ledger()
    proxy = await place.proxy_to(place.db.dsn)
    ledger.connector = Connector(proxy.dsn)
    backfill, scene = await started(ledger, place.spec)
    lost_after = {1, 3, 4}

    def lose(progress: BackfillProgress) -> None:
        if progress.state is State.RUNNING and progress.batches in lost_after:
            lost_after.discard(progress.batches)
            proxy.drop_answer_to(BATCH)

    scene.react = lose
    result = await backfill.run()
    assert any("connection lost" in reason for reason in scene.reasons(State.THROTTLED))
    return ledger, result


async def test_fault_2_the_answer_to_a_commit_is_lost(place: Place) -> None:
    await whole(*await answers_lost(place))


async def test_fault_2_catches_who_takes_it_for_a_batch_that_is_lost(elsewhere: Place) -> None:
    ledger, _ = await answers_lost(elsewhere.playing("remembering"))
    assert 2 in await times(ledger)


# --- 3: the server crashes

FORGETFUL = {
    "synchronous_commit": "off",
    "wal_writer_delay": "10s",
    "wal_writer_flush_after": "1GB",
    "wal_buffers": "16MB",
}
"""A COMMIT is answered before it lasts: whatever such a server lost in a crash, rows and cursor went together."""


async def crashed(place: Place) -> tuple[Ledger, Result]:
    """The server ends as by `pg_ctl -m immediate` and comes back without the last commits that it had answered."""
    server = await place.servers(place.db.major, settings=FORGETFUL)
    database = await place.servers.database(server)
    ledger = await replace(place, db=database).ledger(MANY)
    backfill, scene = await started(ledger, place.spec)
    running = asyncio.create_task(backfill.run())
    await pause_at(scene, 3)
    await database.sql("CHECKPOINT")
    await pause_at(scene, 8)
    await server.restart("immediate")
    assert (await ledger.row())[3] < 8, "no commit was lost: this proves nothing"
    go_on(scene)
    return ledger, await running


async def test_fault_3_the_server_crashes_and_restarts(place: Place) -> None:
    await whole(*await crashed(place), 12_000)


async def test_fault_3_catches_who_remembers_by_itself_how_far_it_is(elsewhere: Place) -> None:
    ledger, _ = await crashed(elsewhere.playing("remembering"))
    assert await times(ledger) == {0}


async def test_fault_3_in_the_middle_of_a_batch(place: Place) -> None:
    server = await place.servers(place.db.major)
    ledger = await replace(place, db=await place.servers.database(server)).ledger(MANY)
    backfill, scene = await started(ledger, place.spec)
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.batches >= 3)
    await server.restart("immediate")
    await whole(ledger, await running, 12_000)


# --- 4: failover to a lagging standby


async def failed_over(place: Place) -> tuple[Ledger, Result]:
    """The standby stops receiving, batches go on, the primary dies, the standby is promoted without them."""
    primary = await place.servers(18)
    database = await place.servers.database(primary)
    ledger = await replace(place, db=database).ledger(MANY)
    standby = await place.servers.standby(primary)
    proxy = await place.proxy_to(database.dsn)
    ledger.connector = Connector(proxy.dsn)
    backfill, scene = await started(ledger, place.spec)
    running = asyncio.create_task(backfill.run())
    await pause_at(scene, 3)
    replica = await psycopg.AsyncConnection.connect(standby.dsn, autocommit=True)
    await replica.execute("ALTER SYSTEM SET primary_conninfo = ''")
    await replica.execute("SELECT pg_reload_conf()")
    await wait_for(database, "SELECT NOT EXISTS (SELECT FROM pg_stat_replication)")
    await pause_at(scene, 8)
    await database.close()
    await primary.kill9()
    await replica.execute("SELECT pg_promote()")
    await replica.close()
    proxy.lead_to(standby.dsn_of(database.name))
    ledger.database = replace(database, server=standby, dsn=standby.dsn_of(database.name))
    assert (await ledger.row())[3] < 8, "no batch was lost: this proves nothing"
    go_on(scene)
    return ledger, await running


async def test_fault_4_failover_to_a_lagging_standby(elsewhere: Place) -> None:
    await whole(*await failed_over(elsewhere), 12_000)


async def test_fault_4_catches_who_remembers_by_itself_how_far_it_is(elsewhere: Place) -> None:
    ledger, _ = await failed_over(elsewhere.playing("remembering"))
    assert await times(ledger) == {0}


# --- 5: a deadlock


async def deadlocked(place: Place) -> tuple[Ledger, Result]:
    """The application locks keys downwards; we wait for the higher one before it asks for the lower one."""
    ledger = await place.ledger()
    application = await place.db.foreign(autocommit=False)
    await application.execute("UPDATE t SET pad = 'a' WHERE id = %s", [LOCKED])
    backfill, scene = await started(ledger, place.patient)
    running = asyncio.create_task(backfill.run())
    await wait_for(place.db, WORKER_WAITS)
    await application.execute("UPDATE t SET pad = 'a' WHERE id = %s", [BEFORE_IT])
    await application.commit()
    result = await running
    if not place.version:
        assert any("deadlock" in reason for reason in scene.reasons(State.THROTTLED))
    return ledger, result


async def test_fault_5_in_a_deadlock_the_application_lives(place: Place) -> None:
    await whole(*await deadlocked(place))


async def test_fault_5_catches_who_goes_on_behind_the_batch_that_it_gave_up(elsewhere: Place) -> None:
    ledger, _ = await deadlocked(elsewhere.playing("passing over"))
    assert await times(ledger) == {0}


# --- 6: two operators at once

BOTH_WAIT = """
SELECT count(*) = 2 FROM pg_stat_activity
WHERE application_name LIKE 'dbwatch worker%' AND wait_event_type = 'Lock' AND datname = current_database()
"""


async def two_at_once(place: Place) -> tuple[Ledger, list[Result | BaseException]]:
    """One of them waits in its batch while the other comes; both end."""
    ledger = await place.ledger()
    holder = await place.db.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = %s FOR UPDATE", [LOCKED])
    pair = [(await started(ledger, place.patient))[0] for _ in range(2)]
    runs = [asyncio.ensure_future(backfill.run()) for backfill in pair]
    both = asyncio.ensure_future(wait_for(place.db, BOTH_WAIT, within=30))
    await asyncio.wait({*runs, both}, return_when=asyncio.FIRST_COMPLETED)
    both.cancel()
    await holder.rollback()
    ended = await asyncio.gather(*runs, return_exceptions=True)
    refused = [e for e in ended if isinstance(e, Refused)]
    if refused:
        assert any(backfill.owner in str(refused[0]) for backfill in pair)
    return ledger, ended


async def test_fault_6_of_two_operators_at_once_one_works_and_the_other_is_told_who(place: Place) -> None:
    ledger, ended = await two_at_once(place)
    assert sorted(type(e).__name__ for e in ended) == ["Refused", "Result"]
    assert await oracle.breaches(ledger) == []


async def test_fault_6_through_a_pooler_as_well(place: Place) -> None:
    ledger = await place.ledger(MANY)
    async with pgbouncer(place.db.dsn) as through:
        ledger.connector = Connector(through)
        runs = [(await started(ledger, place.spec))[0].run() for _ in range(2)]
        ended = await asyncio.gather(*runs, return_exceptions=True)
    told = [e for e in ended if isinstance(e, Refused) or (isinstance(e, Result) and e.already)]
    assert len(told) == 1, ended
    assert await oracle.breaches(ledger) == []


async def test_fault_6_catches_those_who_know_nothing_of_each_other(elsewhere: Place) -> None:
    ledger, _ = await two_at_once(elsewhere.playing("all alike"))
    assert await times(ledger) == {2}


@pytest.mark.parametrize("versions", [("unclaimed",), ("unclaimed", "unfenced"), ("unclaimed", "unchecked")])
async def test_fault_6_each_protection_holds_where_the_others_are_missing(
    elsewhere: Place, versions: tuple[str, ...]
) -> None:
    """Whoever was taken over is fenced by the epoch, and by the compare-and-set where nobody looks at that."""
    for version in versions:
        elsewhere.playing(version)
    ledger, ended = await two_at_once(elsewhere)
    assert sorted(type(e).__name__ for e in ended) == ["Fenced", "Result"]
    assert await oracle.breaches(ledger) == []


# --- 7: a poison row; tests/test_backfill_poison.py has its kinds and places

POISON = (1776, 1778, 5000)


async def poisoned(place: Place) -> tuple[Ledger, Result]:
    """Three rows refuse to be set."""
    ledger = await place.ledger()
    await place.db.sql(f"ALTER TABLE t ADD CHECK (v = 0 OR id NOT IN {POISON}) NOT VALID")
    backfill, _ = await started(ledger, place.spec)
    return ledger, await backfill.run()


async def test_fault_7_a_poison_row_is_listed_and_all_others_are_set(place: Place) -> None:
    ledger, result = await poisoned(place)
    assert (result.outcome, result.rows, result.quarantined) == (State.DONE, 2997, 3)
    assert "(23514: 3)" in result.note
    assert await oracle.breaches(ledger, poison=f"t.id IN {POISON}") == []


@pytest.mark.parametrize(
    ("version", "breach"),
    [
        ("passing over", "row (1002): set 0 times, v = 0"),  # whatever was in a batch with it
        ("forgetting", "row (1776): poison, set 0 times, v = 0"),  # and not in quarantine
    ],
)
async def test_fault_7_catches_who_passes_it_over(elsewhere: Place, version: str, breach: str) -> None:
    ledger, _ = await poisoned(elsewhere.playing(version))
    assert breach in await oracle.breaches(ledger, poison=f"t.id IN {POISON}")


# --- 8: no primary key, NULL and duplicate keys

KEYLESS = (
    "CREATE TABLE t (id bigint, v int NOT NULL DEFAULT 0)",
    "INSERT INTO t SELECT nullif(n % 1000, 7) FROM generate_series(1, 3000) AS n",
    "ANALYZE t",
)


@pytest.mark.parametrize("index", ["", "CREATE UNIQUE INDEX of_some ON t (id) WHERE v < 0"], ids=["none", "partial"])
async def test_fault_8_without_a_key_mode_once_is_refused_before_it_begins(place: Place, index: str) -> None:
    await place.db.sql(*KEYLESS, *([index] if index else []))
    with pytest.raises(Refused, match="no key to walk by"):
        await Ledger(place.db).plan(place.spec)
    assert await place.db.sql("SELECT count(*) FROM t WHERE v <> 0") == [(0,)]


async def null_keys(place: Place) -> Ledger:
    """A unique index that holds NULL keys."""
    rows = "SELECT nullif(n, 7 * (n / 7)) FROM generate_series(1, 3000) AS n"
    return await Ledger.make(place.db, rows, key="id bigint UNIQUE")


async def test_fault_8_where_a_key_may_be_null_mode_once_is_refused(place: Place) -> None:
    ledger = await null_keys(place)
    with pytest.raises(Refused, match="may be NULL"):
        await ledger.plan(place.spec)


async def test_fault_8_catches_who_walks_by_any_key(elsewhere: Place) -> None:
    ledger = await null_keys(elsewhere)
    result = await ledger.run(elsewhere.playing("any key").spec)
    assert (result.outcome, result.rows) == (State.DONE, 3000 - 3000 // 7)
    assert await elsewhere.db.sql("SELECT count(*) FROM t WHERE v = 0 AND id IS NULL") == [(3000 // 7,)]
    assert await times(ledger) == {0}


# --- 9: a row that is locked for long


async def locked(place: Place) -> tuple[Ledger, Result]:
    """Somebody holds a row until we have tried three times, or are done without it."""
    ledger = await place.ledger()
    holder = await place.db.foreign("report", autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = %s FOR UPDATE", [LOCKED])
    backfill, scene = await started(ledger, place.spec)
    running = asyncio.ensure_future(backfill.run())
    third = asyncio.ensure_future(scene.until(lambda p: "try 3" in p.reason, within=30))
    await asyncio.wait({running, third}, return_when=asyncio.FIRST_COMPLETED)
    if third.done():
        told = third.result()
        assert (told.state, told.batch_rows < 500) == (State.THROTTLED, True)
        assert "waits for a lock held by" in told.reason
    third.cancel()
    await holder.rollback()
    return ledger, await running


async def test_fault_9_a_row_that_is_locked_for_long_is_waited_for(place: Place) -> None:
    await whole(*await locked(place))


async def test_fault_9_catches_who_skips_what_is_locked(elsewhere: Place) -> None:
    ledger, _ = await locked(elsewhere.playing("passing over"))
    assert await times(ledger) == {0}


async def application_waits(place: Place) -> tuple[Ledger, bool]:
    """While we wait for a row, the application wants one that our batch has set; whether it got it within 2 s."""
    ledger = await place.ledger()
    holder = await place.db.foreign("report", autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = %s FOR UPDATE", [LOCKED])
    backfill, _ = await started(ledger, place.spec)
    running = asyncio.ensure_future(backfill.run())
    await wait_for(place.db, WORKER_WAITS)
    application = await place.db.foreign()
    await application.execute("SET lock_timeout = '2s'")
    try:
        await application.execute("UPDATE t SET pad = 'a' WHERE id = %s", [BEFORE_IT])
        served = True
    except psycopg.errors.LockNotAvailable:
        served = False
    await holder.rollback()
    await running
    return ledger, served


async def test_fault_9_nobody_waits_for_long_behind_us(place: Place) -> None:
    ledger, served = await application_waits(place)
    assert served
    assert await oracle.breaches(ledger) == []


async def test_fault_9_catches_who_waits_without_a_lock_timeout(elsewhere: Place) -> None:
    _, served = await application_waits(elsewhere.playing("no lock_timeout"))
    assert not served


# --- 10: a SHARE UPDATE EXCLUSIVE on the table, as VACUUM, ANALYZE and CREATE INDEX CONCURRENTLY take it


async def under_a_lock(place: Place) -> tuple[Ledger, Result]:
    """It is held from before the plan on, until we are done or have tried in vain."""
    ledger = await place.ledger()
    holder = await place.db.foreign("vacuum", autocommit=False)
    await holder.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
    backfill, scene = await started(ledger, replace(place.spec, undo=True))
    scene.react = lambda p: scene.control.stop() if "try 3" in p.reason else None
    return ledger, await asyncio.wait_for(backfill.run(), 30)


async def test_fault_10_a_share_update_exclusive_is_in_nobodys_way(place: Place) -> None:
    await whole(*await under_a_lock(place))


async def test_fault_10_catches_who_locks_the_table(elsewhere: Place) -> None:
    ledger, result = await under_a_lock(elsewhere.playing("locking"))
    assert (result.outcome, result.rows) == (State.STOPPED, 0)
    assert await times(ledger) == {0}


# --- 11: the application inserts below and above the cursor, changes keys, deletes


async def changed_around(place: Place) -> tuple[Ledger, Result]:
    """In the middle rows go, come and move, on both sides of the cursor and above the highest key of the start."""
    ledger = await place.ledger(MANY)
    backfill, scene = await started(ledger, place.spec)
    running = asyncio.ensure_future(backfill.run())
    await pause_at(scene, 2)
    await place.db.sql(
        "DELETE FROM t WHERE id <= 600 OR id BETWEEN 20001 AND 20600",
        "INSERT INTO t (id) SELECT -n FROM generate_series(1, 100) AS n",
        "INSERT INTO t (id) SELECT 2 * n + 1 FROM generate_series(11000, 11400) AS n",
        "INSERT INTO t (id) SELECT 24000 + n FROM generate_series(1, 400) AS n",
        "UPDATE t SET id = -1000 - id WHERE id BETWEEN 20700 AND 20800 AND id % 2 = 0",
        "UPDATE t SET id = 30000 + id WHERE id BETWEEN 20900 AND 21000 AND id % 2 = 0",
    )
    go_on(scene)
    return ledger, await running


async def test_fault_11_inserts_deletes_and_changed_keys_disturb_no_other_row(place: Place) -> None:
    ledger, result = await changed_around(place)
    assert result.outcome is State.DONE
    assert await oracle.breaches(ledger) == []


@pytest.mark.parametrize(
    ("version", "breach"),
    [
        ("offset", "set 0 times"),
        ("no ceiling", "above the highest key of the start"),
        ("highest text", "set 0 times"),
    ],
)
async def test_fault_11_catches_who_does_not_walk_by_the_order_of_keys_to_the_highest_of_the_start(
    elsewhere: Place, version: str, breach: str
) -> None:
    ledger, _ = await changed_around(elsewhere.playing(version))
    assert breach in "; ".join(await oracle.breaches(ledger))


async def test_fault_11_under_load(place: Place) -> None:
    ledger = await place.ledger("SELECT generate_series(2, 30000, 2)")

    async def application(seed: int) -> None:
        chance = random.Random(seed)
        connection = await place.db.foreign(f"app-{seed}")
        while True:
            key = chance.randrange(1, 40_000)
            await connection.execute("INSERT INTO t (id) VALUES (%s) ON CONFLICT DO NOTHING", [key | 1])
            await connection.execute("DELETE FROM t WHERE id = %s", [chance.randrange(1, 15_000) * 2])
            await connection.execute("UPDATE t SET pad = pad || 'y' WHERE id = %s", [key])

    users = [asyncio.create_task(application(seed)) for seed in range(3)]
    backfill, _ = await started(ledger, place.spec)
    result = await backfill.run()
    for user in users:
        user.cancel()
    assert result.outcome is State.DONE
    assert await oracle.breaches(ledger) == []


# --- 12: it is aborted, and the column is dropped


async def aborted(place: Place) -> tuple[Ledger, Result]:
    """As an abort does it: the control says so, and the worker's backend is cancelled in its batch."""
    ledger = await place.ledger()
    holder = await place.db.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = %s FOR UPDATE", [LOCKED])
    backfill, scene = await started(ledger, place.patient)
    running = asyncio.create_task(backfill.run())
    await wait_for(place.db, WORKER_WAITS)
    await abort(place.db, backfill, scene)
    assert (await asyncio.wait_for(running, 2)).outcome is State.STOPPED
    await holder.rollback()
    return ledger, await ledger.run(place.spec)


async def abort(db: Database, backfill: Backfill, scene: Scene) -> None:
    scene.control.abort()
    worker = f"application_name = '{backfill.owner}'"
    await db.sql(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {worker}")  # noqa: S608  # ours


async def test_fault_12_an_abort_in_the_middle_of_a_batch(place: Place) -> None:
    await whole(*await aborted(place))


async def test_fault_12_aborts_at_random_moments(place: Place) -> None:
    ledger = await place.ledger(MANY)
    moments = random.Random(place.db.major)
    for _ in range(6):
        backfill, scene = await started(ledger, place.spec)
        running = asyncio.create_task(backfill.run())
        await scene.until(lambda p: p.state in (State.RUNNING, State.DONE))
        await asyncio.sleep(moments.random() * 0.03)
        await abort(place.db, backfill, scene)
        if (await asyncio.wait_for(running, 5)).outcome is State.DONE:
            break
        [(done,)] = await place.db.sql("SELECT rows_done FROM dbwatch.backfill")
        assert await place.db.sql("SELECT sum(v) FROM t") == [(done,)]
    backfill, _ = await started(ledger, place.spec)
    await whole(ledger, await backfill.run(), 12_000)


async def test_fault_12_catches_who_takes_a_cancelled_batch_for_done(elsewhere: Place) -> None:
    ledger, _ = await aborted(elsewhere.playing("passing over"))
    assert await times(ledger) == {0}


async def column_dropped(place: Place) -> tuple[Ledger, Result]:
    """A column that SET reads is dropped in mid-run, and comes back; the next run goes on."""
    ledger = await place.ledger(MANY)
    await place.db.sql("ALTER TABLE t ADD w int NOT NULL DEFAULT 1")
    spec = replace(place.spec, set="v = v + w")
    backfill, scene = await started(ledger, spec)
    running = asyncio.create_task(backfill.run())
    await pause_at(scene, 2)
    await place.db.sql("ALTER TABLE t DROP w")
    go_on(scene)
    if place.version:
        await running
    else:
        with pytest.raises(DbwatchError, match="a column is gone"):
            await running
        assert (await ledger.row())[0] == "failed"
    await place.db.sql("ALTER TABLE t ADD w int NOT NULL DEFAULT 1")
    backfill, _ = await started(ledger, spec)
    return ledger, await backfill.run()


async def test_fault_12_the_column_is_dropped_in_mid_run(place: Place) -> None:
    await whole(*await column_dropped(place), 12_000)


async def test_fault_12_catches_who_goes_on_without_the_column(elsewhere: Place) -> None:
    ledger, _ = await column_dropped(elsewhere.playing("passing over"))
    assert await times(ledger) == {0}


def test_each_of_the_twelve_is_survived_and_catches_a_broken_version() -> None:
    found = [re.match(r"test_fault_(\d+)_(catches)?", name) for name in globals()]
    numbers = {(int(each[1]), bool(each[2])) for each in found if each}
    assert numbers == {(number, catches) for number in range(1, 13) for catches in (False, True)}
