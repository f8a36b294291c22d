"""`make faults`: runs for a stated time, each from a seed of its own; a table, and a line of JSON.

PYTHONPATH=tests python -m faults --seconds 600 --seed 1
PYTHONPATH=tests python -m faults --only 1.7                       # exactly that run's dice again
PYTHONPATH=tests python -m faults --seconds 60 --broken "rows first"   # the oracle can fail
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

from faults.broken import VERSIONS
from faults.house import House
from faults.run import Result, one

KEPT = Path(__file__).resolve().parent.parent.parent / ".cache" / "faults"
"""Where the log of a run with a breach is kept."""


async def campaign(seconds: float, seed: str, only: list[str], major: int, version: str) -> int:
    """Runs one after the other; 1 where something did not hold."""
    results: list[Result] = []
    async with House.open(major) as house:
        until, number = time.monotonic() + seconds, 0
        while number < len(only) if only else time.monotonic() < until:
            each = only[number] if only else f"{seed}.{number}"
            number += 1
            result = await one(house, each, KEPT, version)
            results.append(result)
            tell(result)
    return report(results, seed)


def tell(result: Result) -> None:
    """A line for a run; where something did not hold, what, and how to see it again."""
    print(
        f"{result.seed:>8}  {result.seconds:5.1f} s  {result.faults.total():3} faults  {result.starts:3} starts"
        f"  {result.rows:7,} rows  {len(result.breaches) or ' '}  {result.flavour}",
        flush=True,
    )
    for breach in result.breaches:
        print(f"          {breach}", flush=True)
    if result.breaches:
        print(f"          again: make faults ONLY={result.seed}; its log: {KEPT / f'run-{result.seed}.txt'}")


def report(results: list[Result], seed: str) -> int:
    """The table, and the same as JSON; the exit code."""
    faults: Counter[str] = Counter()
    application: Counter[str] = Counter()
    for result in results:
        faults.update(result.faults)
        application.update(result.application)
    bad = [result.seed for result in results if result.breaches]
    violations = sum(len(result.breaches) for result in results)
    rows = sum(result.rows for result in results)
    print()
    for name in sorted(faults, key=lambda name: (int(name.split()[0]), name)):
        print(f"{name:36} {faults[name]:9,}")
    for what, number in (
        ("runs", len(results)),
        ("faults", faults.total()),
        ("processes", sum(result.starts for result in results)),
        ("statements of the application", application.total()),
        ("rows set", rows),
    ):
        print(f"{what:36} {number:9,}")
    print(f"{'violations':36} {violations:9,}   {' '.join(bad)}")
    said = {
        "seed": seed, "runs": len(results), "faults": faults.total(), "by_kind": faults, "rows": rows,
        "violations": violations, "failed": bad,
    }  # fmt: skip
    print(json.dumps(said))
    return 1 if bad or not results else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", nargs="*", default=[], help="the seeds of runs, as a failing one prints it")
    parser.add_argument("--major", type=int, default=18)
    parser.add_argument("--broken", default="", choices=["", *VERSIONS], help="a deliberately broken version")
    a = parser.parse_args()
    sys.exit(asyncio.run(campaign(a.seconds, a.seed, a.only, a.major, a.broken)))
