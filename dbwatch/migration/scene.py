"""A schema that can be changed in thought: objects by key, as a fingerprint has them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from psycopg import sql

from dbwatch.migration import canon
from dbwatch.migration.canon import Form
from dbwatch.migration.ddl import JournalledDdl
from dbwatch.migration.fingerprint import Fingerprint, Item

_FORESEEN = "(as the downgrade makes it)"
"""The definition of what a downgrade would make and the opening has not."""
_NAME_BYTES = 63


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of the schema as it would be."""

    item: Item
    form: Form | None = None
    """Its definition, where the downgrade touched it; None: as the item has it."""

    @property
    def now(self) -> Form:
        return self.form if self.form is not None else canon.of_item(self.item)


@dataclass(slots=True)
class Scene:
    """A schema under the hands of a downgrade."""

    things: dict[str, Thing]
    opening: Fingerprint
    major: int
    filled: frozenset[str] = frozenset()
    """Tables that hold rows, by their bare names."""
    unsure: list[str] = field(default_factory=list)
    ddl: list[JournalledDdl] = field(default_factory=list)
    """What ran, as the journal would have it."""

    @classmethod
    def of(cls, now: Fingerprint, opening: Fingerprint, major: int, filled: frozenset[str] = frozenset()) -> Scene:
        """The schema *now*, to be compared with *opening* in the end."""
        return cls({key: Thing(item) for key, item in now.items.items()}, opening, major, filled)

    def copy(self) -> Scene:
        """The same, to be changed apart."""
        return replace(self, things=dict(self.things), unsure=list(self.unsure), ddl=list(self.ddl))

    @property
    def fingerprint(self) -> Fingerprint:
        """The schema as it would be: what was made anew as it was at the opening is the same."""
        return Fingerprint({key: self._settled(key, thing) for key, thing in self.things.items()}, {})

    def _settled(self, key: str, thing: Thing) -> Item:
        if thing.form is None:
            return thing.item
        was = self.opening.items.get(key)
        if was is not None and canon.of_item(was) == thing.form:
            return was
        return replace(thing.item, definition=_FORESEEN)

    # --- looking

    def relation(self, name: str, schema: str = "") -> Thing | None:
        """The table, view or sequence of that name."""
        for thing in self.things.values():
            one = thing.item
            if one.kind in RELATIONS and one.name == name and schema in ("", one.schema):
                return thing
        return None

    def part(self, kind: str, table: str, name: str) -> Thing | None:
        """A column or a constraint of a table."""
        for thing in self.things.values():
            if (thing.item.kind, thing.item.parent, thing.item.name) == (kind, table, name):
                return thing
        return None

    def named(self, kind: str, name: str) -> Thing | None:
        """What has that name by itself: an index, a type, an extension."""
        return next((t for t in self.things.values() if (t.item.kind, t.item.name) == (kind, name)), None)

    def parts(self, table: str) -> Iterator[Thing]:
        """All that belongs to a table."""
        return iter([t for t in self.things.values() if t.item.parent == table])

    # --- changing

    def put(self, kind: str, schema: str, name: str, form: Form | None, *, parent: str = "", within: str = "") -> None:
        """Makes an object, or makes it anew; without a *form* it is taken to be as it was at the opening."""
        key = key_of(kind, schema, name, parent)
        if form is None:
            was = self.opening.items.get(key)
            form = canon.of_item(was) if was else _FORESEEN
        table = self.relation(parent) if parent else None
        carrier = within or (table.item.key if table else "")
        oid = table.item.oid if table and kind == "column" else 0  # a column goes by its table's
        self.things[key] = Thing(Item(key, kind, schema, name, parent, carrier, oid, _FORESEEN), form)

    def take(self, thing: Thing) -> None:
        """Removes an object, and what goes along with it."""
        self.things.pop(thing.item.key, None)
        relation = thing.item.kind in RELATIONS
        for other in list(self.things.values()):
            if other.item.within == thing.item.key or (relation and other.item.parent == thing.item.name):
                self.take(other)

    def reform(self, thing: Thing, form: Form) -> None:
        """Gives an object another definition."""
        self.things[thing.item.key] = Thing(thing.item, form)


RELATIONS = frozenset({"table", "foreign table", "view", "materialized view", "sequence"})


def key_of(kind: str, schema: str, name: str, parent: str = "") -> str:
    """As the fingerprint names an object: `column public.users.phone`."""
    parts = [part for part in (schema, parent if kind in _WITH_PARENT else "", name) if part]
    return f"{kind} {'.'.join(quoted(part) for part in parts)}"


_WITH_PARENT = frozenset({"column", "constraint", "trigger", "policy", "rule"})
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")


def quoted(name: str) -> str:
    return name if _PLAIN.match(name) else sql.Identifier(name).as_string()


def chosen_name(table: str, column: str, label: str) -> str:
    """The name that the server gives where the statement gave none: makeObjectName() of indexcmds.c."""
    room = _NAME_BYTES - len(label.encode()) - 1 - (1 if column else 0)
    first, second = table.encode(), column.encode()
    while len(first) + len(second) > room:
        if len(first) > len(second):
            first = first[:-1]
        else:
            second = second[:-1]
    middle = "_" + second.decode(errors="ignore") if column else ""
    return f"{first.decode(errors='ignore')}{middle}_{label}"
