"""What was begun, and whether a plan may go on with it: rows that were set, images that were kept, what a cursor
means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from dbwatch.backfill.fragments import spelled
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.row import MADE_OF, OIDS, RESTORING, Row
from dbwatch.errors import Refused
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection
from dbwatch.text import one_line


def resumed(plan: Plan, row: Row, *, again: bool) -> Row | None:
    """*row*, which was begun in mode once, where *plan* goes on with it; None where nothing of it was done, for its
    column is another one now, or where it is to begin *again*.

    Raises Refused where its cursor means something else now.
    """
    tops = row.position.tops
    was = tops.get(MADE_OF) if isinstance(tops, dict) else None  # an older version did not keep it
    now = plan.made_of
    if was is None or was == now:
        return row
    if again or (was["table"] == now["table"] and was["set"] != now["set"]):
        return None
    what = "the table is another one" if was["table"] != now["table"] else "its key is compared otherwise"
    raise Refused(
        f"the backfill of {plan.table} cannot go on from its cursor",
        why=f"{what} than when backfill {row.id} began, and only the cursor tells which rows it has set",
        next="look which rows have their value; --again begins anew, with every row",
    )


async def require_not_begun_otherwise(connection: Connection, plan: Plan, window: UUID | None) -> None:
    """Raises Refused where rows were set already by the same words, spelled otherwise or on a walk by another key."""
    others = await connection.execute(
        query("backfill-otherwise", connection.info.server_version),
        {"spec": plan.spec_json, "spec_hash": plan.spec_hash, "window": window},
    )
    now = json.loads(plan.spec_json)
    otherwise = "" if window else "; --again begins anew, with every row"  # which no runbook can say
    async for text, ceiling, done in others:
        was = json.loads(text)
        if spelled(was["set"], was["where"]) != spelled(now["set"], now["where"]) or _other_column(plan, ceiling):
            continue
        key, how, look = ",".join(was["key"]), *(("is done", "see") if done else ("was begun", "go on with"))
        if was["key"] != now["key"]:
            raise Refused(
                f"the backfill of {plan.table} {how} by another key",
                why=f"only its cursor, which goes by ({one_line(key)}), tells which rows it has set",
                next=f"{look} it: --key {one_line(key)}{otherwise}",
            )
        raise Refused(
            f"the backfill of {plan.table} {how} in other words",
            why=f"it sets {one_line(was['set'])!r} where {one_line(was['where'])!r}, which means the same",
            next=f"{look} it: write it as then{otherwise}",
        )


def _other_column(plan: Plan, ceiling: str | None) -> bool:
    """Whether what was set then was another table's, or a column's that is gone: nothing of it is there any more."""
    tops = json.loads(ceiling) if ceiling else None
    was = tops.get(MADE_OF) if isinstance(tops, dict) else None
    return was is not None and any(was[part] != plan.made_of[part] for part in ("table", "set"))


def require_whole(plan: Plan, rows: Sequence[Row]) -> None:
    """Raises Refused where the data of one of *rows* has gone back half-way: what is done and what not is mixed."""
    for row in rows:
        if row.status == RESTORING:
            raise Refused(
                f"the data of a backfill of {plan.table} is being brought back",
                why=f"{row.restored} rows so far, by {one_line(row.owner)}",
                next="let that end first: go on with the abort",
            )


def require_images(plan: Plan, row: Row, window: UUID | None) -> None:
    """Raises Refused where *plan* asks for before-images, and rows were changed that have none for this window."""
    if not plan.kept:
        return
    if row.images is None and row.batches:
        raise Refused(
            f"the backfill of {plan.table} was begun without undo",
            why=f"{row.rows_done} rows were changed already, and what they held before is not known",
            next="finish it without undo",
        )
    if row.window_id != window:
        raise Refused(
            f"the backfill of {plan.table} was begun outside this window",
            why="an abort of this window would take back what was there when it opened",
            next="finish it where it was begun, or without undo",
        )


def require_route(plan: Plan, row: Row) -> None:
    """Raises Refused where only the cursors of partitions tell what was done, and *plan* does not know them so."""
    begun = row.position.tops if plan.spec.mode == "once" else None
    if not isinstance(begun, dict) or row.position.as_one:
        return
    if not plan.legs[0].partition:
        raise Refused(
            f"the backfill of {plan.table} was begun partition by partition",
            why="as it would go on now, it walks the table as one, and would lose rows or do them twice",
            next="let a role that may fill each partition by itself go on with it, without undo",
        )
    at, now = row.position.place.leg, {leg.oid: leg.name for leg in plan.legs}
    oids = begun.get(OIDS, {})
    changed = {leg.oid for leg in plan.legs if oids.get(leg.name, leg.oid) != leg.oid}
    for name, oid in oids.items():
        if now.get(oid, name) != name and (name >= at or oid in changed):
            raise Refused(
                f"partition {one_line(name)} is called {one_line(now[oid])} now",
                why="how far it is filled is known under the name that it had",
                next="give it that name back until this is done",
            )
