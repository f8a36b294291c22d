"""The child's control pipe: one request comes in on it, then `stop`, or its end, which means that the parent died.

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
        self._done = threading.Event()
        self.orphaned = False

    @property
    def pulled(self) -> bool:
        """We were asked to stop, or the parent is dead: start no statement and commit nothing more."""
        return self._pulled.is_set()

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
            if said.strip() == b"stop":
                self._pulled.set()
        self.orphaned = True
        self._pulled.set()
        for seconds in _ROUNDS_S:
            cancel(False)
            if self._done.wait(seconds):
                time.sleep(seconds)  # the interpreter is on its way out; a hanging atexit gets no more than this
                os._exit(1)
        cancel(True)
        os._exit(1)
