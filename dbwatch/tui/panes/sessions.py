"""How a session is told on every pane: who it is, since when, at what, and all about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from dbwatch import text
from dbwatch.monitor.samples import Activity, Lock
from dbwatch.tui.panes.base import Record, Value

OWN = "◆"
"""Goes with every session of ours."""
CELL = 500
"""Characters of a statement that a cell could ever show."""
_COMMENTS = re.compile(r"^(?:[\s⏎→]*(?:--[^⏎]*⏎|/\*.*?\*/))+[\s⏎→]*")


def flat(sql: str) -> str:
    """The beginning of *sql* in one line: the glyphs that stand for line breaks and tabs become spaces.

    Lines of comment before the statement, as our own queries have them, are left out; a comment alone is shown.
    """
    beginning = sql[: 4 * CELL]
    stripped = _COMMENTS.sub("", beginning) or beginning
    return " ".join(stripped[:CELL].replace("⏎", " ").replace("→", " ").split())


def broken(sql: str) -> list[str]:
    """*sql* in its own lines again."""
    return sql.replace("→", "    ").split("⏎")


def seconds_since(instant: datetime | None, at: datetime | None) -> float | None:
    """Seconds from *instant* to *at*, both by the server's clock; None where one is not known."""
    return None if instant is None or at is None else max(0.0, (at - instant).total_seconds())


def idle(session: Activity) -> bool:
    """Whether it does nothing and holds nothing: idle outside of a transaction."""
    return session.state == "idle" and session.xact_start is None


def begun(session: Activity) -> datetime | None:
    """Since when it is at what it is at: its transaction, else its query, else its state."""
    if idle(session):
        return session.state_change
    return session.xact_start or session.query_start or session.state_change or session.backend_start


def who(session: Activity, own_pids: frozenset[int]) -> str:
    """Its application, else its role, else what kind of process it is; ours with a mark instead of our name."""
    name = session.application_name or session.usename or session.backend_type
    return ours(name) if session.pid in own_pids else name


def ours(name: str) -> str:
    """The name of a session of ours in a narrow column: `migrate ◆ 1eecfb61/3`, so that a cut leaves the mark."""
    role, _, tag = name.removeprefix("dbwatch ").partition(" ")
    return f"{role} {OWN} {tag}".rstrip()


def waits(session: Activity) -> str:
    """What it waits for, as briefly as can be told: `Lock`, `ClientRead`, `DataFileRead`."""
    return "Lock" if session.wait_event_type == "Lock" else session.wait_event or session.wait_event_type


def doing(session: Activity) -> str:
    """What it does: its query, and that it is idle where it is."""
    if session.hidden:
        return "(hidden)"
    query = flat(session.query)
    if session.state in ("active", ""):
        return query or session.backend_type
    return f"{session.state}: {query}" if query else session.state


def described(session: Activity, at: datetime | None, own_pids: frozenset[int]) -> list[str]:
    """Everything about a session except its locks, the whole query at the end."""

    def since(instant: datetime | None) -> str:
        told = text.age(seconds_since(instant, at))
        return f"{told} (since {instant:%H:%M:%S})" if instant is not None else ""

    facts = {
        "session": f"{session.pid}" + (f", worker of {session.leader_pid}" if session.leader_pid else ""),
        "who": session.application_name + (f" {OWN} ours" if session.pid in own_pids else ""),
        "role": session.usename,
        "database": session.datname,
        "client": f"{session.client}:{session.client_port}" if session.client_port else session.client,
        "process": session.backend_type,
        "state": "hidden from our role" if session.hidden else session.state,
        "waits for": ": ".join(part for part in (session.wait_event_type, session.wait_event) if part),
        "connected": since(session.backend_start),
        "transaction": since(session.xact_start),
        "query": since(session.query_start),
        "this state": since(session.state_change),
        "holds xmin": "" if session.xmin_age is None else f"{session.xmin_age:,} transactions back",
    }
    lines = [f"{name:<12} {told}" for name, told in facts.items() if told]
    return [*lines, "", *broken(session.query)] if session.query else lines


def locks_of(pid: int, locks: Iterable[Lock]) -> list[str]:
    """The locks that the session waits for and those that it holds, one line each."""
    mine = sorted((lock for lock in locks if lock.pid == pid), key=lambda lock: (lock.granted, lock.target, lock.mode))
    return [f"{'holds' if lock.granted else 'WANTS'} {lock.mode} on {lock.target}" for lock in mine]


def record(session: Activity, at: datetime | None, own_pids: frozenset[int], more: Mapping[str, Value]) -> Record:
    """A session for the export: the columns of pg_stat_activity, ages in seconds, and *more*."""

    def age_s(instant: datetime | None) -> float | None:
        told = seconds_since(instant, at)
        return None if told is None else round(told, 3)

    return {
        "pid": session.pid,
        "backend_start": session.backend_start.isoformat() if session.backend_start else None,
        "datname": session.datname,
        "usename": session.usename,
        "application_name": session.application_name,
        "client": session.client,
        "backend_type": session.backend_type,
        "state": session.state,
        "wait_event_type": session.wait_event_type,
        "wait_event": session.wait_event,
        "xact_age_s": age_s(session.xact_start),
        "query_age_s": age_s(session.query_start),
        "state_age_s": age_s(session.state_change),
        "xmin_age": session.xmin_age,
        "ours": session.pid in own_pids,
        "hidden": session.hidden,
        **more,
        "query": session.query,
    }


def named(pid: int, sessions: Mapping[int, Activity], at: datetime | None) -> str:
    """A session that something waits for: `47110 (reports, idle in transaction 31 s)`; 0 is a prepared transaction."""
    if pid == 0:
        return "a prepared transaction"
    session = sessions.get(pid)
    if session is None:
        return str(pid)
    age = text.age(seconds_since(begun(session), at))
    return f"{pid} ({who(session, frozenset())}, {session.state or session.backend_type} {age})"
