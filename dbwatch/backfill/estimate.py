"""How much there is to do: the planner's word for it, and a look at a part of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import psycopg
from psycopg import sql

from dbwatch.backfill.statements import Statements
from dbwatch.backfill.target import Target
from dbwatch.backfill.trouble import poisonous
from dbwatch.errors import DbwatchError, Refused, UsageError
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection, Session, describe
from dbwatch.text import one_line

Estimator = Literal["planner", "sample", "count"]

PAGE = 8192
"""Bytes: the size of a block, but where somebody built a server of his own."""
SAMPLED_PAGES = 200
"""How much of the table the sample may read: some 10,000 rows, and at worst as many random reads."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows, estimated."""

    rows: int
    pending: int
    unfillable: int
    """Pending rows that SET leaves pending; 0 where that cannot be told."""
    by: Estimator
    heap_bytes: int = 0
    """Of the table itself: none where all is in its partitions."""
    images_bytes: int | None = None
    """What before-images of the pending rows will take, with their index; None: none are wanted."""


async def estimate(
    session: Session, target: Target, statements: Statements, kept: Sequence[str] = (), *, within: float
) -> Sizes:
    """Lets the server plan the whole UPDATE, which proves that it can be run, then counts in a sample of pages.

    *kept* are the columns whose values before will be kept.

    Waits for no lock longer than 100 ms. Raises UsageError where the server cannot plan it, Refused where the table is
    locked or our role may not, and as `Session.call` does.
    """

    async def work(connection: Connection) -> Sizes:
        async with connection.transaction(force_rollback=True):
            await connection.execute(_LIMITS)
            rows = _planned(await _one(connection, _ROWS, statements))
            pending = min(rows, _planned(await _one(connection, _PENDING, statements)))
            [pages] = await _one(connection, _PAGES, statements, sql.Literal(target.oid))
            image = await _image_bytes(connection, statements, kept) if kept else None
        sizes = await _counted(connection, target, statements, pages, Sizes(rows, pending, 0, "planner"))
        sizes = replace(sizes, heap_bytes=pages * PAGE)
        return sizes if image is None else replace(sizes, images_bytes=sizes.pending * image)

    try:
        return await session.call(work, within=within)
    except psycopg.errors.LockNotAvailable as error:
        raise await _locked(session, target, within) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(
            f"our role {target.role} may not fill {target.display}",
            why=describe(error),
            next=f"GRANT SELECT, UPDATE ON {target.display} TO {target.role}",
        ) from error
    except psycopg.OperationalError as error:
        raise DbwatchError("the backfill cannot be planned", why=describe(error), next="try again") from error
    except psycopg.Error as error:
        raise UsageError(
            "the backfill cannot be run as it is written", why=describe(error), next="correct SET or WHERE"
        ) from error


_LIMITS = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '3s'; SET LOCAL row_security = off"
_ROWS = sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM {table}")
_PENDING = sql.SQL("EXPLAIN (FORMAT JSON) UPDATE {table} SET {assignments} WHERE ({where})")
_WIDTH = sql.SQL("EXPLAIN (FORMAT JSON) SELECT {columns} FROM {table} WHERE ({where})")
_PAGES = sql.SQL("SELECT pg_catalog.pg_relation_size({number}) / current_setting('block_size')::bigint")
_SAMPLE = sql.SQL(
    "SELECT count(*), count(*) FILTER (WHERE ({where})), count(*) FILTER (WHERE ({where}) AND ({stays}))"
    " FROM {table} TABLESAMPLE SYSTEM ({number})"
)


async def _counted(connection: Connection, target: Target, statements: Statements, pages: int, planned: Sizes) -> Sizes:
    sample = await _sample(connection, target, statements, pages)
    if sample is None or sample[0] == 0:
        return planned
    seen, taken, left = sample
    if pages <= SAMPLED_PAGES:
        return Sizes(seen, taken, left, "count")
    rows = _believed(planned.rows, round(seen * pages / SAMPLED_PAGES))
    return Sizes(rows, round(rows * taken / seen), round(rows * left / seen), "sample")


