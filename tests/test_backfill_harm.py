"""What our batches did to others: the sessions delayed, all their waiting, and the worst of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ledger import ONCE, QUICK, WORKER_WAITS, Ledger, wait_for
from servers import Database, eventually

from dbwatch.backfill.harm import Harm, told
from dbwatch.backfill.reading import Waiter

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def waiter(pid: int, seconds: float, *, since: float = 0.0, started: int = 0) -> Waiter:
    return Waiter(pid, "shop", seconds, T0 + timedelta(seconds=started), since)


def test_a_wait_seen_again_and_again_is_one_wait() -> None:
    harm = Harm().after([waiter(1, 0.1)]).after([waiter(1, 0.6)]).after([waiter(1, 1.1)]).after([])
    assert (harm.sessions, harm.total_s, harm.worst_s) == (1, 1.1, 1.1)


def test_a_session_that_waits_twice_is_one_session_and_two_waits() -> None:
    harm = Harm().after([waiter(1, 0.5)]).after([waiter(1, 0.2, since=7.0)]).after([])
    assert (harm.sessions, round(harm.total_s, 3), harm.worst_s) == (1, 0.7, 0.5)


def test_a_pid_that_is_used_again_is_another_session() -> None:
    harm = Harm().after([waiter(1, 0.5)]).after([waiter(1, 0.5, started=9)])
    assert harm.sessions == 2


def test_those_who_still_wait_count_already() -> None:
    harm = Harm().after([waiter(1, 0.5), waiter(2, 0.25)])
    assert (harm.sessions, harm.total_s, harm.worst_s) == (2, 0.75, 0.5)


def test_it_is_told_in_one_clause() -> None:
    assert told(3, 0.4, 0.2) == "delayed 3 sessions, 0.4 s in all, 0.2 s at worst"
    assert told(1, 0.2, 0.2) == "delayed 1 session, 0.2 s in all, 0.2 s at worst"
    assert told(0, 0.0, 0.0) == "delayed nobody that was seen"


BOTH_WAIT = """
SELECT count(*) = 2 FROM pg_stat_activity
WHERE application_name = 'shop' AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '1.5 s'
"""


async def test_whom_a_backfill_delayed_and_for_how_long_is_told_to_its_end(db: Database) -> None:
    ledger = await Ledger.make(db)
    holder = await db.foreign("report", autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 200 FOR UPDATE")
    spec = replace(ONCE, lock_timeout_ms=30_000)
    backfill, scene = await ledger.backfill(spec, thresholds=replace(QUICK, blocked_s=60))
    running = asyncio.create_task(backfill.run())
    await wait_for(db, WORKER_WAITS)
    victims = [await db.foreign("shop"), await db.foreign("shop")]
    wanting = [
        asyncio.create_task(victim.execute("UPDATE t SET pad = 'a' WHERE id = %s", [key]))
        for key, victim in zip((2, 4), victims, strict=True)
    ]

    async def both_for_a_while() -> bool:
        return await db.sql(BOTH_WAIT) == [(True,)]

    await eventually(both_for_a_while)
    await holder.rollback()
    await asyncio.gather(*wanting)
    await running
    last = scene.told[-1]
    assert last.delayed == 2
    assert 0.2 < last.delayed_worst_s <= last.delayed_s
    assert last.delayed_s < 2 * last.delayed_worst_s + 0.1
    assert await ledger.violations() == []
