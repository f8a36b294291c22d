"""The way back, computed: tables of situations in, actions out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from servers import Database

from dbwatch.clock import SystemClock
from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.journal.chain import Event
from dbwatch.journal.fold import StepStatus, WindowState, fold
from dbwatch.migration.chain import Body, Chain, Revision
from dbwatch.migration.events import Direction
from dbwatch.migration.fingerprint import Change, Difference, Item
from dbwatch.migration.mend import Mend
from dbwatch.migration.request import RenderedStatement, RevisionSql
from dbwatch.runbook import model
from dbwatch.runbook.loader import parse
from dbwatch.runbook.model import Runbook
from dbwatch.steps.kinds import EXECUTORS, RECOVERIES
from dbwatch.window import effects, gates, wayback
from dbwatch.window.abort import AbortPlan, Action, ActionKind, Blocker
from dbwatch.window.aborting import verdict
from dbwatch.window.counting import Counter, told
from dbwatch.window.descent import WHY_NOT
from dbwatch.window.prediction import Prediction
from dbwatch.window.wayback import Situation

RUNBOOK = """
title = "users.phone"
alembic = "alembic.ini"
rollback_budget = "5min"
[[phase]]
name = "expand"
[[phase.step]]
id = "add"
kind = "migrate"
to = "3f1c"
[[phase]]
name = "code"
[[phase.step]]
id = "deploy"
kind = "manual"
text = "deploy v0.8.0"
rollback = "git checkout v0.7.0"
[[phase.step]]
id = "fill"
kind = "backfill"
table = "users"
set = "phone = legacy"
where = "phone IS NULL"
[[phase.step]]
id = "same"
kind = "sql"
sql = "ALTER TABLE users ADD CONSTRAINT same CHECK (phone = legacy) NOT VALID"
undo = "ALTER TABLE users DROP CONSTRAINT same"
[[phase]]
name = "contract"
[[phase.step]]
id = "drop"
kind = "migrate"
to = "head"
"""
AT = datetime(2026, 1, 1, 21, 4, 10, tzinfo=UTC)
ADDED = ev.DdlSeen(
    "add",
    1,
    1,
    "3f1c",
    "ALTER TABLE users ADD COLUMN phone varchar(20)",
    False,
    True,
    True,
    [{"action": "create", "kind": "column", "schema": None, "name": "phone", "parent": "users", "oid": 1}],
)


REPORTS = Blocker(47110, AT, None, "reports", "idle in transaction", 31.5, "SELECT 1", "users")


def runbook() -> Runbook:
    return parse(RUNBOOK, "runbook.toml", {})


def state(*facts: ev.Fact) -> WindowState:
    events: list[Event] = []
    opened = ev.WindowOpened("users.phone", "shop", ["9a20"], "sha", "digest")
    for seq, fact in enumerate((opened, *facts), 1):
        prev = events[-1].hash if events else ""
        events.append(chain.make(fact, seq=seq, at=AT, actor="wei@a", epoch=3, prev_hash=prev))
    return fold(events)


def done(step: str, *heads: str, after: tuple[str, ...] = ()) -> tuple[ev.Fact, ev.Fact]:
    return ev.StepStarted(step, 1, list(heads)), ev.StepDone(step, 1, "done", 4.0, list(after))


def down(revision: str, *statements: str, trouble: str = "") -> RevisionSql:
    return RevisionSql(revision, Direction.DOWN, tuple(RenderedStatement(s, True) for s in statements), trouble)


def up(revision: str, *statements: str) -> RevisionSql:
    return RevisionSql(revision, Direction.UP, tuple(RenderedStatement(s, True) for s in statements), "")


def situation(window: WindowState, **given: Any) -> Situation:
    return replace(
        Situation(window, runbook(), "shop@prod-db1 (primary, 16.4)", frozenset({"9a20"}), opened="21:04:10"), **given
    )


def left(kind: str, name: str, sql: str) -> Mend:
    item = Item(f"{kind} public.{name}", kind, "public", name, "users", "table public.users", 1, "")
    return Mend(Difference(item.key, Change.ADDED, "", "", 1, item), (sql,))


def kinds(plan: AbortPlan) -> list[tuple[ActionKind, str]]:
    return [(a.kind, a.step) for a in plan.actions]


def test_a_window_that_did_nothing_is_fenced_and_compared() -> None:
    plan = wayback.plan(situation(state()))
    assert kinds(plan) == [(ActionKind.FENCE, ""), (ActionKind.COMPARE, "")]
    assert plan.actions[0].title == "fence: epoch 3 → 4, nothing older can commit"
    assert "21:04:10" in plan.actions[1].title


def test_the_application_goes_back_before_the_schema_that_it_needs() -> None:
    window = state(*done("add", "9a20", after=("3f1c",)), ADDED, ev.StepDone("deploy", 1, "wei: done", 0.0))
    downgrades = {"add": (down("3f1c", "DROP INDEX CONCURRENTLY i", "ALTER TABLE users DROP COLUMN phone"),)}
    plan = wayback.plan(situation(window, downgrades=downgrades, heads=frozenset({"3f1c"})))
    assert kinds(plan) == [
        (ActionKind.FENCE, ""),
        (ActionKind.PERSON, "deploy"),
        (ActionKind.DOWNGRADE, "add"),
        (ActionKind.COMPARE, ""),
    ]
    downgrade = plan.actions[2]
    assert downgrade.title == "downgrade 3f1c → 9a20"
    assert downgrade.heads == ("9a20",)
    assert downgrade.sql == ("DROP INDEX CONCURRENTLY i", "ALTER TABLE users DROP COLUMN phone")


def test_a_step_that_was_run_again_goes_back_to_where_its_first_attempt_began() -> None:
    failed = ev.StepFailed("add", 1, "lock timeout; committed before: 3f1c", 2.0, again=True)
    again = (ev.StepStarted("add", 2, ["3f1c"]), ev.StepDone("add", 2, "at 5e07", 4.0, ["5e07"]))
    window = state(ev.StepStarted("add", 1, ["9a20"]), failed, *again)
    assert (window.step("add").heads_before, window.step("add").heads_after) == (("9a20",), ("5e07",))
    downgrades = {"add": (down("5e07", "DROP INDEX i"), down("3f1c", "ALTER TABLE users DROP COLUMN phone"))}
    plan = wayback.plan(situation(window, downgrades=downgrades, heads=frozenset({"5e07"})))
    assert plan.actions[1].heads == ("9a20",)


def test_a_step_that_was_taken_back_begins_anew_where_it_begins() -> None:
    confirmed = ev.AbortConfirmed([Action(ActionKind.DOWNGRADE, "downgrade", step="add", heads=("9a20",)).body()], 1.0)
    taken_back = (confirmed, ev.AbortActionDone(1, "at 9a20", 1.0))
    window = state(*done("add", "9a20", after=("3f1c",)), *taken_back, ev.StepStarted("add", 2, ["8b10"]))
    assert window.step("add").heads_before == ("8b10",)


def test_what_runs_is_stopped_and_its_leftovers_go_first() -> None:
    window = state(ev.StepStarted("add", 1, ["9a20"]), ADDED)
    behind = (
        left("index", "idx", "DROP INDEX CONCURRENTLY idx"),
        left("column", "phone", "ALTER TABLE users DROP COLUMN phone"),
    )
    plan = wayback.plan(situation(window, leftovers=behind, running="CREATE INDEX CONCURRENTLY idx"))
    assert kinds(plan) == [
        (ActionKind.FENCE, ""),
        (ActionKind.STOP, "add"),
        (ActionKind.CLEAN, ""),
        (ActionKind.COMPARE, ""),
    ]
    assert plan.actions[2].sql == ("DROP INDEX CONCURRENTLY idx", "ALTER TABLE users DROP COLUMN phone")


def test_a_backfill_into_a_column_of_the_window_loses_nothing_that_was_there() -> None:
    window = state(*done("add", "9a20"), ADDED, *done("fill"))
    assert "made by add, goes with the column" in wayback.plan(situation(window)).lost[0]


def test_what_a_running_backfill_loses_is_told_without_the_last_remark_on_its_pace() -> None:
    running = state(*done("add", "9a20"), ADDED, ev.StepStarted("fill", 1, ["3f1c"]), ev.StepNoted("fill", "gentler"))
    assert wayback.plan(situation(running)).lost == ("users.phone: made by add, goes with the column",)


def test_a_backfill_over_values_that_existed_is_said_to_lose_them() -> None:
    window = state(*done("fill"))
    assert "what it held before is not kept" in wayback.plan(situation(window)).lost[0]


def test_a_sql_step_is_undone_by_its_own_undo() -> None:
    plan = wayback.plan(situation(state(*done("same"))))
    assert plan.actions[1].sql == ("ALTER TABLE users DROP CONSTRAINT same",)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (Body.MISSING, "it has no downgrade"),
        (Body.RAISES, "its downgrade raises"),
        (Body.NOOP, "its downgrade does nothing"),
    ],
)
def test_a_downgrade_that_is_none_is_an_obstacle(body: Body, why: str) -> None:
    chain = Chain(
        (Revision("9a20", (), "", "", Body.BODY, Body.BODY), Revision("3f1c", ("9a20",), "", "", Body.BODY, body)),
        frozenset({"3f1c"}),
        frozenset({"3f1c"}),
        "alembic_version",
        None,
        False,
        (),
        "",
    )
    window = state(*done("add", "9a20"), ADDED)
    plan = wayback.plan(situation(window, downgrades={"add": (down("3f1c"),)}, chain=chain, heads=frozenset({"3f1c"})))
    assert why in plan.obstacles[0]
    assert plan.prediction.stops.startswith(f"above 3f1c: {why}")
    assert plan.prediction.heads == ("3f1c",)
    assert ActionKind.DOWNGRADE not in [kind for kind, _ in kinds(plan)]
    upgrades = {"add": (up("3f1c", "ALTER TABLE users ADD COLUMN phone text"),)}
    assert wayback.point_of_no_return(runbook(), upgrades, chain, {}) == ("add", f"3f1c: {WHY_NOT[body]}")


def test_the_point_of_no_return_is_the_first_step_that_destroys_what_was_there() -> None:
    created = frozenset({"users.phone"})
    drops = {"drop": "users.legacy"}
    assert wayback.point_of_no_return(runbook(), {}, None, drops, created) == (
        "drop",
        "it drops users.legacy, which held rows before this window",
    )
    found = wayback.point_of_no_return(runbook(), {}, None, drops)
    assert found is not None
    assert found[0] == "fill"


def test_a_plan_is_named_by_what_it_does_not_by_what_changes_each_second() -> None:
    window = state(*done("add", "9a20"))
    rendered = {"add": (down("3f1c", "ALTER TABLE users DROP COLUMN phone"),)}
    one = wayback.plan(situation(window, downgrades=rendered))
    waits = wayback.plan(situation(window, downgrades=rendered, holders={"add": (REPORTS,)}))
    other = wayback.plan(situation(window, downgrades={"add": (down("3f1c", "DROP TABLE users"),)}))
    assert one.digest == waits.digest
    assert one.digest != other.digest


def test_a_plan_that_was_shown_stays_good_when_there_is_less_to_do() -> None:
    rendered = {"add": (down("3f1c", "ALTER TABLE users DROP COLUMN phone"),)}
    running = state(*done("add", "9a20"), ev.StepStarted("fill", 1))
    shown = wayback.plan(situation(running, downgrades=rendered))
    ended = state(*done("add", "9a20"), *done("fill"))
    assert shown.covers(wayback.plan(situation(ended, downgrades=rendered)))
    further = state(*done("add", "9a20"), *done("fill"), *done("same"))
    assert not shown.covers(wayback.plan(situation(further, downgrades=rendered)))


def test_a_plan_survives_the_journal() -> None:
    waits = REPORTS
    foreseen = Prediction(("9a20",), False, ("type public.state",), ("index public.theirs",), "above 3f1c", ("why",))
    action = Action(ActionKind.DOWNGRADE, "d", "add", ("DROP",), ("9a20",), 2.0, ("n",), ("AE on users",), (waits,))
    plan = AbortPlan("shop", "shop@db1", 7, (action,), ("lost",), ("in the way",), 300.0, (47110,), foreseen)
    assert AbortPlan.of(json.loads(json.dumps(plan.body()))) == plan


def test_an_action_survives_the_journal() -> None:
    for action in wayback.plan(situation(state(ev.StepStarted("add", 1, ["9a20"]), ADDED))).actions:
        assert Action.of(action.body()) == action


def test_a_step_taken_back_is_not_taken_back_again() -> None:
    confirmed = ev.AbortConfirmed([Action(ActionKind.DOWNGRADE, "downgrade", step="add", heads=("9a20",)).body()], 1.0)
    window = state(
        *done("add", "9a20"), confirmed, ev.AbortActionDone(1, "at 9a20", 1.0), ev.AbortFinished(False, ["x"], 2.0)
    )
    plan = wayback.plan(situation(window, downgrades={}))
    assert kinds(plan) == [(ActionKind.FENCE, ""), (ActionKind.COMPARE, "")]


def test_a_step_is_undone_once_all_that_takes_it_back_is_done() -> None:
    actions = [
        Action(ActionKind.PERSON, "undo add: tell the shop", step="add"),
        Action(ActionKind.DOWNGRADE, "downgrade", step="add", heads=("9a20",)),
    ]
    confirmed = ev.AbortConfirmed([action.body() for action in actions], 1.0)
    person, downgrade = ev.AbortActionDone(1, "told", 1.0), ev.AbortActionDone(2, "at 9a20", 1.0)
    assert not state(*done("add", "9a20"), confirmed, person).step("add").undone
    assert state(*done("add", "9a20"), confirmed, person, downgrade).step("add").undone


def test_a_step_that_went_back_only_as_far_as_it_could_is_not_undone() -> None:
    barred = Action(ActionKind.DOWNGRADE, "downgrade 5e07 → 3f1c", step="add", heads=("3f1c",)).body()
    window = state(*done("add", "9a20"), ev.AbortConfirmed([barred], 1.0), ev.AbortActionDone(1, "at 3f1c", 1.0))
    assert not window.step("add").undone


def test_the_end_of_an_abort_takes_back_what_it_says_and_nothing_else() -> None:
    begun = (*done("add", "9a20"), *done("fill"), ev.AbortConfirmed([], 1.0))
    ended = state(*begun, ev.AbortFinished(True, [], 2.0, undone=["add"]))
    assert (ended.step("add").undone, ended.step("fill").undone) == (True, False)
    older = state(*begun, ev.AbortFinished(True, [], 2.0))
    assert older.step("fill").undone, "as the version said that wrote it"


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("ALTER TABLE users ADD CONSTRAINT same CHECK (phone = legacy) NOT VALID", True),
        ("CREATE INDEX CONCURRENTLY i ON users (phone)", True),
        ("ALTER TABLE users ADD x int; -- ä\nCREATE INDEX i ON users (x);", True),
        ("VACUUM ANALYZE users", True),
        ("REFRESH MATERIALIZED VIEW totals", True),
        ("UPDATE users SET phone = legacy", False),
        ("DELETE FROM users", False),
        ("TRUNCATE users", False),
        ("WITH gone AS (DELETE FROM users RETURNING *) SELECT * FROM gone", False),
        ("SELECT setval('users_id_seq', 1)", False),
        ("DO $$ BEGIN DELETE FROM users; END $$", False),
        ("ALTER TABLE users ADD x int; -- ä\nUPDATE users SET x = 1", False),
        ("no SQL at all", False),
    ],
)
def test_only_the_grammar_proves_that_a_statement_changes_the_schema_alone(text: str, alone: bool) -> None:
    assert effects.schema_alone(text) is alone


def with_sql(sql: str, more: str = "") -> Runbook:
    """The runbook with another statement in its sql step, and another way back of it."""
    start, _, end = RUNBOOK.partition('sql = "ALTER TABLE users ADD CONSTRAINT')
    return parse(f'{start}sql = "{sql}"\n{more}\n{end[end.index("[[phase]]") :]}', "runbook.toml", {})


def test_what_a_statement_did_to_the_data_is_lost_where_nothing_takes_it_back() -> None:
    update, said = "UPDATE users SET legacy = 'x'", "same: what its statement did besides the schema stays so"
    maybe = (ev.StepStarted("same", 1), ev.StepUnknown("same", 1, "cut off"))
    for facts in (done("same"), maybe):
        assert wayback.plan(situation(state(*facts), runbook=with_sql(update))).lost[0].startswith(said)
    for book in (
        with_sql("CREATE INDEX i ON users (legacy)"),
        with_sql(update, 'undo = "UPDATE users SET legacy = 1"'),
    ):
        assert wayback.plan(situation(state(*done("same")), runbook=book)).lost == ()
    failed = state(ev.StepStarted("same", 1), ev.StepFailed("same", 1, "rolled back", 1.0, again=True))
    assert wayback.plan(situation(failed, runbook=with_sql(update))).lost == ()


def test_a_statement_that_nothing_takes_back_is_the_point_of_no_return() -> None:
    def first(book: Runbook, **drops: str) -> str:
        found = wayback.point_of_no_return(book, {}, None, drops, frozenset({"users.phone"}))
        return found[0] if found else ""

    assert first(with_sql("UPDATE users SET legacy = 'x'")) == "same"
    assert first(with_sql("UPDATE users SET legacy = 'x'", 'rollback = "load the backup"')) == ""
    assert first(with_sql("ALTER TABLE users DROP legacy"), same="users.legacy") == "same"
    assert first(runbook()) == ""


def test_a_statement_that_was_rolled_back_has_not_passed_the_point_of_no_return() -> None:
    book, started = with_sql("UPDATE users SET legacy = 'x'"), ev.StepStarted("same", 1)

    def reversible(*facts: ev.Fact) -> bool:
        window = state(*facts)
        return verdict(wayback.plan(situation(window, runbook=book)), ("same", "for good"), book, window).reversible

    assert reversible()
    assert not reversible(started)
    assert reversible(started, ev.StepFailed("same", 1, "rolled back", 1.0, again=True))
    assert not reversible(started, ev.StepUnknown("same", 1, "cut off"))
    assert not gates.may_have_done(state(), with_sql("ALTER SYSTEM SET work_mem = '8MB'"), "same")
    failed = state(started, ev.StepFailed("same", 1, "stopped", 1.0, again=True))
    assert gates.may_have_done(failed, with_sql("ALTER SYSTEM SET work_mem = '8MB'"), "same"), "it stands alone"


def test_a_person_undoes_also_what_nobody_knows_to_have_taken_effect() -> None:
    book = with_sql("UPDATE users SET legacy = 'x'", 'rollback = "load the backup"')
    window = state(ev.StepStarted("same", 1), ev.StepUnknown("same", 1, "cut off"))
    assert kinds(wayback.plan(situation(window, runbook=book)))[1] == (ActionKind.PERSON, "same")


def test_big_statements_are_estimated_by_the_rows_they_touch() -> None:
    rows = {"users": 500_000}
    assert wayback.estimate("UPDATE users SET legacy = phone", rows) == pytest.approx(5.2)
    assert wayback.estimate("ALTER TABLE users DROP COLUMN phone", rows) == pytest.approx(0.2)


def test_steps_come_in_their_order_and_once() -> None:
    book = runbook()
    add, deploy = book.step("add"), book.step("deploy")
    assert gates.refusal(state(), book, add) == ""
    assert gates.refusal(state(), book, deploy) == "add comes first"
    assert gates.refusal(state(*done("add")), book, add) == "add is done already"
    assert gates.refusal(state(ev.StepStarted("add", 1)), book, deploy) == "add is running"
    unsafe = state(ev.StepStarted("add", 1), ev.StepFailed("add", 1, "left behind: x", 1.0, again=False))
    assert "not safe" in gates.refusal(unsafe, book, add)
    again = state(ev.StepStarted("add", 1), ev.StepFailed("add", 1, "lock timeout", 1.0, again=True))
    assert gates.refusal(again, book, add) == ""
    assert gates.refusal(state(ev.WindowClosed("done")), book, add) == "the window is closed"


def test_b_starts_the_backfill_whose_turn_it_is() -> None:
    book = runbook()
    assert gates.next_backfill(state(), book) == "add comes before fill"
    reached = state(*done("add"), ev.StepDone("deploy", 1, "", 0.0))
    assert gates.next_backfill(reached, book) == book.step("fill")
    assert gates.next_backfill(state(*done("add"), *done("deploy"), *done("fill")), book) == "no backfill is left to do"


def test_an_unknown_step_waits_for_a_person() -> None:
    book = runbook()
    window = state(*done("add"), ev.StepStarted("deploy", 1), ev.StepUnknown("deploy", 1, "nobody saw it"))
    assert window.step("deploy").status is StepStatus.UNKNOWN
    assert "nobody knows" in gates.refusal(window, book, book.step("deploy"))
    assert gates.sign_off_refusal(window, book, book.step("deploy")) == ""


def test_a_word_given_before_the_runbook_was_amended_begins_nothing() -> None:
    add = parse(RUNBOOK.replace('to = "3f1c"', 'to = "3f1c"\nconfirm = "navigator"'), "runbook.toml", {}).step("add")
    asked, given = ev.ConfirmationAsked("add", "the runbook asks for it"), ev.ConfirmationGiven("add", 2)
    amended = ev.RunbookAmended("other", "+to = 7be4")
    assert gates.unconfirmed(state(asked, given), add) == ""
    for facts in ((asked, given, amended), (asked, amended, given)):
        assert state(*facts).proposal is None
        assert gates.unconfirmed(state(*facts), add) == "add waits for a second person's word"


def test_every_kind_of_step_has_a_spec_an_executor_and_a_recovery() -> None:
    assert set(model.KINDS) == set(EXECUTORS) == set(RECOVERIES)


async def test_what_would_be_lost_is_counted_anew_while_it_grows(db18: Database) -> None:
    await db18.sql("CREATE TABLE u (v int)", "INSERT INTO u VALUES (1)")
    counter, place = Counter(db18.connector, SystemClock()), ("public", "u", "v")
    assert await counter.values([place]) == {place: 1}
    await db18.sql("INSERT INTO u SELECT generate_series(1, 99)")
    assert await counter.values([place]) == {place: 100}
    await db18.sql("INSERT INTO u SELECT generate_series(1, 20000)")
    assert told((await counter.values([place]))[place]) == "more than 10,000 values"
