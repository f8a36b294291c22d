"""What a person at a window asks of its backfills: the plan before anything runs, and the rows that were set aside."""

from __future__ import annotations

from dbwatch.backfill import quarantine, retrying
from dbwatch.backfill.outline import outline
from dbwatch.backfill.retrying import Retried
from dbwatch.errors import Refused, UsageError
from dbwatch.journal import schema
from dbwatch.postgres.session import Role
from dbwatch.runbook.model import Backfill
from dbwatch.steps import backfill
from dbwatch.window import restoring
from dbwatch.window.feed import Aside, AsideRow, Foretold
from dbwatch.window.ground import Ground

STOPPED = "the try was stopped: each row is filled and out, or as it was"
LISTED = 1_000
"""Rows of a quarantine that a screen is given: more nobody reads there, and `backfill status` lists them all."""


async def foretell(ground: Ground, step: str) -> Foretold:
    """What the backfill *step* would do if it were begun now; nothing is changed, and no lock is waited for.

    On connections of its own. Raises DbwatchError where it could not be begun as it is written, or cannot be planned.
    """
    plan, explained = await backfill.foreseen(
        _backfill(ground, step),
        ground.base,
        lambda target, column: restoring.maker(ground.opening, ground.store.state.ddl, target, column),
    )
    return Foretold(step, tuple(outline(plan)), tuple(plan.batch_sql.splitlines()), explained)


async def aside(ground: Ground, step: str) -> Aside:
    """What the backfill *step* holds in quarantine, its first rows by key.

    On a connection of its own. Raises DbwatchError, and psycopg.Error where our role may not read it.
    """
    session = await ground.base.open(Role.PROBE)
    try:
        id = None
        if await schema.present(session):
            id = await quarantine.of_step(session, ground.store.window, step)
        if id is None:
            return Aside(step)
        held = await quarantine.tally(session, id)
        found = await quarantine.listed(session, id, most=LISTED)
    finally:
        await session.close()
    rows = tuple(
        AsideRow(one.poison.key, quarantine.shown(one.poison.key), one.poison.sqlstate, one.poison.message)
        for one in found
    )
    return Aside(step, id, held.rows, str(held), rows)


async def retry(ground: Ground, step: str, key: str | None) -> Retried:
    """Tries the rows again that the backfill *step* holds in quarantine, or the one under *key*.

    Raises Refused where it never began, or its owner is at work, and as `retrying.retry`.
    """
    session = await ground.base.open(Role.JOURNAL)
    try:
        id = await quarantine.of_step(session, ground.store.window, step)
    finally:
        await session.close()
    if id is None:
        raise Refused(f"{step} never began in this window", next="there is nothing to try again")
    return await retrying.retry(ground.base, id, key)


def told(result: Retried) -> str:
    """What became of the rows, in a sentence without its end. Pure."""
    tried = result.filled + result.healed + len(result.left) + result.handed_back
    parts = [f"{result.filled:,} filled"]
    if result.healed:
        parts.append(f"{result.healed:,} needed nothing any more")
    if result.handed_back:
        parts.append(f"{result.handed_back:,} changed since, left to the backfill")
    if result.left:
        last = result.left[0]
        parts.append(f"{len(result.left):,} cannot still ({last.sqlstate}: {last.message})")
    return f"{tried:,} {'row' if tried == 1 else 'rows'} tried again: {', '.join(parts)}"


def _backfill(ground: Ground, step: str) -> Backfill:
    spec = ground.runbook.step(step)
    if not isinstance(spec, Backfill):
        raise UsageError(f"{step} is no backfill")
    return spec
