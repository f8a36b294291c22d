"""The referee's end of a process that fills: it is started, told to stop, killed, and its last words are read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from faults.worker import VERSION

TESTS = Path(__file__).resolve().parent.parent


class Filler:
    """One process. It may be gone at any time."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self.name = name
        self.last: dict[str, Any] = {}
        """Its newest line."""
        self.under_way = asyncio.Event()
        """Set once it tells of a batch, or has ended."""
        self.complaint = b""
        """What it wrote to standard error."""
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, name: str, dsn: str, options: list[str], version: str) -> Filler:
        """`dbwatch backfill DSN OPTIONS`, as *version* of the engine."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faults.worker", "backfill", dsn, "--json", *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), VERSION: version},
            cwd=TESTS,
        )
        return cls(process, name)

    @property
    def alive(self) -> bool:
        return not self._reading.done()

    @property
    def code(self) -> int | None:
        """Its exit code; a negative one is a signal's number."""
        return self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal; nothing happens where it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self, within: float) -> bool:
        """Waits until it is gone; False where it is not in that time."""
        await asyncio.wait({self._reading}, timeout=within)
        return self._reading.done()

    async def begun(self, within: float) -> None:
        """Waits until it fills, or is gone, or the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.under_way.wait(), within)

    async def kill(self) -> None:
        """kill -9; returns when it is gone."""
        self.signal(signal.SIGKILL)
        await asyncio.wait({self._reading})

    async def _read(self) -> None:
        await asyncio.gather(self._listen(), self._complaints())
        await self._process.wait()
        self.under_way.set()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # a line that a kill cut off
                self.last = json.loads(line)
            if self.last.get("batches"):
                self.under_way.set()

    async def _complaints(self) -> None:
        assert self._process.stderr is not None
        self.complaint = await self._process.stderr.read()
