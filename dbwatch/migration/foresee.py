"""What a downgrade's SQL would make of a schema: carried out on a fingerprint, statement by statement. Pure.

It knows what the statements of migrations do to tables, columns, constraints, indexes, types and sequences, and on
what they would fail: what another object rests on, what is not there. What it does not know (DO, a function's body)
it says in `unsure`; it never guesses that something is fine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import postgast
from postgast import pg_query_pb2 as pg

from dbwatch.migration import canon, grammar
from dbwatch.migration.canon import Column
from dbwatch.migration.ddl import Action, JournalledDdl
from dbwatch.migration.fingerprint import Item
from dbwatch.migration.renaming import find, rename
from dbwatch.migration.resting import WouldFail, free, in_expression, names_column, read_constraint, refers, shows
from dbwatch.migration.scene import Scene, Thing, chosen_name, key_of, quoted

# --- drops


def _drop(scene: Scene, statement: pg.DropStmt) -> None:
    cascade = statement.behavior == pg.DROP_CASCADE
    for named in grammar._drop(statement):
        thing = find(scene, named)
        if thing is None:
            if not statement.missing_ok and named.kind not in ("table", "index"):
                raise WouldFail(f"{named.kind} {named.name} does not exist")
            continue
        free(scene, thing, cascade)
        scene.take(thing)


def _create_table(scene: Scene, statement: pg.CreateStmt) -> None:
    table, schema = statement.relation.relname, statement.relation.schemaname or "public"
    if scene.relation(table) is not None:
        return  # it is there: not sent again, or IF NOT EXISTS
    scene.put("table", schema, table, "")
    for element in statement.table_elts:
        if element.HasField("column_def"):
            _add_column(scene, table, schema, element.column_def)
    for element in statement.table_elts:
        if element.HasField("constraint"):
            _add_constraint(scene, table, schema, element.constraint)


def _add_column(scene: Scene, table: str, schema: str, column: pg.ColumnDef) -> None:
    kind, default, not_null = column.type_name, "", False
    serial = _SERIALS.get(kind.names[-1].string.sval) if kind.names else None
    rest: list[str] = []
    own: list[pg.Constraint] = []
    for node in column.constraints:
        match node.constraint.contype:
            case pg.CONSTR_NOTNULL:
                not_null = True
            case pg.CONSTR_DEFAULT:
                default = canon.of_default(node.constraint.raw_expr, kind)
            case pg.CONSTR_IDENTITY:
                rest.append("identity always" if node.constraint.generated_when == "a" else "identity by default")
                not_null = True
            case pg.CONSTR_NULL:
                pass
            case _:
                own.append(node.constraint)
    type_form = canon.of_type(kind)
    if serial is not None:
        sequence = chosen_name(table, column.colname, "seq")
        parsed = postgast.parse(f"SELECT nextval('{sequence}'), NULL::{serial}").stmts[0].stmt.select_stmt
        values = [node.res_target.val for node in parsed.target_list]
        default, not_null = canon.of_default(values[0], values[1].type_cast.type_name), True
        type_form = canon.of_type(values[1].type_cast.type_name)
        scene.put("sequence", schema, sequence, None, within=key_of("column", schema, column.colname, table))
    scene.put("column", schema, column.colname, Column(type_form, not_null, default, tuple(rest)), parent=table)
    if not_null:
        _not_null(scene, table, schema, column.colname)
    for constraint in own:
        whole = pg.Constraint()
        whole.CopyFrom(constraint)
        attribute = pg.Node(string=pg.String(sval=column.colname))
        if constraint.contype == pg.CONSTR_FOREIGN:
            whole.fk_attrs.append(attribute)
        elif constraint.contype in (pg.CONSTR_PRIMARY, pg.CONSTR_UNIQUE):
            whole.keys.append(attribute)
        _add_constraint(scene, table, schema, whole)


_SERIALS = {"serial": "integer", "serial4": "integer", "bigserial": "bigint", "serial8": "bigint"}


def _not_null(scene: Scene, table: str, schema: str, column: str) -> None:
    """From 18 on a column's NOT NULL is a constraint with a name."""
    carrier = key_of("column", schema, column, table)
    if scene.major < 18 or any(t.item.kind == "constraint" and t.item.within == carrier for t in scene.parts(table)):
        return
    name = chosen_name(table, column, "not_null")
    form = Item("", "constraint", schema, name, table, carrier, 0, f"NOT NULL {quoted(column)}")
    scene.put("constraint", schema, name, canon.of_item(form), parent=table, within=carrier)


def _nullable(scene: Scene, table: str, schema: str, column: str) -> None:
    carrier = key_of("column", schema, column, table)
    for thing in scene.parts(table):
        if thing.item.kind == "constraint" and thing.item.within == carrier:
            scene.take(thing)


