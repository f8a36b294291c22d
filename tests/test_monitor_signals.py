"""Cancelling and terminating: the session that was shown or none, and a refusal that names the GRANT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from servers import Database

from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.postgres.signals import Outcome, Signalled, signal

Connection = psycopg.AsyncConnection[Any]
Control = Callable[..., Awaitable[Session]]


@pytest.fixture
async def roles(db: Database) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Makes roles that may log in and belong to others; they go after the test."""
    made: list[str] = []

    async def make(*member_of: str) -> str:
        name = f"r{uuid4().hex[:10]}"
        await db.sql(f"CREATE ROLE {name} LOGIN", *(f"GRANT {role} TO {name}" for role in member_of))
        made.append(name)
        return name

    yield make
    await db.close()
    for name in made:
        await db.sql(f"DROP ROLE {name}")


@pytest.fixture
async def control(db: Database) -> AsyncIterator[Control]:
    """Opens control sessions of a role."""
    opened: list[Session] = []

    async def open_as(user: str = "postgres") -> Session:
        opened.append(await Connector(db.dsn_as(user)).open(Role.CONTROL))
        return opened[-1]

    yield open_as
    for session in opened:
        await session.close()


async def identity(db: Database, connection: Connection) -> tuple[int, datetime, datetime]:
    """pid, backend_start and query_start, as a superuser sees them."""
    pid = connection.info.backend_pid
    rows = await db.sql("SELECT pid, backend_start, query_start FROM pg_stat_activity")
    [(_, backend_start, query_start)] = [row for row in rows if row[0] == pid]
    return pid, backend_start, query_start


async def sleeping(db: Database, connection: Connection) -> asyncio.Task[Any]:
    """*connection* running a long statement, which the server has begun."""
    task = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    pid = connection.info.backend_pid
    async with asyncio.timeout(10):
        while (pid, "PgSleep") not in await db.sql("SELECT pid, wait_event FROM pg_stat_activity"):
            pass
    return task


async def test_a_query_is_cancelled_and_its_session_lives(any_db: Database) -> None:
    victim = await any_db.foreign("app")
    task = await sleeping(any_db, victim)
    pid, backend_start, query_start = await identity(any_db, victim)
    session = await any_db.connector.open(Role.CONTROL)
    said = await signal(session, pid, backend_start, terminate=False, query_start=query_start)
    await session.close()

    assert said == Signalled(Outcome.SENT, f"session {pid} was told to stop its query")
    assert said
    with pytest.raises(psycopg.errors.QueryCanceled):
        await task
    await victim.execute("SELECT 1")


async def test_a_session_is_terminated(db: Database, control: Control) -> None:
    victim = await db.foreign("app")
    pid, backend_start, _ = await identity(db, victim)
    said = await signal(await control(), pid, backend_start, terminate=True)
    assert said == Signalled(Outcome.SENT, f"session {pid} was told to end")
    with pytest.raises(psycopg.OperationalError):
        await victim.execute("SELECT pg_sleep(5)")


async def test_another_session_with_the_same_pid_is_left_alone(db: Database, control: Control) -> None:
    victim = await db.foreign("app")
    pid, backend_start, _ = await identity(db, victim)
    said = await signal(await control(), pid, backend_start - timedelta(microseconds=1), terminate=True)
    assert (said.outcome, said.reason) == (Outcome.GONE, f"session {pid} has ended; another one has its pid now")
    assert not said
    await victim.execute("SELECT 1")


async def test_another_query_of_the_session_is_left_alone(db: Database, control: Control) -> None:
    victim = await db.foreign("app")
    await victim.execute("SELECT 1")
    pid, backend_start, query_start = await identity(db, victim)
    task = await sleeping(db, victim)
    session = await control()
    said = await signal(session, pid, backend_start, terminate=False, query_start=query_start)
    assert (said.outcome, said.reason) == (Outcome.GONE, f"session {pid} does not run that query any more")
    assert not task.done()
    await signal(session, pid, backend_start, terminate=True)
    with pytest.raises(psycopg.OperationalError):
        await task


async def test_a_session_that_has_ended_is_gone(db: Database, control: Control) -> None:
    victim = await db.foreign("app")
    pid, backend_start, _ = await identity(db, victim)
    await victim.close()
    session = await control()
    async with asyncio.timeout(10):
        while (pid,) in await db.sql("SELECT pid FROM pg_stat_activity"):
            pass
    said = await signal(session, pid, backend_start, terminate=True)
    assert said == Signalled(Outcome.GONE, f"session {pid} has ended")


async def test_with_pg_monitor_only_the_other_grant_is_named(db: Database, roles: Any, control: Control) -> None:
    us, app = await roles("pg_monitor"), await roles()
    victim = await db.foreign("app", user=app)
    pid, backend_start, _ = await identity(db, victim)
    for terminate in (False, True):
        said = await signal(await control(us), pid, backend_start, terminate=terminate)
        assert said.outcome is Outcome.REFUSED
        assert said.reason == f"{us} may not signal other roles' sessions; GRANT pg_signal_backend TO {us}"
    await victim.execute("SELECT 1")


async def test_with_pg_signal_backend_only_nobody_can_be_identified(db: Database, roles: Any, control: Control) -> None:
    us, app = await roles("pg_signal_backend"), await roles()
    victim = await db.foreign("app", user=app)
    pid, backend_start, _ = await identity(db, victim)
    for start in (backend_start, None):
        said = await signal(await control(us), pid, start, terminate=True)
        assert said.outcome is Outcome.REFUSED
        assert said.reason.endswith(f"GRANT pg_monitor TO {us}")
    await victim.execute("SELECT 1")


async def test_with_both_an_application_can_be_ended(db: Database, roles: Any, control: Control) -> None:
    us, app = await roles("pg_monitor", "pg_signal_backend"), await roles()
    victim = await db.foreign("app", user=app)
    task = await sleeping(db, victim)
    pid, backend_start, query_start = await identity(db, victim)
    session = await control(us)
    assert await signal(session, pid, backend_start, terminate=False, query_start=query_start)
    with pytest.raises(psycopg.errors.QueryCanceled):
        await task
    assert await signal(session, pid, backend_start, terminate=True)


async def test_a_superusers_session_is_refused_politely(db: Database, roles: Any, control: Control) -> None:
    us = await roles("pg_monitor", "pg_signal_backend")
    victim = await db.foreign("psql", user="postgres")
    pid, backend_start, _ = await identity(db, victim)
    session = await control(us)
    for terminate in (False, True):
        said = await signal(session, pid, backend_start, terminate=terminate)
        assert said.outcome is Outcome.REFUSED
        assert said.reason == f"session {pid} belongs to the superuser postgres: only a superuser may end it"
    await victim.execute("SELECT 1")


async def test_ones_own_roles_sessions_need_no_grant(db: Database, roles: Any, control: Control) -> None:
    us = await roles()
    victim = await db.foreign("app", user=us)
    pid, backend_start, _ = await identity(db, victim)
    assert await signal(await control(us), pid, backend_start, terminate=True)
