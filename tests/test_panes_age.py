"""How old the data of a pane is, and how far it can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from fakefeed import snapshot
from rich.cells import cell_len

from dbwatch.monitor.samples import Snapshot, Status, View
from dbwatch.tui.panes import age
from dbwatch.tui.panes.base import Choice, why_empty
from dbwatch.tui.panes.rim import rim


def view(*rows: object, status: Status = Status.OK, reason: str = "", taken: float = 100.0) -> View[Any]:
    return View(status, reason, snapshot(761).at, taken, rows)


def told(status: Status = Status.OK, reason: str = "", *, now: float = 100.4, **polled: Any) -> age.Credit:
    shown = replace(snapshot(761), **polled)
    return age.credit(shown, [view(1, status=status, reason=reason)], now)


@pytest.mark.parametrize(
    ("credit", "text", "stale"),
    [
        (told(), "0.4 s", False),
        (told(now=103.9), "3.9 s", False),
        (told(connected=False, trouble="reconnecting, try 3", now=114.0), "stale 14 s (reconnecting, try 3)", True),
        (told(Status.ERROR, "too slow", now=114.0, taken=113.0), "stale 14 s (too slow)", True),
        (told(now=114.0), "stale 14 s (no poll for 14 s)", True),
        (told(Status.HIDDEN, "12 sessions hidden: GRANT pg_monitor TO dba"),
         "12 sessions hidden: GRANT pg_monitor TO dba · 0.4 s", False),
        (told(Status.LOCKED, "a lock is in the way"), "locked: a lock is in the way · 0.4 s", False),
        (told(Status.OK, "1,000 of 1,312 sessions shown"), "1,000 of 1,312 sessions shown · 0.4 s", False),
    ],
)  # fmt: skip
def test_the_rim_tells_the_age_and_the_status_of_the_data(credit: age.Credit, text: str, stale: bool) -> None:
    assert (credit.text, credit.stale) == (text, stale)


def test_the_oldest_and_the_worst_of_two_views_count() -> None:
    fresh, old = view(1, taken=100.0), view(2, taken=92.0, status=Status.HIDDEN, reason="3 locks hidden")
    assert age.credit(snapshot(761), [fresh, old], 100.4).text == "3 locks hidden · 8.4 s"


def test_before_the_first_answer_there_is_no_age() -> None:
    assert age.credit(Snapshot(), [View()], 5.0) == age.Credit("connecting", "bad")


@pytest.mark.parametrize("width", [120, 80, 50, 20, 10])
def test_the_rim_fits_every_width_and_keeps_the_credit(width: int) -> None:
    runs = rim("13 sessions · 3 wait for a lock", age.Credit("stale 14 s (reconnecting, try 3)", "bad", True), width)
    line = "".join(text for text, _ in runs)
    assert cell_len(line) == width
    assert line.startswith("└")
    assert "stale"[: width - 7] in line


def test_an_empty_table_does_not_pretend_to_know() -> None:
    unsupported: Sequence[View[Any]] = [View(Status.UNSUPPORTED, "pg_stat_statements is not installed")]
    assert why_empty(snapshot(1), unsupported) == "unsupported: pg_stat_statements is not installed"
    assert why_empty(Snapshot(trouble="connecting to prod-db1"), [View()]) == "connecting to prod-db1"
    assert why_empty(snapshot(1), [view()]) == ""
    assert why_empty(snapshot(1), [view()], Choice(filter="x")) == "nothing here contains x"
