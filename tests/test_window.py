"""A window, driven from its opening to its end, or back; on real servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from servers import Database, eventually
from windows import Shop, abort, begin_abort, driven, end_of_abort, small_shop, step, steps_before, until

from dbwatch.clock import SystemClock
from dbwatch.errors import Refused
from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus
from dbwatch.migration.chain import Chain
from dbwatch.postgres.session import Session
from dbwatch.window import survey
from dbwatch.window.abort import AbortPlan
from dbwatch.window.conductor import Conductor
from dbwatch.window.intents import Abort, Note, PauseBackfill, ResumeBackfill, RunStep, Signal, SignOff, StopOurs
from dbwatch.window.opening import enter

LONG = ("preview", "add", "deploy", "fill", "complete", "same", "nobody", "drop")
STAGED = ("preview", "add", "deploy", "fill", "complete", "index", "same", "nobody", "drop")
"""As the demo has them."""


@pytest.fixture
async def shop(db: Database, tmp_path: Path) -> Shop:
    return await small_shop(db, tmp_path)


@pytest.fixture
async def shop18(db18: Database, tmp_path: Path) -> Shop:
    return await small_shop(db18, tmp_path)


async def test_a_window_runs_from_its_opening_to_its_end(shop: Shop) -> None:
    async with driven(shop) as conductor:
        for step_id in LONG:
            await step(conductor, step_id)
        assert (await conductor.submit(RunStep())).taken
        assert conductor.state.outcome == "done"
        assert chain.broken_link(list(conductor.events)) is None
    assert await shop.heads() == ["7be4"]
    [(missing,)] = await shop.db.sql("SELECT count(*) FROM users WHERE phone IS NULL AND id % 50 <> 0")
    assert missing == 0


async def test_a_window_goes_there_and_back_on_every_major(any_db: Database, tmp_path: Path) -> None:
    shop = await small_shop(any_db, tmp_path)
    before = await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, "nobody")
        await abort(conductor)
        assert conductor.state.abort.equal, conductor.state.abort.differences
    assert await shop.dump() == before


async def test_a_step_begins_though_the_connection_dies_just_then(
    shop18: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, dies, person = survey.committed_heads, iter([True]), asyncio.current_task()

    async def read_or_die(session: Session, chain: Chain) -> frozenset[str] | None:
        if asyncio.current_task() is person and next(dies, False):
            session.sever()
        return await read(session, chain)

    async with driven(shop18) as conductor:
        await steps_before(conductor, "add")
        monkeypatch.setattr(survey, "committed_heads", read_or_die)
        answer = await conductor.submit(RunStep("add"))
        assert answer.taken, answer.text
        await conductor.work.settled()
        assert conductor.state.step("add").status is StepStatus.DONE
    assert next(dies, None) is None


@pytest.mark.parametrize("last", STAGED)
async def test_an_abort_after_any_step_restores_the_schema(db: Database, tmp_path: Path, last: str) -> None:
    shop = await small_shop(db, tmp_path, as_staged=True)
    before = await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, last)
        await step(conductor, last)
        await abort(conductor)
        assert conductor.state.abort is not None
        assert conductor.state.abort.equal, conductor.state.abort.differences
        assert conductor.state.outcome == "aborted"
    assert await shop.heads() == ["9a20"]
    assert await shop.dump() == before


async def test_an_abort_in_the_middle_of_a_lock_wait_restores_the_schema(shop: Shop) -> None:
    before = await shop.dump()
    holder = await shop.db.foreign("reports", autocommit=False)
    await holder.execute("SELECT count(*) FROM users")
    async with driven(shop) as conductor:
        await steps_before(conductor, "add")
        assert (await conductor.submit(RunStep("add"))).taken
        await until(conductor, lambda c: bool(c.work.migration and c.feed().frame.window.migration.waits_for))
        waits = conductor.feed().frame.window.migration.waits_for
        assert "AccessExclusiveLock on" in waits
        assert "reports" in waits
        await abort(conductor)
        assert conductor.state.abort.equal, conductor.state.abort.differences
    await holder.rollback()
    assert await shop.dump() == before


async def test_an_abort_in_the_middle_of_an_index_build_restores_the_schema(shop: Shop) -> None:
    before = await shop.dump()
    holder = await shop.db.foreign("reports", autocommit=False)
    await holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await holder.execute("SELECT count(*) FROM products")
    async with driven(shop) as conductor:
        await steps_before(conductor, "add")
        assert (await conductor.submit(RunStep("add"))).taken
        await until(conductor, lambda c: bool(c.work.migration and "CONCURRENTLY" in c.work.migration.statement))
        await eventually(lambda: shop.db.sql("SELECT 1 FROM pg_index WHERE NOT indisvalid"), within=20)
        plan = await abort(conductor)
        assert conductor.state.abort.equal, conductor.state.abort.differences
        clean = next(action for action in plan.actions if action.kind == "clean")
        assert clean.sql == (
            'DROP INDEX CONCURRENTLY "public"."idx_users_phone"',
            'ALTER TABLE "public"."users" DROP COLUMN "phone"',
        )
    assert await shop.heads() == ["9a20"]
    assert await shop.dump() == before


async def test_an_abort_while_the_migration_itself_holds_the_lock_restores_the_schema(shop: Shop) -> None:
    before = await shop.dump()
    [revision] = (shop.runbook.parent / "versions").glob("3f1c*")
    add = 'op.add_column("users", sa.Column("phone", sa.String(20)))'
    revision.write_text(revision.read_text().replace(add, add + '; op.execute("SELECT pg_sleep(60)")'))
    async with driven(shop) as conductor:
        await steps_before(conductor, "add")
        assert (await conductor.submit(RunStep("add"))).taken
        await until(conductor, lambda c: bool(c.work.migration and "pg_sleep" in c.work.migration.statement))
        plan = await abort(conductor)
        assert "found out once our work has ended" in plan.actions[2].notes[0]
        assert conductor.state.abort.equal, conductor.state.abort.differences
    assert await shop.dump() == before


async def test_an_abort_in_the_middle_of_a_backfill_restores_the_schema(db: Database, tmp_path: Path) -> None:
    shop = await small_shop(db, tmp_path, users=60_000)
    before = await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, "fill")
        assert (await conductor.submit(RunStep("fill"))).taken
        await until(conductor, lambda c: c.work.backfill is not None and c.work.backfill.rows_done > 0)
        await abort(conductor)
        assert conductor.state.abort.equal, conductor.state.abort.differences
        stopped, signed = conductor.state.step("fill"), conductor.state.step("preview")
        assert (stopped.undone, signed.undone) == (True, False)
    assert await shop.dump() == before


async def test_an_abort_does_not_fail_on_what_is_gone_already(shop18: Shop) -> None:
    before = await shop18.dump()
    async with driven(shop18) as conductor:
        await steps_before(conductor, "deploy")
        await shop18.db.sql("DROP INDEX idx_users_phone")  # as a downgrade that was cut short behind it
        await abort(conductor)
        assert conductor.state.abort.equal, conductor.state.abort.differences
    assert await shop18.heads() == ["9a20"]
    assert await shop18.dump() == before


async def test_a_colleagues_index_survives_the_abort_and_is_named(shop18: Shop) -> None:
    async with driven(shop18) as conductor:
        await steps_before(conductor, "deploy")
        await shop18.db.sql("CREATE INDEX colleagues ON users (city)")
        plan = await abort(conductor)
        assert any("colleagues" in lost for lost in plan.lost)
        assert conductor.state.abort.equal is False
        assert any("not ours" in d and "colleagues" in d for d in conductor.state.abort.differences)
        assert conductor.state.outcome == "aborted"
    assert await shop18.db.sql("SELECT 1 FROM pg_class WHERE relname = 'colleagues'")


async def test_the_wrong_name_begins_no_abort(shop18: Shop) -> None:
    async with driven(shop18) as conductor:
        plan = await conductor.plan_abort()
        answer = await conductor.submit(Abort(plan.digest, "production"))
        assert not answer.taken
        assert conductor.state.abort is None


async def test_x_stops_the_backfill_and_n_goes_on_with_it(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path, users=60_000)
    async with driven(shop) as conductor:
        await steps_before(conductor, "fill")
        assert (await conductor.submit(RunStep("fill"))).taken
        await until(conductor, lambda c: c.work.backfill is not None and c.work.backfill.rows_done > 0)
        assert (await conductor.submit(StopOurs())).taken
        await conductor.work.settled()
        stopped = conductor.state.step("fill")
        assert (stopped.status, stopped.again) == (StepStatus.FAILED, True)
        await step(conductor, "fill")


async def test_b_pauses_and_resumes(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path, users=60_000)
    async with driven(shop) as conductor:
        await steps_before(conductor, "fill")
        assert (await conductor.submit(RunStep("fill"))).taken
        await until(conductor, lambda c: c.work.backfill is not None)
        assert (await conductor.submit(PauseBackfill("fill"))).taken
        await until(conductor, lambda c: c.work.backfill.state == "paused")
        rows = conductor.work.backfill.rows_done
        assert (await conductor.submit(ResumeBackfill("fill"))).taken
        await until(conductor, lambda c: c.work.backfill.rows_done > rows or c.work.backfill.state == "done")
        await conductor.work.settled()
        assert conductor.state.step("fill").status is StepStatus.DONE


async def held_backfill(conductor: Conductor) -> psycopg.AsyncConnection[object]:
    """Begins `fill`, which comes as far as a row that somebody edits."""
    await steps_before(conductor, "fill")
    editor = await psycopg.AsyncConnection.connect(conductor.ground.base.dsn())
    await editor.execute("SELECT FROM users WHERE id = 2501 FOR UPDATE")
    assert (await conductor.submit(RunStep("fill"))).taken
    await until(conductor, lambda c: c.work.backfilling and c.work.backfill is not None)
    return editor


async def test_a_second_wish_to_pause_resumes_nothing_and_one_to_resume_pauses_nothing(shop18: Shop) -> None:
    async with driven(shop18) as conductor, await held_backfill(conductor):
        assert (await conductor.submit(PauseBackfill("fill"))).text == "fill pauses after this batch"
        again = await conductor.submit(PauseBackfill("fill"))
        assert (again.taken, again.text) == (True, "fill stands still already: paused by wei@a")
        assert conductor.work.hand.paused_because == "paused by wei@a"
        assert (await conductor.submit(ResumeBackfill("fill"))).text == "fill goes on"
        again = await conductor.submit(ResumeBackfill("fill"))
        assert (again.taken, again.text) == (True, "fill is not paused: it goes on already")
        assert conductor.work.hand.paused_because is None
        assert [note for note in step_notes(conductor) if "by wei@a" in note] == ["paused by wei@a", "resumed by wei@a"]


async def test_a_wish_to_pause_a_backfill_that_has_just_ended_starts_no_other(shop18: Shop) -> None:
    text = shop18.runbook.read_text()
    fill = text[text.index('[[phase.step]]\nid = "fill"') : text.index('[[phase.step]]\nid = "complete"')]
    again = fill.replace('id = "fill"', 'id = "refill"')
    shop18.runbook.write_text(text.replace(fill, fill + again))
    async with driven(shop18) as conductor:
        await steps_before(conductor, "refill")
        for wish in (PauseBackfill("fill"), ResumeBackfill("fill")):
            answer = await conductor.submit(wish)
            assert (answer.taken, answer.text) == (False, "fill does not run: it is done")
        assert conductor.state.step("refill").status is StepStatus.PENDING
        answer = await conductor.submit(RunStep("fill"))
        assert (answer.taken, answer.text) == (False, "fill is done already")


async def test_a_wish_about_one_backfill_is_not_fulfilled_on_another(shop18: Shop) -> None:
    async with driven(shop18) as conductor, await held_backfill(conductor):
        answer = await conductor.submit(PauseBackfill("complete"))
        assert (answer.taken, answer.text) == (False, "complete does not run: it is pending")
        assert conductor.work.hand.paused_because is None


async def test_a_failed_check_says_why_and_can_be_run_again(shop18: Shop) -> None:
    async with driven(shop18) as conductor:
        await steps_before(conductor, "complete")
        await shop18.db.sql("UPDATE users SET phone = 'wrong' WHERE id = 1")
        await conductor.submit(RunStep("complete"))
        await conductor.work.settled()
        failed = conductor.state.step("complete")
        assert failed.status is StepStatus.FAILED
        assert "the query gave 1, expected 0" in failed.text
        await shop18.db.sql("UPDATE users SET phone = legacy_phone_field WHERE id = 1")
        await step(conductor, "complete")


async def test_a_window_that_could_not_be_taken_back_whole_is_closed_as_failed(shop18: Shop) -> None:
    [revision] = (shop18.runbook.parent / "versions").glob("3f1c*")
    revision.write_text(
        revision.read_text().replace("def downgrade", "def downgrade() -> None:\n    raise Hell\ndef x")
    )
    async with driven(shop18) as conductor:
        await steps_before(conductor, "deploy")
        plan = await abort(conductor)
        assert "its downgrade raises" in plan.obstacles[0]
        assert conductor.state.open
        assert conductor.state.abort.equal is False
        assert "its downgrade raises" in conductor.state.abort.differences[0]
        answer = await conductor.submit(RunStep())
        assert (answer.taken, answer.name_needed) == (False, True)
        assert "A goes on with it" in answer.text
        assert (await conductor.submit(RunStep(confirmation=shop18.db.name))).taken
        assert conductor.state.outcome == "failed"


async def test_a_second_driver_is_refused_while_the_first_is_alive(shop18: Shop) -> None:
    async with driven(shop18):
        with pytest.raises(Refused, match="wei@a drives this window"):
            await enter(shop18.book(), SystemClock(), shop18.wish("lin@b"), lambda _: None)


async def test_a_take_over_fences_the_first_driver(shop18: Shop) -> None:
    async with driven(shop18) as first, driven(shop18, "lin@b", take_over="wei is away") as second:
        assert second.state.epoch == 2
        await until(first, lambda c: not c.feed().frame.window.driving)
        answer = await first.submit(SignOff("preview", "too late"))
        assert not answer.taken
        assert (await second.submit(SignOff("preview", "read"))).taken


async def test_a_window_let_go_of_is_rejoined_where_it_stood(shop18: Shop) -> None:
    async with driven(shop18) as conductor:
        await steps_before(conductor, "deploy")
    async with driven(shop18) as conductor:
        assert conductor.state.step("add").status is StepStatus.DONE
        assert conductor.state.epoch == 2
        await step(conductor, "deploy")


async def test_an_edited_runbook_is_not_taken_unasked(shop18: Shop) -> None:
    async with driven(shop18):
        pass
    text = shop18.runbook.read_text()
    shop18.runbook.write_text(text.replace("deploy v0.8.0", "deploy v0.9.0"))
    with pytest.raises(Refused, match=r"\+text = .deploy v0.9.0"):
        await enter(shop18.book(), SystemClock(), shop18.wish(), lambda _: None)
    async with driven(shop18, amend=True) as conductor:
        assert any(isinstance(e.fact, ev.RunbookAmended) for e in conductor.events)


def text_of(file: Path) -> str:
    return file.read_text() if file.exists() else ""


async def test_the_way_back_lies_on_paper_all_the_while(shop18: Shop) -> None:
    async with driven(shop18) as conductor:
        await steps_before(conductor, "deploy")
        seq = conductor.state.seq
        folder = conductor.ground.store.mirror.folder
        await until(conductor, lambda c: f"event {seq}" in text_of(folder / "rollback.md"))
        script, page = (folder / "rollback.sql").read_text(), (folder / "rollback.md").read_text()
        assert "DROP INDEX CONCURRENTLY idx_users_phone" in script
        assert "downgrade 9a20" in page


def step_notes(conductor: Conductor) -> list[str]:
    return [e.fact.text for e in conductor.events if isinstance(e.fact, ev.StepNoted)]


async def test_a_lock_in_the_way_is_retried_and_journalled(shop18: Shop) -> None:
    text = shop18.runbook.read_text()
    shop18.runbook.write_text(text.replace('lock_timeout = "2s"', 'lock_timeout = "200ms"'))
    holder = await shop18.db.foreign("reports", autocommit=False)
    await holder.execute("SELECT count(*) FROM users")
    async with driven(shop18) as conductor:
        await steps_before(conductor, "add")
        await conductor.submit(RunStep("add"))
        await until(conductor, lambda c: any("try 2 of" in text for text in step_notes(c)))
        await holder.rollback()
        await conductor.work.settled()
        assert conductor.state.step("add").status is StepStatus.DONE
        assert any("try 2 of" in note for note in step_notes(conductor))


async def test_a_sql_step_is_done_exactly_if_the_journal_says_so(shop18: Shop) -> None:
    async with driven(shop18) as conductor:
        await steps_before(conductor, "same")
        locker = await shop18.db.foreign("app-1", autocommit=False)
        await locker.execute("SELECT 1 FROM users LIMIT 1")
        await conductor.submit(RunStep("same"))
        await conductor.work.settled()
        assert conductor.state.step("same").status is StepStatus.FAILED
        assert "lock timeout" in conductor.state.step("same").text
        assert "app-1" in conductor.state.step("same").text
        await locker.rollback()
        await step(conductor, "same")
    assert await shop18.db.sql("SELECT 1 FROM pg_constraint WHERE conname = 'users_phone_same'")


async def test_a_role_with_settings_of_its_own_drives_a_window_all_the_same(shop18: Shop) -> None:
    name = shop18.db.name
    await shop18.db.sql(
        f"ALTER DATABASE {name} SET DateStyle = 'German, DMY'",
        f"ALTER DATABASE {name} SET TimeZone = 'Asia/Kathmandu'",
        f"ALTER DATABASE {name} SET IntervalStyle = 'sql_standard'",
        f"ALTER DATABASE {name} SET search_path = public, pg_temp",
    )
    before = await shop18.dump()
    async with driven(shop18) as conductor:
        await steps_before(conductor, "nobody")
        await abort(conductor)
        assert conductor.state.abort.equal, conductor.state.abort.differences
    assert await shop18.dump() == before


async def test_alembic_uses_the_role_that_the_runbook_gives_it(shop18: Shop) -> None:
    role, name = f"ddl_{shop18.db.name}", shop18.db.name
    await shop18.db.sql(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON DATABASE {name} TO {role}",
        f"GRANT ALL ON SCHEMA public TO {role}",
        f"ALTER TABLE alembic_version OWNER TO {role}",
        f"ALTER TABLE users OWNER TO {role}",
    )
    try:
        text = shop18.runbook.read_text()
        extra = f'migrate_dsn = "{shop18.db.dsn_as(role)}"\nlock_timeout = "2s"'
        shop18.runbook.write_text(text.replace('lock_timeout = "2s"', extra))
        async with driven(shop18) as conductor:
            await steps_before(conductor, "deploy")
            await shop18.db.sql("SELECT 1")
            owners = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'idx_users_phone'"
            assert await shop18.db.sql(owners) == [(role,)]
            await abort(conductor)
            assert conductor.state.abort.equal, conductor.state.abort.differences
    finally:
        await shop18.db.sql(f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_the_backend_that_a_person_saw_is_the_one_that_ends(shop18: Shop) -> None:
    victim = await shop18.db.foreign("reports")
    async with driven(shop18) as conductor:
        pid = victim.info.backend_pid
        await until(conductor, lambda c: any(s.pid == pid for s in c.feed().frame.snapshot.activity.rows))
        seen = next(s for s in conductor.feed().frame.snapshot.activity.rows if s.pid == pid)
        answer = await conductor.submit(
            Signal(pid, seen.backend_start, seen.query_start, "reports", seen.query, terminate=True)
        )
        assert answer.taken, answer.text
        with pytest.raises(psycopg.OperationalError):
            await victim.execute("SELECT 1")
        again = await conductor.submit(
            Signal(pid, seen.backend_start, seen.query_start, "reports", seen.query, terminate=True)
        )
        assert not again.taken
        signalled = [e.fact for e in conductor.events if isinstance(e.fact, ev.SessionSignalled)]
        assert [s.act for s in signalled] == ["terminate", "terminate"]


async def test_a_closed_window_makes_room_for_the_next(shop18: Shop) -> None:
    async with driven(shop18) as conductor:
        first = conductor.ground.store.window
        await abort(conductor)
        assert conductor.state.outcome == "aborted"
    [(outcome, closed)] = await shop18.db.sql("SELECT outcome, closed_at IS NOT NULL FROM dbwatch.window")
    assert (outcome, closed) == ("aborted", True)
    async with driven(shop18) as conductor:
        assert conductor.ground.store.window != first
        assert (await conductor.submit(SignOff("preview", "read"))).taken


async def test_a_session_can_be_ended_when_the_window_is_closed_and_that_is_told_truly(shop18: Shop) -> None:
    victim = await shop18.db.foreign("reports")
    async with driven(shop18) as conductor:
        await abort(conductor)
        pid = victim.info.backend_pid
        await until(conductor, lambda c: any(s.pid == pid for s in c.feed().frame.snapshot.activity.rows))
        seen = next(s for s in conductor.feed().frame.snapshot.activity.rows if s.pid == pid)
        answer = await conductor.submit(
            Signal(pid, seen.backend_start, seen.query_start, "reports", seen.query, terminate=True)
        )
        assert answer.taken
        assert "was terminated; not journalled: the window is closed" in answer.text
        with pytest.raises(psycopg.OperationalError):
            await victim.execute("SELECT 1")


async def test_no_step_begins_while_the_way_back_is_being_confirmed(
    shop18: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan that was shown is compared with what is there now: what began meanwhile would not be in it."""
    async with driven(shop18) as conductor:
        await steps_before(conductor, "deploy")
        shown, aborting, go = await conductor.plan_abort(), conductor.driver.aborting, asyncio.Event()
        plan = aborting.plan

        async def planned() -> AbortPlan:
            await go.wait()
            return await plan()

        monkeypatch.setattr(aborting, "plan", planned)
        await conductor.submit(Note("somebody says something"))
        confirming = asyncio.create_task(conductor.submit(Abort(shown.digest, conductor.state.database)))
        await eventually(lambda: asyncio.sleep(0, aborting.confirming))
        again = Abort(shown.digest, conductor.state.database)
        for intent in (SignOff("deploy", "it is out"), RunStep("fill"), StopOurs(), again):
            answer = await conductor.submit(intent)
            assert not answer.taken, answer.text
        go.set()
        assert (await confirming).taken
        await end_of_abort(conductor)
        assert conductor.state.abort.equal
        assert conductor.state.step("fill").attempt == 0


