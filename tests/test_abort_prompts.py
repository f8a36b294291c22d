"""The prompts of `dbwatch abort`: whoever wants to leave there leaves, and what was begun can be gone on with."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from servers import Database
from story import LEAVES_S, PATIENCE_S, Seat, dbwatch
from terminal import Terminal, terminal
from windows import driven, small_shop, steps_before

from dbwatch.cli.signals import Signals
from dbwatch.cli.typed import line_from
from dbwatch.errors import Exit

CTRL_D = "\x04"


@pytest.fixture
async def seat(db18: Database, tmp_path: Path) -> AsyncIterator[Seat]:
    """A seat at a window that was driven as far as there is something for a person to take back."""
    seat = Seat.at(await small_shop(db18, tmp_path))
    async with driven(seat.shop) as conductor:
        await steps_before(conductor, "fill")
    yield seat
    await seat.nobody_is_left()


@asynccontextmanager
async def aborting(seat: Seat, *options: str) -> AsyncIterator[Terminal]:
    """`dbwatch abort` in a terminal of its own."""
    command = dbwatch("abort", str(seat.shop.runbook), *options)
    async with terminal(command, columns=160, rows=60, env=seat.environment, cwd=seat.shop.folder) as screen:
        yield screen


async def test_the_name_and_the_persons_part_are_typed(seat: Seat) -> None:
    async with aborting(seat) as screen:
        await screen.until("to begin:", PATIENCE_S)
        screen.press(seat.shop.db.name, "enter")
        await screen.until("deploy has to be undone by a person now; done? Say how:", PATIENCE_S)
        screen.press("v0.7.0 is back", "enter")
        assert await screen.ended(PATIENCE_S) == Exit.OK
        assert "done in" in screen.text
        assert "v0.7.0 is back" in screen.text


@pytest.mark.parametrize(("key", "code"), [("ctrl+c", Exit.INTERRUPTED), (CTRL_D, Exit.REFUSED)])
async def test_at_the_first_prompt_one_can_leave_and_nothing_was_done(seat: Seat, key: str, code: Exit) -> None:
    after = await seat.shop.dump()
    async with aborting(seat) as screen:
        await screen.until("to begin:", PATIENCE_S)
        screen.press(key)
        assert await screen.ended(LEAVES_S) == code
        ended = "dbwatch: the input ended before the answer; say --confirm DBNAME"
        assert (ended in screen.text) == (key == CTRL_D)
    assert await seat.shop.dump() == after


@pytest.mark.parametrize("leave", ["ctrl+c", "SIGTERM", CTRL_D])
async def test_a_persons_part_that_is_waited_for_holds_nobody_and_the_abort_goes_on_later(
    seat: Seat, leave: str
) -> None:
    named = ("--confirm", seat.shop.db.name)
    async with aborting(seat, *named) as screen:
        await screen.until("deploy has to be undone by a person now; done? Say how:", PATIENCE_S)
        if leave == "SIGTERM":
            screen.signal(signal.SIGTERM)
        else:
            screen.press(leave)
        code = await screen.ended(LEAVES_S)
        assert code == (Exit.REFUSED if leave == CTRL_D else Exit.INTERRUPTED)
        ended = "dbwatch: the input ended before the answer; undo deploy, then dbwatch abort goes on with --done deploy"
        assert (ended in screen.text) == (leave == CTRL_D)
    await seat.nobody_is_left()
    back = await seat.run("abort", str(seat.shop.runbook), "--done", "deploy", *named)
    assert back.code == Exit.OK, back.out + back.err
    assert await seat.shop.heads() == ["9a20"]


@pytest.mark.parametrize("watched", [True, False], ids=["watched by the loop", "by a thread"])
async def test_a_line_is_read_as_the_terminal_edits_it_and_can_be_given_up(
    watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise PermissionError

    if not watched:
        monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", cannot)
    person, command = pty.openpty()
    try:
        given_up = asyncio.create_task(line_from(command))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait({given_up}, timeout=1.0)
        assert given_up.cancelled()
        os.write(person, b"shoo\x7fp\nmore\n")
        assert await asyncio.wait_for(line_from(command), 5.0) == b"shop\n"
        assert await asyncio.wait_for(line_from(command), 5.0) == b"more\n"
        os.write(person, CTRL_D.encode())
        assert await asyncio.wait_for(line_from(command), 5.0) == b""
    finally:
        os.close(person)
        os.close(command)


async def test_without_a_screen_what_nohup_ignores_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = Signals(screen=False)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        assert not signals.hung_up.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
