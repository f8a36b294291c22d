"""Panes as widgets: what they keep when the data is stale, what freezing means, what a tick costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from fakefeed import frames, snapshot, window
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from dbwatch.journal import events as ev
from dbwatch.tui.panes.activity import ActivityPane
from dbwatch.tui.panes.base import Pane, TablePane
from dbwatch.tui.panes.charts import ChartsPane, Picture
from dbwatch.tui.panes.rim import Rim
from dbwatch.tui.panes.statements import StatementsPane
from dbwatch.window.feed import Frame

JAM = frames()["migrating"]
LOST = replace(JAM, snapshot=replace(JAM.snapshot, connected=False, trouble="reconnecting, try 3"))


class Host(App[None]):
    def __init__(self, pane: Pane) -> None:
        super().__init__()
        self.pane = pane

    def compose(self) -> ComposeResult:
        yield self.pane


@asynccontextmanager
async def shown(pane: Pane, width: int = 100, height: int = 20) -> AsyncIterator[Pilot[None]]:
    async with Host(pane).run_test(size=(width, height)) as pilot:
        yield pilot


def rim(pane: Pane) -> str:
    return pane.query_one(Rim).text


def rows(pane: TablePane) -> list[str]:
    table = pane.table
    return ["".join(s.text for s in table.render_line(y)).rstrip() for y in range(1, 1 + len(table.lines))]


async def test_a_stale_pane_keeps_its_rows_dimmed_and_says_since_when() -> None:
    pane = ActivityPane()
    async with shown(pane):
        pane.view(JAM, 100.4)
        live = rows(pane)
        assert rim(pane).endswith("0.4 s")
        pane.view(LOST, 114.0)
        assert rows(pane) == live
        assert rim(pane).endswith("stale 14 s (reconnecting, try 3)")
        assert pane.table.faded
        pane.view(JAM, 100.5)
        assert not pane.table.faded


async def test_data_becomes_stale_by_itself_when_no_poll_comes() -> None:
    pane = ActivityPane()
    async with shown(pane):
        pane.view(JAM, 100.4)
        pane.tick(109.0)
        assert "stale 9.0 s (no poll for 9.0 s)" in rim(pane)
        pane.interval_s = 10.0
        pane.tick(109.0)
        assert rim(pane).endswith("wait for a lock 9.0 s")


async def test_a_tick_paints_the_rim_and_nothing_else() -> None:
    pane = ActivityPane()
    painted: list[object] = []
    async with shown(pane) as pilot:
        pane.view(JAM, 100.4)
        await pilot.pause()
        for widget in (pane, pane.table):
            widget.refresh = lambda *regions, **_: painted.append(regions)  # type: ignore[assignment, misc]  # a spy
        pane.tick(100.9)
        assert rim(pane).endswith("0.9 s")
        assert painted == []


async def test_a_frozen_pane_stands_still_and_shows_the_newest_when_it_goes_on() -> None:
    pane = ActivityPane()
    later = Frame(snapshot(790, taken=130.0), JAM.window)
    async with shown(pane):
        pane.view(JAM, 100.4)
        before = rows(pane)
        pane.freeze(True, 101.0)
        pane.view(later, 130.4)
        assert rows(pane) == before
        assert "frozen 29 s" in rim(pane)
        pane.freeze(False, 130.5)
        assert rows(pane) != before
        assert "frozen" not in rim(pane)


async def test_the_filter_the_order_and_the_export_go_together() -> None:
    pane = ActivityPane()
    async with shown(pane):
        pane.view(JAM, 100.4)
        pane.set_filter("\x1bAPP-\n")
        assert "nothing here contains ␛APP-" in "".join(s.text for s in pane.table.render_line(1))
        pane.set_filter("App-")
        assert [record["pid"] for record in pane.export()] == [47311, 47312, 47400]
        assert pane.next_sort() == "wait"
        assert "by wait · /App-" in rim(pane)
        assert len(rows(pane)) == 3


async def test_the_cursor_names_a_session_for_cancel_and_terminate() -> None:
    pane = ActivityPane()
    async with shown(pane) as pilot:
        pane.view(JAM, 100.4)
        pane.table.focus()
        await pilot.press("down")
        session = pane.session
        assert session is not None
        assert session.pid == 48213
        assert pane.detail()[0].endswith("48213")
        pane.view(Frame(replace(JAM.snapshot, activity=replace(JAM.snapshot.activity, rows=()))), 100.5)
        assert pane.session is None


async def test_without_a_window_statements_are_measured_from_the_first_look() -> None:
    pane = StatementsPane()
    first = frames()["watching"]
    async with shown(pane):
        pane.collect(first)
        pane.view(first, 100.4)
        assert "no statement ended since 21:16:51" in "".join(s.text for s in pane.table.render_line(1))


async def test_charts_are_drawn_for_the_room_that_there_is() -> None:
    pane = ChartsPane()
    opened = window(ev.StepStarted("add", 1, []))
    async with shown(pane, 100, 30) as pilot:
        for second in range(60, 90):
            frame = Frame(snapshot(second, taken=100.0 + second), opened)
            pane.collect(frame)
            pane.view(frame, 100.4 + second)
        await pilot.pause()
        assert drawn(pane)[0].startswith("transactions/s 1.2k")
        assert len(drawn(pane)) == 29
        assert "▼add" in drawn(pane)[1]
        await pilot.resize_terminal(60, 12)
        await pilot.pause()
        assert len(drawn(pane)) == 11


async def test_charts_stand_still_until_a_dot_is_full() -> None:
    pane = ChartsPane()
    async with shown(pane, 100, 30) as pilot:
        pictures = set()
        for tenth in range(600, 640):
            frame = Frame(snapshot(tenth / 10, taken=100.0 + tenth / 10))
            pane.collect(frame)
            pane.view(frame, 100.0)
            await pilot.pause()
            pictures.add(tuple(drawn(pane)[1:]))
        assert len(pictures) <= 5  # two before there is a dot, and one for every 1.5 s


def drawn(pane: ChartsPane) -> list[str]:
    picture = pane.query_one(Picture)
    return ["".join(s.text for s in picture.render_line(y)).rstrip() for y in range(picture.size.height)]
