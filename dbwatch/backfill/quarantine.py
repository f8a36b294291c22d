"""Rows that could not take their value: what the journal holds of them, how it is told, and how they are tried again.

They are in table dbwatch.quarantine, each under its backfill's id and its key. One goes in with the cursor's move past
it (`hunt.py`), and out in the transaction that fills it.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

import psycopg
from psycopg import sql

from dbwatch.backfill import claim, fragments, row
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.images import Images
from dbwatch.backfill.keys import from_text, to_text
from dbwatch.backfill.part import Part, Timeouts
from dbwatch.backfill.row import RESTORED, RESTORING, Position, Row
from dbwatch.backfill.statements import Statements
from dbwatch.backfill.target import describe_table, unique_indexes
from dbwatch.backfill.trouble import MOVED, Poison, poisonous
from dbwatch.errors import DbwatchError, Refused, UsageError
from dbwatch.journal import rights, schema
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.text import one_line, sanitize

MISSING = "dbwatch: not in quarantine any more"
"""In the text that `backfill-quarantine-out.sql` fails to cast where the row is not there."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows of one backfill are in quarantine, by SQLSTATE, the most frequent first."""

    by_state: tuple[tuple[str, int], ...] = ()

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.by_state)

    def __str__(self) -> str:
        return ", ".join(f"{state}: {rows}" for state, rows in self.by_state)


