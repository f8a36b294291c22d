"""What becomes of a window when its process, its terminal or its server goes: nothing is lost, nobody hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from servers import Database, OwnServers, eventually
from story import (
    GIVES_BACK_S,
    LEAVES_S,
    PATIENCE_S,
    Seat,
    backend,
    column,
    dbwatch,
    given_back,
    journal,
    leave_dialog,
    seconds_to_leave,
    sign_off,
)
from terminal import Terminal, terminal
from windows import attended, driven, small_shop, step, steps_before, until

from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepState, fold
from dbwatch.postgres.embedded import EmbeddedServer
from dbwatch.window.intents import Confirm, Decline

USERS = 20_000
LOCKED = USERS // 2 + 1
SIGNED = ("--sign", "preview=read", "--sign", "deploy=out", "--sign", "nobody=quiet")
FILLED = "SELECT count(*) FROM users WHERE phone IS NOT NULL"
TO_FILL = USERS * 49 // 50
_WAITS = """
SELECT 1 FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE %s AND wait_event_type = 'Lock' AND wait_event LIKE %s
"""
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"
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
    await reports.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
    return reports


async def edit_of_a_user(seat: Seat) -> Report:
    """An edit in the middle of the table that was never finished: as far as there a backfill comes."""
    editor = await seat.shop.db.foreign("app-1", autocommit=False)
    await editor.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (LOCKED,))
    return editor


async def code_is_due(seat: Seat) -> None:
    """Brings the window to where the column and its index are there, and nothing is filled."""
    async with driven(seat.shop) as conductor:
        await steps_before(conductor, "deploy")


async def waiting(seat: Seat, role: str, event: str = "%") -> None:
    """Waits until our session in *role* waits for a lock."""

    onlooker = await seat.shop.db.foreign("onlooker")

    async def waits() -> bool:
        asked = await onlooker.execute(_WAITS, (f"dbwatch {role}%", event))
        return await asked.fetchone() is not None

    await eventually(waits, within=PATIENCE_S)


async def known(seat: Seat, step: str) -> StepState:
    """What the journal says of a step."""
    return fold(await journal(seat.shop.db)).step(step)


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
    assert (await known(seat, "fill")).status == "running"
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
    assert "idx_users_phone" in (await known(seat, "add")).text
    way_back = await seat.run("abort", str(seat.shop.runbook), "--confirm", seat.shop.db.name)
    assert way_back.code == 0, way_back.out + way_back.err
    assert await seat.shop.dump() == before
    assert await seat.shop.heads() == ["9a20"]


async def test_a_kill_before_the_journal_knows_leaves_nothing_that_it_would_have_to_know(seat: Seat) -> None:
    before = await seat.shop.dump()
    users, products = await report_on(seat, "users"), await report_on(seat, "products")
    async with seat.started("run", str(seat.shop.runbook), "--headless", *SIGNED) as driver:
        await waiting(seat, "migrate")
        with stopped(*await backends(seat, "journal")):
            await users.rollback()
            with contextlib.suppress(AssertionError):  # a second in which the index would have been begun
                await eventually(lambda: exists(seat, "idx_users_phone"), within=1.0)
            driver.kill(signal.SIGKILL)
            assert (await driver.ended()).code == -signal.SIGKILL
    await seat.nobody_is_left()
    await products.rollback()
    way_back = await seat.run("abort", str(seat.shop.runbook), "--confirm", seat.shop.db.name)
    assert way_back.code == 0, way_back.out + way_back.err
    assert await seat.shop.dump() == before


async def backends(seat: Seat, role: str) -> list[int]:
    """The server's processes behind our sessions in *role*."""
    name = f"dbwatch {role}%"
    onlooker = await seat.shop.db.foreign("onlooker")
    asked = await onlooker.execute(_BACKENDS, (name,))
    return [pid for (pid,) in await asked.fetchall()]


async def exists(seat: Seat, relation: str) -> bool:
    """Whether there is a relation of that name, valid or not."""
    return bool(await seat.shop.db.sql(f"SELECT 1 FROM pg_class WHERE relname = '{relation}'"))  # noqa: S608  # ours


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)])
async def test_an_abort_cut_short_goes_on_when_somebody_comes_back(
    seat: Seat, number: signal.Signals, code: int
) -> None:
    before = await seat.shop.dump()
    await code_is_due(seat)
    reports = await report_on(seat, "users")
    async with seat.started("abort", str(seat.shop.runbook), "--confirm", seat.shop.db.name) as way_back:
        await waiting(seat, "migrate")
        way_back.kill(number)
        assert (await way_back.ended()).code == code
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


