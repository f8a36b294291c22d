"""Whom something waits for, or would wait for, in plain words. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from dbwatch.monitor.lockqueue import Party, in_front_of
from dbwatch.monitor.samples import Activity, Snapshot
from dbwatch.text import age, sanitize
from dbwatch.window.abort import Blocker

if TYPE_CHECKING:
    from dbwatch.steps.patience import Need  # it imports the grammar, which `status` does without

Place = tuple[str, str]
"""A relation's schema and name; no schema for those that the server's own search_path finds first (public)."""

_PART = re.compile(r'"(?:[^"]|"")*"|[^".]+')
_UNSEEN = "a session that is not to be seen"


def who(session: Activity, now: datetime | None) -> str:
    """`47110 (reports, idle in transaction 31 s)`."""
    since = session.xact_start or session.state_change
    seconds = (now - since).total_seconds() if now is not None and since is not None else None
    name = session.application_name or session.usename or session.backend_type
    words = " ".join(part for part in (session.state, age(seconds)) if part)
    return f"{session.pid} ({name}{', ' + words if words else ''})"


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


def in_the_way(snapshot: Snapshot, relations: Sequence[Need]) -> tuple[Blocker, ...]:
    """Who holds, but for us, a lock that one of *relations* would wait for; the oldest first.

    Of several that a session holds, a table is told before an index, then the first of *relations*.
    """
    wanted = [(need, (_schema(need.schema), sanitize(need.name))) for need in relations]
    names = {name for _, (_, name) in wanted}
    held = [
        (place, lock)
        for lock in snapshot.locks.rows
        if lock.granted and lock.locktype == "relation" and lock.pid not in snapshot.own_pids
        if (place := _place(lock.target))[1] in names
    ]
    tables = {(_schema(table.schemaname), table.relname) for table in snapshot.tables.rows}
    indexes = {(_schema(index.schemaname), index.indexrelname) for index in snapshot.indexes.rows}
    known = {*tables, *indexes, *(place for place, _ in held)}
    told: dict[int, tuple[bool, int, str]] = {}
    for number, (need, spelled) in enumerate(wanted):
        for place, lock in held:
            if lock.mode in need.held and _meant(spelled, bool(need.schema), place, known):
                found = (place not in tables, number, lock.target)
                told[lock.pid] = min(told.get(lock.pid, found), found)
    blockers = [blocker(s, snapshot.at, told[s.pid][2]) for s in snapshot.activity.rows if s.pid in told]
    return tuple(sorted(blockers, key=lambda one: -(one.age_s or 0.0)))


def _meant(spelled: Place, qualified: bool, place: Place, known: Collection[Place]) -> bool:
    """Whether a statement that spells a relation so means the one in *place*.

    Without a schema it is that in public where there is one, else any: we do not know its search_path.
    """
    return spelled == place or (not qualified and spelled[1] == place[1] and spelled not in known)


def _schema(name: str) -> str:
    return "" if name in ("public", "pg_catalog") else name


@lru_cache(maxsize=4096)
def _place(target: str) -> Place:
    """The relation that a lock's target names: `users`, `audit.users`, `s."Odd Table"`."""
    parts = [p[1:-1].replace('""', '"') if p.startswith('"') else p for p in _PART.findall(target)]
    return ("" if len(parts) < 2 else parts[-2], parts[-1] if parts else "")


def sentence(sessions: Iterable[Activity], now: datetime | None) -> str:
    """`47110 (reports, idle in transaction 31 s), 47111 (...)`, the three oldest first; empty for none."""
    far = datetime.max.replace(tzinfo=now.tzinfo if now else None)
    ordered = sorted(sessions, key=lambda s: s.xact_start or far)
    words = [who(s, now) for s in ordered[:3]]
    return ", ".join(words) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def waiting_for(snapshot: Snapshot, pid: int) -> str:
    """Whom backend *pid* waits for now, in plain words; empty where it works.

    From the poll's locks and progress views: those who hold what conflicts with what it wants, those ahead of it in
    the queue, or the old transactions that a CREATE INDEX CONCURRENTLY waits out.
    """
    front = in_front_of(snapshot, pid)
    old = {p.waits_for for p in snapshot.progress.rows if p.pid == pid and p.waits_for}
    if front is None:
        return (_named(snapshot, old) or _UNSEEN) if old else ""
    held, ahead = _named(snapshot, {*front.holders, *old}), _named(snapshot, set(front.ahead) - old)
    said = [f"held by {held or _UNSEEN}"] if held or not ahead else []
    said += [f"behind {ahead}"] if ahead else []
    return f"{front.wanted.mode} on {front.wanted.target}, {', '.join(said)}"


def _named(snapshot: Snapshot, parties: Collection[Party]) -> str:
    prepared = sorted(party.replace(" ", " transaction ", 1) for party in parties if isinstance(party, str))
    sessions = sentence((s for s in snapshot.activity.rows if s.pid in parties), snapshot.at)
    return ", ".join([*prepared, *([sessions] if sessions else [])])