def _add_constraint(scene: Scene, table: str, schema: str, constraint: pg.Constraint) -> None:
    columns = [k.string.sval for k in (*constraint.keys, *constraint.fk_attrs)]
    labels = {pg.CONSTR_PRIMARY: "pkey", pg.CONSTR_UNIQUE: "key", pg.CONSTR_FOREIGN: "fkey", pg.CONSTR_CHECK: "check"}
    if constraint.contype not in labels:
        return
    label = labels[constraint.contype]
    middle = "" if constraint.contype == pg.CONSTR_PRIMARY else "_".join(columns)
    name = constraint.conname or chosen_name(table, middle, label)
    if scene.part("constraint", table, name) is not None:
        return
    for column in columns:
        if scene.part("column", table, column) is None:
            raise WouldFail(f"column {column} of {table} does not exist")
    if constraint.contype == pg.CONSTR_FOREIGN and scene.relation(constraint.pktable.relname) is None:
        raise WouldFail(f"table {constraint.pktable.relname} does not exist")
    scene.put("constraint", schema, name, canon.of_constraint(constraint), parent=table)
    if constraint.contype == pg.CONSTR_PRIMARY:
        for column in columns:
            _set_not_null(scene, table, column)


def _alter_table(scene: Scene, statement: pg.AlterTableStmt) -> None:
    table = statement.relation.relname
    found = scene.relation(table) or scene.named("index", table)
    if found is None:
        if not statement.missing_ok:
            raise WouldFail(f"table {table} does not exist")
        return
    for node in statement.cmds:
        _command(scene, table, found.item.schema, node.alter_table_cmd)


def _command(scene: Scene, table: str, schema: str, command: pg.AlterTableCmd) -> None:
    defined: pg.Node = getattr(command, "def")
    match command.subtype:
        case pg.AT_AddColumn:
            column = defined.column_def
            if scene.part("column", table, column.colname) is None:
                kinds = {node.constraint.contype for node in column.constraints}
                bare = pg.CONSTR_NOTNULL in kinds and not kinds & {pg.CONSTR_DEFAULT, pg.CONSTR_IDENTITY}
                if bare and table in scene.filled:
                    raise WouldFail(f"{table} holds rows, and {column.colname} is NOT NULL without a default")
                _add_column(scene, table, schema, column)
        case pg.AT_DropColumn:
            if (thing := scene.part("column", table, command.name)) is not None:
                _drop_column(scene, thing, command.behavior == pg.DROP_CASCADE)
        case pg.AT_AddConstraint:
            _add_constraint(scene, table, schema, defined.constraint)
        case pg.AT_DropConstraint:
            if (thing := scene.part("constraint", table, command.name)) is not None:
                free(scene, thing, command.behavior == pg.DROP_CASCADE)
                scene.take(thing)
        case pg.AT_SetNotNull:
            if table in scene.filled:
                scene.unsure.append(f"whether {table}.{command.name} holds no NULL, which SET NOT NULL needs")
            _set_not_null(scene, table, command.name)
        case pg.AT_DropNotNull:
            _alter_column(scene, table, command.name, lambda c: replace(c, not_null=False))
            _nullable(scene, table, schema, command.name)
        case pg.AT_ColumnDefault:
            _alter_column(scene, table, command.name, lambda c: replace(c, default=_default(defined, c)))
        case pg.AT_AlterColumnType:
            kind = canon.of_type(defined.column_def.type_name)
            _alter_column(scene, table, command.name, lambda c: replace(c, type=kind))
            _recast(scene, table, command.name, defined.column_def.type_name.names[-1].string.sval)
        case pg.AT_ValidateConstraint:
            scene.unsure.append(f"whether {command.name} of {table} holds")
        case _:
            pass


def _alter_column(scene: Scene, table: str, name: str, change: Callable[[Column], Column]) -> None:
    thing = scene.part("column", table, name)
    if thing is None:
        raise WouldFail(f"column {name} of {table} does not exist")
    if isinstance(form := thing.now, Column):
        scene.reform(thing, change(form))


def _default(expression: pg.Node, column: Column) -> str:
    if not expression.WhichOneof("node"):
        return ""
    kind = pg.TypeName()
    kind.ParseFromString(bytes.fromhex(column.type))
    return canon.of_default(expression, kind)


def _recast(scene: Scene, table: str, column: str, type_: str) -> None:
    """The server writes a varchar with a cast to text in an expression, and a text without one: so an index or a check
    over the column reads otherwise after its type changed, and as before once it is back."""
    was = scene.opening.items.get(key_of("column", "public", column, table))
    same = was is not None and ("character varying" in was.definition) == (type_ == "varchar")
    for thing in scene.parts(table):
        form = thing.now
        if (
            isinstance(form, str)
            and thing.item.kind in ("index", "constraint")
            and in_expression(thing.item.kind, form, column)
        ):
            mark = f"over {column} as another type"
            lines = [line for line in form.split("\n") if line != mark]
            scene.reform(thing, "\n".join(lines if same else [*lines, mark]))


