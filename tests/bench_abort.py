"""From the confirmation to "rolled back" on the demo's stage, its longest transaction 5 s long and nobody cancelled.

`make bench-abort`: in the middle of the backfill, and of the index build while a report of 5 s is being read; at
least five rounds each. A line a round, then a table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from windows import begin_abort, end_of_abort, step, until

from dbwatch.clock import SystemClock
from dbwatch.demo.stage import Stage, stage
from dbwatch.journal.events import AbortFinished
from dbwatch.runbook.loader import load
from dbwatch.window.driving import driving
from dbwatch.window.intents import RunStep, ToggleBackfill
from dbwatch.window.opening import Wish, enter

REPORT_S = 5.0
LIMITS_S = {"backfill": 3.0, "index build": 8.0}


async def report(dsn: str, begun: asyncio.Event) -> None:
    """A transaction of 5 s after the other, each with a snapshot that an index build has to wait for."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, application_name="long report") as c:
        await c.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        while True:
            async with c.transaction():
                await c.execute("SELECT count(*) FROM products")
                begun.set()
                await asyncio.sleep(REPORT_S)
            await asyncio.sleep(random.uniform(0.0, 1.0))  # no secret


async def one(at: Stage, where: str, folder: Path) -> float:
    """One window, aborted in the middle of that; seconds from the confirmation on."""
    begun = asyncio.Event()
    reading = asyncio.create_task(report(at.dsn, begun))
    ground = await enter(load(at.runbook, {}), SystemClock(), Wish("wei@a", folder), lambda _: None)
    try:
        async with driving(ground) as conductor:
            await conductor.recovered.wait()
            await step(conductor, "preview")
            await begun.wait()
            if where == "backfill":
                await asyncio.wait_for(step(conductor, "add"), 120)
                await step(conductor, "deploy")
                assert (await conductor.submit(ToggleBackfill())).taken
                await until(
                    conductor, lambda c: c.work.backfill is not None and c.work.backfill.rows_done > 100_000, 120
                )
            else:
                assert (await conductor.submit(RunStep("add"))).taken
                await until(
                    conductor,
                    lambda c: bool(c.work.migration and "CONCURRENTLY" in c.work.migration.statement),
                    60,
                )
                await asyncio.sleep(0.5)
            began = time.monotonic()
            await begin_abort(conductor)
            await end_of_abort(conductor)
            took = time.monotonic() - began
            finished = next(e.fact for e in reversed(conductor.events) if isinstance(e.fact, AbortFinished))
            assert finished.equal, finished.differences
            return took
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading


async def main(rounds: int) -> int:
    """All rounds; 1 where one took longer than it may."""
    took: dict[str, list[float]] = {where: [] for where in LIMITS_S}
    with tempfile.TemporaryDirectory(prefix="dbwatch-bench-") as folder:
        async with stage(progress=lambda said: print(said, file=sys.stderr)) as at:
            for number in range(rounds):
                for where in LIMITS_S:
                    seconds = await one(at, where, Path(folder))
                    took[where].append(seconds)
                    print(f"{number + 1}  {where:12} {seconds:6.2f} s", flush=True)
    print(f"\n{'aborted in the':16} {'rounds':>6} {'median':>8} {'worst':>8} {'may take':>9}")
    for where, seconds_each in took.items():
        median, worst = statistics.median(seconds_each), max(seconds_each)
        print(f"{where:16} {len(seconds_each):6} {median:6.2f} s {worst:6.2f} s {LIMITS_S[where]:7.1f} s")
    return int(any(max(took[where]) > limit for where, limit in LIMITS_S.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    sys.exit(asyncio.run(main(parser.parse_args().rounds)))
