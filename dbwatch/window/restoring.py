"""The way back of data: what a backfill overwrote is brought back from its before-images, or need not be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Sequence

import psycopg

from dbwatch.backfill import fragments, kept
from dbwatch.backfill.control import Control
from dbwatch.backfill.kept import Kept
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.restore import Restore
from dbwatch.backfill.target import Target
from dbwatch.errors import DbwatchError, UsageError
from dbwatch.journal.events import DdlSeen
from dbwatch.journal.fold import StepState, StepStatus
from dbwatch.migration.fingerprint import Fingerprint
from dbwatch.postgres.session import Role
from dbwatch.runbook.model import Backfill
from dbwatch.text import one_line
from dbwatch.window.abort import Action, ActionKind
from dbwatch.window.ground import Ground

# --- pure: what the plan says


def columns_of(step: Backfill) -> tuple[str, ...]:
    """The columns that a backfill sets; the text before the first `=` where nobody can read it."""
    try:
        return fragments.read(step.table, step.set, step.where).targets
    except UsageError:
        return (step.set.partition("=")[0].strip(),)


def table_of(step: Backfill) -> str:
    """The table's name without its schema."""
    try:
        return fragments.read(step.table, step.set, step.where).table[-1]
    except UsageError:
        return step.table.rpartition(".")[2]


Creator = Callable[[str, str], str]
"""The step that made a column of a table, both by name; empty: it was there at the opening, or is not ours."""


def actions(images: Iterable[Kept], step: Backfill, known: StepState, creator: Creator) -> list[Action]:
    """What brings the data of *step* back; empty where it kept none, or all of it is back.

    Of a step that runs, what it keeps may not be known yet, and it goes on until it is stopped: a forecast.
    """
    runs = known.status is StepStatus.RUNNING
    left = [one for one in images if one.step == step.id and one.there and not one.over]
    columns = [column for column in columns_of(step) if not creator(table_of(step), column)]
    if not left and not (runs and step.undo and columns):
        return []
    rows = f"{sum(one.left for one in left):,} rows at most" + (" so far" if runs else "")
    notes = [f"{rows}, in batches; a row that somebody else changed since stays as it is"]
    if fires := sorted({one_line(trigger) for one in left for trigger in one.fires}):
        notes.append(f"each row fires, as the backfill did: {', '.join(fires)}")
    named = [one.kept_in.display for one in left] or [one_line(f"{step.table}.{', '.join(columns)}")]
    return [
        Action(
            ActionKind.RESTORE,
            f"bring back what {', '.join(dict.fromkeys(named))} held before {step.id}",
            step=step.id,
            sql=tuple(one.kept_in.by_hand() for one in left),
            estimate_s=sum(one.estimate_s for one in left) or 1.0,
            notes=tuple(notes),
            forecast=runs,
        )
    ]


def lost(
    images: Iterable[Kept], step: Backfill, known: StepState, creator: Creator, counted: Container[tuple[str, str]]
) -> list[str]:
    """What the way back loses of what *step* did or overwrote, but for the columns that are *counted* elsewhere."""
    mine = [one for one in images if one.step == step.id]
    safe = {column for one in mine if one.there or one.over for column in one.kept_in.columns}
    rows = f" ({known.text})" if known.status is StepStatus.DONE and known.text else ""
    found = []
    for column in columns_of(step):
        name = one_line(f"{step.table}.{column}")
        if (table_of(step), column) in counted:
            continue
        if maker := creator(table_of(step), column):
            found.append(f"{name}{rows}: made by {maker}, goes with the column")
        elif column not in safe and any(column in one.kept_in.columns for one in mine):
            found.append(f"{name}{rows}: its before-images are gone; somebody dropped their table")
        elif column not in safe and not (step.undo and known.status is StepStatus.RUNNING):
            found.append(f"{name}{rows}: existed at the opening; what it held before is not kept")
    return found


def overwrites(step: Backfill, created: frozenset[str]) -> str:
    """The first column that *step* overwrites for good; empty where there is none, or it keeps before-images.

    *created* are the columns (`users.phone`) that the window itself makes.
    """
    if step.undo:
        return ""
    names = (f"{table_of(step)}.{column}" for column in columns_of(step))
    return next((name for name in names if name not in created), "")


def creator(opening: Fingerprint | None, ddl: Sequence[DdlSeen], table: str, column: str) -> str:
    """As `maker`, where only the names are known, and where the opening may not be."""
    items = opening.items.values() if opening is not None else ()
    if any((item.kind, item.parent, item.name) == ("column", table, column) for item in items):
        return ""
    wanted = (("column", table, column), ("table", None, table))
    for fact in ddl:
        for made in fact.objects:
            if made.get("action") == "create" and (made.get("kind"), made.get("parent"), made.get("name")) in wanted:
                return fact.step
    return ""


def maker(opening: Fingerprint, ddl: Sequence[DdlSeen], target: Target, column: str) -> str:
    """The step of this window that made *column* of *target*; empty where it was there at the opening, or is not ours.

    ADD COLUMN IF NOT EXISTS may have made nothing: so the opening is asked first, by name and by the table's OID.
    """
    for item in opening.items.values():
        its = item.oid == target.oid or (item.schema, item.parent) == (target.schema, target.name)
        if item.kind == "column" and item.name == column and its:
            return ""
    for fact in reversed(ddl):
        for made in fact.objects:
            if made.get("action") != "create" or not _same_table(made, target):
                continue
            if made.get("kind") == "table" or (made.get("kind") == "column" and made.get("name") == column):
                return fact.step
    return ""


def _same_table(made: dict[str, object], target: Target) -> bool:
    if made.get("oid") is not None:
        return made["oid"] == target.oid
    name = made.get("name") if made.get("kind") == "table" else made.get("parent")
    return name == target.name and made.get("schema") in (None, target.schema)


# --- the edge: carrying it out


async def bring_back(
    ground: Ground, step_id: str, *, stop: asyncio.Event, show: Callable[[BackfillProgress], None]
) -> str:
    """Brings back what the backfills of a step overwrote, the newest first; how that went, in words.

    Raises DbwatchError where it was stopped or cannot go on, and Fenced where somebody took over.
    """
    fence = ground.store.fence
    said = []
    for one in await kept.of_window(await ground.control.session(), ground.store.window):
        if one.step != step_id or not one.there:
            continue
        hand = Control()
        restore = Restore(
            ground.connector.tagged(fence.tag), one, clock=ground.clock, control=hand, progress=show, fence=fence
        )
        stopping = asyncio.create_task(_stop(stop, hand))
        try:
            returned = await restore.run()
        finally:
            stopping.cancel()
        if returned.outcome is State.STOPPED:
            raise DbwatchError("stopped by hand", why=f"{returned.rows:,} rows were brought back so far")
        said.append(str(returned))
    return "; ".join(said) or "nothing was left to bring back"


async def _stop(stop: asyncio.Event, hand: Control) -> None:
    await stop.wait()
    hand.stop()


async def let_go(ground: Ground) -> str:
    """Drops the before-images of windows that are done: nobody takes them back any more. What became of each, in words.

    Where one cannot be dropped now it is named with its size, and the next window that ends tries it again. Never
    raises for the database's sake: the window is closed, whatever becomes of them.
    """
    said = []
    try:
        session = await ground.connector.open(Role.WORKER, within=2.0)
        try:
            for one in await kept.of_done(session):
                said.append(await kept.drop(session, one.kept_in, even_full=True))
        finally:
            await session.close()
    except (DbwatchError, psycopg.Error) as error:
        said.append(f"before-images stay: {error}")
    return "; ".join(filter(None, said))