def _set_not_null(scene: Scene, table: str, name: str) -> None:
    _alter_column(scene, table, name, lambda column: replace(column, not_null=True))
    thing = scene.part("column", table, name)
    assert thing is not None
    _not_null(scene, table, thing.item.schema, name)


def _drop_column(scene: Scene, thing: Thing, cascade: bool) -> None:
    """Its indexes and constraints go along, those over several columns too; a view or a foreign key is in the way."""
    column = thing.item
    for other in list(scene.things.values()):
        item = other.item
        if item.kind == "constraint" and item.parent != column.parent and refers(other, column.parent):
            if column.name in {k.string.sval for k in read_constraint(other.now).pk_attrs}:
                if not cascade:
                    raise WouldFail(f"{item.key} depends on {column.key}")
                scene.take(other)
        elif item.parent == column.parent and item.kind in ("index", "constraint"):
            if names_column(other.now, column.name):
                if item.kind == "constraint":
                    free(scene, other, cascade)
                scene.take(other)
        elif item.kind in ("view", "materialized view") and shows(item, column):
            if not cascade:
                raise WouldFail(f"{item.key} depends on {column.key}")
            scene.take(other)
    scene.take(thing)


# --- the rest


def _index(scene: Scene, statement: pg.IndexStmt) -> None:
    table = statement.relation.relname
    found = scene.relation(table)
    if found is None:
        raise WouldFail(f"table {table} does not exist")
    for node in statement.index_params:
        if (name := node.index_elem.name) and scene.part("column", table, name) is None:
            raise WouldFail(f"column {name} of {table} does not exist")
    columns = "_".join(node.index_elem.name or "expr" for node in statement.index_params)
    name = statement.idxname or chosen_name(table, columns, "idx")
    if scene.named("index", name) is None:
        scene.put("index", found.item.schema, name, canon.of_index(statement), parent=table)


def _enum(scene: Scene, statement: pg.CreateEnumStmt) -> None:
    names = [node.string.sval for node in statement.type_name]
    if scene.named("type", names[-1]) is not None:
        raise WouldFail(f"type {names[-1]} already exists")
    labels = ", ".join(f"'{node.string.sval}'" for node in statement.vals)
    scene.put("type", names[-2] if len(names) > 1 else "public", names[-1], f"enum {labels}")


def _made(kind: str) -> Callable[[Scene, Any], None]:
    """For what is only known to be there afterwards."""

    def make(scene: Scene, statement: Any) -> None:
        word = next(word for word, does in _DOES.items() if does is make)
        for named in grammar._HANDLERS[word](statement):
            if named.action is Action.CREATE and named.kind == kind and find(scene, named) is None:
                owner = scene.relation(named.parent) if named.parent else None
                schema = named.schema if named.schema is not None else (owner.item.schema if owner else "public")
                scene.put(kind, schema, named.name, None, parent=named.parent or "")

    return make


_DOES: Mapping[str, Callable[[Scene, Any], None]] = {
    "drop": _drop,
    "create": _create_table,
    "alter_table": _alter_table,
    "index": _index,
    "rename": rename,
    "create_enum": _enum,
    "create_seq": _made("sequence"),
    "create_extension": _made("extension"),
    "create_schema": _made("schema"),
    "create_trig": _made("trigger"),
    "view": _made("view"),
    "create_function": _made("function"),
}


def _run(scene: Scene, text: str, revision: str | None) -> None:
    """Carries one SQL text out. Raises WouldFail where the server would refuse it."""
    try:
        statements = [raw.stmt for raw in postgast.parse(text).stmts]
    except (postgast.PgQueryError, UnicodeEncodeError):
        scene.unsure.append(f"{revision or 'a statement'}: the grammar cannot read {' '.join(text.split())[:60]}")
        return
    reading = grammar.read(text)
    for statement in statements:
        word = (statement.WhichOneof("node") or "").removesuffix("_stmt")
        if word in _DOES:
            _DOES[word](scene, getattr(statement, f"{word}_stmt"))
        elif word in ("do", "call"):
            scene.unsure.append(f"{revision or 'a statement'}: what {word.upper()} does cannot be told")
    if reading.named:
        scene.ddl.append(JournalledDdl(text, revision, False, reading.named, done=True))


def carried_out(scene: Scene, statements: Iterable[str], revision: str | None) -> Scene:
    """A new scene, after *statements*. Raises WouldFail where the server would refuse one."""
    after = scene.copy()
    for statement in statements:
        _run(after, statement, revision)
    return after
