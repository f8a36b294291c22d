"""The child's control pipe: one request comes in on it, then receipts for what the parent has kept, and `stop`, or
its end, which means that the parent died.

A child whose parent died cancels its backends (a dead client does not stop a running statement by itself), gives
Alembic a moment to roll back, then terminates them, and leaves, whatever env.py thinks of that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

Cancel = Callable[[bool], None]
"""Cancels our own backends; with True, terminates them. Takes at most some seconds; raises nothing."""

_ROUNDS_S = (1.0, 1.0)
"""How long each of the cancels gets before the next; after the last come terminate and exit."""


class Leash:
    """Watches the control pipe from a thread of its own."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._pulled = threading.Event()
        self._kept = 0
        self._news = threading.Condition()
        self._done = threading.Event()
        self.orphaned = False

    @property
    def pulled(self) -> bool:
        """We were asked to stop, or the parent is dead: start no statement and commit nothing more."""
        return self._pulled.is_set()

    def wait_kept(self, receipt: int, within: float | None = None) -> bool:
        """Waits until the parent has kept what we told under *receipt*, we are pulled, or so many seconds have passed.

        Whether it is kept.
        """
        with self._news:
            self._news.wait_for(lambda: self._kept >= receipt or self.pulled, within)
            return self._kept >= receipt

    def request(self) -> bytes:
        """The first line. Empty where the parent died before it wrote one."""
        return self._pipe.readline()

    def watch(self, cancel: Cancel) -> None:
        """From now on obeys the pipe; *cancel* reaches the backends that are ours at that moment."""
        threading.Thread(target=self._obey, args=(cancel,), name="leash", daemon=True).start()

    def done(self) -> None:
        """The work is over: what comes now on the pipe does not matter any more."""
        self._done.set()

    def _obey(self, cancel: Cancel) -> None:
        while said := self._pipe.readline():
            match said.split():
                case [b"stop"]:
                    self._pull()
                case [b"kept", receipt]:
                    with self._news:
                        self._kept = max(self._kept, int(receipt))
                        self._news.notify_all()
        self.orphaned = True
        self._pull()
        for seconds in _ROUNDS_S:
            cancel(False)
            if self._done.wait(seconds):
                time.sleep(seconds)  # the interpreter is on its way out; a hanging atexit gets no more than this
                os._exit(1)
        cancel(True)
        os._exit(1)

    def _pull(self) -> None:
        with self._news:
            self._pulled.set()
            self._news.notify_all()
