"""From the confirmation to "rolled back" on the demo's stage, beside reports of 5 s, and nobody cancelled.

`make bench-abort`: in the middle of the backfill while such a report reads another table; of the backfill and of the
index build when the shop's own weekly report, its longest transaction, has just begun to read the very table, whose
column cannot be dropped before that has ended. A line a round, then a table.
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
from windows import end_of_abort, step, until

from dbwatch.clock import SystemClock
from dbwatch.demo.stage import Stage, stage
from dbwatch.journal.events import AbortFinished
from dbwatch.runbook.loader import load
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.intents import Abort, RunStep
from dbwatch.window.opening import Wish, enter

REPORT_S = 5.0
LIMITS_S = {"backfill": 3.0, "backfill, users read": 8.0, "index build, users read": 8.0}


async def report(dsn: str) -> None:
    """A transaction of 5 s after the other on another table, each with a snapshot that an index build waits for."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, application_name="long report") as c:
        await c.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        while True:
            async with c.transaction():
                await c.execute("SELECT count(*) FROM products")
                await asyncio.sleep(REPORT_S)
            await asyncio.sleep(random.uniform(0.0, 1.0))  # no secret


async def one(at: Stage, where: str, folder: Path) -> float:
    """One window, aborted in the middle of that; seconds from the confirmation on."""
    reading = asyncio.create_task(report(at.dsn))
    ground = await enter(load(at.runbook, {}), SystemClock(), Wish("wei@a", folder), lambda _: None)
    try:
        async with driving(ground) as conductor:
            await conductor.recovered.wait()
            for before in ("preview", "add", "deploy"):
                await asyncio.wait_for(step(conductor, before), 120)
            assert (await conductor.submit(RunStep("fill"))).taken
            if where.startswith("backfill"):
                await until(
                    conductor, lambda c: c.work.backfill is not None and c.work.backfill.rows_done > 100_000, 120
                )
            else:
                await asyncio.wait_for(conductor.work.settled(), 240)
                await step(conductor, "complete")
                assert (await conductor.submit(RunStep("index"))).taken
                await until(
                    conductor,
                    lambda c: bool(c.work.migration and "CONCURRENTLY" in c.work.migration.statement),
                    60,
                )
                await asyncio.sleep(0.5)
            await shops_report(at.dsn, reads="users" in where)
            began = await confirmed(conductor)
            await end_of_abort(conductor)
            took = time.monotonic() - began
            finished = next(e.fact for e in reversed(conductor.events) if isinstance(e.fact, AbortFinished))
            assert finished.equal, finished.differences
            return took
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading


async def shops_report(dsn: str, *, reads: bool) -> None:
    """Waits until the shop's own report, of 2 to 5 s, has just begun to read users; or until it does not read them."""
    text = "SELECT now() - xact_start < interval '0.2 s' FROM pg_stat_activity WHERE application_name = 'reports'"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as c:
        while True:
            row = await (await c.execute(text)).fetchone()
            if row is not None and ((row[0] is True) if reads else (row[0] is None)):
                return
            await asyncio.sleep(0.05)


async def confirmed(conductor: Conductor) -> float:
    """Shows the plan and confirms it; the instant of the confirmation that was taken, in monotonic seconds."""
    while True:
        plan = await conductor.plan_abort()
        began = time.monotonic()
        if (await conductor.submit(Abort(plan.digest, conductor.state.database))).taken:
            return began


async def main(rounds: int) -> int:
    """All rounds; 1 where one took longer than it may."""
    took: dict[str, list[float]] = {where: [] for where in LIMITS_S}
    with tempfile.TemporaryDirectory(prefix="dbwatch-bench-") as folder:
        async with stage(progress=lambda said: print(said, file=sys.stderr)) as at:
            for number in range(rounds):
                for where in LIMITS_S:
                    seconds = await one(at, where, Path(folder))
                    took[where].append(seconds)
                    print(f"{number + 1}  {where:24} {seconds:6.2f} s", flush=True)
    print(f"\n{'aborted in the':24} {'rounds':>6} {'median':>8} {'worst':>8} {'may take':>9}")
    for where, seconds_each in took.items():
        median, worst = statistics.median(seconds_each), max(seconds_each)
        print(f"{where:24} {len(seconds_each):6} {median:6.2f} s {worst:6.2f} s {LIMITS_S[where]:7.1f} s")
    return int(any(max(took[where]) > limit for where, limit in LIMITS_S.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    sys.exit(asyncio.run(main(parser.parse_args().rounds)))
