"""What a failed question says about a view, and which GRANT mends what privileges hide. Pure."""

from __future__ import annotations

from dataclasses import replace

import psycopg

from dbwatch.monitor.samples import Row, Status, View
from dbwatch.postgres.facts import ServerFacts
from dbwatch.postgres.roles import grant
from dbwatch.postgres.session import describe

_UNSUPPORTED = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFile,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.ObjectNotInPrerequisiteState,
)


def hidden(number: int, what: str, facts: ServerFacts) -> str:
    """`12 sessions hidden: GRANT pg_monitor TO app`; *what* is a plural."""
    noun = what.removesuffix("s") if number == 1 else what
    return f"{number:,} {noun} hidden: {grant('pg_monitor', facts.user)}"


def cut(shown: int, total: int, what: str) -> str:
    """That a LIMIT left some out: `1,000 of 1,312 sessions shown`; empty where it did not."""
    return f"{shown:,} of {total:,} {what} shown" if shown < total else ""


def after_failure(before: View[Row], error: Exception, facts: ServerFacts) -> View[Row]:
    """The view after *error*: its last good rows with their time, and a status and a reason for a person.

    A view that this server does not have keeps no rows.
    """
    said = describe(error)
    match error:
        case psycopg.errors.LockNotAvailable():
            return replace(before, status=Status.LOCKED, reason=f"a lock is in the way: {said}")
        case psycopg.errors.InsufficientPrivilege():
            return replace(before, status=Status.HIDDEN, reason=f"{said}: {grant('pg_monitor', facts.user)}")
        case psycopg.errors.QueryCanceled():
            return replace(before, status=Status.ERROR, reason=f"too slow, ended by its time limit: {said}")
        case psycopg.Error() if isinstance(error, _UNSUPPORTED):
            return View(status=Status.UNSUPPORTED, reason=_missing(said))
        case psycopg.Error():
            return replace(before, status=Status.ERROR, reason=said)
    return replace(before, status=Status.ERROR, reason=f"a fault in dbwatch: {type(error).__name__}: {said}")


def _missing(said: str) -> str:
    if "shared_preload_libraries" in said:
        return "pg_stat_statements is not loaded: add it to shared_preload_libraries and restart the server"
    if "does not exist" in said and ("exec_time" in said or "wal_bytes" in said):
        return "pg_stat_statements is too old: ALTER EXTENSION pg_stat_statements UPDATE"
    return said
