"""The signals that end a command, as events of its loop; a terminal that goes away is one of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable


class Signals:
    """SIGTERM, SIGINT and SIGHUP as events of the loop; without a *screen* not what nohup has us ignore."""

    def __init__(self, *, screen: bool = True) -> None:
        self.ended = asyncio.Event()
        """SIGTERM or SIGINT came."""
        self.hung_up = asyncio.Event()
        """SIGHUP came: the terminal is gone."""
        self._on_change: list[Callable[[], None]] = []
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._set, self.ended)
        loop.add_signal_handler(signal.SIGINT, self._set, self.ended)
        if screen or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self._set, self.hung_up)

    def then(self, act: Callable[[], None]) -> None:
        """Calls *act* at the next signal, and at each after it."""
        self._on_change.append(act)

    def _set(self, event: asyncio.Event) -> None:
        event.set()
        if event is self.hung_up:
            let_go_of_terminal()
        for act in self._on_change:
            act()

    async def wait(self) -> None:
        """Until any of them comes."""
        waiting = [asyncio.ensure_future(e.wait()) for e in (self.ended, self.hung_up)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()


def let_go_of_terminal() -> None:
    """Points the standard streams at nothing: writing to a terminal that is gone would be an error."""
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.close(nothing)
