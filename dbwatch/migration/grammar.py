"""Which objects a statement names, by PostgreSQL's own grammar (libpg_query of 18, 10 us a statement). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import postgast
from postgast import pg_query_pb2 as pg

from dbwatch.migration.ddl import Action, Named, Reading
from dbwatch.migration.nodes import KINDS, OF_A_TABLE, dotted, object_named, part_named, relation_named

CREATE, DROP, ALTER = Action.CREATE, Action.DROP, Action.ALTER

_NAMES_NOTHING = frozenset(
    {"select", "insert", "update", "delete", "merge", "copy", "truncate", "lock", "vacuum", "cluster", "explain"}
    | {"refresh_mat_view", "transaction", "variable_set", "variable_show", "constraints_set", "discard", "load"}
    | {"notify", "listen", "unlisten", "declare_cursor", "fetch", "close_portal", "deallocate", "check_point"}
    | {"create_role", "alter_role", "alter_role_set", "drop_role", "grant_role", "alter_default_privileges"}
)
"""Statements that name no object of the schema, as far as the grammar can tell."""
_LASTING = frozenset(
    {"insert", "update", "delete", "merge", "copy", "truncate"}
    | {"create_role", "alter_role", "alter_role_set", "drop_role", "grant_role"}
)
"""Those of them whose effect stays, and is seen in no schema."""

_PERCENT = re.compile(r"%%|%\(\w+\)s|%s")


def read(sql: str) -> Reading:
    """What *sql*, one statement or several, names."""
    try:
        statements = [raw.stmt for raw in postgast.parse(sql).stmts]
    except (postgast.PgQueryError, UnicodeEncodeError):
        return Reading(known=False, named=(), concurrently=False, lasting=True)
    named: list[Named] = []
    known = True
    for statement in statements:
        word = (statement.WhichOneof("node") or "").removesuffix("_stmt")
        if word == "select" and statement.select_stmt.HasField("into_clause"):
            named.append(relation_named(CREATE, "table", statement.select_stmt.into_clause.rel))
        elif word in _HANDLERS:
            named.extend(_HANDLERS[word](getattr(statement, f"{word}_stmt")))
        elif word not in _NAMES_NOTHING:
            known = False
    lasting = not known or any(map(_lasting, statements))
    return Reading(known, tuple(named), any(map(_concurrently, statements)), lasting)


def plain(sql: str) -> str:
    """*sql* as a driver got it, with its placeholders (`%(name)s`, `%s`) made readable for the grammar as `$1`."""
    return _PERCENT.sub(lambda found: "%" if found[0] == "%%" else "$1", sql)


def _lasting(statement: pg.Node) -> bool:
    match statement.WhichOneof("node"):
        case "select_stmt":
            return any(_lasting(node.common_table_expr.ctequery) for node in statement.select_stmt.with_clause.ctes)
        case "explain_stmt":
            return _lasting(statement.explain_stmt.query)
        case word:
            return (word or "").removesuffix("_stmt") in _LASTING


def _concurrently(statement: pg.Node) -> bool:
    match statement.WhichOneof("node"):
        case "index_stmt":
            return bool(statement.index_stmt.concurrent)
        case "drop_stmt":
            return bool(statement.drop_stmt.concurrent)
        case "reindex_stmt":
            return any(node.def_elem.defname == "concurrently" for node in statement.reindex_stmt.params)
        case "alter_table_stmt":
            commands = [node.alter_table_cmd for node in statement.alter_table_stmt.cmds]
            return any(getattr(command, "def").partition_cmd.concurrent for command in commands)
    return False


def _create_table(statement: pg.CreateStmt) -> Iterator[Named]:
    yield from _created_table("table", statement)


def _create_foreign_table(statement: pg.CreateForeignTableStmt) -> Iterator[Named]:
    yield from _created_table("foreign table", statement.base_stmt)


def _created_table(kind: str, statement: pg.CreateStmt) -> Iterator[Named]:
    yield relation_named(CREATE, kind, statement.relation)
    for element in statement.table_elts:
        if element.HasField("column_def"):
            yield part_named(CREATE, "column", statement.relation, element.column_def.colname)
            yield from _constraints(statement.relation, element.column_def.constraints)
    yield from _constraints(statement.relation, statement.table_elts)
    yield from _constraints(statement.relation, statement.constraints)


_STANDING = frozenset({pg.CONSTR_CHECK, pg.CONSTR_PRIMARY, pg.CONSTR_UNIQUE, pg.CONSTR_EXCLUSION, pg.CONSTR_FOREIGN})
"""What the grammar calls a constraint and is one: not a default, an identity, a DEFERRABLE."""


def _constraints(relation: pg.RangeVar, nodes: Sequence[pg.Node], *, unnamed: bool = False) -> Iterator[Named]:
    """Those with a name, and on demand the others: they go along with a table that the same statement creates."""
    for node in nodes:
        if node.HasField("constraint") and (
            node.constraint.conname or (unnamed and node.constraint.contype in _STANDING)
        ):
            yield part_named(CREATE, "constraint", relation, node.constraint.conname)


def _index(statement: pg.IndexStmt) -> Iterator[Named]:
    yield part_named(CREATE, "index", statement.relation, statement.idxname)


def _alter_table(statement: pg.AlterTableStmt) -> Iterator[Named]:
    kind = KINDS.get(statement.objtype, "table")
    if kind == "type":  # a composite type's attributes are part of its own definition
        yield relation_named(ALTER, kind, statement.relation)
        return
    for node in statement.cmds:
        yield from _command(kind, statement.relation, node.alter_table_cmd)


def _command(kind: str, relation: pg.RangeVar, command: pg.AlterTableCmd) -> Iterator[Named]:
    defined: pg.Node = getattr(command, "def")
    match command.subtype:
        case pg.AT_AddColumn:
            yield part_named(CREATE, "column", relation, defined.column_def.colname)
            yield from _constraints(relation, defined.column_def.constraints, unnamed=True)
        case pg.AT_DropColumn:
            yield part_named(DROP, "column", relation, command.name)
        case pg.AT_AddConstraint:
            yield part_named(CREATE, "constraint", relation, defined.constraint.conname)
            if defined.constraint.indexname:  # USING INDEX: the index becomes the constraint's
                yield part_named(ALTER, "index", relation, defined.constraint.indexname)
            if defined.constraint.contype == pg.CONSTR_PRIMARY:  # its columns become NOT NULL
                for key in defined.constraint.keys:
                    yield part_named(ALTER, "column", relation, key.string.sval)
        case pg.AT_DropConstraint:
            yield part_named(DROP, "constraint", relation, command.name)
        case pg.AT_ValidateConstraint:
            yield part_named(ALTER, "constraint", relation, command.name)
        case pg.AT_AlterConstraint:
            yield part_named(ALTER, "constraint", relation, defined.atalter_constraint.conname)
        case pg.AT_AttachPartition | pg.AT_DetachPartition | pg.AT_DetachPartitionFinalize:
            yield relation_named(ALTER, kind, relation)
            yield relation_named(ALTER, kind, defined.partition_cmd.name)
        case subtype if subtype in _OF_A_TRIGGER:
            yield part_named(ALTER, "trigger", relation, command.name)
        case subtype if subtype in _OF_A_RULE:
            yield part_named(ALTER, "rule", relation, command.name)
        case subtype if subtype in _OF_A_COLUMN and kind != "index":
            yield part_named(ALTER, "column", relation, command.name)
        case _:
            yield relation_named(ALTER, kind, relation)


_OF_A_COLUMN = frozenset(
    {
        pg.AT_ColumnDefault,
        pg.AT_CookedColumnDefault,
        pg.AT_DropNotNull,
        pg.AT_SetNotNull,
        pg.AT_SetExpression,
        pg.AT_DropExpression,
        pg.AT_SetStatistics,
        pg.AT_SetOptions,
        pg.AT_ResetOptions,
        pg.AT_SetStorage,
        pg.AT_SetCompression,
        pg.AT_AlterColumnType,
        pg.AT_AlterColumnGenericOptions,
        pg.AT_AddIdentity,
        pg.AT_SetIdentity,
        pg.AT_DropIdentity,
    }
)
_OF_A_TRIGGER = frozenset({pg.AT_EnableTrig, pg.AT_EnableAlwaysTrig, pg.AT_EnableReplicaTrig, pg.AT_DisableTrig})
_OF_A_RULE = frozenset({pg.AT_EnableRule, pg.AT_EnableAlwaysRule, pg.AT_EnableReplicaRule, pg.AT_DisableRule})


def _drop(statement: pg.DropStmt) -> Iterator[Named]:
    kind = KINDS.get(statement.remove_type, "other")
    for node in statement.objects:
        yield object_named(DROP, kind, node)


def _rename(statement: pg.RenameStmt) -> Iterator[Named]:
    """Both names, as altered: what goes under the old one comes back under the new one."""
    kind = "type" if statement.rename_type == pg.OBJECT_ATTRIBUTE else KINDS.get(statement.rename_type, "other")
    if kind in OF_A_TABLE:
        old = part_named(ALTER, kind, statement.relation, statement.subname)
    elif statement.HasField("relation"):
        old = relation_named(ALTER, kind, statement.relation)
    elif kind == "schema":
        old = Named(ALTER, kind, "", statement.subname)
    else:
        old = object_named(ALTER, kind, statement.object)
    yield old
    if statement.rename_type != pg.OBJECT_ATTRIBUTE:
        yield Named(ALTER, old.kind, old.schema, statement.newname, old.parent)


def _moved(statement: pg.AlterObjectSchemaStmt) -> Iterator[Named]:
    kind = KINDS.get(statement.object_type, "other")
    old = _target(kind, statement)
    yield old
    yield Named(ALTER, kind, statement.newschema, old.name)


def _target(kind: str, statement: Any) -> Named:
    if statement.HasField("relation"):
        return relation_named(ALTER, kind, statement.relation)
    return object_named(ALTER, kind, statement.object)


def _owner(statement: pg.AlterOwnerStmt) -> Iterator[Named]:
    yield _target(KINDS.get(statement.object_type, "other"), statement)


def _comment(statement: pg.CommentStmt) -> Iterator[Named]:
    yield object_named(ALTER, KINDS.get(statement.objtype, "other"), statement.object)


def _grant(statement: pg.GrantStmt) -> Iterator[Named]:
    if statement.targtype == pg.ACL_TARGET_OBJECT:
        for node in statement.objects:
            yield object_named(ALTER, KINDS.get(statement.objtype, "other"), node)


def _create_as(statement: pg.CreateTableAsStmt) -> Iterator[Named]:
    yield relation_named(CREATE, KINDS.get(statement.objtype, "table"), statement.into.rel)


def _view(statement: pg.ViewStmt) -> Iterator[Named]:
    yield relation_named(CREATE, "view", statement.view)


def _create_sequence(statement: pg.CreateSeqStmt) -> Iterator[Named]:
    yield relation_named(CREATE, "sequence", statement.sequence)


def _alter_sequence(statement: pg.AlterSeqStmt) -> Iterator[Named]:
    yield relation_named(ALTER, "sequence", statement.sequence)


def _function(statement: pg.CreateFunctionStmt) -> Iterator[Named]:
    schema, name = dotted(statement.funcname)
    yield Named(CREATE, "procedure" if statement.is_procedure else "function", schema, name)


def _alter_function(statement: pg.AlterFunctionStmt) -> Iterator[Named]:
    schema, name = dotted(statement.func.objname)
    yield Named(ALTER, KINDS.get(statement.objtype, "function"), schema, name)


def _define(statement: pg.DefineStmt) -> Iterator[Named]:
    schema, name = dotted(statement.defnames)
    yield Named(CREATE, KINDS.get(statement.kind, "other"), schema, name)


def _trigger(statement: pg.CreateTrigStmt) -> Iterator[Named]:
    yield part_named(CREATE, "trigger", statement.relation, statement.trigname)
    if statement.isconstraint:
        yield part_named(CREATE, "constraint", statement.relation, statement.trigname)


def _rule(statement: pg.RuleStmt) -> Iterator[Named]:
    yield part_named(CREATE, "rule", statement.relation, statement.rulename)


def _policy(statement: pg.CreatePolicyStmt) -> Iterator[Named]:
    yield part_named(CREATE, "policy", statement.table, statement.policy_name)


def _alter_policy(statement: pg.AlterPolicyStmt) -> Iterator[Named]:
    yield part_named(ALTER, "policy", statement.table, statement.policy_name)


def _by_names(action: Action, kind: str, field: str) -> Callable[[Any], Iterator[Named]]:
    """A handler for statements whose object is a dotted list of names in *field*."""

    def handler(statement: Any) -> Iterator[Named]:
        schema, name = dotted(getattr(statement, field))
        yield Named(action, kind, schema, name)

    return handler


def _by_word(action: Action, kind: str, field: str) -> Callable[[Any], Iterator[Named]]:
    """A handler for statements whose object belongs to no schema and is a plain word in *field*."""

    def handler(statement: Any) -> Iterator[Named]:
        yield Named(action, kind, "", getattr(statement, field))

    return handler


def _composite(statement: pg.CompositeTypeStmt) -> Iterator[Named]:
    yield relation_named(CREATE, "type", statement.typevar)


def _schema(statement: pg.CreateSchemaStmt) -> Iterator[Named]:
    yield Named(CREATE, "schema", "", statement.schemaname)


def _reindex(statement: pg.ReindexStmt) -> Iterator[Named]:
    """REINDEX INDEX CONCURRENTLY leaves NAME_ccnew or NAME_ccold behind when it is broken off, by where; of a table we
    cannot know whose."""
    if statement.kind == pg.REINDEX_OBJECT_INDEX:
        yield relation_named(ALTER, "index", statement.relation)
        if any(node.def_elem.defname == "concurrently" for node in statement.params):
            for suffix in ("_ccnew", "_ccold"):
                made = f"{statement.relation.relname}{suffix}"
                yield Named(CREATE, "index", statement.relation.schemaname or None, made)


_HANDLERS: Mapping[str, Callable[[Any], Iterator[Named]]] = {
    "create": _create_table,
    "create_foreign_table": _create_foreign_table,
    "create_table_as": _create_as,
    "alter_table": _alter_table,
    "index": _index,
    "reindex": _reindex,
    "drop": _drop,
    "rename": _rename,
    "alter_object_schema": _moved,
    "alter_owner": _owner,
    "comment": _comment,
    "grant": _grant,
    "view": _view,
    "create_seq": _create_sequence,
    "alter_seq": _alter_sequence,
    "create_function": _function,
    "alter_function": _alter_function,
    "define": _define,
    "create_trig": _trigger,
    "rule": _rule,
    "create_policy": _policy,
    "alter_policy": _alter_policy,
    "create_enum": _by_names(CREATE, "type", "type_name"),
    "alter_enum": _by_names(ALTER, "type", "type_name"),
    "create_range": _by_names(CREATE, "type", "type_name"),
    "alter_type": _by_names(ALTER, "type", "type_name"),
    "composite_type": _composite,
    "create_domain": _by_names(CREATE, "domain", "domainname"),
    "alter_domain": _by_names(ALTER, "domain", "type_name"),
    "create_stats": _by_names(CREATE, "statistics", "defnames"),
    "alter_stats": _by_names(ALTER, "statistics", "defnames"),
    "create_schema": _schema,
    "create_extension": _by_word(CREATE, "extension", "extname"),
    "alter_extension": _by_word(ALTER, "extension", "extname"),
    "create_publication": _by_word(CREATE, "publication", "pubname"),
    "alter_publication": _by_word(ALTER, "publication", "pubname"),
    "create_event_trig": _by_word(CREATE, "event trigger", "trigname"),
    "alter_event_trig": _by_word(ALTER, "event trigger", "trigname"),
}
