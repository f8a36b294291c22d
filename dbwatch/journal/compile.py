"""SQLAlchemy statements for a psycopg session: one definition of the tables, one way to talk to the server."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.schema import DDLElement
from sqlalchemy.sql import ClauseElement

from dbwatch.postgres.queries import marked

_DIALECT: Dialect = PGDialect_psycopg(paramstyle="pyformat")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so


def compiled(statement: ClauseElement) -> tuple[bytes, dict[str, Any] | None]:
    """*statement* as psycopg takes it: its text, marked as ours, with `%(name)s` placeholders, and their values.

    None stands for the values of DDL.
    """
    result = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})  # for lists of IN
    if isinstance(statement, DDLElement):
        return str(result).encode(), None
    return marked(str(result)).encode(), dict(result.params)
