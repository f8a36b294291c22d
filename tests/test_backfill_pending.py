"""Mode pending: the final scan, what it finds, and how a run that cannot finish ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from ledger import QUICK, Scene, planned
from servers import Database

from dbwatch.backfill.progress import State
from dbwatch.backfill.run import Backfill, Result
from dbwatch.backfill.spec import Spec
from dbwatch.clock import SystemClock
from dbwatch.errors import DbwatchError
from dbwatch.journal import schema
from dbwatch.postgres.session import Connector

PHONE = Spec(table="users", set="phone = legacy", where="phone IS NULL", batch_time_ms=10)
LEFT = "SELECT count(*) FROM users WHERE phone IS NULL"


async def users(database: Database, rows: int = 6000, legacy: str = "'+49' || i") -> None:
    fill = f"INSERT INTO users SELECT i, {legacy}, NULL FROM generate_series(1, {rows}) AS i"  # noqa: S608  # ours
    await database.sql("CREATE TABLE users (id bigint PRIMARY KEY, legacy text, phone text)", fill, "ANALYZE users")
    await schema.ensure(database.connector)


async def backfill(database: Database, scene: Scene, spec: Spec = PHONE, connector: Connector | None = None) -> Result:
    found = await planned(database.connector, spec)
    return await Backfill(
        connector or database.connector,
        found,
        clock=SystemClock(),
        control=scene.control,
        progress=scene.see,
        thresholds=QUICK,
    ).run()


async def test_a_finished_backfill_has_proved_that_nothing_is_pending(db: Database) -> None:
    await users(db)
    result = await backfill(db, Scene())
    assert (result.outcome, result.rows, result.pending, result.note) == (State.DONE, 6000, 0, "")
    assert await db.sql(LEFT) == [(0,)]
    assert await db.sql("SELECT status, pending, walked FROM dbwatch.backfill") == [("done", 0, True)]


async def test_rows_written_behind_the_cursor_are_found_and_filled(db: Database) -> None:
    await users(db)
    scene = Scene()
    running = asyncio.create_task(backfill(db, scene))
    await scene.until(lambda p: p.batches >= 3)
    await db.sql("UPDATE users SET phone = NULL WHERE id <= 100")
    await db.sql("INSERT INTO users SELECT -i, 'x', NULL FROM generate_series(1, 700) AS i")
    result = await running
    assert (result.outcome, result.pending) == (State.DONE, 0)
    assert await db.sql(LEFT) == [(0,)]


@pytest.mark.parametrize(
    ("assignments", "where"),
    [("phone = legacy", "phone IS NULL"), ("(phone) = ROW (legacy)", "phone IS NULL")],
    ids=["told beforehand", "not told by the text"],
)
async def test_rows_that_set_leaves_pending_are_counted_and_touched_no_further(
    db: Database, assignments: str, where: str
) -> None:
    await users(db, legacy="CASE WHEN i % 10 > 0 THEN '+49' || i END")
    result = await backfill(db, Scene(), replace(PHONE, set=assignments, where=where))
    assert (result.outcome, result.pending) == (State.INCOMPLETE, 600)
    assert "SET leaves them so" in result.note
    assert await db.sql(LEFT) == [(600,)]


async def test_the_proposed_condition_makes_it_complete(db: Database) -> None:
    await users(db, legacy="CASE WHEN i % 10 > 0 THEN '+49' || i END")
    result = await backfill(db, Scene())
    condition = result.note.split("add to WHERE: ")[1]
    result = await backfill(db, Scene(), replace(PHONE, where=f"{PHONE.where} {condition}"))
    assert (result.outcome, result.rows, result.pending) == (State.DONE, 0, 0)


async def test_an_incomplete_one_goes_on_with_the_final_scan_when_called_again(db: Database) -> None:
    await users(db, legacy="CASE WHEN i % 10 > 0 THEN '+49' || i END")
    await backfill(db, Scene())
    await db.sql("UPDATE users SET legacy = '+1' WHERE legacy IS NULL")
    result = await backfill(db, Scene())
    assert (result.outcome, result.rows, result.pending) == (State.DONE, 6600, 0)
    assert await db.sql("SELECT count(*) FROM dbwatch.backfill") == [(1,)]


async def test_an_empty_table_is_done_at_once(db: Database) -> None:
    await users(db, rows=0)
    for spec in (PHONE, replace(PHONE, mode="once")):
        result = await backfill(db, Scene(), spec)
        assert (result.outcome, result.rows, result.pending) == (State.DONE, 0, 0)


@pytest.mark.parametrize(
    ("ddl", "words"),
    [("ALTER TABLE users DROP COLUMN legacy", "a column is gone"), ("DROP TABLE users", "the table is gone")],
)
async def test_what_is_dropped_under_it_fails_it_with_one_sentence(db: Database, ddl: str, words: str) -> None:
    await users(db, rows=20_000)
    scene = Scene()
    running = asyncio.create_task(backfill(db, scene))
    await scene.until(lambda p: p.batches >= 2)
    await db.sql(ddl)
    with pytest.raises(DbwatchError, match=words) as failed:
        await running
    assert "\n" not in str(failed.value)
    assert scene.told[-1].state is State.FAILED
    assert await db.sql("SELECT status, note FROM dbwatch.backfill") == [("failed", str(failed.value))]


async def test_a_row_that_cannot_take_its_value_fails_it_and_the_batches_before_stand(db: Database) -> None:
    await users(db)
    await db.sql("ALTER TABLE users ADD CHECK (phone <> '+495000')")
    with pytest.raises(DbwatchError, match="violates check constraint"):
        await backfill(db, Scene(), replace(PHONE, quarantine=0))
    [(filled,)] = await db.sql("SELECT count(*) FROM users WHERE phone IS NOT NULL")
    assert await db.sql("SELECT rows_done FROM dbwatch.backfill") == [(filled,)]
    await db.sql("UPDATE users SET legacy = '+1' WHERE id = 5000")
    assert (await backfill(db, Scene())).rows == 6000


async def test_progress_tells_what_a_screen_needs(db: Database) -> None:
    await users(db)
    scene = Scene()
    await backfill(db, scene)
    walking = [p for p in scene.told if p.state is State.RUNNING and not p.checking]
    assert [p.rows_done for p in walking] == sorted(p.rows_done for p in walking)
    assert all(0 < p.fraction < 1 and p.rows_total_estimate == 6000 for p in walking)
    assert all(p.rows_per_s > 0 and p.batch_ms > 0 for p in walking), walking
    assert all(p.eta_s is not None or p.fraction == 0.999 for p in walking), "unknown only past what was estimated"
    assert all(p.worker is not None and p.target_ms == pytest.approx(10) for p in walking)
    assert len(walking[-1].history) == walking[-1].batches
    assert (scene.told[-1].state, scene.told[-1].fraction, scene.told[-1].remaining) == (State.DONE, 1.0, 0)


async def test_pause_and_resume_take_effect_within_a_batch(db: Database) -> None:
    await users(db, rows=20_000)
    scene = Scene()
    scene.react = lambda p: scene.control.pause() if p.batches == 2 and p.state is State.RUNNING else None
    running = asyncio.create_task(backfill(db, scene))
    paused = await scene.until(lambda p: p.state is State.PAUSED)
    assert (paused.batches, paused.reason) == (2, "paused by hand")
    assert await db.sql("SELECT batches FROM dbwatch.backfill") == [(2,)]
    scene.control.resume()
    assert (await running).rows == 20_000


async def test_faster_and_slower_take_effect_with_the_next_batch(db: Database) -> None:
    await users(db, rows=20_000)
    scene = Scene()

    def react(progress: object) -> None:
        if scene.told[-1].batches == 2:
            scene.control.slower()

    scene.react = react
    await backfill(db, scene)
    slow = next(p for p in scene.told if p.batches == 3)
    assert (slow.level, slow.target_ms) == (-1, pytest.approx(7))
    assert "gentler by hand (-1)" in slow.reason


async def test_a_screen_that_stutters_does_not_lengthen_the_batches(db18: Database) -> None:
    """The loop is stuck for longer than a batch takes, again and again; the server times the batches."""
    await users(db18)
    scene = Scene()
    loop = asyncio.get_running_loop()

    def stutter() -> None:
        time.sleep(0.15)
        if not running.done():
            loop.call_later(0.005, stutter)

    running = asyncio.create_task(backfill(db18, scene))
    await scene.until(lambda p: p.batches >= 1)
    stutter()
    assert (await running).rows == 6000
    assert max(scene.told[-1].history) < 100


async def test_an_aborted_task_leaves_a_row_that_the_next_run_goes_on_with(db: Database) -> None:
    await users(db, rows=20_000)
    scene = Scene()
    running = asyncio.create_task(backfill(db, scene))
    await scene.until(lambda p: p.batches >= 2)
    running.cancel()
    await asyncio.wait({running}, timeout=2)
    assert running.cancelled()
    assert (await backfill(db, Scene())).rows == 20_000
