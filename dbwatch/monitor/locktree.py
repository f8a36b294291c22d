"""The lock forest: who blocks, and everyone behind, most victims first. The one to end is at the root. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dbwatch.monitor.lockqueue import Party, Queues, heard, queues
from dbwatch.monitor.samples import Activity, Lock, Snapshot

_NAMED = 10


@dataclass(frozen=True, slots=True)
class LockNode:
    """One session in the forest. A session stands in it once, under the one it is shown behind."""

    pid: int
    """0 for a prepared transaction."""
    backend_start: datetime | None
    """With `pid` the session's identity; None where it is hidden or gone."""
    depth: int
    """0 for a root."""
    target: str
    """What it waits for; for a root, what it holds in the others' way."""
    mode: str
    """The mode wanted, or held by a root: `AccessExclusiveLock`."""
    granted: bool
    """False: it waits. A root that waits for nobody we can see is one too."""
    waits_s: float | None
    """How long it has waited, in seconds; None for one that does not. On 13: since its statement began."""
    xact_age_s: float | None
    who: str
    """application_name, or else the role."""
    what: str
    """The running query, or the state with the query that was the last."""
    state: str
    ours: bool
    victims: int
    """Sessions behind it, directly or not, wherever they stand in the forest."""
    blocks: tuple[int, ...] = ()
    """The first ten of those that wait directly for it. Some may be shown under another one that they wait for too."""
    deadlock: bool = False
    """It waits in a circle; the server will break it after deadlock_timeout."""
    children: tuple[LockNode, ...] = field(default=(), compare=False, repr=False)
    """Those shown behind it. Not compared: a chain may be deeper than Python recurses; compare `walk`s."""


def forest(
    locks: Sequence[Lock],
    activity: Sequence[Activity],
    *,
    own_pids: frozenset[int] = frozenset(),
    blockers: Mapping[int, tuple[int, ...]] | None = None,
    at: datetime | None = None,
) -> tuple[LockNode, ...]:
    """The trees of blocking sessions, most victims first, then the longest transaction.

    *blockers* is what pg_blocking_pids said of some sessions; *at* the server's clock, without which there are no
    ages. A session in the way of several is shown in one place; `victims` and `blocks` tell the whole of it.
    """
    waiting = queues(locks, activity, blockers)
    sessions = {a.pid: a for a in activity}
    victims = waiting.victims()
    tuples = {lock.pid: lock.target for lock in locks if lock.granted and lock.locktype == "tuple"}
    front, circles = _without_circles(waiting, sessions)
    shown_behind: defaultdict[Party, list[Party]] = defaultdict(list)
    roots: list[Party] = []
    for party in waiting.order:
        if party in front:
            shown_behind[front[party]].append(party)
        elif party in waiting.waits or party in waiting.behind:
            roots.append(party)

    ranks = {
        party: (-victims.get(party, 0).bit_count(), _began(party, sessions), n) for n, party in enumerate(waiting.order)
    }
    depth: dict[Party, int] = dict.fromkeys(roots, 0)
    preorder = list(roots)
    for party in preorder:  # grows while it is walked: parents before children, without recursion
        for child in shown_behind[party]:
            depth[child] = depth[party] + 1
            preorder.append(child)
    nodes: dict[Party, LockNode] = {}
    for party in reversed(preorder):
        children = sorted(shown_behind[party], key=ranks.__getitem__)
        nodes[party] = _node(
            party,
            waiting,
            sessions,
            at,
            target=_target(party, waiting, tuples),
            depth=depth[party],
            victims=victims.get(party, 0).bit_count(),
            ours=isinstance(party, int) and party in own_pids,
            deadlock=party in circles,
            children=tuple(nodes[child] for child in children),
        )
    return tuple(nodes[root] for root in sorted(roots, key=ranks.__getitem__))


