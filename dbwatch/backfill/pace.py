"""How large the next batch is, and how long to sleep before it. Pure: values in, a new value out.

The law and its constants were found by measurement, and by simulation against other tools' laws. The size follows
the dearest recent rows, a sparse stretch never makes a row look cheaper than it is, and the duty follows what
others feel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST, LEAST, MOST = 500, 10, 50_000
"""Keys in a batch: the first one, and the bounds."""
GROWTH = 1.5
"""How much larger than the last one a batch may be."""
WAL_PER_BATCH = 16 * 2**20
"""Bytes of WAL a batch may write: one segment."""
WORTH_A_LOOK = 50
"""Rows changed below which a sparse batch says nothing of a row's cost."""
HOLD = 5
"""Batches without growth after one that took far too long."""
FULL = 0.8
"""Share of the target time that a batch is made to fill."""
FAR_TOO_LONG = 3.0
"""Times the target: then the size is quartered."""
DUTY_MOST, DUTY_LEAST, DUTY_AFTER_PAUSE = 0.95, 0.05, 0.25
DUTY_UP, DUTY_UP_EVERY_S = 0.05, 15.0
DUTY_DOWN, DUTY_DOWN_EVERY_S = 0.1, 5.0
CALM, BUSY = 0.4, 0.7
"""Load, as a share of the threshold that pauses: below CALM the duty rises, above BUSY it falls."""
LOAD_MEMORY_S = 10.0
"""Time constant of the load's moving average."""
ALONE_MESSAGE, ALONE_MESSAGE_MOST_S = 3.0, 0.5
"""Batch times of a message where nobody else is there, but no longer than that unless a batch is. A person who pauses
or stops waits for its end."""
AMONG_OTHERS = 0.33
"""Share of the target time that a batch may take while others work on the server: it is how long one of them waits at
worst for a row of ours. Measured at 2,500 tps on 2 cores: a half 6 to 11 ms at the application's p99, a third 5 to 8,
at the same speed."""
BUSY_DUTY, BUSY_TARGET = 0.5, 0.25
"""Shares of the time that it works at most, and that a batch may take, while the others' sessions are hardly ever idle:
what is asked of them queues up for as long as a batch takes, where no view shows it. Measured at 12,000 tps on 2 cores:
as much rest as work held the application's 99 %."""
BUSY_FROM, BUSY_TO = 0.5, 0.22
"""Share of their time that they work: from there on they are hardly ever idle, and below they are again. At half of
what the server can do they work for a third of their time beside our half, and for all of it beside our whole; at an
eighth of it for 0.13 to 0.18 beside our whole."""
BUSY_FIRST = 0.3
"""The same while nothing is known yet, by the sessions of a look or two, before we begin: of eight that an application
has at half of what the server can do, three or four work; at an eighth of it one, and now and then two."""
GENTLER, FASTER = 0.7, 1.5
"""What one level of manual speed does to the target time and to the duty."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One committed batch as the law sees it."""

    rows: int
    """Rows changed."""
    seconds: float
    """On the server, COMMIT included."""
    wal_bytes: int = 0
    """Written by the whole server meanwhile: an upper bound of ours."""
    waited_s: float = 0.0
    """Of *seconds*, spent waiting for locks, as far as it was seen."""
    keys: int | None = None
    """That it took; None: as many as the pace allowed."""
    heaviest: bool = True
    """No other batch of its window costs as much a row: by it the size is chosen."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The state of the control law."""

    base_target_s: float = 0.1
    size: int = FIRST
    """Keys that the next batch takes; in stripes one of a first pass."""
    most: int = MOST
    """As many at most, by the way it walks."""
    cost: float | None = None
    """Seconds a row, moving average; None until a batch has taught it."""
    recent: tuple[float, ...] = ()
    """Seconds a row of the last 10 batches that count."""
    wal_per_row: float | None = None
    hold: int = 0
    """Batches yet to come without growth."""
    auto_duty: float = DUTY_MOST
    """The share of time spent working that the load allows."""
    load: float = 0.0
    """The highest signal over its threshold, moving average."""
    felt_at: float | None = None
    duty_at: float | None = None
    level: int = 0
    """Manual speed."""
    others: bool | None = None
    """Whether others work on the server; None where that is not known."""
    busy: bool | None = None
    """The others' sessions are hardly ever idle; None while that is not known: then less is enough to say so."""
    most_per_s: int | None = None
    """Rows that may be changed in a second; None: as many as there is time for."""

    @classmethod
    def starting(cls, target_s: float, most_per_s: int | None = None) -> Pace:
        """At the beginning: batches of *target_s* seconds, and *most_per_s* rows a second."""
        return cls(base_target_s=target_s, most_per_s=most_per_s, size=min(FIRST, most_per_s or FIRST))

    @property
    def target_s(self) -> float:
        """What a batch should take at the present manual speed, and in the present company."""
        return self.alone_s * (BUSY_TARGET if self.busy else AMONG_OTHERS if self.others else 1.0)

    @property
    def alone_s(self) -> float:
        """The same where nobody else is there."""
        return self.base_target_s * self._by_hand

    @property
    def message_s(self) -> float:
        """What a message of several batches may take. Each is committed by itself, so that nobody waits for longer than
        a batch for a row of ours; but where others are hardly ever idle, they wait for the server as well. Where nobody
        else is there it is longer: what a message costs our side hardly depends on how much is in it."""
        if self.busy:
            return self.target_s
        longer_s = min(ALONE_MESSAGE * self.alone_s, ALONE_MESSAGE_MOST_S) if self.alone else 0.0
        return max(self.alone_s, longer_s)

    @property
    def lighter(self) -> float:
        """How many times as many rows as `size` a batch of cheap ones may have: even if each of them proved as dear as
        the dearest, it would take no longer than one may where nobody else is there, and write no more WAL than any."""
        if self.most_per_s:
            return 1.0
        by_time = self.alone_s / self.target_s
        by_wal = WAL_PER_BATCH / (self.wal_per_row * self.size) if self.wal_per_row else by_time
        return max(1.0, min(by_time, by_wal))

    @property
    def duty(self) -> float:
        """The share of time spent working, manual speed included: all of it where nobody is there to rest for."""
        allowed = 1.0 if self.alone else min(BUSY_DUTY, self.auto_duty) if self.busy else self.auto_duty
        return min(1.0, max(DUTY_LEAST, allowed * self._by_hand))

    @property
    def alone(self) -> bool:
        """Nobody is there to rest for, nor whose COMMIT would have to wait behind what ours did not wait for."""
        return self.others is False and self.auto_duty >= DUTY_MOST

    @property
    def _by_hand(self) -> float:
        return GENTLER**-self.level if self.level < 0 else FASTER**self.level

    def sleep_s(self, worked_s: float, rows: int = 0, idle_s: float = 0.0) -> float:
        """The rest that *worked_s* seconds call for, in which so many *rows* were changed, after *idle_s* in which the
        server had nothing to do for us already: our own side, and the line."""
        by_duty = worked_s * (1 / self.duty - 1)
        asked_s = max(by_duty, rows / self.most_per_s - worked_s) if self.most_per_s else by_duty
        return max(0.0, asked_s - idle_s)

    def at_level(self, level: int) -> Pace:
        """The same at another manual speed; the size follows at once where that is gentler."""
        return self._aimed(replace(self, level=level))

    def aiming_at(self, seconds: float) -> Pace:
        """The same with another target time; the size follows at once where that is shorter."""
        return self._aimed(replace(self, base_target_s=seconds))

    def among(self, others: bool | None, busy: float | None = None) -> Pace:
        """The same while *others* work on the server, or none do, their sessions *busy* such a share of their time;
        None: nobody knows."""
        limit = {None: BUSY_FIRST, False: BUSY_FROM, True: BUSY_TO}[self.busy]
        is_busy = self.busy if busy is None else busy > limit
        same = (others, is_busy) == (self.others, self.busy)
        return self if same else self._aimed(replace(self, others=others, busy=is_busy))

    def _aimed(self, changed: Pace) -> Pace:
        return replace(changed, size=max(LEAST, round(self.size * min(1.0, changed.target_s / self.target_s))))

    def at_most(self, keys: int) -> Pace:
        """The same for batches of so many keys at most."""
        return self if keys == self.most else replace(self, most=keys, size=min(self.size, keys))

    def after(self, batch: Batch) -> Pace:
        """What *batch* teaches. One that waited for a lock teaches nothing.

        One that changed under half of its keys (a sparse stretch) makes a row look dearer than it is, for it pays
        for the keys it only walked: it teaches a cost only where that is below the known one, so that neither the
        stretch itself nor the dense one behind it meets a wrong size.
        """
        hold = max(0, self.hold - 1)
        seconds = batch.seconds - batch.waited_s
        if seconds > FAR_TOO_LONG * self.target_s:
            return replace(self._learned(batch, seconds), size=max(LEAST, self.size // 4), hold=HOLD)
        if batch.waited_s > 0 or not self._teaches(batch, seconds):
            return self if hold == self.hold else replace(self, hold=hold)
        learned = self._learned(batch, seconds)
        return replace(learned, size=learned._next_size(growing=self.hold == 0), hold=hold)

    def after_timeout(self) -> Pace:
        """A batch was given up on a lock_timeout, a statement_timeout or a cancel."""
        return replace(self, size=max(LEAST, self.size // 4), hold=HOLD)

    def after_deadlock(self) -> Pace:
        """A batch was the victim of a deadlock, or could not be serialized."""
        return replace(self, size=max(LEAST, self.size // 2))

    def after_pause(self) -> Pace:
        """The health gate opened again: half the size, a quarter of the time."""
        return replace(self, size=max(LEAST, self.size // 2), auto_duty=DUTY_AFTER_PAUSE)

    def feel(self, load: float, at: float) -> Pace:
        """Takes in a health reading: *load* is the highest signal over its threshold, *at* in monotonic seconds."""
        if self.felt_at is None or self.duty_at is None:
            return replace(self, load=load, felt_at=at, duty_at=at)
        weight = min(1.0, (at - self.felt_at) / LOAD_MEMORY_S)
        felt = replace(self, load=self.load + weight * (load - self.load), felt_at=at)
        since = at - self.duty_at
        if felt.load < CALM and since >= DUTY_UP_EVERY_S:
            return replace(felt, auto_duty=min(DUTY_MOST, self.auto_duty + DUTY_UP), duty_at=at)
        if felt.load > BUSY and since >= DUTY_DOWN_EVERY_S:
            return replace(felt, auto_duty=max(DUTY_LEAST, self.auto_duty - DUTY_DOWN), duty_at=at)
        return felt

    def _teaches(self, batch: Batch, seconds: float) -> bool:
        if not batch.heaviest:
            return False
        keys = self.size if batch.keys is None else max(batch.keys, self.size / 2)
        if batch.rows >= keys / 2:
            return True
        return batch.rows >= WORTH_A_LOOK and (self.cost is None or seconds / batch.rows < self.cost)

    def _learned(self, batch: Batch, seconds: float) -> Pace:
        if batch.rows == 0:
            return self
        each = seconds / batch.rows
        wal = batch.wal_bytes / batch.rows
        # What others write counts in the WAL figure too: it can only be too high, so it falls fast and rises slowly.
        return replace(
            self,
            cost=_moved(self.cost, each, rising=0.6, falling=0.2),
            recent=(*self.recent, each)[-10:],
            wal_per_row=_moved(self.wal_per_row, wal, rising=0.2, falling=0.6),
        )

    def _next_size(self, *, growing: bool) -> int:
        dear = max(self.cost or 0.0, _p90(self.recent))
        bounds = [float(self.most), self.size * (GROWTH if growing else 1.0)]
        if dear > 0:
            bounds.append(FULL * self.target_s / dear)
        if self.most_per_s:
            bounds.append(self.most_per_s)
        if self.wal_per_row:
            bounds.append(WAL_PER_BATCH / self.wal_per_row)
        return max(LEAST, int(min(bounds)))


def _moved(old: float | None, new: float, *, rising: float, falling: float) -> float:
    if old is None:
        return new
    return old + (rising if new > old else falling) * (new - old)


def _p90(values: tuple[float, ...]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))] if ordered else 0.0
