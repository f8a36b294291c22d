"""Cancels or terminates the session that a person saw and confirmed: the same one, or none."""

from __future__ import annotations

from dbwatch.errors import ConnectionLost, ServerSilent
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.signals import signal
from dbwatch.window.intents import Answer, Signal


async def signal_session(control: Kept, intent: Signal) -> Answer:
    """Acts if (pid, backend_start), and for a cancel also query_start, are still those that were shown.

    Through a pooler a session is nobody's own: its query can be told again, who would lose it cannot. A signal whose
    outcome did not come back was sent, and that is the answer. Raises as `Session.call` does where none was sent.
    """
    session = await control.session()
    if session.pooled and intent.terminate:
        why = f"not done: a pooler lies between, and session {intent.pid} may serve somebody else by now"
        return Answer(False, f"{why}; cancel its query with C, or connect to the server itself")
    try:
        sent = await signal(
            session,
            intent.pid,
            intent.backend_start,
            terminate=intent.terminate,
            query_start=None if intent.terminate else intent.query_start,
        )
    except (ConnectionLost, ServerSilent) as error:
        if intent.backend_start is None:  # all that was asked is why it cannot be done
            raise
        asked = f"the {'terminate' if intent.terminate else 'cancel'} of session {intent.pid} was sent"
        return Answer(False, f"{asked}, its outcome is not known ({error.what}): look at the sessions")
    done = f"session {intent.pid} {'was terminated' if intent.terminate else 'had its query cancelled'}"
    return Answer(bool(sent), done if sent else sent.reason)
