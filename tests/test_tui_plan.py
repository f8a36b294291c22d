"""The Plan, the Backfill and the Journal: what they say of each state."""

from __future__ import annotations

from dataclasses import replace

import fakefeed as ff
import pytest

from dbwatch.backfill.progress import State
from dbwatch.backfill.walk import Walk
from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.tui.bars import spark
from dbwatch.tui.columns import plain
from dbwatch.tui.panes.base import Choice
from dbwatch.tui.panes.filling import progress_lines, why
from dbwatch.tui.panes.foretold import before_lines
from dbwatch.tui.panes.journal import COLUMNS, JournalPane, chosen, event_line, says, tone
from dbwatch.tui.panes.plan import plan_sheet, step_detail
from dbwatch.window.feed import Frame, Rollback

FRAMES = ff.frames()


def plan(name: str | Frame, width: int = 34) -> str:
    frame = FRAMES[name] if isinstance(name, str) else name
    sheet = plan_sheet(frame, width)
    return "\n".join(plain(sheet.lines, sheet.columns, width))


def test_the_plan_beside_another_pane() -> None:
    assert plan("migrating") == "\n".join(
        [
            "    step     kind     took/planned",
            "  EXPAND",
            "  ✓ preview  manual      1:02/2:00",
            "  ▶ add      migrate     0:31/0:30",
            "    waits for 47110 (reports, idle",
            "    in transaction 31 s)",
            "    3f1c · statement 2",
            "    ALTER TABLE users ADD COLUMN",
            "    phone varchar(20)",
            "    try 2 of 6",
            "  CODE",
            "  ○ deploy   manual",
            "  ○ fill     backfill       ~10:00",
            "  ○ complete check",
            "  CONTRACT",
            "  ▲ no way back from here ╌╌╌╌╌╌╌┐",
            "  ○ drop     migrate             ┘",
        ]
    )


def test_a_roomy_plan_says_who_and_what() -> None:
    shown = [" ".join(line.split()) for line in plan("next is a person's", 120).splitlines()]
    assert "✓ preview manual wei 1:02/2:00 read by lin" in shown
    assert "○ deploy manual person ◀ n deploy v0.8.0" in shown
    assert "○ complete check auto SELECT count(*) FROM users WHERE phone IS NULL = 0" in shown


def test_the_next_step_names_its_key_and_only_at_the_drivers_screen() -> None:
    assert ["○", "deploy", "manual", "◀", "n"] in [line.split() for line in plan("next is a person's").splitlines()]
    driven_elsewhere = replace(ff.window(*ff.ADDED), driving=False)
    assert "◀ n" not in plan(Frame(ff.snapshot(), driven_elsewhere))


def test_a_failed_step_says_why_and_what_to_press() -> None:
    shown = plan("add failed", 78)
    assert "✗ add" in shown
    assert "canceling statement due to lock timeout: it waited 2 s for users" in shown
    assert "n runs it again" in shown
    unsafe = ff.window(*ff.ADDING, ev.StepFailed("add", 1, "half of it is done", 3.0, again=False))
    assert "not safe to run again: A" in plan(Frame(ff.snapshot(), unsafe))


def test_an_unknown_outcome_is_no_success_and_no_failure() -> None:
    shown = plan("add unknown", 78)
    assert "? add" in shown
    assert "outcome unknown: the driver vanished during autocommit" in shown


def test_a_running_backfill_shows_percent_and_time_left() -> None:
    assert "███░░░░░ 47.3 % 0:55 left" in plan("filling")
    assert "paused: paused by hand" in plan("paused")
    assert "held back: replication lag" in plan("held back")


def test_a_step_that_took_much_longer_than_planned_is_marked() -> None:
    late = ff.window(ev.StepDone("preview", 1, "", 300.0))
    assert "5:00/2:00!" in plan(Frame(ff.snapshot(), late))


def test_what_an_abort_took_back_is_told_as_undone() -> None:
    shown = [line.split() for line in plan("back").splitlines()]
    assert ["↶", "add", "migrate", "undone"] in shown
    assert ["↶", "deploy", "manual", "undone"] in shown
    assert ["✓", "preview", "manual", "1:02/2:00"] in shown


