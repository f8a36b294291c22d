"""What others feel while a backfill runs: signals against thresholds, and the gate they close. Pure.

A signal is a value: what was read, what of it makes the backfill pause, and how that is said. Further signals are
further entries in `signals`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dbwatch.text import age, size


@dataclass(frozen=True, slots=True)
class Waiter:
    """A session that waits for a lock of our worker."""

    pid: int
    application: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Replica:
    """A standby that follows."""

    application: str
    lag_s: float | None
    """Replay lag; None where nothing is to be replayed, or where privileges hide it."""
    lag_bytes: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the server, in the monotonic seconds of our clock."""

    at: float
    waiters: tuple[Waiter, ...] = ()
    replicas: tuple[Replica, ...] = ()
    worker_waits_s: float | None = None
    """How long our worker has been waiting for a lock; None where it does not."""
    worker_waits_for: str = ""
    """Who holds that lock, in plain words."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the backfill pauses; None ignores the signal."""

    blocked_s: float | None = 1.0
    lag_s: float | None = 5.0
    lag_bytes: int | None = 256 * 2**20
    calm_s: float = 10.0
    """How long the load has to stay below BUSY before it goes on."""
    poll_s: float = 1.0
    stale_polls: int = 3
    """A reading older than so many polls closes the gate: what is not seen is not healthy."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One measure of what others feel."""

    value: float
    threshold: float
    words: str
    """What is the matter, for a person: `replica r1 is 4.8 s behind`."""

    @property
    def load(self) -> float:
        """Its share of the threshold; 1 pauses."""
        return self.value / self.threshold


def signals(reading: Reading, thresholds: Thresholds) -> list[Signal]:
    """All that *reading* says, the worst first."""
    found: list[Signal] = []
    if thresholds.blocked_s is not None:
        found += [
            Signal(
                w.seconds, thresholds.blocked_s, f"we block {w.pid} ({w.application or 'unnamed'}) for {age(w.seconds)}"
            )
            for w in reading.waiters
        ]
    for replica in reading.replicas:
        name = replica.application or "unnamed"
        if thresholds.lag_s is not None and replica.lag_s is not None:
            found.append(Signal(replica.lag_s, thresholds.lag_s, f"replica {name} is {age(replica.lag_s)} behind"))
        if thresholds.lag_bytes is not None and replica.lag_bytes is not None:
            words = f"replica {name} is {size(replica.lag_bytes)} of WAL behind"
            found.append(Signal(replica.lag_bytes, thresholds.lag_bytes, words))
    return sorted(found, key=lambda signal: signal.load, reverse=True)


CALM_LOAD = 0.7
"""Below this share of every threshold it counts as calm."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether the next batch may go. Closes at once, opens after a time of calm."""

    thresholds: Thresholds = Thresholds()
    blind_because: str = ""
    """Why nothing can be said of the server; opens with the next reading."""
    hurt_because: str = ""
    """Which signal crossed its threshold; opens after a time of calm."""
    load: float = 0.0
    """The worst signal's share of its threshold at the last reading."""
    worst: str = ""
    """The worst signal in words, whether it closes the gate or not."""
    calm_since: float | None = None

    @property
    def open(self) -> bool:
        return not self.closed_because

    @property
    def closed_because(self) -> str:
        """In plain words; empty where it is open."""
        return self.blind_because or self.hurt_because

    def see(self, reading: Reading | None, now: float) -> Gate:
        """The gate after a look at the newest *reading*, which may be an old one; None: there was none yet."""
        if reading is None or now - reading.at > self.thresholds.poll_s * self.thresholds.stale_polls:
            since = f" for {age(now - reading.at)}" if reading else ""
            because = f"no health reading{since}: what is not seen is not healthy"
            return replace(self, blind_because=because, calm_since=None)
        found = signals(reading, self.thresholds)
        worst = found[0] if found else Signal(0.0, 1.0, "")
        seen = replace(self, blind_because="", load=worst.load, worst=worst.words)
        if worst.load >= 1:
            return replace(seen, hurt_because=worst.words, calm_since=None)
        if not seen.hurt_because or worst.load >= CALM_LOAD:
            return replace(seen, calm_since=None)
        calm_since = reading.at if seen.calm_since is None else seen.calm_since
        if now - calm_since < self.thresholds.calm_s:
            return replace(seen, calm_since=calm_since)
        return replace(seen, hurt_because="", calm_since=None)
