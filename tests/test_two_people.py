"""Two people at one window: the second looks on, confirms, asks, and takes the wheel; nothing is done twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from proxy import FaultProxy
from servers import Database, eventually
from windows import PATIENCE_S, Shop, attended, driven, small_shop, step, steps_before, until

from dbwatch.backfill.progress import State
from dbwatch.clock import SystemClock
from dbwatch.errors import Refused
from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.journal.chain import Event
from dbwatch.journal.fence import Fence
from dbwatch.journal.fold import Request, StepStatus
from dbwatch.journal.store import Store
from dbwatch.journal.words import sentence
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.intents import (
    Abort,
    Amend,
    Confirm,
    Decide,
    Decline,
    Mark,
    Note,
    PauseBackfill,
    RunStep,
    StopOurs,
    TakeOver,
)
from dbwatch.window.opening import join


@pytest.fixture
async def shop(db15: Database, tmp_path: Path) -> Shop:
    return await small_shop(db15, tmp_path, users=20_000)


def with_confirmation(shop: Shop) -> Shop:
    plain = 'kind = "migrate"\nto = "3f1c"\n'
    text = shop.runbook.read_text()
    assert plain in text
    shop.runbook.write_text(text.replace(plain, plain + 'confirm = "navigator"\n'))
    return shop


async def seen(conductor: Conductor, kind: type[ev.Fact], within: float = PATIENCE_S) -> Event:
    """The first event of *kind*, waited for."""
    await until(conductor, lambda c: any(isinstance(e.fact, kind) for e in c.events), within)
    return next(e for e in conductor.events if isinstance(e.fact, kind))


async def test_a_navigator_sees_what_the_driver_does(shop: Shop) -> None:
    async with driven(shop) as driver, attended(shop) as navigator:
        assert not navigator.driving
        await steps_before(driver, "deploy")
        await until(navigator, lambda c: c.state.step("add").status is StepStatus.DONE)
        assert [e.hash for e in navigator.events] == [e.hash for e in driver.events[: len(navigator.events)]]
        assert navigator.ground.runbook.steps()
        assert (await navigator.submit(Note("I watch the checkout"))).taken
        assert (await navigator.submit(Mark("application deployed"))).taken
        await until(driver, lambda c: any(isinstance(e.fact, ev.Marked) for e in c.events))
        note = next(e for e in driver.events if isinstance(e.fact, ev.Noted))
        assert note.actor == "lin@b"


async def test_each_sees_that_the_other_is_there(shop: Shop) -> None:
    async with driven(shop) as driver, attended(shop) as navigator:
        await until(driver, lambda c: c.feed().frame.window.navigators == ("lin@b",))  # type: ignore[union-attr]
        view = navigator.feed().frame.window
        assert view is not None
        assert view.state.driver == "wei@a"


async def test_an_event_is_heard_at_once(shop: Shop) -> None:
    async with driven(shop) as driver, attended(shop) as navigator:
        await until(navigator, lambda c: c.state.seq == driver.state.seq)
        await asyncio.sleep(0.2)  # both listen by now
        began = asyncio.get_running_loop().time()
        await driver.submit(Note("now"))
        await seen(navigator, ev.Noted)
        assert asyncio.get_running_loop().time() - began < 0.9  # the journal's own pace is a second


async def test_a_step_that_asks_for_it_begins_only_with_a_second_persons_word(shop: Shop) -> None:
    with_confirmation(shop)
    async with driven(shop) as driver, attended(shop) as navigator:
        await steps_before(driver, "add")
        answer = await driver.submit(RunStep("add"))
        assert answer.taken
        assert "add is proposed" in answer.text
        assert driver.state.step("add").status is StepStatus.PENDING
        await until(navigator, lambda c: c.state.proposal is not None)
        proposal = navigator.state.proposal
        assert proposal is not None
        assert not (await navigator.submit(Confirm(proposal.seq, "shop"))).taken
        assert (await navigator.submit(Confirm(proposal.seq, shop.db.name))).taken
        await until(driver, lambda c: c.state.step("add").status is StepStatus.DONE)
        given = await seen(navigator, ev.ConfirmationGiven)
        assert given.actor == "lin@b"
        assert driver.state.proposal is None


async def test_nobody_confirms_their_own_proposal_from_another_terminal(shop: Shop) -> None:
    with_confirmation(shop)
    async with driven(shop) as driver, attended(shop, "wei@elsewhere") as navigator:
        await steps_before(driver, "add")
        await driver.submit(RunStep("add"))
        await until(navigator, lambda c: c.state.proposal is not None)
        assert navigator.state.proposal is not None
        answer = await navigator.submit(Confirm(navigator.state.proposal.seq, shop.db.name))
        assert not answer.taken
        assert "a second person" in answer.text


async def test_a_declined_proposal_begins_nothing_and_can_be_made_again(shop: Shop) -> None:
    with_confirmation(shop)
    async with driven(shop) as driver, attended(shop) as navigator:
        await steps_before(driver, "add")
        await driver.submit(RunStep("add"))
        await until(navigator, lambda c: c.state.proposal is not None)
        assert navigator.state.proposal is not None
        assert (await navigator.submit(Decline(navigator.state.proposal.seq, "the load is too high"))).taken
        await until(driver, lambda c: c.state.proposal is None)
        assert driver.state.step("add").status is StepStatus.PENDING
        assert (await driver.submit(RunStep("add"))).taken
        assert (await driver.submit(StopOurs())).taken
        assert driver.state.proposal is None


async def test_a_navigator_pauses_and_stops_the_backfill(shop: Shop) -> None:
    async with driven(shop) as driver, attended(shop) as navigator:
        await steps_before(driver, "fill")
        driver.work.hand.slower()
        assert (await driver.submit(RunStep("fill"))).taken
        await until(driver, lambda c: c.work.backfilling and c.work.backfill is not None)
        answer = await navigator.submit(PauseBackfill("fill"))
        if answer.taken:  # a small table may be through before the wish arrives
            assert driver.work.hand.paused_because == "paused by lin@b"
            await until(driver, lambda c: c.work.backfill is not None and c.work.backfill.state is State.PAUSED)
            await until(navigator, lambda c: c.feed().frame.window.backfill is not None)  # type: ignore[union-attr]
            assert (await navigator.submit(StopOurs())).taken
            await until(driver, lambda c: c.state.step("fill").status is StepStatus.FAILED)
            assert driver.state.step("fill").again


async def test_what_both_ask_to_pause_at_once_is_paused(shop: Shop) -> None:
    async with driven(shop) as driver, attended(shop) as navigator:
        await steps_before(driver, "fill")
        editor = await shop.db.foreign(autocommit=False)
        await editor.execute("SELECT FROM users WHERE id = 10001 FOR UPDATE")
        assert (await driver.submit(RunStep("fill"))).taken
        await until(driver, lambda c: c.work.backfilling and c.work.backfill is not None)
        answers = await asyncio.gather(*(c.submit(PauseBackfill("fill")) for c in (driver, navigator)))
        assert [answer.taken for answer in answers] == [True, True]
        assert driver.work.hand.paused_because is not None
        asked = await seen(driver, ev.Requested)
        assert asked.fact == ev.Requested("pause", step="fill")
        assert sentence(asked.fact) == "asks the driver: pause fill"
        await editor.rollback()


async def test_a_request_of_an_older_version_is_read_and_turns_nothing_round(shop: Shop) -> None:
    fact = chain.decode("requested", '{"act":"backfill","digest":""}')
    assert fact == ev.Requested("backfill")
    async with driven(shop) as driver:
        await steps_before(driver, "fill")
        seq = (await driver.ground.store.append(lambda _: [fact], fenced=False))[-1].seq
        answered = await seen(driver, ev.RequestAnswered)
        assert answered.fact == ev.RequestAnswered(
            seq, False, "an older dbwatch asked, which does not say whether to pause or to resume"
        )
        assert driver.state.step("fill").status is StepStatus.PENDING


async def test_a_navigator_aborts_by_the_plan_that_the_driver_computed(shop: Shop) -> None:
    before = await shop.dump()
    async with driven(shop) as driver, attended(shop) as navigator:
        await steps_before(driver, "deploy")
        await until(navigator, lambda c: c.state.seq == driver.state.seq)

        async def newest() -> bool:
            return (await navigator.plan_abort()).seq == driver.state.seq

        await eventually(newest)
        plan = await navigator.plan_abort()
        assert plan.digest == (await driver.plan_abort()).digest
        assert not (await navigator.submit(Abort(plan.digest, "shop"))).taken
        answer = await navigator.submit(Abort(plan.digest, shop.db.name))
        assert answer.taken, answer.text
        await until(navigator, lambda c: c.state.closed_at is not None)
        assert navigator.state.outcome == "aborted"
    assert await shop.dump() == before


async def test_the_wheel_is_taken_from_a_driver_that_is_alive_only_for_a_reason(shop: Shop) -> None:
    async with driven(shop) as driver, attended(shop, runbook=shop.runbook) as navigator:
        assert not (await navigator.submit(TakeOver(""))).taken
        assert (await navigator.submit(TakeOver("wei is on the phone"))).taken
        assert navigator.driving
        await until(driver, lambda c: not c.driving)
        await steps_before(navigator, "deploy")
        refused = await driver.submit(RunStep("deploy"))
        assert not refused.taken
        assert (await driver.submit(TakeOver("back again"))).taken
        await step(driver, "deploy")
        took = [e.fact for e in driver.events if isinstance(e.fact, ev.DriverTook)]
        assert [(t.driver, t.reason) for t in took] == [("lin@b", "wei is on the phone"), ("wei@a", "back again")]


async def test_a_wheel_that_was_taken_unheard_is_taken_again_without_asking_ourselves(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, proxy_to: FaultProxy.Factory
) -> None:
    proxy, real = await proxy_to(shop.db.dsn), Store.take
    far = replace(shop, db=replace(shop.db, dsn=proxy.dsn))

    async def unheard(self: Store, reason: str, *, seen: int | None) -> Fence:
        proxy.drop_answer_to(b"COMMIT")
        proxy.refusing = True
        return await real(self, reason, seen=seen)

    async with driven(shop), attended(far, runbook=shop.runbook) as navigator:
        with monkeypatch.context() as patched:
            patched.setattr(Store, "take", unheard)
            assert not (await navigator.submit(TakeOver("wei is on the phone"))).taken
        proxy.refusing = False
        await until(navigator, lambda c: c.state.driver == "lin@b")
        answer = await navigator.submit(TakeOver(""))
        assert answer.taken, answer.text
        await asyncio.wait_for(navigator.recovered.wait(), PATIENCE_S)
        await step(navigator, "preview")


async def test_the_old_drivers_backends_are_gone_before_the_new_one_acts(shop: Shop) -> None:
    connecting = psycopg.AsyncConnection.connect(shop.db.dsn)
    async with await connecting as holder, driven(shop) as driver, attended(shop, runbook=shop.runbook) as navigator:
        await steps_before(driver, "add")
        await holder.execute("LOCK TABLE users IN ACCESS SHARE MODE")
        assert (await driver.submit(RunStep("add"))).taken
        await until(driver, lambda c: bool(c.work.migration and c.work.migration.pid))
        assert (await navigator.submit(TakeOver("wei does not answer"))).taken
        epoch = navigator.state.epoch
        names = await shop.db.sql("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
        acting = [n for (n,) in names if n.startswith(("dbwatch worker", "dbwatch migrate", "dbwatch journal"))]
        assert [n for n in acting if not n.endswith((f"/{epoch}", "/-"))] == []
        await holder.execute("ROLLBACK")
        await asyncio.wait_for(navigator.recovered.wait(), PATIENCE_S)
        await step(navigator, "add")


async def test_a_person_decides_how_a_step_ended_of_which_nobody_knows(shop: Shop) -> None:
    async with driven(shop) as driver:
        await driver.ground.store.append(lambda _: [ev.StepStarted("preview", 1), ev.StepUnknown("preview", 1, "who")])
        assert (await driver.submit(Decide("preview", False, "nothing of it is there"))).taken
        known = driver.state.step("preview")
        assert (known.status, known.again) == (StepStatus.FAILED, True)
        assert not (await driver.submit(Decide("preview", True, "again"))).taken


async def test_there_is_nothing_to_attend_where_no_window_is_open(shop: Shop) -> None:
    with pytest.raises(Refused, match="no window is open"):
        async with attended(shop):
            pass


async def test_a_navigator_without_the_files_may_not_run_what_needs_them(shop: Shop) -> None:
    async with driven(shop), attended(shop) as navigator:
        assert (await navigator.submit(TakeOver("for a moment"))).taken
        await asyncio.wait_for(navigator.recovered.wait(), PATIENCE_S)
        answer = await navigator.submit(RunStep("add"))
        assert not answer.taken
        assert "not on this machine" in answer.text or "comes first" in answer.text


async def test_past_the_point_of_no_return_the_databases_name_is_asked_for(shop: Shop) -> None:
    async with driven(shop) as driver:
        await steps_before(driver, "drop")
        answer = await driver.submit(RunStep("drop"))
        assert (answer.taken, answer.name_needed) == (False, True)
        assert "no whole way back" in answer.text
        assert not (await driver.submit(RunStep("drop", "shop"))).taken
        assert driver.state.step("drop").status is StepStatus.PENDING
        await step(driver, "drop")


async def test_an_edited_runbook_is_taken_only_when_its_difference_was_shown_and_confirmed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DSN", shop.db.dsn)
    async with driven(shop) as driver, attended(shop) as navigator:
        await step(driver, "preview")
        text = shop.runbook.read_text()
        shop.runbook.write_text(text.replace("deploy v0.8.0", "deploy v0.8.1"))
        await until(driver, lambda c: '+text = "deploy v0.8.1' in c.feed().frame.window.edited)  # type: ignore[union-attr]
        view = driver.feed().frame.window
        assert view is not None
        assert "v0.8.0" in view.runbook.step("deploy").text  # type: ignore[union-attr]
        assert not (await driver.submit(Amend("another"))).taken
        assert (await driver.submit(Amend(view.edited_sha))).taken
        assert "v0.8.1" in driver.ground.runbook.step("deploy").text  # type: ignore[union-attr]
        await until(navigator, lambda c: "v0.8.1" in c.ground.runbook.step("deploy").text)  # type: ignore[union-attr]


async def test_an_amendment_takes_what_was_proposed_before_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DSN", shop.db.dsn)
    with_confirmation(shop)
    async with driven(shop) as driver, attended(shop) as navigator:
        await steps_before(driver, "add")
        await driver.submit(RunStep("add"))
        await until(navigator, lambda c: c.state.proposal is not None)
        proposal = navigator.state.proposal
        assert proposal is not None
        shop.runbook.write_text(shop.runbook.read_text().replace('to = "3f1c"\n', 'to = "3f1c"\nretries = 0\n'))
        await until(driver, lambda c: bool(c.feed().frame.window.edited_sha))  # type: ignore[union-attr]
        assert (await driver.submit(Amend(driver.feed().frame.window.edited_sha))).taken  # type: ignore[union-attr]
        answer = await navigator.submit(Confirm(proposal.seq, shop.db.name))
        assert (answer.taken, "not open any more" in answer.text) == (False, True)
        told = [sentence(e.fact) for e in navigator.events if isinstance(e.fact, ev.ConfirmationRefused)]
        assert ["the runbook was amended" in one for one in told] == [True]
        assert driver.state.step("add").status is StepStatus.PENDING
        assert (await driver.submit(RunStep("add"))).taken, "it can be proposed again"


async def test_what_has_begun_stays_as_it_was_however_the_runbook_is_edited(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DSN", shop.db.dsn)
    async with driven(shop) as driver:
        await step(driver, "preview")
        text = shop.runbook.read_text()
        shop.runbook.write_text(text.replace("read by a second person", "read by nobody"))
        await until(driver, lambda c: bool(c.feed().frame.window.edited_sha))  # type: ignore[union-attr]
        view = driver.feed().frame.window
        assert view is not None
        answer = await driver.submit(Amend(view.edited_sha))
        assert not answer.taken
        assert "preview has begun already" in answer.text


async def test_a_navigator_whose_line_was_cut_catches_up(shop: Shop, proxy_to: FaultProxy.Factory) -> None:
    proxy = await proxy_to(shop.db.dsn)
    far = replace(shop, db=replace(shop.db, dsn=proxy.dsn))
    async with driven(shop) as driver, attended(far) as navigator:
        await until(navigator, lambda c: c.state.seq == driver.state.seq)
        proxy.stall()
        proxy.cut()
        await steps_before(driver, "deploy")
        await until(navigator, lambda c: bool(c.feed().frame.window.journal_trouble))  # type: ignore[union-attr]
        proxy.resume()
        await until(navigator, lambda c: c.state.seq == driver.state.seq)
        assert navigator.events == driver.events


async def test_whoever_starts_the_same_runbook_looks_on_while_somebody_drives(shop: Shop) -> None:
    async with driven(shop) as driver:
        ground = await join(shop.book(), SystemClock(), shop.wish("lin@b"), lambda _: None)
        async with driving(ground) as other:
            assert not other.driving
            assert (await other.submit(TakeOver("wei went home"))).taken
            await asyncio.wait_for(other.recovered.wait(), PATIENCE_S)
            await until(driver, lambda c: not c.driving)
            await steps_before(other, "deploy")


async def test_a_request_that_nobody_heard_in_time_is_void(shop: Shop) -> None:
    async with driven(shop) as driver:
        late = Request(99, "stop", "lin@b", driver.ground.clock.now() - timedelta(seconds=20))
        answer = await driver.driver._grant(late)
        assert not answer.taken
        assert "too late" in answer.text
