"""When a step that may wait begins: who stands in its way, and whether to wait on, to knock, or to give up. Pure.

A statement that waits for its lock makes everyone queue behind it. So nothing is sent while somebody holds what it
needs in a transaction of some age: their end is waited for from outside, which costs nobody anything. Then the step
knocks: it tries with a lock_timeout so short that whoever queues behind it hardly feels it, and begins anew where
that was not enough. Transactions that come and go are no reason to wait: a knock outlasts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dbwatch.migration import grammar
from dbwatch.migration.ddl import Action
from dbwatch.migration.locks import Mode, expect
from dbwatch.migration.retry import pause_s
from dbwatch.text import age, clock

KNOCK_MS = 200
"""The lock_timeout of a knock, and so how long others may queue behind one: longer than the transactions of an
application at work, too short for its users to notice, and below PostgreSQL's deadlock_timeout of 1 s, so that a knock
neither waits for the deadlock check nor has an autovacuum cancelled. A transaction that locks several relations may
knock at each of them; what all that cost others is measured, and told."""
OLD_S = 1.0
"""From this age on a transaction is waited for: five times as long as a knock would."""
LOOK_S = 0.5
"""How often it is looked who is in the way."""
NOTE_EVERY_S = 30.0
"""How often at most the journal is told for whom the step waits, where that changes."""

_STRENGTH = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
"""Lock modes as pg_locks names them, the weakest first: of number 1 to 8, as `Mode` counts them."""
_CONFLICTS: Mapping[Mode, frozenset[int]] = {
    Mode.ROW_EXCLUSIVE: frozenset({5, 6, 7, 8}),
    Mode.SHARE_UPDATE_EXCLUSIVE: frozenset({4, 5, 6, 7, 8}),
    Mode.SHARE: frozenset({3, 4, 6, 7, 8}),
    Mode.SHARE_ROW_EXCLUSIVE: frozenset({3, 4, 5, 6, 7, 8}),
    Mode.EXCLUSIVE: frozenset({2, 3, 4, 5, 6, 7, 8}),
    Mode.ACCESS_EXCLUSIVE: frozenset(range(1, 9)),
}
"""Which modes held by others a mode waits for: the manual's table of conflicting lock modes."""


@dataclass(frozen=True, slots=True)
class Need:
    """A relation that a step locks."""

    schema: str
    """Empty where the statement leaves it to the search_path."""
    name: str
    held: frozenset[str]
    """The lock modes, as pg_locks names them, that would keep it waiting while somebody else holds them."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What has to be free for a step to begin."""

    relations: tuple[Need, ...] = ()
    snapshots: bool = False
    """It builds an index CONCURRENTLY, which waits until all older snapshots of the database are gone."""
    schema: bool = False
    """It changes the schema: that is not done while a dump reads it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A transaction that holds something of what is needed."""

    pid: int
    """0: a prepared transaction, of which `who` is the name."""
    transaction: str
    """Its virtual id, for as long as it lives."""
    who: str
    """The application, or the user."""
    state: str
    """Empty where our role may not see it."""
    age_s: float | None
    """None where our role may not see it."""
    mode: str
    """The strongest lock in our way, as pg_locks names it; empty: none."""
    relation: str
    snapshot: bool
    """It holds a snapshot."""
    dump: bool
    """It dumps this database: it says so, or it reads nearly all tables in one transaction."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again."""

    seconds: float
    whom: str
    """For whom, in plain words; empty: nobody is in the way, it is a pause after a knock."""


@dataclass(frozen=True, slots=True)
class Knock:
    """Try now."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The patience is used up."""

    why: str


Move = Wait | Knock | GiveUp


@dataclass(frozen=True, slots=True)
class Patience:
    """How far a patient step is; times are of a monotonic clock, in seconds."""

    began: float
    until: float
    not_before: float = 0.0
    """When the next knock may come."""
    first_seen: Mapping[str, float] = field(default_factory=dict)
    """Of the transactions that were there when it was last looked: since when we know of them."""
    old: frozenset[str] = frozenset()
    """Those for whom it waits."""
    since: float | None = None
    """Since when it waits outside, without a break: as long would others have queued behind it. None: it does not."""
    outside_s: float = 0.0
    """The longest time that it did."""
    whom: str = ""
    """For whom it waited last, in plain words."""
    knocks: int = 0
    queued_s: float = 0.0
    """How long somebody queued behind one of them, at most."""

    @property
    def words(self) -> str:
        """What it cost, and spared, others: `waited outside for 31 s; others queued at most 180 ms in 4 knocks`."""
        said = [f"waited outside for {age(self.outside_s)}"] if self.outside_s else []
        if self.knocks:
            cost = (
                f"others queued at most {self.queued_s * 1000:.0f} ms" if self.queued_s else "nobody was seen to queue"
            )
            said.append(f"{cost} in {self.knocks} knock{'s' * (self.knocks != 1)}")
        return "; ".join(said)