def test_the_line_of_no_return_is_passed_only_when_its_step_has_begun() -> None:
    assert "no way back from here" in plan("window opened")
    assert "passed: no way back" in plan("no way back")
    blind = ff.window(*ff.ADDED, rollback=Rollback(True, None, no_return="drop", unknown="connection refused"))
    assert "no way back from here" in plan(Frame(ff.snapshot(), blind))


@pytest.mark.parametrize("name", ff.ALL_FRAMES)
@pytest.mark.parametrize("width", [20, 34, 60, 80, 140])
def test_the_plan_fits_every_width(name: str, width: int) -> None:
    assert all(len(line) <= width for line in plan(name, width).splitlines())


def test_a_step_in_detail() -> None:
    told = step_detail(ff.window(*ff.DEPLOYED), "deploy")
    assert "way back   git checkout v0.7.0; docker compose up -d (a person does it)" in told
    assert "said       v0.8.0 is out, lin watched" in told
    told = step_detail(ff.window(*ff.DEPLOYED), "add")
    assert "heads      9a20 → 3f1c" in told
    assert "ddl        ALTER TABLE users ADD COLUMN phone varchar(20)" in told


# The backfill


def backfill(state: State, reason: str = "", **changes: object) -> str:
    progress = replace(ff.BACKFILLING, state=state, reason=reason, **changes)  # type: ignore[arg-type]  # by name
    return "\n".join(line.plain for line in progress_lines(progress, 78))


def test_the_backfill_tells_how_far_how_fast_and_how_long() -> None:
    shown = backfill(State.RUNNING)
    for part in ("47.3 %", "612,340 rows of about 1,295,000, in 1,204 batches", "12,400 rows/s", "left       0:55",
                 "92 ms of 100 ms", "4,100 keys", "80 % of the time", "at full speed"):  # fmt: skip
        assert part in shown


def test_the_backfill_tells_how_it_walks_whom_it_delayed_and_what_it_set_aside() -> None:
    shown = backfill(
        State.RUNNING, walk=Walk.STRIPES, hot=0.82, delayed=3, delayed_s=0.44, delayed_worst_s=0.21, quarantined=2,
        warnings=(("hot", "only 31 % of the updates are HOT"),),
    )  # fmt: skip
    for part in ("in stripes", "82.0 % HOT", "3 sessions, 0.4 s in all, 0.2 s at worst", "2 rows set aside",
                 "▲ only 31 % of the updates are HOT"):  # fmt: skip
        assert part in shown
    assert "plainly, by keys" in backfill(State.RUNNING, walk=Walk.KEYSET)
    assert "plainly, by pages" in backfill(State.RUNNING, walk=Walk.PAGES)


@pytest.mark.parametrize(
    ("state", "reason", "word", "sentence"),
    [
        (
            State.RUNNING,
            "lock waits; pausing 2 s between batches",
            "running",
            "lock waits; pausing 2 s between batches",
        ),
        (State.PAUSED, "paused by wei@bastion", "‖ PAUSED", "paused by wei@bastion; b goes on"),
        (State.THROTTLED, "replication lag is 12 s", "HELD BACK", "replication lag is 12 s; goes on by itself"),
        (State.STOPPED, "stopped by hand", "stopped", "stopped by hand; b goes on from the cursor"),
        (State.FAILED, "column phone does not exist", "FAILED", "column phone does not exist"),
        (State.INCOMPLETE, "12 rows are still pending", "INCOMPLETE", "12 rows are still pending"),
    ],
)
def test_why_it_is_not_at_full_speed_stands_in_plain_words(state: State, reason: str, word: str, sentence: str) -> None:
    shown = backfill(state, reason)
    assert word in shown.splitlines()[0]
    assert f"why        {sentence}" in shown


def test_the_last_scan_is_told_apart_from_the_walk() -> None:
    assert "a last scan looks for rows" in why(replace(ff.BACKFILLING, checking=True))[0]


