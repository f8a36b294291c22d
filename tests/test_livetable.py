"""The live table: what it paints, where its cursor stays, how it fits a width."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.pilot import Pilot

from dbwatch.tui.columns import Cell, Column, Line, clip, filled, fit, plain
from dbwatch.tui.livetable import LiveTable

COLUMNS = (
    Column("pid", 7, "right", priority=9),
    Column("age", 6, "right", priority=8),
    Column("wait", 10, priority=4),
    Column("db", 8, priority=1),
    Column("what", None, priority=10),
)


class Spied(LiveTable):
    """Remembers which regions it was asked to paint."""

    painted: list[Region]

    def refresh(  # type: ignore[override]  # the spy answers nothing
        self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False
    ) -> None:
        self.painted = [*getattr(self, "painted", []), *(regions or (self.size.region,))]
        super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)


class Host(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[object] = []

    def compose(self) -> ComposeResult:
        yield Spied(COLUMNS)

    def on_live_table_chosen(self, event: LiveTable.Chosen) -> None:
        self.said.append(event.key)


@asynccontextmanager
async def table(width: int = 80, height: int = 12) -> AsyncIterator[tuple[Spied, Pilot[None], Host]]:
    app = Host()
    async with app.run_test(size=(width, height)) as pilot:
        yield app.query_one(Spied), pilot, app


def session(pid: int, *, age: str = "1.0 s", wait: str = "", what: str | Cell = "SELECT 1") -> Line:
    return Line(pid, (str(pid), age, wait, "shop", what))


def shown(table: LiveTable) -> list[str]:
    return ["".join(s.text for s in table.render_line(y)).rstrip() for y in range(table.size.height)]


# How a table fits


def test_columns_give_way_by_priority_and_the_query_keeps_what_is_left() -> None:
    at = {width: {COLUMNS[p.index].title: p.width for p in fit(COLUMNS, width)} for width in (120, 60, 50, 34, 20)}
    assert at[120] == {"pid": 7, "age": 6, "wait": 10, "db": 8, "what": 79}
    assert at[60] == {"pid": 7, "age": 6, "wait": 10, "db": 8, "what": 23}
    assert at[50] == {"pid": 7, "age": 6, "wait": 10, "what": 22}
    assert at[34] == {"pid": 7, "age": 6, "what": 17}
    assert at[20] == {"what": 18}


def test_among_equals_the_rightmost_column_goes_first() -> None:
    columns = (Column("a", 10), Column("b", 10), Column("c", 10))
    assert [columns[p.index].title for p in fit(columns, 25)] == ["a", "b"]


@pytest.mark.parametrize("width", range(1, 30))
@pytest.mark.parametrize(
    "text", ["SELECT 1", "日本語のクエリ", "e\u0301" * 40, "\u0301\u0302", "a\ufe0fb", "x" * 100_000]
)
def test_a_text_is_cut_to_exactly_the_cells_of_its_column(text: str, width: int) -> None:
    assert cell_len(clip(text, width)) == width
    assert len(clip(text, width)) <= 4 * width


def test_marks_do_not_pile_up_and_none_stands_without_a_letter() -> None:
    assert clip("\u0301z\u0301\u0302\u0303\u0304!", 4) == "◌\u0301z\u0301\u0302!"[:3] + "\u0301\u0302! "


def test_a_remark_at_the_end_of_a_cell_survives_the_cut_of_its_text() -> None:
    remarked = Cell("UPDATED users, orders, users of", tails=("← holds what 48213 wants", "← blocks 48213"))
    [wide] = fit((Column("what", None),), 62)
    [narrow] = fit((Column("what", None),), 36)
    assert filled(remarked, wide) == "UPDATED users, orders, users of".ljust(34) + "  ← holds what 48213 wants"
    assert filled(remarked, narrow) == "UPDATED users, or…  ← blocks 48213"


def test_the_last_cell_of_a_short_line_has_all_the_room_that_is_left() -> None:
    [_, line] = plain(
        [Line("build", ("48213", "CREATE INDEX CONCURRENTLY idx_users_phone waits for 47110"))], COLUMNS, 60
    )
    assert line == "    48213 CREATE INDEX CONCURRENTLY idx_users_phone waits f…"


def test_a_table_can_be_read_as_text() -> None:
    assert plain([session(48213, wait="Lock")], COLUMNS, 60) == [
        "      pid    age wait       db       what",
        "    48213  1.0 s Lock       shop     SELECT 1",
    ]


# The cursor


async def test_the_cursor_stays_on_its_session_when_the_order_changes() -> None:
    async with table() as (live, pilot, _):
        live.show([session(pid) for pid in (1, 2, 3, 4)])
        await pilot.press("down", "down")
        assert live.cursor_key == 3
        live.show([session(pid) for pid in (9, 4, 3, 2, 1)])
        assert live.cursor_key == 3
        assert shown(live)[3].startswith("▶       3")


async def test_the_cursor_goes_to_the_nearest_line_when_its_session_is_gone() -> None:
    async with table() as (live, pilot, _):
        live.show([session(pid) for pid in (1, 2, 3, 4)])
        await pilot.press("down", "down")
        live.show([session(pid) for pid in (1, 2, 4)])
        assert live.cursor_key == 4
        live.show([session(1)])
        assert live.cursor_key == 1
        live.show([])
        assert live.cursor_key is None


async def test_the_view_follows_a_cursor_that_somebody_placed() -> None:
    async with table(height=6) as (live, pilot, _):
        live.show([session(pid) for pid in range(50)])
        await pilot.press("down")
        live.show([session(pid) for pid in range(49, -1, -1)])
        assert live.cursor_key == 1
        assert any(line.startswith("▶       1") for line in shown(live))


async def test_the_view_does_not_follow_a_cursor_that_nobody_placed() -> None:
    async with table(height=6) as (live, _, _):
        live.show([session(pid) for pid in range(50)])
        live.show([session(pid) for pid in range(49, -1, -1)])
        assert live.position[0] == 0
        assert live.cursor_key == 49


async def test_keys_walk_through_a_long_table() -> None:
    async with table(height=11) as (live, pilot, app):
        live.show([session(pid) for pid in range(100)])
        seen = []
        for key in ("pagedown", "down", "end", "pageup", "up", "home"):
            await pilot.press(key)
            seen.append(live.cursor_key)
        assert seen == [10, 11, 99, 89, 88, 0]
        await pilot.press("end", "enter")
        assert app.said == [99]


async def test_a_click_moves_the_cursor_and_a_second_one_chooses() -> None:
    async with table() as (live, pilot, app):
        live.show([session(pid) for pid in (1, 2, 3)])
        await pilot.click(Spied, offset=(5, 2))
        assert (live.cursor_key, app.said) == (2, [])
        await pilot.click(Spied, offset=(5, 2))
        assert app.said == [2]
        await pilot.click(Spied, offset=(5, 9))
        assert live.cursor_key == 2


# What is painted


async def test_an_equal_table_paints_nothing() -> None:
    async with table() as (live, _, _):
        live.show([session(pid) for pid in range(100)])
        live.painted = []
        live.show([session(pid) for pid in range(100)])
        assert live.painted == []


async def test_a_changed_cell_paints_only_itself() -> None:
    async with table() as (live, _, _):
        live.show([session(pid) for pid in range(100)])
        live.painted = []
        live.show([session(pid, age="9.0 s" if pid == 2 else "1.0 s") for pid in range(100)])
        assert live.painted == [Region(10, 3, 6, 1)]


async def test_a_line_with_many_changes_is_painted_as_a_line() -> None:
    async with table() as (live, _, _):
        live.show([session(pid) for pid in range(100)])
        live.painted = []
        live.show([session(pid, what="x", wait="y", age="z") if pid == 2 else session(pid) for pid in range(100)])
        assert live.painted == [Region(0, 3, 80, 1)]


async def test_what_is_not_visible_is_not_painted() -> None:
    async with table() as (live, _, _):
        live.show([session(pid) for pid in range(100)])
        live.painted = []
        live.show([session(pid, age="9.0 s" if pid > 11 else "1.0 s") for pid in range(120)])
        assert live.painted == []


async def test_when_most_lines_changed_all_are_painted_at_once() -> None:
    async with table() as (live, _, _):
        live.show([session(pid) for pid in range(100)])
        live.painted = []
        live.show([session(pid, age="9.0 s") for pid in range(100)])
        assert live.painted == [Region(0, 0, 80, 12)]


async def test_an_empty_table_says_why() -> None:
    async with table() as (live, _, _):
        live.show([session(1)])
        live.show([], empty="nobody waits for a lock")
        assert shown(live)[1:3] == ["  nobody waits for a lock", ""]


async def test_another_reason_for_an_empty_table_is_painted() -> None:
    async with table() as (live, _, _):
        live.show([], empty="asking …")
        live.painted = []
        live.show([], empty="no row is set aside")
        assert live.painted == [Region(0, 0, 80, 12)]


async def test_stale_rows_are_dimmed_and_stay() -> None:
    async with table() as (live, _, _):
        live.show([session(1)])
        live.faded = True
        assert all(segment.style is not None and segment.style.dim for segment in live.render_line(1))
        assert "SELECT 1" in shown(live)[1]


async def test_nothing_in_a_cell_is_markup() -> None:
    async with table() as (live, _, app):
        live.show([session(1, what="[/] [red]x [@click=app.quit]y")])
        assert "[/] [red]x [@click=app.quit]y" in shown(live)[1]
        assert app.is_running


async def test_a_resize_fits_the_columns_again() -> None:
    async with table() as (live, pilot, _):
        live.show([session(1)])
        await pilot.resize_terminal(30, 8)
        assert shown(live)[:2] == ["      pid what", "▶       1 SELECT 1"]
