"""Charts: values in, lines of an exact size out."""

from __future__ import annotations

import subprocess
import sys

import pytest
from rich.cells import cell_len

from dbwatch.text import size
from dbwatch.tui.chart import Mark, Series, chart, nice_top

STEADY = Series("tps", tuple((second - 300.0, 1200.0) for second in range(301)))


def lines(series: Series, width: int, height: int, *marks: Mark) -> list[str]:
    return chart(series, width, height, marks).plain.split("\n")


@pytest.mark.parametrize(
    ("width", "height"), [(160, 20), (85, 12), (78, 7), (40, 6), (24, 6), (23, 5), (10, 3), (1, 1)]
)
def test_a_chart_is_exactly_as_large_as_it_was_asked_to_be(width: int, height: int) -> None:
    drawn = lines(STEADY, width, height, Mark(-200, "add"), Mark(-10, "a name longer than what is left"))
    assert len(drawn) == height
    assert {cell_len(line) for line in drawn} == {width}


@pytest.mark.parametrize("width", [60, 102, 200])
def test_the_axis_reaches_the_right_edge_whatever_terminal_there_is(width: int) -> None:
    assert lines(STEADY, width, 8)[-1].endswith("now")
    assert lines(STEADY, width, 60)[-1].endswith("now")


def test_the_heading_tells_the_newest_the_least_and_the_most() -> None:
    series = Series("WAL", ((-3.0, 1024.0), (-2.0, 10240.0), (-1.0, 2048.0)))
    assert chart(series, 60, 8, shown=size).plain.startswith("WAL 2.0 kB   least 1.0 kB   most 10 kB ")


def test_an_unmeasured_present_is_no_value() -> None:
    assert lines(Series("tps", ((-2.0, 10.0), (-1.0, None))), 60, 8)[0].startswith("tps no value now")


def test_without_any_value_the_chart_says_so() -> None:
    assert lines(Series("tps", ((-1.0, None),)), 40, 8)[:2] == [f"{'tps':40}", f"{'  nothing measured yet':40}"]


def test_a_gap_stays_a_gap() -> None:
    whole = lines(STEADY, 85, 12)
    holed = lines(Series("tps", tuple((x, None if -200 < x < -100 else y) for x, y in STEADY.points)), 85, 12)
    level = next(n for n, line in enumerate(whole) if "▀▀▀" in line or "▄▄▄" in line)
    assert " " * 20 in holed[level].strip()
    assert " " * 20 not in whole[level].strip()


def test_steps_are_marked_where_they_began_and_named_where_there_is_room() -> None:
    drawn = lines(STEADY, 85, 12, Mark(-250, "add"), Mark(-99, "fill"), Mark(-98, "complete"))
    assert "▼add" in drawn[1]
    assert "fill▼complete" in drawn[1]
    assert sum(line.count("┊") == 2 for line in drawn) >= 5  # fill and complete share a column


def test_a_mark_of_just_now_is_named_to_the_left_of_its_line() -> None:
    drawn = lines(STEADY, 85, 12, Mark(-2, "v0.8.0 is out", "★"))
    assert "v0.8.0 is out★" in drawn[1]
    crowded = lines(STEADY, 85, 12, Mark(-4, "add"), Mark(-3, "fill"), Mark(-2, "complete"))
    assert "add▼" in crowded[1]
    assert "fill" not in crowded[1]
    assert "complete" not in crowded[1]


def test_marks_outside_of_the_span_are_not_drawn() -> None:
    assert "▼" not in "".join(lines(STEADY, 85, 12, Mark(-301, "before"), Mark(5, "to come")))


@pytest.mark.parametrize(
    ("highest", "top"), [(0, 1), (0.2, 1), (1, 2), (33, 40), (34, 50), (1388, 2000), (7000, 10000)]
)
def test_the_axis_ends_at_a_round_value_above_the_highest(highest: float, top: float) -> None:
    assert nice_top(highest) == pytest.approx(top)


def test_plotext_is_loaded_with_the_first_chart_only() -> None:
    code = "import sys, dbwatch.tui.chart; print('plotext' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
