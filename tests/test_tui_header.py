"""The status lines, the tabs and the last line: frames in, text out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import fakefeed as ff
import pytest

from dbwatch.backfill.progress import State
from dbwatch.monitor.rates import Rates
from dbwatch.monitor.samples import Replication, Snapshot, Status, View
from dbwatch.tui.footline import GLIMPSE_S, LINGERS_S, Said, last_line, last_seq
from dbwatch.tui.header import bar, meter, server_line, window_line
from dbwatch.tui.keys import PANES
from dbwatch.tui.tabs import marks, narrow_tabs, wide_tabs
from dbwatch.window.feed import Frame, Rollback

FRAMES = ff.frames()


def line(frame: Frame, width: int = 160, *, now: float = 100.4, frozen_for: float | None = None) -> str:
    figures = Rates(tps=1_234.0, wal_bytes_s=14_000_000.0)
    return server_line(frame, figures, now=now, interval=1.0, frozen_for=frozen_for, width=width).plain


def test_the_first_line_tells_window_phase_server_driver_and_budget() -> None:
    told = window_line(FRAMES["migrating"], 160).plain
    assert told.startswith(" users.phone replaces legacy_phone_field ▸ EXPAND ▸ code ▸ contract ")
    assert "shop@prod-db1 PostgreSQL 16.4 primary" in told
    assert "driver wei (you)" in told
    assert told.endswith("1:31 / 1:00:00")


def test_the_present_phase_is_told_without_colour_too() -> None:
    assert "✓expand ▸ CODE ▸ contract" in window_line(FRAMES["filling"], 160).plain


def test_a_narrow_first_line_keeps_phase_server_and_time() -> None:
    told = window_line(FRAMES["filling"], 80).plain
    assert "✓expand›CODE›contract  shop@prod-db1 16.4" in told
    assert told.endswith("wei*  12:41/1:00:00")


def test_a_navigator_sees_who_drives() -> None:
    assert "driver wei · navigator lin (you)" in window_line(FRAMES["navigator"], 160).plain
    assert "  wei+lin*  " in window_line(FRAMES["navigator"], 80).plain


def test_the_driver_sees_who_looks_on() -> None:
    assert "driver wei (you) · navigator lin  " in window_line(FRAMES["proposing"], 160).plain
    assert "  wei*+lin  " in window_line(FRAMES["proposing"], 80).plain
    three = Frame(ff.snapshot(), ff.window(navigators=("lin@laptop", "ada@bastion")))
    assert "driver wei (you) · navigators lin, ada  " in window_line(three, 160).plain


def test_one_person_at_two_machines_is_told_by_their_hosts() -> None:
    twice = ff.window(driving=False, actor="wei@home", navigators=("wei@home",))
    assert "driver wei@bastion · navigator wei@home (you)" in window_line(Frame(ff.snapshot(), twice), 160).plain


def test_a_silent_driver_is_told_loudly_at_every_width() -> None:
    frame = FRAMES["navigator, driver silent"]
    assert "driver wei ✗ silent 12 s" in window_line(frame, 160).plain
    assert "  wei✗+lin*  " in window_line(frame, 80).plain
    for width in (80, 140):
        told = last_line(None, frame, 100.0, width).plain
        assert told == " ✗ wei was not heard of for 12 s: T takes the wheel"


def test_the_rollback_clock_runs_against_its_budget_in_every_state() -> None:
    slow = ff.window(*ff.FILLING, rollback=Rollback(True, 301.0))
    assert "rollback ≈ 5:01 of 5:00 OVER its budget" in line(Frame(ff.snapshot(), slow))
    assert "back 5:01/5:00 OVER" in line(Frame(ff.snapshot(), slow), 80)
    assert "◀ going back 9:11 of 5:00 OVER" in line(FRAMES["aborting"])
    assert "back in 0:38 of 5:00" in line(FRAMES["back"])
    assert "abort over after 0:38 of 5:00" in line(FRAMES["not back"])
    for name in ("filling", "navigator", "proposed", "add unknown", "wheel lost"):
        for width in (60, 80, 120, 160):
            assert "back ≈ 0:38 of 5:00" in line(FRAMES[name], width) or "back 0:38/5:00 ok" in line(
                FRAMES[name], width
            )


def test_a_blown_budget_says_so_in_a_word() -> None:
    frame = Frame(FRAMES["migrating"].snapshot, ff.window(elapsed=3_700))
    assert window_line(frame, 160).plain.endswith("1:01:40 / 1:00:00 OVER")


def test_a_standby_is_told_at_every_width() -> None:
    facts = replace(ff.FACTS, in_recovery=True)
    frame = Frame(replace(ff.snapshot(), facts=facts))
    assert "shop@prod-db1 16.4 standby" in window_line(frame, 80).plain
    assert "shop@prod-db1 PostgreSQL 16.4 standby" in window_line(frame, 160).plain


@pytest.mark.parametrize(
    ("name", "stage"),
    [("aborting", "◀ GOING BACK"), ("back", "◀ BACK"), ("not back", "◀ NOT QUITE BACK"), ("closed", "CLOSED: done")],
)
def test_an_abort_and_the_end_stand_where_the_phases_stood(name: str, stage: str) -> None:
    assert stage in window_line(FRAMES[name], 120).plain


def test_the_second_line_tells_how_the_server_is() -> None:
    told = line(FRAMES["migrating"])
    assert "conn ▕███▊  ▏ 61/97" in told
    assert "tps 1.2k" in told
    assert "▲ waiting 3 (12 s)" in told
    assert "WAL 13 MB/s" in told
    assert "xmin 38 s" in told
    assert "rollback ≈ 0:38 of 5:00 reversible" in told
    assert told.endswith("● live 0.4 s")


def test_the_second_line_of_a_narrow_screen() -> None:
    told = line(FRAMES["migrating"], 80)
    assert told == " conn 61/97  tps 1.2k  ▲ wait 3 12 s  back 0:38/5:00 ok            ● live 0.4 s"


def test_what_is_waiting_and_the_freshness_stay_when_all_else_gives_way() -> None:
    told = line(FRAMES["migrating"], 60)
    assert "▲ wait 3 12 s" in told
    assert told.endswith("● live 0.4 s")


def test_the_standby_furthest_behind_is_the_lag() -> None:
    rows = tuple(Replication(n, "standby", "", "streaming", "async", lag, 0) for n, lag in enumerate((0.4, 12.0, None)))
    snapshot = replace(ff.snapshot(), replication=View(Status.OK, "", ff.T0, 100.0, rows))
    assert "lag 12 s" in line(Frame(snapshot))


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_a_lost_connection_is_stale_and_says_what_is_tried(width: int) -> None:
    told = line(FRAMES["window, server lost"], width, now=114.0)
    assert "◌ stale 14 s (reconnecting, try 3" in told


def test_no_poll_for_some_time_is_stale_though_nobody_noticed_a_lost_connection() -> None:
    assert "● live" in line(FRAMES["watching"], now=103.9)
    assert "◌ stale 4.1 s" in line(FRAMES["watching"], now=104.1)


def test_failing_vitals_are_stale_though_the_connection_is_good() -> None:
    good = FRAMES["watching"].snapshot
    failed = replace(good, taken=113.0, vitals=replace(good.vitals, status=Status.ERROR, reason="permission denied"))
    assert "◌ stale 14 s" in line(Frame(failed), now=114.0)


def test_before_the_first_poll_there_is_no_data_and_no_age() -> None:
    assert "◌ no data yet" in line(Frame())
    trying = Snapshot(trouble="reconnecting, try 2: connection refused")
    assert "◌ no data yet (reconnecting, try 2: connection refused)" in line(Frame(trying))


def test_a_frozen_display_says_so_in_place_of_live() -> None:
    told = line(FRAMES["watching"], frozen_for=12.0)
    assert told.endswith("‖ FROZEN 12 s")
    assert "live" not in told


def test_no_way_back_is_said_in_words() -> None:
    assert "✗ no way back since drop" in line(FRAMES["no way back"])
    blind = ff.window(rollback=Rollback(True, 38.0, no_return="drop", unknown="connection refused"))
    told = line(Frame(ff.snapshot(), blind))
    assert "? way back not known: connection refused" in told


@pytest.mark.parametrize("name", ff.ALL_FRAMES)
@pytest.mark.parametrize("width", [60, 79, 80, 119, 120, 140, 300])
def test_no_line_is_ever_wider_than_the_screen(name: str, width: int) -> None:
    frame = FRAMES[name]
    assert window_line(frame, width).cell_length <= width
    assert len(line(frame, width)) <= width
    assert narrow_tabs(PANES, "locks", marks(frame), width).cell_length <= width
    assert wide_tabs(PANES, "locks", "locks", marks(frame), width).cell_length <= width
    assert last_line(None, frame, 100.4, width).cell_length <= width


@pytest.mark.parametrize(
    ("fraction", "shown"), [(-1, "        "), (0, "        "), (0.5, "████    "), (1, "████████"), (7, "████████")]
)
def test_a_bar_is_as_long_as_its_fraction(fraction: float, shown: str) -> None:
    assert bar(fraction, 8) == shown
    assert meter(fraction, 8) == shown.replace(" ", "░")


def test_a_meter_is_full_only_when_all_is_done() -> None:
    assert meter(0.999, 8) == "███████░"


def test_tabs_tell_which_pane_is_in_front_and_which_has_something_to_say() -> None:
    told = marks(FRAMES["held back"])
    assert narrow_tabs(PANES, "locks", told, 80).plain == (
        " 1Plan  2Activity [3Locks▲3] 4Stmts  5Idx  7Fill 47%  8Charts  9Log "
    )
    wide = wide_tabs(PANES[1:], "locks", "locks", told, 110).plain
    assert wide.startswith("┌ 2 Activity ─[3 Locks ▲3]─ 4 Statements ")
    assert wide.endswith("┐")


def test_an_invalid_index_is_marked_on_its_tab() -> None:
    snapshot = ff.snapshot()
    [index] = snapshot.indexes.rows
    invalid = replace(snapshot, indexes=replace(snapshot.indexes, rows=(replace(index, is_valid=False),)))
    assert marks(Frame(invalid)) == {"indexes": "!1"}


def test_a_tab_tells_how_far_the_backfill_is_only_while_it_goes_on() -> None:
    def told(state: State) -> str | None:
        return marks(Frame(ff.snapshot(), ff.window(backfill=replace(ff.BACKFILLING, state=state)))).get("backfill")

    assert told(State.PAUSED) == told(State.RUNNING) == " 47%"
    assert told(State.STOPPED) is None


def test_the_last_line_is_the_answer_for_a_while_and_then_the_journal() -> None:
    frame = FRAMES["migrating"]
    good = Said("add started", at=100.0, seq=last_seq(frame))
    assert last_line(good, frame, 100.0 + LINGERS_S - 1, 80).plain == " › add started"
    assert last_line(good, frame, 100.0 + LINGERS_S, 80).plain == " 21:05:10 add started"


def test_the_answer_gives_way_to_what_has_happened_since() -> None:
    frame = FRAMES["migrating"]
    good = Said("add started", at=100.0, seq=last_seq(frame) - 1)
    assert last_line(good, frame, 100.0 + GLIMPSE_S - 1, 80).plain == " › add started"
    assert last_line(good, frame, 100.0 + GLIMPSE_S, 80).plain == " 21:05:10 add started"


def test_what_went_wrong_does_not_vanish_by_itself() -> None:
    wrong = Said("add failed", at=100.0, wrong=True)
    assert last_line(wrong, FRAMES["migrating"], 9_999.0, 80).plain == " ✗ add failed"


def test_trouble_with_the_journal_comes_before_its_last_event() -> None:
    told = last_line(None, FRAMES["journal trouble"], 100.0, 90).plain
    assert told == " ✗ the journal is kept in the mirror only: the disk of prod-db1 is full"


def test_a_lost_wheel_is_told_and_not_taken_for_trouble_with_the_journal() -> None:
    frame = FRAMES["migrating"]
    lost = replace(frame, window=replace(frame.window, trouble="this dbwatch is no longer the driver"))
    assert last_line(None, lost, 100.0, 90).plain == " ✗ this dbwatch is no longer the driver"
    told = last_line(None, FRAMES["wheel lost"], 100.0, 90).plain
    assert told == " ✗ lin drives now, T takes the wheel back: this dbwatch is no longer the driver"


def test_a_restart_of_the_server_is_noticed() -> None:
    frame = replace(FRAMES["migrating"], snapshot=replace(ff.snapshot(), notice="the server was restarted"))
    assert last_line(None, frame, 100.0, 80).plain == " ▲ the server was restarted"


def test_an_age_is_told_by_the_servers_clock_where_waitstart_is_missing() -> None:
    snapshot = ff.snapshot(waiting=True)
    locks = tuple(replace(row, waitstart=None) for row in snapshot.locks.rows)
    old = replace(snapshot, locks=replace(snapshot.locks, rows=locks))
    assert "▲ waiting 3 (12 s)" in line(Frame(old))
    assert snapshot.at == ff.T0 + timedelta(seconds=0)
