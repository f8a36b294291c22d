"""Our side of the nursery (nursery.py): how a process for Alembic is started, and what is known of it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable

from dbwatch.migration.request import ONE_MORE
from dbwatch.text import one_line

_BIRTH_S = 20.0
"""How long the first child may take to start: on a machine that is busy importing Alembic takes some seconds."""


class Forked(asyncio.Protocol):
    """A process of the nursery's: what asyncio's own has, where we use it. Its minder writes how it does."""

    def __init__(self) -> None:
        self.pid = 0
        self.stdout = asyncio.StreamReader()
        self.returncode: int | None = None
        """As in subprocess; -SIGKILL where nobody could tell."""
        self._said = b""
        self._born, self._ended = asyncio.Event(), asyncio.Event()
        self._stdin: asyncio.WriteTransport | None = None
        self._transports: list[asyncio.BaseTransport] = []

    async def connect(self, stdin: int, stdout: int, status: int) -> None:
        """Takes our ends of its pipes."""
        loop = asyncio.get_running_loop()
        self._stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(stdin, "wb", 0))
        output, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.stdout), os.fdopen(stdout, "rb")
        )
        told, _ = await loop.connect_read_pipe(lambda: self, os.fdopen(status, "rb"))
        self._transports = [self._stdin, output, told]

    def write(self, line: bytes) -> None:
        """A line to its standard input; lost where that is closed."""
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(line + b"\n")

    def leave(self) -> None:
        """Closes its standard input."""
        if self._stdin is not None:
            self._stdin.close()

    def close(self) -> None:
        """Closes all pipes."""
        for transport in self._transports:
            transport.close()

    def data_received(self, data: bytes) -> None:
        self._said += data
        *lines, _ = self._said.split(b"\n")
        if lines:
            self.pid = int(lines[0])
            self._born.set()
        if len(lines) > 1:
            self.returncode = int(lines[1])

    def connection_lost(self, exc: Exception | None) -> None:
        if self.returncode is None:
            self.returncode = -signal.SIGKILL
        self._born.set()
        self._ended.set()

    async def born(self) -> None:
        """Waits until it runs, or nobody is there who could start it: then it has no *pid*. Raises OSError."""
        try:
            await asyncio.wait_for(self._born.wait(), _BIRTH_S)
        except TimeoutError as error:
            raise OSError(f"it did not start within {_BIRTH_S:g} s") from error

    async def wait(self) -> int:
        """Waits for its end; its exit code."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To it alone. Raises ProcessLookupError."""
        if self.returncode is None:
            os.kill(self.pid, number)


class Nursery:
    """The process that our children come from (nursery.py): started with the first, gone when we are."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def open(self) -> None:
        """Starts it where it does not run, without waiting until it is ready. Raises OSError."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dbwatch.migration.nursery", str(its.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # as a child's is: Python asks only once what kind of file that is
                stderr=subprocess.STDOUT,
                pass_fds=(its.fileno(),),
                start_new_session=True,  # a Ctrl-C at the terminal is for us
            )
        self._channel = ours
        atexit.register(self.close)

    def close(self) -> None:
        """Ends and reaps it. May be called more than once."""
        atexit.unregister(self.close)
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()  # it holds nothing
            if self._process.stdout is not None:
                self._process.stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):  # in an uninterruptible wait of the kernel's
                self._process.wait(1.0)
        self._process = self._channel = None

    async def spawn(self, answer_fd: int) -> Forked:
        """A child of it; of a new one, where somebody killed it. Raises OSError where none can be started."""
        try:
            return await self._spawn(answer_fd)
        except OSError:
            self.close()
            return await self._spawn(answer_fd)

    async def _spawn(self, answer_fd: int) -> Forked:
        self.open()
        assert self._channel is not None
        (its_stdin, stdin), (stdout, its_output), (status, its_status) = [os.pipe() for _ in range(3)]
        try:
            try:
                socket.send_fds(self._channel, [ONE_MORE], [its_stdin, its_output, answer_fd, its_status])
            finally:
                for descriptor in (its_stdin, its_output, its_status):
                    os.close(descriptor)
        except OSError as error:
            for descriptor in (stdin, stdout, status):
                os.close(descriptor)
            raise await self._ended() from error
        forked = Forked()
        await forked.connect(stdin, stdout, status)
        forked.write(json.dumps(dict(os.environ)).encode())
        try:
            await forked.born()
        except BaseException:
            forked.close()
            raise
        if not forked.pid:
            forked.close()
            raise await self._ended()
        return forked

    async def _ended(self) -> OSError:
        """That it has ended, with its last words."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            await asyncio.to_thread(process.wait, 1.0)
        except subprocess.TimeoutExpired:
            return OSError("the process that starts it does not take a request")
        lines = process.stdout.read().decode(errors="replace").splitlines()
        said = one_line(lines[-1], 300) if lines else f"exit code {process.returncode}"
        return OSError(f"the process that starts it ended: {said}")


Spawn = Callable[[int], Awaitable[Forked]]
"""Starts the child, which gets the given descriptor for its answers."""

nursery = Nursery()
"""Of this process."""
spawn = nursery.spawn
