"""What every kind of step has in common: what it is given, and how it ends. Values and protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dbwatch.backfill.control import Control
from dbwatch.backfill.plan import Maker
from dbwatch.backfill.progress import BackfillProgress
from dbwatch.clock import Clock
from dbwatch.journal.events import Fact
from dbwatch.journal.fence import Fence
from dbwatch.journal.fold import StepState
from dbwatch.postgres.facts import ServerFacts
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.session import Connection, Connector, Limits
from dbwatch.steps.progress import MigrationProgress


@dataclass(frozen=True, slots=True)
class Done:
    """The step took effect."""

    result: str
    heads: tuple[str, ...] = ()
    recorded: bool = False
    """Its `step.done` was committed together with its effect: nothing more is to be written."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The step did not take effect, or not wholly."""

    error: str
    again: bool
    """Whether running it once more is safe."""
    stopped: bool = False
    """A person stopped it."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can tell whether it took effect: a person decides."""

    reason: str


Outcome = Done | Failed | Unknown


class Record(Protocol):
    """How a step journals."""

    async def __call__(self, *facts: Fact) -> bool:
        """Writes what has happened; whether it would survive our death. Raises as `Store.record` does."""
        ...


@dataclass(frozen=True, slots=True)
class Kit:
    """What a running step is given. It appends no events itself: it tells the conductor."""

    connector: Connector
    """Tagged with the fence: application_name says whose work it is."""
    limits: Limits
    """Of the worker's session, from the runbook."""
    control: Kept
    """For cancelling what this step runs; never for anything that waits."""
    facts: ServerFacts
    clock: Clock
    fence: Fence
    attempt: int
    previous: StepState
    """Where the step stood before this attempt."""
    alembic: Path | None
    """Alembic's configuration file."""
    stop: asyncio.Event
    """Set when the step is to end: it cancels what it runs and returns Failed(stopped=True)."""
    hand: Control
    """A person's hand on a running backfill."""
    record: Record
    """Writes what has happened."""
    write_in: Callable[[Connection, Sequence[Fact]], Awaitable[None]]
    """Writes in a transaction of the step's own, so that both commit or neither."""
    in_the_way: Callable[[], str]
    """Whom a statement of this step was last seen to wait for, in plain words; empty: nobody yet."""
    show_migration: Callable[[MigrationProgress], None]
    show_backfill: Callable[[BackfillProgress], None]
    made_by: Maker
    """The step of this window that made a column; empty: it was there at the opening."""
    left_behind: Callable[[], Awaitable[tuple[str, ...]]]
    """Names of what our journalled DDL made and no applied revision accounts for; read from the catalogue."""


class Executor(Protocol):
    """How one kind is done."""

    async def __call__(self, spec: Any, kit: Kit) -> Outcome:
        """Carries the step out to its end. Raises DbwatchError or psycopg.Error where that is cut short."""
        ...


class Recovery(Protocol):
    """What is known of a step whose driver vanished while it ran."""

    async def __call__(self, spec: Any, kit: Kit) -> Outcome:
        """How it ended, found out from the database; the old driver's backends are gone by now."""
        ...


Table = Mapping[str, Executor]