# SIGHUP, SIGTERM


async def test_a_dropped_line_takes_only_the_screen_away(seat: Seat) -> None:
    reports = await report_on(seat, "users")
    async with seat.screen() as screen:
        await sign_off(screen, "preview", "read by lin")
        await screen.until("n run add")
        screen.press("n")
        await waiting(seat, "migrate")
        screen.hang_up()
        told = len(await journal(seat.shop.db))

        async def goes_on() -> bool:
            return any(isinstance(e.fact, ev.StepNoted) for e in (await journal(seat.shop.db))[told:])

        await eventually(goes_on, within=PATIENCE_S)
        async with seat.screen() as again:  # the line is back: the step is found under way, and left alone
            await again.until("drives", PATIENCE_S)
            await again.until("waits for AccessExclusiveLock", PATIENCE_S)
            assert "n run" not in again.text
            again.press("q")
            assert await seconds_to_leave(again) < LEAVES_S
        await reports.rollback()
        assert await screen.ended(PATIENCE_S) == 0
    await seat.nobody_is_left()
    assert (await known(seat, "add")).status == "done"
    assert await column(seat.shop.db, "SELECT lease_until <= clock_timestamp() FROM dbwatch.window") == [True]
    async with seat.screen() as screen:
        await screen.until("✓ add", PATIENCE_S)
        await screen.until("n sign off deploy")
        screen.hang_up()
        assert await screen.ended(LEAVES_S) == 0  # nothing runs: there is nothing to stay for


def taken(screen: Terminal) -> bool:
    """Whether the screens have just taken the terminal, and painted nothing yet."""
    return b"\x1b[?1049h" in screen.raw


@pytest.mark.parametrize(
    ("shown", "leave"), [("n sign off preview", "q"), ("n sign off preview", "hang_up"), (taken, "hang_up")]
)
async def test_a_terminal_that_goes_away_leaves_nobody_behind(
    seat: Seat, shown: str | Callable[[Terminal], bool], leave: str
) -> None:
    """It sends SIGHUP and SIGCONT; the latter once led to a thread that read from nowhere for ever."""
    async with seat.screen() as screen:
        await screen.until(shown, PATIENCE_S)
        screen.press("q") if leave == "q" else screen.hang_up()
        ending = asyncio.ensure_future(screen.ended(LEAVES_S))
        while not ending.done():
            screen.signal(signal.SIGCONT)
            await asyncio.wait({ending}, timeout=0.01)
        assert await ending == 0


async def test_sigterm_ends_a_waiting_migration_and_gives_the_terminal_back(seat: Seat) -> None:
    before = await seat.shop.dump()
    reports = await report_on(seat, "users")
    async with seat.screen(shell=True) as screen:
        await sign_off(screen, "preview", "read by lin")
        await screen.until("n run add")
        screen.press("n")
        await waiting(seat, "migrate")
        await ended_by_sigterm(seat, screen)
    await seat.nobody_is_left()
    assert await seat.shop.dump() == before
    add = await known(seat, "add")
    assert (add.status, add.attempt) == ("failed", 1)
    await reports.rollback()
    async with driven(seat.shop) as conductor:
        await step(conductor, "add")


async def test_sigterm_ends_a_backfill_between_two_batches(seat: Seat) -> None:
    await code_is_due(seat)
    editor = await edit_of_a_user(seat)
    async with seat.screen(shell=True) as screen:
        await sign_off(screen, "deploy", "v0.8.0 is out")
        screen.press("b")
        await waiting(seat, "worker")
        await ended_by_sigterm(seat, screen)
    await seat.nobody_is_left()
    fill = await known(seat, "fill")
    assert (fill.status, fill.attempt) == ("failed", 1)
    assert "it goes on from there" in fill.text
    assert await column(seat.shop.db, "SELECT rows_done FROM dbwatch.backfill") == await column(seat.shop.db, FILLED)
    await editor.rollback()


