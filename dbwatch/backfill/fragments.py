"""The DBA's SQL fragments, held to their places by PostgreSQL's own grammar. Pure; nothing here talks to a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import postgast
from postgast import pg_query_pb2 as ast

from dbwatch.errors import UsageError
from dbwatch.text import one_line

_COMMENTS = {"SQL_COMMENT", "C_COMMENT"}
_CALM = frozenset(
    {"btrim", "char_length", "concat", "concat_ws", "decode", "encode", "initcap", "left", "length", "lower", "lpad"}
    | {"ltrim", "md5", "overlay", "position", "regexp_replace", "repeat", "replace", "reverse", "right", "rpad"}
    | {"rtrim", "split_part", "substr", "substring", "to_hex", "translate", "upper"}
    | {"abs", "ceil", "ceiling", "floor", "round", "sign", "trunc"}
)
"""Functions without side effects that an expression may call and still be evaluated once more for the count of
rows that stay pending."""


@dataclass(frozen=True, slots=True)
class Fragments:
    """What SET and WHERE say, as far as it can be known without a server."""

    table: tuple[str, ...]
    """The table's name, or its schema and name."""
    targets: tuple[str, ...]
    """The columns that SET assigns, in its order."""
    where_columns: frozenset[str]
    """Columns that WHERE names, at any depth; `*` where it names whole rows."""
    set_columns: frozenset[str]
    """Columns that the right-hand sides of SET name."""
    stays_pending: str | None
    """WHERE as it will stand after SET: each assigned column replaced by its new value. Rows for which it is true
    remain pending however often they are set. None where that cannot be told from the text."""
    changes_nothing: bool = False
    """SET gives each column the value that it has."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def read(table: str, assignments: str, where: str) -> Fragments:
    """Takes the three fragments apart.

    Raises UsageError where one of them is no SQL, or more than what belongs in its place: a semicolon, a comment,
    a parameter, a further clause, an unbalanced bracket.
    """
    for what, fragment in (("table", table), ("SET", assignments), ("WHERE", where)):
        _only_words(what, fragment)
    update = _update(table, assignments)
    clause = _where(table, where)
    name = (update.relation.schemaname, update.relation.relname)
    return Fragments(
        table=tuple(part for part in name if part),
        targets=tuple(target.res_target.name for target in update.target_list),
        where_columns=_columns(clause),
        set_columns=frozenset().union(*(_columns(target) for target in update.target_list)),
        stays_pending=_after_set(assignments, update, where),
        changes_nothing=all(_is_itself(target.res_target) for target in update.target_list),
    )


def _is_itself(target: ast.ResTarget) -> bool:
    """`column = column`, or `column = table.column`."""
    plain = target.val.WhichOneof("node") == "column_ref" and not target.indirection
    return plain and _last(target.val.column_ref) == target.name


def spelled(assignments: str, where: str) -> str:
    """SET and WHERE as PostgreSQL's grammar understands them: other blanks, other case and other brackets are the same.
    What it cannot read stays as it is."""
    text = " ".join(("UPDATE t SET", assignments, "WHERE", where))
    try:
        return str(postgast.deparse(postgast.parse(text)))
    except (postgast.PgQueryError, ValueError):
        return text


def read_condition(table: str, what: str, condition: str) -> None:
    """Raises UsageError where *condition*, which a sentence calls *what*, is more than one condition on *table*."""
    _only_words(what, condition)
    _where(table, condition, what)


def read_key(key: str) -> tuple[str, ...]:
    """The columns in *key*, `id` or `shop, number`. Raises UsageError where it is no list of columns."""
    _only_words("key", key)
    refused = UsageError(f"the key {one_line(key)!r} is no list of columns", next="write it as: id, or: a, b")
    try:
        [statement] = postgast.parse("SELECT " + key).stmts
    except (postgast.PgQueryError, ValueError):
        raise refused from None
    select = statement.stmt.select_stmt
    columns = [target.res_target.val.column_ref.fields for target in select.target_list]
    if len(select.ListFields()) > len({"target_list", "limit_option", "op"}) or not columns:
        raise refused
    if any(len(fields) != 1 or not fields[0].string.sval for fields in columns):
        raise refused
    return tuple(str(fields[0].string.sval) for fields in columns)


def _only_words(what: str, fragment: str) -> None:
    if not fragment.strip():
        raise UsageError(f"the backfill has no {what}", next=f"say what its {what} is; WHERE true takes all rows")
    if "\0" in fragment:
        raise UsageError(f"the backfill's {what} has a zero byte in it")
    for token in _tokens(what, fragment):
        if token.kind in _COMMENTS:
            raise UsageError(f"the backfill's {what} has a comment in it", next="leave the comment out")
        if token.text == ";":
            raise UsageError(f"the backfill's {what} has a semicolon in it", next="give one expression, no statement")
        if token.kind == "PARAM":
            raise UsageError(f"the backfill's {what} has a parameter, {token.text}, in it", next="write the value")


def _tokens(what: str, fragment: str) -> list[_Token]:
    """Its tokens, with their place in bytes."""
    octets = fragment.encode()
    try:
        scanned = postgast.scan(fragment).tokens
    except postgast.PgQueryError as error:
        raise _no_sql(what, fragment, error) from None
    return [
        _Token(ast.Token.Name(token.token), octets[token.start : token.end].decode(), token.start, token.end)
        for token in scanned
    ]


def _no_sql(what: str, fragment: str, error: postgast.PgQueryError) -> UsageError:
    return UsageError(f"the backfill's {what} cannot be read", why=f"{one_line(str(error))} in {one_line(fragment)!r}")


def _update(table: str, assignments: str) -> ast.UpdateStmt:
    try:
        parsed = postgast.parse(" ".join(("UPDATE", table, "SET", assignments)))
    except postgast.PgQueryError as error:
        raise _no_sql("SET", f"{table} SET {assignments}", error) from None
    update = parsed.stmts[0].stmt.update_stmt
    _just(update, {"relation", "target_list"}, "SET", "assignments")
    relation = update.relation
    if relation.HasField("alias") or relation.catalogname or not relation.inh:
        raise UsageError(
            f"{one_line(table)!r} is more than a table's name",
            next="write table or schema.table, without alias or ONLY",
        )
    return update


def _where(table: str, where: str, what: str = "WHERE") -> ast.Node:
    try:
        parsed = postgast.parse(" ".join(("SELECT FROM", table, "WHERE", where)))
    except postgast.PgQueryError as error:
        raise _no_sql(what, where, error) from None
    select = parsed.stmts[0].stmt.select_stmt
    if select.HasField("larg"):
        raise UsageError(f"the backfill's {what} holds more than a condition", why="it has a set operation")
    _just(select, {"from_clause", "where_clause", "limit_option", "op"}, what, "a condition")
    return select.where_clause


def _just(statement: ast.UpdateStmt | ast.SelectStmt, parts: set[str], what: str, meant: str) -> None:
    """Raises UsageError where the statement has further clauses than *parts*."""
    for field, _ in statement.ListFields():
        if field.name not in parts:
            clause = field.name.removesuffix("_clause").removesuffix("_list").replace("_", " ")
            raise UsageError(f"the backfill's {what} holds more than {meant}", why=f"it has a {clause} clause")


def _columns(node: ast.Node) -> frozenset[str]:
    references = postgast.find_nodes(node, ast.ColumnRef)
    return frozenset(_last(reference) for reference in references)


def _last(reference: ast.ColumnRef) -> str:
    return reference.fields[-1].string.sval or "*"


def _after_set(assignments: str, update: ast.UpdateStmt, where: str) -> str | None:
    values = _new_values(assignments, update)
    prefix = "SELECT WHERE "
    clause = postgast.parse(prefix + where).stmts[0].stmt.select_stmt.where_clause
    references = list(postgast.find_nodes(clause, ast.ColumnRef))
    if values is None or any(_last(reference) == "*" for reference in references):
        return None
    replaced = [reference for reference in references if _last(reference) in values]
    nodes = (clause, *update.target_list)
    if not replaced or any(_has(node, ast.SubLink) for node in nodes) or not _calls(nodes) <= _CALM:
        return None
    tokens = _tokens("WHERE", where)
    at_start = {token.start: index for index, token in enumerate(tokens)}
    octets = where.encode()
    for reference in sorted(replaced, key=lambda reference: reference.location, reverse=True):
        first = at_start[reference.location - len(prefix)]
        last = first + 2 * len(reference.fields) - 2  # names with dots between them
        value = f"({values[_last(reference)]})".encode()
        octets = octets[: tokens[first].start] + value + octets[tokens[last].end :]
    return octets.decode()


def _new_values(assignments: str, update: ast.UpdateStmt) -> Mapping[str, str] | None:
    """The text of each column's new value; None where one is set in another way than `column = expression`."""
    targets = [target.res_target for target in update.target_list]
    prefix = "UPDATE t SET "
    parsed = postgast.parse(prefix + assignments).stmts[0].stmt.update_stmt
    starts = [target.res_target.location - len(prefix) for target in parsed.target_list]
    if any(t.indirection or t.val.WhichOneof("node") in ("multi_assign_ref", "set_to_default") for t in targets):
        return None
    octets = assignments.encode()
    tokens = _tokens("SET", assignments)
    values: dict[str, str] = {}
    for target, (start, stop) in zip(targets, pairwise([*starts, len(octets) + 1]), strict=True):
        inside = [token for token in tokens if start <= token.start < stop]
        if stop <= len(octets):
            inside.pop()  # the comma before the next column
        _name, equals, first, *_ = inside
        if equals.text != "=":
            return None
        values[target.name] = octets[first.start : inside[-1].end].decode()
    return values


def _has(node: ast.Node, kind: type[ast.SubLink]) -> bool:
    return next(postgast.find_nodes(node, kind), None) is not None


def _calls(nodes: Iterable[ast.Node]) -> set[str]:
    return {call.funcname[-1].string.sval for node in nodes for call in postgast.find_nodes(node, ast.FuncCall)}
