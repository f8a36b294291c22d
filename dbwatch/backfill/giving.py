"""Gives an order to a backfill that runs elsewhere, and waits a moment to see what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from dbwatch.backfill import known
from dbwatch.backfill.known import Known
from dbwatch.backfill.orders import Act
from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError, Refused, UsageError
from dbwatch.journal import rights
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.text import one_line

TAKEN_UP = ("running", "stopped", "incomplete", "failed")
"""In one of these somebody works on it, or may take it up: a pause that stands can be lifted."""
NOTICED_WITHIN_S = 5.0
"""How long whoever gives an order waits to see it obeyed."""
ASK_EVERY_S = 0.2


async def give(connector: Connector, clock: Clock, act: Act, *, id: int | None, by: str, why: str) -> str:
    """Has the backfill of that *id*, or the one that is at work, pause or go on; what came of it, in one sentence.

    Raises UsageError where it is not clear which one is meant, Refused where our role may not, DbwatchError where
    there is nothing to order, CannotConnect, and as `Session.call` does.
    """
    session = await connector.open(Role.JOURNAL)
    try:
        found = chosen(await known.backfills(session), act, id)
        if act == "pause" and found.paused is not None:
            return f"{_named(found)} was {found.paused} already, since {found.paused.since}"
        text = await _ordered(session, found, act, by=one_line(by, 100), why=one_line(why, 200))
        if text is None:
            raise _overtaken(next((k for k in await known.backfills(session) if k.id == found.id), found), act)
        return await _came_of(session, clock, found, act, text)
    finally:
        await session.close()


def chosen(found: Sequence[Known], act: Act, id: int | None) -> Known:
    """The one that is meant: that of the *id*, else the one at work, or to resume the one that is paused. Pure.

    Raises UsageError where there are several, or none of that id, and DbwatchError where there is none at all.
    """
    if id is not None:
        its = [one for one in found if one.id == id]
        if not its:
            raise UsageError(f"the journal knows no backfill {id}", next="see dbwatch backfill status")
        return its[0]
    meant = [one for one in found if (one.paused if act == "resume" else one.alive and one.status == "running")]
    if len(meant) > 1:
        these = ", ".join(f"{one.id} ({one.table})" for one in meant)
        which = "at work" if act == "pause" else "paused"
        raise UsageError(f"several backfills are {which}: {these}", next=f"say which: --id {meant[0].id}")
    if meant:
        return meant[0]
    if act == "resume":
        raise DbwatchError(
            "no backfill here was paused from another terminal",
            next="one that was paused at its own screen goes on there; see dbwatch backfill status",
        )
    raise DbwatchError("no backfill is at work here", next="see dbwatch backfill status")


async def _ordered(session: Session, found: Known, act: Act, *, by: str, why: str) -> str | None:
    """The order as it was written; None where the backfill can take none now."""
    states = ["running"] if act == "pause" else list(TAKEN_UP)
    order = {"act": act, "by": by, "why": why, "id": found.id, "states": states}
    try:
        rows = await session.values(query("backfill-order", session.server_version), order)
    except psycopg.errors.InsufficientPrivilege as error:
        ours = await rights.look(session)
        raise Refused(f"our role may not {act} {_named(found)}", next=ours.to_order) from error
    except psycopg.errors.UndefinedColumn as error:
        raise Refused(
            f"{_named(found)} hears no orders",
            why="an older dbwatch made this journal",
            next=f"{act} it where it runs; the next backfill that is started brings the journal up to date",
        ) from error
    return rows[0][0] if rows else None


def _overtaken(now: Known, act: Act) -> DbwatchError:
    """Why an order came to nothing, as the backfill stands *now*. Pure."""
    if act == "pause" and now.paused is not None:
        return DbwatchError(f"{_named(now)} was {now.paused} in this moment")
    if act == "pause":
        return DbwatchError(f"{_named(now)} is {now.status} already: there is nothing to pause")
    if now.status in known.OVER:
        return DbwatchError(f"{_named(now)} is {now.status} already: there is nothing to resume")
    return DbwatchError(
        f"{_named(now)} is not paused from another terminal",
        next="where it was paused at its own screen it goes on there",
    )


async def _came_of(session: Session, clock: Clock, found: Known, act: Act, text: str) -> str:
    """What the worker did about the order *text*, as far as that is seen in a few seconds."""
    name, until = _named(found), clock.monotonic() + NOTICED_WITHIN_S
    while True:
        asked = await session.values(query("backfill-obeyed", session.server_version), {"id": found.id})
        status, ordered, heeded = asked[0] if asked else ("gone", None, False)
        if status == "done" and act == "resume":
            return f"{name} went on, and is done"
        if status in ("done", "gone"):
            raise DbwatchError(f"{name} is {one_line(status, 20)} meanwhile: there is nothing to {act}")
        if heeded and ordered == text:
            return f"{name} {'is paused' if act == 'pause' else 'goes on'}"
        if ordered != text:
            return f"{name}: another order, or a person at its screen, came after this one; see dbwatch backfill status"
        if not found.alive or status != "running":
            later = "begins paused" if act == "pause" else "goes on where it stands"
            return f"{name} has nobody at work on it now; whoever takes it up {later}"
        if clock.monotonic() >= until:
            said = "pauses once its batch is over" if act == "pause" else "goes on once it reads this"
            return f"{name} has not answered within {NOTICED_WITHIN_S:g} s; the order stands, and it {said}"
        await clock.sleep(ASK_EVERY_S)


def _named(one: Known) -> str:
    return f"backfill {one.id} of {one.table}"
