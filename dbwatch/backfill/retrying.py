"""Rows in quarantine are tried again, each in a transaction of its own.

A key leads to its row whatever became of it. A version does not: who mends the row makes another one. So where nothing
can be filled at a version any more, the table is looked at as a whole for what is pending outside of quarantine, and
that is tried; the version's name goes only when such a look finds nothing. Of a backfill that is not done it goes at
once: that one comes by again.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from dbwatch.backfill import claim, fragments, row
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.images import Images
from dbwatch.backfill.keys import Key
from dbwatch.backfill.pages import VERSION
from dbwatch.backfill.part import Part, Timeouts
from dbwatch.backfill.quarantine import explained, listed, shown, tally
from dbwatch.backfill.row import RESTORED, RESTORING, Row
from dbwatch.backfill.statements import Statements
from dbwatch.backfill.target import describe_table, unique_indexes
from dbwatch.backfill.trouble import MOVED, Poison, poisonous
from dbwatch.errors import Refused, UsageError
from dbwatch.journal import rights, schema
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Role, Session, describe
from dbwatch.text import one_line

MISSING = "dbwatch: not in quarantine any more"
"""In the text that `backfill-quarantine-out.sql` fails to cast where the row is not there."""


LOOK_ROWS, LOOK_MS = 1_000, 30_000
"""How many rows a look at a whole table brings: more are the backfill's own work; and how long it may hold its
snapshot."""
_LIMITS = Timeouts.of(0.1)


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of rows that were tried again."""

    filled: int
    """Filled, and out of quarantine."""
    healed: int
    """Out of quarantine, for nothing was to be done: WHERE does not take them any more, or they are gone."""
    left: tuple[Poison, ...]
    """Still there, each with why it failed this time."""
    handed_back: int = 0
    """Out of quarantine, for they were changed: the backfill, which is not done, meets them again."""


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
            return await _Tries(session, batches, statements, found).all(rows)
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
    read = fragments.read(sql.Identifier(*spec["table"]).as_string(), spec["set"], spec["where"])
    texts = spec["set"], spec["where"], read.stays_pending
    if not spec["key"]:
        return Statements(target.schema, target.name, (), *texts)
    its = [i for i in await unique_indexes(session, target, within=5.0) if i.columns == spec["key"]]
    index = next((i for i in its if not i.obstacle(read.targets, loose=True)), None)
    if index is None:
        raise Refused(
            f"{target.display} has no unique index on ({one_line(', '.join(spec['key']))}) any more",
            why="it is the key that the backfill went by",
            next="make it anew, then try again",
        )
    return Statements(target.schema, target.name, index.key, *texts, nullable=index.nullable)


async def _images(session: Session, found: Row) -> Images | None:
    """Where before-images are kept; None where they are not, or were dropped since: their window is done."""
    images = found.kept_in
    if images is None:
        return None
    there = await session.values("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", [images.named])
    return images if there == [(True,)] else None


