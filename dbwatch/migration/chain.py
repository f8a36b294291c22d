"""The revisions of an Alembic project, and what their functions are by their source. Pure."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from enum import StrEnum


class Body(StrEnum):
    """What an upgrade() or downgrade() is, by its source."""

    MISSING = "missing"
    """Not defined: running it is an AttributeError."""
    NOOP = "noop"
    """Does nothing: the version moves and the schema does not."""
    RAISES = "raises"
    """Ends in an unconditional raise."""
    BODY = "body"
    UNKNOWN = "unknown"
    """Imported, assigned, or without a source that can be read."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision script."""

    id: str
    down: tuple[str, ...]
    """Its parents and what it depends on."""
    doc: str
    path: str
    upgrade: Body
    downgrade: Body


@dataclass(frozen=True, slots=True)
class Chain:
    """An Alembic project against one database."""

    revisions: tuple[Revision, ...]
    """From base to heads, parents first."""
    heads: frozenset[str]
    """Of the scripts."""
    current: frozenset[str]
    """Of the database, as the version table has them."""
    version_table: str
    version_schema: str | None
    transaction_per_migration: bool
    steps: tuple[str, ...]
    """The revisions that lead from `current` to the target that was asked for, in the order of running."""
    trouble: str
    """Why the target cannot be reached; empty where it can."""

    def revision(self, id: str) -> Revision:
        """The revision with the exact *id*. Raises KeyError."""
        for revision in self.revisions:
            if revision.id == id:
                return revision
        raise KeyError(id)


def classify(source: str, function: str) -> Body:
    """What *function* of a revision script is. Raises SyntaxError where *source* does not parse."""
    found = Body.MISSING
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name) if name == function:
                found = _body(node)
            case ast.AsyncFunctionDef(name=name) if name == function:
                found = Body.UNKNOWN
            case _ if function in _bound(node):
                found = Body.UNKNOWN
    return found


def _body(function: ast.FunctionDef) -> Body:
    acts = [node for node in function.body if not _idle(node)]
    if not acts:
        return Body.NOOP
    return Body.RAISES if any(isinstance(node, ast.Raise) for node in acts) else Body.BODY


def _idle(node: ast.stmt) -> bool:
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant()) | ast.Return(value=None | ast.Constant()):
            return True
        case ast.Import() | ast.ImportFrom() | ast.Global() | ast.Nonlocal():
            return True
    return False


def _bound(node: ast.stmt) -> set[str]:
    """Names that a top-level statement other than a function binds, blocks included."""
    names: set[str] = set()
    for inner in ast.walk(node):
        match inner:
            case ast.Name(id=name, ctx=ast.Store()) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(name=name, asname=alias):
                names.add(alias or name)
    return names