async def ended_by_sigterm(seat: Seat, screen: Terminal) -> None:
    """Ends the driver by SIGTERM; its terminal and its process have to be free in time."""
    os.kill(seat.driver, signal.SIGTERM)
    began = time.monotonic()
    await screen.until(given_back, GIVES_BACK_S)
    await screen.until("terminal: icanon echo", LEAVES_S - (time.monotonic() - began))
    assert "ended with 0" in screen.text


async def test_a_mere_watch_writes_nothing_and_leaves_at_once(seat: Seat) -> None:
    before = await seat.shop.dump()
    await report_on(seat, "users")
    for leave in ("q", "SIGTERM"):
        async with terminal(dbwatch(seat.shop.db.dsn), columns=100, rows=30, env=seat.environment) as screen:
            await screen.until("idle in transaction", PATIENCE_S)
            assert "Plan" not in screen.text
            began = time.monotonic()
            if leave == "q":
                screen.press("q")
            else:
                screen.signal(signal.SIGTERM)
            assert await screen.ended(LEAVES_S) == 0
            assert time.monotonic() - began < LEAVES_S
            assert given_back(screen)
    assert await seat.shop.dump() == before
    assert await column(seat.shop.db, "SELECT to_regnamespace('dbwatch') IS NULL") == [True]


# Two drivers


async def test_a_second_driver_waits_or_takes_over_and_the_first_one_sees_that(seat: Seat) -> None:
    async with seat.screen() as screen:
        await screen.until("n sign off preview", PATIENCE_S)
        again = ("run", str(seat.shop.runbook), "--headless", "--as", "lin@b")
        refused = await seat.run(*again)
        assert (refused.code, "wei@bastion drives this window" in refused.err) == (4, True)
        taken = await seat.run(*again, "--take-over", "wei sleeps", "--sign", "preview=read")
        assert "lin@b took the wheel: wei sleeps" in taken.out
        await screen.until("driver lin", PATIENCE_S)
        await screen.until("✓ add", PATIENCE_S)
        await screen.until("T takes the wheel")
        assert "n sign off" not in screen.text
        screen.press("q")
        assert await seconds_to_leave(screen) < LEAVES_S


# A server that does not answer


@pytest.fixture
async def own_seat(own_server: OwnServers, tmp_path: Path) -> AsyncIterator[tuple[Seat, EmbeddedServer]]:
    """A seat at a server of its own, which may be stopped."""
    server = await own_server(18)
    seat = Seat.at(await small_shop(await own_server.database(server), tmp_path, users=1000))
    yield seat, server
    await seat.nobody_is_left()


async def keys_answer(screen: Terminal) -> None:
    """Every pane is there within 100 ms, on a machine that has nothing else to do."""
    for key, pane in (("3", "[3 Locks"), ("4", "[4 Statements"), ("9", "[9 Journal"), ("2", "[2 Activity")):
        screen.press(key)
        await screen.until(pane, 0.1 * 5)


async def test_a_stuck_poll_is_said_and_keys_answer(own_seat: tuple[Seat, EmbeddedServer]) -> None:
    seat, _ = own_seat
    async with seat.screen() as screen:
        await screen.until("● live", PATIENCE_S)
        with stopped(await backend(seat.shop.db, "monitor")):
            await screen.until("stale", PATIENCE_S)
            await keys_answer(screen)
            await screen.until("● live", PATIENCE_S)  # over another session
        screen.press("q")
        assert await seconds_to_leave(screen) < LEAVES_S


async def test_a_stopped_server_stops_neither_the_keys_nor_the_leaving(own_seat: tuple[Seat, EmbeddedServer]) -> None:
    seat, server = own_seat
    async with seat.screen(shell=True) as screen:
        await screen.until("n sign off preview", PATIENCE_S)
        await screen.until("● live")
        with stopped(server.pid, *children(server.pid)):
            await screen.until("stale", PATIENCE_S)
            await keys_answer(screen)
            screen.press("n")
            await screen.until("Sign off preview", 0.5)
            screen.press("read by lin", "enter")
            await screen.until("preview …")
            await keys_answer(screen)
            screen.press("q")
            assert await seconds_to_leave(screen, shell=True) < LEAVES_S
            assert given_back(screen)


