"""The dialogs: what will be done is shown as it is now, and only that is confirmed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import fakefeed as ff
import pytest
from seat import NARROW, WIDE, Seat, seat, wait_for
from textual.widgets import Input

from dbwatch.errors import DbwatchError
from dbwatch.journal import events as ev
from dbwatch.monitor.samples import Activity, Snapshot, Status
from dbwatch.tui.dialogs.abort import REFRESH_S, AbortDialog
from dbwatch.tui.dialogs.abort_text import Mode, abort_text, in_the_way_now, mode_of, plan_text, planned_in_the_way
from dbwatch.tui.dialogs.signal import SignalDialog, Target, locks_of, session_text, target_now
from dbwatch.window import intents
from dbwatch.window.abort import AbortPlan, Action, ActionKind
from dbwatch.window.feed import Frame
from dbwatch.window.prediction import Prediction

FRAMES = ff.frames()


def changed(name: str, pid: int, **changes: object) -> Frame:
    """The frame *name*, with the session *pid* changed; or without it."""
    frame = FRAMES[name]
    view = frame.snapshot.activity
    rows = [replace(r, **changes) if r.pid == pid else r for r in view.rows if changes or r.pid != pid]  # type: ignore[arg-type]  # by name
    return replace(frame, snapshot=replace(frame.snapshot, activity=replace(view, rows=tuple(rows))))


def session(frame: Frame, pid: int) -> Activity:
    return next(row for row in frame.snapshot.activity.rows if row.pid == pid)


SHARE = "AccessShareLock"


def locked(modes: dict[int, tuple[str, bool]]) -> Snapshot:
    """The poll of a migration, in which these sessions hold (True) or want a mode on users, in this order."""
    snapshot = FRAMES["migrating"].snapshot
    assert snapshot.at is not None
    rows = {lock.pid: lock for lock in snapshot.locks.rows}
    locks = tuple(
        replace(rows[pid], mode=mode, granted=granted, waitstart=snapshot.at - timedelta(seconds=60 - number))
        for number, (pid, (mode, granted)) in enumerate(modes.items())
    )
    return replace(snapshot, locks=replace(snapshot.locks, rows=locks))


# The look at a session


def test_the_session_is_shown_with_all_that_decides() -> None:
    frame = FRAMES["migrating"]
    told = session_text(session(frame, 47110), frame.snapshot, 75).plain
    parts = (
        "47110, connected since 2026-03-14 20:04:10", "app on shop, reports", "10.0.0.7", "AccessShare on users",
        "idle in transaction, waits on Client ClientRead", "query 31 s, transaction 31 s", "3 sessions",
        "SELECT u.id, sum(o.total) FROM users u JOIN orders",
    )  # fmt: skip
    assert [part for part in parts if part not in told] == []


def test_what_a_session_wants_is_told_apart_from_what_it_holds() -> None:
    held = locks_of(FRAMES["migrating"].snapshot, 48213)
    assert (held.holds, held.wants, held.waiting) == ("", "AccessExclusive on users", 2)


def test_only_a_session_whose_locks_conflict_with_what_another_wants_blocks_it() -> None:
    building = locked({47110: (SHARE, True), 47311: ("RowExclusiveLock", True), 48213: ("ShareLock", False)})
    assert [locks_of(building, pid).waiting for pid in (47110, 47311)] == [0, 1]
    assert "blocks   1 session," in session_text(session(FRAMES["migrating"], 47311), building, 75).plain
    assert "blocks" not in session_text(session(FRAMES["migrating"], 47110), building, 75).plain


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"status": Status.ERROR, "reason": "too slow", "taken": 86.0}, "locks    ▲ stale 14 s (too slow)"),
        ({"status": Status.LOCKED, "reason": "a lock is in the way"}, "locks    ▲ locked: a lock is in the way"),
        ({"reason": "5,000 of 5,512 locks shown"}, "locks    ▲ 5,000 of 5,512 locks shown"),
        ({"taken": 86.0}, "locks    ▲ 14 s old"),
        ({}, ""),
    ],
)
def test_locks_that_are_not_the_present_say_so(changes: dict[str, object], told: str) -> None:
    snapshot = FRAMES["migrating"].snapshot
    snapshot = replace(snapshot, locks=replace(snapshot.locks, **changes))  # type: ignore[arg-type]  # by name
    said = session_text(session(FRAMES["migrating"], 47110), snapshot, 75).plain
    assert told in said
    assert told or "▲" not in said


@pytest.mark.parametrize(
    ("now", "target"),
    [
        (FRAMES["migrating"], Target.SAME),
        (changed("migrating", 47110, query="COMMIT", query_start=ff.T0 + timedelta(hours=1)), Target.MOVED),
        (changed("migrating", 47110), Target.GONE),
        (changed("migrating", 47110, backend_start=ff.T0), Target.GONE),
        (FRAMES["window, server lost"], Target.UNSEEN),
    ],
    ids=["same", "moved", "gone", "pid used again", "unseen"],
)
def test_what_has_become_of_the_session(now: Frame, target: Target) -> None:
    assert target_now(now.snapshot, session(FRAMES["migrating"], 47110)) is target


async def test_a_session_is_cancelled_by_y_alone() -> None:
    async with seat("migrating", WIDE) as at:
        shown = session(FRAMES["migrating"], 47110)
        await at.press("C", "enter", "n", "C")
        assert at.desk.asked == []
        await at.press("y")
        assert at.desk.asked == [
            intents.Signal(47110, shown.backend_start, shown.query_start, "reports", shown.query, terminate=False)
        ]


async def test_a_cancel_of_a_session_that_runs_nothing_says_so_and_offers_the_other() -> None:
    async with seat("migrating", NARROW) as at:
        await at.press("2", "C")
        assert "It runs no query: a cancel does nothing to it." in at.text
        await at.press("K")
        assert "Terminate this session?" in at.text
        assert at.desk.asked == []
        await at.press("y")
        [signal] = at.desk.asked
        assert isinstance(signal, intents.Signal)
        assert signal.terminate


async def test_our_own_session_is_told_as_ours() -> None:
    async with seat("migrating", WIDE) as at:
        await at.press("down", "K")
        assert "one of dbwatch's own sessions" in at.text


async def test_a_session_that_changed_its_query_is_looked_at_again_first() -> None:
    async with seat("migrating", WIDE) as at:
        await at.press("K")
        await at.push(changed("migrating", 47110, query="DELETE FROM carts", query_start=ff.T0 + timedelta(hours=1)))
        assert "Its query changed while you looked at it" in at.text
        assert "DELETE FROM carts" in at.text
        await at.press("y")
        assert at.desk.asked == []
        await at.press("r", "y")
        [signal] = at.desk.asked
        assert isinstance(signal, intents.Signal)
        assert (signal.query, signal.query_start) == ("DELETE FROM carts", ff.T0 + timedelta(hours=1))


async def test_a_session_that_has_gone_cannot_be_shot_at() -> None:
    async with seat("migrating", WIDE) as at:
        await at.press("K")
        await at.push(changed("migrating", 47110))
        assert "The session is gone; there is nothing left to do." in at.text
        await at.press("y", "r", "y")
        assert at.desk.asked == []
        await at.press("escape")
        assert len(at.app.screen_stack) == 1


async def test_without_a_connection_the_dialog_says_that_it_is_not_the_present() -> None:
    async with seat("migrating", WIDE) as at:
        await at.press("K")
        lost = FRAMES["migrating"].snapshot
        lost = replace(lost, connected=False, trouble="reconnecting, try 3")
        await at.push(replace(FRAMES["migrating"], snapshot=lost))
        assert "◌ Not the present: reconnecting, try 3" in at.text
        failed = replace(lost, connected=True, activity=replace(lost.activity, status=Status.ERROR, reason="too slow"))
        await at.push(replace(FRAMES["migrating"], snapshot=failed))
        assert "◌ Not the present: too slow" in at.text


# The abort


def test_the_plan_is_shown_whole() -> None:
    told = plan_text(ff.PLAN, FRAMES["migrating"].snapshot, 75).plain
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert lines[0] == "shop@prod-db1 (primary, 16.4) estimated 0:33 of 5:00"
    assert "3 undo deploy: git checkout v0.7.0; docker compose up -d (a person) ?" in lines
    assert "4 downgrade 3f1c → 9a20 0:30" in lines
    assert "ALTER TABLE users DROP COLUMN phone;" in lines
    assert "ACCESS EXCLUSIVE on users (reads and writes wait)" in lines
    assert "▲ would wait for 47110 reports, idle in transaction 31 s, holds users:" in lines
    assert "afterwards: at 9a20, the schema equals the opening's" in lines
    assert "lost: 612,340 values of users.phone (made by add), copied from" in lines


def test_a_plan_over_its_budget_says_so() -> None:
    assert (
        "estimated 0:33 of 0:10 OVER"
        in plan_text(replace(ff.PLAN, budget_s=10.0), FRAMES["filling"].snapshot, 75).plain
    )


def test_an_obstacle_is_told() -> None:
    plan = replace(ff.PLAN, obstacles=("the downgrade of 77aa drops values that nothing else holds",))
    assert (
        "✗ the downgrade of 77aa drops values that nothing else holds"
        in plan_text(plan, FRAMES["filling"].snapshot, 75).plain
    )


@pytest.mark.parametrize(
    ("name", "mode"),
    [("filling", Mode.PLAN), ("aborting", Mode.GOING), ("abort waits for a person", Mode.GOING),
     ("abort stuck", Mode.STUCK), ("not back", Mode.STUCK), ("back", Mode.OVER)],
)  # fmt: skip
def test_what_the_abort_dialog_shows(name: str, mode: Mode) -> None:
    assert mode_of(FRAMES[name].window) is mode


def test_each_action_tells_its_state_and_its_time() -> None:
    view = FRAMES["abort waits for a person"].window
    assert view is not None
    lines = [" ".join(line.split()) for line in abort_text(view, 75).plain.splitlines()]
    assert "✓ 1 fence epoch 3 → 4 0.2 s" in lines
    assert "▶ 3 undo deploy: git checkout v0.7.0; docker compose up -d 6:41 …" in lines
    assert "○ 4 downgrade 3f1c → 9a20 ~0:30" in lines
    assert "▲ Waits for a person: undo deploy: git checkout v0.7.0; docker compose up" in lines


def test_a_downgrade_that_waits_says_for_whom() -> None:
    frame = FRAMES["abort stuck"]
    assert frame.window is not None
    assert frame.window.state.abort is not None
    downgrading = ff.window(*[e.fact for e in frame.window.events[1:-2]], migration=ff.MIGRATING)
    waits = in_the_way_now(downgrading, frame.snapshot)
    assert [one.pid for one in waits] == [47110]
    told = abort_text(downgrading, 75, waits, 47110).plain
    assert "▶ ▲ waits for 47110 reports, idle in transaction 31 s, holds users:" in told


@pytest.mark.parametrize(
    ("modes", "told"),
    [
        ({47110: (SHARE, True), 47311: ("RowExclusiveLock", True), 48213: ("ShareLock", False)},
         {47311: "holds users"}),
        ({47110: (SHARE, True), 47311: ("AccessExclusiveLock", False), 48213: ("RowExclusiveLock", False)},
         {47311: "waits ahead for users"}),
    ],
    ids=["holders", "a queue"],
)  # fmt: skip
def test_a_downgrade_waits_only_for_those_whose_locks_conflict(
    modes: dict[int, tuple[str, bool]], told: dict[int, str]
) -> None:
    frame = FRAMES["abort stuck"]
    assert frame.window is not None
    facts = [e.fact for e in frame.window.events[1:-2]]
    downgrading = ff.window(*facts, migration=replace(ff.MIGRATING, waits_for=""))
    waits = in_the_way_now(downgrading, locked(modes))
    assert {one.pid: has for one in waits for has in told.values() if has in one.words} == told
    assert len(waits) == len(told)


def test_the_verdict_is_proof_or_what_differs() -> None:
    back, not_back = FRAMES["back"].window, FRAMES["not back"].window
    assert back is not None
    assert not_back is not None
    assert "✓ back: the schema equals the one of 21:04:10, 0:38 of 5:00" in abort_text(back, 75).plain
    told = abort_text(not_back, 75).plain
    assert "✗ NOT back after 0:38 of 5:00:" in told
    assert "index idx_users_phone is left" in told


async def confirm(at: Seat, name: str) -> None:
    await at.press("A")
    await wait_for(lambda: "1 fence epoch" in at.text)
    await at.press(*name, "enter")


async def test_the_abort_begins_when_the_databases_name_is_typed_under_the_plan() -> None:
    async with seat("filling", NARROW) as at:
        await confirm(at, "shop")
        assert at.desk.asked == [intents.Abort(ff.PLAN.digest, "shop")]
        await at.push(FRAMES["aborting"])
        assert "▶ 1 fence epoch 3 → 4" in at.text
        assert "Type the database's name" not in at.text
        await at.push(FRAMES["back"])
        assert "✓ back: the schema equals the one of 21:04:10, 0:38 of 5:00" in at.text
        await at.press("escape")
        assert "◀ BACK" in at.text


@pytest.mark.parametrize("name", ["shopp", "SHOP", "prod-db1", " ", ""])
async def test_another_name_begins_nothing(name: str) -> None:
    async with seat("filling", WIDE) as at:
        await confirm(at, name)
        assert at.desk.asked == []
        if name.strip():
            at.app._tick()
            await at.pilot.pause()
            assert "nothing was begun" in at.text


async def test_a_plan_that_changes_is_looked_at_again() -> None:
    async with seat("filling", WIDE) as at:
        await at.press("A")
        await wait_for(lambda: "1 fence epoch" in at.text)
        at.desk.plan = replace(ff.PLAN, actions=ff.PLAN.actions[1:])
        at.clock.at += REFRESH_S
        at.app._tick()
        await wait_for(lambda: "The plan has changed" in at.text)
        assert "fence epoch" not in at.text
        await at.press(*"shop", "enter")
        assert at.desk.asked == [intents.Abort(at.desk.plan.digest, "shop")]


async def test_the_plan_does_not_change_under_the_fingers() -> None:
    async with seat("filling", WIDE) as at:
        await at.press("A")
        await wait_for(lambda: "1 fence epoch" in at.text)
        await at.press(*"sho")
        at.desk.plan = replace(ff.PLAN, actions=ff.PLAN.actions[1:])
        at.clock.at += 10 * REFRESH_S
        at.app._tick()
        await at.pilot.pause()
        assert "1 fence epoch" in at.text
        await at.press("p", "enter")
        assert at.desk.asked == [intents.Abort(ff.PLAN.digest, "shop")]


class Slow(ff.FakeDesk):
    """Takes its time to tell the way back, once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.tells, self.asked_again = asyncio.Event(), asyncio.Event()
        self.tells.set()

    async def plan_abort(self) -> AbortPlan:
        if not self.tells.is_set():
            self.asked_again.set()
        await self.tells.wait()
        return self.plan


