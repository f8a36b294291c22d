"""The referee's end of a player: starts one, tells it what to do, stops it, kills it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from campaign.player import Part

TESTS = Path(__file__).resolve().parent.parent
MARK = "DBWATCH_CAMPAIGN"
"""In the environment of every process of a window, however deep."""


class Seat:
    """A player's process. It may be gone at any time; nothing here minds."""

    def __init__(self, part: Part, process: asyncio.subprocess.Process) -> None:
        self.part = part
        self.entered: dict[str, Any] = {}
        """What it said when it came in, or why it did not."""
        self.stopped = False
        self.raised: list[str] = []
        """What `submit` raised, which it never may."""
        self._process = process
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._inside: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def take(cls, part: Part, mark: str, log: Path) -> Seat:
        """Starts the player; `inside` tells when it is in."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "campaign.player",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": str(TESTS), MARK: mark},
                cwd=TESTS,
            )
        seat = cls(part, process)
        seat._write(part.to_json())
        return seat

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def sits(self) -> bool:
        """Whether it came in and is there."""
        return self.alive and bool(self.entered.get("in"))

    async def inside(self, within: float) -> bool:
        """Waits until it is in; False where it is not let in, or does not come in that time."""
        await asyncio.wait({self._inside}, timeout=within)
        return self.sits

    async def do(self, what: str, within: float = 12.0, **more: object) -> dict[str, Any]:
        """One thing that the person does; the answer, or `{"gone": True}` where none came."""
        if not self.alive:
            return {"gone": True}
        self._number += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = answer
        self._write(json.dumps({"id": self._number, "do": what, **more}))
        await asyncio.wait({answer}, timeout=within)
        return answer.result() if answer.done() else {"gone": True, "silent": True}

    def kill(self) -> None:
        """kill -9."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def stop(self) -> None:
        """SIGSTOP: it sleeps."""
        self.stopped = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self.stopped = False
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)

    async def leave(self, within: float = 6.0) -> float:
        """`q`; how long it took, in seconds. It is killed where it takes longer than *within*."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self.alive:
            self._write(json.dumps({"id": 0, "do": "leave"}))
        await self.gone(within)
        return loop.time() - began

    async def gone(self, within: float = 5.0) -> None:
        """Waits until the process has ended; kills it where it does not."""
        try:
            await asyncio.wait_for(asyncio.shield(self._process.wait()), within)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await self._reading

    def _write(self, line: str) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line.encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "in" in said:
                self.entered = said
                self._inside.set_result(None)
            elif said.get("id") in self._answers:
                if said.get("raised"):
                    self.raised.append(said["text"])
                answer = self._answers.pop(said["id"])
                if not answer.done():
                    answer.set_result(said)
        for answer in (*self._answers.values(), self._inside):
            if not answer.done():
                answer.set_result({"gone": True} if answer is not self._inside else None)  # type: ignore[arg-type]  # two kinds
