"""Nothing is committed that the journal does not know of yet, wherever we are killed. Real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from alembic_projects import INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY, USERS, AlembicProject, Told, job, table
from servers import Database, eventually

from dbwatch.clock import SystemClock
from dbwatch.errors import Fenced
from dbwatch.migration.events import Cause, Event, Outcome, StatementDone, StatementStarted
from dbwatch.migration.request import Job
from dbwatch.migration.runner import Patience, run


@pytest.fixture(params=["sync", "async"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> AlembicProject:
    return AlembicProject(tmp_path / "shop", asynchronous=request.param == "async")


class Journal:
    """Keeps what it is given, and may be held at an event: until it is let go, nothing from there on is kept."""

    def __init__(self, holds_at: Callable[[Event], bool] = lambda _: False, fails: Exception | None = None) -> None:
        self.kept: list[Event] = []
        self.held, self.go_on = asyncio.Event(), asyncio.Event()
        self._holds_at, self._fails = holds_at, fails

    async def __call__(self, events: Sequence[Event]) -> None:
        if any(self._holds_at(event) for event in events):
            self.held.set()
            if self._fails is not None:
                raise self._fails
            await self.go_on.wait()
        self.kept += events


async def go(
    db: Database, job: Job, journal: Journal, stop: asyncio.Event | None = None, told: Told | None = None, **given: Any
) -> Outcome:
    return await run(
        job,
        db.connector,
        clock=SystemClock(),
        on_event=told or Told(),
        stop=stop or asyncio.Event(),
        journal=journal,
        **given,
    )


def concurrently(event: Event) -> bool:
    return isinstance(event, StatementStarted) and "CREATE INDEX CONCURRENTLY" in event.sql


async def there(db: Database, name: str) -> bool:
    return bool(await db.sql(f"SELECT 1 FROM pg_class WHERE relname = '{name}'"))  # noqa: S608  # a test's own word


async def never(holds: Callable[[], Any], within: float = 0.5) -> None:
    """Nothing tells that something does not happen: looks for as long as it would have taken many times over."""
    with pytest.raises(AssertionError, match="did not come to hold"):
        await eventually(holds, within=within)


@pytest.fixture
async def indexed(db: Database, project: AlembicProject) -> Job:
    await db.sql(USERS)
    return job(project.revision("r1", INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY))


async def test_a_statement_that_commits_by_itself_is_sent_once_it_is_kept(db: Database, indexed: Job) -> None:
    journal = Journal(concurrently)
    running = asyncio.create_task(go(db, indexed, journal))
    await asyncio.wait_for(journal.held.wait(), 20)
    await never(lambda: there(db, "users_phone"))
    journal.go_on.set()
    assert (await running).ok
    assert await there(db, "users_phone")


async def test_a_stop_ends_the_wait_and_the_statement_is_never_sent(db: Database, indexed: Job) -> None:
    journal, stop = Journal(concurrently), asyncio.Event()
    running = asyncio.create_task(go(db, indexed, journal, stop))
    await asyncio.wait_for(journal.held.wait(), 20)
    stop.set()

    async def left() -> bool:
        return not await db.sql("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'dbwatch migrate%'")

    await eventually(left)
    journal.go_on.set()
    outcome = await running
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.STOPPED
    assert not await there(db, "users_phone")


async def test_a_journal_that_fails_stops_the_migration_and_says_why(db: Database, indexed: Job) -> None:
    with pytest.raises(Fenced, match="another drives"):
        await go(db, indexed, Journal(concurrently, Fenced("another drives")))
    assert not await there(db, "users_phone")


async def test_a_transaction_ends_once_all_that_it_did_is_kept(db: Database, project: AlembicProject) -> None:
    project.revision("r1", f"{table('one')[0]}\nop.execute('CREATE TABLE two (id int)')", None)
    journal = Journal(lambda event: isinstance(event, StatementDone) and bool(event.objects))
    running = asyncio.create_task(go(db, job(project), journal))
    await asyncio.wait_for(journal.held.wait(), 20)
    await never(lambda: there(db, "two"))
    journal.go_on.set()
    assert (await running).ok
    assert await there(db, "two")
    made = [named.oid for event in journal.kept if isinstance(event, StatementDone) for named in event.objects]
    assert len(made) >= 2
    assert all(made)


async def test_a_transaction_does_not_hold_its_locks_for_a_journal_that_does_not_answer(
    db18: Database, tmp_path: Path
) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", *table("one"))
    journal = Journal(lambda event: isinstance(event, StatementStarted) and event.revision == "r1")
    told = Told()
    running = asyncio.create_task(go(db18, job(project), journal, told=told, patience=Patience(kept_s=0.3)))
    await asyncio.wait_for(journal.held.wait(), 20)

    async def rolled_back() -> bool:
        return not await db18.sql("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'dbwatch migrate%'")

    await eventually(rolled_back)
    journal.go_on.set()
    outcome = await running
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.UNKEPT
    assert "rolled back" in outcome.failure.message
    assert outcome.residue is not None
    assert outcome.residue.empty
