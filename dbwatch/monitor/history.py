"""What the charts draw: for each series the last hour of points, in memory, fed by snapshots."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from itertools import islice

from dbwatch.monitor.rates import rates
from dbwatch.monitor.samples import Snapshot

POINTS = 3_600
"""An hour at one poll a second."""

Point = tuple[datetime, float]
"""The server's clock, and the value then."""


class History:
    """Series by name, each the last `POINTS` values.

    From snapshots: `tps`, `rollbacks` and `wal` (bytes) per second; `connections`, `active`, `waiting`;
    `oldest_xact` and `lag` (the standby furthest behind), in seconds. Others are fed with `put`. While there is no
    connection nothing is added: a chart shows the gap.
    """

    def __init__(self, points: int = POINTS) -> None:
        self._points = points
        self._series: dict[str, deque[Point]] = {}
        self._before: Snapshot | None = None

    def add(self, snapshot: Snapshot) -> None:
        """Takes what is new in *snapshot*; one seen already adds nothing."""
        before = self._before
        if not snapshot.connected or not snapshot.vitals.rows or snapshot.vitals.at is None:
            return
        if before is not None and snapshot.vitals.taken == before.vitals.taken:
            return
        at, [vitals] = snapshot.vitals.at, snapshot.vitals.rows
        self.put("connections", at, vitals.connections)
        self.put("active", at, vitals.active)
        self.put("waiting", at, vitals.waiting)
        self.put("oldest_xact", at, vitals.oldest_xact_s)
        lags = [standby.replay_lag_s or 0.0 for standby in snapshot.replication.rows]
        self.put("lag", at, max(lags) if lags else None)
        if before is not None:
            change = rates(before, snapshot)
            self.put("tps", at, change.tps)
            self.put("rollbacks", at, change.rollbacks_s)
            self.put("wal", at, change.wal_bytes_s)
        self._before = snapshot

    def put(self, name: str, at: datetime, value: float | None) -> None:
        """One point of a series; None is not one."""
        if value is not None:
            self._series.setdefault(name, deque(maxlen=self._points)).append((at, float(value)))

    def series(self, name: str, last: int | None = None) -> Sequence[Point]:
        """The points of a series, oldest first, at most the *last* so many; empty where there are none."""
        points = self._series.get(name, ())
        return tuple(islice(points, max(0, len(points) - last) if last is not None else 0, None))

    def latest(self, name: str) -> float | None:
        """The newest value of a series."""
        points = self._series.get(name)
        return points[-1][1] if points else None
