"""What a statement names: values. `grammar.py` reads them from SQL, `residue.py` explains differences by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Action(StrEnum):
    """What a statement does to an object."""

    CREATE = "create"
    DROP = "drop"
    ALTER = "alter"
    """Also renamed, moved, granted on, commented: whatever neither makes nor removes it."""


@dataclass(frozen=True, slots=True)
class Named:
    """One object that a DDL statement names, in the exact spelling of the catalogue (not sanitized)."""

    action: Action
    kind: str
    """As the fingerprint calls it: table, column, index, constraint, sequence, type, view, trigger, ..."""
    schema: str | None
    """None where the statement leaves it to the search_path and nobody resolved it; empty for what has none."""
    name: str
    """Empty where the statement leaves the name to the server and nobody looked it up."""
    parent: str | None = None
    """The relation that a column, constraint, index, trigger, policy or rule belongs to; in the same schema."""
    oid: int | None = None
    """Looked up right after the statement, on its connection; of a column, its table's."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the grammar makes of an SQL text."""

    known: bool
    """False where it does not parse, or where what it does cannot be told (DO, CALL): unknown, never clean."""
    named: tuple[Named, ...]
    """Empty for a statement that is no DDL."""
    concurrently: bool
    """CREATE, DROP or REINDEX ... CONCURRENTLY, or DETACH PARTITION ... CONCURRENTLY: it waits for old transactions,
    cannot run in a transaction, and leaves something behind when it is broken off. (REFRESH MATERIALIZED VIEW
    CONCURRENTLY does none of this.)"""
    lasting: bool = False
    """It changes what no fingerprint shows: rows, roles; or nobody can tell what it changes."""


@dataclass(frozen=True, slots=True)
class JournalledDdl:
    """One DDL statement of ours, for the journal: written when it starts, again with OIDs when it is done."""

    sql: str
    """One line, for the eye; `objects` say what it touches."""
    revision: str | None
    autocommit: bool
    objects: tuple[Named, ...]
    done: bool
    """The server completed it."""
    known: bool = True
    """False where the grammar could not tell what it touches."""

    def to_json(self) -> dict[str, Any]:
        """As plain values for an event's body."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> JournalledDdl:
        """The value that `to_json` made. Raises TypeError, KeyError or ValueError where *body* is no such thing."""
        objects = tuple(Named(**{**named, "action": Action(named["action"])}) for named in body["objects"])
        return cls(**{**body, "objects": objects})
