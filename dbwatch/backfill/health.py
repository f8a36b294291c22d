"""The gate that what others feel closes: whether a batch may go, and whether the one under way may go on. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from dbwatch.backfill.pace import CALM
from dbwatch.backfill.reading import SLOW, SLOW_EVERY, Reading, Replica, Waiter
from dbwatch.backfill.signals import Memory, Signal, Thresholds, signals
from dbwatch.text import age

__all__ = ["CALM_LOAD", "Gate", "Reading", "Replica", "Signal", "Thresholds", "Waiter", "signals"]

CALM_LOAD = 0.7
"""Below this share of every threshold it counts as calm."""
FAR_BEYOND, CANCELS = 2.0, 2
"""So far beyond a threshold in so many readings on end, and the batch under way is cancelled."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether the next batch may go. Closes at once, opens after a time of calm."""

    thresholds: Thresholds = Thresholds()
    memory: Memory = Memory()
    blind_because: str = ""
    """Why nothing can be said of the server; opens with the next reading."""
    hurt_because: str = ""
    """Which signal crossed its threshold; opens after a time of calm."""
    hurt_was: str = ""
    """The same once it is over."""
    hurt_by: str = ""
    """The short name of that signal."""
    load: float = 0.0
    """The worst signal's share of its threshold at the last reading."""
    worst: str = ""
    """The worst signal in words, whether it closes the gate or not; empty where none is worth a word."""
    worst_by: str = ""
    """The short name of that signal."""
    warnings: Mapping[str, str] = field(default_factory=dict)
    """Signals that only warn, by name, in words."""
    far_beyond: int = 0
    """Readings on end that were so."""
    calm_since: float | None = None

    @property
    def open(self) -> bool:
        return not self.closed_because

    @property
    def closed_because(self) -> str:
        """In plain words; empty where it is open."""
        return self.blind_because or self.hurt_because

    @property
    def signal(self) -> str:
        """The short name of the signal that closes it, or is the worst of those that slow; empty where none does."""
        return "" if self.blind_because else self.hurt_by if self.hurt_because else self.worst_by

    @property
    def closed_was(self) -> str:
        """The same once it is over."""
        return self.blind_because or self.hurt_was

    @property
    def cancels(self) -> bool:
        """It is so bad that the batch under way has to end, too."""
        return self.far_beyond >= CANCELS

    def see(self, reading: Reading | None, now: float, overridden: Collection[str] = ()) -> Gate:
        """The gate after a look at the newest *reading*, which may be an old one; None: there was none yet.

        Signals that a person has *overridden* are not looked at.
        """
        thresholds = self.thresholds.without(tuple(overridden))
        blind = _blind(reading, now, thresholds)
        if reading is None or blind:
            return replace(self, blind_because=blind, calm_since=None, far_beyond=0)
        new = reading.at > self.memory.last_at or self.memory.first is None
        memory = self.memory.after(reading, thresholds)
        found = signals(reading, thresholds, memory)
        worst = next((signal for signal in found if not signal.warns), _NOTHING)
        far_beyond = self.far_beyond if not new else self.far_beyond + 1 if worst.load >= FAR_BEYOND else 0
        hurt = "" if self.hurt_by in thresholds.ignored else self.hurt_because
        seen = replace(
            self,
            memory=memory,
            blind_because="",
            hurt_because=hurt,
            load=worst.load,
            worst=worst.words if worst.load >= CALM else "",
            worst_by=worst.name if worst.load >= CALM else "",
            warnings={signal.name: signal.words for signal in found if signal.warns},
            far_beyond=far_beyond,
        )
        if worst.load >= 1:
            return replace(seen, hurt_because=worst.words, hurt_was=worst.was, hurt_by=worst.name, calm_since=None)
        if not hurt or worst.load >= CALM_LOAD:
            return replace(seen, calm_since=None)
        calm_since = reading.at if seen.calm_since is None else seen.calm_since
        if now - calm_since < thresholds.calm_s:
            return replace(seen, calm_since=calm_since)
        return replace(seen, hurt_because="", calm_since=None)


_NOTHING = Signal("", 0.0, 1.0, "", "")


def _blind(reading: Reading | None, now: float, thresholds: Thresholds) -> str:
    """Why what there is to see was not seen lately; empty where it was."""
    patience = thresholds.poll_s * thresholds.stale_polls
    if reading is None or now - reading.at > patience:
        since = f" for {age(now - reading.at)}" if reading else ""
        return f"no health reading{since}: what is not seen is not healthy"
    for part, at in reading.slow.items():
        missed = [name for name in SLOW[part] if name not in thresholds.ignored]
        if missed and now - at > SLOW_EVERY * patience:
            return f"no reading of {', '.join(missed)} for {age(now - at)}: what is not seen is not healthy"
    return ""
