"""What rests on what: why the server would refuse a drop, and what goes along with it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from postgast import pg_query_pb2 as pg

from dbwatch.migration.canon import HEX, Column, Form
from dbwatch.migration.fingerprint import Item
from dbwatch.migration.scene import Scene, Thing


class WouldFail(Exception):
    """The server would refuse the statement; the message says why."""


def free(scene: Scene, thing: Thing, cascade: bool) -> None:
    """Takes what rests on *thing* where it cascades, else raises WouldFail."""
    for other in list(_resting_on(scene, thing)):
        if not cascade:
            raise WouldFail(f"{other.item.key} depends on {thing.item.key}")
        scene.take(other)


def _resting_on(scene: Scene, thing: Thing) -> Iterator[Thing]:
    one = thing.item
    for other in scene.things.values():
        item = other.item
        if item.kind == "constraint" and refers(other, one.name if one.kind == "table" else one.parent):
            if (one.kind == "table" and item.parent != one.name) or (one.kind == "constraint" and _backs(thing, other)):
                yield other
        elif item.kind in ("view", "materialized view") and one.kind == "table":
            if re.search(rf"\b{re.escape(one.name)}\b", item.definition) and item.key != one.key:
                yield other
        elif item.kind == "column" and one.kind in ("type", "domain"):
            form = other.now
            if isinstance(form, Column) and one.name.encode().hex() in form.type:
                yield other


def read_constraint(form: Form) -> pg.Constraint:
    found = pg.Constraint()
    if isinstance(form, str):
        text = form.split("\n")[0]
        if HEX.fullmatch(text):  # else a definition that could not be read: it refers to nothing that is known
            found.ParseFromString(bytes.fromhex(text))
    return found


def refers(thing: Thing, table: str) -> bool:
    constraint = read_constraint(thing.now)
    return bool(constraint.contype == pg.CONSTR_FOREIGN and constraint.pktable.relname == table)


def _backs(key: Thing, foreign: Thing) -> bool:
    """Whether the foreign key needs this primary key or unique constraint."""
    unique, refers = read_constraint(key.now), read_constraint(foreign.now)
    if unique.contype not in (pg.CONSTR_PRIMARY, pg.CONSTR_UNIQUE):
        return False
    return {k.string.sval for k in unique.keys} == {k.string.sval for k in refers.pk_attrs}


def shows(view: Item, column: Item) -> bool:
    return all(re.search(rf"\b{re.escape(word)}\b", view.definition) for word in (column.parent, column.name))


def names_column(form: Form, column: str) -> bool:
    """Whether an index or a constraint is over *column*: as a key, or anywhere in its expressions."""
    if not isinstance(form, str):
        return False
    text = form.split("\n")[0]
    octets = column.encode()
    if HEX.fullmatch(text):
        whole = bytes.fromhex(text)
        mark = bytes([len(octets)]) + octets if len(octets) < 128 else octets
        return mark in whole
    return bool(re.search(rf"\b{re.escape(column)}\b", text))


def in_expression(kind: str, form: Form, column: str) -> bool:
    """Whether an index or a check uses *column* in an expression, not only as a plain key."""
    if not isinstance(form, str) or not HEX.fullmatch(text := form.split("\n")[0]):
        return False
    if kind == "constraint":
        return bool(read_constraint(form).contype == pg.CONSTR_CHECK) and names_column(form, column)
    index = pg.IndexStmt()
    index.ParseFromString(bytes.fromhex(text))
    for node in index.index_params:
        node.index_elem.name = ""
    return names_column(index.SerializeToString(deterministic=True).hex(), column)
