"""Windows whose backfill keeps before-images: what the plan says of the data, and what the abort does with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import test_wayback as tw
from servers import Database
from windows import PATIENCE_S, Shop, abort, begin_abort, driven, end_of_abort, small_shop, step, steps_before, until

from dbwatch.backfill.images import Images
from dbwatch.backfill.kept import Kept
from dbwatch.backfill.keys import KeyColumn
from dbwatch.journal import events as ev
from dbwatch.journal.events import AbortFinished, StepNoted
from dbwatch.journal.fold import WindowState
from dbwatch.runbook.loader import parse
from dbwatch.window import wayback
from dbwatch.window.abort import AbortPlan, Action, ActionKind
from dbwatch.window.conductor import Conductor
from dbwatch.window.intents import Abort, CloseWindow, RunStep, SignOff, StopOurs

RUNBOOK = """
title = "names in capitals"
alembic = "alembic.ini"
rollback_budget = "5min"

[target]
dsn = "${SHOP_DSN}"

[[phase]]
name = "expand"

[[phase.step]]
id = "add"
kind = "migrate"
to = "3f1c"

[[phase]]
name = "code"

[[phase.step]]
id = "fill"
kind = "backfill"
table = "users"
set = "phone = legacy_phone_field"
where = "phone IS NULL AND legacy_phone_field IS NOT NULL"
undo = true

[[phase.step]]
id = "capitals"
kind = "backfill"
table = "public.users"
set = "name = upper(name), city = 'was ' || city"
where = "name <> upper(name)"
undo = true
batch_time = "20ms"
rollback = "tell the shop"
"""
HASH = "SELECT sum(hashtextextended(ROW(id, name, city)::text, 0))::text, count(*) FROM users"
BACK = "public.users.name, city"
"""What the progress of a way back calls its table."""
IMAGES = "SELECT count(*) FROM pg_class WHERE relname ~ '^before_' AND relkind = 'r'"


async def capitals(db: Database, folder: Path, users: int = 3000) -> Shop:
    shop = await small_shop(db, folder, users=users)
    shop.runbook.write_text(RUNBOOK)
    return shop


def restore_of(plan: AbortPlan) -> Action:
    [action] = [a for a in plan.actions if a.kind is ActionKind.RESTORE]
    return action


def filling(conductor: Conductor, rows: int = 1) -> bool:
    """Whether the backfill of names has done so many rows."""
    told = conductor.work.backfill
    return told is not None and told.images_bytes is not None and told.rows_done >= rows


def noted(conductor: Conductor, step_id: str) -> list[str]:
    return [e.fact.text for e in conductor.events if isinstance(e.fact, StepNoted) and e.fact.step == step_id]


async def test_the_abort_brings_back_what_a_backfill_overwrote(db: Database, tmp_path: Path) -> None:
    shop = await capitals(db, tmp_path)
    before, schema = await db.sql(HASH), await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, "capitals")
        await step(conductor, "capitals")
        assert await db.sql(HASH) != before
        plan = await abort(conductor)
        kinds = [a.kind for a in plan.actions]
        assert kinds == [
            ActionKind.FENCE, ActionKind.PERSON, ActionKind.RESTORE, ActionKind.DOWNGRADE, ActionKind.COMPARE,
        ]  # fmt: skip
        action = restore_of(plan)
        assert action.title == "bring back what public.users.name, city held before capitals"
        assert "3,000 rows at most, in batches" in action.notes[0]
        assert action.estimate_s is not None
        assert 0.5 < action.estimate_s < 15
        assert plan.lost == ("2,940 values of users.phone (made by add), copied from users.legacy_phone_field",)
        assert conductor.state.abort is not None
        assert conductor.state.abort.equal, conductor.state.abort.differences
        assert "3,000 rows brought back; the before-images" in conductor.state.abort.actions[2].text
        assert conductor.state.outcome == "aborted"
    assert await db.sql(HASH) == before
    assert await shop.dump() == schema
    assert await db.sql(IMAGES) == [(0,)]


async def test_a_plan_from_before_the_first_batch_brings_back_what_the_batches_overwrote_since(
    db18: Database, tmp_path: Path
) -> None:
    shop = await capitals(db18, tmp_path, users=60_000)
    before = await db18.sql(HASH)
    async with driven(shop) as conductor:
        await steps_before(conductor, "capitals")
        holder = await db18.foreign("holder", autocommit=False)
        await holder.execute("LOCK TABLE dbwatch.backfill IN SHARE ROW EXCLUSIVE MODE")
        assert (await conductor.submit(RunStep("capitals"))).taken
        plan = await conductor.plan_abort()
        assert restore_of(plan).sql == ()
        await holder.rollback()
        await until(conductor, filling)
        answer = await conductor.submit(Abort(plan.digest, conductor.state.database))
        assert answer.taken, answer.text
        await end_of_abort(conductor)
        assert conductor.state.abort is not None
        assert conductor.state.abort.equal
    assert await db18.sql(HASH) == before


async def test_an_abort_in_the_middle_of_it_brings_back_the_rows_so_far(db: Database, tmp_path: Path) -> None:
    shop = await capitals(db, tmp_path, users=60_000)
    before = await db.sql(HASH)
    async with driven(shop) as conductor:
        await steps_before(conductor, "capitals")
        assert (await conductor.submit(RunStep("capitals"))).taken
        await until(conductor, filling)
        plan = await begin_abort(conductor)
        await end_of_abort(conductor)
        kinds = [a.kind for a in plan.actions]
        assert kinds.index(ActionKind.STOP) < kinds.index(ActionKind.RESTORE) < kinds.index(ActionKind.DOWNGRADE)
        assert conductor.state.abort is not None
        assert conductor.state.abort.equal
    assert await db.sql(HASH) == before
    [(rows, restored)] = await db.sql("SELECT rows_done, restored FROM dbwatch.backfill WHERE step_id = 'capitals'")
    assert 0 < rows == restored <= 60_000


async def test_an_abort_that_is_cut_short_while_data_goes_back_goes_on_in_other_hands(
    db18: Database, tmp_path: Path
) -> None:
    """One person stops it, begins it again and leaves in the middle; the other one's dbwatch brings it to its end."""
    shop = await capitals(db18, tmp_path, users=40_000)
    before = await db18.sql(HASH)
    async with driven(shop) as conductor:
        await steps_before(conductor, "capitals")
        await step(conductor, "capitals")
        await begin_abort(conductor)
        await until_restoring(conductor, 1)
        assert (await conductor.submit(StopOurs())).taken
        await conductor.work.settled()
        assert conductor.state.abort is not None
        assert "stopped by hand" in conductor.state.abort.differences[0]
        finished = next(e.fact for e in reversed(conductor.events) if isinstance(e.fact, AbortFinished))
        assert finished.missed == []
        for intent in (RunStep(), CloseWindow(), CloseWindow("another database")):
            answer = await conductor.submit(intent)
            assert (answer.taken, answer.name_needed) == (False, True), answer.text
            assert "A goes on with it" in answer.text
        assert conductor.state.open
        plan = await begin_abort(conductor)
        assert "rows at most" in restore_of(plan).notes[0]
        await until_restoring(conductor, 10_000)
    [(restored,)] = await db18.sql("SELECT restored FROM dbwatch.backfill WHERE step_id = 'capitals'")
    assert 0 < restored < 40_000
    async with driven(shop, "lin@b") as conductor:
        await end_of_abort(conductor)
        assert conductor.state.abort is not None
        assert conductor.state.abort.equal, conductor.state.abort.differences
    assert await db18.sql(HASH) == before