def test_a_backfill_that_blocks_others_says_so() -> None:
    assert "▲ 2 sessions wait for our batch" in backfill(State.RUNNING, blocked=2)


def test_an_unknown_end_is_called_unknown() -> None:
    assert "left       unknown" in backfill(State.RUNNING, eta_s=None)


def test_a_batch_far_above_its_target_is_marked() -> None:
    assert "420 ms of 100 ms!" in backfill(State.RUNNING, batch_ms=420.0)


def test_a_history_shows_the_newest_values_against_its_top() -> None:
    assert spark((0, 50, 100, 200, 400), 4, 200) == "▃▅██"
    assert spark((), 10, 200) == ""
    assert spark((1, 2), 0, 200) == ""


def test_before_it_began_it_says_what_it_would_do_and_which_key_starts_it() -> None:
    def told(name: str) -> str:
        view = FRAMES[name].window
        assert view is not None
        return "\n".join(line.plain for line in before_lines(view, 78))

    assert "does       users: SET phone = legacy_phone_field" in told("next is the backfill")
    assert "next       b starts it" in told("next is the backfill")
    assert "next       add comes first" in told("migrating")
    assert "next       wei@bastion drives this window and starts it there" in told("navigator")


# The journal


def test_every_line_of_the_journal_names_time_person_kind_and_what() -> None:
    view = ff.window(*ff.ADDED)
    lines = [[getattr(c, "text", c) for c in event_line(event, view).cells] for event in view.events]
    assert lines[0] == ["21:04:10", "wei", "window.opened",
                        "window opened on shop at 9a20: users.phone replaces legacy_phone_field"]  # fmt: skip
    assert lines[-1] == ["21:06:10", "wei", "step.done", "add done in 0:12: at 3f1c"]


def test_the_journal_tells_when_and_who_at_80_columns() -> None:
    view = ff.window(*ff.ADDED)
    told = plain([event_line(event, view) for event in view.events], COLUMNS, 80)
    assert told[-1].split() == ["21:06:10", "wei", "add", "done", "in", "0:12:", "at", "3f1c"]


@pytest.mark.parametrize("cls", [*ev.KNOWN.values(), ev.Foreign], ids=lambda cls: cls.__name__)
def test_every_fact_has_a_sentence_of_its_own(cls: type[ev.Fact]) -> None:
    values: dict[str, object] = {
        "str": "some text", "int": 1, "float": 2.0, "bool": True, "list[str]": ["one"], "list[dict[str, Any]]": [],
        "dict[str, Any] | None": None, "int | None": 1, "list[str] | None": None,
    }  # fmt: skip
    fact = cls(**{name: values[kind] for name, kind in cls.__annotations__.items() if name != "kind"})
    [event] = ff.journal(fact)[1:]
    said = says(event, ff.window())
    assert said
    assert said != chain.encode(fact)
    assert tone(fact) in ("", "strong", "dim", "good", "warn", "bad")


def test_an_action_of_the_abort_is_named_in_the_journal() -> None:
    view = FRAMES["abort waits for a person"].window
    assert view is not None
    assert says(view.events[-1], view) == "abort 3 started: undo deploy: git checkout v0.7.0; docker compose up -d"


def test_the_journal_can_be_filtered_by_text_kind_and_person() -> None:
    frame = FRAMES["next is a person's"]
    assert [event.seq for event in chosen(frame, Choice(filter="STEP.DONE"))] == [2, 5]
    assert [event.seq for event in chosen(frame, Choice(filter="varchar"))] == [4]
    assert len(chosen(frame, Choice(filter="wei"))) == 5
    assert chosen(frame, Choice(filter="lin@")) == []


def test_an_event_in_detail_gives_its_body_and_hash() -> None:
    frame = FRAMES["migrating"]
    assert frame.window is not None
    told = JournalPane().lines_about(frame, 3)
    assert f"hash       {frame.window.events[2].hash}" in told
    assert 'body       {"attempt":1,"heads":["9a20"],"step":"add"}' in told
