"""One batch on trial: carried out and rolled back, with what the server says of it.

Nothing of it stays but what no rollback takes back: sequences advance, and a trigger may have told somebody outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.pace import FIRST
from dbwatch.backfill.part import Part, Timeouts
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.trouble import EXPECTED, sentence
from dbwatch.postgres.session import Connector
from dbwatch.text import age, count, one_line, size


@dataclass(frozen=True, slots=True)
class Fired:
    """A trigger that fired, or a foreign key that was checked."""

    name: str
    constraint: bool
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What one batch did."""

    keys: int
    """Walked; fewer where the table ends."""
    rows: int
    """Changed."""
    seconds: float
    """On the server, triggers included, without COMMIT."""
    wal_bytes: int
    hot: float | None
    """Share of HOT updates. A trial takes the first keys, whose pages may be fuller or emptier than others."""
    read_blocks: int
    """Not found in shared buffers."""
    hit_blocks: int
    dirtied_blocks: int
    fired: tuple[Fired, ...]
    nodes: tuple[str, ...]
    """The plan, a node a line, indented."""


_TRIES = 6
"""Stretches that are tried, each four times the last, until one has a row to change: a million keys in all."""


async def attempt(connector: Connector, plan: Plan, keys: int = FIRST) -> Trial | None:
    """Carries out a batch of so many keys from the first that is to be changed, and rolls it back; None where the table
    is empty.

    Triggers do fire, and sequences do advance. Raises DbwatchError where the server refuses the batch, CannotConnect
    on a standby too, and as `Session.call` does.
    """
    session, statements = await BatchSession.open(connector), plan.legs[0].statements
    timeouts = Timeouts.of(plan.spec.batch_time_ms / 1000, plan.spec.lock_timeout_ms, plan.spec.statement_timeout_ms)
    try:
        found, lo = None, None
        top = await session.top(statements, timeouts) if plan.by_pages else None
        for _ in range(_TRIES):
            hi, _seconds = await session.edge(statements, lo, top, keys, timeouts)
            if hi is None:
                return found
            explained, updates, hot = await session.on_trial(Part(statements, lo, hi, keys, None), timeouts)
            found = read(keys, explained, updates=updates, hot=hot)
            if found.rows:
                return found
            lo, keys = hi, 4 * keys
        return found
    except EXPECTED as error:
        raise sentence(error, f"a batch of {plan.work} on trial") from error
    finally:
        session.session.sever()


def read(keys: int, explained: Mapping[str, Any], *, updates: int, hot: int) -> Trial:
    """What EXPLAIN (ANALYZE, BUFFERS, WAL, FORMAT JSON) says of the batch."""
    top = explained["Plan"]
    return Trial(
        keys=keys,
        rows=updates,
        seconds=explained["Execution Time"] / 1000,
        wal_bytes=top.get("WAL Bytes", 0),
        hot=hot / updates if updates else None,
        read_blocks=top.get("Shared Read Blocks", 0),
        hit_blocks=top.get("Shared Hit Blocks", 0),
        dirtied_blocks=top.get("Shared Dirtied Blocks", 0),
        fired=tuple(
            Fired(
                one_line(trigger.get("Constraint Name") or trigger["Trigger Name"]),
                "Constraint Name" in trigger,
                trigger["Calls"],
                trigger["Time"] / 1000,
            )
            for trigger in explained.get("Triggers", [])
        ),
        nodes=tuple(_nodes(top)),
    )


def _nodes(node: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    target = node.get("Index Name") or node.get("Relation Name")
    on = f" on {target}" if target else ""
    rows = f"{node['Actual Rows']:,.0f} rows"
    took = f"{node['Actual Total Time']:.1f} ms"
    yield one_line(f"{'  ' * depth}{node['Node Type']}{on}: {rows}, {took}")
    for child in node.get("Plans", []):
        yield from _nodes(child, depth + 1)


def told(trial: Trial, pending: int) -> Sequence[str]:
    """What a trial says, a line each, for a person; extrapolated to so many *pending* rows."""
    if not trial.rows:
        return [f"{trial.keys:,} keys walked, none of them pending, {age(trial.seconds)}", *trial.nodes]
    each_s, each_wal = trial.seconds / trial.rows, trial.wal_bytes / trial.rows
    hot = f"{trial.hot:.0%} HOT" if trial.hot is not None else "HOT not counted"
    lines = [
        f"{trial.rows:,} rows in {age(trial.seconds)}, {size(trial.wal_bytes)} of WAL, {hot}; rolled back",
        f"at that rate all {count(pending)} take {age(each_s * pending)} and {size(round(each_wal * pending))} of WAL",
        f"blocks: {trial.hit_blocks:,} found in shared buffers, {trial.read_blocks:,} read, "
        f"{trial.dirtied_blocks:,} dirtied",
    ]
    for fired in trial.fired:
        what = "constraint" if fired.constraint else "trigger"
        lines.append(f"{what} {fired.name}: {fired.calls:,} calls, {age(fired.seconds)}")
    return [*lines, *trial.nodes]
