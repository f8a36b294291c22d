"""Between when and when a backfill ends: by the spread of its rates, and unknown as long as nobody can know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate

import pytest
from fakefeed import BACKFILLING
from hypothesis import given
from hypothesis import strategies as st
from ledger import Ledger, Scene
from servers import Database

from dbwatch.backfill.eta import LEAST_S, MEMORY_S, Seen, spread
from dbwatch.backfill.progress import State, between, left
from dbwatch.backfill.run import Backfill
from dbwatch.cli.backfill import bar, progress_json
from dbwatch.clock import SystemClock


def walked(rates: Iterable[int]) -> list[Seen]:
    """A walk of so many keys in each second."""
    return [(float(second), keys) for second, keys in enumerate(accumulate(rates, initial=0))]


def test_a_steady_walk_ends_when_it_says() -> None:
    assert spread(walked([100] * 40), 6000) == (pytest.approx(60), pytest.approx(60))


def test_nothing_is_said_before_enough_was_seen() -> None:
    assert spread([], 1000) == (None, None)
    assert spread([(5.0, 100)], 1000) == (None, None)
    assert spread(walked([100] * int(LEAST_S - 1)), 1000) == (None, None)
    assert spread(walked([100] * int(LEAST_S)), 1000) != (None, None)


def test_one_stretch_that_was_an_exception_widens_nothing() -> None:
    assert spread(walked([100] * 30 + [0] * 5 + [100] * 5), 6000) == (pytest.approx(60), pytest.approx(60))


def test_a_walk_that_rests_now_and_then_may_take_as_long_as_its_slow_stretches() -> None:
    low, high = spread(walked(([200] * 5 + [50] * 5) * 4), 6000)
    assert low == pytest.approx(30)
    assert high == pytest.approx(120)


def test_a_walk_that_stood_still_for_a_quarter_of_the_time_may_never_end() -> None:
    assert spread(walked([100] * 30 + [0] * 10), 6000) == (pytest.approx(60), None)
    assert spread(walked([0] * 40), 6000) == (None, None)


def test_what_was_long_ago_says_nothing_of_the_end() -> None:
    low, high = spread(walked([1] * 1000 + [100] * int(MEMORY_S)), 6000)
    assert (low, high) == (pytest.approx(60), pytest.approx(60))


def test_at_the_end_nothing_is_left() -> None:
    assert spread(walked([100] * 40), 0) == (0.0, 0.0)


@given(st.lists(st.integers(0, 10_000), min_size=9, max_size=400), st.integers(1, 10**9))
def test_the_earliest_end_is_never_after_the_latest(rates: list[int], keys: int) -> None:
    low, high = spread(walked(rates), keys)
    assert low is None or low > 0
    assert high is None or (low is not None and low <= high)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (40.0, 70.0, "40 to 70 s"),
        (600.0, 1080.0, "10 to 18 min"),
        (7560.0, 12_600.0, "2.1 to 3.5 h"),
        (200_000.0, 400_000.0, "2.3 to 4.6 d"),
        (60.0, 60.2, "60 s"),
        (720.0, None, "12 min or more"),
        (30.0, 600.0, "up to 10 min"),
    ],
)
def test_a_range_is_told_in_one_unit(low: float, high: float | None, said: str) -> None:
    assert between(low, high) == said


def test_the_bar_and_the_json_lines_tell_the_range_too() -> None:
    told = replace(BACKFILLING, eta_s=760.0, eta_low_s=600.0, eta_high_s=1080.0)
    assert left(told) == "12:40 (10 to 18 min)"
    assert "12:40 (10 to 18 min) left" in bar(told, 120)
    found = progress_json(told)
    assert (found["eta_s"], found["eta_low_s"], found["eta_high_s"]) == (760.0, 600.0, 1080.0)
    assert left(replace(told, state=State.DONE, eta_s=0.0)) == "0:00"


async def test_where_there_is_more_than_was_estimated_nobody_knows_how_much(db18: Database) -> None:
    ledger = await Ledger.make(db18)
    scene = Scene()
    plan = replace(await ledger.plan(), rows_estimate=100)
    await Backfill(db18.connector, plan, clock=SystemClock(), progress=scene.see).run()
    beyond = [told for told in scene.told if told.state is State.RUNNING and told.rows_done > 100]
    assert len(beyond) > 3
    assert {(told.eta_s, told.eta_low_s, told.eta_high_s) for told in beyond} == {(None, None, None)}
    last = scene.told[-1]
    assert (last.state, last.eta_s, last.eta_low_s, last.eta_high_s) == (State.DONE, 0.0, 0.0, 0.0)
