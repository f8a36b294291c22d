"""Which locks a statement will take on which relations, and whether it will rewrite or scan them. Pure.

An expectation from the text alone, as measured on 15 and 18 (tests/test_migration_locks.py measures it again); what
depends on the data or on the catalogue is said as *may*. Only locks that somebody can notice: SHARE UPDATE EXCLUSIVE
and up, and ROW EXCLUSIVE for the writes of a data migration. Relations are told as the statement spells them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import postgast
from postgast import pg_query_pb2 as pg


class Mode(IntEnum):
    """Lock modes of tables, the stronger the higher."""

    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def label(self) -> str:
        """As the manual writes it: `ACCESS EXCLUSIVE`."""
        return self.name.replace("_", " ")

    @property
    def stops(self) -> str:
        """What of an application's work it stops while it is held or waited for."""
        if self is Mode.ACCESS_EXCLUSIVE:
            return "reads and writes"
        if self >= Mode.SHARE:
            return "writes"
        return ""


@dataclass(frozen=True, slots=True)
class LockExpectation:
    """One relation that a statement will lock."""

    mode: Mode
    relation: str
    rewrites: bool = False
    """The table (or this index) is, or may be, written anew under the lock: it is held as long as that takes."""
    scans: bool = False
    """The table is read whole under the lock."""


def expect(sql: str) -> tuple[LockExpectation, ...]:
    """The strongest lock on each relation that *sql* names, in the order of naming.

    Empty for a statement without such locks, and for one that the grammar does not know (see `grammar.read`).
    """
    try:
        statements = [raw.stmt for raw in postgast.parse(sql).stmts]
    except (postgast.PgQueryError, UnicodeEncodeError):
        return ()
    found: dict[str, LockExpectation] = {}
    for statement in statements:
        word = statement.WhichOneof("node") or ""
        for lock in _LOCKS[word](getattr(statement, word)) if word in _LOCKS else ():
            known = found.get(lock.relation, lock)
            found[lock.relation] = LockExpectation(
                max(known.mode, lock.mode), lock.relation, known.rewrites or lock.rewrites, known.scans or lock.scans
            )
    return tuple(found.values())


def _spelled(relation: pg.RangeVar) -> str:
    return f"{relation.schemaname}.{relation.relname}" if relation.schemaname else relation.relname


def _dotted(node: pg.Node) -> str:
    return ".".join(item.string.sval for item in node.list.items)


def _create(statement: pg.CreateStmt) -> Iterator[LockExpectation]:
    """A new table locks nobody but the one it refers to, and the parent that it is made a partition of."""
    for parent in statement.inh_relations:
        partition = statement.HasField("partbound")
        mode = Mode.ACCESS_EXCLUSIVE if partition else Mode.SHARE_UPDATE_EXCLUSIVE
        yield LockExpectation(mode, _spelled(parent.range_var))
    for element in statement.table_elts:
        nodes = element.column_def.constraints if element.HasField("column_def") else [element]
        yield from _referred(nodes)


def _referred(nodes: Sequence[pg.Node]) -> Iterator[LockExpectation]:
    for node in nodes:
        if node.constraint.contype == pg.CONSTR_FOREIGN:
            yield LockExpectation(Mode.SHARE_ROW_EXCLUSIVE, _spelled(node.constraint.pktable))


def _index(statement: pg.IndexStmt) -> Iterator[LockExpectation]:
    mode = Mode.SHARE_UPDATE_EXCLUSIVE if statement.concurrent else Mode.SHARE
    yield LockExpectation(mode, _spelled(statement.relation), scans=True)


def _drop(statement: pg.DropStmt) -> Iterator[LockExpectation]:
    """Dropping an index locks its table too, which the text does not name."""
    if statement.remove_type in (pg.OBJECT_TRIGGER, pg.OBJECT_POLICY, pg.OBJECT_RULE):
        for node in statement.objects:
            yield LockExpectation(
                Mode.ACCESS_EXCLUSIVE, ".".join(item.string.sval for item in list(node.list.items)[:-1])
            )
    elif statement.remove_type in _LOCKABLE:
        mode = Mode.SHARE_UPDATE_EXCLUSIVE if statement.concurrent else Mode.ACCESS_EXCLUSIVE
        for node in statement.objects:
            yield LockExpectation(mode, _dotted(node))


_LOCKABLE = frozenset(
    {pg.OBJECT_TABLE, pg.OBJECT_INDEX, pg.OBJECT_VIEW, pg.OBJECT_MATVIEW, pg.OBJECT_FOREIGN_TABLE, pg.OBJECT_SEQUENCE}
)


