"""The parent's side of a migration: starts the child, tells what it does, stops it, and never loses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dbwatch.clock import Clock
from dbwatch.migration.chain import Chain
from dbwatch.migration.events import Direction, Event, Outcome
from dbwatch.migration.request import Job, Project, RevisionSql, Target
from dbwatch.postgres.session import Connector

OnEvent = Callable[[Event], None]


async def inspect(
    project: Project,
    connector: Connector,
    *,
    to: Target = "heads",
    direction: Direction = Direction.UP,
    within: float = 60.0,
) -> Chain:
    """The project's revisions, the database's heads, and the steps to *to*. Leaves nothing behind.

    Raises MigrationError (a DbwatchError) with one sentence where the project does not load.
    """
    raise NotImplementedError


async def preview(
    project: Project,
    connector: Connector,
    *,
    start: frozenset[str],
    to: Target,
    direction: Direction,
    within: float = 60.0,
) -> tuple[RevisionSql, ...]:
    """The SQL of each revision between the heads *start* and *to*, rendered without touching the database.

    Raises MigrationError where the project does not load or the target cannot be reached.
    """
    raise NotImplementedError


async def run(job: Job, connector: Connector, *, clock: Clock, on_event: OnEvent, stop: asyncio.Event) -> Outcome:
    """Runs *job* to its end, with retries where a lock was in the way and nothing was left behind.

    Setting *stop* cancels it (see `stopping.py`); so does cancelling the task. Never raises for what the child,
    env.py or the server do: that is the outcome's `failure`. Raises DbwatchError where it cannot even begin:
    no connection, or no fingerprint because a relation is locked.
    """
    raise NotImplementedError
