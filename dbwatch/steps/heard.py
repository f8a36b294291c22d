"""What of a backfill's progress is worth a note in the journal: each change once, a pause with its length. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.text import age

WORTH_A_NOTE_S = 2.0
"""A shorter pause is told to whoever looks on, and forgotten."""
TOLD_AGAIN = 10
"""Rows that differ are noted again once there are so many times more of them."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was noted so far."""

    since: float | None = None
    """When the pause began that it is in; None while it goes on."""
    by_hand: bool = False
    """A person paused it: of that the journal knows already, or by its order."""
    told: bool = False
    """The pause was noted."""
    was: str = ""
    """Why it pauses, as it is told once that is over."""
    usual: str = ""
    warned: frozenset[str] = frozenset()
    overridden: frozenset[str] = frozenset()
    quarantined: bool = False
    ordered: str = ""
    """The newest order from another terminal."""
    differing: int = 0
    """Rows that differ, when that was noted last."""

    def after(self, progress: BackfillProgress, now: float) -> tuple[Heard, tuple[str, ...]]:
        """With one more *progress*, heard at the monotonic time *now*; and the notes that it is worth."""
        notes = []
        if progress.quarantined and not self.quarantined:
            notes.append("a row cannot take its value: it is in quarantine, and the walk goes on past it")
        if progress.usual and not self.usual:
            notes.append(f"usual here: {progress.usual}")
        if progress.ordered and progress.ordered != self.ordered:
            notes.append(progress.ordered)
        differing = self.differing
        if progress.differing >= max(1, TOLD_AGAIN * differing):
            differing = progress.differing
            notes.append(progress.differs)
        for name, words in progress.warnings:
            if name not in self.warned:
                notes.append(f"note: {words}")
        left = dict(progress.overridden)
        notes += [f"{name} counts again" for name in sorted(self.overridden - left.keys())]
        heard = replace(
            self,
            usual=progress.usual or self.usual,
            warned=self.warned | {name for name, _ in progress.warnings},
            overridden=frozenset(left),
            quarantined=self.quarantined or bool(progress.quarantined),
            ordered=progress.ordered,
            differing=differing,
        )
        heard, of_pause = heard._paused(progress, now)
        return heard, (*notes, *of_pause)

    def _paused(self, progress: BackfillProgress, now: float) -> tuple[Heard, tuple[str, ...]]:
        if progress.state in (State.PAUSED, State.THROTTLED):
            since = now if self.since is None else self.since
            by_hand = progress.state is State.PAUSED
            heard = replace(self, since=since, by_hand=by_hand, was=progress.was or progress.reason)
            if by_hand or heard.told or now - since <= WORTH_A_NOTE_S:
                return heard, ()
            return replace(heard, told=True), (f"pauses: {progress.reason}",)
        if self.since is None:
            return self, ()
        notes: tuple[str, ...] = ()
        if not progress.state.ended:
            if self.by_hand:
                notes = (f"goes on at {progress.rows_done:,} rows",)
            elif self.told:
                notes = (f"paused {age(now - self.since)}: {self.was}",)
        return replace(self, since=None, by_hand=False, told=False, was=""), notes
