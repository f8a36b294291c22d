"""One child process, from its start to its reaping."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

from dbwatch.migration.forked import Forked, Spawn, spawn
from dbwatch.migration.request import Ask
from dbwatch.migration.wire import Answer, decode
from dbwatch.text import one_line

_LONGEST = 64 * 1024 * 1024
"""Bytes of the longest answer: a preview's statement."""

_REAP_S = 5.0
_LEAVE_S = 1.5
"""What a child gets, whose control pipe was closed, to cancel its backends before it is killed."""


class Child:
    """A running child. Use it as a context: leaving it ends the process, whatever state it is in, and reaps it."""

    def __init__(self, process: Forked, answers: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self._process = process
        self._answers = answers
        self._transport = transport
        self._said = asyncio.ensure_future(self._read_said())

    @classmethod
    async def start(cls, ask: Ask, spawn: Spawn = spawn) -> Child:
        """Starts a child and sends it its request. Raises OSError where none can be started."""
        read, write = os.pipe()
        try:
            process = await spawn(write)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        reader = asyncio.StreamReader(limit=_LONGEST)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb")
        )
        child = cls(process, reader, transport)
        process.write(ask.to_json().encode())
        return child

    async def __aenter__(self) -> Child:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.leave()
        try:
            await asyncio.wait_for(self._process.wait(), _LEAVE_S)
        except TimeoutError:
            pass
        finally:  # cancelled here too
            self.kill()
        with contextlib.suppress(TimeoutError):  # in an uninterruptible wait of the kernel's: nobody can reap it now
            await asyncio.wait_for(self._process.wait(), _REAP_S)
        self._transport.close()
        self._process.close()
        self._said.cancel()
        await asyncio.wait({self._said})

    @property
    def pid(self) -> int:
        """The process, not its backend."""
        return self._process.pid

    async def answers(self) -> AsyncIterator[Answer]:
        """What the child says, until it ends. Raises Garbled."""
        while line := await self._answers.readline():
            yield decode(line)

    async def ended(self) -> str:
        """Waits for the end of the process; how it ended, for a person."""
        code = await self._process.wait()
        said = await self._said
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return how + (f": {said}" if said else "")

    def pull(self) -> None:
        """Tells the child to start no statement and commit nothing more."""
        self._process.write(b"stop")

    def acknowledge(self, receipt: int) -> None:
        """Tells the child that what it told under *receipt*, and all before, is kept."""
        self._process.write(b"kept %d" % receipt)

    def interrupt(self) -> None:
        """SIGINT: psycopg cancels its statement, Python unwinds."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to the child and to whatever it started. Its backend may run on: end that first."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                try:
                    os.killpg(self._process.pid, signal.SIGKILL)
                except ProcessLookupError:  # it was born this very moment
                    os.kill(self._process.pid, signal.SIGKILL)

    async def _read_said(self) -> str:
        """The last line of what came out before the child took its own output over: a broken interpreter's words."""
        last = b""
        async for line in self._process.stdout:
            last = line or last
        return one_line(last.decode(errors="replace"), 300)
