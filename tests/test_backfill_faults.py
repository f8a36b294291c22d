"""The twelve faults that a backfill has to survive: `pytest tests/test_backfill_faults.py -k fault_4`.

Each fault is a scene (faults/twelve.py). The engine as it is comes out of it with every row set exactly once
(faults/oracle.py); versions without one protection (faults/broken.py) are put through the same scene, and the same
oracle catches them. By keyset it is done on 15, in stripes on 18. The last test holds that each of the twelve has both.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from faults import oracle
from faults import twelve as scenes
from faults.twelve import BEFORE_LATER, LATER, MANY, POISON, Place, abort, started
from ledger import WORKER_WAITS, Ledger, run_elsewhere, wait_for
from pooler import pgbouncer
from proxy import FaultProxy
from servers import Database, Fleet, OwnServers, new_database

from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.hold import Hold
from dbwatch.backfill.progress import State
from dbwatch.backfill.run import Result
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.walk import Walk
from dbwatch.errors import Refused
from dbwatch.journal import schema
from dbwatch.postgres.session import Connector


@pytest.fixture(params=[(15, Walk.KEYSET), (18, Walk.STRIPES)], ids=["keyset", "stripes"])
async def place(
    fleet: Fleet,
    own_server: OwnServers,
    proxy_to: FaultProxy.Factory,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Place]:
    major, walk = request.param
    async with new_database(await fleet.server(major)) as database:
        yield Place(database, own_server, proxy_to, walk, monkeypatch)


@pytest.fixture
async def elsewhere(
    db18: Database, own_server: OwnServers, proxy_to: FaultProxy.Factory, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """The place of broken versions."""
    return Place(db18, own_server, proxy_to, Walk.KEYSET, monkeypatch)


async def whole(ledger: Ledger, result: Result, rows: int = 3000) -> None:
    """Holds that it is done, and each row was set once."""
    assert (result.outcome, result.rows) == (State.DONE, rows)
    assert await oracle.breaches(ledger) == []


async def times(ledger: Ledger) -> set[int]:
    """How often rows were set that were not set once."""
    return {n for _, n, _ in await ledger.violations()}


# --- 1: kill -9 in the middle of a batch


@pytest.mark.parametrize("at_its_cursor", [True, False], ids=["rows set", "rows waited for"])
async def test_fault_1_kill_9_in_the_middle_of_a_batch(place: Place, at_its_cursor: bool) -> None:
    await whole(*await scenes.killed(place, at_its_cursor=at_its_cursor))


@pytest.mark.parametrize(("version", "at_its_cursor", "n"), [("rows first", True, 2), ("cursor first", False, 0)])
async def test_fault_1_catches_who_commits_rows_and_cursor_apart(
    elsewhere: Place, version: str, at_its_cursor: bool, n: int
) -> None:
    ledger, _ = await scenes.killed(replace(elsewhere, version=version), at_its_cursor=at_its_cursor)
    assert await times(ledger) == {n}


async def test_fault_1_kills_at_any_moment(place: Place) -> None:
    ledger = await place.ledger(MANY)
    moments = random.Random(7)
    for _ in range(2):
        process = await run_elsewhere(place.db.dsn, place.spec)
        assert process.stdout is not None
        await process.stdout.readline()
        for _ in range(moments.randint(0, 6)):
            await process.stdout.readline()
        await asyncio.sleep(moments.random() * 0.02)
        process.kill()
        await process.wait()
    backfill, _ = await started(ledger, place.spec)
    await whole(ledger, await backfill.run(), 12_000)


# --- 2: the answer to a COMMIT is lost


async def test_fault_2_the_answer_to_a_commit_is_lost(place: Place) -> None:
    await whole(*await scenes.answers_lost(place))


async def test_fault_2_several_passes_that_are_sent_together_have_one_answer(elsewhere: Place) -> None:
    place, sent = elsewhere.together()
    await whole(*await scenes.answers_lost(place, after=(1, 2)))
    assert max(sent) > 1


async def test_fault_2_catches_who_takes_it_for_a_batch_that_is_lost(elsewhere: Place) -> None:
    ledger, _ = await scenes.answers_lost(elsewhere.playing("remembering"))
    assert 2 in await times(ledger)


async def test_fault_2_the_compare_and_set_alone_saves_who_takes_it_for_lost(
    elsewhere: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeated batch is rolled back, and then it reads where it stands."""
    adopt = Hold._adopt
    guesses = iter([True, True, True])

    async def guess(self: Hold, session: BatchSession) -> None:
        if next(guesses, False):
            return
        await adopt(self, session)

    monkeypatch.setattr(Hold, "_adopt", guess)
    await whole(*await scenes.answers_lost(elsewhere))
    assert next(guesses, None) is None


