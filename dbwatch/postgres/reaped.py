"""Processes and a folder that end when we do, whatever ends us: our side of the conversation with a reaper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any, Self, TypeVar

from dbwatch.errors import DbwatchError
from dbwatch.text import one_line

_LONGEST_SOCKET_FOLDER = 70
"""Characters; the whole path of a Unix socket must stay below 104 (macOS) or 108 (Linux)."""
_ANSWER_S = 10.0
"""How long the reaper may take to start, or to start something."""
_CLEAN_UP_S = 20.0
"""How long it may take to stop everything and remove the folder; by its own deadlines at most 14 s."""

T = TypeVar("T")


class Child:
    """A process of the reaper's."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Becomes its exit code; a negative one is a signal's number."""


class Reaped:
    """What we started through a reaper (reaper.py).

    Deliberately not an asyncio subprocess: when a loop dies early, that one kills its child, and here the
    child is what cleans up. A pipe that ends is all that it waits for, and that happens in every case.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self._process = process
        self._to = process.stdin
        self._children: dict[int, Child] = {}
        self._answers: deque[asyncio.Future[Child | None]] = deque()
        self._folder: asyncio.Future[Path] = asyncio.get_running_loop().create_future()
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, user: str | None) -> Self:
        """A new reaper with a new folder, whose processes run as *user* where that is not ourselves.

        Raises DbwatchError where it does not come up.
        """
        parent = _temporary_folder(private=user is None)
        argv = [sys.executable, "-P", "-m", "dbwatch.postgres.reaper", str(parent), *([user] if user else [])]
        process = subprocess.Popen(  # noqa: ASYNC220 - see the class; it returns after a fork
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it must not hold the terminal open
            start_new_session=True,
        )
        reaped = cls(process)
        reaped._listening = asyncio.create_task(reaped._listen())
        await reaped._answer(reaped._folder)
        return reaped

    @property
    def folder(self) -> Path:
        """The folder: its `pg` belongs to the processes' user, the rest of it to us."""
        return self._folder.result()

    async def spawn(self, argv: list[str], log: Path) -> Child:
        """Starts a process, whose output goes to the end of *log*. Raises DbwatchError where it does not start."""
        child = await self._ask({"spawn": argv, "log": str(log)})
        assert child is not None
        return child

    async def signal(self, pid: int, number: int) -> None:
        """Sends a signal to a process of ours; nothing happens where it has ended. Raises DbwatchError."""
        await self._ask({"signal": int(number), "pid": pid})

    async def crash(self, pid: int) -> None:
        """Kills a server and its backends with SIGKILL; none is left on return. Raises DbwatchError."""
        await self._ask({"crash": pid})

    async def close(self) -> None:
        """Has everything stopped and removed, and waits for that. May be called more than once."""
        with contextlib.suppress(BrokenPipeError):
            self._to.close()
        if self._listening:
            await asyncio.wait({self._listening}, timeout=_CLEAN_UP_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, 1.0)
        if self._process.returncode == -signal.SIGKILL:
            await asyncio.to_thread(self._clean_up_ourselves)

    def _clean_up_ourselves(self) -> None:
        """Somebody killed the reaper: what it started is an orphan now."""
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGQUIT)
        if self._folder.done() and not self._folder.exception():
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _answer(self, answer: asyncio.Future[T]) -> T:
        done, _ = await asyncio.wait({answer}, timeout=_ANSWER_S)
        if not done:
            raise DbwatchError("the embedded server's reaper does not answer", why=f"it had {_ANSWER_S:g} s")
        return answer.result()

    async def _ask(self, request: dict[str, Any]) -> Child | None:
        answer: asyncio.Future[Child | None] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        try:
            self._to.write(json.dumps(request).encode() + b"\n")
            self._to.flush()
        except (BrokenPipeError, ValueError) as error:
            raise _gone() from error
        return await self._answer(answer)

    async def _listen(self) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        try:
            while line := await reader.readline():
                self._heard(json.loads(line))
        finally:
            transport.close()
            waiting: list[asyncio.Future[Any]] = [self._folder, *self._answers]
            for answer in waiting:
                if not answer.done():
                    answer.set_exception(_gone())
                    answer.exception()  # read, so that asyncio does not complain where nobody waits any more
            for child in self._children.values():
                if not child.ended.done():
                    child.ended.set_result(-signal.SIGKILL)

    def _heard(self, message: dict[str, Any]) -> None:
        if "folder" in message:
            self._folder.set_result(Path(message["folder"]))
        elif "failed" in message:
            self._folder.set_exception(
                DbwatchError("no folder for the embedded server", why=one_line(message["failed"], 300))
            )
        elif "spawned" in message:
            child = self._children[message["spawned"]] = Child(message["spawned"])
            self._answers.popleft().set_result(child)
        elif "done" in message:
            self._answers.popleft().set_result(None)
        elif "refused" in message:
            self._answers.popleft().set_exception(
                DbwatchError("a server program did not start", why=one_line(message["refused"], 300))
            )
        elif "ended" in message:
            self._children.pop(message["ended"]).ended.set_result(message["code"])


def _gone() -> DbwatchError:
    return DbwatchError("the embedded server is gone", why="its reaper has ended")


def _temporary_folder(*, private: bool) -> Path:
    """Where to make the folder: short enough for a socket's path and, not *private*, open to the server's user."""
    usual = Path(tempfile.gettempdir()).resolve()
    fits = len(str(usual)) <= _LONGEST_SOCKET_FOLDER and (private or open_to_all(usual))
    return usual if fits else Path("/tmp").resolve()


def open_to_all(path: Path) -> bool:
    """Whether every user may enter all the folders above *path*, and enter or run it."""
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))