@dataclass(frozen=True, slots=True)
class Held:
    """A row in quarantine, and whose."""

    id: int
    """The backfill's."""
    poison: Poison


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of rows that were tried again."""

    filled: int
    """Filled, and out of quarantine."""
    healed: int
    """Out of quarantine, for nothing was to be done: WHERE does not take them any more, or they are gone."""
    left: tuple[Poison, ...]
    """Still there, each with why it failed this time."""


def told(rows: int) -> str:
    """So many rows, as the subject of a sentence. Pure."""
    return "1 row is" if rows == 1 else f"{rows:,} rows are"


def explained(id: int, tally: Tally) -> str:
    """Why the backfill of that *id* left rows undone, and what can be done; empty where it left none. Pure."""
    if not tally.rows:
        return ""
    return (
        f"{told(tally.rows)} in quarantine and NOT filled ({tally}): dbwatch backfill status --quarantine lists them, "
        f"dbwatch backfill retry --id {id} tries them again"
    )


def spent(work: str, id: int, tally: Tally, budget: int, last: Poison) -> DbwatchError:
    """The end of *work* whose *budget* is spent, by the row that was met *last*, which is not in quarantine. Pure."""
    return DbwatchError(
        f"{work} has met more rows that cannot take their value than the {budget:,} that may be set aside",
        why=f"{tally} in quarantine; and then {shown(last.key)}: {last.message} ({last.sqlstate})",
        next=f"mend SET, WHERE or the rows; dbwatch backfill retry --id {id} tries those in quarantine again,"
        " --quarantine allows more; started again it goes on from its cursor",
    )


def shown(key: str) -> str:
    """*key* for a person: harmless, and still JSON that names the row. Pure."""
    if sanitize(key) == key:
        return key
    return json.dumps(json.loads(key), separators=(",", ":")).replace("\x7f", "\\u007f")


def canonical(key: str) -> str:
    """*key*, a JSON array of a row's key values as a person writes it, as the journal keeps it. Pure.

    Raises UsageError where it is none.
    """
    try:
        values = json.loads(key, parse_int=str, parse_float=str)
    except ValueError:
        values = None
    if not isinstance(values, list) or not values or any(isinstance(v, dict | list | None) for v in values):
        raise UsageError(
            f"the key {one_line(key, 100)!r} is no list of values",
            next="""write it as it is listed: '["42"]', or '["shop","42"]'""",
        )
    return to_text(tuple(value if isinstance(value, str) else json.dumps(value) for value in values))


async def tally(session: Session, id: int, *, within: float = 5.0) -> Tally:
    """How many rows the backfill of that *id* holds in quarantine. Raises as `Session.call` does."""
    found = await session.values(query("backfill-tally", session.server_version), {"id": id}, within=within)
    return Tally(tuple(Counter({sanitize(state): rows for state, rows in found}).most_common()))


async def of_step(session: Session, window: UUID, step: str) -> int | None:
    """The id of the backfill that *step* of that *window* ran last; None: it never began. Raises as `Session.call`."""
    asked = query("backfill-of-step", session.server_version)
    [(id,)] = await session.values(asked, {"window": window, "step": step})
    return None if id is None else int(id)


async def listed(
    session: Session, id: int | None = None, *, most: int | None = None, within: float = 10.0
) -> tuple[Held, ...]:
    """The rows in quarantine of one backfill, or of all, by key; the first *most* of them.

    Raises as `Session.call` does.
    """
    asked = {"id": id, "most": most}
    found = await session.values(query("backfill-quarantined", session.server_version), asked, within=within)
    return tuple(Held(id, Poison(key, one_line(state, 5), one_line(why, 500))) for id, key, state, why in found)


async def retry(connector: Connector, id: int, key: str | None = None) -> Retried:
    """Tries the rows again that the backfill of that *id* holds in quarantine, or the one under *key* (`canonical`).

    Each has a transaction of its own, which fills it, keeps its before-image where the others have one, counts it and
    takes it out. Raises UsageError where the journal does not know the backfill or the row, Refused where its owner is
    alive or its data went back, psycopg.Error where a privilege or the table is missing, and as `Session.call` does:
    rows that were done by then are out.
    """
    session = await connector.open(Role.JOURNAL)
    try:
        found = await _known(session, id)
        rows = [held.poison for held in await listed(session, id) if key in (None, held.poison.key)]
        if key is not None and not rows:
            raise UsageError(
                f"{shown(key)} is not in the quarantine of backfill {id}",
                next="see dbwatch backfill status --quarantine",
            )
        statements = await _statements(session, found)
        images = await _images(session, found)
        batches = await BatchSession.open(connector.tagged(f"retry {secrets.token_hex(3)}"))
        batches.images = images
        try:
            return await _each(session, batches, statements, found, rows)
        finally:
            await batches.session.close()
    finally:
        await session.close()


async def _known(session: Session, id: int) -> Row:
    await rights.require_reading(session)
    found = await row.read(session, id) if await schema.present(session) else None
    if found is None:
        raise UsageError(f"the journal knows no backfill {id}", next="see dbwatch backfill status")
    if found.status in (RESTORING, RESTORED):
        raise Refused(f"the data of backfill {id} went back, or goes back now", next="run it again instead")
    if found.status == "running":
        occupied = await session.call(lambda connection: claim.occupied(connection, found), within=5.0)
        if occupied is not None:
            raise claim.at_work(occupied, f"backfill {id}")
    return found


async def _statements(session: Session, found: Row) -> Statements:
    """Those of the backfill, by its own spec."""
    spec = json.loads(found.spec)
    target = await describe_table(session, spec["table"], within=5.0)
    its = [i for i in await unique_indexes(session, target, within=5.0) if i.columns == spec["key"]]
    read = fragments.read(sql.Identifier(*spec["table"]).as_string(), spec["set"], spec["where"])
    index = next((i for i in its if not i.obstacle(read.targets, loose=True)), None)
    if index is None:
        raise Refused(
            f"{target.display} has no unique index on ({one_line(', '.join(spec['key']))}) any more",
            why="it is the key that the backfill went by",
            next="make it anew, then try again",
        )
    return Statements(target.schema, target.name, index.key, spec["set"], spec["where"], None)


async def _images(session: Session, found: Row) -> Images | None:
    """Where before-images are kept; None where they are not, or were dropped since: their window is done."""
    images = found.kept_in
    if images is None:
        return None
    there = await session.values("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", [images.named])
    return images if there == [(True,)] else None


async def _each(
    session: Session, batches: BatchSession, statements: Statements, found: Row, rows: Iterable[Poison]
) -> Retried:
    at, filled, healed = found.position, 0, 0
    left: list[Poison] = []
    try:
        for poison in rows:
            try:
                done = await _one(batches, statements, at, poison)
            except psycopg.Error as error:
                await batches.rollback()
                if MOVED in str(error) or MISSING in str(error):
                    raise _overtaken(found) from error
                if (error.sqlstate or "")[:2] == "42":  # a privilege, or a table that is gone: no row's fault
                    raise
                left.append(await _again(session, found.id, poison, error))
            else:
                at = at.after(rows=done, keys=0, cursor=at.cursor)
                filled, healed = filled + done, healed + 1 - done
    finally:
        if at != found.position:
            await _noted(session, found, filled)
    return Retried(filled, healed, tuple(left))


async def _one(batches: BatchSession, statements: Statements, at: Position, poison: Poison) -> int:
    """Rows filled: 1, or 0 where there was nothing to do."""
    key = from_text(poison.key)
    part = Part(statements.alone(), key, key, 0, at.cursor)
    return (await batches.retry(at, part, poison.key, Timeouts.of(0.1))).rows


async def _again(session: Session, id: int, poison: Poison, error: psycopg.Error) -> Poison:
    """*poison* with why it failed this time; the journal has it too where it is the row's fault."""
    now = Poison.of(from_text(poison.key), error)
    if poisonous(error) and now != poison:
        why = {"id": id, "key": poison.key, "sqlstate": now.sqlstate, "message": now.message}
        await session.execute(query("backfill-quarantine-again", session.server_version), why)
    return now


async def _noted(session: Session, found: Row, filled: int) -> None:
    """Lets the journal's row say how many are left, where it said how many there were."""
    left = await tally(session, found.id)
    note = explained(found.id, left) or f"{filled:,} rows were filled afterwards, out of quarantine"
    values = {"id": found.id, "epoch": found.epoch, "note": note, "left": left.rows}
    await session.execute(query("backfill-retried", session.server_version), values)


def _overtaken(found: Row) -> Refused:
    return Refused(
        f"backfill {found.id} is at work elsewhere",
        why="it was taken up, or its rows were tried again, in this moment",
        next="look at dbwatch backfill status, and try again",
    )


def lines(held: Iterable[Held], most: int = 10_000) -> list[str]:
    """A line a row for a person, those of one backfill: key, SQLSTATE, why. Pure."""
    rows = [(shown(one.poison.key), one.poison) for one in islice(held, most)]
    width = min(40, max((len(key) for key, _ in rows), default=0))
    return [f"{key:{width}}  {poison.sqlstate}  {poison.message}" for key, poison in rows]
