"""Cancelling and terminating sessions by (pid, backend_start): never another session that got the same pid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import psycopg

from dbwatch.postgres.queries import query
from dbwatch.postgres.roles import grant
from dbwatch.postgres.session import Session, describe
from dbwatch.text import sanitize

DEADLINE_S = 3.0
"""For the whole of it, in seconds: a person is waiting."""


class Outcome(StrEnum):
    """What became of the wish to signal a session."""

    SENT = "sent"
    """The server sent the signal; the session ends its query, or itself, as soon as it looks."""
    GONE = "gone"
    """It is not there any more: it ended, its pid belongs to another one, or it runs another query by now."""
    REFUSED = "refused"
    """A privilege is missing; nothing was done."""


@dataclass(frozen=True, slots=True)
class Signalled:
    """The outcome with a sentence for a person."""

    outcome: Outcome
    reason: str

    def __bool__(self) -> bool:
        """Whether the signal was sent."""
        return self.outcome is Outcome.SENT


async def signal(
    session: Session,
    pid: int,
    backend_start: datetime | None,
    *,
    terminate: bool,
    query_start: datetime | None = None,
) -> Signalled:
    """Cancels the query of the session (*pid*, *backend_start*), or with *terminate* ends the session.

    With *query_start* nothing is done if it runs another query by now. Without a *backend_start* (privileges hid it)
    it cannot be told which session is meant: refused. Raises ServerSilent and ConnectionLost as `Session.call` does.
    """
    wish = {"pid": pid, "backend_start": backend_start, "query_start": query_start, "terminate": terminate}
    if backend_start is None:
        return await _unidentified(session, pid)
    try:
        found = await session.values(query("signal", session.server_version), wish, within=DEADLINE_S)
    except psycopg.errors.InsufficientPrivilege as error:
        return await _forbidden(session, pid, describe(error))
    except psycopg.errors.LockNotAvailable as error:
        return Signalled(Outcome.REFUSED, f"a lock on a catalogue is in the way: {describe(error)}; try again")
    if not found:
        return Signalled(Outcome.GONE, f"session {pid} has ended")
    [(start, sent)] = found
    if sent:
        what = f"session {pid} was told to end" if terminate else f"session {pid} was told to stop its query"
        return Signalled(Outcome.SENT, what)
    if start is None:
        return await _unidentified(session, pid)
    if start != backend_start:
        return Signalled(Outcome.GONE, f"session {pid} has ended; another one has its pid now")
    if sent is None:
        return Signalled(Outcome.GONE, f"session {pid} does not run that query any more")
    return Signalled(Outcome.GONE, f"session {pid} has just ended")


async def _unidentified(session: Session, pid: int) -> Signalled:
    [(user, *_)] = await session.values(_refused(session), {"pid": pid}, within=DEADLINE_S)
    why = f"whether {pid} is still the same session cannot be checked; {grant('pg_monitor', sanitize(user))}"
    return Signalled(Outcome.REFUSED, why)


async def _forbidden(session: Session, pid: int, said: str) -> Signalled:
    [(user, may_signal, owner, superuser)] = await session.values(_refused(session), {"pid": pid}, within=DEADLINE_S)
    if superuser:
        why = f"session {pid} belongs to the superuser {sanitize(owner)}: only a superuser may end it"
    elif not may_signal:
        why = f"{sanitize(user)} may not signal other roles' sessions; {grant('pg_signal_backend', sanitize(user))}"
    else:
        why = f"the server declined: {said}"
    return Signalled(Outcome.REFUSED, why)


def _refused(session: Session) -> bytes:
    return query("signal-refused", session.server_version)
