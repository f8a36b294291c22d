"""The scenes of the twelve faults: what happens to a backfill, the same for the engine and for broken versions of it.

Each returns the ledger, and how the last run ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from ledger import ONCE, QUICK, WORKER_WAITS, Ledger, Scene, run_elsewhere, wait_for
from proxy import FaultProxy
from servers import Database, OwnServers

from dbwatch.backfill import row
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.passes import STRIPES
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.run import Backfill, Result
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.walk import Walk
from dbwatch.errors import DbwatchError, Refused
from dbwatch.postgres.session import Connector
from faults import broken
from faults.house import FORGETFUL

MANY = "SELECT generate_series(2, 24000, 2)"
BATCH = b"filled AS ("
"""In the message that carries a batch, from BEGIN to COMMIT."""
LOCKED, BEFORE_IT = 10 * STRIPES, 6 * STRIPES
"""Rows of the first batch, in the same stripe."""
LATER, BEFORE_LATER = 41 * STRIPES - 1, 37 * STRIPES - 1
"""The same of the last pass over the first window of stripes, which goes in one message with others."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scene is played, and with which engine."""

    db: Database
    servers: OwnServers
    proxy_to: FaultProxy.Factory
    walk: Walk
    patch: pytest.MonkeyPatch
    version: str = ""
    batch_time_ms: int = 10

    def playing(self, version: str) -> Place:
        """The same with a broken engine."""
        broken.become(version, self.patch.setattr)
        return replace(self, version=version)

    def together(self) -> tuple[Place, list[int]]:
        """The same in stripes and so that several passes go in one message; how many went, message by message."""
        sent: list[int] = []
        fill_each = BatchSession.fill_each

        async def counted(session: BatchSession, at: Any, parts: Any, timeouts: Any) -> Any:
            sent.append(len(parts))
            return await fill_each(session, at, parts, timeouts)

        self.patch.setattr(BatchSession, "fill_each", counted)
        return replace(self, walk=Walk.STRIPES, batch_time_ms=200), sent

    @property
    def spec(self) -> Spec:
        """What is filled."""
        return replace(ONCE, walk=self.walk, batch_time_ms=self.batch_time_ms)

    @property
    def patient(self) -> Spec:
        """The same, waiting for a lock as long as a scene likes to hold one."""
        return replace(self.spec, lock_timeout_ms=30_000)

    async def ledger(self, rows: str = "SELECT generate_series(2, 6000, 2)") -> Ledger:
        """The table."""
        return await Ledger.make(self.db, rows)


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
    holder, journal = await db.foreign("row", autocommit=False), await db.foreign("journal", autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 6000 FOR UPDATE")
    process = await run_elsewhere(db.dsn, place.patient, place.version)
    await wait_for(db, WAITS_FOR.format(holder.info.backend_pid), within=30)
    if at_its_cursor:
        await journal.execute("SELECT FROM dbwatch.backfill FOR UPDATE")
        await holder.rollback()
        await wait_for(db, WAITS_FOR.format(journal.info.backend_pid))
    process.kill()
    await process.wait()
    await wait_for(db, WORKER_GONE)
    await holder.rollback()
    await journal.rollback()
    backfill, _ = await started(ledger, place.spec)
    return ledger, await backfill.run()


# --- 2: the answer to a COMMIT is lost


async def answers_lost(place: Place, after: Collection[int] = (1, 3, 4)) -> tuple[Ledger, Result]:
    """What is sent *after* so many batches each commits, and nobody hears of it."""
    ledger = await place.ledger()
    proxy = await place.proxy_to(place.db.dsn)
    ledger.connector = Connector(proxy.dsn)
    backfill, scene = await started(ledger, place.spec)
    lost_after = set(after)

    def lose(progress: BackfillProgress) -> None:
        due = {batches for batches in lost_after if batches <= progress.batches}  # several may come in one message
        if progress.state is State.RUNNING and due:
            lost_after.difference_update(due)
            proxy.drop_answer_to(BATCH)

    scene.react = lose
    result = await backfill.run()
    assert any("connection lost" in reason for reason in scene.reasons(State.THROTTLED))
    return ledger, result


# --- 3: the server crashes


async def crashed(place: Place) -> tuple[Ledger, Result]:
    """The server ends as by `pg_ctl -m immediate` and comes back without the last commits that it had answered."""
    server = await place.servers(place.db.major, settings={**FORGETFUL, "wal_writer_delay": "10s"})
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


async def crashed_in_the_end(place: Place) -> tuple[Ledger, Result]:
    """The same once the walk has ended, before it is entered that all is done."""
    server = await place.servers(place.db.major, settings={**FORGETFUL, "wal_writer_delay": "10s"})
    database = await place.servers.database(server)
    ledger = await replace(place, db=database).ledger(MANY)
    backfill, scene = await started(ledger, place.spec)
    running = asyncio.create_task(backfill.run())
    await pause_at(scene, 3)
    await database.sql("CHECKPOINT")
    note_walked, crashes = row.note_walked, iter([True])

    async def then_crash(*known: Any, **limits: Any) -> None:
        await note_walked(*known, **limits)
        if next(crashes, False):
            await server.restart("immediate")
            assert (await ledger.row())[2] < 12_000, "no commit was lost: this proves nothing"

    place.patch.setattr(row, "note_walked", then_crash)
    go_on(scene)
    return ledger, await running


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


# --- 5: a deadlock


async def deadlocked(place: Place, high: int = LOCKED, low: int = BEFORE_IT) -> tuple[Ledger, Result]:
    """The application locks keys downwards; we wait for the higher one before it asks for the lower one."""
    ledger = await place.ledger()
    application = await place.db.foreign(autocommit=False)
    await application.execute("UPDATE t SET pad = 'a' WHERE id = %s", [high])
    backfill, scene = await started(ledger, place.patient)
    running = asyncio.create_task(backfill.run())
    await wait_for(place.db, WORKER_WAITS)
    await application.execute("UPDATE t SET pad = 'a' WHERE id = %s", [low])
    await application.commit()
    result = await running
    if not place.version:
        assert any("deadlock" in reason for reason in scene.reasons(State.THROTTLED))
    return ledger, result


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


# --- 7: a poison row; tests/test_backfill_poison.py has its kinds and places

POISON = (1776, 1778, 5000)


async def poisoned(place: Place) -> tuple[Ledger, Result]:
    """Three rows refuse to be set."""
    ledger = await place.ledger()
    await place.db.sql(f"ALTER TABLE t ADD CHECK (v = 0 OR id NOT IN {POISON}) NOT VALID")
    backfill, _ = await started(ledger, place.spec)
    return ledger, await backfill.run()


# --- 8: no primary key, NULL and duplicate keys

KEYLESS = (
    "CREATE TABLE t (id bigint, v int NOT NULL DEFAULT 0)",
    "INSERT INTO t SELECT nullif(n % 1000, 7) FROM generate_series(1, 3000) AS n",
    "ANALYZE t",
)


async def null_keys(place: Place) -> Ledger:
    """A unique index that holds NULL keys."""
    rows = "SELECT nullif(n, 7 * (n / 7)) FROM generate_series(1, 3000) AS n"
    return await Ledger.make(place.db, rows, key="id bigint UNIQUE")


# --- 9: a row that is locked for long


async def locked(place: Place, id: int = LOCKED) -> tuple[Ledger, Result]:
    """Somebody holds a row until we have tried three times, or are done without it."""
    ledger = await place.ledger()
    holder = await place.db.foreign("report", autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = %s FOR UPDATE", [id])
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


# --- 10: a SHARE UPDATE EXCLUSIVE on the table, as VACUUM, ANALYZE and CREATE INDEX CONCURRENTLY take it


async def under_a_lock(place: Place) -> tuple[Ledger, Result]:
    """It is held from before the plan on, until we are done or have tried in vain."""
    ledger = await place.ledger()
    holder = await place.db.foreign("vacuum", autocommit=False)
    await holder.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
    backfill, scene = await started(ledger, replace(place.spec, undo=True))
    scene.react = lambda p: scene.control.stop() if "try 3" in p.reason else None
    return ledger, await asyncio.wait_for(backfill.run(), 30)


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


# --- 12: it is aborted, and the column is dropped


async def aborted(place: Place, id: int = LOCKED) -> tuple[Ledger, Result]:
    """As an abort does it: the control says so, and the worker's backend is cancelled in its batch."""
    ledger = await place.ledger()
    holder = await place.db.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = %s FOR UPDATE", [id])
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
