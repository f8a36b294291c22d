"""`make campaign`: windows for a stated time, each from a seed of its own; a table, and a line of JSON.

PYTHONPATH=tests python -m campaign --seconds 600 --seed 7
PYTHONPATH=tests python -m campaign --only 7.12      # exactly that window again
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from servers import SETTINGS, server_binaries

from campaign.referee import Result, one
from campaign.scene import Stage
from dbwatch.postgres.embedded import EmbeddedServer

KEPT = Path(__file__).resolve().parent.parent.parent / ".cache" / "campaign"
"""Where the folder of a window with a breach is kept: its log, the players' output and mirrors."""


async def campaign(seconds: float, seed: str, only: list[str], major: int, broken: str) -> int:
    """Runs windows one after the other; 1 where something did not hold."""
    results: list[Result] = []
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dbwatch-campaign-") as folder:
        async with EmbeddedServer(server_binaries(major), settings=SETTINGS, listen="tcp") as server:
            stage = await Stage.make(server, Path(folder))
            until, number = time.monotonic() + seconds, 0
            while number < len(only) if only else time.monotonic() < until:
                each = only[number] if only else f"{seed}.{number}"
                number += 1
                result = await one(stage, each, KEPT, broken)
                results.append(result)
                tell(result)
    return report(results, seed)


def tell(result: Result) -> None:
    """A line for a window; where something did not hold, what, and how to see it again."""
    moves = sum(result.operations.values())
    print(
        f"{result.seed:>10}  {result.outcome or '-':8} {result.seconds:6.1f} s  {moves:3} moves"
        f"  {result.epochs:3} epochs  {result.events:4} events  {len(result.breaches) or ''}",
        flush=True,
    )
    for breach in result.breaches:
        print(f"            {breach}", flush=True)
    if result.breaches:
        print(f"            again: make campaign ONLY={result.seed}; its log: {KEPT / f'seed-{result.seed}'}/log.txt")


def report(results: list[Result], seed: str) -> int:
    """The table, and the same as JSON; the exit code."""
    moves: Counter[str] = Counter()
    for result in results:
        moves.update(result.operations)
    outcomes = Counter(result.outcome or "none" for result in results)
    bad = [result.seed for result in results if result.breaches]
    print()
    for kind, count in moves.most_common():
        print(f"{kind:32} {count:6}")
    print(f"{'windows':32} {len(results):6}   {dict(outcomes)}")
    print(f"{'operations':32} {moves.total():6}")
    print(f"{'kills':32} {sum(r.kills for r in results):6}")
    print(f"{'epochs':32} {sum(r.epochs for r in results):6}")
    print(f"{'events':32} {sum(r.events for r in results):6}")
    print(f"{'violations':32} {sum(len(r.breaches) for r in results):6}   {' '.join(bad)}")
    said = {
        "seed": seed, "windows": len(results), "outcomes": outcomes, "operations": moves.total(), "moves": moves,
        "kills": sum(r.kills for r in results), "events": sum(r.events for r in results),
        "violations": sum(len(r.breaches) for r in results), "failed": bad,
    }  # fmt: skip
    print(json.dumps(said))
    return 1 if bad or not results else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", nargs="*", default=[], help="the seeds of windows, as a failing one prints it")
    parser.add_argument("--major", type=int, default=18)
    parser.add_argument("--broken", default="", help="a deliberately broken version, see broken.py")
    a = parser.parse_args()
    sys.exit(asyncio.run(campaign(a.seconds, a.seed, a.only, a.major, a.broken)))
