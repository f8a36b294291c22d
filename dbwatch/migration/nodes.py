"""Which object a node of the grammar names, in whatever form the grammar keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from postgast import pg_query_pb2 as pg

from dbwatch.migration.ddl import Action, Named

KINDS: Mapping[int, str] = {
    pg.OBJECT_AGGREGATE: "aggregate",
    pg.OBJECT_COLLATION: "collation",
    pg.OBJECT_COLUMN: "column",
    pg.OBJECT_DOMAIN: "domain",
    pg.OBJECT_EVENT_TRIGGER: "event trigger",
    pg.OBJECT_EXTENSION: "extension",
    pg.OBJECT_FOREIGN_TABLE: "foreign table",
    pg.OBJECT_FUNCTION: "function",
    pg.OBJECT_INDEX: "index",
    pg.OBJECT_MATVIEW: "materialized view",
    pg.OBJECT_OPERATOR: "operator",
    pg.OBJECT_POLICY: "policy",
    pg.OBJECT_PROCEDURE: "procedure",
    pg.OBJECT_PUBLICATION: "publication",
    pg.OBJECT_ROUTINE: "function",
    pg.OBJECT_RULE: "rule",
    pg.OBJECT_SCHEMA: "schema",
    pg.OBJECT_SEQUENCE: "sequence",
    pg.OBJECT_STATISTIC_EXT: "statistics",
    pg.OBJECT_TABCONSTRAINT: "constraint",
    pg.OBJECT_TABLE: "table",
    pg.OBJECT_TRIGGER: "trigger",
    pg.OBJECT_TYPE: "type",
    pg.OBJECT_VIEW: "view",
}
"""How we call what the grammar calls so."""
OF_A_TABLE = frozenset({"column", "constraint", "trigger", "rule", "policy"})
"""Named within their table."""
OF_THE_DATABASE = frozenset({"schema", "extension", "event trigger", "publication"})
"""In no schema."""


def relation_named(action: Action, kind: str, relation: pg.RangeVar) -> Named:
    """The relation itself."""
    return Named(action, kind, relation.schemaname or None, relation.relname)


def part_named(action: Action, kind: str, relation: pg.RangeVar, name: str) -> Named:
    """What belongs to *relation*: a column, a constraint, an index."""
    return Named(action, kind, relation.schemaname or None, name, parent=relation.relname)


def dotted(names: Sequence[pg.Node]) -> tuple[str | None, str]:
    """Schema and name of a list such as `shop.users`."""
    parts = [node.string.sval for node in names]
    return (parts[-2] if len(parts) > 1 else None), (parts[-1] if parts else "")


def object_named(action: Action, kind: str, node: pg.Node) -> Named:
    """What an object reference names, in whatever form the grammar keeps it for this kind."""
    match node.WhichOneof("node"):
        case "list":
            names = node.list.items
        case "object_with_args":
            names = node.object_with_args.objname
        case "type_name":
            names = node.type_name.names
        case "range_var":
            return relation_named(action, kind, node.range_var)
        case _:
            return Named(action, kind, "" if kind in OF_THE_DATABASE else None, node.string.sval)
    if kind in OF_A_TABLE:
        *relation, last = names
        schema, parent = dotted(relation)
        return Named(action, kind, schema, last.string.sval, parent=parent)
    if names and names[-1].WhichOneof("node") == "type_name":  # COMMENT ON CONSTRAINT ... ON DOMAIN and such
        names = names[-1].type_name.names
    schema, name = dotted(names)
    return Named(action, kind, "" if kind in OF_THE_DATABASE else schema, name)
