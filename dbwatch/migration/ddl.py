"""Which objects a statement names, by PostgreSQL's own grammar. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What a statement does to an object."""

    CREATE = "create"
    DROP = "drop"
    ALTER = "alter"


@dataclass(frozen=True, slots=True)
class Named:
    """One object that a DDL statement names, in the exact spelling of the catalogue (not sanitized)."""

    action: Action
    kind: str
    """As the fingerprint calls it: table, column, index, constraint, sequence, type, view, trigger, ..."""
    schema: str | None
    """None where the statement leaves it to the search_path and nobody resolved it."""
    name: str
    parent: str | None = None
    """The relation that a column, constraint, index, trigger, policy or rule belongs to; in the same schema."""
    oid: int | None = None
    """Looked up right after the statement, on its connection; of a column, its table's."""
