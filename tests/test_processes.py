"""What becomes of a window when its process, its terminal or its server goes: nothing is lost, nobody hangs."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from servers import Database, eventually
from story import LEAVES_S, PATIENCE_S, Seat, column, journal, leave_dialog, seconds_to_leave, sign_off, steps_until
from terminal import Terminal
from windows import small_shop

from dbwatch.journal import events as ev

USERS = 20_000
LOCKED = USERS // 2 + 1
SIGNED = ("--sign", "preview=read", "--sign", "deploy=out", "--sign", "nobody=quiet")
FILLED = "SELECT count(*) FROM users WHERE phone IS NOT NULL"
TO_FILL = USERS * 49 // 50
Report = psycopg.AsyncConnection[Any]


@pytest.fixture
async def seat(db18: Database, tmp_path: Path) -> AsyncIterator[Seat]:
    """A seat at a small shop on 18; after the test nobody of ours may be left there."""
    seat = Seat.at(await small_shop(db18, tmp_path, users=USERS))
    yield seat
    await seat.nobody_is_left()


# What stands in a window's way


async def report_on(seat: Seat, table: str) -> Report:
    """A report that has read *table*, and then forgot its transaction: in nobody's way but a migration's."""
    reports = await seat.shop.db.foreign("reports", autocommit=False)
    await reports.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    await reports.execute(f"SELECT count(*) FROM {table}".encode())
    return reports


async def edit_of_a_user(seat: Seat) -> Report:
    """An edit in the middle of the table that was never finished: as far as there a backfill comes."""
    editor = await seat.shop.db.foreign("app-1", autocommit=False)
    await editor.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (LOCKED,))
    return editor


async def code_is_due(seat: Seat) -> None:
    """Brings the window to where the column and its index are there, and nothing is filled."""
    ahead = await seat.run("run", str(seat.shop.runbook), "--headless", "--sign", "preview=read")
    assert ahead.code == 4, ahead.out + ahead.err


async def waiting(seat: Seat, role: str, event: str = "%") -> None:
    """Waits until our session in *role* waits for a lock."""

    async def waits() -> bool:
        return bool(
            await seat.shop.db.sql(
                f"SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'dbwatch {role}%'"
                f" AND wait_event_type = 'Lock' AND wait_event LIKE '{event}' AND datname = current_database()"
            )
        )

    await eventually(waits, within=PATIENCE_S)


async def steps(seat: Seat) -> dict[str, dict[str, Any]]:
    """The steps as `dbwatch status --json` tells them, by their ids."""
    told = await seat.run("status", seat.shop.db.dsn, "--json")
    assert told.code == 0, told.err
    return {step["id"]: step for step in json.loads(told.out)["steps"]}


async def attempts(seat: Seat, step: str) -> list[int]:
    """How often *step* was begun, as the journal has it."""
    facts = [event.fact for event in await journal(seat.shop.db)]
    return [fact.attempt for fact in facts if isinstance(fact, ev.StepStarted) and fact.step == step]


# kill -9


async def test_a_killed_backfill_goes_on_from_its_cursor(seat: Seat) -> None:
    await code_is_due(seat)
    editor = await edit_of_a_user(seat)
    async with seat.started("run", str(seat.shop.runbook), "--headless", *SIGNED) as driver:
        await waiting(seat, "worker")
        driver.kill(signal.SIGKILL)
        assert (await driver.ended()).code == -signal.SIGKILL
    await seat.nobody_is_left()
    assert (await steps(seat))["fill"]["status"] == "running"
    filled = await column(seat.shop.db, FILLED)
    assert 0 < int(filled[0]) < LOCKED
    assert await column(seat.shop.db, "SELECT rows_done FROM dbwatch.backfill") == filled
    await editor.rollback()
    async with seat.screen() as screen:
        await screen.until("n run fill again", PATIENCE_S)
        assert "it goes on from its" in screen.text
        screen.press("b")
        await screen.until("✓ fill", PATIENCE_S)
        screen.press("q")
        assert await seconds_to_leave(screen) < LEAVES_S
    assert await column(seat.shop.db, FILLED) == [TO_FILL]
    assert await column(seat.shop.db, "SELECT rows_done FROM dbwatch.backfill") == [TO_FILL]
    assert await attempts(seat, "fill") == [1, 2]


async def test_a_killed_wait_for_a_lock_leaves_nothing_and_can_be_run_again(seat: Seat) -> None:
    before = await seat.shop.dump()
    reports = await report_on(seat, "users")
    async with seat.started("run", str(seat.shop.runbook), "--headless", *SIGNED) as driver:
        await waiting(seat, "migrate")
        driver.kill(signal.SIGKILL)
        assert (await driver.ended()).code == -signal.SIGKILL
    await seat.nobody_is_left()
    assert await seat.shop.dump() == before
    await reports.rollback()
    async with seat.screen() as screen:
        await screen.until("n run add again", PATIENCE_S)
        assert "✗ add" in screen.text
        assert "nothing of it" in screen.text
        screen.press("n")
        await screen.until("✓ add", PATIENCE_S)
        screen.press("q")
        assert await seconds_to_leave(screen) < LEAVES_S
    assert await attempts(seat, "add") == [1, 2]


async def test_a_killed_index_build_is_told_and_taken_back(seat: Seat) -> None:
    before = await seat.shop.dump()
    reports = await report_on(seat, "products")
    async with seat.started("run", str(seat.shop.runbook), "--headless", *SIGNED) as driver:
        await waiting(seat, "migrate", "virtualxid")
        driver.kill(signal.SIGKILL)
        assert (await driver.ended()).code == -signal.SIGKILL
    await seat.nobody_is_left()
    assert await seat.shop.db.sql("SELECT 1 FROM pg_index WHERE NOT indisvalid")
    await reports.rollback()
    async with seat.screen() as screen:
        await screen.until("not safe to run again: A", PATIENCE_S)
        screen.press("q")
        assert await seconds_to_leave(screen) < LEAVES_S
    assert "idx_users_phone" in (await steps(seat))["add"]["text"]
    way_back = await seat.run("abort", str(seat.shop.runbook), "--confirm", seat.shop.db.name)
    assert way_back.code == 0, way_back.out + way_back.err
    assert await seat.shop.dump() == before
    assert await seat.shop.heads() == ["9a20"]


async def test_a_killed_abort_goes_on_when_somebody_comes_back(seat: Seat) -> None:
    before = await seat.shop.dump()
    await code_is_due(seat)
    reports = await report_on(seat, "users")
    async with seat.started("abort", str(seat.shop.runbook), "--confirm", seat.shop.db.name) as way_back:
        await waiting(seat, "migrate")
        way_back.kill(signal.SIGKILL)
        assert (await way_back.ended()).code == -signal.SIGKILL
    await seat.nobody_is_left()
    assert await seat.shop.dump() != before
    async with seat.screen() as screen:
        await screen.until("A show the abort", PATIENCE_S)
        screen.press("A")
        await screen.until(re_downgrade, PATIENCE_S)
        await waiting(seat, "migrate")
        await reports.rollback()
        await screen.until("✓ back: the schema equals", PATIENCE_S)
        await leave_dialog(screen)
        assert "CLOSED: aborted" in screen.text
        screen.press("q")
        assert await seconds_to_leave(screen) < LEAVES_S
    assert await seat.shop.dump() == before
    facts = [event.fact for event in await journal(seat.shop.db)]
    assert len([fact for fact in facts if isinstance(fact, ev.AbortConfirmed)]) == 1
    assert [fact.equal for fact in facts if isinstance(fact, ev.AbortFinished)] == [True]


def re_downgrade(screen: Terminal) -> bool:
    """Whether the abort's downgrade is the action under way."""
    return re.search(r"▶ \d downgrade 3f1c → 9a20", screen.text) is not None
