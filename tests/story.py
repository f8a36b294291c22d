"""A person at `dbwatch` in a terminal, and an eye of its own that checks what they are told.

What a person sees comes from the pty; what is true comes from psycopg, pg_dump and /proc, never from dbwatch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
from servers import Database, eventually
from terminal import Terminal, terminal
from windows import Shop

from dbwatch.journal import rows, schema
from dbwatch.journal.chain import Event, broken_link
from dbwatch.postgres.session import Role

WIDE = (140, 40)
PATIENCE_S = 40.0
"""For what a person would wait for; a loaded machine needs a multiple of what an idle one takes."""
LEAVES_S = 2.0 * 3
"""Within 2 s it has to be gone, on a machine that has nothing else to do."""
GIVES_BACK_S = 0.5 * 3
"""The same for the terminal."""
MARK = "DBWATCH_TEST_RUN"
_SHELL = '"$@"; echo "ended with $?"; stty -a | grep -oE -- "-?\\b(echo|icanon)\\b" | xargs echo terminal:'
"""A shell's part: dbwatch leaves, and what it left of the terminal is told."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where somebody sits: a shop, its runbook, and a mark by which all processes begun there are known."""

    shop: Shop
    mark: str

    @classmethod
    def at(cls, shop: Shop) -> Seat:
        """A seat at the runbook of *shop*."""
        return cls(shop, f"{MARK}={uuid4().hex}")

    @property
    def environment(self) -> dict[str, str]:
        """What dbwatch is given there."""
        name, _, value = self.mark.partition("=")
        state = str(self.shop.folder / "state")
        return {"SHOP_DSN": self.shop.db.dsn, "DBWATCH_ACTOR": "wei@bastion", "XDG_STATE_HOME": state, name: value}

    @asynccontextmanager
    async def screen(self, *options: str, size: tuple[int, int] = WIDE, shell: bool = False) -> AsyncIterator[Terminal]:
        """`dbwatch run` on a screen; with *shell* begun by one, which tells of the terminal when dbwatch has left."""
        command = dbwatch("run", str(self.shop.runbook), *options)
        started = ["sh", "-c", _SHELL, "sh", *command] if shell else command
        async with terminal(
            started, columns=size[0], rows=size[1], env=self.environment, cwd=self.shop.folder
        ) as there:
            yield there

    @asynccontextmanager
    async def started(self, *arguments: str) -> AsyncIterator[Headless]:
        """`dbwatch ...` without a terminal; it is killed if it is still there at the end."""
        process = await asyncio.create_subprocess_exec(
            *dbwatch(*arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.environment},
            cwd=self.shop.folder,
        )
        running = Headless(process)
        try:
            yield running
        finally:
            await running.end()

    async def run(self, *arguments: str) -> Ended:
        """`dbwatch ...` without a terminal, to its end."""
        async with self.started(*arguments) as running:
            return await running.ended()

    def processes(self) -> dict[int, str]:
        """Everything that runs and was begun here, however deep: pid and command line."""
        return {pid: line for pid, line in processes() if self.mark in environment_of(pid)}

    @property
    def driver(self) -> int:
        """The process id of the `dbwatch` that runs here."""
        [pid] = [pid for pid, line in self.processes().items() if line.startswith(" ".join(dbwatch("")))]
        return pid

    async def nobody_is_left(self, within: float = 10.0) -> None:
        """Waits until no process of this seat, and no backend of dbwatch's in its database, is left."""

        async def gone() -> bool:
            return not self.processes() and not await backends(self.shop.db)

        try:
            await eventually(gone, within=within)
        except AssertionError:
            left = f"left: {self.processes()}, {await backends(self.shop.db)}"
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(left) from None


def dbwatch(*arguments: str) -> list[str]:
    """The command line of `dbwatch ...`."""
    return [sys.executable, "-P", "-m", "dbwatch", *arguments]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


class Headless:
    """A command without a terminal. What it prints is read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._out: list[str] = []
        self._said = asyncio.Event()
        self._reading = asyncio.create_task(self._read())
        assert process.stderr is not None
        self._errors = asyncio.create_task(process.stderr.read())

    def kill(self, number: int) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    async def until(self, said: str, within: float = PATIENCE_S) -> None:
        """Waits until it has printed *said*."""
        async with asyncio.timeout(within):
            while not any(said in line for line in self._out):
                assert not self._reading.done(), f"it ended before it said {said!r}: {''.join(self._out)}"
                self._said.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._said.wait(), 0.2)

    async def ended(self, within: float = 60.0) -> Ended:
        """Waits for its end."""
        try:
            code = await asyncio.wait_for(self._process.wait(), within)
        except TimeoutError:
            raise AssertionError(f"still running after {within} s: {''.join(self._out)}") from None
        await self._reading
        return Ended(code, "".join(self._out), (await self._errors).decode())

    async def end(self) -> None:
        """Kills it if it is still there."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await asyncio.gather(self._reading, self._errors)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._out.append(line.decode())
            self._said.set()


