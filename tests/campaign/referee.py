"""What happens in one window, from its seed alone; and in the end somebody fresh brings it to its close.

A seed fixes the order of what is tried. The clocks of two processes and a server are their own, so that a seed that
failed fails often and not always: the log says what was done, and when.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from proxy import FaultProxy

from campaign import oracles
from campaign.moves import MOVES
from campaign.oracles import Found, Line
from campaign.player import Part
from campaign.scene import Flavour, Scene, Stage
from campaign.seat import MARK, Seat
from dbwatch.clock import SystemClock
from dbwatch.journal.fold import StepStatus
from dbwatch.migration import fingerprint
from dbwatch.window.rollback import STOP_S

TO_THE_END_S = 120.0
"""How long somebody fresh may need to bring any window to its close."""
IN_S = 25.0
"""How long coming in may take: an old driver's sessions are ended and waited for."""
PEOPLE = ("wei@a", "lin@b")


@dataclass(slots=True)
class Result:
    """What became of one window."""

    seed: str
    outcome: str = ""
    operations: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    events: int = 0
    epochs: int = 0
    seconds: float = 0.0
    breaches: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


class Referee:
    """One window and its players."""

    def __init__(self, stage: Stage, seed: str, folder: Path, broken: str = "", most: int = 18) -> None:
        self.result = Result(seed)
        self.scene: Scene
        self.dice = random.Random(f"campaign {seed}")
        self.seats: dict[str, Seat] = {}
        self._stage, self._folder, self._broken = stage, folder, broken
        self._most = most
        self._mark = f"{seed}-{os.getpid()}-{id(self)}"
        self.proxies: dict[str, FaultProxy] = {}
        self._waking: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()
        self._raised: list[str] = []
        self.players_log = folder / "players.log"

    async def __aenter__(self) -> Referee:
        chance = self.dice
        flavour = Flavour(undo=chance.random() < 0.6, confirm=chance.random() < 0.2, tpm=chance.random() < 0.5)
        self.scene = await self._stage.scene(flavour, self._folder)
        self.log(f"{flavour}")
        self.before = await fingerprint.take(self.scene.db.connector, SystemClock())
        self.dumped = await self.scene.dump()
        for name in (*PEOPLE, "eve@c"):
            self.proxies[name] = FaultProxy(self.scene.db.dsn)
            await self.proxies[name].start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._waking:
            task.cancel()
        for seat in self.seats.values():
            seat.kill()
            await seat.gone()
        for proxy in self.proxies.values():
            await proxy.close()
        self.result.seconds = time.monotonic() - self._began
        (self._folder / "log.txt").write_text("\n".join([*self.result.log, *self.result.breaches]) + "\n")
        await self._stage.strike(self.scene)
        if not self.result.breaches and "KEEP" not in os.environ:
            shutil.rmtree(self._folder, ignore_errors=True)

    def log(self, words: str) -> None:
        """A line of what was done."""
        self.result.log.append(f"{time.monotonic() - self._began:7.2f}  {words}")

    # --- what may happen

    async def sit(self, name: str, role: str = "join", take_over: str = "") -> Seat:
        """A player sits down, in the place of the one of that name who may be there still."""
        if (old := self.seats.get(name)) is not None:
            old.kill()
            await self._gone(old)
        part = Part(
            name, self.proxies[name].dsn, str(self.scene.runbook), str(self._folder / name), role, take_over,
            self._broken,
        )  # fmt: skip
        seat = self.seats[name] = await Seat.take(part, self._mark, self.players_log)
        self.log(f"{name} sits down: {role} {take_over}")
        return seat

    async def inside(self, name: str) -> bool:
        """Waits until that player is in, and notes why not; what is no sentence of ours is a breach."""
        seat = self.seats[name]
        there = await seat.inside(IN_S)
        said = seat.entered
        self.log(f"{name} is in: {said}" if there else f"{name} is not in: {said or 'it was killed, or took too long'}")
        if said and not said["in"] and not said["known"] and said["kind"] not in _SERVERS:
            self._raised.append(f"{name} was not let in by {said['kind']}: {said['text']}")
        return there

    async def tell(self, name: str, what: str, within: float = 12.0, **more: object) -> dict[str, Any]:
        """A player does something; the answer."""
        self.log(f"{name}: {what} {more or ''}")
        answer = await self.seats[name].do(what, within, **more)
        trouble = f"   [{answer['trouble']}]" if answer.get("trouble") else ""
        self.log(f"{name}: {what} -> {answer.get('text', answer)}{trouble}")
        return answer

    def sleeping(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later, behind."""
        seat = self.seats[name]
        seat.stop()
        self.log(f"{name} is stopped for {seconds:.1f} s")

        async def wake() -> None:
            await asyncio.sleep(seconds)
            seat.wake()
            self.log(f"{name} wakes")

        self.behind(wake())

    async def restart(self, mode: str) -> None:
        """The server goes, and comes back."""
        self.log(f"the server restarts: {mode}")
        if mode == "kill9":
            await self._stage.server.kill9()
            await self._stage.server.start()
        else:
            await self._stage.server.restart("immediate" if mode == "immediate" else "fast")
        self.log("the server is back")

    def behind(self, work: Awaitable[None]) -> None:
        """Goes on while other things happen."""
        task = asyncio.ensure_future(work)
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _gone(self, seat: Seat) -> None:
        await seat.gone()
        self._raised += [f"{seat.part.actor}: submit raised {text}" for text in seat.raised]

    # --- at random

    async def play(self) -> None:
        """What the seed says."""
        first, second = self.dice.sample(PEOPLE, 2)
        await self.sit(first, "drive")
        if not await self.inside(first):
            return
        await self.sit(second, self.dice.choice(("join", "attend")))
        await self.inside(second)
        for _ in range(self.dice.randint(4, self._most)):
            found = await self.found()
            if found is None or found.outcome:
                return
            name, other = self.dice.sample(PEOPLE, 2)
            [kind] = self.dice.choices(list(MOVES), [weight for weight, _ in MOVES.values()])
            self.result.operations[kind] += 1
            await MOVES[kind][1](self, name, other)
            await asyncio.sleep(self.dice.choice((0.0, 0.02, 0.1, 0.3, 0.8)))

    async def found(self, *, effects: bool = False) -> Found | None:
        """The window as the database has it, asked again while the server is away."""
        for _ in range(200):
            try:
                return await oracles.look(self.scene, effects=effects)
            except psycopg.OperationalError:
                await asyncio.sleep(0.1)
        raise AssertionError("the server did not come back within 20 s")

    # --- to the end

    async def finish(self) -> None:
        """The players go; a fresh one brings the window to its close, by the way on or the way back."""
        for name, seat in self.seats.items():
            seat.wake()
            self.proxies[name].refusing = False
            self.proxies[name].resume()
            if seat.alive and self.dice.random() < 0.5:
                took = await seat.leave()
                self.log(f"{name} left in {took:.1f} s")
            seat.kill()
            await self._gone(seat)
        goal = self.dice.choice(("on", "back"))
        self.log(f"eve is to go {goal}")
        try:
            async with asyncio.timeout(TO_THE_END_S):
                await self._to_the_end(goal)
        except TimeoutError:
            self.result.breaches.append(f"the window was not brought to its close within {TO_THE_END_S:g} s")

    async def _to_the_end(self, goal: str) -> None:
        while (found := await self.found()) is None or not found.outcome:
            if "eve@c" not in self.seats or not self.seats["eve@c"].sits:
                await self.sit("eve@c", "drive", "the others are gone")
                if not await self.inside("eve@c"):
                    await asyncio.sleep(0.5)
                continue
            state = found.state
            if state.aborting:
                await self.tell("eve@c", "undone")
            elif state.abort is not None:
                await self.tell("eve@c", "abort", STOP_S + 10)  # somebody stopped it: it goes on
                await asyncio.sleep(0.5)
            elif state.running is not None:
                pass
            elif goal == "back":
                answer = await self.tell("eve@c", "abort", STOP_S + 10)
                await asyncio.sleep(2.0 if answer.get("taken") else 0.2)
            else:
                await self._on(found)
            await asyncio.sleep(0.15)
        self.log(f"the window is closed: {found.outcome}")

    async def _on(self, found: Found) -> None:
        """The way on: a person looks where the database cannot tell, and turns back where going on is not safe."""
        state = found.state
        unknown = next((s for s in state.steps.values() if s.status is StepStatus.UNKNOWN), None)
        if unknown is not None:
            [(valid,)] = await self.scene.db.sql(
                "SELECT (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('t_pad'))"
            )
            await self.tell("eve@c", "decide", step=unknown.id, took=bool(valid))
            return
        answer = await self.tell("eve@c", "n")
        if "not safe" in str(answer.get("text")) or self._failed_often(found):
            await self.tell("eve@c", "abort", STOP_S + 10)
        elif "second person" in str(answer.get("text")) or "proposed" in str(answer.get("text")):
            if "lin@b" not in self.seats or not self.seats["lin@b"].sits:
                await self.sit("lin@b", "attend")
                await self.inside("lin@b")
            await self.tell("lin@b", "confirm")

    @staticmethod
    def _failed_often(found: Found) -> bool:
        return any(s.status is StepStatus.FAILED and s.attempt > 5 for s in found.state.steps.values())

    # --- what has to hold

    async def judge(self) -> Result:
        """The breaches; the players are gone afterwards."""
        for seat in self.seats.values():
            await seat.leave()
            await self._gone(seat)
        result = self.result
        found = await self.found(effects=True)
        if found is None:
            return result
        result.outcome, result.events, result.epochs = found.outcome, len(found.events), found.epoch
        mirrors: dict[str, list[Line]] = {
            name: oracles.mirror(self._folder / name, found.id) for name in (*PEOPLE, "eve@c")
        }
        result.breaches += self._raised
        result.breaches += oracles.breaches_of_the_journal(found, mirrors)
        if (
            found.windows > 1
        ):  # somebody came back when all was over, and ran the runbook anew: what holds of one window
            result.outcome = "reopened"  # cannot be told from what two have done
            return result
        result.breaches += oracles.breaches_of_the_effects(found)
        result.breaches += oracles.breaches_of_the_end(found, undo=self.scene.flavour.undo)
        if found.outcome == "aborted":
            after = await fingerprint.take(self.scene.db.connector, SystemClock())
            if differs := [d.key for d in fingerprint.diff(self.before, after)]:
                result.breaches.append(f"the fingerprint is not the opening's: {differs}")
            if await self.scene.dump() != self.dumped:
                result.breaches.append("pg_dump -s is not the opening's")
        result.breaches += await self._left()
        for breach in result.breaches:
            self.log(f"BREACH {breach}")
        return result

    async def _left(self) -> list[str]:
        """Processes and backends of this window's that outlived its players by 10 s."""
        until = time.monotonic() + 10
        while True:
            asked = "SELECT pid, application_name, state FROM pg_stat_activity WHERE datname = current_database()"
            rows = await self.scene.db.sql(asked + " AND application_name LIKE 'dbwatch%'")
            left = [*map(str, rows), *self._processes()]
            if not left or time.monotonic() > until:
                return [f"left behind: {', '.join(left)}"] if left else []
            await asyncio.sleep(0.1)

    def _processes(self) -> list[str]:
        mark, left = f"{MARK}={self._mark}".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    left.append(f"process {process.name}: {(process / 'cmdline').read_bytes()[:80]!r}")
            except OSError:
                continue
        return left


_SERVERS = ("OperationalError", "AdminShutdown", "CrashShutdown", "CannotConnectNow")
"""What a server that goes away while one comes in may say in its own words."""


async def one(stage: Stage, seed: str, folder: Path, broken: str = "", most: int = 18) -> Result:
    """The window of *seed*, of *most* moves, from its opening to the judgement."""
    referee = Referee(stage, seed, folder / f"seed-{seed}", broken, most)
    async with referee:
        try:
            await referee.play()
            await referee.finish()
            await referee.judge()
        except Exception as error:  # noqa: BLE001  # the campaign's edge: it counts, and its log is kept
            referee.result.breaches.append(f"the referee could not go on: {type(error).__name__}: {error}")
    return referee.result