def _rename(statement: pg.RenameStmt) -> Iterator[LockExpectation]:
    if statement.HasField("relation"):
        weak = statement.rename_type == pg.OBJECT_INDEX
        yield LockExpectation(
            Mode.SHARE_UPDATE_EXCLUSIVE if weak else Mode.ACCESS_EXCLUSIVE, _spelled(statement.relation)
        )


def _moved(statement: pg.AlterObjectSchemaStmt) -> Iterator[LockExpectation]:
    if statement.HasField("relation"):
        yield LockExpectation(Mode.ACCESS_EXCLUSIVE, _spelled(statement.relation))


def _trigger(statement: pg.CreateTrigStmt) -> Iterator[LockExpectation]:
    yield LockExpectation(Mode.SHARE_ROW_EXCLUSIVE, _spelled(statement.relation))


def _on_table(mode: Mode, field: str, **more: bool) -> Callable[[Any], Iterator[LockExpectation]]:
    """For statements with one relation, in *field*."""

    def locks(statement: Any) -> Iterator[LockExpectation]:
        yield LockExpectation(mode, _spelled(getattr(statement, field)), **more)

    return locks


def _truncate(statement: pg.TruncateStmt) -> Iterator[LockExpectation]:
    for node in statement.relations:
        yield LockExpectation(Mode.ACCESS_EXCLUSIVE, _spelled(node.range_var))


def _refresh(statement: pg.RefreshMatViewStmt) -> Iterator[LockExpectation]:
    mode = Mode.EXCLUSIVE if statement.concurrent else Mode.ACCESS_EXCLUSIVE
    yield LockExpectation(mode, _spelled(statement.relation), rewrites=not statement.concurrent)


def _vacuum(statement: pg.VacuumStmt) -> Iterator[LockExpectation]:
    """FULL alone: the other forms let everybody work. Without a table it locks one after the other, all unnamed."""
    full = [node.def_elem.arg for node in statement.options if node.def_elem.defname == "full"]
    if full and not _off(full[-1]):
        for node in statement.rels:
            yield LockExpectation(Mode.ACCESS_EXCLUSIVE, _spelled(node.vacuum_relation.relation), rewrites=True)


def _off(value: pg.Node) -> bool:
    """Of an option that is on where it has no value."""
    return value.string.sval.lower() in ("false", "off") or (value.HasField("integer") and value.integer.ival == 0)


def _lock(statement: pg.LockStmt) -> Iterator[LockExpectation]:
    if statement.mode >= Mode.ROW_EXCLUSIVE:
        for node in statement.relations:
            yield LockExpectation(Mode(statement.mode), _spelled(node.range_var))


def _alter_table(statement: pg.AlterTableStmt) -> Iterator[LockExpectation]:
    for node in statement.cmds:
        yield from _command(_spelled(statement.relation), node.alter_table_cmd)


def _command(table: str, command: pg.AlterTableCmd) -> Iterator[LockExpectation]:
    defined: pg.Node = getattr(command, "def")
    match command.subtype:
        case pg.AT_AddColumn:
            yield _added_column(table, defined.column_def)
            yield from _referred(defined.column_def.constraints)
        case pg.AT_AlterColumnType:
            yield LockExpectation(Mode.ACCESS_EXCLUSIVE, table, rewrites=not _plain_text(defined.column_def))
        case pg.AT_SetNotNull:
            yield LockExpectation(Mode.ACCESS_EXCLUSIVE, table, scans=True)
        case pg.AT_AddConstraint:
            yield from _added_constraint(table, defined.constraint)
        case pg.AT_ValidateConstraint:
            yield LockExpectation(Mode.SHARE_UPDATE_EXCLUSIVE, table, scans=True)
        case pg.AT_AttachPartition:
            yield LockExpectation(Mode.SHARE_UPDATE_EXCLUSIVE, table)
            yield LockExpectation(Mode.ACCESS_EXCLUSIVE, _spelled(defined.partition_cmd.name), scans=True)
        case pg.AT_DetachPartition:
            mode = Mode.SHARE_UPDATE_EXCLUSIVE if defined.partition_cmd.concurrent else Mode.ACCESS_EXCLUSIVE
            yield LockExpectation(mode, table)
            yield LockExpectation(Mode.ACCESS_EXCLUSIVE, _spelled(defined.partition_cmd.name))
        case pg.AT_SetLogged | pg.AT_SetUnLogged | pg.AT_SetTableSpace | pg.AT_SetAccessMethod:
            yield LockExpectation(Mode.ACCESS_EXCLUSIVE, table, rewrites=True)
        case subtype if subtype in _GENTLE:
            yield LockExpectation(Mode.SHARE_UPDATE_EXCLUSIVE, table)
        case subtype if subtype in _HALFWAY:
            yield LockExpectation(Mode.SHARE_ROW_EXCLUSIVE, table)
        case _:
            yield LockExpectation(Mode.ACCESS_EXCLUSIVE, table)