# What a person does


async def sign_off(screen: Terminal, step: str, note: str) -> None:
    """Signs the next step off: `n`, a note, Enter."""
    await screen.until(f"n sign off {step}", PATIENCE_S)
    screen.press("n")
    await screen.until(f"Sign off {step}")
    screen.press(note, "enter")
    await screen.until(f"✓ {step}")


async def run_next(screen: Terminal, step: str, *, within: float = PATIENCE_S) -> None:
    """Runs the next step, a machine's, and waits until it is done."""
    await screen.until(f"n run {step}", PATIENCE_S)
    screen.press("n")
    await screen.until(f"✓ {step}", within)


async def steps_until(screen: Terminal, step: str) -> None:
    """Does the small shop's steps before *step*, each as a person would."""
    for name, persons in STEPS.items():
        if name == step:
            await screen.until(f"○ {step}")
            return
        await (sign_off(screen, name, "as it should be") if persons else run_next(screen, name))


async def leave_dialog(screen: Terminal) -> None:
    """Esc, and waits until the dialog is gone: what is typed at once after an Esc is Alt and a key."""
    screen.press("escape")
    await screen.until(lambda there: "Esc " not in there.text)


STEPS = {
    "preview": True, "add": False, "deploy": True, "fill": False, "complete": False, "same": False,
    "nobody": True, "drop": False,
}  # fmt: skip
"""The small shop's steps, and whether a person does them."""


async def seconds_to_leave(screen: Terminal, *, shell: bool = False) -> float:
    """How long it takes from now until dbwatch has left, with exit code 0."""
    began = time.monotonic()
    if shell:
        await screen.until("terminal:", LEAVES_S * 3)
        assert "ended with 0" in screen.text
    else:
        assert await screen.ended(LEAVES_S * 3) == 0
    return time.monotonic() - began


# What is true


def given_back(screen: Terminal) -> bool:
    """Whether the alternate screen, the hidden cursor, the mouse and bracketed paste were all taken back."""
    raw = bytes(screen.raw)

    def last(mode: str) -> bool:
        return raw.rfind(f"\x1b[?{mode}l".encode()) >= raw.rfind(f"\x1b[?{mode}h".encode())

    shown = raw.rfind(b"\x1b[?25h") > raw.rfind(b"\x1b[?25l")
    return b"\x1b[?1049h" in raw and shown and all(last(mode) for mode in ("1049", "1000", "1003", "2004"))


async def backends(db: Database) -> list[tuple[int, str]]:
    """The sessions of dbwatch's in this database, by an eye that is none of them; none while the server is away."""
    try:
        found = await db.sql(
            "SELECT pid, application_name FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'dbwatch%' ORDER BY pid"
        )
    except psycopg.OperationalError:
        return []
    return [(int(pid), str(name)) for pid, name in found]


async def backend(db: Database, role: str, within: float = PATIENCE_S) -> int:
    """The pid of the session in *role* (`monitor`, `worker`, `migrate`), once it is there."""
    pids: list[int] = []

    async def there() -> bool:
        pids[:] = [pid for pid, name in await backends(db) if name.startswith(f"dbwatch {role}")]
        return bool(pids)

    await eventually(there, within=within)
    return pids[0]


async def journal(db: Database) -> list[Event]:
    """The last window's events as the table has them; the chain has to be whole."""
    session = await db.connector.open(Role.JOURNAL)
    try:
        row = await rows.find_last(session) if await schema.present(session) else None
        events = await rows.read_events(session, row.id) if row is not None else []
    finally:
        await session.close()
    assert broken_link(events) is None
    return events


async def column(db: Database, query: str) -> list[object]:
    """The first column of what *query* gives."""
    return [row[0] for row in await db.sql(query)]


def processes() -> Iterator[tuple[int, str]]:
    """Every process: its pid and its command line."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def environment_of(pid: int) -> str:
    """What the process was given at its start; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""