LONG = replace(
    ff.PLAN,
    actions=(*ff.PLAN.actions, *(Action(ActionKind.PERSON, f"undo s{n}: by hand", step=f"s{n}") for n in range(30))),
)


@pytest.mark.parametrize("plan", [ff.PLAN, LONG], ids=["the same", "another"])
async def test_a_plan_that_arrives_while_the_name_is_typed_is_not_begun_by_what_was_typed_before(
    plan: AbortPlan,
) -> None:
    desk = Slow()
    async with seat("filling", NARROW, desk=desk) as at:
        await at.press("A")
        await wait_for(lambda: "1 fence epoch" in at.text)
        desk.plan = plan
        desk.tells.clear()
        at.clock.at += REFRESH_S
        at.app._tick()
        await desk.asked_again.wait()
        await at.press(*"sho")
        desk.tells.set()
        if plan is ff.PLAN:
            await at.press("p", "enter")
            assert desk.asked == [intents.Abort(ff.PLAN.digest, "shop")]
            return
        await wait_for(lambda: "▲ The plan has changed: read it again before you type." in at.text)
        await at.press("p", "enter")
        assert desk.asked == []
        assert "that is not the name of this database" in at.text
        assert "The plan has changed" in at.text
        assert "Esc back" in at.text
        await at.press(*"shop", "enter")
        assert desk.asked == [intents.Abort(LONG.digest, "shop")]
        assert "The plan has changed" not in at.text


