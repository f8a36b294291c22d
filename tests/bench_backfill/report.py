"""The tables for a person, and the same as JSON. Pure, but for a look at the machine."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench_backfill import evaluation as ev
from bench_backfill.figures import DBWATCH, WHOLE
from bench_backfill.values import Figure, Goal, Kind, Measure, Run


@dataclass(frozen=True, slots=True)
class Found:
    """A figure, its runs, and why it has none."""

    figure: Figure
    runs: tuple[Run, ...]
    failed: str = ""


def machine(version: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """What the numbers belong to."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "ram_gb": round(memory / 2**30, 1),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "postgresql": version,
        "settings": dict(settings),
    }


def markdown(found: Sequence[Found], about: Mapping[str, Any], rows: int, rounds: int) -> str:
    """Both tables: what was asked for and reached, and what each contender did."""
    settings = ", ".join(f"{name} {value}" for name, value in about["settings"].items())
    lines = [
        f"{rows:,} rows, {rounds} rounds, interleaved; medians; a time is that of the whole process."
        f" {about['cores']} cores, {about['ram_gb']} GB,"
        f" PostgreSQL {about['postgresql']}, {settings}. Each figure names what differs."
        " Client CPU: the tool's from its first line on, a rival's with the start of its process. HOT: where an"
        " application runs, its own updates are counted too.",
        "",
        "| figure | asked | found | |",
        "|---|---|---|---|",
        *(line for each in found for line in _goals(each)),
        "",
        "| figure | contender | time s | to its first line s | rows/s"
        " | speed | WAL B/row | heap | HOT | batches | batch p50/p99/max ms"
        " | client CPU | app tps asked | served | not served | app p50/p99/max ms | left |",
        f"|{'---|' * 17}",
        *(line for each in found for line in _rows(each)),
    ]
    return "\n".join(lines)


def as_json(found: Sequence[Found], about: Mapping[str, Any], rows: int, rounds: int) -> dict[str, Any]:
    """Everything, runs included."""
    return {
        "rows": rows,
        "rounds": rounds,
        "machine": dict(about),
        "figures": [
            {
                "name": each.figure.name,
                "title": each.figure.title,
                "settings": dict(each.figure.settings),
                "load": each.figure.load,
                "failed": each.failed,
                "goals": [
                    {
                        "asked": asked(verdict.goal),
                        "found": None if verdict.value in (None, math.inf) else verdict.value,
                        "verdict": verdict.word,
                    }
                    for verdict in (ev.verdicts(each.figure, each.runs) if not each.failed else ())
                ],
                "runs": [asdict(run) for run in each.runs],
            }
            for each in found
        ],
    }


def asked(goal: Goal) -> str:
    """A goal in words."""
    against = f" against {goal.against}" if goal.against else ""
    of = f" of {goal.of}" if goal.measure is Measure.PENDING or goal.of != DBWATCH.name else ""
    return f"{goal.measure}{of} {goal.limit}{against}"


def _title(figure: Figure) -> str:
    differs = ", ".join(f"{name} {value}" for name, value in figure.settings.items())
    return f"{figure.title} ({differs})" if differs else figure.title


def _goals(each: Found) -> list[str]:
    if each.failed:
        return [f"| {_title(each.figure)} | | {each.failed.replace('|', '/')} | **failed** |"]
    lines = []
    for verdict in ev.verdicts(each.figure, each.runs):
        word = verdict.word if verdict.word == "reached" else f"**{verdict.word}**"
        lines.append(f"| {_title(each.figure)} | {asked(verdict.goal)} | {_value(verdict)} | {word} |")
    return lines


def _value(verdict: ev.Verdict) -> str:
    if verdict.value is None:
        return ""
    if math.isinf(verdict.value):
        return "none is as gentle"
    if verdict.goal.measure in (Measure.CPU, Measure.APP_SERVED):
        return f"{verdict.value:.1%}"
    return f"{verdict.value:.0f}" if verdict.value >= 20 or verdict.value == 0 else f"{verdict.value:.2f}"


def _rows(each: Found) -> list[str]:
    lines = []
    for contender in each.figure.contenders:
        runs = [run for run in each.runs if run.contender == contender.name]
        if runs:
            cells = _alone(runs) if contender.kind is Kind.NOBODY else _cells(each, contender.name, runs)
            lines.append(f"| {each.figure.name} | {contender.name} | {' | '.join([*cells, *_app(runs)])} |")
    return lines


def _alone(runs: Sequence[Run]) -> list[str]:
    return [_number(ev.middle(runs, lambda run: run.seconds), ".1f"), *[""] * 9]


def _cells(each: Found, name: str, runs: Sequence[Run]) -> list[str]:
    took = ev.middle(runs, ev.would_take_s)
    cut = any(run.cut for run in runs)
    speed = ev.found(Goal(Measure.SPEED, of=name, against=WHOLE.name), each.figure, each.runs)
    batches = [run.batches for run in runs]
    times = "/".join(
        _number(value, ".0f")
        for value in (
            ev.middle(runs, lambda run: run.batches.p50_ms if run.batches else None),
            ev.middle(runs, lambda run: run.batches.p99_ms if run.batches else None),
            ev.worst(runs, lambda run: run.batches.max_ms if run.batches else None),
        )
    )
    return [
        ("at least " if cut else "") + _number(took, ".1f"),
        _number(ev.middle(runs, lambda run: run.trace[0].seconds if run.trace else None), ".1f"),
        _number(runs[0].rows / took if took else None, ",.0f"),
        _number(speed, ".2f"),
        _number(ev.middle(runs, lambda run: run.wal_bytes / max(1, run.rows - run.pending)), ".0f"),
        _number(ev.middle(runs, ev.heap), ".2f"),
        _number(ev.middle(runs, lambda run: run.hot), ".2f"),
        _number(ev.middle(runs, lambda run: run.batches.count if run.batches else None), ".0f"),
        times if all(batches) else "",
        _number(ev.middle(runs, lambda run: ev.cpu_share(run) or run.cpu_s / run.seconds), ".1%"),
    ]


def _app(runs: Sequence[Run]) -> list[str]:
    left = str(max(run.pending for run in runs))
    if not all(run.app for run in runs):
        return ["", "", "", "", left]
    return [
        _number(ev.middle(runs, lambda run: run.app.asked_tps if run.app else None), ".0f"),
        _number(ev.middle(runs, ev.served), ".1%"),
        _number(ev.worst(runs, lambda run: run.app.unserved if run.app else None), ".0f"),
        "/".join(
            (
                _number(ev.middle(runs, lambda run: run.app.p50_ms if run.app else None), ".1f"),
                _number(ev.middle(runs, ev.app_p99), ".1f"),
                _number(ev.worst(runs, lambda run: run.app.max_ms if run.app else None), ".0f"),
            )
        ),
        left,
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
