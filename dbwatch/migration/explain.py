"""What an exception from somebody's migration code means, in one sentence."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from dbwatch.errors import Fenced
from dbwatch.migration.events import Cause, Failed
from dbwatch.migration.hooks import Elsewhere, Stopped, Unkept
from dbwatch.migration.request import Ask
from dbwatch.migration.unusable import Unusable

_QUERY_CANCELED = "57014"
_ADMIN_SHUTDOWN = "57P01"
_NO_CONNECTION = "08001"
"""sqlclient_unable_to_establish_sqlconnection: a connection that is not made has no SQLSTATE from the server."""


def explain(error: BaseException, ask: Ask, revision: str | None, *, stopped: bool = False) -> Failed:
    """*error* as the event that ends a migration. *stopped*: we had been asked to stop when it came."""
    for cause in _causes(error):
        match cause:
            case Elsewhere():
                return Failed(Cause.ELSEWHERE, str(cause))
            case Fenced():
                return Failed(Cause.FENCED, str(cause), revision=revision)
            case Unkept():
                return Failed(Cause.UNKEPT, str(cause), revision=revision)
            case Unusable():
                return Failed(Cause.DATABASE, str(cause), revision=revision)
            case Stopped() | KeyboardInterrupt():
                return Failed(Cause.STOPPED, "stopped", revision=revision)
    for cause in _causes(error):
        if (state := _sqlstate(cause)) is not None:
            statement = next((one.statement for one in _causes(error) if isinstance(one, DBAPIError)), None)
            asked = stopped and state in (_QUERY_CANCELED, _ADMIN_SHUTDOWN)
            return Failed(Cause.STOPPED if asked else Cause.DATABASE, _said(cause), state, revision, statement)
    if stopped:
        return Failed(Cause.STOPPED, f"stopped: {_said(error)}", revision=revision)
    if isinstance(error, CommandError):
        return Failed(Cause.CONFIG, _said(error), revision=revision)
    where = _where(error, ask)
    what = "it called exit()" if isinstance(error, SystemExit) else f"{type(error).__name__}: {_said(error)}"
    said = f"{where}: {what}" if where else what
    if any(isinstance(one, OperationalError | InterfaceError | ConnectionError) for one in _causes(error)):
        return Failed(Cause.DATABASE, said, _NO_CONNECTION, revision)
    return Failed(Cause.CODE if revision else Cause.CONFIG, said, revision=revision)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error*, the driver's error in it, and what it was raised from, outermost first."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop(0)
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [getattr(one, "orig", None), one.__cause__, None if one.__suppress_context__ else one.__context__]


def _sqlstate(error: BaseException) -> str | None:
    """As psycopg and asyncpg name it, or as psycopg2 does."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) else None


def _said(error: BaseException) -> str:
    """The server's own sentence, or the exception's first line."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    lines = (primary or str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _where(error: BaseException, ask: Ask) -> str:
    """The innermost line of the project's own code, as `env.py line 12`."""
    folder = Path(ask.config).resolve().parent
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{Path(error.filename).name} line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_absolute() and path.is_relative_to(folder) and "site-packages" not in path.parts:
            return f"{path.relative_to(folder)} line {frame.lineno}"
    return ""