async def test_an_enter_that_a_new_plan_overtakes_begins_nothing() -> None:
    async with seat("filling", NARROW) as at:
        await at.press("A")
        await wait_for(lambda: "1 fence epoch" in at.text)
        await at.press(*"shop")
        dialog = at.app.screen
        assert isinstance(dialog, AbortDialog)
        assert dialog.field is not None
        entered = Input.Submitted(dialog.field, dialog.field.value)
        at.desk.plan = LONG
        await dialog._fetched()
        dialog.post_message(entered)
        await at.pilot.pause()
        assert at.desk.asked == []


async def test_that_a_plan_has_changed_stays_in_sight_until_it_is_confirmed() -> None:
    async with seat("filling", NARROW) as at:
        await at.press("A")
        await wait_for(lambda: "1 fence epoch" in at.text)
        at.desk.plan = LONG
        for _ in range(3):
            at.clock.at += REFRESH_S
            at.app._tick()
            await wait_for(lambda: "▲ The plan has changed: read it again before you type." in at.text)
            await at.pilot.pause()
        assert "Type the database's name to begin:" in at.text
        assert "Esc back" in at.text


async def test_a_plan_that_the_desk_no_longer_takes_is_asked_for_again() -> None:
    desk = ff.FakeDesk(answer=intents.Answer(False, "the way back has changed meanwhile; look at it again"))
    async with seat("filling", WIDE, desk=desk) as at:
        await at.press("A")
        await wait_for(lambda: "1 fence epoch" in at.text)
        desk.plan = replace(ff.PLAN, actions=ff.PLAN.actions[1:])
        await at.press(*"shop", "enter")
        await wait_for(lambda: "the way back has changed meanwhile" in at.text)
        await wait_for(lambda: "fence epoch" not in at.text)


