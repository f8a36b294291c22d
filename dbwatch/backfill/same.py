"""Whether what has to hold for every filled row does hold: the questions, and what their answers add up to.

While an application writes two columns, old and new, they have to be the same in each row that the backfill has done
(`Spec.same`: `phone IS NOT DISTINCT FROM legacy_phone`). A row is done once WHERE does not take it any more; what SET
has not reached yet is passed over. Where the condition is NULL for a row it does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from dbwatch.backfill.keys import Key, to_text
from dbwatch.backfill.statements import PINNED, Statements, bound, literally, name
from dbwatch.errors import DbwatchError, Refused, UsageError
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection, Session, describe
from dbwatch.text import one_line

MOST_KEPT = 1_000
"""As many keys of rows that differ are remembered, so that one that is met again is counted once."""
SHOWN = 3
"""As many of them are named."""
TIDS_FROM = 140_000
"""From this version on the server finds a range of places in the heap without reading all of it."""
PLACES = 300
"""No page of 8 kB holds more rows (MaxHeapTuplesPerPage in htup_details.h is 291)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Server-side limits of one question, in milliseconds."""

    lock_ms: int
    statement_ms: int

    @property
    def within_s(self) -> float:
        """How long its answer may take before the connection is closed."""
        return (self.lock_ms + self.statement_ms) / 1000 + 10.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much one look takes, so that it takes no longer than it may."""

    now: int
    least: int
    most: int

    def after(self, seconds: float, aim_s: float) -> Size:
        """After a look of so many seconds: at most twice as much, and as little as it takes."""
        fitting = self.now * aim_s / max(seconds, 1e-4)
        return replace(self, now=round(min(self.most, max(self.least, min(2 * self.now, fitting)))))

    @property
    def smaller(self) -> Size:
        """After a look that took too long."""
        return replace(self, now=max(self.least, self.now // 4))


@dataclass(frozen=True, slots=True)
class Look:
    """One look at some filled rows."""

    rows: int
    differing: int
    young: int
    """Those of the differing that were written since the run began, by whomever."""
    keys: tuple[str, ...]
    """Of the first of them, as the journal writes keys."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Tally:
    """What all looks found."""

    rows: int = 0
    """Looked at, a row as often as it was."""
    keys: tuple[str, ...] = ()
    """Of rows that differ, each once."""
    young: bool = False
    """One of them was written since the run began."""
    more: bool = False
    """There are more than have been remembered."""

    @property
    def differing(self) -> int:
        """Rows that were seen to differ; the least that it can be where there are `more`."""
        return len(self.keys)

    def after(self, look: Look) -> Tally:
        """With one more look."""
        keys = tuple(dict.fromkeys((*self.keys, *look.keys)))
        more = self.more or look.differing > len(look.keys) or len(keys) > MOST_KEPT
        return Tally(self.rows + look.rows, keys[:MOST_KEPT], self.young or look.young > 0, more)

    def words(self, condition: str, rows: int | None = None) -> str:
        """What is wrong, in one sentence; empty where nothing is. *rows* is how many differ, where that is known."""
        if not self.keys:
            return ""
        number = self.differing if rows is None else rows
        least = "at least " if self.more and rows is None else ""
        count = f"{least}{number:,} {'row' if number == 1 else 'rows'}"
        some = ", ".join(one_line(key, 60) for key in self.keys[:SHOWN])
        others = ", ..." if number > SHOWN or self.more else ""
        young = "; some were written since this run began" if self.young else ""
        return f"{one_line(condition, 200)} does not hold for {count}: {some}{others}{young}"


async def require_sound(session: Session, statements: Statements, condition: str, *, within: float) -> None:
    """Lets the server read *condition* against the table; no row is looked at.

    Raises UsageError where it cannot be evaluated there, Refused where our role may not read what it names,
    DbwatchError where the server cannot say now, and as `Session.call` does.
    """
    text = sql.SQL("SELECT FROM {table} WHERE ({same}) LIMIT 0").format(
        table=name(statements.schema, statements.table), same=literally(condition)
    )
    try:
        await session.execute(text, {}, within=within)
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused("our role may not read what has to be the same", why=describe(error)) from error
    except psycopg.OperationalError as error:
        raise DbwatchError("the backfill cannot be planned", why=describe(error), next="try again") from error
    except psycopg.Error as error:
        raise UsageError(
            "what has to be the same cannot be looked at as it is written", why=describe(error), next="correct it"
        ) from error


class Questions:
    """What is asked of one table, each question a short transaction that only reads, with its own limits."""

    def __init__(self, statements: Statements, condition: str) -> None:
        self.statements = statements
        self.condition = condition

    @property
    def by_pages(self) -> bool:
        """The rows meant are found by the pages of the heap alone."""
        return self.statements.pages is not None or not self.statements.key

    async def edge(self, session: Session, lo: Key | None, n: int, limits: Limits) -> tuple[Key | None, float]:
        """The key *n* keys above *lo*, else the last one; None where no key is left; the seconds it took.

        Raises psycopg.Error where the server refused, its transaction still to be rolled back; and as `Session.call`.
        """
        parameters, total_s = {**bound("lo", lo), "n": n}, 0.0
        for ask in (self.statements.edge, self.statements.last):
            rows, seconds = await _asked(session, sql.SQL(ask(after=lo is not None, upto=False)), parameters, limits)
            total_s += seconds
            if rows:
                return tuple(rows[0]), total_s
        return None, total_s

    async def between(self, session: Session, lo: Key | None, hi: Key, since: int, limits: Limits) -> Look:
        """The filled rows above the key *lo* up to *hi*. Raises as `edge`."""
        parameters = {**bound("lo", lo), **bound("hi", hi), "since": since}
        return await self._look(session, self.statements.range(after=lo is not None), parameters, limits)

    async def pages(self, session: Session, first: int, end: int, since: int, limits: Limits) -> Look:
        """The filled rows on the pages *first* to *end* - 1 of the heap; of `Statements.without_key` only those with
        NULL in their key. Raises as `edge`."""
        if session.server_version >= TIDS_FROM:
            text = "ctid >= CAST(%(first)s AS tid) AND ctid < CAST(%(end)s AS tid)"
            parameters: dict[str, Any] = {"first": f"({first},0)", "end": f"({end},0)"}
        else:
            text = (
                "ctid = ANY(ARRAY(SELECT CAST('(' || p || ',' || o || ')' AS tid) FROM generate_series(%(first)s,"
                " %(last)s) AS p, generate_series(1, %(places)s) AS o))"
            )
            parameters = {"first": first, "last": end - 1, "places": PLACES}
        return await self._look(session, sql.SQL(text), {**parameters, "since": since}, limits)

    async def blocks(self, session: Session, limits: Limits) -> tuple[int, int]:
        """Pages of the heap, none of a table that is all partitions; and the number of the next transaction."""
        text = query("backfill-blocks", session.server_version).decode()
        relation = sql.Literal(self.statements.relation)
        [(blocks, following)], _ = await _asked(session, sql.SQL(text).format(relation=relation), {}, limits)
        return blocks, following

    async def _look(self, session: Session, where: sql.Composable, parameters: dict[str, Any], limits: Limits) -> Look:
        its = self.statements
        key: list[sql.Composable] = [sql.SQL("{}::text").format(name(column.name)) for column in its.key]
        if its.without_key:
            nulls = sql.SQL(" OR ").join(sql.SQL("{} IS NULL").format(name(column.name)) for column in its.key)
            where = sql.SQL("{} AND ({})").format(where, nulls)
        table = name(its.schema, its.table)
        text = sql.SQL(query("backfill-same-keys", session.server_version).decode()).format(
            key=sql.SQL(", ").join(key or [sql.SQL("ctid::text")]),
            same=literally(self.condition),
            table=sql.SQL("{} AS {}").format(table, name(its.called)) if its.called else table,
            range=where,
            where=literally(its.where),
        )
        [(rows, differing, young, keys)], seconds = await _asked(session, text, parameters, limits)
        return Look(rows, differing, young, tuple(to_text(tuple(key)) for key in keys or ()), seconds)


async def _asked(
    session: Session, question: sql.Composable, parameters: Mapping[str, Any], limits: Limits
) -> tuple[Sequence[tuple[Any, ...]], float]:
    """The rows of *question*, and the seconds that the server took for it."""
    settings = {
        **PINNED,
        "row_security": "off",
        "jit": "off",  # compiling takes longer than such a look may
        "lock_timeout": f"{limits.lock_ms}ms",
        "statement_timeout": f"{limits.statement_ms}ms",
    }
    text = sql.SQL(query("backfill-look", session.server_version).decode()).format(
        settings=sql.SQL(";\n").join(
            sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(key), sql.Literal(value))
            for key, value in settings.items()
        ),
        question=question,
    )

    async def work(connection: Connection) -> list[list[tuple[Any, ...]]]:
        async with psycopg.AsyncClientCursor(connection) as cursor:
            await cursor.execute(text, parameters)
            results: list[list[tuple[Any, ...]]] = []
            more: bool | None = True
            while more:
                if cursor.description:
                    results.append(await cursor.fetchall())
                more = cursor.nextset()
            return results

    [[(began,)], rows, [(ended,)]] = await session.call(work, within=limits.within_s)
    return rows, (ended - began).total_seconds()