# --- 3: the server crashes


async def test_fault_3_the_server_crashes_and_restarts(place: Place) -> None:
    await whole(*await scenes.crashed(place), 12_000)


async def test_fault_3_the_server_crashes_when_the_walk_has_just_ended(place: Place) -> None:
    await whole(*await scenes.crashed_in_the_end(place), 12_000)


async def test_fault_3_catches_who_remembers_by_itself_how_far_it_is(elsewhere: Place) -> None:
    ledger, _ = await scenes.crashed(elsewhere.playing("remembering"))
    assert await times(ledger) == {0}


async def test_fault_3_in_the_middle_of_a_batch(place: Place) -> None:
    server = await place.servers(place.db.major)
    ledger = await replace(place, db=await place.servers.database(server)).ledger(MANY)
    backfill, scene = await started(ledger, place.spec)
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.batches >= 3)
    await server.restart("immediate")
    await whole(ledger, await running, 12_000)


# --- 4: failover to a lagging standby


async def test_fault_4_failover_to_a_lagging_standby(elsewhere: Place) -> None:
    await whole(*await scenes.failed_over(elsewhere), 12_000)


async def test_fault_4_catches_who_remembers_by_itself_how_far_it_is(elsewhere: Place) -> None:
    ledger, _ = await scenes.failed_over(elsewhere.playing("remembering"))
    assert await times(ledger) == {0}


# --- 5: a deadlock


async def test_fault_5_in_a_deadlock_the_application_lives(place: Place) -> None:
    await whole(*await scenes.deadlocked(place))


async def test_fault_5_in_one_of_several_passes_that_are_sent_together(elsewhere: Place) -> None:
    place, sent = elsewhere.together()
    await whole(*await scenes.deadlocked(place, LATER, BEFORE_LATER))
    assert max(sent) > 1


async def test_fault_5_catches_who_goes_on_behind_the_batch_that_it_gave_up(elsewhere: Place) -> None:
    ledger, _ = await scenes.deadlocked(elsewhere.playing("passing over"))
    assert await times(ledger) == {0}


# --- 6: two operators at once


async def test_fault_6_of_two_operators_at_once_one_works_and_the_other_is_told_who(place: Place) -> None:
    ledger, ended = await scenes.two_at_once(place)
    assert sorted(type(e).__name__ for e in ended) == ["Refused", "Result"]
    assert await oracle.breaches(ledger) == []


async def test_fault_6_through_a_pooler_as_well(place: Place) -> None:
    ledger = await place.ledger(MANY)
    async with pgbouncer(place.db.dsn) as through:
        ledger.connector = Connector(through)
        runs = [(await started(ledger, place.spec))[0].run() for _ in range(2)]
        ended = await asyncio.gather(*runs, return_exceptions=True)
    told = [e for e in ended if isinstance(e, Refused) or (isinstance(e, Result) and e.already)]
    assert len(told) == 1, ended
    assert await oracle.breaches(ledger) == []


async def test_fault_6_catches_those_who_know_nothing_of_each_other(elsewhere: Place) -> None:
    ledger, _ = await scenes.two_at_once(elsewhere.playing("all alike"))
    assert await times(ledger) == {2}


@pytest.mark.parametrize("versions", [("unclaimed",), ("unclaimed", "unfenced"), ("unclaimed", "unchecked")])
async def test_fault_6_each_protection_holds_where_the_others_are_missing(
    elsewhere: Place, versions: tuple[str, ...]
) -> None:
    """Whoever was taken over is fenced by the epoch, and by the compare-and-set where nobody looks at that."""
    for version in versions:
        elsewhere.playing(version)
    ledger, ended = await scenes.two_at_once(elsewhere)
    assert sorted(type(e).__name__ for e in ended) == ["Fenced", "Result"]
    assert await oracle.breaches(ledger) == []


# --- 7: a poison row; tests/test_backfill_poison.py has its kinds and places


async def test_fault_7_a_poison_row_is_listed_and_all_others_are_set(place: Place) -> None:
    ledger, result = await scenes.poisoned(place)
    assert (result.outcome, result.rows, result.quarantined) == (State.DONE, 2997, 3)
    assert "(23514: 3)" in result.note
    assert await oracle.breaches(ledger, poison=f"t.id IN {POISON}") == []