async def test_a_way_back_that_cannot_be_told_says_why_and_asks_again() -> None:
    class Unsure(ff.FakeDesk):
        asked_for_plan = 0

        async def plan_abort(self) -> AbortPlan:
            self.asked_for_plan += 1
            raise DbwatchError("the way back cannot be told", why="no connection [/]")

    desk = Unsure()
    async with seat("filling", WIDE, desk=desk) as at:
        await at.press("A")
        await wait_for(lambda: "✗ the way back cannot be told: no connection [/]" in at.text)
        assert "Type the database's name" not in at.text
        at.clock.at += REFRESH_S
        at.app._tick()
        await wait_for(lambda: desk.asked_for_plan == 2)


async def test_a_desk_that_does_not_tell_the_way_back_holds_nobody() -> None:
    async with seat("filling", WIDE, desk=ff.FakeDesk(silent=True)) as at:
        await at.press("A")
        assert "working out the way back" in at.text
        await at.press("escape", "3")
        assert at.front == "locks"


async def test_whoever_is_in_the_way_can_be_cancelled_from_the_plan() -> None:
    frame = replace(FRAMES["migrating"], window=FRAMES["filling"].window)
    async with seat(frame, NARROW) as at:
        await at.press("A")
        await wait_for(lambda: "F2 look at 47110" in at.text)
        await at.press("f2")
        assert isinstance(at.app.screen, SignalDialog)
        await at.press("K", "y")
        [signal] = at.desk.asked
        assert isinstance(signal, intents.Signal)
        assert (signal.pid, signal.terminate) == (47110, True)
        assert isinstance(at.app.screen, AbortDialog)
        await at.press(*"shop", "enter")
        assert at.desk.asked[1:] == [intents.Abort(ff.PLAN.digest, "shop")]


