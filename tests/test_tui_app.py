"""The app driven by keys over a feed made by hand: what is shown, what is handed in, and that nothing waits."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import fakefeed as ff
import pytest
from seat import MEDIUM, NARROW, TINY, WIDE, seat, wait_for

from dbwatch.tui.app import DbwatchApp, FrameArrived
from dbwatch.tui.terminal import appearance, too_small
from dbwatch.window import intents
from dbwatch.window.feed import Frame

FRAMES = ff.frames()


# Where things stand


async def test_a_wide_screen_has_the_plan_beside_the_chosen_pane() -> None:
    async with seat("migrating", WIDE) as at:
        lines = at.text.splitlines()
        assert "users.phone replaces" in lines[0]
        assert "▲ waiting 3 (12 s)" in lines[1]
        assert lines[2].startswith("┌ 1 Plan ─")
        assert "[2 Activity]" in lines[2]
        assert "▶ add" in at.text
        assert "47110" in at.text
        assert lines[-3] == " 21:05:10 add started"
        assert lines[-1].startswith(" X stop ours  A abort")


async def test_a_narrow_screen_has_one_pane_and_begins_with_the_plan() -> None:
    async with seat("migrating", NARROW) as at:
        lines = at.text.splitlines()
        assert lines[2].startswith("[1Plan] 2Activity  3Locks▲3")
        assert "▶ add" in at.text
        await at.press("3")
        assert "[3Locks▲3]" in at.text
        assert "▶ add" not in at.text
        assert "└ 48213" in at.text


@pytest.mark.parametrize("size", [WIDE, MEDIUM, NARROW])
async def test_every_pane_is_one_key_away(size: tuple[int, int]) -> None:
    async with seat("filling", size) as at:
        for key, name in zip("12345789", ("plan", "activity", "locks", "statements", "indexes", "backfill", "charts",
                                          "journal"), strict=True):  # fmt: skip
            await at.press(key)
            assert at.front == name


async def test_a_mere_watch_begins_with_the_activity_and_has_no_plan() -> None:
    for size in (WIDE, NARROW):
        async with seat("watching", size, desk=ff.FakeDesk(accepts=frozenset({intents.Signal}))) as at:
            assert at.front == "activity"
            assert "Plan" not in at.text
            assert "Journal" not in at.text
            await at.press("1", "n", "A", "9", "b")
            assert at.front == "activity"
            assert at.desk.asked == []


async def test_without_a_desk_there_is_nothing_to_cancel_with(tmp_path: Path) -> None:
    app = DbwatchApp(ff.FakeFeed(FRAMES["watching"]), None, clock=ff.FakeClock(), folder=tmp_path, environ={})
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("C", "K", "n", "x")
        await pilot.pause()
        assert "terminate" not in ff.shown(app)
        assert len(app.screen_stack) == 1


async def test_tab_walks_between_the_plan_and_the_pane_beside_it() -> None:
    async with seat("migrating", WIDE) as at:
        assert at.front == "activity"
        await at.press("tab")
        assert at.front == "plan"
        assert "[1 Plan]" in at.text


async def test_the_plans_cursor_goes_along_with_the_step_that_is_due_until_it_is_moved() -> None:
    async with seat("window opened", NARROW) as at:
        assert at.app.situation().step == "preview"
        await at.push(FRAMES["migrating"])
        assert at.app.situation().step == "add"
        await at.press("end")
        await at.push(FRAMES["filling"])
        assert at.app.situation().step == "drop"


async def test_a_window_that_opens_while_we_watch_brings_its_plan() -> None:
    async with seat("watching", WIDE) as at:
        await at.push(FRAMES["migrating"])
        assert "1 Plan" in at.text
        assert "▶ add" in at.text


# Frames


async def test_a_new_frame_is_shown() -> None:
    async with seat("window opened", WIDE) as at:
        assert "waiting 0" in at.text
        await at.push(FRAMES["migrating"])
        assert "waiting 3 (12 s)" in at.text


async def test_a_waiting_frame_gives_way_to_a_newer_one() -> None:
    old, new = FrameArrived(FRAMES["watching"]), FrameArrived(FRAMES["migrating"])
    assert old.can_replace(new)


async def test_rates_come_from_two_polls() -> None:
    async with seat(Frame(ff.snapshot(0, taken=100.0)), WIDE) as at:
        assert "tps –" in at.text
        await at.push(Frame(ff.snapshot(2, taken=102.0)))
        assert "tps 1.2k" in at.text
        assert "WAL 13 MB/s" in at.text


async def test_a_lost_server_is_said_at_once_and_the_rows_stay() -> None:
    async with seat("window opened", WIDE) as at:
        at.clock.at = 114.0
        await at.push(FRAMES["window, server lost"])
        assert "◌ stale 14 s (reconnecting, try 3: connection refused)" in at.text
        assert "47110" in at.text


async def test_ages_grow_without_a_frame() -> None:
    async with seat("watching", WIDE) as at:
        at.clock.at = 120.0
        at.app._tick()
        await at.pilot.pause()
        assert "◌ stale 20 s" in at.text


async def test_a_feed_that_fails_is_a_sentence_and_not_the_end() -> None:
    class Failing(ff.FakeFeed):
        async def next(self) -> Frame:
            raise ValueError("nobody makes frames [/] any more")

    app = DbwatchApp(Failing(FRAMES["watching"]), ff.FakeDesk(), clock=ff.FakeClock(), environ={})
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause(0.05)
        assert "✗ no frames: nobody makes frames [/] any more" in ff.shown(app)
        await pilot.press("3")
        assert app.situation().pane == "locks"


async def test_a_frozen_display_stands_still_while_collection_goes_on() -> None:
    async with seat("window opened", WIDE) as at:
        await at.press("p")
        at.clock.at = 112.4
        await at.push(FRAMES["migrating"])
        assert "‖ FROZEN 12 s" in at.text
        assert "waiting 0" in at.text
        assert "48213" not in at.text
        await at.press("3", "2")
        assert "48213" not in at.text
        await at.press("p")
        assert "48213" in at.text
        assert "FROZEN" not in at.text


# Intents


async def test_n_runs_the_step_that_was_shown_as_next() -> None:
    async with seat("add failed", WIDE) as at:
        await at.press("n")
        assert at.desk.asked == [intents.RunStep("add")]
        assert "› taken" in at.text


async def test_what_the_desk_refuses_stays_on_the_screen() -> None:
    desk = ff.FakeDesk(answer=intents.Answer(False, "preview comes first [/x]"))
    async with seat("add failed", WIDE, desk=desk) as at:
        await at.press("n")
        assert "✗ preview comes first [/x]" in at.text
        at.clock.at += 3_600
        at.app._tick()
        await at.pilot.pause()
        assert "✗ preview comes first [/x]" in at.text


async def test_a_desk_that_fails_is_a_sentence() -> None:
    class Broken(ff.FakeDesk):
        async def submit(self, intent: intents.Intent) -> intents.Answer:
            raise RuntimeError("the desk is on fire")

    async with seat("add failed", WIDE, desk=Broken()) as at:
        await at.press("n")
        assert "✗ add: the desk is on fire" in at.text


async def test_keys_answer_while_the_desk_does_not() -> None:
    async with seat("add failed", WIDE, desk=ff.FakeDesk(silent=True)) as at:
        await at.press("n")
        assert "› add …" in at.text
        await at.press("3")
        assert at.front == "locks"
        await at.press("n")
        assert "asked already, no answer yet" in at.text
        assert at.desk.asked == [intents.RunStep("add")]
        await at.push(FRAMES["migrating"])
        assert "waiting 3" in at.text


async def test_a_refused_key_says_why_and_hands_nothing_in() -> None:
    async with seat("migrating", WIDE) as at:
        await at.press("n")
        assert "✗ next: add is running" in at.text
        assert at.desk.asked == []


async def test_a_persons_step_is_signed_off_with_a_note() -> None:
    async with seat("window opened", NARROW) as at:
        await at.press("n")
        assert "SQL preview read by a second person" in at.text
        await at.press("enter", "enter")
        assert at.desk.asked == []
        await at.press(*"q x[/]", "enter")
        assert at.desk.asked == [intents.SignOff("preview", "q x[/]")]


async def test_a_sign_off_can_be_left() -> None:
    async with seat("window opened", NARROW) as at:
        await at.press("n", *"read", "escape")
        assert at.desk.asked == []
        assert len(at.app.screen_stack) == 1


async def test_enter_runs_the_step_under_the_plans_cursor_and_shows_the_detail_elsewhere() -> None:
    async with seat("add failed", WIDE) as at:
        await at.press("1", "enter")
        assert at.desk.asked == [intents.RunStep("add")]
        await at.press("2", "enter")
        assert "47110" in at.text
        assert at.app.screen.__class__.__name__ == "Detail"


@pytest.mark.parametrize(
    ("name", "key", "intent"),
    [
        ("next is the backfill", "b", intents.RunStep("fill")),
        ("filling", "b", intents.PauseBackfill("fill")),
        ("paused", "b", intents.ResumeBackfill("fill")),
        ("navigator", "b", intents.PauseBackfill("fill")),
        ("filling", "left_square_bracket", intents.ChangeSpeed(faster=False)),
        ("filling", "right_square_bracket", intents.ChangeSpeed(faster=True)),
        ("filling", "X", intents.StopOurs()),
    ],
)
async def test_one_key_is_enough_where_little_can_go_wrong(name: str, key: str, intent: intents.Intent) -> None:
    async with seat(name, WIDE) as at:
        await at.press(key)
        assert at.desk.asked == [intent]


async def test_a_note_goes_into_the_journal() -> None:
    async with seat("filling", WIDE) as at:
        await at.press("N", *"lin is here", "enter")
        assert at.desk.asked == [intents.Note("lin is here")]


async def test_the_window_is_closed_only_after_a_question() -> None:
    async with seat("no way back", WIDE) as at:
        await at.press("n")
        assert "Every step is done." in at.text
        await at.press("enter")
        assert at.desk.asked == []
        await at.press("y")
        assert at.desk.asked == [intents.CloseWindow()]


# The table in front


async def test_a_filter_is_typed_under_the_panes_and_kept_or_dropped() -> None:
    async with seat("migrating", WIDE) as at:
        await at.press("slash", *"app-", "enter")
        assert "47311" in at.text
        assert "app-1" in at.text
        lines = [line for line in at.text.splitlines() if "reports" in line]
        assert not [line for line in lines if "47110" in line and "31 s" in line and "holds" in line]
        assert "/app-" in at.text
        assert at.front == "activity"
        await at.press("slash", "escape")
        assert "holds what 48213 wants" in at.text


async def test_sorting_names_the_column() -> None:
    async with seat("migrating", WIDE) as at:
        await at.press("s")
        assert "› sorted by wait" in at.text


async def test_the_polls_interval_walks_through_its_steps() -> None:
    async with seat("watching", WIDE) as at:
        seen = []
        for key in ("plus", "plus", "plus", "plus", *["minus"] * 5):
            await at.press(key)
            seen.append(at.feed.interval)
        assert seen == [2.0, 5.0, 10.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.5]
        assert "› one poll every 0.5 s" in at.text


async def test_the_rows_are_exported_as_they_are_shown(tmp_path: Path) -> None:
    async with seat("migrating", WIDE, folder=tmp_path / "new") as at:
        await at.press("x")
        await wait_for(lambda: "› written: " in at.text)
        as_csv, as_json = (tmp_path / "new" / f"activity-20260314-210410.{kind}" for kind in ("csv", "json"))
        rows = json.loads(as_json.read_text())
        assert [row["pid"] for row in csv.DictReader(as_csv.read_text().splitlines())] == [str(r["pid"]) for r in rows]
        assert 48213 in [row["pid"] for row in rows]


async def test_a_picture_of_the_screen_is_saved_and_its_place_is_told(tmp_path: Path) -> None:
    async with seat("migrating", (200, 40), folder=tmp_path) as at:
        await at.press("S")
        await wait_for(lambda: "› written: " in at.text)
        picture = tmp_path / "dbwatch-20260314-210410.svg"
        assert str(picture) in at.text
        assert picture.read_text().startswith("<svg")  # a test has nothing else to do


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with seat("migrating", WIDE, folder=tmp_path / "file") as at:
        await at.press("S")
        await wait_for(lambda: "✗ nothing was written" in at.text)


# Leaving


async def test_q_leaves_at_once_where_nothing_of_ours_runs() -> None:
    async with seat("window opened", WIDE) as at:
        await at.press("q")
        assert not at.app.is_running


async def test_q_asks_while_something_of_ours_runs() -> None:
    async with seat("filling", WIDE) as at:
        await at.press("q")
        assert "fill is running." in at.text
        await at.press("enter", "escape")
        assert at.app.is_running
        await at.press("q", "y")
        assert not at.app.is_running


@pytest.mark.parametrize("key", ["ctrl+c", "ctrl+q"])
async def test_control_c_leaves_like_q_also_out_of_a_field(key: str) -> None:
    async with seat("window opened", WIDE) as at:
        await at.press("n", *"typed", key)
        assert not at.app.is_running


async def test_intents_that_were_handed_in_do_not_hold_up_the_end() -> None:
    async with seat("add failed", WIDE, desk=ff.FakeDesk(silent=True)) as at:
        await at.press("n", "q")
        assert not at.app.is_running


# The terminal


async def test_a_terminal_that_becomes_too_small_says_so_and_comes_back() -> None:
    async with seat("migrating", WIDE) as at:
        await at.resize(TINY)
        assert "too small: needs" in at.text
        assert "60x15" in at.text
        await at.press("n", "A", "x")
        assert at.desk.asked == []
        await at.resize(NARROW)
        assert "too small" not in at.text
        assert "3Locks▲3" in at.text


async def test_a_dialog_survives_every_size() -> None:
    async with seat("filling", WIDE) as at:
        await at.press("A", *"sh")
        for size in (NARROW, TINY, MEDIUM, TINY, WIDE):
            await at.resize(size)
        await at.press(*"op", "enter")
        assert at.desk.asked == [intents.Abort(ff.PLAN.digest, "shop")]


async def test_wide_becomes_narrow_and_wide_again() -> None:
    async with seat("migrating", WIDE) as at:
        await at.press("3")
        await at.resize(NARROW)
        assert "[3Locks▲3]" in at.text
        assert "EXPAND" not in at.text.split("\n", 3)[3]
        await at.resize(WIDE)
        assert "┌ 1 Plan" in at.text
        assert "[3 Locks ▲3]" in at.text


@pytest.mark.parametrize(
    ("columns", "lines", "small"), [(60, 15, False), (59, 15, True), (60, 14, True), (20, 5, True), (80, 24, False)]
)
def test_what_is_too_small(columns: int, lines: int, small: bool) -> None:
    assert too_small(columns, lines) == ("too small: needs 60x15" if small else "")


@pytest.mark.parametrize(
    ("environ", "theme", "ansi"),
    [
        ({"COLORTERM": "truecolor", "TERM": "xterm-256color"}, "textual-dark", False),
        ({"COLORTERM": "24bit"}, "textual-dark", False),
        ({"COLORTERM": "truecolor", "COLORFGBG": "0;15"}, "textual-light", False),
        ({"COLORTERM": "truecolor", "NO_COLOR": "1"}, "ansi-dark", True),
        ({"TERM": "screen"}, "ansi-dark", True),
        ({"TERM": "xterm-16color", "COLORFGBG": "0;7"}, "ansi-light", True),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, "ansi-dark", True),
        ({}, "ansi-dark", True),
    ],
)
def test_the_colours_follow_the_terminal(environ: dict[str, str], theme: str, ansi: bool) -> None:
    look = appearance(environ)
    assert (look.theme, look.ansi, look.animations) == (theme, ansi, "none")


async def test_foreign_text_is_never_markup_on_any_screen() -> None:
    hostile = "[/] [@click=app.quit]x[/] [red]y [b + \u202e"
    snapshot = ff.snapshot(waiting=True)
    rows = tuple(replace(r, application_name=hostile, query=hostile, usename=hostile) for r in snapshot.activity.rows)
    snapshot = replace(snapshot, activity=replace(snapshot.activity, rows=rows), notice=hostile, trouble=hostile)
    view = ff.window(*ff.FILLING, actor=hostile, journal_trouble=hostile, busy=hostile, backfill_step="fill",
                     backfill=replace(ff.BACKFILLING, reason=hostile, table=hostile))  # fmt: skip
    frame = Frame(snapshot, view)
    desk = ff.FakeDesk(answer=intents.Answer(False, hostile))
    desk.plan = replace(ff.PLAN, target=hostile, lost=(hostile,), obstacles=(hostile,))
    for size in (WIDE, NARROW):
        async with seat(frame, size, desk=desk) as at:
            for key in ("1", "d", "escape", "2", "C", "escape", "K", "escape", "d", "escape", "3", "d", "escape", "7",
                        "b", "9", "d", "escape", "A", "escape", "q", "escape", "question_mark", "escape"):  # fmt: skip
                await at.press(key)
            assert "[@click=app.quit]x[/] [red]y" in at.text