@pytest.mark.parametrize("begun", [RunStep("fill"), SignOff("deploy", "it is out")])
async def test_what_begins_just_as_the_way_back_is_confirmed_does_not_run_beside_it(
    shop18: Shop, begun: RunStep | SignOff
) -> None:
    """Its start is on its way into the journal by then, so nothing refuses it any more."""
    async with driven(shop18) as conductor:
        await steps_before(conductor, str(begun.step))
        shown = await conductor.plan_abort()
        slow = await shop18.db.foreign("slow", autocommit=False)
        await slow.execute("LOCK TABLE dbwatch.event IN SHARE MODE")
        beginning = asyncio.create_task(conductor.submit(begun))
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'dbwatch.event'::regclass"
        await eventually(lambda: shop18.db.sql(waiting))
        confirming = asyncio.create_task(conductor.submit(Abort(shown.digest, conductor.state.database)))
        await eventually(lambda: asyncio.sleep(0, conductor.driver.aborting.confirming))
        await slow.rollback()
        began, confirmed = await beginning, await confirming
        if isinstance(begun, SignOff):
            assert not confirmed.taken, "what was shown does not have it"
            assert "look at it again" in confirmed.text
        else:
            assert "was not begun" in began.text
            assert await shop18.db.sql("SELECT count(*) FROM users WHERE phone IS NOT NULL") == [(0,)]
            assert conductor.state.step("fill").status is StepStatus.FAILED
        if not confirmed.taken:
            plan = await begin_abort(conductor)
            assert any(a.step == "deploy" for a in plan.actions)
        await end_of_abort(conductor)
        assert conductor.state.abort.equal


async def test_what_is_stopped_before_it_has_begun_does_not_begin(shop18: Shop) -> None:
    async with driven(shop18) as conductor:
        await steps_before(conductor, "fill")
        slow = await shop18.db.foreign("slow", autocommit=False)
        await slow.execute("LOCK TABLE dbwatch.event IN SHARE MODE")
        beginning = asyncio.create_task(conductor.submit(RunStep("fill")))
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'dbwatch.event'::regclass"
        await eventually(lambda: shop18.db.sql(waiting))
        assert conductor.feed().frame.window.busy == "the beginning of fill"
        assert (await conductor.submit(RunStep("fill"))).text == "the beginning of fill is running"
        stopping = asyncio.create_task(conductor.submit(StopOurs()))
        await eventually(lambda: asyncio.sleep(0, conductor.work.unwanted))
        await slow.rollback()
        assert (await beginning).text.startswith("fill was not begun: it was stopped")
        assert (await stopping).taken
        assert conductor.state.step("fill").status is StepStatus.FAILED
        assert await shop18.db.sql("SELECT count(*) FROM users WHERE phone IS NOT NULL") == [(0,)]
        await step(conductor, "fill")
