"""What a door sees: one immutable frame at a time, from a live window, a mere watch, or a recording.

A screen draws frames and hands in intents; it never guesses. `Feed` and `Desk` are all that it knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dbwatch.backfill.progress import BackfillProgress
from dbwatch.journal.chain import Event
from dbwatch.journal.fold import WindowState
from dbwatch.monitor.baseline import Baseline
from dbwatch.monitor.samples import Snapshot
from dbwatch.runbook.model import Runbook
from dbwatch.steps.progress import MigrationProgress as MigrationProgress
from dbwatch.window.abort import AbortPlan
from dbwatch.window.intents import Answer, Intent


@dataclass(frozen=True, slots=True)
class Rollback:
    """What an abort would mean now, for the status line."""

    reversible: bool
    estimate_s: float | None
    reason: str = ""
    """Why there is no way back, where there is none."""
    unknown: str = ""
    """Why it cannot be told now; the other fields are those of the last time it could."""
    no_return: str | None = None
    """The first step past which there is no way back; None where every step can be taken back."""


@dataclass(frozen=True, slots=True)
class WindowView:
    """The window's part of a frame."""

    runbook: Runbook
    state: WindowState
    events: tuple[Event, ...]
    """The whole journal, oldest first."""
    actor: str
    """Who sits at this screen."""
    driving: bool
    """Whether this process holds the epoch."""
    journal_trouble: str = ""
    """Why the journal cannot be written at the moment; events go to the local mirror."""
    trouble: str = ""
    """What else keeps this window from being driven: the wheel is lost, or how a step ended is not known yet."""
    elapsed_s: float = 0.0
    migration: MigrationProgress | None = None
    backfill: BackfillProgress | None = None
    backfill_step: str = ""
    rollback: Rollback = Rollback(reversible=True, estimate_s=None)
    baseline: Baseline | None = None
    navigators: tuple[str, ...] = ()
    """Who else sits at this window now and does not drive: `name@host`."""
    silent_s: float | None = None
    """For how long nothing was heard of the driver beyond its lease; None while it is there."""
    edited: str = ""
    """The difference of the runbook's file from what this window goes by; empty where there is none."""
    edited_sha: str = ""
    """Names the file's text for `Amend`."""
    busy: str = ""
    """What of ours runs now, in plain words; empty: nothing, one may leave."""


@dataclass(frozen=True, slots=True)
class Frame:
    """All that a screen shows."""

    snapshot: Snapshot = Snapshot()
    window: WindowView | None = None
    """None: nobody runs a window here, we only watch."""


@dataclass(frozen=True, slots=True)
class Foretold:
    """What a backfill step would do, as it was planned just now. All of it may be shown as it is."""

    step: str
    said: tuple[tuple[str, str], ...]
    """What a dry run says: a name and a sentence each."""
    batch: tuple[str, ...] = ()
    """The UPDATE of a batch, by lines."""
    explained: tuple[str, ...] = ()
    """How the server would carry out a batch: EXPLAIN's lines."""


@dataclass(frozen=True, slots=True)
class AsideRow:
    """A row that could not take its value."""

    key: str
    """As the journal has it: names the row, and may be hostile."""
    shown: str
    """The same for a person."""
    sqlstate: str
    message: str


@dataclass(frozen=True, slots=True)
class Aside:
    """What a backfill step holds in quarantine."""

    step: str
    backfill: int | None = None
    """Its id; None: it never began in this window."""
    total: int = 0
    tally: str = ""
    """How many by SQLSTATE: `23514: 12, 22001: 1`."""
    rows: tuple[AsideRow, ...] = ()
    """The first of them, by key."""


class Feed(Protocol):
    """A source of frames."""

    @property
    def frame(self) -> Frame:
        """The newest one."""
        ...

    async def next(self) -> Frame:
        """Waits for a frame newer than the last that this call returned; frames in between are dropped."""
        ...

    def set_interval(self, seconds: float) -> None:
        """Polls every so many seconds from now on."""
        ...


class Desk(Protocol):
    """Where intents are handed in. Nothing raises: the answer says what became of it."""

    @property
    def accepts(self) -> frozenset[type]:
        """The classes of intents that this desk takes at all: keys for others are shown nowhere. It changes when the
        wheel is lost or taken."""
        ...

    async def submit(self, intent: Intent) -> Answer:
        """Carries the intent out as far as taking it on goes; long work goes on behind."""
        ...

    async def plan_abort(self) -> AbortPlan:
        """The way back from here, as it would be carried out. Raises DbwatchError where it cannot be told."""
        ...

    async def plan_backfill(self, step: str) -> Foretold:
        """What the backfill *step* would do from here. Raises DbwatchError or psycopg.Error where it cannot be told."""
        ...

    async def rows_aside(self, step: str) -> Aside:
        """What the backfill *step* holds in quarantine. Raises as `plan_backfill`."""
        ...