@pytest.mark.parametrize("keys", [("A", "f3"), ("n",)])
async def test_a_persons_action_of_the_abort_is_signed_off(keys: tuple[str, ...]) -> None:
    async with seat("abort waits for a person", NARROW) as at:
        await at.press(*keys)
        assert "git checkout v0.7.0" in at.text
        await at.press(*"v0.7.0 is back", "enter")
        assert at.desk.asked == [intents.SignOff("deploy", "v0.7.0 is back")]


async def test_an_abort_that_got_stuck_shows_what_failed_and_the_way_from_here() -> None:
    async with seat("abort stuck", (80, 40)) as at:
        await at.press("A")
        await wait_for(lambda: "The way back from here" in at.text)
        assert "✗ 4 downgrade 3f1c → 9a20" in at.text
        assert "lock timeout after 5 tries" in at.text
        await at.press(*"shop", "enter")
        assert at.desk.asked == [intents.Abort(ff.PLAN.digest, "shop")]


async def test_a_navigator_asks_the_driver_to_begin_the_abort_that_they_have_read() -> None:
    async with seat("navigator", NARROW, desk=ff.FakeDesk(accepts=intents.NAVIGATOR)) as at:
        await at.press("A")
        await wait_for(lambda: "Type the database's name to ask wei to begin:" in at.text)
        assert "Enter asks" in at.text
        await at.press(*"shop", "enter")
        assert at.desk.asked == [intents.Abort(ff.PLAN.digest, "shop")]


