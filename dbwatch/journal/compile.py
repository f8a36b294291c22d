"""SQLAlchemy statements for a psycopg session: one definition of the tables, one way to talk to the server."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.schema import DDLElement
from sqlalchemy.sql import ClauseElement

_DIALECT: Dialect = PGDialect_psycopg(paramstyle="pyformat")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so


def compiled(statement: ClauseElement) -> tuple[bytes, dict[str, Any] | None]:
    """*statement* as psycopg takes it: its text with `%(name)s` placeholders, and their values (None for DDL)."""
    result = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})  # for lists of IN
    if isinstance(statement, DDLElement):
        return str(result).encode(), None
    return str(result).encode(), dict(result.params)