@pytest.mark.parametrize(
    ("version", "breach"),
    [
        ("passing over", "rows more of 3000"),  # whatever was in a batch with it
        ("forgetting", "row (1776): poison, set 0 times, v = 0"),  # and not in quarantine
    ],
)
async def test_fault_7_catches_who_passes_it_over(elsewhere: Place, version: str, breach: str) -> None:
    ledger, _ = await scenes.poisoned(elsewhere.playing(version))
    assert breach in "; ".join(await oracle.breaches(ledger, poison=f"t.id IN {POISON}"))


# --- 8: no primary key, NULL and duplicate keys


@pytest.mark.parametrize("index", ["", "CREATE UNIQUE INDEX of_some ON t (id) WHERE v < 0"], ids=["none", "partial"])
async def test_fault_8_without_a_key_mode_once_is_refused_before_it_begins(place: Place, index: str) -> None:
    await place.db.sql(*scenes.KEYLESS, *([index] if index else []))
    with pytest.raises(Refused, match="no key to walk by"):
        await Ledger(place.db).plan(place.spec)
    assert await place.db.sql("SELECT count(*) FROM t WHERE v <> 0") == [(0,)]


async def test_fault_8_where_a_key_may_be_null_mode_once_is_refused(place: Place) -> None:
    ledger = await scenes.null_keys(place)
    with pytest.raises(Refused, match="may be NULL"):
        await ledger.plan(place.spec)