async def test_a_stopped_server_lets_go_of_its_driver_in_the_middle_of_a_migration(
    own_seat: tuple[Seat, EmbeddedServer],
) -> None:
    seat, server = own_seat
    before = await seat.shop.dump()
    reports = await report_on(seat, "users")
    async with seat.screen(shell=True) as screen:
        await sign_off(screen, "preview", "read by lin")
        await screen.until("n run add")
        screen.press("n")
        await waiting(seat, "migrate")
        with stopped(server.pid, *children(server.pid)):
            screen.press("q")
            await screen.until("Leave while something of ours runs?")
            screen.press("y")
            assert await seconds_to_leave(screen, shell=True) < LEAVES_S
            assert given_back(screen)
    await reports.rollback()
    await seat.nobody_is_left()
    assert await seat.shop.dump() == before
    async with driven(seat.shop) as conductor:
        await step(conductor, "add")


async def test_a_restarted_server_is_live_again_at_once(own_seat: tuple[Seat, EmbeddedServer]) -> None:
    seat, server = own_seat
    async with seat.screen() as screen:
        await screen.until("● live", PATIENCE_S)
        await server.kill9()
        await screen.until("stale")
        await keys_answer(screen)
        await server.start()
        await screen.until(lambda there: "● live" in there.text and "stale" not in there.text, 3.0 * 3)
        await sign_off(screen, "preview", "read by lin")
        screen.press("q")
        assert await seconds_to_leave(screen) < LEAVES_S
    assert any(isinstance(e.fact, ev.StepDone) for e in await journal(seat.shop.db))


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes that do nothing for a while, and then go on."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def children(pid: int) -> list[int]:
    """The processes that *pid* has begun."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# Another size


async def test_the_screen_follows_its_terminal_to_every_size(seat: Seat) -> None:
    async with seat.screen() as screen:
        await screen.until("n sign off preview", PATIENCE_S)
        await screen.until("● live")
        assert "[2 Activity]" in screen.text
        screen.resize(80, 24)
        await screen.until(lambda there: "[1Plan]" in there.text or "[2Activity]" in there.text)
        await screen.until("n sign off preview")
        screen.press("3")
        await screen.until("nobody waits for a lock")
        screen.resize(20, 5)
        await screen.until("too small: needs")
        screen.resize(120, 30)
        await screen.until("[3 Locks]")
        await screen.until("○ preview")
        assert "too small" not in screen.text
        await sign_off(screen, "preview", "read by lin")
        screen.press("q")
        assert await seconds_to_leave(screen) < LEAVES_S


# Without a screen


async def test_without_a_screen_it_stops_where_a_person_is_needed(seat: Seat) -> None:
    signed = await seat.run("run", str(seat.shop.runbook), "--sign", "preview=read")
    assert (signed.code, "--sign and --confirm need --headless" in signed.err) == (2, True)
    first = await seat.run("run", str(seat.shop.runbook), "--headless")
    assert first.code == 4
    assert "preview is a person's step" in first.err
    assert "--sign preview=NOTE" in first.err
    told = json.loads((await seat.run("status", seat.shop.db.dsn, "--json")).out)
    assert {step["status"] for step in told["steps"]} == {"pending"}
    beyond = await seat.run("run", str(seat.shop.runbook), "--headless", *SIGNED)
    assert (beyond.code, "past drop there is no whole way back" in beyond.err) == (4, True)
    assert beyond.err.rstrip().endswith("; say --confirm DBNAME")
    assert told_lines(beyond.out)[0] == "wei@bastion took the wheel: started again"  # nothing of before its own start
    assert [line for line in told_lines(beyond.out) if line.startswith("same step same: done")] == [
        "same step same: done: ALTER TABLE users ADD CONSTRAINT users_phone_same"
        " CHECK (phone IS NOT DISTINCT FROM legacy_phone_field) NOT VALID"
    ]
    whole = await seat.run("run", str(seat.shop.runbook), "--headless", "--confirm", seat.shop.db.name)
    assert whole.code == 0, whole.out + whole.err
    assert told_lines(whole.out)[-1] == "window closed: done"
    assert await seat.shop.heads() == ["7be4"]
    told = json.loads((await seat.run("status", seat.shop.db.dsn, "--json")).out)
    assert (told["open"], told["outcome"], told["driver"]) == (False, "done", "wei@bastion")
    assert {step["status"] for step in told["steps"]} == {"done"}
    following = await seat.run("run", str(seat.shop.runbook), "--headless")
    assert (following.code, "preview is a person's step" in following.err) == (4, True)


@pytest.mark.parametrize("agrees", [True, False])
async def test_without_a_screen_a_step_waits_for_a_second_persons_word(seat: Seat, agrees: bool) -> None:
    runbook = seat.shop.runbook
    runbook.write_text(runbook.read_text().replace('to = "3f1c"\n', 'to = "3f1c"\nconfirm = "navigator"\n'))
    async with seat.started("run", str(runbook), "--headless", "--sign", "preview=read") as driver:
        await driver.until("add waits for a second person's word")
        async with attended(seat.shop) as navigator:
            await until(navigator, lambda c: c.state.proposal is not None)
            assert navigator.state.proposal is not None
            seq = navigator.state.proposal.seq
            word = Confirm(seq, seat.shop.db.name) if agrees else Decline(seq, "not at noon")
            answer = await navigator.submit(word)
            assert answer.taken, answer.text
        ended = await driver.ended()
    assert ended.code == 4
    assert ("deploy is a person's step" in ended.err) == agrees
    assert any("add not confirmed: not at noon" in line for line in told_lines(ended.out)) != agrees
    assert (await known(seat, "add")).status == ("done" if agrees else "pending")


def told_lines(printed: str) -> list[str]:
    """What each line of *printed* tells: an event a line, each with its time."""
    return [re.fullmatch(r"\d\d:\d\d:\d\d (.+)", line)[1] for line in printed.splitlines()]  # type: ignore[index]


async def test_a_check_that_does_not_hold_ends_it_with_1(seat: Seat) -> None:
    seat.shop.runbook.write_text(seat.shop.runbook.read_text().replace("expect = 0", "expect = 5"))
    ended = await seat.run("run", str(seat.shop.runbook), "--headless", *SIGNED)
    assert ended.code == 1
    assert "the query gave 0, expected 5" in ended.out
    assert (await known(seat, "complete")).status == "failed"


async def test_sigint_stops_what_runs_and_says_130(seat: Seat) -> None:
    before = await seat.shop.dump()
    await report_on(seat, "users")
    async with seat.started("run", str(seat.shop.runbook), "--headless", *SIGNED) as driver:
        await waiting(seat, "migrate")
        driver.kill(signal.SIGINT)
        began = time.monotonic()
        assert (await driver.ended()).code == 130
        assert time.monotonic() - began < LEAVES_S
    await seat.nobody_is_left()
    assert await seat.shop.dump() == before


async def test_the_way_back_without_a_screen_wants_the_name_and_the_persons_part(seat: Seat) -> None:
    before, runbook = await seat.shop.dump(), str(seat.shop.runbook)
    assert (await seat.run("abort", runbook, "--dry-run")).code == 4  # no window is open
    async with driven(seat.shop, "wei@bastion") as conductor:
        await steps_before(conductor, "nobody")
    after = await seat.shop.dump()

    shown = await seat.run("abort", runbook, "--dry-run")
    assert shown.code == 0
    for action in ("undo same", "undo deploy: git checkout v0.7.0", "downgrade 3f1c → 9a20", "lost: "):
        assert action in shown.out
    wrong = await seat.run("abort", runbook, "--done", "deploy", "--confirm", "production")
    assert (wrong.code, "nothing was done" in wrong.err) == (4, True)
    alone = await seat.run("abort", runbook, "--confirm", seat.shop.db.name)
    assert (alone.code, "--done deploy" in alone.err) == (4, True)
    assert await seat.shop.dump() == after
    back = await seat.run("abort", runbook, "--done", "deploy", "--confirm", seat.shop.db.name)
    assert back.code == 0, back.out + back.err
    assert "the schema equals the one at the opening" in back.out
    assert await seat.shop.dump() == before
    [epoch] = re.findall(r"fence: epoch \d+ → (\d+)", back.out)
    assert f"abort 1 done in 0:00: epoch {epoch}" in back.out  # as shown: the epoch is taken once, by entering
    assert back.out.count("took the wheel") == 1
    assert await column(seat.shop.db, "SELECT epoch FROM dbwatch.window") == [int(epoch)]
    told = json.loads((await seat.run("status", seat.shop.db.dsn, "--json")).out)
    assert (told["outcome"], told["abort"]["equal"]) == ("aborted", True)
