"""The health signals: what is read of the server, against the thresholds that pause a backfill. Pure.

A signal is a value: what was read, from where on it pauses, and how that is said. Sources and thresholds were found by
measurement; where a number was chosen for another reason, it says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dbwatch.backfill.reading import Counts, Holder, Reading, Replica, Server, Slot, Table, Waiter
from dbwatch.runbook.values import SIGNALS
from dbwatch.text import age, count, size

NAMES = SIGNALS
"""The short name of every signal, as `--without`, a runbook's `without` and an override say it."""
WARNING: tuple[str, ...] = ("vacuum", "hot")
"""They tell a person something; no pause would mend it."""
PAUSING: tuple[str, ...] = tuple(name for name in NAMES if name not in WARNING)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the backfill pauses; None ignores the signal."""

    blocked_s: float | None = 1.0
    lag_s: float | None = 5.0
    lag_bytes: int | None = 256 * 2**20
    active_times: float = 2.0
    """Of what was usual in the first seconds."""
    active_least: int = 10
    """Fewer working sessions are no load, whatever was usual: on a quiet server one would be twice as many as none."""
    latency_times: float = 1.5
    latency_least_ms: float = 1.0
    """A call has to take so much longer, too: nobody feels half of a tenth of a millisecond."""
    slot_bytes: int = 2 * 2**30
    wal_share: float = 0.5
    """Of max_wal_size, written within one checkpoint_timeout: from there on checkpoints come early."""
    dead_share: float = 0.2
    dead_least: int = 500_000
    """Fewer dead rows are vacuumed in seconds, whenever that comes."""
    hot_share: float = 0.5
    """Warns below."""
    hot_least: int = 50_000
    """Fewer updates are the first passes over a window or two, for which no page has room yet."""
    xmin_s: float = 600.0
    freeze_share: float = 0.8
    """Of what is left before the server takes no more transactions."""
    connections_share: float = 0.8
    ignored: frozenset[str] = frozenset()
    """Signals by name that are not looked at."""
    calm_s: float = 10.0
    """How long the load has to stay below CALM_LOAD before it goes on."""
    poll_s: float = 1.0
    stale_polls: int = 3
    """A reading older than so many polls closes the gate: what is not seen is not healthy."""
    baseline_polls: int = 5
    """Polls in which it is learnt what is usual here."""

    def without(self, names: Sequence[str]) -> Thresholds:
        """The same, with the signals *names* ignored."""
        return replace(self, ignored=self.ignored | set(names))


@dataclass(frozen=True, slots=True)
class Signal:
    """One measure of what others feel."""

    name: str
    value: float
    threshold: float
    words: str
    """What is the matter, for a person: `replica r1 is 4.8 s behind`."""
    was: str
    """The same once it is over: `replica r1 was 4.8 s behind`."""
    usual: float = 0.0
    """The value where nothing is the matter."""

    @property
    def load(self) -> float:
        """How far it is from what is usual to the threshold; 1 pauses, 2 is twice that far."""
        return max(0.0, (self.value - self.usual) / (self.threshold - self.usual))

    @property
    def warns(self) -> bool:
        """It is told only: it never pauses."""
        return self.name in WARNING


BRISK_POLLS, BRISK_LEAST = 8, 4
"""By the last so many polls it is judged how busy others are, where so many sessions were seen in the mean: fewer are
jobs and people, and no application."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier readings left: what is usual here, the counters to compare with, what began when."""

    first: Reading | None = None
    polls: int = 0
    last_at: float = 0.0
    active: float | None = None
    """Others' working sessions in the first polls, in the mean."""
    lately: tuple[int, ...] = ()
    """The same in the last three polls: an instant's burst is no load."""
    company: tuple[int, ...] = ()
    """Others' sessions that worked of late, in the last three polls."""
    brisk: tuple[tuple[int, int], ...] = ()
    """Others' sessions that came and went within a second, and how many of them worked, in the last polls."""
    connections: int = 0
    """As the first poll found them."""
    wal: tuple[tuple[float, int], ...] = ()
    """Positions in the WAL within the last checkpoint_timeout, with their times."""
    counts: Counts | None = None
    """The counters before those of the last reading that had new ones."""
    newest: Counts | None = None
    table: Table | None = None
    """As it was when we began: what was updated before was not our doing."""
    identity: tuple[str, str, str] | None = None
    """The server before the last reading."""
    server: tuple[str, str, str] | None = None
    held: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """When a holder of an xmin was first seen with it."""

    @property
    def others(self) -> bool | None:
        """Whether others work on the server: in most of the last polls they did. None where that is not known."""
        return sorted(self.company)[(len(self.company) - 1) // 2] > 0 if self.company else None

    @property
    def busy(self) -> float | None:
        """The share of time that others' sessions work which come and go; None while that is not known."""
        if not self.brisk:
            return None
        sessions = sum(brisk for brisk, _ in self.brisk)
        return sum(busy for _, busy in self.brisk) / sessions if sessions >= BRISK_LEAST * len(self.brisk) else 0.0

    def usual(self, thresholds: Thresholds, call_ms: float | None) -> str:
        """What was usual in the first polls, for a person; empty while that is being learnt."""
        if self.polls <= thresholds.baseline_polls:
            return ""
        told = [f"{self.active:.0f} active sessions"] if self.active is not None else []
        told += [f"{call_ms:.1f} ms a call of the application's statements"] if call_ms is not None else []
        return ", ".join(told)

    def after(self, reading: Reading, thresholds: Thresholds) -> Memory:
        """With one more *reading*."""
        if self.first is not None and reading.at <= self.last_at:
            return self
        held = {(h.who, h.xmin): self.held.get((h.who, h.xmin), reading.at) for h in reading.holders}
        renewed = reading.counts is not None and reading.counts is not self.newest
        new = replace(
            self,
            first=self.first or reading,
            polls=self.polls + 1,
            last_at=reading.at,
            counts=self.newest,
            newest=reading.counts if renewed else self.newest,
            table=self.table or reading.table,
            held=held,
        )
        server = reading.server
        return new if server is None else new._served(server, reading.at, thresholds)

    def _served(self, server: Server, at: float, thresholds: Thresholds) -> Memory:
        active, lately, company = self.active, self.lately, self.company
        if server.lately is not None:
            company = (*company, server.lately)[-3:]
        if server.active is not None:
            lately = (*lately, server.active)[-3:]
            if self.polls <= thresholds.baseline_polls:
                active = ((active or 0.0) * (self.polls - 1) + server.active) / self.polls
        wal = self.wal
        if server.wal is not None:
            if wal and server.wal < wal[-1][1]:  # another server's WAL
                wal = ()
            within = tuple(seen for seen in wal if at - seen[0] <= server.checkpoint_timeout_s)
            often = not within or at - within[-1][0] >= server.checkpoint_timeout_s / 300
            wal = (*within, (at, server.wal)) if often else within
        return replace(
            self,
            active=active,
            lately=lately,
            company=company,
            brisk=(*self.brisk, (server.brisk, server.busy), *server.glances)[-BRISK_POLLS:],
            connections=self.connections or server.connections,
            wal=wal,
            identity=self.server,
            server=server.identity,
        )


def signals(reading: Reading, thresholds: Thresholds, memory: Memory | None = None) -> list[Signal]:
    """All that *reading* says, the worst first; *memory* has taken it in already."""
    found = [
        signal for signal in _all(reading, thresholds, memory or Memory()) if signal.name not in thresholds.ignored
    ]
    return sorted(found, key=lambda signal: signal.load, reverse=True)


def _all(reading: Reading, thresholds: Thresholds, memory: Memory) -> Iterator[Signal]:
    for waiter in reading.waiters:
        yield from _blocked(waiter, thresholds)
    for replica in reading.replicas:
        yield from _lag(replica, thresholds)
    for slot in reading.slots:
        yield from _slot(slot, thresholds, memory)
    for holder in reading.holders:
        since = memory.held.get((holder.who, holder.xmin), reading.at)
        yield _xmin(holder, reading.at - since if holder.seconds is None else holder.seconds, thresholds)
    if reading.server is not None:
        yield from _server(reading.server, thresholds, memory)
    if reading.counts is not None:
        yield from _counts(reading.counts, memory)
    if reading.table is not None:
        yield from _table(reading.table, thresholds, memory)
    if reading.latency is not None:
        usual, now = reading.latency.usual_ms, reading.latency.ms
        limit = max(thresholds.latency_times * usual, usual + thresholds.latency_least_ms)
        said = "the application's statements {take} {now} ms a call, {usual} ms when we began"
        yield _signal("latency", now, limit, said, usual=usual, told={"now": f"{now:.1f}", "usual": f"{usual:.1f}"})


def _blocked(waiter: Waiter, thresholds: Thresholds) -> Iterator[Signal]:
    if thresholds.blocked_s is not None:
        told = {"pid": waiter.pid, "who": waiter.application or "unnamed", "age": age(waiter.seconds)}
        yield _signal("blocked", waiter.seconds, thresholds.blocked_s, "we {block} {pid} ({who}) for {age}", told=told)


def _lag(replica: Replica, thresholds: Thresholds) -> Iterator[Signal]:
    who = replica.application or "unnamed"
    if thresholds.lag_s is not None and replica.lag_s is not None:
        told = {"who": who, "age": age(replica.lag_s)}
        yield _signal("lag", replica.lag_s, thresholds.lag_s, "replica {who} {is_} {age} behind", told=told)
    if thresholds.lag_bytes is not None and replica.lag_bytes is not None:
        told = {"who": who, "size": size(replica.lag_bytes)}
        said = "replica {who} {is_} {size} of WAL behind"
        yield _signal("lag", replica.lag_bytes, thresholds.lag_bytes, said, told=told)


def _slot(slot: Slot, thresholds: Thresholds, memory: Memory) -> Iterator[Signal]:
    told: dict[str, object] = {"who": slot.name}
    if slot.wal_status == "lost":
        was = {s.name for s in memory.first.slots if s.wal_status == "lost"} if memory.first else set()
        if slot.name not in was:  # which no pause of ours brings back
            yield _signal(
                "slots", 1, 1, "replication slot {who} {is_} lost: it may not keep the WAL it needs", told=told
            )
    elif slot.wal_status != "reserved":
        told["status"] = slot.wal_status
        said = "the WAL that replication slot {who} keeps {is_} {status}: more than max_wal_size"
        yield _signal("slots", 1, 1, said, told=told)
    elif slot.safe_wal_size is not None and slot.keep_size:
        # Where little may be kept at all, half of it has to do.
        least = min(thresholds.slot_bytes, slot.keep_size / 2)
        told["size"] = size(max(0, slot.safe_wal_size))
        said = "replication slot {who} {is_} {size} of WAL away from being lost"
        yield _signal("slots", slot.safe_wal_size, least, said, usual=slot.keep_size, told=told)


def _xmin(holder: Holder, seconds: float, thresholds: Thresholds) -> Signal:
    said = "{who} {keep} dead rows from being removed for {age}"
    return _signal("xmin", seconds, thresholds.xmin_s, said, told={"who": holder.who, "age": age(seconds)})


def _server(server: Server, thresholds: Thresholds, memory: Memory) -> Iterator[Signal]:
    if memory.lately and memory.active is not None:
        active = sorted(memory.lately)[len(memory.lately) // 2]
        usual = memory.active
        limit = max(thresholds.active_times * usual, thresholds.active_least)
        told: dict[str, object] = {"active": active, "usual": f"{usual:.0f}"}
        said = "{active} sessions {is_are} active, {usual} when we began"
        yield _signal("active", active, limit, said, usual=min(usual, limit - 1), told=told)
    if len(memory.wal) > 1 and server.max_wal_size > 0 and server.wal is not None:
        share = (server.wal - memory.wal[0][1]) / server.max_wal_size
        said = "WAL {is_} written at {share} % of what max_wal_size allows per checkpoint_timeout"
        yield _signal("wal", share, thresholds.wal_share, said, told={"share": f"{100 * share:.0f}"})
    if server.usable > 0:
        share, usual = server.connections / server.usable, memory.connections / server.usable
        told = {"used": server.connections, "all": server.usable}
        usual = usual if usual < thresholds.connections_share else 0.0  # many may be usual: no reason to slow down
        said = "{used} of {all} connections {is_are} taken"
        yield _signal("connections", share, thresholds.connections_share, said, usual=usual, told=told)
    if memory.identity is not None and memory.identity != server.identity:
        yield _signal("identity", 1, 1, _change(memory.identity, server.identity))


def _change(before: tuple[str, str, str], now: tuple[str, str, str]) -> str:
    if before[0] != now[0]:
        return "another server {answer} at this address"
    if before[1] != now[1]:
        return "a standby {is_} the primary now"
    return "the server {is_} just started anew"


def _counts(now: Counts, memory: Memory) -> Iterator[Signal]:
    before = memory.counts
    if before is None or before is now:
        return
    new = (
        ("checkpoints", now.checkpoints - before.checkpoints, "checkpoints {is_are} requested before their time: {n}"),
        ("deadlocks", now.deadlocks - before.deadlocks, "deadlocks {is_are} found in this database: {n}"),
        ("conflicts", now.conflicts - before.conflicts, "queries on a standby {is_are} cancelled by replay: {n}"),
    )
    for name, n, said in new:
        if n > 0:
            yield _signal(name, 1, 1, said, told={"n": n})


WRAPAROUND = 2**31 - 3_000_000
"""Transactions after which the server assigns no further ones (from 14 on; some more before)."""


def _table(table: Table, thresholds: Thresholds, memory: Memory) -> Iterator[Signal]:
    began = memory.table or table
    updated, hot = table.updated - began.updated, table.hot - began.hot
    tells = updated >= thresholds.hot_least and hot >= 0
    mostly_hot = tells and hot >= thresholds.hot_share * updated
    if table.dead >= thresholds.dead_least and (table.cleaned or table.vacuum) and not mostly_hot:
        # Where nobody comes to remove them, waiting would only take longer; and where most updates are HOT a page takes
        # its room back by itself: a walk in stripes fills each row once, and uses nothing that a vacuum frees.
        share = table.dead / max(1, table.live)
        told: dict[str, object] = {"table": table.name, "dead": count(table.dead), "live": count(table.live)}
        said = "{table} {has} {dead} dead rows to {live} live ones, and {wait} for a vacuum"
        yield _signal("dead", share, thresholds.dead_share, said, told=told)
    if table.vacuum:
        told = {"table": table.name, "phase": table.vacuum}
        yield _signal("vacuum", 1, 1, "a vacuum {is_} at work on {table}: {phase}", told=told)
    if tells and not mostly_hot:
        told = {"share": f"{100 * hot / updated:.0f}", "table": table.name}
        said = "{share} % of the updates of {table} {is_are} HOT: the others {write} to every index"
        yield _signal("hot", 1 - hot / updated, 1 - thresholds.hot_share, said, told=told)
    share, usual = table.freeze_age / WRAPAROUND, began.freeze_age / WRAPAROUND
    usual = usual if usual < thresholds.freeze_share else 0.0
    told = {"table": table.name, "share": f"{100 * share:.0f}"}
    said = "{table} {is_} {share} % of the way to transaction wraparound: VACUUM (FREEZE) it"
    yield _signal("freeze", share, thresholds.freeze_share, said, usual=usual, told=told)


_NOW = {
    "is_": "is", "is_are": "are", "has": "has", "take": "take", "block": "block", "keep": "keeps", "wait": "waits",
    "write": "write", "answer": "answers",
}  # fmt: skip
_THEN = {
    "is_": "was", "is_are": "were", "has": "had", "take": "took", "block": "blocked", "keep": "kept", "wait": "waited",
    "write": "wrote", "answer": "answered",
}  # fmt: skip


def _signal(
    name: str,
    value: float,
    threshold: float,
    said: str,
    *,
    usual: float = 0.0,
    told: Mapping[str, object] | None = None,
) -> Signal:
    """The signal with its sentence in both tenses; what is *told* is never read as a part of the sentence's form."""
    now, then = (said.format_map({**(told or {}), **verbs}) for verbs in (_NOW, _THEN))
    return Signal(name, value, threshold, now, then, usual)
