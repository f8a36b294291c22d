"""The application: half SELECT, half UPDATE by id, eight clients, at a stated rate whatever the answers do.

pgbench sends it: at the rates in question a client in Python would take a core from the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench_backfill.values import App, percentile

CLIENTS = 8
LONGEST_S = 24 * 3600
_SELECT = "\\set id random(1, :rows)\nSELECT email, phone FROM users WHERE id = :id;\n"
_UPDATE = "\\set id random(1, :rows)\nUPDATE users SET touched = touched + 1 WHERE id = :id;\n"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was answered; seconds since the epoch."""

    due: float
    answered: float


class Load:
    """pgbench, and what its log says."""

    def __init__(self, pgbench: Path, dsn: str, rows: int, folder: Path) -> None:
        self._pgbench = pgbench
        self._dsn = dsn
        self._rows = rows
        self._folder = folder

    async def capacity(self, seconds: float) -> float:
        """Transactions a second that it gets when nobody else is there and every answer is followed by a request."""
        process = await self._start("-T", str(max(1, round(seconds))))
        said, _ = await asyncio.wait_for(process.communicate(), seconds + 60)
        found = re.search(rb"tps = ([\d.]+)", said)
        if process.returncode or not found:
            raise RuntimeError(f"pgbench failed: {said.decode(errors='replace')[-500:]}")
        return float(found[1])

    @asynccontextmanager
    async def at(self, tps: float, seed: int) -> AsyncIterator[list[Request]]:
        """Sends *tps* requests a second while in the context; the list is filled at its end."""
        for old in self._folder.glob("requests.*"):
            old.unlink()
        rate = ("-R", f"{tps:.1f}", "-T", str(LONGEST_S), f"--random-seed={seed}")
        log = ("--log", f"--log-prefix={self._folder / 'requests'}")
        process = await self._start(*rate, *log)
        requests: list[Request] = []
        try:
            await asyncio.sleep(1.0)  # its clients connect and prepare
            if process.returncode is not None:
                said, _ = await process.communicate()
                raise RuntimeError(f"pgbench failed: {said.decode(errors='replace')[-500:]}")
            yield requests
            process.send_signal(signal.SIGALRM)  # what ends -T: it answers what is under way, and writes its log
            await asyncio.wait_for(process.communicate(), 120)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        for file in self._folder.glob("requests.*"):
            requests.extend(parsed(file.read_text().splitlines()))

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        scripts = [self._folder / "select.sql", self._folder / "update.sql"]
        for script, text in zip(scripts, (_SELECT, _UPDATE), strict=True):
            script.write_text(text)
        mixed = [part for script in scripts for part in ("-f", str(script))]
        return await asyncio.create_subprocess_exec(
            str(self._pgbench), "-n", "-c", str(CLIENTS), "-j", "1", "-M", "prepared", "-D", f"rows={self._rows}",
            *mixed, *arguments, self._dsn,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip


def parsed(lines: Iterable[str]) -> list[Request]:
    """The requests of a log: client, number, microseconds since it fell due, script, instant of the answer."""
    requests = []
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[2].isdigit():
            answered = int(fields[4]) + int(fields[5]) / 1e6
            requests.append(Request(answered - int(fields[2]) / 1e6, answered))
    return requests


def felt(requests: Sequence[Request], tps: float, began: float, ended: float) -> App | None:
    """What the application felt between two instants; None where it was never answered. Pure.

    Requests are taken in the order in which they fall due: after the last one that was taken, those of the time
    since then are still waiting.
    """
    taken = sorted((request for request in requests if began <= request.due <= ended), key=lambda request: request.due)
    if not taken:
        return None
    waiting = max(0, int(tps * (ended - taken[-1].due)) - 1)
    waits = sorted((request.answered - request.due) * 1000 for request in taken)
    return App(
        tps,
        len(taken) + waiting,
        sum(request.answered <= ended for request in taken),
        percentile(waits, 0.5),
        percentile(waits, 0.99),
        waits[-1],
    )


def now() -> float:
    """The clock of pgbench's log."""
    return time.time()