async def test_somebody_elses_running_abort_is_watched_and_not_begun_again() -> None:
    async with seat("navigator, window taken back", WIDE, desk=ff.FakeDesk(accepts=intents.NAVIGATOR)) as at:
        assert "wei takes this window back: A shows how far it is" in at.text
        await at.press("A")
        assert "▶ 1 fence epoch 3 → 4" in at.text
        assert "wei carries it out" in at.text
        await at.press(*"shop", "enter", "f3")
        assert at.desk.asked == []


async def test_each_of_those_in_the_way_can_be_chosen_and_cancelled() -> None:
    desk, snapshot = ff.FakeDesk(), FRAMES["migrating"].snapshot
    held = tuple(replace(lock, granted=True) if lock.pid == 47311 else lock for lock in snapshot.locks.rows)
    snapshot = replace(snapshot, locks=replace(snapshot.locks, rows=held))
    async with seat(Frame(snapshot, FRAMES["filling"].window), (100, 50), desk=desk) as at:
        await at.press("A")
        await wait_for(lambda: "F2 look at 47110" in at.text)
        assert "▶ ▲ would wait for 47110 reports" in at.text
        await at.press("tab")
        assert "▶ ▲ would wait for 47311 app-7" in at.text
        assert "F2 look at 47311, to cancel it   Tab next of 2" in at.text
        await at.press("f2", "y")
        [signal] = desk.asked
        assert isinstance(signal, intents.Signal)
        assert (signal.pid, signal.terminate) == (47311, False)


def test_who_is_in_the_way_is_seen_now_and_not_when_the_plan_was_made() -> None:
    def waits(frame: Frame, plan: AbortPlan = ff.PLAN) -> list[int]:
        return [one.pid for one in planned_in_the_way(plan, frame.snapshot)]

    assert waits(FRAMES["migrating"]) == [47110]
    assert waits(changed("migrating", 47110)) == []
    assert waits(changed("migrating", 47110, xact_start=None, state="idle")) == []
    unseen = replace(ff.PLAN, actions=tuple(replace(a, waits_for=()) for a in ff.PLAN.actions))
    assert waits(FRAMES["migrating"], unseen) == [47110]
    index = ("CREATE INDEX i ON users (phone)",)
    builds = replace(ff.PLAN, actions=tuple(replace(a, sql=index) for a in ff.PLAN.actions))
    assert waits(FRAMES["migrating"], builds) == [], "a reader is not in the way of an index"
    young = changed("migrating", 47110, xact_start=FRAMES["migrating"].snapshot.at)
    assert waits(young, unseen) == []
    by_age = tuple(replace(a, waits_for=(replace(b, relation=""),)) for a in ff.PLAN.actions for b in a.waits_for)
    elsewhere = replace(FRAMES["migrating"].snapshot, locks=replace(FRAMES["migrating"].snapshot.locks, rows=()))
    assert waits(replace(FRAMES["migrating"], snapshot=elsewhere), replace(ff.PLAN, actions=by_age)) == [47110]


