"""A contender's process: watched from outside, ended in the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_backfill.values import Point

ENDS_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child went."""

    code: int
    seconds: float
    cpu_s: float
    trace: tuple[Point, ...]
    said: Mapping[str, Any]
    """Its last line."""
    complained: str
    cut: bool


def _installed() -> dict[str, str]:
    """Our environment as a user's: Python keeps what it has compiled, so that only the first start pays for it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


async def run(argv: Sequence[str], environ: Mapping[str, str], within_s: float, complaints: Path) -> Ended:
    """Runs *argv* to its end, or for *within_s* seconds; each line of its output is one of JSON."""
    used_before, began = _children_cpu_s(), time.monotonic()
    with complaints.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *argv, env={**_installed(), **environ}, stdout=asyncio.subprocess.PIPE, stderr=errors, limit=2**20
        )
    points: list[Point] = []
    said: dict[str, Any] = {}
    cut = False
    try:
        assert process.stdout is not None
        async with asyncio.timeout(within_s):
            async for line in process.stdout:
                said = json.loads(line)
                if "rows_done" in said:
                    points.append(Point(time.monotonic() - began, said["rows_done"], _cpu_s(process.pid)))
            await process.wait()
    except TimeoutError:
        cut = True
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait_for(process.wait(), ENDS_WITHIN_S)
    seconds, cpu_s = time.monotonic() - began, _children_cpu_s() - used_before
    if points and not cut:
        points.append(Point(seconds, points[-1].rows, cpu_s))
    assert process.returncode is not None
    return Ended(process.returncode, seconds, cpu_s, tuple(points), said, _text(complaints), cut)


def _text(file: Path) -> str:
    return file.read_text(errors="replace").strip()


def _cpu_s(pid: int) -> float | None:
    """CPU seconds that a process has used so far; None where the system does not tell (other than Linux)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children_cpu_s() -> float:
    """Of the children that have ended; while a contender runs no other child of ours ends."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_ENTRY = re.compile(r"^\S+ \S+ \S+ \[(\d+)\] (.*)", re.DOTALL)
_DURATION = re.compile(r".*?LOG:  duration: ([\d.]+) ms  (?:statement|execute [^:]*): (.*)", re.DOTALL)
_ELAPSED = re.compile(r".*?DETAIL:  ! system usage stats:\n.*?([\d.]+) s elapsed", re.DOTALL)
_CHANGES = re.compile(r'\bUPDATE\s+("?public"?\.)?"?users"?\s', re.IGNORECASE)
LOGGED = "-c log_min_duration_statement=0 -c log_executor_stats=on -c log_min_error_statement=panic"
"""What a child's sessions are logged with: the duration of each message, and of each query in it."""


def batch_durations_ms(log: str) -> list[float]:
    """The durations of the transactions that changed `users`, COMMIT included, from a server's log in which an entry's
    lines go on after a tab.

    A message of one is as long as that; a message of several begins each with a query that prepares it, and ends with
    one that ends nothing: what their queries did not take (to read the text, to COMMIT) counts for the last, whose
    COMMIT alone may wait for the disk. Pure. Raises ValueError where a message is of another form.
    """
    durations: list[float] = []
    queries: defaultdict[str, list[float]] = defaultdict(list)
    for entry in re.split(r"\n(?!\t)", log):
        found = _ENTRY.match(entry)
        if not found:
            continue
        pid, said = found.groups()
        if elapsed := _ELAPSED.match(said):
            queries[pid].append(1000 * float(elapsed[1]))
        elif message := _DURATION.match(said):
            text = message[2]
            count = 0 if text.startswith("EXPLAIN") else len(_CHANGES.findall(text))
            durations += _transactions(float(message[1]), count, queries.pop(pid, []))
    return durations


def _transactions(message_ms: float, count: int, queries_ms: Sequence[float]) -> list[float]:
    if count <= 1:
        return [message_ms] * count
    if len(queries_ms) != 3 * count + 1:  # of each batch two, of which the one that changes rows is told twice
        raise ValueError(f"{count} batches in {len(queries_ms)} queries: another form of a message than ours")
    each = [queries_ms[first] + queries_ms[first + 2] for first in range(0, 3 * count, 3)]
    each[-1] += message_ms - sum(each)
    return each
