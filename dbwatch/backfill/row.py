"""The backfill's row in the journal: who may work on it, how far it is. Its cursor moves in the batches."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from dbwatch.backfill.cursor import Cursor
from dbwatch.backfill.images import Images
from dbwatch.backfill.keys import Key
from dbwatch.errors import Fenced
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection, Session

RESTORING, RESTORED = "restoring", "restored"
"""The row's status while its data goes back, and after that."""
OIDS, MADE_OF = "oids", "made of"
"""In a ceiling, beside the last key of each leg: the oid of each partition, for it may be renamed, and `Plan.made_of`.
No leg is called so: its name is empty, or has a dot."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a backfill is, and by what right we go on: the row as we last wrote or read it."""

    id: int
    epoch: int
    cursor: str | None
    ceiling: str | None
    rows_done: int
    batches: int
    scanned: int
    walked: bool

    @property
    def place(self) -> Cursor:
        """What the cursor says."""
        return Cursor.from_text(self.cursor)

    @property
    def tops(self) -> Any:
        """What the ceiling says: an object with the last key of each leg (of older versions that of the table alone);
        None: it says nothing."""
        return None if self.ceiling is None else json.loads(self.ceiling)

    @property
    def as_one(self) -> bool:
        """Its ceiling is of the table as one."""
        tops = self.tops
        return isinstance(tops, list) or (isinstance(tops, dict) and "" in tops)

    def top(self, leg: str) -> Key | None:
        """The last key to do on the *leg* of that name; None: whatever it holds, in mode once nothing."""
        tops = self.tops
        if isinstance(tops, dict):
            tops = tops.get(leg)
        return None if tops is None else tuple(map(str, tops))

    def after(self, *, rows: int, keys: int, cursor: str | None) -> Position:
        """The row as a committed batch left it."""
        return replace(
            self,
            cursor=cursor,
            rows_done=self.rows_done + rows,
            scanned=self.scanned + keys,
            batches=self.batches + 1,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """The row whole."""

    id: int
    window_id: UUID | None
    step_id: str | None
    spec: str
    """Table, SET, WHERE, key and mode as canonical JSON."""
    status: str
    owner: str
    epoch: int
    cursor: str | None
    ceiling: str | None
    rows_done: int
    batches: int
    scanned: int
    walked: bool
    pending: int | None
    note: str | None
    started_at: datetime
    ended_at: datetime | None
    images: str | None
    back: str | None
    restored: int
    changed: int
    missing: int
    silent_s: float
    """Since its owner last wrote."""

    @property
    def position(self) -> Position:
        return Position(
            self.id, self.epoch, self.cursor, self.ceiling, self.rows_done, self.batches, self.scanned, self.walked
        )

    @property
    def way_back(self) -> Position:
        """How far its data was brought back."""
        seen = self.restored + self.changed + self.missing
        return Position(self.id, self.epoch, self.back, None, self.restored, self.batches, seen, False)

    @property
    def finished(self) -> bool:
        return self.status == "done"

    @property
    def kept_in(self) -> Images | None:
        """Where its before-images are; None: it keeps none."""
        return Images.from_json(self.images) if self.images else None


async def read(session: Session, id: int, *, within: float = 5.0) -> Row | None:
    """The row as it stands; None where it is gone. Raises as `Session.call` does."""

    async def work(connection: Connection) -> list[Row]:
        return await rows_of(connection, id=id)

    rows = await session.call(work, within=within)
    return rows[0] if rows else None


async def beat(session: Session, at: Position, *, within: float = 5.0) -> None:
    """Says that we are still there. Raises Fenced where we are no longer meant to be, and as `Session.call` does."""
    await _write(session, at, "backfill-beat", {}, within)


async def move(session: Session, at: Position, cursor: str | None, keys: int, *, within: float = 5.0) -> bool:
    """The cursor goes from *at* to *cursor*, past so many *keys*: all below it is filled. False where it is not where
    we left it, or not ours: the row tells. Raises as `Session.call` does."""
    values = {"next": cursor, "scanned": keys, "cursor": at.cursor, "id": at.id, "epoch": at.epoch}
    return await session.execute(query("backfill-move", session.server_version), values, within=within) == 1


async def note_walked(session: Session, at: Position, *, within: float = 5.0) -> None:
    """The end of the table was reached. Raises as `beat` does."""
    await _write(session, at, "backfill-walked", {}, within)


async def close(
    session: Session, at: Position, status: str, *, pending: int | None, note: str, within: float = 5.0
) -> None:
    """Ends our work on it: done, incomplete, stopped or failed. Raises as `beat` does."""
    await _write(session, at, "backfill-close", {"status": status, "pending": pending, "note": note or None}, within)


async def _write(session: Session, at: Position, name: str, values: dict[str, Any], within: float) -> None:
    ours = {"id": at.id, "epoch": at.epoch}
    if await session.execute(query(name, session.server_version), values | ours, within=within) != 1:
        raise Fenced("the backfill was taken over by somebody else", next="look at the journal, or at `dbwatch status`")


async def rows_of(connection: Connection, *, id: int | None = None, spec_hash: str | None = None) -> list[Row]:
    """The row of one *id*, or all that do what *spec_hash* stands for, the newest first."""
    async with connection.cursor(row_factory=class_row(Row)) as cursor:
        text = query("backfill-row", connection.info.server_version)
        await cursor.execute(text, {"id": id, "spec_hash": spec_hash})
        return await cursor.fetchall()
