"""Polling goes on whatever happens to the server or the network, and says what is the matter meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from proxy import FaultProxy
from servers import Database, OwnServers

from dbwatch.clock import SystemClock
from dbwatch.monitor.collectors import COLLECTORS, Collector, Reading
from dbwatch.monitor.poller import Poll, Poller, changed, poll_once
from dbwatch.monitor.rates import last_poll
from dbwatch.monitor.samples import Snapshot, Status
from dbwatch.monitor.source import Source
from dbwatch.postgres.session import Connector, Role

DEADLINE_S = 3.0
"""A silent server must be told within this, plus what it takes to publish."""

BACK_S = 3.0
"""After the server is back, polling must be live again within this."""


class Watching:
    """A running poller and all that it has published."""

    def __init__(self, connector: Connector, **options: object) -> None:
        self.seen: list[Snapshot] = []
        self._new = asyncio.Event()
        self.poller = Poller(connector, SystemClock(), self._take, **options)  # type: ignore[arg-type]  # per test
        self.task = asyncio.create_task(self.poller.run())

    def _take(self, snapshot: Snapshot) -> None:
        self.seen.append(snapshot)
        self._new.set()

    async def until(self, holds: Callable[[Snapshot], bool], within: float = 10.0) -> Snapshot:
        """The next snapshot from now on that *holds*."""
        start = len(self.seen)
        async with asyncio.timeout(within):
            while True:
                for snapshot in self.seen[start:]:
                    if holds(snapshot):
                        return snapshot
                start = len(self.seen)
                self._new.clear()
                waiter = asyncio.ensure_future(self._new.wait())
                await asyncio.wait({waiter, self.task}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
                assert not self.task.done(), "the poller ended"

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=5)
        assert self.task.cancelled()


Watch = Callable[..., Watching]


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    running: list[Watching] = []

    def start(connector: Connector, **options: object) -> Watching:
        running.append(Watching(connector, **options))
        return running[-1]

    yield start
    for watching in running:
        await watching.stop()


def live(snapshot: Snapshot) -> bool:
    return snapshot.connected


def lost(snapshot: Snapshot) -> bool:
    return not snapshot.connected


async def monitor_pid(database: Database) -> int:
    [(pid,)] = await database.sql(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'dbwatch monitor' AND datname = current_database()"
    )
    assert isinstance(pid, int)
    return pid


async def test_each_poll_is_one_new_snapshot(db: Database, watch: Watch) -> None:
    watching = watch(db.connector, interval=0.2)
    await watching.until(live)
    for _ in range(4):
        await watching.until(live, within=2)
    polls = [s for s in watching.seen if s.connected]
    assert [s.number for s in watching.seen] == list(range(1, len(watching.seen) + 1))
    assert all(b.taken - a.taken > 0.15 for a, b in pairwise(polls))
    assert all(b.activity.taken > a.activity.taken for a, b in pairwise(polls))
    assert polls[1].tables is polls[0].tables, "heavier views are not asked in every poll"


async def test_the_first_snapshot_says_that_it_connects(db: Database, watch: Watch) -> None:
    watching = watch(db.connector)
    first = await watching.until(lambda _: True)
    assert (first.connected, first.trouble) == (False, "connecting, try 1")
    assert first.activity.status is Status.WAITING
    assert (await watching.until(live)).trouble == ""


async def test_a_stopped_backend_is_told_within_its_deadline_and_left_behind(
    own_server: OwnServers, watch: Watch
) -> None:
    database = await own_server.database(await own_server(18))
    watching = watch(database.connector, interval=0.2)
    await watching.until(lambda s: bool(s.vitals.rows))
    pid = await monitor_pid(database)
    os.kill(pid, signal.SIGSTOP)
    try:
        stopped = time.monotonic()
        silent = await watching.until(lost)
        assert time.monotonic() - stopped < DEADLINE_S + 0.5
        assert silent.trouble.startswith("reconnecting, try 1: no answer on the monitor connection within 3 s")
        assert silent.vitals.rows, "the last good rows stay"
        assert silent.vitals.taken < silent.taken - 2.5, "and their age tells that they are old"

        again = await watching.until(live)
        assert time.monotonic() - stopped < DEADLINE_S + 1.0
        assert pid in again.own_pids, "the stopped one is still there, and is still ours"
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_dark_network_is_told_every_second_and_recovered_from(
    db18: Database, proxy_to: FaultProxy.Factory, watch: Watch
) -> None:
    proxy = await proxy_to(db18.dsn)
    watching = watch(Connector(proxy.dsn), interval=0.2)
    await watching.until(live)
    proxy.stall()
    await watching.until(lambda s: "try 2" in s.trouble, within=15)
    dark = [s for s in watching.seen if not s.connected and s.vitals.rows]
    assert len(dark) >= 4
    assert all(b.taken - a.taken < 1.5 for a, b in pairwise(dark))
    assert all(s.activity.taken == dark[0].activity.taken for s in dark)

    proxy.resume()
    resumed = time.monotonic()
    again = await watching.until(live)
    assert time.monotonic() - resumed < BACK_S
    assert (again.trouble, again.notice) == ("", "")


async def test_a_cut_connection_is_opened_again(db18: Database, proxy_to: FaultProxy.Factory, watch: Watch) -> None:
    proxy = await proxy_to(db18.dsn)
    watching = watch(Connector(proxy.dsn), interval=0.2)
    await watching.until(live)
    proxy.cut()
    assert "reconnecting, try 1: the monitor connection was lost" in (await watching.until(lost)).trouble
    await watching.until(live, within=BACK_S)


async def test_a_terminated_monitor_session_comes_back(db: Database, watch: Watch) -> None:
    watching = watch(db.connector, interval=0.2)
    await watching.until(live)
    pid = await monitor_pid(db)
    await db.sql(f"SELECT pg_terminate_backend({pid})")
    assert "terminating connection" in (await watching.until(lost)).trouble
    await watching.until(live, within=BACK_S)
    assert await monitor_pid(db) != pid


@pytest.mark.parametrize("major", [15, 18])
async def test_after_a_crash_and_a_restart_it_is_live_within_three_seconds(
    own_server: OwnServers, watch: Watch, major: int
) -> None:
    server = await own_server(major)
    database = await own_server.database(server)
    watching = watch(database.connector, interval=0.2)
    await watching.until(live)
    await server.kill9()
    down = await watching.until(lambda s: lost(s) and "try 2" in s.trouble, within=9)
    assert down.vitals.rows

    await server.start()
    started = time.monotonic()
    up = await watching.until(live)
    assert time.monotonic() - started < BACK_S
    assert up.notice.startswith("the server restarted at ")
    assert up.facts is not None
    assert down.facts is not None
    assert up.facts.started_at > down.facts.started_at


async def test_a_server_that_is_not_there_yet_is_waited_for(own_server: OwnServers, watch: Watch) -> None:
    server = await own_server(18)
    await server.stop()
    watching = watch(Connector(server.dsn), interval=0.2)
    waiting = await watching.until(lambda s: "try 3" in s.trouble)
    assert waiting.trouble.startswith("connecting, try 3: cannot connect to ")
    await server.start()
    assert (await watching.until(live, within=BACK_S)).notice == ""


class Moving(Connector):
    """Leads to one server, later to another, as a name does whose address changes."""

    def __init__(self, first: str) -> None:
        super().__init__(first)
        self.to = first

    def dsn(self, role: Role = Role.WORKER) -> str:
        return self.to


async def test_another_server_is_named_and_its_rows_are_not_mixed_with_the_first_ones(
    own_server: OwnServers, watch: Watch
) -> None:
    one, other = await own_server(18), await own_server(18, fresh=True)
    first = await own_server.database(one)
    await first.sql("CREATE TABLE only_here (i int)")
    connector = Moving(first.dsn)
    watching = watch(connector, interval=0.2)
    assert (await watching.until(live)).tables.rows
    connector.to = other.dsn
    await one.kill9()
    moved = await watching.until(live)

    assert moved.notice.startswith("this is another server or database than before: postgres@")
    assert moved.tables.rows == ()


async def test_a_promotion_is_noticed_while_connected(own_server: OwnServers, watch: Watch) -> None:
    standby = await own_server.standby(await own_server(15))
    watching = watch(Connector(standby.dsn), interval=0.2)
    assert (await watching.until(live)).notice == ""
    connection = await Source.open(Connector(standby.dsn))
    await connection.session.values("SELECT pg_promote(false)")
    await connection.close()
    noticed = await watching.until(lambda s: bool(s.notice), within=15)
    assert "was promoted: it is a primary now" in noticed.notice
    assert noticed.connected


async def test_nothing_of_an_unchanged_server_is_news(db: Database) -> None:
    facts = (await poll_once(db.connector)).facts
    assert facts is not None
    assert changed(None, facts) == ""
    assert changed(facts, facts) == ""


async def test_a_fault_in_one_view_is_shown_and_the_others_go_on(db: Database, watch: Watch) -> None:
    async def broken(source: Source, so_far: Snapshot) -> Reading:
        raise ZeroDivisionError("by accident")

    async def sound(source: Source, so_far: Snapshot) -> Reading:
        return Reading(())

    watching = watch(db.connector, collectors=(Collector("locks", broken), Collector("progress", sound)))
    snapshot = await watching.until(live)
    assert snapshot.locks.status is Status.ERROR
    assert snapshot.locks.reason == "a fault in dbwatch: ZeroDivisionError: by accident"
    assert snapshot.progress.status is Status.OK


async def test_a_fault_outside_the_views_is_shown_and_polling_goes_on(db: Database, watch: Watch) -> None:
    faults = iter([RuntimeError("no pids today")])

    def own() -> frozenset[int]:
        for fault in faults:
            raise fault
        return frozenset({4711})

    watching = watch(db.connector, own=own)
    shown = await watching.until(lambda s: "no pids today" in s.trouble)
    assert shown.trouble == "reconnecting, try 1: RuntimeError: no pids today"
    assert 4711 in (await watching.until(live)).own_pids


async def test_cancelling_ends_it_at_once_and_leaves_no_session(db: Database) -> None:
    watching = Watching(db.connector)
    await watching.until(live)
    await monitor_pid(db)
    started = time.monotonic()
    await watching.stop()
    assert time.monotonic() - started < 0.5
    async with asyncio.timeout(5):
        while await db.sql(
            "SELECT 1 FROM pg_stat_activity WHERE application_name ~ 'monitor' AND datname = current_database()"
        ):
            pass


async def test_cancelling_ends_it_at_once_on_a_dark_network(db18: Database, proxy_to: FaultProxy.Factory) -> None:
    proxy = await proxy_to(db18.dsn)
    watching = Watching(Connector(proxy.dsn), interval=0.2)
    await watching.until(live)
    proxy.stall()
    await watching.until(lambda s: "try 1" in s.trouble)
    started = time.monotonic()
    await watching.stop()
    assert time.monotonic() - started < 1.5


async def test_a_nudge_or_a_shorter_interval_does_not_wait_for_the_long_one(db: Database, watch: Watch) -> None:
    watching = watch(db.connector, interval=60.0)
    await watching.until(live)
    watching.poller.nudge()
    await watching.until(live, within=2)
    watching.poller.set_interval(0.001)
    assert watching.poller.interval == 0.2
    await watching.until(live, within=2)
    await watching.until(live, within=2)


class HandClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime:
        return datetime.fromisoformat("2026-01-01T00:00:00+00:00") + timedelta(seconds=self.time)

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def test_a_view_that_took_long_is_left_alone_five_times_as_long(db: Database) -> None:
    clock = HandClock()
    asked: list[float] = []

    async def slow(source: Source, so_far: Snapshot) -> Reading:
        asked.append(clock.time)
        await clock.sleep(2.0)
        return Reading(())

    source = await Source.open(db.connector)
    poll = Poll(clock, (Collector("indexes", slow),))
    snapshot = Snapshot()
    for _ in range(25):
        snapshot = await poll.take(source, snapshot, 1.0)
        clock.time += 1.0
    await source.close()
    assert [at - asked[0] for at in asked[:3]] == [0.0, 10.0, 20.0]


def sized(source: Source, clock: HandClock, monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> dict[str, list[float]]:
    """Lets the size of the database take two seconds; when it was asked for, and when the vitals had come."""
    ask = source.rows
    times: dict[str, list[float]] = {"database-size": [], "vitals": []}

    async def rows(name: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        if name == "database-size":
            times[name].append(clock.time)
            await clock.sleep(2.0)
            if fails:
                raise psycopg.errors.QueryCanceled("canceling statement due to statement timeout")
        found = await ask(name, params)
        if name == "vitals":
            times[name].append(clock.time)
        return found

    monkeypatch.setattr(source, "rows", rows)
    return times


SIZE_AND_VITALS = tuple(one for one in COLLECTORS if one.name in ("size", "vitals"))


async def test_a_slow_look_at_the_size_takes_neither_the_vitals_time_nor_their_turn(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    source = await Source.open(db.connector)
    times = sized(source, clock, monkeypatch, fails=False)
    poll, snapshot = Poll(clock, SIZE_AND_VITALS), Snapshot()
    for _ in range(70):
        snapshot = await poll.take(source, snapshot, 1.0)
        assert snapshot.vitals.taken == times["vitals"][-1]
        assert snapshot.vitals.rows[0].database_bytes is not None
        clock.time += 1.0
    await source.close()
    assert len(times["vitals"]) == 70
    assert [at - times["database-size"][0] for at in times["database-size"]] == [0.0, 60.0]


async def test_a_size_that_takes_too_long_is_not_known_and_not_asked_for_ten_minutes(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    source = await Source.open(db.connector)
    times = sized(source, clock, monkeypatch, fails=True)
    poll, snapshot = Poll(clock, SIZE_AND_VITALS), Snapshot()
    for _ in range(14):
        snapshot = await poll.take(source, snapshot, 1.0)
        assert (snapshot.vitals.status, snapshot.vitals.rows[0].database_bytes) == (Status.OK, None)
        clock.time += 50.0
    await source.close()
    assert [at - times["database-size"][0] for at in times["database-size"]] == [0.0, 602.0]


async def test_a_pid_is_ours_where_the_provider_says_so(db: Database, watch: Watch) -> None:
    child = await db.foreign("alembic")
    watching = watch(db.connector, own=lambda: frozenset({child.info.backend_pid}))
    assert child.info.backend_pid in (await watching.until(live)).own_pids


async def test_the_change_of_the_last_poll_is_between_the_two_last_readings(db: Database, watch: Watch) -> None:
    await db.sql("CREATE EXTENSION pg_stat_statements", "SELECT 42 AS answer")
    source = await Source.open(db.connector)
    poll = Poll(SystemClock())
    first = await poll.take(source, Snapshot(), 1.0)
    assert last_poll(first) == ()
    await db.sql("SELECT 43 AS answer", "SELECT 44 AS answer")
    poll.start_over()
    second = await poll.take(source, first, 1.0)
    await source.close()

    [change] = [c for c in last_poll(second) if "AS answer" in c.statement.query]
    assert (change.calls, change.exact) == (2, True)
    assert change.statement.calls == 3