_ROW_BYTES = 24 + 4
"""Of a row in a heap: its header, and its pointer on the page."""
_ENTRY_BYTES = 8 + 4
"""The same of an entry in a B-tree, whose pages are filled to nine tenths."""


async def _image_bytes(connection: Connection, statements: Statements, kept: Sequence[str]) -> int:
    """Bytes of one before-image with its entry in the key's index, from the widths that the planner knows.

    It tells them of the key alone, and of key, old values and new ones: those as the column's old ones, or what the
    planner expects of SET, whichever is wider.
    """
    key = [sql.Identifier(column.name) for column in statements.key]
    old = [sql.Identifier(column) for column in kept]
    key_width = _width(await _one(connection, _WIDTH, statements, columns=key))
    old_width = _width(await _one(connection, _WIDTH, statements, columns=old))
    set_width = _width(await _one(connection, _PENDING, statements)) - TID_BYTES
    new_width = max(old_width, set_width) if connection.info.server_version >= 140_000 else old_width
    heap = _ROW_BYTES + _aligned(key_width + old_width + new_width)
    return heap + round((_ENTRY_BYTES + _aligned(key_width)) / 0.9)


TID_BYTES = 6
"""The row's address, which the plan of an UPDATE carries beside the new values (from 14 on)."""


def _aligned(width: int) -> int:
    return -(-width // 8) * 8


def _width(row: tuple[Any, ...]) -> int:
    return int(_scan(row)["Plan Width"])


async def _sample(
    connection: Connection, target: Target, statements: Statements, pages: int
) -> tuple[int, int, int] | None:
    """Rows seen, pending, and unfillable in a sample; None where it took too long, or cannot be had."""
    if target.kind != "r" or pages == 0:
        return None
    percent = sql.Literal(min(100.0, 100 * SAMPLED_PAGES / pages))
    try:
        async with connection.transaction(force_rollback=True):
            await connection.execute(_LIMITS)
            seen, taken, left = await _one(connection, _SAMPLE, statements, percent)
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
        return None
    except psycopg.Error as error:
        if statements.stays_pending is None or not poisonous(error):
            raise
        # A row whose value cannot be computed is the run's to find; a WHERE that fails by itself is a mistake.
        return await _sample(connection, target, replace(statements, stays_pending=None), pages)
    return seen, taken, left


async def _one(
    connection: Connection,
    template: sql.SQL,
    statements: Statements,
    number: sql.Literal | None = None,
    columns: Sequence[sql.Composable] = (),
) -> tuple[Any, ...]:
    text = template.format(
        table=sql.Identifier(statements.schema, statements.table),
        assignments=sql.SQL(statements.assignments),
        where=sql.SQL(statements.where),
        stays=sql.SQL(statements.stays_pending or "false"),
        number=number or sql.SQL(""),
        columns=sql.SQL(", ").join(columns),
    )
    row = await (await connection.execute(text)).fetchone()
    assert row is not None
    return row


def _believed(planned: int, sampled: int) -> int:
    """The planner is right to a per cent after ANALYZE, and far off long after; the sample to 10 per cent, always."""
    return planned if 0.7 * planned <= sampled <= 1.3 * planned else sampled


def _planned(row: tuple[Any, ...]) -> int:
    """The rows of the topmost scan in an EXPLAIN."""
    return int(_scan(row)["Plan Rows"])


def _scan(row: tuple[Any, ...]) -> dict[str, Any]:
    node: dict[str, Any] = row[0][0]["Plan"]
    while node["Node Type"] == "ModifyTable":
        [node, *_] = node["Plans"]
    return node


async def _locked(session: Session, target: Target, within: float) -> Refused:
    rows = await session.values(query("backfill-holders", session.server_version), {"oid": target.oid}, within=within)
    held = ", ".join(f"{pid} ({one_line(who) or 'unnamed'}: {mode})" for pid, who, mode, _ in rows)
    return Refused(
        f"{target.display} is locked",
        why=f"by {held}" if held else "a lock was not to be had within 100 ms",
        next="wait until that is over, or end it, then try again",
    )