def forest_of(snapshot: Snapshot) -> tuple[LockNode, ...]:
    """The forest in *snapshot*, as of when its locks were read."""
    return forest(
        snapshot.locks.rows,
        snapshot.activity.rows,
        own_pids=snapshot.own_pids,
        blockers=heard(snapshot),
        at=snapshot.locks.at,
    )


def walk(trees: Iterable[LockNode]) -> Iterator[LockNode]:
    """Every node, each before its children: the lines of the screen."""
    todo = list(trees)[::-1]
    while todo:
        node = todo.pop()
        yield node
        todo.extend(reversed(node.children))


def _without_circles(waiting: Queues, sessions: Mapping[int, Activity]) -> tuple[dict[Party, Party], frozenset[Party]]:
    """`front` with every circle cut open at its longest transaction, and who is in one."""
    front = dict(waiting.front)
    circles: set[Party] = set()
    safe: set[Party] = set()
    for start in waiting.order:
        path: dict[Party, None] = {}
        party: Party | None = start
        while party is not None and party not in safe and party not in path:
            path[party] = None
            party = front.get(party)
        if party is not None and party in path:
            members = list(path)[list(path).index(party) :]
            circles.update(members)
            del front[min(members, key=lambda p: _began(p, sessions))]
        safe.update(path)
    return front, frozenset(circles)


def _began(party: Party, sessions: Mapping[int, Activity]) -> float:
    if isinstance(party, str):
        return float("-inf")  # nothing but a person ends a prepared transaction
    session = sessions.get(party)
    return session.xact_start.timestamp() if session and session.xact_start else float("inf")


def _node(
    party: Party,
    waiting: Queues,
    sessions: Mapping[int, Activity],
    at: datetime | None,
    *,
    target: str,
    depth: int,
    victims: int,
    ours: bool,
    deadlock: bool,
    children: tuple[LockNode, ...],
) -> LockNode:
    lock = waiting.waits.get(party) or waiting.holds.get(party)
    waits = party in waiting.waits
    direct = waiting.behind.get(party, 0)
    blocks = tuple(p for p in waiting.first(direct, _NAMED) if isinstance(p, int))
    session = sessions.get(party) if isinstance(party, int) else None
    since = (lock.waitstart if lock else None) or (session.query_start if session else None)
    xact_start = session.xact_start if session else None
    return LockNode(
        pid=party if isinstance(party, int) else 0,
        backend_start=session.backend_start if session else None,
        depth=depth,
        target=target,
        mode=lock.mode if lock else "",
        granted=not waits,
        waits_s=(at - since).total_seconds() if waits and at and since else None,
        xact_age_s=(at - xact_start).total_seconds() if at and xact_start else None,
        who=_who(party, session),
        what=_what(party, session),
        state=session.state if session else "",
        ours=ours,
        victims=victims,
        blocks=blocks,
        deadlock=deadlock,
        children=children,
    )


def _target(party: Party, waiting: Queues, tuples: Mapping[int, str]) -> str:
    """What it is about. Who waits for a row waits for the *transaction* that changed it, and holds the tuple's lock
    meanwhile: then the tuple is named, which tells more."""
    lock = waiting.waits.get(party) or waiting.holds.get(party)
    if lock is None:
        return ""
    if lock.locktype == "transactionid":
        waiter = party if party in waiting.waits else next(iter(waiting.first(waiting.behind.get(party, 0), 1)), 0)
        if isinstance(waiter, int):
            return tuples.get(waiter, lock.target)
    return lock.target


def _who(party: Party, session: Activity | None) -> str:
    if isinstance(party, str):
        return "prepared transaction"
    if session is None:
        return "(not listed)"
    return session.application_name or session.usename or session.backend_type


def _what(party: Party, session: Activity | None) -> str:
    if isinstance(party, str):
        return party.removeprefix("prepared ")
    if session is None:
        return ""
    if session.hidden:
        return "(hidden)"
    if session.state in ("active", ""):
        return session.query
    return f"{session.state}; last: {session.query}" if session.query else session.state
