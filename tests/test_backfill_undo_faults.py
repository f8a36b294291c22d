"""Before-images through kills, lost answers, restarts, take-overs and locks.

The ledger's trigger counts: a row that was filled once and brought back once counts 2.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from faults.house import FORGETFUL
from ledger import ONCE, QUICK, WORKER_WAITS, Ledger, Scene, planned, wait_for
from proxy import FaultProxy
from psycopg import sql
from servers import Database, OwnServers
from test_backfill_claim import WINDOW
from test_backfill_undo import UNDO, back, fill, hashed, images, tables_of_images, users

from dbwatch.backfill import batch, row
from dbwatch.backfill import images as images_of
from dbwatch.backfill.hold import Hold
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.run import Backfill
from dbwatch.backfill.statements import Statements
from dbwatch.clock import SystemClock
from dbwatch.errors import DbwatchError, Fenced, Refused
from dbwatch.journal import ledger as journal
from dbwatch.journal import rights
from dbwatch.journal.fence import Fence
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Role

UNDO_ONCE = replace(ONCE, undo=True)
RESTORING = b"restored AS ("
TWICE = (
    "SELECT count(*) FILTER (WHERE l.n = 2 AND t.v = 0), count(*) FROM t JOIN ledger AS l ON l.key = ROW(t.id)::text"
)


async def filled(db: Database, rows: int = 3000) -> Ledger:
    ledger = await Ledger.make(db, f"SELECT generate_series(1, {rows})")  # ours
    assert (await ledger.run(UNDO_ONCE)).rows == rows
    return ledger


async def test_killed_again_and_again_it_brings_each_row_back_once(db: Database) -> None:
    await filled(db, 12_000)
    moments = random.Random(db.major)
    for _ in range(2):
        process = await restore_elsewhere(db.dsn)
        assert process.stdout is not None
        for _ in range(moments.randrange(2, 6)):
            await process.stdout.readline()
        await asyncio.sleep(moments.random() * 0.01)
        process.kill()
        await process.wait()
    [(so_far,)] = await db.sql("SELECT restored FROM dbwatch.backfill")
    assert 0 < so_far < 12_000
    assert (await back(db)).rows == 12_000
    assert await db.sql(TWICE) == [(12_000, 12_000)]


async def test_a_commit_of_the_way_back_whose_answer_is_lost_is_not_repeated(
    db: Database, proxy_to: FaultProxy.Factory
) -> None:
    await filled(db)
    proxy = await proxy_to(db.dsn)
    scene = Scene()
    lost_after = {1, 3}

    def lose(progress: BackfillProgress) -> None:
        done = len(progress.history)
        if progress.state is State.RUNNING and done in lost_after:
            lost_after.discard(done)
            proxy.drop_answer_to(RESTORING)

    scene.react = lose
    assert (await back(db, scene, Connector(proxy.dsn))).rows == 3000
    assert lost_after == set()
    assert any("connection lost" in reason for reason in scene.reasons(State.THROTTLED))
    assert await db.sql(TWICE) == [(3000, 3000)]


async def test_a_server_that_forgets_its_last_batches_is_asked_again_before_all_is_said_to_be_back(
    own_server: OwnServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It crashes when the last image is used up, and before that is entered."""
    server = await own_server(18, settings={**FORGETFUL, "wal_writer_delay": "10s"})
    db = await own_server.database(server)
    await filled(db)
    await db.sql("CHECKPOINT")
    close, crashes = row.close, iter([True])

    async def after_a_crash(*known: Any, **what: Any) -> None:
        if next(crashes, False):
            await server.restart("immediate")
            assert await db.sql("SELECT restored < 3000 FROM dbwatch.backfill") == [(True,)]
        await close(*known, **what)

    monkeypatch.setattr(row, "close", after_a_crash)
    assert (await back(db)).rows == 3000
    assert await db.sql(TWICE) == [(3000, 3000)]