class _Tries:
    """Tries rows of one backfill, and remembers what became of them."""

    def __init__(self, session: Session, batches: BatchSession, statements: Statements, found: Row) -> None:
        self._session = session
        self._batches = batches
        self._statements = statements
        self._found = found
        self._at = found.position
        self._filled = 0
        self._healed = 0
        self._handed_back = 0
        self._left: list[Poison] = []

    async def all(self, rows: Iterable[Poison]) -> Retried:
        """Tries *rows*. Raises as `retry` does."""
        try:
            gone = [poison for poison in rows if not await self._tried(poison)]
            if gone and not self._found.finished:
                await self._out(*gone)
                self._handed_back = len(gone)
            elif gone:
                await self._looked_for(gone)
        finally:
            if self._at != self._found.position:
                await self._noted()
        return Retried(self._filled, self._healed, tuple(self._left), self._handed_back)

    async def _tried(self, poison: Poison) -> bool:
        """Tries one; False where nothing could be filled at its version."""
        one, hi = self._statements.one(poison.key)
        by_version = one.one_by == VERSION
        part = Part(one, None, hi, 0, self._at.cursor, fillable=by_version)
        try:
            if by_version:
                filled = await self._batches.fill(self._at, part, _LIMITS)
            else:
                filled = await self._batches.retry(self._at, part, poison.key, _LIMITS)
        except psycopg.Error as error:
            await self._refused(error)
            self._left.append(await self._again(poison, error))
            return True
        self._passed(filled.rows)
        if not by_version:
            self._healed += 1 - filled.rows
        elif filled.rows:
            await self._out(poison)
        return not by_version or filled.rows > 0

    async def _looked_for(self, gone: list[Poison]) -> None:
        """Tries what is pending outside of quarantine: whatever the rows *gone* have become is among it, or needs
        nothing."""
        filled, aside = self._filled, len(self._left)
        why = await self._tried_elsewhere(len(gone)) or await self._pending_elsewhere()
        if why:
            lost = f"nothing is to be filled there any more, but {why}"
            self._left += [replace(poison, message=lost) for poison in gone]
            return
        await self._out(*gone)
        tried = self._filled - filled + len(self._left) - aside
        self._healed += max(0, len(gone) - tried)

    async def _tried_elsewhere(self, most: int) -> str:
        """Fills what is pending outside of quarantine, and puts *most* rows there that cannot take their value; why it
        had to be given up, empty where it had not."""
        spared = self._statements.sparing(self._found.id)
        seen = await self._seen(spared)
        if isinstance(seen, str):
            return seen
        if len(seen) >= LOOK_ROWS:
            return f"{LOOK_ROWS:,} rows or more are pending: run the backfill again"
        for version in seen:
            part = Part(spared.version(), None, version, 0, self._at.cursor, fillable=True)
            try:
                self._passed((await self._batches.fill(self._at, part, _LIMITS)).rows)
            except psycopg.Error as error:
                await self._refused(error)
                if not poisonous(error) or not most:
                    return f"another row cannot be filled: {describe(error)}"
                most -= 1
                poison = Poison.of(part.statements.named(version), error)
                await self._batches.set_aside(self._at, part, poison, _LIMITS)
                self._passed(0)
                self._left.append(poison)
        return ""

    async def _pending_elsewhere(self) -> str:
        """What speaks against nothing being pending outside of quarantine; empty: nothing does."""
        seen = await self._seen(self._statements.sparing(self._found.id))
        if isinstance(seen, str):
            return seen
        if not seen:
            return ""
        rows = "a row is" if len(seen) == 1 else f"{len(seen):,} rows are"
        return f"{rows} pending elsewhere: SET leaves them so, or the application writes such rows"

    async def _seen(self, spared: Statements) -> list[Key] | str:
        """The versions of pending rows, or why they could not be looked at."""
        try:
            return await self._batches.found(spared, LOOK_ROWS, replace(_LIMITS, statement_ms=LOOK_MS))
        except psycopg.Error as error:
            await self._refused(error)
            return f"the table could not be looked at as a whole: {describe(error)}"

    def _passed(self, rows: int) -> None:
        self._at = self._at.after(rows=rows, keys=0, cursor=self._at.cursor)
        self._filled += rows

    async def _refused(self, error: psycopg.Error) -> None:
        """Ends the failed transaction. Raises *error* where it is no row's fault, Refused where we were overtaken."""
        await self._batches.rollback()
        self._not_overtaken(error)
        if (error.sqlstate or "")[:2] == "42":  # a privilege, or a table that is gone
            raise error

    def _not_overtaken(self, error: psycopg.Error) -> None:
        if MOVED in str(error) or MISSING in str(error):
            raise Refused(
                f"backfill {self._found.id} is at work elsewhere",
                why="it was taken up, or its rows were tried again, in this moment",
                next="look at dbwatch backfill status, and try again",
            ) from error

    async def _out(self, *poisons: Poison) -> None:
        """Takes out what nothing is to be done about any more."""
        asked = query("backfill-quarantine-out", self._session.server_version)
        try:
            for poison in poisons:
                await self._session.execute(asked, {"id": self._found.id, "key": poison.key})
        except psycopg.Error as error:
            self._not_overtaken(error)
            raise

    async def _again(self, poison: Poison, error: psycopg.Error) -> Poison:
        """*poison* with why it failed this time; the journal has it too where it is the row's fault."""
        now = Poison.of(poison.key, error)
        if poisonous(error) and now != poison:
            why = {"id": self._found.id, "key": poison.key, "sqlstate": now.sqlstate, "message": now.message}
            await self._session.execute(query("backfill-quarantine-again", self._session.server_version), why)
        return now

    async def _noted(self) -> None:
        """Lets the journal's row say how many are left, where it said how many there were."""
        found, left = self._found, await tally(self._session, self._found.id)
        note = explained(found.id, left) or f"{self._filled:,} rows were filled afterwards, out of quarantine"
        values = {"id": found.id, "epoch": found.epoch, "note": note, "left": left.rows}
        await self._session.execute(query("backfill-retried", self._session.server_version), values)
