"""Rows that could not take their value: what the journal holds of them, and how it is told.

They are in table dbwatch.quarantine, each under its backfill's id and its name: its key or, without one, its version.
One goes in with the cursor's move past it (`hunt.py`), and out when it is filled (`retrying.py`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from dbwatch.backfill.keys import to_text
from dbwatch.backfill.pages import version_from, version_to_text
from dbwatch.backfill.trouble import Poison
from dbwatch.errors import DbwatchError, UsageError
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Session
from dbwatch.text import one_line, sanitize


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
    """*key*, a row's name as a person writes it, as the journal keeps it: a JSON array of its key's values, or an
    object of its version. Pure.

    Raises UsageError where it is none.
    """
    try:
        values = json.loads(key, parse_int=str, parse_float=str)
    except ValueError:
        values = None
    if isinstance(values, dict):
        try:
            return version_to_text(version_from(values))
        except (KeyError, TypeError):
            values = None
    if not isinstance(values, list) or not values or any(isinstance(v, dict | list | None) for v in values):
        raise UsageError(
            f"the key {one_line(key, 100)!r} is no list of values",
            next="""write it as it is listed: '["42"]', or '["shop","42"]', or without a key '{"ctid":"(0,7)",...}'""",
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


def lines(held: Iterable[Held], most: int = 10_000) -> list[str]:
    """A line a row for a person, those of one backfill: key, SQLSTATE, why. Pure."""
    rows = [(shown(one.poison.key), one.poison) for one in islice(held, most)]
    width = min(50, max((len(key) for key, _ in rows), default=0))
    return [f"{key:{width}}  {poison.sqlstate}  {poison.message}" for key, poison in rows]
