"""Definitions in one form, whether the server deparsed them or a migration wrote them. Pure.

Both are read by PostgreSQL's grammar, and what means nothing is taken off: places in the text, schemas, casts, the
spelling of a constant, an explicit ASC. Two definitions that are equal then are taken for the same; what the server
writes in a way of its own beyond that (BETWEEN, a view) makes them different.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import postgast
from postgast import pg_query_pb2 as pg

from dbwatch.migration.fingerprint import Item


@dataclass(frozen=True, slots=True)
class Column:
    """A column by its parts."""

    type: str
    not_null: bool
    default: str
    """Empty: none."""
    rest: tuple[str, ...] = ()
    """What the fingerprint says beyond that: an identity, a collation."""


HEX = re.compile(r"(?:[0-9a-f]{2})+")
"""A form that holds a parsed index or constraint, as against one that could not be read."""

Form = Column | str
"""An object's definition: equal for two exactly if nothing that is known to matter differs."""


def of_item(item: Item) -> Form:
    """The form of a definition that the server gave."""
    first, *rest = item.definition.split("\n")
    try:
        match item.kind:
            case "column":
                lines = [line for line in rest if line != "not null" and not line.startswith("default ")]
                default = next((line.removeprefix("default ") for line in rest if line.startswith("default ")), "")
                kind = _value(f"NULL::{first}").type_cast.type_name
                return Column(
                    of_type(kind),
                    "not null" in rest,
                    of_default(_value(default), kind) if default else "",
                    tuple(lines),
                )
            case "index":
                return "\n".join((of_index(_statement(first).index_stmt), *rest))
            case "constraint":
                added = _statement(f"ALTER TABLE t ADD CONSTRAINT c {first}").alter_table_stmt.cmds[0].alter_table_cmd
                own = [line for line in rest if not line.startswith("by ")]
                return "\n".join((of_constraint(_defined(added).constraint), *own))
    except (postgast.PgQueryError, UnicodeEncodeError, IndexError):
        pass
    lines = item.definition.split("\n")
    return "\n".join(line for line in lines if line not in _USUAL and not line.startswith("owner "))


_USUAL = ("access method heap",)


def of_index(statement: pg.IndexStmt) -> str:
    """The form of a CREATE INDEX, whatever the index and its schema are called."""
    bare = _bare(statement)
    for field in ("idxname", "concurrent", "if_not_exists"):
        bare.ClearField(field)
    for node in bare.index_params:
        element = node.index_elem
        element.ClearField("indexcolname")
        if element.ordering == pg.SORTBY_ASC:
            element.ordering = pg.SORTBY_DEFAULT
        first = element.ordering == pg.SORTBY_DESC
        if element.nulls_ordering == (pg.SORTBY_NULLS_FIRST if first else pg.SORTBY_NULLS_LAST):
            element.nulls_ordering = pg.SORTBY_NULLS_DEFAULT
    return _text(bare)


def of_constraint(constraint: pg.Constraint) -> str:
    """The form of a constraint of a table, whatever it is called."""
    bare = _bare(constraint)
    bare.ClearField("conname")
    return _text(bare)


def of_type(name: pg.TypeName) -> str:
    """The form of a type: `VARCHAR(36)` and `character varying(36)` have the same."""
    return _text(_bare(name))


def of_default(node: pg.Node, kind: pg.TypeName) -> str:
    """The form of a column's default. `'0'` and `0` are the same for an integer, and not for a bigint: the server
    keeps the one as a constant of the type and the other as an integer that it converts."""
    bare = _bare(node)
    name = kind.names[-1].string.sval if kind.names else ""
    if bare.WhichOneof("node") == "a_const" and name in _EXACT and _NUMBER.fullmatch(bare.a_const.sval.sval):
        bare.a_const.sval.sval = f"{_AS_NUMBER}{bare.a_const.sval.sval}"
    if bare.WhichOneof("node") == "a_const" and name == "bool":
        bare.a_const.sval.sval = _truth(bare.a_const.sval.sval)
    return _text(bare)


def _truth(text: str) -> str:
    """A boolean as the server writes it, whichever of its spellings a migration has chosen: `'0'`, `'off'`, `'y'`."""
    word = text.strip().lower()
    for value, names in (("true", ("true", "yes", "on", "1")), ("false", ("false", "no", "off", "0"))):
        if word and word != "o" and any(name.startswith(word) for name in names):
            return value
    return text


_EXACT = ("int4", "numeric")
_NUMBER = re.compile(r"\d+(\.\d+)?")
_AS_NUMBER = "number "


def _statement(sql: str) -> Any:
    return postgast.parse(sql).stmts[0].stmt


def _value(expression: str) -> Any:
    return _statement(f"SELECT {expression}").select_stmt.target_list[0].res_target.val


def _defined(command: Any) -> Any:
    return getattr(command, "def")


def _bare(message: Any) -> Any:
    bare = type(message)()
    bare.CopyFrom(message)
    if isinstance(bare, pg.Node):
        _uncast(bare)
    _strip(bare)
    return bare


_MEANINGLESS = frozenset(
    {"location", "schemaname", "catalogname", "rexpr_list_start", "rexpr_list_end", "list_start", "list_end"}
)


def _strip(message: Any) -> None:
    for field, value in list(message.ListFields()):
        if field.name in _MEANINGLESS:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                if isinstance(part, pg.Node):
                    _uncast(part)
                _strip(part)
    if isinstance(message, pg.TypeName):
        del message.names[:-1]
    elif isinstance(message, pg.FuncCall):
        del message.funcname[:-1]
        message.ClearField("funcformat")


def _uncast(node: pg.Node) -> None:
    """Takes casts and the spelling of a constant off *node*, in its place."""
    while node.WhichOneof("node") == "type_cast":
        inner = pg.Node()
        inner.CopyFrom(node.type_cast.arg)
        node.CopyFrom(inner)
    if node.WhichOneof("node") == "a_const":
        _plain(node.a_const)
    elif node.WhichOneof("node") == "a_expr" and node.a_expr.kind == pg.AEXPR_IN:
        items = list(node.a_expr.rexpr.list.items)
        node.a_expr.kind = pg.AEXPR_OP_ANY
        node.a_expr.rexpr.CopyFrom(pg.Node(a_array_expr=pg.A_ArrayExpr(elements=items)))


def _plain(constant: pg.A_Const) -> None:
    match constant.WhichOneof("val"):
        case "ival":
            text = f"{_AS_NUMBER}{constant.ival.ival}"
        case "fval":
            text = f"{_AS_NUMBER}{constant.fval.fval}"
        case "boolval":
            text = "true" if constant.boolval.boolval else "false"
        case "sval":
            text = constant.sval.sval
            text = {"t": "true", "f": "false"}.get(text, text)
        case _:
            return
    constant.Clear()
    constant.sval.sval = text.rpartition(".")[2] if text.endswith("_seq") else text


def _text(message: Any) -> str:
    text: str = message.SerializeToString(deterministic=True).hex()
    return text
