"""Whom something waits for, or would wait for, in plain words. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from dbwatch.monitor.samples import Activity, Lock, Snapshot
from dbwatch.text import age
from dbwatch.window.abort import Blocker


def who(session: Activity, now: datetime | None) -> str:
    """`47110 (reports, idle in transaction 31 s)`."""
    since = session.xact_start or session.state_change
    seconds = (now - since).total_seconds() if now is not None and since is not None else None
    name = session.application_name or session.usename or session.backend_type
    words = " ".join(part for part in (session.state, age(seconds)) if part)
    return f"{session.pid} ({name}{', ' + words if words else ''})"


def holders(snapshot: Snapshot, relations: Iterable[str]) -> tuple[Activity, ...]:
    """Sessions other than ours that hold any lock on one of *relations* (names as pg_class has them)."""
    names = set(relations)
    pids = {
        lock.pid
        for lock in snapshot.locks.rows
        if lock.granted and lock.locktype == "relation" and bare(lock) in names and lock.pid not in snapshot.own_pids
    }
    return tuple(s for s in snapshot.activity.rows if s.pid in pids)


def blocker(session: Activity, now: datetime | None, relation: str = "") -> Blocker:
    """A session that is, or would be, in the way, with all that cancelling it needs."""
    since = session.xact_start or session.state_change
    return Blocker(
        pid=session.pid,
        backend_start=session.backend_start,
        query_start=session.query_start,
        who=session.application_name or session.usename or session.backend_type,
        state=session.state,
        age_s=(now - since).total_seconds() if now is not None and since is not None else None,
        query=session.query,
        relation=relation,
    )


def in_the_way(snapshot: Snapshot, relations: Iterable[str]) -> tuple[Blocker, ...]:
    """Who holds any lock on one of *relations* (names as pg_class has them), but for us; the oldest first.

    Of several that a session holds, the first of *relations* is told.
    """
    rank = {name: n for n, name in reversed(list(enumerate(relations)))}
    held: dict[int, str] = {}
    for lock in snapshot.locks.rows:
        name = bare(lock)
        if lock.granted and lock.locktype == "relation" and name in rank and lock.pid not in snapshot.own_pids:
            held[lock.pid] = min(held.get(lock.pid, name), name, key=rank.__getitem__)
    found = [blocker(s, snapshot.at, held[s.pid]) for s in snapshot.activity.rows if s.pid in held]
    return tuple(sorted(found, key=lambda one: -(one.age_s or 0.0)))


def bare(lock: Lock) -> str:
    """The relation's name without its schema."""
    return lock.target.rpartition(".")[2]


def sentence(sessions: Iterable[Activity], now: datetime | None) -> str:
    """`47110 (reports, idle in transaction 31 s), 47111 (...)`, the three oldest first; empty for none."""
    far = datetime.max.replace(tzinfo=now.tzinfo if now else None)
    ordered = sorted(sessions, key=lambda s: s.xact_start or far)
    words = [who(s, now) for s in ordered[:3]]
    return ", ".join(words) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def waiting_for(snapshot: Snapshot, pid: int) -> str:
    """Whom backend *pid* waits for now, in plain words; empty where it works.

    From the poll's locks and progress views: the holders of what it wants, or the old transactions that a
    CREATE INDEX CONCURRENTLY waits out.
    """
    wanted = [lock for lock in snapshot.locks.rows if lock.pid == pid and not lock.granted]
    keys = {lock.object_key for lock in wanted}
    pids = {lock.pid for lock in snapshot.locks.rows if lock.granted and lock.object_key in keys and lock.pid != pid}
    pids |= {p.waits_for for p in snapshot.progress.rows if p.pid == pid and p.waits_for}
    if not wanted and not pids:
        return ""
    sessions = [s for s in snapshot.activity.rows if s.pid in pids]
    what = f"{wanted[0].mode} on {wanted[0].target}, held by " if wanted else ""
    return what + (sentence(sessions, snapshot.at) or "a session that is not to be seen")
