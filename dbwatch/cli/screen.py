"""Runs the screens as a guest of our own loop: signals end them, and the terminal is given back in time."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from textual.drivers.linux_driver import LinuxDriver

from dbwatch.cli.signals import Signals
from dbwatch.errors import UsageError
from dbwatch.tui.app import DbwatchApp
from dbwatch.tui.terminal import SMALLEST


def require_terminal() -> None:
    """Raises UsageError where there is no terminal, one too small to tell anything, or one that cannot place text."""
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError("the screen needs a terminal", next="use --headless, snapshot or status without one")
    kind = os.environ.get("TERM", "")
    if kind in ("dumb", "unknown"):
        raise UsageError(
            f"the screen needs more than TERM={kind}", next="set TERM to what this terminal is, or use --headless"
        )
    columns, rows = shutil.get_terminal_size()
    if columns < SMALLEST[0] or rows < SMALLEST[1]:
        need = f"{SMALLEST[0]}x{SMALLEST[1]}"
        raise UsageError(f"the terminal is {columns}x{rows}", why=f"the screen needs {need}", next="make it larger")


async def show(app: DbwatchApp, signals: Signals) -> int:
    """Shows *app* until it ends or a signal ends it; its exit code (1 where it crashed)."""
    signals.then(app.exit)
    if signals.ended.is_set() or signals.hung_up.is_set():
        return 0
    if app.driver_class is LinuxDriver:
        app.driver_class = _Terminal
    try:
        await app.run_async()
    finally:
        for number in (signal.SIGTSTP, signal.SIGCONT):
            signal.signal(number, signal.SIG_DFL)
    return app.return_code or 0


class _Terminal(LinuxDriver):
    """Takes the terminal back at a SIGCONT only where it gave it away at a SIGTSTP before.

    A terminal that goes away sends SIGHUP and then SIGCONT. Textual would open its input anew then, on a terminal that
    is gone, in a thread that nobody ends: the process would stay, and take a whole core. So it is from the moment on
    at which the terminal is ours: a line may drop while the first screen is painted.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        pause, go_on = signal.getsignal(signal.SIGTSTP), signal.getsignal(signal.SIGCONT)
        if callable(pause) and callable(go_on):
            _go_on_only_after_a_pause(pause, go_on)


_Handler = Callable[[int, FrameType | None], Any]


def _go_on_only_after_a_pause(pause: _Handler, go_on: _Handler) -> None:
    paused = False

    def on_pause(number: int, frame: FrameType | None) -> None:
        nonlocal paused
        paused = True
        pause(number, frame)

    def on_continue(number: int, frame: FrameType | None) -> None:
        nonlocal paused
        if paused:
            paused = False
            go_on(number, frame)

    signal.signal(signal.SIGTSTP, on_pause)
    signal.signal(signal.SIGCONT, on_continue)
