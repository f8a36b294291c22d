"""Rates and changes that are never negative and never invented; baselines that survive the journal; history."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from servers import Database

from dbwatch.clock import SystemClock
from dbwatch.monitor.baseline import Baseline, Figures, statement_figures
from dbwatch.monitor.history import History
from dbwatch.monitor.poller import Poll, poll_once
from dbwatch.monitor.rates import Rates, index_changes, rates, statement_changes
from dbwatch.monitor.samples import IndexUse, Replication, Snapshot, Statement, Status, View, Vitals
from dbwatch.monitor.source import Source
from dbwatch.postgres.facts import ServerFacts

T0 = datetime(2026, 1, 1, 21, tzinfo=UTC)

FACTS = ServerFacts(
    version=180004,
    database="shop",
    database_oid=16384,
    user="app",
    host="prod-db1",
    started_at=T0 - timedelta(days=3),
    system_identifier="7123",
    at=T0,
    in_recovery=False,
    read_only=False,
    superuser=False,
    sees_all=True,
    may_signal=True,
    may_create=True,
    max_connections=100,
    reserved_connections=3,
    statements_schema="public",
    pooled=False,
)

COUNTERS = Vitals(
    connections=10,
    connections_usable=97,
    active=2,
    waiting=1,
    xact_commit=1_000,
    xact_rollback=10,
    wal_bytes=5_000,
    deadlocks=1,
    temp_bytes=0,
    oldest_xmin_s=None,
    oldest_xact_s=4.0,
    database_bytes=None,
)


def poll(second: float, facts: ServerFacts = FACTS, **counters: Any) -> Snapshot:
    at = T0 + timedelta(seconds=second)
    view = View(Status.OK, "", at, second, (replace(COUNTERS, **counters),))
    return Snapshot(taken=second, at=at, connected=True, facts=facts, vitals=view)


def statement(queryid: int, calls: int, total: float, **more: Any) -> Statement:
    return Statement(10, 16384, queryid, True, f"query {queryid}", calls, total, calls, 0, 0, **more)


def figures(*statements: Statement) -> Mapping[tuple[int, int, int, bool], Figures]:
    return statement_figures(statements)


def index(oid: int, scans: int, size: int = 8192) -> IndexUse:
    return IndexUse(oid, "public", "users", f"i{oid}", scans, None, size, True, True, False, False)


def test_rates_are_changes_per_second() -> None:
    after = poll(4, xact_commit=1_400, xact_rollback=14, wal_bytes=9_000, deadlocks=2, temp_bytes=800)
    assert rates(poll(0), after) == Rates(
        tps=101.0, rollbacks_s=1.0, wal_bytes_s=1_000.0, temp_bytes_s=200.0, deadlocks=1
    )


def test_pollings_own_transactions_are_not_the_applications() -> None:
    after = poll(2, xact_commit=1_030, own_xacts=20)
    assert rates(poll(0), after).tps == 5.0
    assert rates(poll(0), poll(2, xact_commit=1_005, own_xacts=20)).tps == 0.0, "reported late, not negative"


def test_a_reset_counter_gives_no_rate_and_never_a_negative_one() -> None:
    seen = rates(poll(0), poll(1, xact_commit=3, xact_rollback=0, temp_bytes=100))
    assert (seen.tps, seen.rollbacks_s, seen.temp_bytes_s) == (None, None, 100.0)


@pytest.mark.parametrize(
    "facts",
    [replace(FACTS, started_at=T0), replace(FACTS, system_identifier="1"), replace(FACTS, database_oid=1)],
    ids=["restarted", "another server", "another database"],
)
def test_across_a_restart_or_another_server_nothing_can_be_told(facts: ServerFacts) -> None:
    assert rates(poll(0), poll(1, facts, xact_commit=2_000)) == Rates()


def test_the_same_reading_twice_gives_no_rate() -> None:
    assert rates(poll(1), poll(1)) == Rates()
    assert rates(Snapshot(), poll(1)) == Rates()


def test_a_standby_without_a_position_has_no_wal_rate() -> None:
    assert rates(poll(0, wal_bytes=None), poll(1)).wal_bytes_s is None


def test_what_became_slower_stands_first_by_the_time_it_cost() -> None:
    before = figures(statement(1, 100, 1_000), statement(2, 100, 100), statement(3, 100, 100))
    after = [
        statement(1, 1_100, 11_000),  # 10 ms as before, and most of all the time
        statement(2, 110, 400),  # 1 ms -> 30 ms: cost 290 ms more
        statement(3, 1_100, 3_100),  # 1 ms -> 3 ms: cost 2,000 ms more
    ]
    changes = statement_changes(before, after)
    assert [change.statement.queryid for change in changes] == [3, 2, 1]
    assert [round(change.lost_ms) for change in changes] == [2_000, 290, 0]
    assert [change.slower for change in changes] == [3.0, 30.0, 1.0]


def test_a_tenth_slower_is_noise() -> None:
    [change] = statement_changes(figures(statement(1, 100, 1_000)), [statement(1, 200, 2_100)])
    assert (change.slower, change.lost_ms) == (1.1, 0.0)


def test_statements_that_did_not_run_are_left_out() -> None:
    assert statement_changes(figures(statement(1, 5, 9.0)), [statement(1, 5, 9.0)]) == ()


def test_a_new_statement_is_exact_only_if_all_the_earlier_ones_are_known() -> None:
    [change] = statement_changes({}, [statement(1, 5, 10.0)], complete=True)
    assert (change.calls, change.mean_ms, change.mean_before_ms, change.exact) == (5, 2.0, None, True)
    [change] = statement_changes({}, [statement(1, 5, 10.0)], complete=False)
    assert not change.exact
    born = statement(1, 5, 10.0, stats_since=T0 + timedelta(seconds=1))
    [change] = statement_changes({}, [born], complete=False, since=T0)
    assert change.exact, "from 17 on the server says since when it counts"


def test_a_reset_or_evicted_statement_counts_anew_and_says_so() -> None:
    [change] = statement_changes(figures(statement(1, 100, 1_000)), [statement(1, 3, 60)])
    assert (change.calls, change.total_ms, change.mean_ms, change.mean_before_ms) == (3, 60, 20.0, 10.0)
    assert not change.exact
    assert change.slower == 2.0


def test_a_statement_counted_anew_is_found_even_if_it_has_overtaken() -> None:
    before = figures(statement(1, 100, 1_000, stats_since=T0))
    again = statement(1, 150, 1_500, stats_since=T0 + timedelta(hours=1))
    [change] = statement_changes(before, [again])
    assert (change.calls, change.exact) == (150, False)


def test_index_scans_since_a_baseline_least_used_first() -> None:
    changes = index_changes(
        {1: 10, 2: 50, 3: 7}, [index(1, 30), index(2, 20), index(3, 7), index(4, 2), index(5, 0, 1)]
    )
    assert [(c.index.indexrelid, c.scans, c.exact, c.new) for c in changes] == [
        (3, 0, True, False),
        (5, 0, True, True),
        (4, 2, True, True),
        (1, 20, True, False),
        (2, 20, False, False),
    ]


def test_an_index_is_new_only_if_all_the_earlier_ones_are_known() -> None:
    [missed, known] = index_changes({1: 10}, [index(1, 30), index(2, 20)], complete=False)[::-1]
    assert (known.index.indexrelid, known.scans, known.exact, known.new) == (1, 20, True, False)
    assert (missed.index.indexrelid, missed.scans, missed.exact, missed.new) == (2, None, False, False)


@pytest.mark.parametrize(("now", "least"), [(30, 20), (4, 4)])
def test_index_scans_over_a_reset_are_at_least_what_they_say(now: int, least: int) -> None:
    reset = replace(index(1, now), stats_reset=T0 + timedelta(seconds=1))
    [change] = index_changes({1: 10}, [reset], since=T0)
    assert (change.scans, change.exact) == (least, False)
    [change] = index_changes({1: 10}, [replace(index(1, 30), stats_reset=T0)], since=T0)
    assert (change.scans, change.exact) == (20, True)


@pytest.mark.parametrize(
    ("status", "reason", "complete"),
    [
        (Status.OK, "", True),
        (Status.OK, "1,000 of 1,312 indexes shown", False),
        (Status.LOCKED, "a lock is in the way", False),
        (Status.ERROR, "too slow", False),
    ],
)
def test_a_baseline_knows_whether_it_has_all_indexes(status: Status, reason: str, complete: bool) -> None:
    view = View(status, reason, T0, 0.0, (index(1, 30),))
    baseline = Baseline.of(replace(poll(0), indexes=view))
    assert baseline.indexes_complete is complete
    assert Baseline.from_json(baseline.to_json()) == baseline


@pytest.mark.parametrize(("number", "complete"), [(0, False), (1, True), (999, True), (1_000, False)])
def test_a_baseline_of_an_earlier_dbwatch_has_all_indexes_if_that_can_be_told(number: int, complete: bool) -> None:
    view = View(Status.OK, "", T0, 0.0, tuple(index(n, 0) for n in range(number)))
    body = json.loads(Baseline.of(replace(poll(0), indexes=view)).to_json())
    del body["indexes_complete"]
    assert Baseline.from_json(json.dumps(body)).indexes_complete is complete


async def test_a_baseline_survives_the_journal(db: Database) -> None:
    await db.sql(
        "CREATE EXTENSION pg_stat_statements", "CREATE TABLE users (id int PRIMARY KEY)", "SELECT 42 AS answer"
    )
    baseline = Baseline.of(await poll_once(db.connector))
    text = baseline.to_json()
    assert Baseline.from_json(text) == baseline
    assert Baseline.from_json(text).to_json() == text
    assert baseline.statements
    assert len(baseline.indexes) == len(baseline.tables) == 1
    assert baseline.statements_complete


async def test_a_baseline_belongs_to_its_database(db18: Database, db15: Database) -> None:
    here, elsewhere = await poll_once(db18.connector), await poll_once(db15.connector)
    assert here.facts is not None
    assert elsewhere.facts is not None
    assert Baseline.of(here).fits(here.facts)
    assert not Baseline.of(here).fits(elsewhere.facts)


def test_a_text_that_is_no_baseline_is_refused() -> None:
    for text in ("", "{}", "[]", '{"format": 2}', '{"format":1,"at":"2026-01-01"}', "null"):
        with pytest.raises(ValueError, match=r"baseline|Expecting"):
            Baseline.from_json(text)


def test_without_a_server_there_is_no_baseline() -> None:
    with pytest.raises(ValueError, match="not seen a server"):
        Baseline.of(Snapshot())


async def test_changes_since_a_baseline_on_a_real_server(db: Database) -> None:
    await db.sql(
        "CREATE EXTENSION pg_stat_statements",
        "CREATE TABLE users (id int PRIMARY KEY)",
        "INSERT INTO users SELECT generate_series(1, 1000)",
        "ANALYZE users",
        "SELECT pg_sleep(0.001)",
    )
    source = await Source.open(db.connector)
    taking = Poll(SystemClock())
    first = await taking.take(source, Snapshot(), 1.0)
    baseline = Baseline.of(first)
    await db.sql("SELECT pg_sleep(0.1)", "SET enable_seqscan = off", *["SELECT * FROM users WHERE id = 7"] * 3)
    await db.sql("SELECT pg_stat_force_next_flush()" if db.major >= 15 else "SELECT 1")
    taking.start_over()
    now = await taking.take(source, first, 1.0)
    await source.close()

    theirs = [
        change
        for change in statement_changes(baseline.statements, now.statements.rows, complete=baseline.statements_complete)
        if not change.statement.ours
    ]
    assert "pg_sleep" in theirs[0].statement.query, "ten times as slow as before"
    assert theirs[0].calls == 1
    assert theirs[0].slower is not None
    assert theirs[0].slower > 5
    assert index_changes(baseline.indexes, now.indexes.rows)[0].scans == 3

    await db.sql("SELECT pg_stat_statements_reset()", "SELECT pg_sleep(0.001)")
    after_reset = (await poll_once(db.connector)).statements.rows
    changes = statement_changes(baseline.statements, after_reset)
    assert all(c.calls >= 0 and c.total_ms >= 0 and c.rows >= 0 and c.wal_bytes >= 0 for c in changes)


def test_history_keeps_the_last_points_and_no_more() -> None:
    history = History(points=3)
    for second in range(5):
        history.add(poll(second, xact_commit=1_000 + 50 * second, waiting=second))
    assert [value for _, value in history.series("waiting")] == [2.0, 3.0, 4.0]
    assert [value for _, value in history.series("tps")] == [50.0, 50.0, 50.0]
    assert [value for _, value in history.series("waiting", last=2)] == [3.0, 4.0]
    assert history.series("waiting")[0][0] == T0 + timedelta(seconds=2)
    assert history.latest("waiting") == 4.0


def test_history_has_a_gap_where_there_was_no_connection() -> None:
    history = History()
    first = poll(0)
    history.add(first)
    history.add(replace(first, connected=False, taken=1.0))
    history.add(replace(first, taken=2.0))
    assert len(history.series("waiting")) == 1
    history.add(poll(5))
    assert [at for at, _ in history.series("waiting")] == [T0, T0 + timedelta(seconds=5)]


def test_history_takes_the_standby_furthest_behind_and_what_others_put() -> None:
    history = History()
    standbys = tuple(Replication(n, "standby", "", "streaming", "async", lag, 0) for n, lag in ((1, 0.5), (2, 3.0)))
    history.add(replace(poll(0), replication=View(Status.OK, rows=standbys)))
    history.put("backfill", T0, 812)
    history.put("backfill", T0, None)
    assert history.latest("lag") == 3.0
    assert history.series("backfill") == ((T0, 812.0),)
    assert history.series("nothing") == ()