async def test_whoever_a_running_abort_waits_for_can_be_cancelled_between_two_tries_too() -> None:
    note = "canceling statement due to lock timeout; it waited for 47110 (reports, idle in transaction 31 s): SELECT 1"
    frame = FRAMES["abort stuck"]
    assert frame.window is not None
    facts = [e.fact for e in frame.window.events[1:-2]]
    between = ff.window(*facts, migration=replace(ff.MIGRATING, pid=None, waits_for="", note=note), busy="the abort")
    quiet = replace(ff.snapshot(761), own_pids=frozenset())
    async with seat(Frame(quiet, between), (100, 50)) as at:
        await at.press("A")
        assert "waits for 47110 reports, idle in transaction 31 s" in at.text
        await at.press("f2", "K", "y")
        [signal] = at.desk.asked
        assert isinstance(signal, intents.Signal)
        assert (signal.pid, signal.terminate) == (47110, True)


def test_a_way_back_that_stops_says_where_and_what_is_left() -> None:
    stops = "above 77aa: its downgrade raises NotImplementedError"
    plan = replace(
        ff.PLAN,
        obstacles=(f"the way back stops {stops}", "not taken back: 77aa", "the way out: take back by hand what it did"),
        prediction=Prediction(("77aa",), equal=False, left=("column users.phone",), stops=stops),
    )
    told = " ".join(plan_text(plan, FRAMES["filling"].snapshot, 75).plain.split())
    for part in ("✗ the way back stops above 77aa", "✗ not taken back: 77aa", "✗ the way out:",
                 "afterwards: at 77aa, the schema differs", "left of ours: column users.phone"):  # fmt: skip
        assert part in told


def test_a_plan_that_was_wrong_is_told_in_the_verdict() -> None:
    frame = FRAMES["back"]
    assert frame.window is not None
    facts = [e.fact for e in frame.window.events[1:-1]]
    foreseen = Prediction(("9a20",), equal=True)
    confirmed = replace(next(f for f in facts if isinstance(f, ev.AbortConfirmed)), prediction=foreseen.body())
    facts = [confirmed if isinstance(f, ev.AbortConfirmed) else f for f in facts]
    wrong = ff.window(*facts, ev.AbortFinished(False, ["x"], 38.0, foreseen.body(), ["not foreseen, left of ours: x"]))
    assert "✗ the plan was wrong: not foreseen, left of ours: x" in abort_text(wrong, 75).plain
    right = ff.window(*facts, ev.AbortFinished(True, [], 38.0, foreseen.body(), []))
    assert "✓ as the plan foretold" in abort_text(right, 75).plain


# The detail of a row


async def test_the_detail_follows_the_row_and_says_when_it_is_gone() -> None:
    async with seat("migrating", WIDE) as at:
        await at.press("d")
        assert "reports" in at.text
        await at.push(changed("migrating", 47110, query="COMMIT"))
        assert "COMMIT" in at.text
        await at.push(changed("migrating", 47110))
        assert "It is no longer there." in at.text
        assert "reports" in at.text


async def test_the_help_scrolls_on_a_small_screen() -> None:
    async with seat("filling", NARROW) as at:
        await at.press("question_mark")
        assert "Panes" in at.text
        assert "Esc back" in at.text
        await at.press(*["pagedown"] * 6)
        assert "Signs" in at.text
        assert "Esc back" in at.text