async def test_one_that_repeats_an_unanswered_commit_is_caught(
    db18: Database, proxy_to: FaultProxy.Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the comparison with what we wrote, and images that are not used up, a lost answer does it twice."""
    same = images_of.Images._restoring

    def blindly(self: images_of.Images) -> sql.Composed:
        return sql.SQL("{}\n    OR t.id = i.key_1").format(same(self))

    async def guess(self: Hold, session: batch.BatchSession) -> None:
        """Takes a lost answer for a lost batch."""
        del self, session

    def unchecked(name: str, version: int) -> bytes:
        text = query(name, version).decode()
        checked = "AND b.batches = %(batches)s AND b.back IS NOT DISTINCT FROM %(cursor)s"
        used_up = "DELETE FROM {images} AS i\n    WHERE {range} AND ({keys}) IN ("
        not_used_up = "SELECT 1 FROM {images} AS i\n    WHERE {range} AND ({keys}) IN ("
        if name == "backfill-restore":
            assert checked in text
            assert used_up in text
            text = (
                text.replace(checked, "")
                .replace(used_up, not_used_up)
                .replace("    RETURNING 1\n),\ncounted", "),\ncounted")
            )
        return text.encode()

    await filled(db18)
    await db18.sql(
        "DROP TRIGGER note ON t", "CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()"
    )
    monkeypatch.setattr(images_of.Images, "_restoring", blindly)
    monkeypatch.setattr(Hold, "_adopt", guess)
    monkeypatch.setattr(batch, "query", unchecked)
    proxy = await proxy_to(db18.dsn)
    scene = Scene()
    first = iter([True])

    def lose(progress: BackfillProgress) -> None:
        if len(progress.history) == 1 and next(first, False):
            proxy.drop_answer_to(RESTORING)

    scene.react = lose
    await back(db18, scene, Connector(proxy.dsn))
    [(once, every)] = await db18.sql(TWICE)
    assert once < every


async def test_a_row_that_somebody_holds_is_kept_as_they_leave_it(db: Database) -> None:
    """Our batch waits for the row, and its before-image is what the other commits, not what we first saw."""
    await users(db, rows=300)
    await a_word_while_we_wait(db)
    assert await db.sql("SELECT phone, seen FROM users WHERE id = 100") == [("theirs", 1)]


async def test_whoever_refers_to_a_row_is_not_in_the_way(db: Database) -> None:
    """An order that is being entered holds its user's key; neither a batch nor its way back waits for that."""
    before = await users(db, rows=300)
    await db.sql("CREATE TABLE orders (user_id bigint REFERENCES users)")
    holder = await db.foreign("holder", autocommit=False)
    await holder.execute("INSERT INTO orders VALUES (100)")
    scene = Scene()
    async with asyncio.timeout(20):
        await fill(db, scene=scene)
        await back(db, scene)
    assert scene.reasons(State.THROTTLED) == []
    assert await hashed(db) == before


async def test_images_that_are_read_without_the_lock_are_caught(
    db15: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = images_of.Images.read

    def unlocked(self: images_of.Images, statements: Statements, **which: bool) -> str:
        return real(self, statements, **which).replace("FOR NO KEY UPDATE", "")

    monkeypatch.setattr(images_of.Images, "read", unlocked)
    await users(db15, rows=300)
    await a_word_while_we_wait(db15)
    assert await db15.sql("SELECT phone, seen FROM users WHERE id = 100") == [("was 100", 1)]


async def a_word_while_we_wait(db: Database) -> None:
    """Row 100 is written by somebody else while a batch waits for it; then everything is brought back."""
    holder = await db.foreign("holder", autocommit=False)
    await holder.execute("UPDATE users SET phone = 'theirs', seen = 1 WHERE id = 100")
    running = asyncio.create_task(fill(db, replace(UNDO, lock_timeout_ms=10_000)))
    await wait_for(db, WORKER_WAITS)
    await holder.commit()
    assert (await running).outcome is State.DONE
    returned = await back(db)
    assert (returned.rows, returned.changed) == (200, 0)


async def test_a_row_that_is_pending_again_keeps_what_was_there_first_unless_others_wrote_it(db: Database) -> None:
    """Row 1 is filled twice with nobody in between, row 4 after a word of the application's."""
    await users(db, rows=6)
    scene = Scene()
    scene.react = lambda p: scene.control.stop() if p.batches >= 1 else None
    assert (await fill(db, scene=scene)).rows == 4
    await db.sql(
        "UPDATE users SET legacy = 'newer' WHERE id = 1",
        "UPDATE users SET phone = 'theirs' WHERE id = 4",
    )
    assert (await fill(db)).rows == 6  # four, and two of them again
    assert (await back(db)).rows == 4
    assert await db.sql("SELECT id, phone FROM users WHERE id IN (1, 4) ORDER BY id") == [(1, "was 1"), (4, "theirs")]


async def test_a_poison_row_ends_the_backfill_and_what_stands_before_it_is_brought_back(db: Database) -> None:
    before = await users(db)
    await db.sql("ALTER TABLE users ADD CHECK (phone <> 'l4000')")
    with pytest.raises(DbwatchError, match="violates check constraint"):
        await fill(db, replace(UNDO, quarantine=0))
    [(rows, n)] = await db.sql("SELECT rows_done, (SELECT count(*) FROM dbwatch.before_1) FROM dbwatch.backfill")
    assert 0 < rows == n < 4000
    assert (await back(db)).rows == rows
    assert await hashed(db) == before


async def test_a_way_back_that_was_taken_over_stops_and_the_next_one_goes_on(db: Database) -> None:
    before = await users(db)
    window = uuid4()
    await db.sql(WINDOW.format(window, 1))
    found = await planned(db.connector, UNDO)
    await Backfill(db.connector, found, clock=SystemClock(), fence=Fence(window, 1), thresholds=QUICK).run()
    scene = Scene()
    scene.react = lambda p: scene.control.pause() if len(p.history) == 2 else None
    sleeping = asyncio.create_task(back(db, scene, fence=Fence(window, 1)))
    await scene.until(lambda p: p.state is State.PAUSED)
    connection = await db.foreign("journal", autocommit=False)
    assert await journal.raise_epoch(connection, window, "lin@b", timedelta(seconds=15)) == 2
    await connection.commit()
    scene.react = lambda _: None
    scene.control.resume()
    with pytest.raises(Fenced):
        await sleeping
    [(so_far,)] = await db.sql("SELECT restored FROM dbwatch.backfill")
    assert 0 < so_far < 4000
    with pytest.raises(Fenced):
        await back(db, fence=Fence(window, 1))
    assert (await back(db, fence=Fence(window, 2))).rows == 4000
    assert await hashed(db) == before


async def test_nobody_fills_while_data_goes_back_and_nobody_brings_back_while_it_fills(db18: Database) -> None:
    await users(db18)
    scene = Scene()
    scene.react = lambda p: scene.control.pause() if p.batches == 2 else None
    filling = asyncio.create_task(fill(db18, scene=scene))
    await scene.until(lambda p: p.state is State.PAUSED)
    with pytest.raises(Refused, match="at work already"):
        await back(db18)
    scene.control.stop()
    await filling
    scene = Scene()
    scene.react = lambda p: scene.control.stop() if len(p.history) == 1 else None
    returned = await back(db18, scene)
    assert (returned.outcome, returned.note) == (State.STOPPED, "stopped; it goes on from here")
    with pytest.raises(Refused, match="is being brought back"):
        await fill(db18)
    done = await back(db18)
    assert done.outcome is State.DONE
    again = await back(db18)
    assert (again.rows, again.note) == (done.rows, "")
    assert (await fill(db18)).rows == 4000  # a new one, for the old one's rows are as they were


async def test_what_was_begun_without_undo_is_not_gone_on_with_as_if_it_had_images(db18: Database) -> None:
    await users(db18)
    scene = Scene()
    scene.react = lambda p: scene.control.stop() if p.batches >= 2 else None
    await fill(db18, replace(UNDO, undo=False), scene)
    with pytest.raises(Refused, match="was begun without undo"):
        await fill(db18)
    await fill(db18, replace(UNDO, undo=False))


async def test_images_are_made_with_the_least_privileges_and_shared_with_whoever_may_take_over(
    db18: Database,
) -> None:
    before = await users(db18)
    worker, other = f"worker_{db18.name}", f"other_{db18.name}"
    grants = [
        f"CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE ON users TO {role}; GRANT USAGE ON SCHEMA dbwatch TO {role};"
        f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA dbwatch TO {role}"
        for role in (worker, other)
    ]
    await db18.sql(*grants)
    try:
        connector = Connector(db18.dsn_as(worker))
        with pytest.raises(Refused, match=f"GRANT USAGE, CREATE ON SCHEMA dbwatch TO {worker}"):
            await planned(connector, UNDO)
        await db18.sql(f"GRANT CREATE ON SCHEMA dbwatch TO {worker}")
        found = await planned(connector, UNDO)
        await Backfill(connector, found, clock=SystemClock(), thresholds=QUICK).run()
        session = await Connector(db18.dsn_as(other)).open(Role.JOURNAL)
        assert (await rights.look(session)).may_write
        await session.close()
        returned = await back(db18, connector=Connector(db18.dsn_as(other)))
        assert (
            "kB) could not be dropped: must be owner of table before_1 (42501); DROP TABLE dbwatch.before_1"
            in returned.note
        )
        assert await hashed(db18) == before
    finally:
        await db18.sql(f"DROP OWNED BY {worker}, {other}", f"DROP ROLE {worker}, {other}")


@pytest.mark.parametrize("restart", ["immediate", "fast"])
async def test_a_server_that_restarts_while_data_goes_back_costs_time_only(
    own_server: OwnServers, restart: str
) -> None:
    server = await own_server(18)
    db = await own_server.database(server)
    before = await users(db)
    await fill(db)
    scene = Scene()
    running = asyncio.create_task(back(db, scene))
    await scene.until(lambda p: len(p.history) == 2)
    await server.restart(restart)
    assert (await running).rows == 4000
    assert await hashed(db) == before


async def test_a_server_that_forgot_the_claim_is_given_new_images(db18: Database) -> None:
    """As a failover does that lost the claim, the rows and the images: all three go back to nothing at once."""
    before = await users(db18)
    scene = Scene()
    scene.react = lambda p: scene.control.pause() if p.batches == 2 else None
    filling = asyncio.create_task(fill(db18, scene=scene))
    paused = await scene.until(lambda p: p.state is State.PAUSED)
    assert paused.worker is not None
    await db18.sql(
        (await images(db18)).kept_in.by_hand(),
        "DELETE FROM dbwatch.backfill",
        "DROP TABLE dbwatch.before_1",
        f"SELECT pg_terminate_backend({paused.worker.pid}, 5000)",
    )
    scene.react = lambda _: None
    scene.control.resume()
    assert (await filling).rows == 4000
    assert await tables_of_images(db18) == [("before_2",)]
    assert (await back(db18)).rows == 4000
    assert await hashed(db18) == before


async def restore_elsewhere(dsn: str) -> asyncio.subprocess.Process:
    """A way back in a process of its own, to be killed. It prints a line per batch."""
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ELSEWHERE, dsn, stdout=asyncio.subprocess.PIPE, env=path
    )


_ELSEWHERE = """
import asyncio, sys
from dbwatch.backfill import kept
from dbwatch.backfill.restore import Restore
from dbwatch.clock import SystemClock
from dbwatch.postgres.session import Connector, Role

async def main():
    connector = Connector(sys.argv[1])
    session = await connector.open(Role.JOURNAL)
    of = await kept.of_backfill(session, 1)
    await session.close()
    told = lambda progress: print(progress.batches, flush=True)
    print("begins", flush=True)
    await Restore(connector, of, clock=SystemClock(), progress=told, batch_time_ms=10).run()

asyncio.run(main())
"""
