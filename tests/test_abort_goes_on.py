"""An abort that is cut, wherever: it goes on, in whosever hands, and what is done stays done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from proxy import FaultProxy
from servers import Database, OwnServers, eventually
from test_sql_steps import by_way_of
from windows import PATIENCE_S, Shop, abort, begin_abort, driven, end_of_abort, small_shop, steps_before, until

from dbwatch.errors import CannotConnect, ConnectionLost, DbwatchError
from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.journal.fence import Fence
from dbwatch.journal.store import Store
from dbwatch.postgres.session import Role
from dbwatch.steps.statement import NotBegun
from dbwatch.window import knocking
from dbwatch.window.conductor import Conductor
from dbwatch.window.intents import Signal
from dbwatch.window.rollback import away


def noted(conductor: Conductor) -> list[str]:
    return [e.fact.text for e in conductor.events if isinstance(e.fact, ev.AbortActionNoted)]


def started(conductor: Conductor) -> list[int]:
    return [e.fact.number for e in conductor.events if isinstance(e.fact, ev.AbortActionStarted)]


def finished(conductor: Conductor) -> ev.AbortFinished:
    [fact] = [e.fact for e in conductor.events if isinstance(e.fact, ev.AbortFinished)]
    return fact


async def quick(db: Database, folder: Path) -> Shop:
    """A shop whose locks are waited for only shortly."""
    shop = await small_shop(db, folder)
    shop.runbook.write_text(shop.runbook.read_text().replace('lock_timeout = "2s"', 'lock_timeout = "300ms"'))
    return shop


async def test_an_abort_goes_on_in_the_next_hands_wherever_it_is_cut(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    before = await shop.dump()
    async with driven(shop, "p0@a") as conductor:
        await steps_before(conductor, "nobody")
        plan = await begin_abort(conductor)
        await cut(shop, conductor, 1, len(plan.actions))
    assert await shop.dump() == before
    assert await shop.heads() == ["9a20"]


async def cut(shop: Shop, conductor: Conductor, number: int, last: int) -> None:
    """Lets the abort come to action *number*, then gives the wheel to the next person, and so on to the end."""

    def there(c: Conductor) -> bool:
        return number in started(c) or not c.state.aborting or bool(c.awaited)

    await until(conductor, there)
    if number > last or not conductor.state.aborting:
        await end_of_abort(conductor)
        assert finished(conductor).equal, finished(conductor).differences
        assert finished(conductor).missed == []
        done = [e.fact.number for e in conductor.events if isinstance(e.fact, ev.AbortActionDone)]
        assert done == sorted(set(done)), "an action was done twice"
        assert chain.broken_link(list(conductor.events)) is None
        return
    if conductor.awaited:
        signing = asyncio.create_task(end_of_abort(conductor))
        await until(conductor, lambda c: number + 1 in started(c) or not c.state.aborting)
        signing.cancel()
    async with driven(shop, f"p{number}@b", take_over=f"cut at action {number}") as following:
        await cut(shop, following, number + 1, last)


async def test_an_abort_waits_for_a_server_that_restarts(own_server: OwnServers, tmp_path: Path) -> None:
    server = await own_server(18)
    shop = await small_shop(await own_server.database(server), tmp_path)
    before = await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, "nobody")
        await begin_abort(conductor)
        ending = asyncio.create_task(end_of_abort(conductor))
        await until(conductor, lambda c: c.work.migration is not None and "DROP" in c.work.migration.statement)
        await server.restart("immediate")
        await ending
        assert finished(conductor).equal, finished(conductor).differences
        assert finished(conductor).missed == []
    assert await shop.dump() == before


async def test_an_abort_does_not_go_on_by_a_journal_that_was_edited(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path, users=10)
    before = await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, "fill")
        await begin_abort(conductor)
        await until(conductor, lambda c: bool(c.awaited))
    forged = "UPDATE dbwatch.event SET body = replace(body, 'DROP COLUMN phone', 'DROP COLUMN name')"
    await db18.sql(f"{forged} WHERE kind = 'abort.confirmed'")
    async with driven(shop, "lin@b") as conductor:
        await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
        confirmed = next(e.seq for e in conductor.events if isinstance(e.fact, ev.AbortConfirmed))
        assert [e.fact.seq for e in conductor.events if isinstance(e.fact, ev.JournalBroken)] == [confirmed]
        assert f"event {confirmed} of the journal was edited" in finished(conductor).differences[0]
        assert await shop.heads() == ["3f1c"], "nothing more was taken back"
        await abort(conductor)
        assert conductor.state.abort.equal, conductor.state.abort.differences
    assert await shop.dump() == before


async def test_an_abort_whose_fence_was_answered_by_nobody_goes_on_under_it(
    db18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy_to: FaultProxy.Factory
) -> None:
    shop = await small_shop(db18, tmp_path, users=10)
    before, proxy, real = await shop.dump(), await proxy_to(db18.dsn), Store.take
    async with by_way_of(shop, proxy, Role.JOURNAL) as conductor:

        async def unheard(self: Store, reason: str, *, within: float) -> Fence:
            proxy.drop_answer_to(b"COMMIT")
            proxy.refusing = True
            try:
                return await real(self, reason, within=within)
            finally:
                proxy.refusing = False

        await steps_before(conductor, "deploy")
        monkeypatch.setattr(Store, "take", unheard)
        await begin_abort(conductor)
        await end_of_abort(conductor)
        assert finished(conductor).equal, finished(conductor).differences
        assert conductor.driving
        took = [e.fact.reason for e in conductor.events if isinstance(e.fact, ev.DriverTook)]
        assert took == ["by another way", "abort"]
    assert await shop.dump() == before


async def test_an_old_driver_that_wakes_up_in_an_abort_does_nothing_more(
    db18: Database, tmp_path: Path, monkeypatch: object
) -> None:
    shop = await small_shop(db18, tmp_path)
    asleep, wake, sent = asyncio.Event(), asyncio.Event(), []
    real = knocking.Knocking._once

    async def sleepy(self: knocking.Knocking, statement: str, *given: object) -> None:
        if self._ground.store.actor == "wei@a":
            asleep.set()
            await wake.wait()
        await real(self, statement, *given)
        sent.append((self._ground.store.actor, statement))

    monkeypatch.setattr(knocking.Knocking, "_once", sleepy)
    async with driven(shop) as old:
        await steps_before(old, "nobody")
        await begin_abort(old)
        ending = asyncio.create_task(end_of_abort(old))
        await asyncio.wait_for(asleep.wait(), PATIENCE_S)
        async with driven(shop, "lin@b", take_over="wei sleeps") as new:
            await end_of_abort(new)
            assert finished(new).equal, finished(new).differences
            first = len(sent)
            wake.set()
            await until(old, lambda c: not c.feed().frame.window.driving)
            await old.work.settled()
        assert sent[first:] == []
        ending.cancel()


async def test_whoever_blocks_the_way_back_is_told_and_cancelling_lets_it_go_on(db18: Database, tmp_path: Path) -> None:
    shop = await quick(db18, tmp_path)
    before = await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, "nobody")
        report = await db18.foreign("reports", autocommit=False)
        await report.execute("SELECT count(*) FROM users")
        pid = report.info.backend_pid
        await until(conductor, lambda c: any(lock.pid == pid for lock in c.feed().frame.snapshot.locks.rows))
        plan = await conductor.plan_abort()
        [blocker] = [b for b in plan.in_the_way if b.pid == pid]
        assert (blocker.who, blocker.relation, blocker.state) == ("reports", "users", "idle in transaction")
        assert "count(*)" in blocker.query
        assert blocker.age_s is not None
        assert any(lock.startswith("ACCESS EXCLUSIVE on users") for a in plan.actions for lock in a.locks)
        await begin_abort(conductor)
        ending = asyncio.create_task(end_of_abort(conductor))
        await until(conductor, lambda c: any("reports" in note for note in noted(c)))
        assert any("try 2 of" in note for note in noted(conductor))
        answer = await conductor.submit(
            Signal(pid, blocker.backend_start, blocker.query_start, "reports", blocker.query, terminate=True)
        )
        assert answer.taken, answer.text
        await asyncio.wait_for(ending, PATIENCE_S)
        assert finished(conductor).equal, finished(conductor).differences
    assert await shop.dump() == before


async def test_a_colleagues_index_on_our_column_is_named_before_it_goes_along(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as conductor:
        await steps_before(conductor, "complete")
        await db18.sql(
            "CREATE INDEX theirs ON users (phone, city)",
            "CREATE TABLE parts (at date) PARTITION BY RANGE (at)",
            "CREATE TABLE parts_26 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        )
        plan = await begin_abort(conductor)
        assert "index public.theirs: not ours, goes along with what the way back drops" in plan.lost
        assert "2,940 values of users.phone (made by add), copied from users.legacy_phone_field" in plan.lost
        assert "table public.parts_26" in plan.prediction.not_ours
        assert "index public.theirs" not in plan.prediction.not_ours
        await end_of_abort(conductor)
        assert finished(conductor).missed == []
        assert "not ours: table public.parts_26" in finished(conductor).differences
    assert await db18.sql("SELECT 1 FROM pg_class WHERE relname = 'parts_26'")
    await eventually(lambda: _none(db18, "SELECT 1 FROM pg_class WHERE relname = 'theirs'"))


async def _none(db: Database, query: str) -> bool:
    return not await db.sql(query)


async def test_what_a_broken_off_reindex_leaves_is_ours(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    text = shop.runbook.read_text()
    shop.runbook.write_text(
        text.replace(
            'id = "deploy"',
            'id = "again"\nkind = "sql"\nsql = "REINDEX INDEX CONCURRENTLY idx_users_legacy_phone"\n\n'
            '[[phase.step]]\nid = "deploy"',
            1,
        )
    )
    before = await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, "deploy")
        await db18.sql("CREATE INDEX idx_users_legacy_phone_ccnew1 ON users (legacy_phone_field)")
        plan = await begin_abort(conductor)
        clean = next(action for action in plan.actions if action.kind == "clean")
        assert clean.sql == ('DROP INDEX CONCURRENTLY "public"."idx_users_legacy_phone_ccnew1"',)
        await end_of_abort(conductor)
        assert finished(conductor).equal, finished(conductor).differences
    assert await shop.dump() == before


async def test_what_the_plan_did_not_foresee_is_said(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as conductor:
        await steps_before(conductor, "fill")
        plan = await begin_abort(conductor)
        assert plan.prediction.equal
        await until(conductor, lambda c: bool(c.awaited))
        await db18.sql("CREATE INDEX late ON users (city)")
        await end_of_abort(conductor)
        assert finished(conductor).missed == ["not foreseen, not ours: index public.late"]
        assert conductor.state.outcome == "aborted"


def test_a_server_that_went_away_is_told_from_one_that_refuses() -> None:
    refused = NotBegun("it was not begun")
    refused.__cause__ = psycopg.errors.InsufficientPrivilege("no")
    assert away(ConnectionLost("gone"))
    assert away(CannotConnect("it starts up"))
    assert away(psycopg.errors.AdminShutdown("ended"))
    assert not away(refused)
    assert not away(psycopg.errors.LockNotAvailable("held"))
    assert not away(DbwatchError("stopped by hand"))