async def test_fault_8_catches_who_walks_by_any_key(elsewhere: Place) -> None:
    ledger = await scenes.null_keys(elsewhere)
    result = await ledger.run(elsewhere.playing("any key").spec)
    assert (result.outcome, result.rows) == (State.DONE, 3000 - 3000 // 7)
    assert await elsewhere.db.sql("SELECT count(*) FROM t WHERE v = 0 AND id IS NULL") == [(3000 // 7,)]
    assert await times(ledger) == {0}


async def test_fault_8_without_a_key_mode_pending_leaves_no_row_however_often_it_is_killed(db: Database) -> None:
    await db.sql(*scenes.KEYLESS, "INSERT INTO t TABLE t", "INSERT INTO t TABLE t")
    await schema.ensure(db.connector)
    fill = Spec("t", "v = 1", "v = 0", batch_time_ms=10)
    for _ in range(2):
        holder = await db.foreign("the row it is killed at", autocommit=False)
        await holder.execute("SELECT FROM t WHERE id = 8 AND v = 0 ORDER BY ctid OFFSET 4 LIMIT 1 FOR UPDATE")
        process = await run_elsewhere(db.dsn, fill)
        await wait_for(db, WORKER_WAITS)
        await db.sql("INSERT INTO t VALUES (NULL), (5), (5)", "UPDATE t SET id = 6 WHERE id = 5")
        process.kill()
        await process.wait()
        await holder.rollback()
    result = await Ledger(db).run(fill)
    assert (result.outcome, result.pending) == (State.DONE, 0)
    assert await db.sql("SELECT v, count(*) FROM t GROUP BY v") == [(1, 12_006)]


# --- 9: a row that is locked for long


async def test_fault_9_a_row_that_is_locked_for_long_is_waited_for(place: Place) -> None:
    await whole(*await scenes.locked(place))


async def test_fault_9_in_one_of_several_passes_that_are_sent_together(elsewhere: Place) -> None:
    place, sent = elsewhere.together()
    await whole(*await scenes.locked(place, LATER))
    assert max(sent) > 1


async def test_fault_9_catches_who_skips_what_is_locked(elsewhere: Place) -> None:
    ledger, _ = await scenes.locked(elsewhere.playing("passing over"))
    assert await times(ledger) == {0}


async def test_fault_9_nobody_waits_for_long_behind_us(place: Place) -> None:
    ledger, served = await scenes.application_waits(place)
    assert served
    assert await oracle.breaches(ledger) == []


async def test_fault_9_catches_who_waits_without_a_lock_timeout(elsewhere: Place) -> None:
    _, served = await scenes.application_waits(elsewhere.playing("no lock_timeout"))
    assert not served


# --- 10: a SHARE UPDATE EXCLUSIVE on the table, as VACUUM, ANALYZE and CREATE INDEX CONCURRENTLY take it


async def test_fault_10_a_share_update_exclusive_is_in_nobodys_way(place: Place) -> None:
    await whole(*await scenes.under_a_lock(place))


async def test_fault_10_catches_who_locks_the_table(elsewhere: Place) -> None:
    ledger, result = await scenes.under_a_lock(elsewhere.playing("locking"))
    assert (result.outcome, result.rows) == (State.STOPPED, 0)
    assert await times(ledger) == {0}


# --- 11: the application inserts below and above the cursor, changes keys, deletes


async def test_fault_11_inserts_deletes_and_changed_keys_disturb_no_other_row(place: Place) -> None:
    ledger, result = await scenes.changed_around(place)
    assert result.outcome is State.DONE
    assert await oracle.breaches(ledger) == []


@pytest.mark.parametrize(
    ("version", "breach"),
    [
        ("offset", "set 0 times"),
        ("no ceiling", "above the highest key of the start"),
        ("highest text", "set 0 times"),
    ],
)
async def test_fault_11_catches_who_does_not_walk_by_the_order_of_keys_to_the_highest_of_the_start(
    elsewhere: Place, version: str, breach: str
) -> None:
    ledger, _ = await scenes.changed_around(elsewhere.playing(version))
    assert breach in "; ".join(await oracle.breaches(ledger))


async def test_fault_11_under_load(place: Place) -> None:
    ledger = await place.ledger("SELECT generate_series(2, 30000, 2)")

    async def application(seed: int) -> None:
        chance = random.Random(seed)
        connection = await place.db.foreign(f"app-{seed}")
        while True:
            key = chance.randrange(1, 40_000)
            await connection.execute("INSERT INTO t (id) VALUES (%s) ON CONFLICT DO NOTHING", [key | 1])
            await connection.execute("DELETE FROM t WHERE id = %s", [chance.randrange(1, 15_000) * 2])
            await connection.execute("UPDATE t SET pad = pad || 'y' WHERE id = %s", [key])

    users = [asyncio.create_task(application(seed)) for seed in range(3)]
    backfill, _ = await started(ledger, place.spec)
    result = await backfill.run()
    for user in users:
        user.cancel()
    assert result.outcome is State.DONE
    assert await oracle.breaches(ledger) == []


# --- 12: it is aborted, and the column is dropped


async def test_fault_12_an_abort_in_the_middle_of_a_batch(place: Place) -> None:
    await whole(*await scenes.aborted(place))


async def test_fault_12_an_abort_in_one_of_several_passes_that_are_sent_together(elsewhere: Place) -> None:
    place, sent = elsewhere.together()
    await whole(*await scenes.aborted(place, LATER))
    assert max(sent) > 1


async def test_fault_12_aborts_at_random_moments(place: Place) -> None:
    ledger = await place.ledger(MANY)
    moments = random.Random(place.db.major)
    for _ in range(6):
        backfill, scene = await started(ledger, place.spec)
        running = asyncio.create_task(backfill.run())
        await scene.until(lambda p: p.state in (State.RUNNING, State.DONE))
        await asyncio.sleep(moments.random() * 0.03)
        await abort(place.db, backfill, scene)
        if (await asyncio.wait_for(running, 5)).outcome is State.DONE:
            break
        [(done,)] = await place.db.sql("SELECT rows_done FROM dbwatch.backfill")
        assert await place.db.sql("SELECT sum(v) FROM t") == [(done,)]
    backfill, _ = await started(ledger, place.spec)
    await whole(ledger, await backfill.run(), 12_000)


async def test_fault_12_catches_who_takes_a_cancelled_batch_for_done(elsewhere: Place) -> None:
    ledger, _ = await scenes.aborted(elsewhere.playing("passing over"))
    assert await times(ledger) == {0}


async def test_fault_12_the_column_is_dropped_in_mid_run(place: Place) -> None:
    await whole(*await scenes.column_dropped(place), 12_000)


async def test_fault_12_catches_who_goes_on_without_the_column(elsewhere: Place) -> None:
    ledger, _ = await scenes.column_dropped(elsewhere.playing("passing over"))
    assert await times(ledger) == {0}


def test_each_of_the_twelve_is_survived_and_catches_a_broken_version() -> None:
    found = [re.match(r"test_fault_(\d+)_(catches)?", name) for name in globals()]
    numbers = {(int(each[1]), bool(each[2])) for each in found if each}
    assert numbers == {(number, catches) for number in range(1, 13) for catches in (False, True)}