async def until_restoring(conductor: Conductor, rows: int) -> None:
    """Signs the person's action off, and waits until so many rows were brought back."""
    feed = conductor.feed()
    async with asyncio.timeout(PATIENCE_S):
        while (told := conductor.work.backfill) is None or told.table != BACK or told.rows_done < rows:
            for step_id in conductor.awaited:
                await conductor.submit(SignOff(step_id, "undone"))
            await feed.next()


async def test_a_column_that_the_window_made_needs_no_images_and_those_of_a_window_that_is_done_are_dropped(
    db18: Database, tmp_path: Path
) -> None:
    shop = await capitals(db18, tmp_path)
    async with driven(shop) as conductor:
        await steps_before(conductor, "capitals")
        assert await db18.sql("SELECT step_id, images FROM dbwatch.backfill") == [("fill", None)]
        assert noted(conductor, "fill")[0] == (
            "undo: public.users.phone was made by add and goes with it, so that no before-images of it are needed"
        )
        plan = await conductor.plan_abort()
        assert not [a for a in plan.actions if a.kind is ActionKind.RESTORE]
        assert plan.lost == ("2,940 values of users.phone (made by add), copied from users.legacy_phone_field",)
        await step(conductor, "capitals")
        [note, *_] = noted(conductor, "capitals")
        assert note.startswith("undo: what name, city held before is kept in schema dbwatch, about 3")
        assert (await conductor.plan_abort()).lost == plan.lost
        assert await db18.sql(IMAGES) == [(1,)]
        answer = await conductor.submit(CloseWindow())
        assert answer.text.startswith("the window is closed: done; the before-images of public.users.name, city (")
    assert await db18.sql(IMAGES) == [(0,)]


async def test_a_column_that_stood_at_the_opening_is_not_taken_for_the_windows_own(
    db18: Database, tmp_path: Path
) -> None:
    """ADD COLUMN IF NOT EXISTS is our DDL too, and made nothing."""
    shop = await capitals(db18, tmp_path)
    add = 'id = "add"\nkind = "sql"\nsql = "ALTER TABLE users ADD COLUMN IF NOT EXISTS city text"'
    shop.runbook.write_text(
        RUNBOOK.replace('id = "add"\nkind = "migrate"\nto = "3f1c"', add)
        .replace("phone = legacy_phone_field", "city = 'none'")
        .replace("phone IS NULL AND legacy_phone_field IS NOT NULL", "city <> 'none'")
    )
    before = await db18.sql(HASH)
    async with driven(shop) as conductor:
        await steps_before(conductor, "capitals")
        assert await db18.sql(HASH) != before
        await abort(conductor)
    assert await db18.sql(HASH) == before