_GENTLE = frozenset(
    {
        pg.AT_SetStatistics,
        pg.AT_SetOptions,
        pg.AT_ResetOptions,
        pg.AT_SetRelOptions,
        pg.AT_ResetRelOptions,
        pg.AT_ClusterOn,
        pg.AT_DropCluster,
    }
)
_HALFWAY = frozenset(
    {
        pg.AT_EnableTrig,
        pg.AT_EnableAlwaysTrig,
        pg.AT_EnableReplicaTrig,
        pg.AT_EnableTrigAll,
        pg.AT_EnableTrigUser,
        pg.AT_DisableTrig,
        pg.AT_DisableTrigAll,
        pg.AT_DisableTrigUser,
    }
)


def _added_column(table: str, column: pg.ColumnDef) -> LockExpectation:
    """A constant default is kept in the catalogue; a default that is computed per row rewrites the table."""
    constraints = [node.constraint for node in column.constraints]
    computed = any(
        (one.contype == pg.CONSTR_DEFAULT and _computed(one.raw_expr))
        or one.contype in (pg.CONSTR_IDENTITY,)
        or (one.contype == pg.CONSTR_GENERATED and one.generated_kind != "v")
        for one in constraints
    )
    names = [node.string.sval for node in column.type_name.names]
    indexed = any(one.contype in (pg.CONSTR_PRIMARY, pg.CONSTR_UNIQUE) for one in constraints)
    serial = names[-1:] in (["serial"], ["bigserial"], ["smallserial"])
    return LockExpectation(Mode.ACCESS_EXCLUSIVE, table, rewrites=computed or serial, scans=indexed)


_STABLE = frozenset({"now", "transaction_timestamp", "statement_timestamp", "current_user", "current_database"})


def _computed(expression: pg.Node) -> bool:
    """Whether an expression may be volatile: it calls a function that is not known to be stable."""
    for _, node in postgast.walk(expression):
        if isinstance(node, pg.FuncCall) and node.funcname[-1].string.sval not in _STABLE:
            return True
    return False


def _plain_text(column: pg.ColumnDef) -> bool:
    """To text or a varchar without a limit: no rewrite from another text type (from a number there is one)."""
    names = [node.string.sval for node in column.type_name.names]
    return names[-1:] in (["text"], ["varchar"]) and not column.type_name.typmods and not column.HasField("raw_default")


def _added_constraint(table: str, constraint: pg.Constraint) -> Iterator[LockExpectation]:
    scans = not constraint.skip_validation
    if constraint.contype == pg.CONSTR_FOREIGN:
        yield LockExpectation(Mode.SHARE_ROW_EXCLUSIVE, table, scans=scans)
        yield LockExpectation(Mode.SHARE_ROW_EXCLUSIVE, _spelled(constraint.pktable))
    else:
        yield LockExpectation(Mode.ACCESS_EXCLUSIVE, table, scans=scans and not constraint.indexname)


_LOCKS: Mapping[str, Callable[[Any], Iterator[LockExpectation]]] = {
    "create_stmt": _create,
    "index_stmt": _index,
    "drop_stmt": _drop,
    "rename_stmt": _rename,
    "alter_object_schema_stmt": _moved,
    "create_trig_stmt": _trigger,
    "create_policy_stmt": _on_table(Mode.ACCESS_EXCLUSIVE, "table"),
    "alter_policy_stmt": _on_table(Mode.ACCESS_EXCLUSIVE, "table"),
    "rule_stmt": _on_table(Mode.ACCESS_EXCLUSIVE, "relation"),
    "alter_table_stmt": _alter_table,
    "truncate_stmt": _truncate,
    "refresh_mat_view_stmt": _refresh,
    "vacuum_stmt": _vacuum,
    "lock_stmt": _lock,
    "cluster_stmt": _on_table(Mode.ACCESS_EXCLUSIVE, "relation", rewrites=True),
    "insert_stmt": _on_table(Mode.ROW_EXCLUSIVE, "relation"),
    "update_stmt": _on_table(Mode.ROW_EXCLUSIVE, "relation"),
    "delete_stmt": _on_table(Mode.ROW_EXCLUSIVE, "relation"),
}
