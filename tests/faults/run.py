"""One run of the campaign: a table of its own, the application on it, a process that fills, and what happens."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from ledger import Ledger
from proxy import FaultProxy

from faults import oracle
from faults.application import Application
from faults.filler import Filler
from faults.house import House
from faults.scene import Flavour, Scene
from faults.strokes import STROKES, drawn

LONGEST_S = 180.0
"""A run that is not done by then hangs."""
STARTS_MOST = 60


@dataclass
class Result:
    """What a run found."""

    seed: str
    flavour: str = ""
    faults: Counter[str] = field(default_factory=Counter)
    """What befell it, by name, the number first."""
    rows: int = 0
    """That were set."""
    starts: int = 0
    """Processes that filled."""
    seconds: float = 0.0
    application: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


async def one(
    house: House, seed: str, kept: Path, version: str = "", *, most: int = 12, strokes: Sequence[str] = ()
) -> Result:
    """A run from its *seed*, with up to so many strokes, or with those named; by *version* of the engine.

    What it found; its log is in *kept* where something did not hold.
    """
    run = Run(house, seed, version)
    began = time.monotonic()
    try:
        await asyncio.wait_for(run.play(most, strokes), LONGEST_S)
    except TimeoutError:
        run.breach(f"it was not done within {LONGEST_S:g} s; last it said {run.main.last if run.main else 'nothing'}")
    except Exception:  # noqa: BLE001  # a campaign goes on; what went wrong with this run is told as a breach
        run.breach(f"the run itself failed: {traceback.format_exc()}")
    finally:
        await run.close()
    run.result.seconds = time.monotonic() - began
    if run.result.breaches:
        await asyncio.to_thread(_keep, run.result, kept)
    return run.result


def _keep(result: Result, kept: Path) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    (kept / f"run-{result.seed}.txt").write_text("\n".join([*result.breaches, "", *result.log, ""]))


class Run:
    """A run under way; strokes act on it."""

    def __init__(self, house: House, seed: str, version: str) -> None:
        self.house = house
        self.dice = Random(seed)
        self.result = Result(seed)
        self.main: Filler | None = None
        self.rivals: list[Filler] = []
        self.keyless: Filler | None = None
        """Fills the table without a key."""
        self.stack = AsyncExitStack()
        """What a stroke opened for the rest of the run."""
        self.behind: list[asyncio.Task[None]] = []
        """What strokes left to go on beside the run."""
        self._doubted: Filler | None = None
        self._began = time.monotonic()
        self._version = version
        self._scene: Scene | None = None
        self._proxy: FaultProxy | None = None
        self._application: Application | None = None

    async def play(self, most: int, named: Sequence[str]) -> None:
        """All of it, the judgement included."""
        flavour = Flavour.drawn(self.dice)
        strokes = named or drawn(self.dice, self.dice.randint(4, most))
        self.result.flavour = str(flavour)
        self.log(f"{flavour}; to come: {', '.join(strokes)}")
        database = await self.house.database()
        self._scene = await Scene.make(database, flavour)
        if any(name.startswith("4 ") for name in strokes):
            await self.house.follow()
        self._proxy = FaultProxy(database.dsn)
        await self._proxy.start()
        self._application = Application(self.scene, lambda: self.ledger.database.dsn, self.result.seed)
        await self.start()
        for name in strokes:
            await self._reach(self.dice.random())
            if self.done:
                break
            self.log(name)
            if await STROKES[name].act(self):
                self.result.faults[name] += 1
        await self._finish()
        await self._judge()

    @property
    def scene(self) -> Scene:
        assert self._scene is not None
        return self._scene

    @property
    def ledger(self) -> Ledger:
        return self.scene.ledger

    @property
    def proxy(self) -> FaultProxy:
        """Between the process that fills and the server."""
        assert self._proxy is not None
        return self._proxy

    @property
    def done(self) -> bool:
        """The process that filled has said that all is done, and the server has not forgotten it since."""
        main = self.main
        return main is not None and main is not self._doubted and not main.alive and main.code == 0

    def doubt(self) -> None:
        """The server may have forgotten what it had answered: what the present process says may be of before."""
        self._doubted = self.main

    def log(self, what: str) -> None:
        """Something that happened, for whoever looks for the cause of a breach."""
        self.result.log.append(f"{time.monotonic() - self._began:7.2f}  {what}")

    def breach(self, what: str) -> None:
        """Something that does not hold."""
        self.result.breaches.append(what)
        self.log(f"BREACH: {what}")

    def meanwhile(self, work: Coroutine[Any, Any, None]) -> None:
        """Lets *work* go on beside the run; the server may go away under it."""

        async def quietly() -> None:
            try:
                await work
            except (psycopg.Error, OSError) as error:
                self.log(f"meanwhile: {error}")

        self.behind.append(asyncio.create_task(quietly()))

    async def start(self) -> Filler:
        """A new process that fills, where the last one is gone."""
        if self.main is None or not self.main.alive:
            if self.main is not None:
                self._say(self.main)
            self.main = await self.filler("filler")
        return self.main

    async def filler(self, name: str, dsn: str = "") -> Filler:
        """One more process that fills, by *dsn* or the run's own way."""
        self.result.starts += 1
        options = self.scene.flavour.options
        return await Filler.start(f"{name} {self.result.starts}", dsn or self.proxy.dsn, options, self._version)

    async def fill_keyless(self) -> Filler:
        """A new process that fills the table without a key."""
        options = self.scene.flavour.keyless
        self.result.starts += 1
        self.keyless = await Filler.start(f"keyless {self.result.starts}", self.proxy.dsn, options, self._version)
        return self.keyless

    async def moved(self) -> None:
        """The primary dies; all ways lead to the standby."""
        self.ledger.database = await self.house.fail_over(self.ledger.database)
        self.proxy.lead_to(self.ledger.database.dsn)

    async def session(self) -> psycopg.AsyncConnection[Any]:
        """A connection of somebody else's, direct, for a block."""
        return await psycopg.AsyncConnection.connect(
            self.ledger.database.dsn, autocommit=True, connect_timeout=5, options="-c statement_timeout=20000"
        )

    async def close(self) -> None:
        """Ends all that the run started. What cannot be ended is a breach."""
        for filler in (*self.rivals, self.main, self.keyless):
            if filler is not None:
                await filler.kill()
        for task in self.behind:
            task.cancel()
        if self._application is not None:
            await self._application.close()
            self.result.application = self._application.done
        await self.stack.aclose()
        if self._proxy is not None:
            await self._proxy.close()
        if self._scene is not None and self.house.primary.running:
            await self.house.strike(self.ledger.database)

    async def _reach(self, chance: float) -> None:
        """Lets time pass: mostly until batches are done, and then a moment more; sometimes no time at all."""
        if chance < 0.1 or self.done:
            return
        filler = await self.start()
        await filler.begun(10.0)
        await filler.ended(0.4 * self.dice.random())

    async def _finish(self) -> None:
        """Starts it anew until it is done; the others have to end as well."""
        for _ in range(STARTS_MOST):
            if self.main is not None:
                await self.main.ended(LONGEST_S)
            if self.done:
                break
            await self.start()
        else:
            self.breach(f"it was started {self.result.starts} times and not done")
        if self.behind:
            await asyncio.wait(self.behind, timeout=30)
        if self.keyless is not None:
            await self._finish_keyless(self.keyless)
        for rival in self.rivals:
            if not await rival.ended(30):
                self.breach(f"{rival.name} does not end, though all is done: {rival.last}")
            self._say(rival)
        if self.dice.random() < 0.25:
            await self._once_more()
        assert self.main is not None
        self._say(self.main)

    async def _finish_keyless(self, filler: Filler) -> None:
        """Lets it end, and starts it anew until it says that none is left; no row may be."""
        for _ in range(STARTS_MOST):
            await filler.ended(LONGEST_S)
            self._say(filler)
            filler = await self.fill_keyless()
            if await filler.ended(LONGEST_S) and filler.code == 0:
                break
        self._say(filler)
        left = await self.ledger.database.sql("SELECT count(*) FROM keyless WHERE v <> 1 OR u <> 0")
        if left != [(0,)]:
            self.breach(f"{left[0][0]} rows of a table without a key are pending, or were set though that is refused")

    async def _once_more(self) -> None:
        """A finished one says so and does nothing."""
        filler = await self.filler("once more")
        await filler.ended(30)
        self._say(filler)
        if filler.code != 0 or not filler.last.get("already"):
            self.breach(f"{filler.name} did not say that it was done before, but {filler.last}")

    async def _judge(self) -> None:
        assert self._application is not None
        await self._application.close()
        for breach in await oracle.breaches(self.ledger, poison="t.poison"):
            self.breach(breach)
        [(rows, held)] = await self.ledger.database.sql(
            "SELECT (SELECT coalesce(sum(n), 0) FROM ledger), (SELECT count(*) FROM dbwatch.quarantine)"
        )
        self.result.rows = int(rows)
        if held:
            self.result.faults["7 poison rows"] += 1
        if any(self._application.done[kind] for kind in ("insert", "delete", "move")):
            self.result.faults["11 inserts, deletes, changed keys"] += 1

    def _say(self, filler: Filler) -> None:
        """What a process left behind."""
        said = filler.complaint.decode(errors="replace").strip()
        self.log(f"{filler.name} ended with {filler.code}: {filler.last or ''} {said}")
        if "Traceback" in said:
            self.breach(f"{filler.name} ended in a traceback")
