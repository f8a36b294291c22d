"""What a rename makes of a schema: the object, what belongs to it, and every definition that names it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from postgast import pg_query_pb2 as pg

from dbwatch.migration import grammar
from dbwatch.migration.canon import HEX
from dbwatch.migration.ddl import Named
from dbwatch.migration.resting import WouldFail, refers
from dbwatch.migration.scene import RELATIONS, Scene, Thing, key_of, quoted


def find(scene: Scene, named: Named) -> Thing | None:
    """What *named* names."""
    if named.parent:
        return scene.part(named.kind, named.parent, named.name)
    if named.kind in RELATIONS:
        return scene.relation(named.name, named.schema or "")
    return scene.named(named.kind, named.name)


# --- tables


def rename(scene: Scene, statement: pg.RenameStmt) -> None:
    """ALTER ... RENAME. Raises WouldFail where what is to be renamed is not there."""
    new = statement.newname
    match statement.rename_type:
        case pg.OBJECT_TABLE | pg.OBJECT_VIEW | pg.OBJECT_SEQUENCE | pg.OBJECT_MATVIEW | pg.OBJECT_INDEX:
            old = statement.relation.relname
            thing = scene.relation(old) or scene.named("index", old) or _constraint_named(scene, old)
            if thing is None:
                if not statement.missing_ok:
                    raise WouldFail(f"{old} does not exist")
                return
            _renamed(scene, thing, new)
        case pg.OBJECT_COLUMN | pg.OBJECT_TABCONSTRAINT:
            kind = "column" if statement.rename_type == pg.OBJECT_COLUMN else "constraint"
            thing = scene.part(kind, statement.relation.relname, statement.subname)
            if thing is None:
                raise WouldFail(f"{kind} {statement.subname} of {statement.relation.relname} does not exist")
            _renamed(scene, thing, new)
        case _:
            for named in grammar._rename(statement):
                if (thing := find(scene, named)) is not None and named.name != new:
                    _renamed(scene, thing, new)


def _constraint_named(scene: Scene, name: str) -> Thing | None:
    """ALTER INDEX ... RENAME reaches the index of a constraint too, and renames the constraint."""
    return next((t for t in scene.things.values() if (t.item.kind, t.item.name) == ("constraint", name)), None)


def _renamed(scene: Scene, thing: Thing, new: str) -> None:
    old = thing.item
    table = old.kind in RELATIONS
    for other in list(scene.things.values()):
        item, form = other.item, other.form
        if item.key == old.key:
            del scene.things[item.key]
            key = key_of(item.kind, item.schema, new, item.parent)
            scene.things[key] = Thing(replace(item, key=key, name=new), other.now if form is None else form)
            continue
        was = other.now if item.kind in ("index", "constraint") else form
        changed = was
        mine = item.parent == (old.name if table else old.parent) or (
            item.kind == "constraint" and refers(other, old.name if table else old.parent)
        )
        if isinstance(was, str) and mine and (table or old.kind == "column"):
            changed = _reworded(item.kind, was, old.name, new, table=table)
        parent = new if table and item.parent == old.name else item.parent
        within = key_of(old.kind, old.schema, new, old.parent) if item.within == old.key else item.within
        if table and item.within.startswith(key_of("column", old.schema, "", old.name) + "."):
            within = item.within.replace(f".{quoted(old.name)}.", f".{quoted(new)}.", 1)
        if (parent, within) == (item.parent, item.within) and changed == was:
            continue
        del scene.things[item.key]
        key = key_of(item.kind, item.schema, item.name, parent)
        if item.kind == "sequence" and isinstance(now := other.now, str):  # it says by which column it is owned
            changed = now.replace(f"owned by {item.within}", f"owned by {within}")
        keeps = form is None and changed == was and item.kind not in ("column",)
        scene.things[key] = Thing(
            replace(item, key=key, parent=parent, within=within), form if keeps else (changed or other.now)
        )


def _reworded(kind: str, form: str, old: str, new: str, *, table: bool) -> str:
    first, *rest = form.split("\n")
    message: Any = pg.IndexStmt() if kind == "index" else pg.Constraint()
    if not HEX.fullmatch(first):
        return form
    message.ParseFromString(bytes.fromhex(first))
    _replace(message, old, new, relations=table)
    return "\n".join((message.SerializeToString(deterministic=True).hex(), *rest))


def _replace(message: Any, old: str, new: str, *, relations: bool) -> None:
    if isinstance(message, pg.RangeVar):
        if relations and message.relname == old:
            message.relname = new
        return
    if isinstance(message, pg.IndexElem) and not relations and message.name == old:
        message.name = new
    if isinstance(message, pg.String) and not relations and message.sval == old:
        message.sval = new
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None and not (isinstance(message, pg.A_Const)):
            for part in value if descriptor.is_repeated else (value,):
                _replace(part, old, new, relations=relations)
