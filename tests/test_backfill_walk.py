"""How a table is walked: the cursor as a text, and the choice between plain keyset and stripes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbwatch.backfill.cursor import Cursor, Window
from dbwatch.backfill.pages import Pages, last_of, page
from dbwatch.backfill.passes import (
    PASSES,
    PASSES_AMONG_OTHERS,
    STRIPES,
    WINDOW_MOST,
    Light,
    cuts,
    share,
    stripes,
    together,
)
from dbwatch.backfill.walk import HOT_LEAST, LOOK_FIRST, LOOK_MOST, STRETCH, Chooser, Walk

FIRST_LOOK = Chooser.starting(Walk.AUTO, "").left
"""Windows before the plain walk is timed for the first time."""

KEYS = st.tuples(st.text(), st.text()) | st.tuples(st.text())
WINDOWS = st.builds(
    Window, KEYS, st.integers(1, 40_000), st.sampled_from([1, 8]), st.integers(0, 7), st.none() | KEYS
)  # fmt: skip


@given(st.builds(Cursor, st.none() | KEYS, st.none() | WINDOWS, st.just("") | st.text(min_size=1)))
def test_a_cursor_is_what_its_text_says(cursor: Cursor) -> None:
    assert Cursor.from_text(cursor.to_text()) == cursor


def test_a_plain_cursor_is_the_key_alone() -> None:
    assert Cursor(("5", "x")).to_text() == '["5","x"]'
    assert Cursor.from_text(None) == Cursor()


def test_a_window_is_over_when_its_last_pass_has_reached_its_end() -> None:
    cursor = Cursor(("10",)).opened(Window(("50",), 40, of=2))
    assert cursor.after == ("10",)
    half_way = cursor.passed(("30",))
    assert half_way.after == ("30",)
    second = half_way.passed(("50",))
    assert second.window == Window(("50",), 40, of=2, number=1)
    assert second.after == ("10",)
    assert second.passed(("50",)) == Cursor(("50",))


def walked(chooser: Chooser, costs: dict[Walk, float], windows: int, hot: float = 0.9) -> tuple[Chooser, list[Walk]]:
    """So many windows, whose rows cost that; which walk each of them took."""
    taken = []
    for _ in range(windows):
        now = chooser.now
        taken.append(now)
        batches = 8 if now is Walk.STRIPES else STRETCH
        share = hot if now is Walk.STRIPES else 0.0
        for number in range(batches):
            ends = now is Walk.KEYSET or number == batches - 1
            chooser = chooser.after(5000, 5000, costs[now] * 5000, share, ends=ends)
    return chooser, taken


CHEAPER_STRIPES = {Walk.STRIPES: 4e-6, Walk.KEYSET: 10e-6}
DEARER_STRIPES = {Walk.STRIPES: 16e-6, Walk.KEYSET: 10e-6}


def test_where_stripes_are_cheaper_a_plain_stretch_is_timed_seldom() -> None:
    _, taken = walked(Chooser.starting(Walk.AUTO, ""), CHEAPER_STRIPES, 200)
    assert taken.index(Walk.KEYSET) == FIRST_LOOK
    assert taken.count(Walk.KEYSET) <= 6


def test_where_stripes_are_dearer_it_walks_plainly_and_looks_again() -> None:
    chooser, taken = walked(Chooser.starting(Walk.AUTO, ""), DEARER_STRIPES, 200)
    assert taken[FIRST_LOOK + 1] is Walk.KEYSET
    assert FIRST_LOOK + 3 <= taken.count(Walk.STRIPES) <= FIRST_LOOK + 8
    _, later = walked(chooser, CHEAPER_STRIPES, 2 * LOOK_MOST)
    assert later[-1] is Walk.STRIPES


def test_stripes_without_hot_updates_are_given_up_at_once() -> None:
    _, taken = walked(Chooser.starting(Walk.AUTO, ""), CHEAPER_STRIPES, 3, hot=HOT_LEAST - 0.01)
    assert taken == [Walk.STRIPES, Walk.KEYSET, Walk.KEYSET]
    chooser, taken = walked(Chooser.starting(Walk.AUTO, ""), CHEAPER_STRIPES, FIRST_LOOK + 2 + LOOK_FIRST - 1)
    assert taken[-1] is Walk.STRIPES
    chooser, taken = walked(chooser, CHEAPER_STRIPES, 2, hot=0.1)
    assert taken == [Walk.STRIPES, Walk.KEYSET]


@pytest.mark.parametrize("walk", [Walk.STRIPES, Walk.KEYSET])
def test_what_a_person_wants_is_kept(walk: Walk) -> None:
    for costs in (CHEAPER_STRIPES, DEARER_STRIPES):
        assert set(walked(Chooser.starting(walk, "why not"), costs, 100, hot=0.0)[1]) == {walk}


def test_where_the_catalogue_rules_them_out_no_stripe_is_tried() -> None:
    assert set(walked(Chooser.starting(Walk.AUTO, "an index"), CHEAPER_STRIPES, 100)[1]) == {Walk.KEYSET}


def test_a_sparse_stretch_teaches_nothing() -> None:
    chooser = Chooser.starting(Walk.AUTO, "")
    assert chooser.after(1000, 5000, 1.0, 0.0, ends=True) == chooser
    begun = chooser.after(5000, 5000, 0.02, 0.0, ends=False)
    assert begun.after(1000, 5000, 1.0, 0.0, ends=True) == chooser


def test_where_hardly_a_row_is_to_be_filled_a_window_has_one_pass() -> None:
    chooser = Chooser.starting(Walk.AUTO, "")
    sparse = chooser.after(10, 5000, 0.01, None, ends=True)
    assert (chooser.passes, sparse.passes) == (PASSES, 1)
    dense_again = sparse.after(5000, 5000, 0.05, 0.0, ends=True)
    assert (dense_again.passes, dense_again.now) == (PASSES, Walk.STRIPES)


def test_as_many_light_passes_go_together_as_fit_where_one_of_them_may_be_the_longest() -> None:
    assert Light().fit(0.08, 1000) == 0
    light = Light().after(0.01, 1000)
    assert light.fit(0.08, 1000) == 8
    assert light.fit(0.08, 2000) == 4
    slow = light.after(0.05, 1000)
    assert slow.fit(0.08, 1000) == 2
    assert slow.fit(0.02, 1000) == 1
    for _ in range(40):
        slow = slow.after(0.01, 1000)
    assert slow.fit(0.08, 1000) in (7, 8)


def test_the_passes_take_every_stripe_once() -> None:
    for of in (1, PASSES, PASSES_AMONG_OTHERS):
        bounds = [stripes(of, number) for number in range(of)]
        assert [n for first, last in bounds for n in range(first, last + 1)] == list(range(STRIPES))
        assert sum(share(of, number) for number in range(of)) == pytest.approx(1)


@given(st.integers(0, 2**31), st.integers(1, 2**31), st.integers(1, 100_000), st.floats(0.01, 250))
def test_pages_are_passed_without_a_gap_to_the_last(first: int, more: int, rows: int, each: float) -> None:
    pages = Pages(each)
    lo, top = (last_of(first)), last_of(first + more)
    assert top is not None
    edge = pages.edge(lo, top, rows)
    assert edge is not None
    assert first <= page(edge) <= page(top)
    assert pages.edge(top, top, rows) is None
    assert pages.edge(None, top, rows) is not None


CUTS = st.lists(st.integers(1, 4), min_size=1, max_size=12)


@given(CUTS, st.integers(1, 4), st.lists(st.integers(0, 30), min_size=1, max_size=11))
def test_several_hands_take_every_pass_over_every_window_once_and_in_its_order(
    windows: list[int], hands: int, fit: list[int]
) -> None:
    taken = [one for message in together(windows, hands, fit) for one in message]
    for window, n in enumerate(windows):
        its = [(number, cut) for number, over, cut in taken if over == window]
        assert its == [(0, cut) for cut in range(n)] + [(number, 0) for number in range(1, len(fit))]


@given(CUTS, st.integers(1, 4), st.lists(st.integers(1, 30), min_size=2, max_size=11))
def test_a_message_of_several_hands_is_for_one_of_them_and_no_longer_than_fits(
    windows: list[int], hands: int, fit: list[int]
) -> None:
    most = -(-len(windows) // hands)
    for message in together(windows, hands, fit):
        assert sum(1 / fit[number] for number, *_ in message) <= 1 + 1e-6
        assert len({window // most for _, window, _ in message}) == 1
        heavy = [number == 0 for number, *_ in message]
        assert all(heavy) or not any(heavy)


def test_a_window_is_as_large_as_its_first_batch_until_it_is_known_what_a_light_pass_takes() -> None:
    assert Light().window(1000, PASSES, 0.1, 1.0) == round(1000 / share(PASSES))
    assert Light().after(0.01, 1000).window(1000, 1, 0.1, 1.0) == 1000


@given(st.integers(10, 7000), st.floats(1e-6, 1e-3), st.sampled_from([1.0, 3.0, 4.0]))
def test_a_light_pass_over_a_window_fits_by_what_it_took_and_at_worst_by_what_it_may_take(
    size: int, each_s: float, at_worst: float
) -> None:
    window = Light().after(1000 * each_s, 1000).window(size, PASSES, 0.1, at_worst)
    light = window * share(PASSES, 1)
    if window > round(size / share(PASSES)):
        assert light * each_s <= 0.1
        assert light <= at_worst * size + 1
        assert window <= WINDOW_MOST
    own = window * share(PASSES)
    assert own / cuts(own, size) <= 1.25 * size + 1