def needs(statements: Iterable[str]) -> Needs:
    """What *statements*, run one after the other, need to be free; what the grammar cannot tell is left out."""
    held: dict[str, frozenset[int]] = {}
    snapshots = False
    schema = False
    for sql in statements:
        reading = grammar.read(sql)
        removes = any(named.action is not Action.CREATE for named in reading.named)
        snapshots |= reading.concurrently and not removes
        for lock in expect(sql):
            waits = _CONFLICTS[lock.mode]
            if reading.concurrently:  # it takes little, and then waits for those who hold more
                waits |= _CONFLICTS[Mode.ACCESS_EXCLUSIVE if removes else Mode.SHARE]
            held[lock.relation] = held.get(lock.relation, frozenset()) | waits
            schema |= lock.mode > Mode.ROW_EXCLUSIVE
    relations = tuple(_need(relation, numbers) for relation, numbers in held.items())
    return Needs(relations, snapshots, schema or snapshots)


def _need(relation: str, numbers: frozenset[int]) -> Need:
    schema, dot, name = relation.partition(".")
    return Need(schema if dot else "", name if dot else schema, frozenset(_STRENGTH[n - 1] for n in numbers))


def looked(patience: Patience, seen: Sequence[Seen], now: float) -> tuple[Patience, Move]:
    """What to do, having just seen who holds what."""
    known = {s.transaction: patience.first_seen.get(s.transaction, now) for s in seen}
    old = [s for s in seen if s.dump or max(s.age_s or 0.0, now - known[s.transaction]) >= OLD_S]
    whom = sentence(old)
    waits = frozenset(s.transaction for s in old)
    began = patience.since if patience.since is not None or not old else now
    after = replace(
        patience,
        first_seen=known,
        old=waits,
        since=began if old else None,
        outside_s=patience.outside_s if began is None else max(patience.outside_s, now - began),
        whom=whom or patience.whom,
    )
    left = patience.until - now
    if left <= 0:
        return after, GiveUp(_used_up(after, whom))
    if old:
        return after, Wait(min(LOOK_S, left), whom)
    if now < patience.not_before:
        return after, Wait(min(LOOK_S, left, patience.not_before - now), "")
    return after, Knock()


def knocked(patience: Patience, whom: str, now: float, jitter: float) -> Patience:
    """After a knock that found somebody there: when the next one may come. *jitter* is in 0..1."""
    return replace(patience, not_before=now + pause_s(patience.knocks, jitter), whom=whom or patience.whom)


def _used_up(patience: Patience, whom: str) -> str:
    waited = age(patience.until - patience.began)
    said = [f"its way was not clear within {waited}"]
    if whom:
        said.append(f"it waits for {whom}")
    elif patience.whom:
        said.append(f"it waited for {patience.whom}")
    return "; ".join([*said, *filter(None, [patience.words])])


def sentence(seen: Sequence[Seen]) -> str:
    """`47110 (reports, idle in transaction 31 s), ACCESS SHARE on users`, the three oldest; empty for nobody."""
    ordered = sorted(seen, key=lambda s: -(s.age_s or 0.0))
    words = [_who(s) for s in ordered[:3]]
    return "; ".join(words) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def _who(seen: Seen) -> str:
    state = " ".join(part for part in (seen.state, age(seen.age_s)) if part)
    name = f"{seen.pid} ({', '.join(part for part in (seen.who, state) if part)})" if seen.pid else seen.who
    if seen.dump:
        return f"{name}, a dump of this database"
    return f"{name}, {shown(seen.mode)} on {seen.relation}" if seen.mode else f"{name}, an old snapshot"


def shown(mode: str) -> str:
    """A lock mode as the manual writes it: `ACCESS SHARE` for AccessShareLock."""
    words = "".join(f" {char}" if char.isupper() else char for char in mode.removesuffix("Lock"))
    return words.strip().upper()


def note(patience: Patience, now: float) -> str:
    """How long others would have queued by now, how far the patience reaches, what the knocks cost: for the screen."""
    said = [f"others would have queued {clock(now - patience.since)} by now"] if patience.since is not None else []
    said.append(f"its patience lasts {clock(max(0.0, patience.until - now))} more")
    return "; ".join([*said, *filter(None, [replace(patience, outside_s=0.0).words])])
