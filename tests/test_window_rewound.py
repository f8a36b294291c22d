"""A journal that went back under its driver, as after a failover to a standby that had not everything."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from servers import Database
from test_abort_chain import COLUMN, COUNTS, DROPPED, counted
from windows import (
    PATIENCE_S,
    abort,
    attended,
    begin_abort,
    driven,
    end_of_abort,
    rewind,
    small_shop,
    step,
    steps_before,
    until,
)

from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus
from dbwatch.window.conductor import Conductor
from dbwatch.window.intents import RunStep, StopOurs


def last(conductor: Conductor, kind: type[ev.Fact]) -> int:
    """The seq of the last event of that kind."""
    return next(e.seq for e in reversed(conductor.events) if isinstance(e.fact, kind))


async def test_a_migration_whose_end_was_lost_is_asked_after_and_the_window_goes_on(
    db18: Database, tmp_path: Path
) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as conductor:
        await steps_before(conductor, "deploy")
        await rewind(shop.db, last(conductor, ev.StepDone) - 1)
        await until(conductor, lambda c: c.state.rewound and c.state.running is None)
        assert conductor.state.step("add").status is StepStatus.DONE
        await step(conductor, "deploy")
        await abort(conductor)
        assert conductor.state.abort.equal


async def test_a_backfill_whose_end_was_lost_goes_on_where_it_ended(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as conductor:
        await steps_before(conductor, "complete")
        filled = await shop.db.sql("SELECT id, phone, xmin FROM users ORDER BY id")
        await rewind(shop.db, last(conductor, ev.StepDone) - 1)
        await until(conductor, lambda c: c.state.rewound and c.state.running is None)
        assert conductor.state.step("fill").text == "it was cut off while it ran; it goes on from its cursor"
        await step(conductor, "fill")
        assert await shop.db.sql("SELECT id, phone, xmin FROM users ORDER BY id") == filled, "nothing is done twice"


async def test_an_abort_whose_end_was_lost_comes_to_it_again(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as conductor:
        await steps_before(conductor, "deploy")
        await abort(conductor)
        assert not conductor.state.open
        await shop.db.sql("UPDATE dbwatch.window SET closed_at = NULL")
        await rewind(shop.db, last(conductor, ev.AbortFinished) - 1)
        await until(conductor, lambda c: c.state.rewound and not c.state.open)
        assert conductor.state.abort.equal
        assert await shop.heads() == ["9a20"]


async def test_what_is_asked_for_is_done_though_nobody_can_tell_how_the_last_step_ended(
    db18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as driver, attended(shop) as navigator:
        await steps_before(driver, "deploy")
        asked = asyncio.Event()

        async def never_known() -> None:
            asked.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(driver.work, "recover", never_known)
        await rewind(shop.db, last(driver, ev.StepDone) - 1)
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        await until(navigator, lambda c: c.state.rewound)
        answer = await navigator.submit(StopOurs())
        assert "does not answer" not in answer.text
        assert any(isinstance(e.fact, ev.RequestAnswered) for e in driver.events)


async def test_rows_that_a_step_committed_by_themselves_are_not_written_again_by_whoever_finds_it_cut_off(
    db18: Database, tmp_path: Path
) -> None:
    shop = await counted(db18, tmp_path, COUNTS + COLUMN, DROPPED)
    report = await db18.foreign("reports", autocommit=False)
    await report.execute("SELECT FROM users")
    async with driven(shop) as conductor:
        assert (await conductor.submit(RunStep("to_r1"))).taken
        await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
        await rewind(db18, last(conductor, ev.StepFailed) - 1)
        await until(conductor, lambda c: c.state.rewound and c.state.running is None)
        known = conductor.state.step("to_r1")
        assert (known.status, known.again) == (StepStatus.FAILED, False)
        assert "it was cut off while it ran; sent, and commits by itself: UPDATE counter SET n = n + 1" in known.text
        await report.rollback()
        assert not (await conductor.submit(RunStep("to_r1"))).taken
    assert await db18.sql("SELECT n FROM counter") == [(1,)]


async def test_rows_that_a_downgrade_committed_by_themselves_are_not_written_again_by_whoever_goes_on(
    db18: Database, tmp_path: Path
) -> None:
    shop = await counted(db18, tmp_path, COLUMN, COUNTS + DROPPED)
    async with driven(shop) as conductor:
        await step(conductor, "to_r1")
        report = await db18.foreign("reports", autocommit=False)
        await report.execute("SELECT FROM users")
        await begin_abort(conductor)
        await end_of_abort(conductor)
        await report.rollback()
        before = last(conductor, ev.AbortFinished) - 1
        await rewind(db18, before)  # the same driver remembers how its abort ended
        await until(conductor, lambda c: c.state.rewound and not c.state.aborting)
        assert "commits by itself" in conductor.state.abort.differences[0]
        await rewind(db18, before - 1)  # before the action failed
    async with driven(shop, "lin@b") as conductor:  # another one looks what was sent
        await until(conductor, lambda c: not c.state.aborting)
        assert "the downgrade was cut short: UPDATE counter" in conductor.state.abort.differences[0]
    assert await db18.sql("SELECT n FROM counter") == [(1,)]
