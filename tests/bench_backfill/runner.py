"""Runs a figure: its contenders one after the other, round by round, each on a table that nobody has touched."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from servers import client_tools

from bench_backfill import child
from bench_backfill.load import Load, felt, now
from bench_backfill.stage import Stage, lsn, old_snapshot, one_checkpoint
from bench_backfill.values import App, Contender, Figure, Kind, Run, batches_of
from dbwatch.errors import DbwatchError

MID_RUN_WAL = 250
"""Bytes of WAL a row, after which a run is about half over."""
LONGEST_S = 1200.0
LOGGED = {"PGOPTIONS": child.LOGGED}
"""So that the server itself tells how long each batch took, of whichever contender."""

_LEFT = "SELECT count(*) FROM users WHERE phone IS NULL"
_HEAP = "SELECT pg_relation_size('users')"
_HOT = "SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'users'"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asked for."""

    rows: int
    rounds: int
    batch_time: str
    alone_s: float
    """How long the application runs alone, and how long its capacity is measured."""


async def measure(at: Stage, figure: Figure, asked: Asked, tell: Callable[[str], None]) -> tuple[Run, ...]:
    """All runs of *figure*; in each round another contender begins. Raises DbwatchError where the tool fails."""
    rows = max(1, round(asked.rows * figure.table.share * figure.scale))
    await at.set(figure.settings)
    tps = await _tps(at, figure, rows, asked) if figure.load else 0.0
    runs = []
    for number in range(asked.rounds):
        first = number % len(figure.contenders)
        for contender in figure.contenders[first:] + figure.contenders[:first]:
            run = await _one(at, figure, contender, number, rows, tps, asked)
            tell(f"  round {number + 1}, {contender.name}: {run.seconds:.2f} s{', cut off' if run.cut else ''}")
            runs.append(run)
    return tuple(runs)


async def _tps(at: Stage, figure: Figure, rows: int, asked: Asked) -> float:
    await at.fresh(figure.table, rows)
    return (figure.load or 0.0) * await _load(at, rows).capacity(asked.alone_s)


def _load(at: Stage, rows: int) -> Load:
    folder = at.server.folder / "load"
    folder.mkdir(exist_ok=True)
    return Load(client_tools() / "pgbench", at.dsn, rows, folder)


async def _one(
    at: Stage, figure: Figure, contender: Contender, number: int, rows: int, tps: float, asked: Asked
) -> Run:
    await at.fresh(figure.table, rows)
    log_from = at.server.log.stat().st_size
    async with at.connected("postgres") as watching, AsyncExitStack() as stack:
        if figure.old_xmin:
            await stack.enter_async_context(old_snapshot(at))
        if figure.checkpoint:
            await stack.enter_async_context(one_checkpoint(at, rows * MID_RUN_WAL))
        async with at.connected() as looking:
            [(heap_before,)] = await (await looking.execute(_HEAP)).fetchall()
        app: App | None = None
        lsn_before = await lsn(watching)
        if tps:
            async with _load(at, rows).at(tps, seed=number + 1) as requests:
                began = now()
                ended = await _act(at, figure, contender, asked)
                until = now()
                lsn_after = await lsn(watching)
            app = felt(requests, tps, began, until)
        else:
            ended = await _act(at, figure, contender, asked)
            lsn_after = await lsn(watching)
    if ended.cut or ended.code:
        if contender.kind is Kind.TOOL or not ended.cut:
            raise DbwatchError(f"{contender.name} failed", why=ended.complained[-500:] or str(ended.said))
        await at.end_sessions()
    async with at.connected() as looking:
        [(pending,)] = await (await looking.execute(_LEFT)).fetchall()
        [(heap_after,)] = await (await looking.execute(_HEAP)).fetchall()
        [(hot, updated)] = await (await looking.execute(_HOT)).fetchall()
    with at.server.log.open(errors="replace") as log:
        log.seek(log_from)
        durations = child.batch_durations_ms(log.read())
    return Run(
        contender.name,
        number,
        rows,
        ended.seconds,
        0 if contender.kind is Kind.NOBODY else pending,
        lsn_after - lsn_before,
        heap_before,
        heap_after,
        hot / updated if updated else None,
        batches_of(durations),
        ended.cpu_s,
        ended.trace,
        app,
        ended.cut,
        ended.said,
    )


async def _act(at: Stage, figure: Figure, contender: Contender, asked: Asked) -> child.Ended:
    if contender.kind is Kind.NOBODY:
        await asyncio.sleep(asked.alone_s)
        return child.Ended(0, asked.alone_s, 0.0, (), {}, "", cut=False)
    return await child.run(
        command(contender, at.dsn, asked.batch_time),
        LOGGED,
        figure.rivals_s if contender.kind is Kind.RIVAL else LONGEST_S * figure.scale,
        at.server.folder / "complaints.log",
    )


def command(contender: Contender, dsn: str, batch_time: str) -> list[str]:
    """What is run."""
    if contender.kind is Kind.RIVAL:
        loop, *options = contender.arguments
        return [sys.executable, str(Path(__file__).with_name("rivals.py")), loop, dsn, *options]
    beside = Path(sys.executable).with_name("dbwatch")
    dbwatch = str(beside) if beside.exists() else shutil.which("dbwatch") or "dbwatch"
    what = ("--table", "users", "--set", "phone = legacy_phone", "--where", "phone IS NULL")
    return [dbwatch, "backfill", dsn, *what, "--batch-time", batch_time, "--json", *contender.arguments]
