"""Who stands behind whom, from the rows of pg_locks: the lock manager's own rules, on values. Pure.

A session waits for whoever *holds* a conflicting mode on the object, and also for whoever waits *ahead* of it for a
conflicting mode: that is how one waiting ALTER TABLE has everybody behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dbwatch.monitor.lockmodes import MODES, against, bit, conflict
from dbwatch.monitor.samples import Activity, Lock, Snapshot, Status

Party = int | str
"""A session by the pid of its group's leader, or a prepared transaction by its name."""

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Object:
    """One lockable object that somebody waits for."""

    held: dict[Party, int] = field(default_factory=dict)
    waits: list[tuple[Party, Lock]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Queues:
    """All waiting there is. The sets of parties are bits of an int: party `order[n]` is bit n."""

    order: tuple[Party, ...]
    """Waiters first, object by object, as they began to wait; then those who only block, longest transaction first."""
    waits: Mapping[Party, Lock]
    """What each waiter waits for."""
    behind: Mapping[Party, int]
    """Who stands directly behind each party that blocks."""
    front: Mapping[Party, Party]
    """Of those whom a waiter waits for, the one it is shown behind: a holder if there is one, else the waiter that
    has stood in its way longest."""
    holds: Mapping[Party, Lock]
    """For each party that blocks by holding: the strongest lock with which it does."""

    def victims(self) -> dict[Party, int]:
        """For each party that blocks, everybody who waits for it, directly or not, as bits (without itself)."""
        number = {party: n for n, party in enumerate(self.order)}
        done: dict[Party, int] = {}
        latest_first = sorted(self.behind, key=lambda p: (p not in self.waits, -number[p]))
        for party in latest_first:
            todo, seen = self.behind[party], 0
            while todo:
                lowest = todo & -todo  # who came first has most of the others behind it
                one = self.order[lowest.bit_length() - 1]
                seen |= lowest
                if one in done:
                    seen |= done[one]
                else:
                    todo |= self.behind.get(one, 0)
                todo &= ~seen
            done[party] = seen & ~(1 << number[party])
        return done

    def first(self, bits: int, most: int) -> list[Party]:
        """The first parties of a set, at most so many, in their order."""
        found: list[Party] = []
        while bits and len(found) < most:
            lowest = bits & -bits
            found.append(self.order[lowest.bit_length() - 1])
            bits ^= lowest
        return found


def queues(
    locks: Iterable[Lock],
    activity: Sequence[Activity],
    blockers: Mapping[int, tuple[int, ...]] | None = None,
) -> Queues:
    """Who waits for whom.

    *blockers* is what pg_blocking_pids says of some sessions: it overrides what the rows suggest, which matters on 13
    (no `waitstart`: the order of a queue is guessed from when the statements began).
    """
    leaders = _leaders(activity)
    began = {a.pid: a.query_start or a.state_change for a in activity}
    xacts = {a.pid: a.xact_start or _LAST for a in activity}

    def since(lock: Lock, known: bool) -> tuple[datetime, int]:
        return ((lock.waitstart if known else began.get(lock.pid)) or _LAST, lock.pid)

    contested: dict[str, _Object] = {}
    granted: list[Lock] = []
    waiting: list[Lock] = []
    for lock in locks:
        (granted if lock.granted else waiting).append(lock)
    known = any(lock.waitstart for lock in waiting)
    waiting.sort(key=lambda lock: since(lock, known))
    for lock in waiting:
        contested.setdefault(lock.object_key, _Object()).waits.append((_party(lock, leaders), lock))
    strongest: dict[tuple[str, Party], Lock] = {}
    for lock in sorted(granted, key=lambda lock: xacts.get(lock.pid, _LAST) if lock.pid else _FIRST):
        if (place := contested.get(lock.object_key)) is None:
            continue
        who = _party(lock, leaders)
        place.held[who] = place.held.get(who, 0) | bit(lock.mode)
        key = (lock.object_key, who)
        if key not in strongest or bit(lock.mode) > bit(strongest[key].mode):
            strongest[key] = lock
    return _relations(contested, strongest, blockers or {})


def heard(snapshot: Snapshot) -> dict[int, tuple[int, ...]]:
    """What pg_blocking_pids said of the queues in *snapshot*; nothing where it said so before its locks were read."""
    said = snapshot.blockers
    fresh = said.status is Status.OK and said.taken >= snapshot.locks.taken
    return {blocked.pid: blocked.by for blocked in said.rows} if fresh else {}


def queues_of(snapshot: Snapshot) -> Queues:
    """Who waits for whom in *snapshot*."""
    return queues(snapshot.locks.rows, snapshot.activity.rows, heard(snapshot))


@dataclass(frozen=True, slots=True)
class InFront:
    """Whom one session waits for directly."""

    wanted: Lock
    holders: tuple[Party, ...]
    """Those who hold what conflicts with what it wants."""
    ahead: tuple[Party, ...]
    """Those who only stand before it in the queue and want what conflicts."""


def in_front_of(snapshot: Snapshot, pid: int) -> InFront | None:
    """Whom backend *pid* waits for; None where it waits for no lock."""
    rows, activity = snapshot.locks.rows, snapshot.activity.rows
    wanted = next((lock for lock in rows if lock.pid == pid and not lock.granted), None)
    if wanted is None:
        return None
    leaders = _leaders(activity)
    near = [lock for lock in rows if lock.object_key == wanted.object_key]
    waiting = queues(near, activity, heard(snapshot))
    own = 1 << waiting.order.index(_party(wanted, leaders))
    front = [who for who in waiting.order if waiting.behind.get(who, 0) & own]
    held = {_party(lock, leaders) for lock in near if lock.granted and conflict(wanted.mode, lock.mode)}
    return InFront(wanted, tuple(p for p in front if p in held), tuple(p for p in front if p not in held))


def _leaders(activity: Sequence[Activity]) -> dict[int, int]:
    return {a.pid: a.leader_pid for a in activity if a.leader_pid}


def _party(lock: Lock, leaders: Mapping[int, int]) -> Party:
    return leaders.get(lock.pid, lock.pid) if lock.pid else f"prepared {lock.gid}"


def _in_line(place: _Object) -> list[tuple[Party, Lock]]:
    """The queue as the server keeps it: who already holds a lock in the way of an earlier waiter goes before it.

    (JoinWaitQueue in src/backend/storage/lmgr/proc.c: else the two would wait for each other for ever.)
    """
    line: list[tuple[Party, Lock]] = []
    refused = 0  # the modes that conflict with anything asked for in the line
    for who, lock in place.waits:
        ahead, mine = len(line), place.held.get(who, 0)
        if mine & refused:
            ahead = next(n for n, (_, other) in enumerate(line) if against(other.mode) & mine)
        line.insert(ahead, (who, lock))
        refused |= against(lock.mode)
    return line


def _relations(
    contested: Mapping[str, _Object],
    strongest: Mapping[tuple[str, Party], Lock],
    blockers: Mapping[int, tuple[int, ...]],
) -> Queues:
    waits: dict[Party, Lock] = {}
    for place in contested.values():
        for who, lock in place.waits:
            waits.setdefault(who, lock)
    order: dict[Party, int] = {who: n for n, who in enumerate(waits)}
    for place in contested.values():
        for who in place.held:
            order.setdefault(who, len(order))
    behind: defaultdict[Party, int] = defaultdict(int)
    front: dict[Party, Party] = {}
    holds: dict[Party, Lock] = {}

    for key, place in contested.items():
        line = _in_line(place)
        wanted = dict.fromkeys(MODES, 0)  # who wants each mode, of those further back than where we are
        for who, lock in reversed(line):
            own = 1 << order[who]
            if lock.mode in wanted:
                if hit := _meets(bit(lock.mode), wanted) & ~own:
                    behind[who] |= hit
                wanted[lock.mode] |= own
        for who, modes in place.held.items():
            if hit := _meets(modes, wanted) & ~(1 << order[who]):
                behind[who] |= hit
                held = strongest[(key, who)]
                if who not in holds or bit(held.mode) > bit(holds[who].mode):
                    holds[who] = held
        _put_in_front(line, place, front)

    _override(blockers, order, waits, contested, behind, front)
    return Queues(tuple(order), waits, {who: bits for who, bits in behind.items() if bits}, front, holds)


def _meets(modes: int, wanted: Mapping[str, int]) -> int:
    """Who wants a mode that conflicts with one of *modes*."""
    hit = 0
    for mode, who in wanted.items():
        if who and against(mode) & modes:
            hit |= who
    return hit


def _put_in_front(line: Sequence[tuple[Party, Lock]], place: _Object, front: dict[Party, Party]) -> None:
    """For each waiter the holder in its way with the longest transaction, else the earliest waiter in its way."""
    holders = {mode: [p for p, held in place.held.items() if against(mode) & held][:2] for mode in MODES}
    early: dict[str, list[tuple[int, Party]]] = {mode: [] for mode in MODES}  # two each: one may be the waiter itself
    for n, (who, lock) in enumerate(line):
        candidates = [p for p in holders.get(lock.mode, ()) if p != who]
        if not candidates:
            ahead = [e for mode, es in early.items() if against(lock.mode) & bit(mode) for e in es if e[1] != who]
            candidates = [p for _, p in sorted(ahead, key=lambda e: e[0])]
        if candidates:
            front.setdefault(who, candidates[0])
        if lock.mode in early and len(early[lock.mode]) < 2:
            early[lock.mode].append((n, who))


def _override(
    blockers: Mapping[int, tuple[int, ...]],
    order: dict[Party, int],
    waits: Mapping[Party, Lock],
    contested: Mapping[str, _Object],
    behind: defaultdict[Party, int],
    front: dict[Party, Party],
) -> None:
    """Takes the server's word for those sessions that it was asked about."""
    for pid, by in blockers.items():
        said = [p for p in by if p and p != pid]
        if pid not in waits or not said or 0 in by:
            continue  # it waits no more, or for a prepared transaction, whose name the server does not tell here
        own = 1 << order[pid]
        for who in behind:
            behind[who] &= ~own
        for p in said:
            order.setdefault(p, len(order))
            behind[p] |= own
        if front.get(pid) not in said:
            held = contested[waits[pid].object_key].held
            front[pid] = next((p for p in said if p in held), min(said, key=lambda p: order[p]))