async def test_only_what_was_taken_back_is_told_as_undone(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    city = '[[phase.step]]\nid = "city"\nkind = "sql"\nsql = "UPDATE users SET city = \'none\'"\n'
    index = '[[phase.step]]\nid = "index"\nkind = "sql"\nsql = "CREATE INDEX users_city ON users (city)"\n'
    nothing_kept = RUNBOOK.replace("undo = true\nbatch", "batch").replace('rollback = "tell the shop"\n', "")
    shop.runbook.write_text(nothing_kept + city + index)
    async with driven(shop) as conductor:
        for id in ("add", "fill", "capitals", "city", "index"):
            await step(conductor, id)
        plan = await abort(conductor)
        assert any(lost.startswith("city: what its statement did besides the schema stays so") for lost in plan.lost)
        assert conductor.state.abort.equal, conductor.state.abort.differences
        back = {s.id: s.undone for s in conductor.state.steps.values()}
        assert back == {"add": True, "fill": True, "capitals": False, "city": False, "index": True}
    assert await db18.sql("SELECT DISTINCT city FROM users") == [("none",)]


def test_only_without_images_a_backfill_is_the_point_of_no_return() -> None:
    def first(text: str) -> tuple[str, str] | None:
        return wayback.point_of_no_return(parse(text, "runbook.toml", {}), {}, None, {}, frozenset({"users.phone"}))

    text = RUNBOOK.replace("${SHOP_DSN}", "")
    assert first(text) is None
    why = "it overwrites users.name, which existed at the opening"
    assert first(text.replace("undo = true\nbatch", "batch")) == ("capitals", why)


# --- the plan, computed


PHONE = Images("before_7", "public", "users", (KeyColumn("id", "bigint"),), ("phone",))
KEPT = Kept(7, "fill", "done", PHONE.to_json(), 3000, 0, 0, 0, 1.5, True, ["audit", "touch\n"])
BY_HAND = """UPDATE "public"."users" AS t
SET "phone" = i."old_1"
FROM "dbwatch"."before_7" AS i
WHERE t."id" = i."key_1"
    AND ROW(t."phone")::record OPERATOR(pg_catalog.*=) ROW(i."new_1")::record"""


def planned(window: WindowState, *images: Kept, undo: bool = True) -> AbortPlan:
    text = tw.RUNBOOK.replace('kind = "backfill"', 'kind = "backfill"\nundo = true') if undo else tw.RUNBOOK
    return wayback.plan(tw.situation(window, images=images, runbook=parse(text, "runbook.toml", {})))


def restores(plan: AbortPlan) -> list[Action]:
    return [action for action in plan.actions if action.kind is ActionKind.RESTORE]


def test_the_way_back_of_data_is_a_statement_an_estimate_and_what_it_fires() -> None:
    [action] = restores(planned(tw.state(*tw.done("fill")), KEPT))
    assert action == Action(
        ActionKind.RESTORE,
        "bring back what public.users.phone held before fill",
        step="fill",
        sql=(BY_HAND,),
        estimate_s=pytest.approx(0.5 + 1.2 * 1.5),  # at 2000 rows a second, a fifth dearer
        notes=(
            "3,000 rows at most, in batches; a row that somebody else changed since stays as it is",
            "each row fires, as the backfill did: audit, touch",
        ),
    )
    assert planned(tw.state(*tw.done("fill")), KEPT).lost == ()


def test_data_goes_back_after_the_application_and_before_the_schema() -> None:
    window = tw.state(*tw.done("add", "9a20", after=("3f1c",)), *tw.done("fill"), *tw.done("same"))
    assert [a.step for a in planned(window, KEPT).actions if a.step] == ["same", "fill"]


def test_what_is_kept_is_brought_back_though_a_person_has_undone_the_step() -> None:
    person = Action(ActionKind.PERSON, "undo fill", step="fill").body()
    window = tw.state(*tw.done("fill"), ev.AbortConfirmed([person], 1.0), ev.AbortActionDone(1, "undone", 1.0))
    assert window.step("fill").undone
    assert len(restores(planned(window, KEPT))) == 1


def test_a_backfill_that_runs_is_promised_its_data_before_anything_is_kept() -> None:
    running = tw.state(ev.StepStarted("fill", 1))
    [promised] = restores(planned(running))
    assert (promised.sql, promised.forecast) == ((), True)
    assert planned(running).covers(planned(tw.state(*tw.done("fill")), KEPT))
    assert restores(planned(tw.state(*tw.done("add"), tw.ADDED, ev.StepStarted("fill", 1)))) == []
    assert restores(planned(running, undo=False)) == []


def test_data_that_is_back_is_not_brought_back_again_and_images_that_are_gone_are_a_loss() -> None:
    window = tw.state(*tw.done("fill"))
    assert restores(planned(window, replace(KEPT, status="restored"))) == []
    plan = planned(window, replace(KEPT, there=False))
    assert restores(plan) == []
    assert plan.lost == ("users.phone (done): its before-images are gone; somebody dropped their table",)
