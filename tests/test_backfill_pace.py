"""The control law and the health gate, as values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dbwatch.backfill.control import FASTEST, SLOWEST, Control
from dbwatch.backfill.health import Gate, Reading, Replica, Thresholds, Waiter, signals
from dbwatch.backfill.pace import DUTY_AFTER_PAUSE, DUTY_LEAST, DUTY_MOST, FIRST, HOLD, LEAST, MOST, Batch, Pace
from dbwatch.backfill.report import why_slow

US = 1e-6


def settled(each_s: float, batches: int = 60, pace: Pace | None = None) -> Pace:
    """The pace after so many full batches in which a row costs *each_s*."""
    pace = pace or Pace()
    for _ in range(batches):
        pace = pace.after(Batch(pace.size, pace.size * each_s))
    return pace


def test_it_starts_small_and_grows_by_half_at_most() -> None:
    pace = Pace()
    assert pace.size == FIRST
    after = pace.after(Batch(FIRST, FIRST * 10 * US))
    assert after.size == 750


def test_batches_settle_a_fifth_below_the_target() -> None:
    pace = settled(10 * US)
    assert pace.size == pytest.approx(8000, rel=0.01)


def test_a_row_that_becomes_dearer_is_answered_within_a_batch_or_two() -> None:
    pace = settled(10 * US)
    pace = settled(30 * US, batches=2, pace=pace)
    assert pace.size * 30 * US <= 0.11


def test_a_row_that_becomes_cheaper_is_trusted_slowly() -> None:
    pace = settled(40 * US)
    assert settled(10 * US, batches=1, pace=pace).size < 1.1 * pace.size
    assert settled(10 * US, batches=40, pace=pace).size == pytest.approx(8000, rel=0.05)


def test_a_sparse_stretch_does_not_inflate_the_next_dense_batch() -> None:
    dense = settled(10 * US)
    sparse = dense
    for _ in range(1000):
        sparse = sparse.after(Batch(3, 0.004))
    assert sparse.size == dense.size
    assert sparse.size * 10 * US < 0.1


def test_a_table_with_a_third_of_its_rows_pending_is_still_walked_in_full_batches() -> None:
    pace = Pace()
    for _ in range(60):
        rows = pace.size // 3
        pace = pace.after(Batch(rows, rows * 10 * US + pace.size * 0.3 * US))
    assert pace.size > 5000
    assert pace.size * 10 * US <= 0.1


def test_a_batch_that_was_cut_smaller_teaches_by_its_own_keys_unless_it_is_a_crumb() -> None:
    pace = settled(10 * US)
    for keys, rows, teaches in ((0.5, 0.5, True), (0.5, 0.3, True), (0.5, 0.2, False), (0.1, 0.1, False)):
        took = Batch(round(rows * pace.size), rows * pace.size * 20 * US, keys=round(keys * pace.size))
        assert (pace.after(took).cost != pace.cost) is teaches, (keys, rows)


def test_cheap_rows_may_be_more_than_dear_ones_by_time_but_not_by_wal_nor_by_a_ceiling() -> None:
    alone = settled(10 * US)
    among, busy = alone.among(True, 0.0), alone.among(True, 0.9)
    assert [pace.lighter for pace in (alone, among, busy)] == pytest.approx([1.0, 1 / 0.33, 4.0])
    assert replace(among, wal_per_row=16 * 2**20 / among.size / 1.5).lighter == pytest.approx(1.5)
    assert replace(among, wal_per_row=16 * 2**20 / among.size).lighter == 1.0
    assert replace(among, most_per_s=1000).lighter == 1.0


def test_an_empty_stretch_teaches_nothing() -> None:
    assert Pace().after(Batch(0, 0.001)).size == FIRST


def test_a_batch_three_times_over_the_target_quarters_the_size_and_stops_growth_for_five() -> None:
    pace = settled(10 * US)
    slow = pace.after(Batch(pace.size, 0.31))
    assert slow.size == pace.size // 4
    assert slow.hold == HOLD
    held = [slow]
    for _ in range(HOLD + 12):
        held.append(held[-1].after(Batch(held[-1].size, held[-1].size * 10 * US)))
    assert all(p.size <= slow.size for p in held[: HOLD + 1])
    assert held[-1].size > slow.size


def test_a_timeout_quarters_and_a_deadlock_halves_and_neither_goes_below_the_least() -> None:
    pace = replace(Pace(), size=1000)
    assert pace.after_timeout().size == 250
    assert pace.after_timeout().hold == HOLD
    assert pace.after_deadlock().size == 500
    assert replace(pace, size=LEAST).after_timeout().size == LEAST
    assert replace(pace, size=LEAST).after_deadlock().size == LEAST


def test_time_spent_waiting_for_a_lock_is_not_the_batches_fault() -> None:
    pace = settled(10 * US)
    assert pace.after(Batch(pace.size, 0.6, waited_s=0.55)).size == pace.size


def test_a_batch_writes_one_segment_of_wal_at_most() -> None:
    pace = Pace()
    for _ in range(40):
        pace = pace.after(Batch(pace.size, pace.size * US, wal_bytes=pace.size * 16_000))
    assert pace.size == pytest.approx(16 * 2**20 / 16_000, rel=0.01)


def test_cheap_rows_are_taken_fifty_thousand_at_a_time() -> None:
    assert settled(0.1 * US).size == MOST


def test_the_sleep_follows_from_the_duty() -> None:
    assert replace(Pace(), auto_duty=0.5).sleep_s(0.1) == pytest.approx(0.1)
    assert replace(Pace(), auto_duty=0.25).sleep_s(0.1) == pytest.approx(0.3)


def test_what_the_server_idled_already_counts_as_rest() -> None:
    pace = replace(Pace(), auto_duty=0.5)
    assert pace.sleep_s(0.1, idle_s=0.04) == pytest.approx(0.06)
    assert pace.sleep_s(0.1, idle_s=0.2) == 0.0
    assert Pace.starting(0.1, 1000).sleep_s(0.01, rows=1000, idle_s=0.09) == pytest.approx(0.9)


def test_a_ceiling_on_rows_a_second_bounds_the_size_and_stretches_the_rest() -> None:
    pace = settled(10 * US, pace=Pace.starting(0.1, 1000))
    assert pace.size == 1000
    assert pace.sleep_s(0.01, rows=1000) == pytest.approx(0.99)
    assert replace(pace, auto_duty=0.05).sleep_s(0.1, rows=1000) == pytest.approx(1.9)
    assert Pace.starting(0.1, 20).size == 20


def test_manual_speed_changes_target_and_duty_within_bounds() -> None:
    levels = [Pace().at_level(level) for level in range(SLOWEST, FASTEST + 1)]
    targets = [pace.target_s for pace in levels]
    assert targets == sorted(targets)
    assert targets[0] == pytest.approx(0.1 * 0.7**4)
    assert targets[-1] == pytest.approx(0.1 * 1.5**3)
    assert all(DUTY_LEAST <= pace.duty <= 1 for pace in levels)
    assert levels[0].duty < 0.25


def test_gentler_shrinks_the_very_next_batch_and_faster_lets_it_grow() -> None:
    pace = settled(10 * US)
    assert pace.at_level(-2).size == pytest.approx(pace.size * 0.49, rel=0.01)
    assert pace.at_level(2).size == pace.size
    assert settled(10 * US, pace=pace.at_level(2)).size == pytest.approx(pace.size * 2.25, rel=0.02)


def test_among_others_a_batch_takes_a_third_of_the_time_and_rests_and_alone_it_does_neither() -> None:
    pace = settled(10 * US).among(None)
    beside, alone = pace.among(True, 0.0), pace.among(False, 0.0)
    assert (beside.target_s, beside.duty) == (pytest.approx(0.033), DUTY_MOST)
    assert beside.size == pytest.approx(pace.size * 0.33, rel=0.01)
    assert (alone.target_s, alone.duty, alone.size) == (pytest.approx(0.1), 1.0, pace.size)
    assert beside.among(False, 0.0).size == beside.size  # it grows as it learns
    assert replace(alone, auto_duty=DUTY_AFTER_PAUSE).duty == DUTY_AFTER_PAUSE


def test_beside_sessions_that_are_hardly_ever_idle_it_rests_as_long_as_it_works_in_short_batches() -> None:
    pace = settled(10 * US).among(True, 0.1)
    busy = pace.among(True, 0.6)
    assert (busy.target_s, busy.duty) == (pytest.approx(0.025), 0.5)
    assert busy.size == pytest.approx(pace.size * 0.25 / 0.33, rel=0.01)
    assert busy.among(True, 0.4) == busy  # no to and fro
    assert not busy.among(True, 0.1).among(True, 0.4).busy
    unknown = settled(10 * US)
    assert (unknown.among(True, 0.25).busy, unknown.among(True, 0.375).busy) == (False, True)  # two of eight, and three
    assert busy.among(True, 0.1).duty == DUTY_MOST
    assert pace.among(True, 0.4) == pace
    assert settled(10 * US).among(True, 0.4).duty == 0.5  # to begin with less is enough
    assert settled(10 * US).among(True).duty == DUTY_MOST
    assert busy.among(False, 0.0).duty == 1.0
    assert replace(busy, auto_duty=DUTY_AFTER_PAUSE).duty == DUTY_AFTER_PAUSE
    assert replace(busy, level=1).duty == pytest.approx(0.75)  # a person knows better


def test_why_it_rests_is_told_with_the_share_that_holds() -> None:
    busy = settled(10 * US).among(True, 0.6)
    assert why_slow(busy, Gate(), {}) == "works 50% of the time: the sessions of others are hardly ever idle"
    assert "works 75% of the time" in why_slow(busy.at_level(1), Gate(), {})
    assert why_slow(replace(busy, auto_duty=DUTY_AFTER_PAUSE), Gate(), {}) == "works 25% of the time after a pause"


def test_several_batches_of_one_message_may_take_longer_the_less_others_work() -> None:
    """Each of them is committed by itself, and is as short as company asks."""
    pace = settled(10 * US)
    beside = pace.among(True, 0.1)
    assert (beside.target_s, beside.message_s) == (pytest.approx(0.033), pytest.approx(0.1))
    assert beside.at_level(-1).message_s == pytest.approx(0.07)
    assert pace.among(True, 0.6).message_s == pace.among(True, 0.6).target_s
    alone = pace.among(False)
    assert alone.message_s == pytest.approx(3 * alone.target_s)
    assert replace(alone, auto_duty=DUTY_AFTER_PAUSE).message_s == alone.target_s
    assert alone.aiming_at(0.3).message_s == 0.5
    assert alone.aiming_at(2.0).message_s == 2.0


def test_no_commit_is_hurried_but_where_nobody_else_is_there() -> None:
    pace = settled(10 * US)
    assert pace.among(False).alone
    assert not pace.among(True).alone
    assert not pace.among(None).alone
    assert not replace(pace.among(False), auto_duty=DUTY_AFTER_PAUSE).alone


def test_the_hand_stays_within_its_bounds() -> None:
    control = Control()
    for _ in range(20):
        control.faster()
    assert control.level == FASTEST
    for _ in range(20):
        control.slower()
    assert control.level == SLOWEST


def felt(pace: Pace, load: float, seconds: int, start: float = 0.0) -> Pace:
    for second in range(seconds):
        pace = pace.feel(load, start + second)
    return pace


def test_under_load_the_duty_falls_and_in_calm_it_comes_back() -> None:
    busy = felt(Pace(), 0.85, 60)
    assert busy.auto_duty < 0.5
    calm = felt(busy, 0.0, 400, 60.0)
    assert calm.auto_duty == pytest.approx(DUTY_MOST)


def test_between_calm_and_busy_the_duty_holds() -> None:
    pace = replace(Pace(), auto_duty=0.5)
    assert felt(pace, 0.55, 100).auto_duty == 0.5


def test_after_a_pause_it_goes_on_with_half_the_size_and_a_quarter_of_the_time() -> None:
    pace = settled(10 * US)
    after = pace.after_pause()
    assert (after.size, after.auto_duty) == (pace.size // 2, DUTY_AFTER_PAUSE)


# The gate.

LIMITS = Thresholds()


def reading(at: float, *, blocked_s: float = 0.0, lag_s: float = 0.0, lag_bytes: int = 0) -> Reading:
    waiters = (Waiter(4711, "app-1", blocked_s),) if blocked_s else ()
    return Reading(at, waiters, (Replica("r1", lag_s, lag_bytes),))


def test_a_session_that_we_block_for_a_second_closes_the_gate_and_is_named() -> None:
    assert Gate().see(reading(0, blocked_s=0.9), 0).open
    closed = Gate().see(reading(0, blocked_s=1.2), 0)
    assert closed.closed_because == "we block 4711 (app-1) for 1.2 s"


def test_a_replica_behind_in_seconds_or_in_bytes_closes_the_gate() -> None:
    assert Gate().see(reading(0, lag_s=5.5), 0).closed_because == "replica r1 is 5.5 s behind"
    assert "300 MB" in Gate().see(reading(0, lag_bytes=300 * 2**20), 0).closed_because


def test_the_gate_opens_after_ten_seconds_of_calm_and_not_before() -> None:
    gate = Gate().see(reading(0, lag_s=6), 0)
    for second in range(1, 11):
        gate = gate.see(reading(second, lag_s=1), second)
        assert not gate.open
    assert gate.see(reading(11, lag_s=1), 11).open


def test_calm_that_is_interrupted_begins_anew() -> None:
    gate = Gate().see(reading(0, lag_s=6), 0)
    gate = gate.see(reading(1, lag_s=1), 1)
    gate = gate.see(reading(9, lag_s=4.5), 9)
    assert not gate.see(reading(12, lag_s=1), 12).open


def test_what_is_not_seen_is_not_healthy() -> None:
    assert not Gate().see(None, 0).open
    gate = Gate().see(reading(0), 0)
    assert gate.see(reading(0), 2.9).open
    stale = gate.see(reading(0), 3.1)
    assert stale.closed_because.startswith("no health reading for 3.1 s")
    assert stale.see(reading(4), 4).open


def test_blindness_does_not_make_one_forget_why_the_gate_was_closed() -> None:
    gate = Gate().see(reading(0, lag_s=6), 0)
    gate = gate.see(reading(0), 5)
    assert not gate.see(reading(6), 6).open


def test_a_signal_may_be_ignored_and_lag_that_nobody_told_is_none() -> None:
    assert signals(reading(0, blocked_s=9, lag_s=99), Thresholds(blocked_s=None, lag_s=None, lag_bytes=None)) == []
    assert Gate().see(Reading(0, (), (Replica("r1", None, None),)), 0).open


def test_the_worst_signal_is_told_even_while_the_gate_is_open() -> None:
    gate = Gate().see(reading(0, lag_s=4), 0)
    assert gate.open
    assert gate.worst == "replica r1 is 4.0 s behind"
    assert gate.load == pytest.approx(0.8)
