"""What a failed batch calls for, by its error. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import psycopg

from dbwatch.errors import CannotConnect, ConnectionLost, DbwatchError, ServerSilent
from dbwatch.postgres.session import describe
from dbwatch.text import one_line

EXPECTED = (psycopg.Error, ConnectionLost, ServerSilent, CannotConnect)
"""The errors that a batch is prepared for."""

MOVED = "dbwatch: the cursor was moved by another"
"""In the text that `backfill-batch.sql` fails to cast where its compare-and-set changed no row."""


class Trouble(Enum):
    """What to do about an error."""

    LOCKED = auto()
    """A lock was not to be had in time: a smaller batch, after a while."""
    TIMEOUT = auto()
    """The statement took too long: a smaller batch."""
    CANCELLED = auto()
    """Somebody cancelled it."""
    DEADLOCK = auto()
    """A victim of a deadlock, or not serializable: half the batch, at once."""
    MOVED = auto()
    """The cursor is not where we left it: read the row again."""
    LOST = auto()
    """The outcome is unknown: connect again, and read the row."""
    CROWDED = auto()
    """The server lacks room: the same again, after a while."""
    FATAL = auto()
    """It would fail again."""


def judge(error: BaseException, *, ran_s: float, statement_timeout_s: float) -> Trouble:
    """What *error* calls for, of a batch that ran for *ran_s* seconds.

    A statement_timeout and somebody's pg_cancel_backend have one SQLSTATE; only the time tells them apart, for the
    words come in the server's language.
    """
    if isinstance(error, ConnectionLost | ServerSilent | CannotConnect):
        return Trouble.LOST
    state = getattr(error, "sqlstate", None) or ""
    if state == "55P03":
        return Trouble.LOCKED
    if state == "57014":
        return Trouble.TIMEOUT if ran_s >= 0.9 * statement_timeout_s else Trouble.CANCELLED
    if state in ("40P01", "40001"):
        return Trouble.DEADLOCK
    if state == "22P02" and MOVED in str(error):
        return Trouble.MOVED
    if state[:2] == "53":
        return Trouble.CROWDED
    # Shutdown, crash, start-up, timeouts that end the session; a standby where the primary was before.
    if state in ("57P01", "57P02", "57P03", "57P05", "25006", "25P03", "25P04") or state[:2] == "08":
        return Trouble.LOST
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return Trouble.LOST
    return Trouble.FATAL


@dataclass(frozen=True, slots=True)
class Poison:
    """A row that cannot take its value."""

    key: str
    """Its name as the journal keeps it (`Statements.named`): canonical JSON, raw."""
    sqlstate: str
    message: str
    """Why, in the server's words; harmless."""

    @classmethod
    def of(cls, key: str, error: psycopg.Error) -> Poison:
        """What a batch of that row alone met."""
        return cls(key, error.sqlstate or "", one_line(error.diag.message_primary or str(error), 500))


def poisonous(error: BaseException) -> bool:
    """Whether *error* may be the fault of a row: its value cannot be computed (class 22, 54000: too large for an
    index), it breaks a constraint (23), or a trigger refuses it (P0: PL/pgSQL's own; and whatever PostgreSQL has no
    name for, which a RAISE made up)."""
    state = getattr(error, "sqlstate", None) or ""
    if state == "22P02" and MOVED in str(error):
        return False
    return isinstance(error, psycopg.Error) and (
        state[:2] in ("22", "23", "P0") or state == "54000" or (bool(state) and not _named(state))
    )


def _named(state: str) -> bool:
    try:
        psycopg.errors.lookup(state)
    except KeyError:
        return False
    return True


_NEXT = {
    "42P01": "the table is gone; look at what the window did meanwhile",
    "42703": "a column is gone; look at what the window did meanwhile",
    "42501": "grant what is missing, then start it again: it goes on from its cursor",
    "23": "mend or exclude the rows that cannot take the value, then start it again: it goes on from its cursor",
    "22": "mend or exclude the rows whose value cannot be computed, then start it again: it goes on from its cursor",
}


def sentence(error: BaseException, work: str) -> DbwatchError:
    """A fatal *error* of *work* (`the backfill of public.users`) for a person."""
    state = getattr(error, "sqlstate", None) or ""
    advice = _NEXT.get(state) or _NEXT.get(state[:2]) or "mend that, then start it again: it goes on from its cursor"
    return DbwatchError(f"{work} failed", why=describe(error), next=advice)
