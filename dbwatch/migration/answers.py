"""The child's side of the wire: answers as JSON lines, on a descriptor of their own, that never make it wait.

A parent that stands still (a stopped terminal) must not make a migration stand still while it holds locks. So a line
is written at once where the pipe takes it, and by a thread later where it does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

_FOR_THE_EYE = frozenset({"text", "sql", "message", "statement", "trouble"})

_BACKLOG = 10_000
"""Lines kept for a parent that does not read; past it, those that nobody needs for a decision are dropped."""


def line(event: Any, secrets: Iterable[str] = ()) -> bytes:
    """*event*, a dataclass, as one line of JSON: its fields and, under `event`, the name of its class.

    In the fields that are meant for a person's eye, however deep, each of *secrets* is blotted out.
    """
    assert is_dataclass(event)
    assert not isinstance(event, type)
    body = {"event": type(event).__name__, **_blotted(asdict(event), tuple(secrets))}
    return json.dumps(body, default=_plain, separators=(",", ":")).encode() + b"\n"


def _blotted(value: Any, secrets: tuple[str, ...], field: str = "") -> Any:
    match value:
        case dict():
            return {name: _blotted(part, secrets, name) for name, part in value.items()}
        case list() | tuple():
            return [_blotted(part, secrets, field) for part in value]
        case str() if field in _FOR_THE_EYE:
            for secret in secrets:
                value = value.replace(secret, "***")
    return value


def _plain(value: object) -> Any:
    match value:
        case frozenset() | set():
            return sorted(value)
        case datetime():
            return value.isoformat()
        case Enum():
            return value.value
    raise TypeError(f"{type(value).__name__} has no place in an answer")


class Answers:
    """Writes events to *fd*. Safe from any thread."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._backlog: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._gone = False
        self._secrets: frozenset[str] = frozenset()
        threading.Thread(target=self._drain, name="answers", daemon=True).start()

    def hide(self, secrets: frozenset[str]) -> None:
        """From now on blots *secrets* out of texts."""
        self._secrets = secrets

    def send(self, event: Any, *, droppable: bool = False) -> None:
        """Writes *event*, now or as soon as the parent reads; never waits."""
        if droppable and len(self._backlog) >= _BACKLOG:
            return
        with self._lock:
            self._backlog.append(line(event, self._secrets))
            self._write()
            if self._backlog:
                self._wake.set()

    def flush(self, within: float) -> None:
        """Waits until all is written, at most so many seconds."""
        until = time.monotonic() + within
        while self._backlog and not self._gone and time.monotonic() < until:
            time.sleep(0.01)

    def _write(self) -> None:
        """Writes what the pipe takes; the lock is held."""
        try:
            while self._backlog:
                written = os.write(self._fd, self._backlog[0])
                if written < len(self._backlog[0]):
                    self._backlog[0] = self._backlog[0][written:]
                else:
                    self._backlog.popleft()
        except BlockingIOError:
            return
        except OSError:  # the parent is gone; the leash sees to what follows
            self._gone = True
            self._backlog.clear()

    def _drain(self) -> None:
        while self._wake.wait():
            with contextlib.suppress(OSError):
                select.select([], [self._fd], [])
            with self._lock:
                self._write()
                if not self._backlog:
                    self._wake.clear()
