"""The before-images that the journal knows of, and their end: brought back whole, or no longer needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

import psycopg
from psycopg import sql

from dbwatch.backfill.images import Images
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection, Session, describe
from dbwatch.text import one_line, size

RATE = 50_000.0
"""Rows/s brought back where nothing of this backfill was measured."""
DEARER = 1.2
"""What a row costs on its way back, times what it cost when it was filled: its image is used up besides. Measured."""
DROP_S = 2.0
"""How long the end of a table of images may take."""


@dataclass(frozen=True)
class Kept:
    """The before-images of one backfill."""

    id: int
    """The backfill's."""
    step: str | None
    status: str
    images: str
    rows_done: int
    restored: int
    changed: int
    missing: int
    busy_s: float
    there: bool
    """The table of images exists."""
    fires: list[str]
    """Triggers that bringing a row back fires, raw."""

    @cached_property
    def kept_in(self) -> Images:
        """Where they are."""
        return Images.from_json(self.images)

    @property
    def left(self) -> int:
        """Rows still to be looked at: at most so many, for SET may have left some as they were."""
        return max(0, self.rows_done - self.restored - self.changed - self.missing)

    @property
    def over(self) -> bool:
        """They were brought back."""
        return self.status == "restored"

    @property
    def estimate_s(self) -> float:
        """How long bringing back what is left takes, at the rate at which the backfill itself went between pauses."""
        rate = self.rows_done / self.busy_s if self.busy_s > 0 and self.rows_done else RATE
        return 0.5 + DEARER * self.left / rate


async def of_window(session: Session, window: UUID, *, within: float = 5.0) -> tuple[Kept, ...]:
    """Those of a window's backfills, the newest first. Raises as `Session.call` does."""
    return await _find(session, within, window=window)


async def of_backfill(session: Session, id: int, *, within: float = 5.0) -> Kept | None:
    """Those of one backfill; None where it keeps none. Raises as `Session.call` does."""
    return next(iter(await _find(session, within, id=id)), None)


async def of_spec(session: Session, spec_hash: str, *, within: float = 5.0) -> Kept | None:
    """The newest of a backfill outside all windows that is not back yet; None where there is none.

    Raises as `Session.call` does.
    """
    found = await _find(session, within, spec=spec_hash)
    return next((one for one in found if one.there and not one.over), None)


async def of_done(session: Session, *, within: float = 5.0) -> tuple[Kept, ...]:
    """Those that are still there of windows that are done. Raises as `Session.call` does."""
    return tuple(one for one in await _find(session, within, done=True) if one.there)


async def _find(
    session: Session,
    within: float,
    *,
    window: UUID | None = None,
    id: int | None = None,
    spec: str | None = None,
    done: bool = False,
) -> tuple[Kept, ...]:
    text = query("backfill-kept", session.server_version)
    wanted = {"window": window, "id": id, "spec": spec, "done": done}
    return tuple(await session.fetch(Kept, text, wanted, within=within))


async def drop(session: Session, images: Images, *, even_full: bool) -> str:
    """Drops the table of images, unless it holds some and *even_full* is not said; what became of it, as a sentence.

    Waits for no lock longer than 500 ms: where one is in the way, or it is another role's, it stays and is named, with
    its size. Raises as `Session.call` does where the connection is at fault.
    """
    table, held = images.own, ""

    async def work(connection: Connection) -> str:
        nonlocal held
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '500ms'; SET LOCAL statement_timeout = '1500ms'")
            cursor = await connection.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", [images.named])
            if await cursor.fetchone() != (True,):
                return ""
            look = sql.SQL(query("backfill-images-left", session.server_version).decode())
            cursor = await connection.execute(look.format(images=table, named=sql.Literal(images.named)))
            [(full, octets)] = await cursor.fetchall()
            held = f" ({size(octets)})"
            if full and not even_full:
                return f"what is left stays in {images.named}{held}"
            await connection.execute(sql.SQL("DROP TABLE {}").format(table))
            return f"the before-images of {images.display}{held} were dropped"

    try:
        return await session.call(work, within=DROP_S)
    except psycopg.Error as error:
        why = one_line(describe(error))
        return f"the before-images of {images.display}{held} could not be dropped: {why}; DROP TABLE {images.named}"
