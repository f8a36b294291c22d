"""Door: drives a window from the screens."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from dbwatch.cli.actor import who
from dbwatch.cli.output import tell
from dbwatch.cli.screen import require_terminal, show
from dbwatch.cli.signals import Signals
from dbwatch.clock import SystemClock
from dbwatch.journal.mirror import state_folder
from dbwatch.runbook.loader import LoadedRunbook, load
from dbwatch.tui.app import DbwatchApp
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.ground import Ground
from dbwatch.window.intents import Note
from dbwatch.window.opening import Wish, join


def main(runbook: Path, *, amend: bool, take_over: str, actor: str, folder: Path | None) -> int:
    """Runs the window; its exit code. Raises DbwatchError where it cannot be entered."""
    require_terminal()
    book = load(runbook, os.environ)
    return asyncio.run(on_screen(book, Wish(who(actor), folder or state_folder(), amend=amend, take_over=take_over)))


async def on_screen(book: LoadedRunbook, wish: Wish, *, lonely: bool = True, note: str = "") -> int:
    """Drives from the screens. *lonely*: without a terminal the step that runs is finished before we leave.

    *note* is the journal's first line for whoever sits there.
    """
    signals = Signals()
    ground = await join(book, SystemClock(), wish, tell)
    return await sit(ground, signals, lonely=lonely, note=note)


async def sit(ground: Ground, signals: Signals, *, lonely: bool = True, note: str = "") -> int:
    """Shows the screens of a place at a window, the driver's or a navigator's, until one leaves it."""
    async with driving(ground) as conductor:
        if note:
            await conductor.submit(Note(note))
        code = await show(DbwatchApp(conductor.feed(), conductor), signals)
        if signals.hung_up.is_set() and lonely and not signals.ended.is_set():
            await _finish(conductor, signals)
    return code


async def _finish(conductor: Conductor, signals: Signals) -> None:
    """The terminal is gone: what runs goes on to its end, to a SIGTERM, or to where it needs a person."""
    feed = conductor.feed()
    ending = asyncio.create_task(signals.ended.wait())
    while conductor.work.under_way and not conductor.awaited and not ending.done():
        changing = asyncio.create_task(feed.next())
        await asyncio.wait({ending, changing}, return_when=asyncio.FIRST_COMPLETED)
        changing.cancel()
    ending.cancel()
