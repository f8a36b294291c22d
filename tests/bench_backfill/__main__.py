"""`make bench-backfill`: all figures, or those named; two tables on standard output, everything in a file of JSON.

PYTHONPATH=tests python -m bench_backfill --rows 2000000 --rounds 3
PYTHONPATH=tests python -m bench_backfill --rows 200000 --rounds 1 --only sequential
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_backfill.evaluation import verdicts
from bench_backfill.figures import FIGURES
from bench_backfill.report import Found, as_json, machine, markdown
from bench_backfill.runner import Asked, measure
from bench_backfill.stage import SETTINGS, stage
from bench_backfill.values import Figure, Measure
from dbwatch.errors import DbwatchError

OUTPUT = Path(__file__).resolve().parent.parent.parent / ".cache" / "bench-backfill.json"


async def bench(
    figures: Sequence[Figure], asked: Asked, settings: dict[str, str], major: int, output: Path
) -> list[Found]:
    """Measures *figures*; after each one what is known so far is written."""
    found: list[Found] = []
    async with stage(major, settings) as at:
        about = machine(at.server.binaries.version_text, {**SETTINGS, **settings})
        for figure in figures:
            _tell(f"{figure.name}: {figure.title}")
            if figure.scale > 1:
                await at.forget_bases()
            try:
                found.append(Found(figure, await measure(at, figure, asked, _tell)))
            except (DbwatchError, RuntimeError) as error:  # one figure less; the others are worth their time
                _tell(f"  failed: {error}")
                found.append(Found(figure, (), str(error)))
            if figure.scale > 1:
                await at.forget_bases()
            _keep(output, as_json(found, about, asked.rows, asked.rounds))
    print(markdown(found, about, asked.rows, asked.rounds), flush=True)
    _tell(f"all of it, run by run: {output}")
    return found


def holds(found: Sequence[Found]) -> bool:
    """Whether every figure was measured and no row was left; a missed speed is a finding, not a failure. Pure."""
    return all(
        not each.failed
        and all(
            verdict.word == "reached"
            for verdict in verdicts(each.figure, each.runs)
            if verdict.goal.measure is Measure.PENDING
        )
        for each in found
    )


def _keep(output: Path, said: dict[str, Any]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """The exit code: 1 where a figure could not be measured, or rows were left pending."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], choices=[each.name for each in FIGURES])
    parser.add_argument("--batch-time", default="100ms")
    parser.add_argument("--alone", type=float, default=20.0, help="seconds that the application runs alone")
    parser.add_argument("--major", type=int, default=18)
    parser.add_argument("--setting", nargs="*", default=[], metavar="NAME=VALUE", help="of the server")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    a = parser.parse_args()
    figures = [each for each in FIGURES if not a.only or each.name in a.only]
    settings = dict(each.split("=", 1) for each in a.setting)
    asked = Asked(a.rows, a.rounds, a.batch_time, a.alone)
    return 0 if holds(asyncio.run(bench(figures, asked, settings, a.major, a.output))) else 1


if __name__ == "__main__":
    sys.exit(main())
