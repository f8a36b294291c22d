"""Orders from another terminal: a backfill pauses and goes on by what the journal says, whoever works on it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ledger import ONCE, WORKER_WAITS, Ledger, Scene, wait_for
from servers import Database, eventually
from test_backfill_door import ONCE as BY_SHELL
from test_backfill_door import end, start
from test_backfill_status import backfills, door
from test_window_undo import noted
from windows import PATIENCE_S, driven, small_shop, steps_before, until

from dbwatch.backfill import giving
from dbwatch.backfill.known import Known
from dbwatch.backfill.pace import Pace
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.restore import Restore
from dbwatch.backfill.run import Result
from dbwatch.clock import SystemClock
from dbwatch.errors import DbwatchError, Exit, Refused, UsageError
from dbwatch.journal import schema
from dbwatch.journal.fold import StepStatus
from dbwatch.postgres.session import Connector
from dbwatch.steps.heard import Heard
from dbwatch.window.intents import ResumeBackfill, RunStep

WEI = "wei@bastion"
PAUSED = "paused by wei@bastion from another terminal; dbwatch backfill resume lets it go on"
SLOW = replace(ONCE, batch_time_ms=10)


async def give(db: Database, act: giving.Act, id: int | None = None, by: str = WEI, why: str = "") -> str:
    return await giving.give(db.connector, SystemClock(), act, id=id, by=by, why=why)


async def begun(ledger: Ledger) -> tuple[asyncio.Task[Result], Scene]:
    """A backfill on its way that goes as slowly as a hand can make it."""
    backfill, scene = await ledger.backfill(SLOW)
    for _ in range(4):
        scene.control.slower()
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.batches > 0)
    return running, scene


def is_paused(progress: BackfillProgress) -> bool:
    return progress.state is State.PAUSED


def goes(progress: BackfillProgress) -> bool:
    return progress.state is State.RUNNING


async def test_an_order_pauses_it_within_two_seconds_and_another_lets_it_go_on(any_db: Database) -> None:
    ledger = await Ledger.make(any_db, "SELECT generate_series(1, 60000)")
    running, scene = await begun(ledger)
    giving_it = asyncio.create_task(give(any_db, "pause", why="the  backup\x1b[2J first"))
    told = await scene.until(is_paused)
    heard = datetime.now(UTC)
    assert told.reason == PAUSED.replace("terminal", "terminal (the backup␛[2J first)")
    assert await giving_it == "backfill 1 of public.t is paused"
    [known] = await backfills(any_db)
    assert known.paused is not None
    assert (known.paused.by, known.heeded, known.alive) == (WEI, True, True)
    assert (heard - known.paused.at).total_seconds() < 2
    assert (await give(any_db, "pause", by="lin@b")).startswith("backfill 1 of public.t was paused by wei@bastion")
    assert await give(any_db, "resume", by="lin@b") == "backfill 1 of public.t goes on"
    going = await scene.until(goes)
    assert going.ordered == "resumed by lin@b from another terminal"
    assert len({p.batches for p in scene.told if is_paused(p)}) == 1
    for _ in range(7):
        scene.control.faster()
    assert (await running).outcome is State.DONE
    assert await ledger.violations() == []


async def test_it_is_seen_in_the_middle_of_a_long_rest(db18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "sleep_s", lambda *_: 60.0)
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 60000)")
    running, scene = await begun(ledger)
    asked = time.monotonic()
    assert (await give(db18, "pause")).endswith("is paused")
    assert time.monotonic() - asked < 10  # of 60
    assert scene.told[-1].batches == 1
    scene.control.stop()
    await running


async def test_it_stands_over_a_restart_and_a_take_over(db18: Database) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 60000)")
    running, scene = await begun(ledger)
    await give(db18, "pause")
    scene.control.stop()
    done = (await running).rows
    assert "was paused by wei@bastion from another terminal already" in await give(db18, "pause", id=1)
    backfill, again = await ledger.backfill(SLOW)
    running = asyncio.create_task(backfill.run())
    told = await again.until(lambda p: True)
    assert (told.state, told.reason, told.rows_done) == (State.PAUSED, PAUSED, done)
    assert await give(db18, "resume") == "backfill 1 of public.t goes on"
    assert (await running).outcome is State.DONE
    assert await ledger.violations() == []
    assert (await backfills(db18))[0].paused is None


async def test_a_person_at_its_own_screen_overrules_it_and_the_order_is_gone(db18: Database) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 60000)")
    running, scene = await begun(ledger)
    await give(db18, "pause")
    scene.control.resume()

    async def lifted() -> bool:
        return await db18.sql("SELECT ordered, heeded FROM dbwatch.backfill") == [(None, False)]

    await eventually(lifted)
    assert scene.told[-1].state is State.RUNNING
    scene.control.stop()
    await running
    assert (await backfills(db18))[0].paused is None


async def test_a_pause_by_hand_at_its_screen_is_nobody_elses_to_end(db18: Database) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 60000)")
    running, scene = await begun(ledger)
    scene.control.pause("paused by lin@b")
    await scene.until(is_paused)
    with pytest.raises(DbwatchError, match="no backfill here was paused from another terminal"):
        await give(db18, "resume")
    await give(db18, "pause")
    assert scene.told[-1].reason == "paused by lin@b"
    assert await give(db18, "resume") == "backfill 1 of public.t goes on"
    assert (scene.told[-1].state, scene.told[-1].reason) == (State.PAUSED, "paused by lin@b")
    scene.control.stop()
    await running


async def test_a_way_back_hears_no_orders(db18: Database) -> None:
    from dbwatch.backfill import kept

    ledger = await Ledger.make(db18)
    await ledger.run(replace(ONCE, undo=True))
    await db18.sql("UPDATE dbwatch.backfill SET status = 'stopped'")
    [known] = await backfills(db18)
    with pytest.raises(DbwatchError, match="is stopped already: there is nothing to pause"):
        await give(db18, "pause", id=known.id)
    await db18.sql("UPDATE dbwatch.backfill SET status = 'running'")
    assert "nobody at work on it now; whoever takes it up begins paused" in await give(db18, "pause", id=1)
    session = await db18.connector.open(giving.Role.PROBE)
    spec_hash = (await ledger.plan()).spec_hash
    of = await kept.of_spec(session, spec_hash)
    await session.close()
    assert of is not None
    returned = await asyncio.wait_for(Restore(db18.connector, of, clock=SystemClock()).run(), 20)
    assert (returned.outcome, returned.rows) == (State.DONE, 3000)


async def test_what_cannot_be_ordered_is_said(db18: Database) -> None:
    await schema.ensure(db18.connector)
    with pytest.raises(DbwatchError, match="no backfill is at work here"):
        await give(db18, "pause")
    ledger = await Ledger.make(db18)
    await ledger.run()
    with pytest.raises(UsageError, match="knows no backfill 7"):
        await give(db18, "pause", id=7)
    with pytest.raises(DbwatchError, match=r"backfill 1 of public\.t is done already: there is nothing to pause"):
        await give(db18, "pause", id=1)
    with pytest.raises(DbwatchError, match="is done already: there is nothing to resume"):
        await give(db18, "resume", id=1)


async def test_an_order_to_one_that_ends_before_it_reads_it_says_so(db18: Database) -> None:
    ledger = await Ledger.make(db18)
    await ledger.run()

    class Meanwhile(SystemClock):
        """While an answer is waited for, the backfill ends."""

        async def sleep(self, seconds: float) -> None:
            await db18.sql("UPDATE dbwatch.backfill SET status = 'done'")

    await db18.foreign("dbwatch worker deaf")
    alive = "UPDATE dbwatch.backfill SET status = 'running', owner = 'dbwatch worker deaf', beat_at = clock_timestamp()"
    await db18.sql(alive)
    with pytest.raises(DbwatchError, match="is done meanwhile: there is nothing to pause"):
        await giving.give(db18.connector, Meanwhile(), "pause", id=None, by=WEI, why="")


async def test_one_that_does_not_answer_is_told_as_that(db18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving, "NOTICED_WITHIN_S", 0.3)
    ledger = await Ledger.make(db18)
    await ledger.run()
    await db18.foreign("dbwatch worker deaf")
    await db18.sql(
        "UPDATE dbwatch.backfill SET status = 'running', owner = 'dbwatch worker deaf', beat_at = clock_timestamp()"
    )
    assert "has not answered within 0.3 s; the order stands, and it pauses once its batch is over" in await give(
        db18, "pause"
    )
    _, out, _ = await door("status", db18.dsn)
    assert "UTC; its worker has not answered yet" in out


async def test_without_the_privilege_the_grant_is_named(db18: Database) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 60000)")
    await db18.sql(
        "DROP ROLE IF EXISTS orderly", "CREATE ROLE orderly LOGIN", "GRANT USAGE ON SCHEMA dbwatch TO orderly",
        "GRANT SELECT ON ALL TABLES IN SCHEMA dbwatch TO orderly",
    )  # fmt: skip
    running, scene = await begun(ledger)
    other = Connector(db18.dsn_as("orderly"))
    with pytest.raises(Refused, match=r"may not pause .*; GRANT USAGE .*; GRANT UPDATE ON dbwatch\.backfill TO order"):
        await giving.give(other, SystemClock(), "pause", id=None, by=WEI, why="")
    await db18.sql("GRANT UPDATE ON dbwatch.backfill TO orderly")
    assert (await giving.give(other, SystemClock(), "pause", id=None, by=WEI, why="")).endswith("is paused")
    scene.control.stop()
    await running
    await db18.sql("DROP OWNED BY orderly", "DROP ROLE orderly")


async def test_a_journal_of_an_older_dbwatch_is_listed_and_hears_no_orders(db18: Database) -> None:
    ledger = await Ledger.make(db18)
    await ledger.run()
    await db18.sql("ALTER TABLE dbwatch.backfill DROP ordered, DROP heeded")
    await db18.sql("UPDATE dbwatch.backfill SET status = 'running'")
    [known] = await backfills(db18)
    assert known.paused is None
    with pytest.raises(Refused, match="an older dbwatch made this journal"):
        await give(db18, "pause", id=1)


async def test_the_commands_from_a_shell(db18: Database) -> None:
    ledger = await Ledger.make(db18)
    holder = await db18.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 4000 FOR UPDATE")
    process = await start(db18, *BY_SHELL)
    await wait_for(db18, WORKER_WAITS)
    assert process.stdout is not None
    code, out, err = await door("pause", db18.dsn, "--as", "wei@bastion")
    assert (code, out, err) == (Exit.OK, "backfill 1 of public.t is paused\n", "")
    said = json.loads(await process.stdout.readline())
    while said["state"] != "paused":
        said = json.loads(await process.stdout.readline())
    assert (said["reason"], said["ordered"]) == (PAUSED, "paused by wei@bastion from another terminal")
    _, out, _ = await door("status", db18.dsn)
    assert "      paused by wei@bastion from another terminal, since 20" in out
    _, out, _ = await door("status", db18.dsn, "--json")
    assert json.loads(out)["backfills"][0]["paused"]["by"] == "wei@bastion"
    await holder.rollback()
    code, out, _ = await door("resume", db18.dsn)
    assert code == Exit.OK
    assert out in ("backfill 1 of public.t goes on\n", "backfill 1 of public.t went on, and is done\n")
    code, lines, _ = await end(process)
    assert (code, lines[-1]["outcome"]) == (Exit.OK, "done")
    code, out, err = await door("resume", db18.dsn)
    assert (code, out) == (Exit.FAILED, "")
    assert err.count("\n") == 1
    assert await ledger.violations() == []


async def test_a_windows_step_is_paused_from_elsewhere_and_b_lets_it_go_on(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as conductor:
        await steps_before(conductor, "fill")
        holder = await db18.foreign(autocommit=False)
        await holder.execute("SELECT FROM users WHERE id = 2501 FOR UPDATE")
        assert (await conductor.submit(RunStep("fill", conductor.state.database))).taken
        await until(conductor, lambda c: c.work.backfill is not None and c.work.backfill.batches > 0)
        assert (await give(db18, "pause", why="too slow")).endswith("is paused")
        await until(conductor, lambda c: c.work.backfill is not None and c.work.backfill.state is State.PAUSED)
        words = "paused by wei@bastion from another terminal (too slow)"
        await until(conductor, lambda c: words in noted(c, "fill"))
        assert (await conductor.submit(ResumeBackfill("fill"))).text == "fill goes on"
        await holder.rollback()
        await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
        assert conductor.state.step("fill").status is StepStatus.DONE
    assert (await backfills(db18))[0].paused is None


# --- pure


def known(id: int, **given: object) -> Known:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    names = {"window": None, "step": None, "table": f"t{id}", "set": "", "where": "", "mode": "pending",
             "status": "running", "owner": "o", "alive": True, "rows_done": 0, "batches": 0, "fraction": None,
             "pending": None, "quarantined": 0, "note": "", "started_at": at, "ended_at": None}  # fmt: skip
    return Known(**{"id": id, **names, **given})  # type: ignore[arg-type]  # its own fields


def test_of_several_at_work_the_number_has_to_be_said() -> None:
    pair = (known(3), known(7), known(8, alive=False), known(9, status="restoring"))
    with pytest.raises(UsageError, match=r"several backfills are at work: 3 \(t3\), 7 \(t7\); say which: --id 3"):
        giving.chosen(pair, "pause", None)
    assert giving.chosen(pair, "pause", 7).id == 7
    assert giving.chosen(pair[1:], "pause", None).id == 7


def test_a_note_for_each_order_and_none_for_what_was_said_already() -> None:
    heard, notes = Heard(), []
    for now, (state, ordered) in enumerate(
        [(State.RUNNING, ""), (State.PAUSED, "paused by a"), (State.PAUSED, "paused by a"), (State.RUNNING, "resumed")]
    ):
        heard, new = heard.after(BackfillProgress("t", state, ordered=ordered, rows_done=9), float(now))
        notes += new
    assert notes == ["paused by a", "resumed", "goes on at 9 rows"]
