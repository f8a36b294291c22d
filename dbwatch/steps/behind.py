"""How long others queued behind a backend of ours: from looks at them, never told too small. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Behind:
    """A transaction that waits for a relation which our backend holds a lock on, or waits for before it."""

    transaction: str
    waited_s: float | None
    """Since it queued behind us; None where the server (13) does not tell."""


@dataclass(frozen=True, slots=True)
class Queue:
    """What several looks have shown; times are of a monotonic clock."""

    worst_s: float = 0.0
    since: Mapping[str, float] = field(default_factory=dict)
    """Since when those wait who were there when it was last looked."""


def after(queue: Queue, seen: Sequence[Behind], now: float) -> Queue:
    """*queue* after one more look, or, with nobody in it, at the end.

    Whoever is not there any more may have waited until just now, and is taken to have.
    """
    since = {
        one.transaction: queue.since.get(one.transaction, now) if one.waited_s is None else now - one.waited_s
        for one in seen
    }
    ended = [start for transaction, start in queue.since.items() if transaction not in since]
    return Queue(max([queue.worst_s, *(now - start for start in (*since.values(), *ended))]), since)
