"""An exact description of a schema, from the catalogue, and the difference between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Item:
    """One object of the schema. Raw catalogue text: a proof must be exact, so the screens get `Difference`."""

    key: str
    """Unique, quoted as SQL would have it: `column public.users.phone`."""
    kind: str
    schema: str
    name: str
    definition: str
    parent: str = ""
    """The relation that it belongs to, of the same schema."""
    within: str = ""
    """The key of the object that carries it: dropped with it."""
    oid: int = 0
    """Where it was found; not compared. Of a column, its table's."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The schema at one instant, schema `dbwatch` and the rows of the version table left out."""

    items: Mapping[str, Item]
    notes: Mapping[str, str]
    """What is told but not compared: the order of each table's columns."""


class Change(StrEnum):
    """How an object differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One object that is not as it was; `key`, `before` and `after` are sanitized for the eye."""

    key: str
    kind: Change
    before: str
    after: str
    oid: int
    item: Item
    """The raw object: as it is now, or as it was where it is gone."""
    was: Item | None = None
    """The raw object as it was, where it changed."""
