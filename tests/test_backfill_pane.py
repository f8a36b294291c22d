"""The Backfill's pane: the plan before it runs, how it goes, the rows it set aside, and what a driver may change."""

from __future__ import annotations

from dataclasses import replace

import fakefeed as ff
import pytest
from seat import NARROW, WIDE, Seat, seat, wait_for

from dbwatch.backfill.heap import Heap
from dbwatch.backfill.progress import State
from dbwatch.backfill.signals import PAUSING
from dbwatch.backfill.walk import Walk
from dbwatch.journal import events as ev
from dbwatch.tui.bars import BEYOND, TARGET, bars
from dbwatch.tui.columns import fit
from dbwatch.tui.dialogs.batch_time import read
from dbwatch.tui.dialogs.override import MEANS, ranked
from dbwatch.tui.panes.aside import aside_sheet
from dbwatch.tui.panes.filling import progress_lines
from dbwatch.window.feed import Aside, AsideRow, Foretold, Frame
from dbwatch.window.intents import OverrideSignal, RetryRows, SetBatchTime

COSTED = replace(
    ff.BACKFILLING, walk=Walk.STRIPES, walk_why="a plain walk is timed against it now and then", hot=0.82,
    wal_bytes=320_000_000, wal_rows=612_340, wal_per_row_foretold=540.0, heap=Heap(400 * 2**20, 431 * 2**20),
    bloat_foretold=60 * 2**20, eta_low_s=40.0, eta_high_s=70.0,
)  # fmt: skip
SPENT = (*ff.FILLING, ev.StepDone("fill", 1, "1,295,000 rows, 2 in quarantine", 100.0))
ENDED = replace(ff.BACKFILLING, state=State.DONE, fraction=1.0, quarantined=2)
AFTER = Frame(ff.snapshot(761), ff.window(*SPENT, backfill=ENDED, backfill_step="fill"))


def filling(**changes: object) -> Frame:
    progress = replace(COSTED, **changes)  # type: ignore[arg-type]  # by name
    return Frame(ff.snapshot(761), ff.window(*ff.FILLING, backfill=progress, backfill_step="fill", busy="fill"))


# While it runs


def shown(width: int = 78, height: int | None = None, **changes: object) -> str:
    progress = replace(COSTED, **changes)  # type: ignore[arg-type]  # by name
    return "\n".join(line.plain for line in progress_lines(progress, width, height))


def test_the_time_left_comes_with_its_range() -> None:
    assert "left       0:55 (40 to 70 s)" in shown()
    assert "left       0:55\n" in shown(eta_low_s=None, eta_high_s=None)
    assert "left       0:55 (40 s or more)" in shown(eta_high_s=None)
    assert "left       unknown (40 to 70 s), once it goes on" in shown(state=State.PAUSED, eta_s=None)


def test_what_it_costs_stands_against_what_was_foretold() -> None:
    assert "WAL        305 MB, 523 B a row (540 B foretold)" in shown()
    assert "bloat      431 MB on disk, 31 MB more than when it began (60 MB foretold)" in shown()
    assert "no more than when it began" in shown(heap=Heap(100, 100))
    assert "bloat" not in shown(heap=None)


def test_a_batch_that_is_shorter_for_others_says_so() -> None:
    beside = shown(height=40, alone_ms=100.0, target_ms=50.0, history=(30.0, 40.0))
    assert "(100 while nobody else works)" in beside
    assert "nobody else works" not in shown(height=40, alone_ms=50.0, target_ms=50.0, history=(30.0, 40.0))


def test_how_it_walks_comes_with_the_reason() -> None:
    assert "in stripes  ▕██████▌ ▏ 82.0 % HOT: a plain walk is timed" in shown(120)
    why = "SET changes what idx_users_phone holds: no update of it is HOT"
    assert f"walk       plainly, by keys: {why}" in shown(walk=Walk.KEYSET, hot=0.0, walk_why=why)


def test_the_batches_are_a_chart_where_there_is_room_and_a_line_where_there_is_none() -> None:
    assert len(shown(78, 17).splitlines()) <= 17
    assert "▃" in shown(78, 17).split("batch ")[1].splitlines()[0]
    roomy = shown(120, 34).splitlines()
    assert len(roomy) <= 34
    [target] = [one for one in roomy if "100 ms " in one and "of" not in one]
    assert TARGET in target or "█" in target


def test_bars_end_at_their_value_and_the_target_is_seen_through() -> None:
    drawn = [cells for _, cells in bars((50, 100, 150, 1000), 100, 6, 8)]
    assert drawn[0] == f"   {BEYOND}  "
    assert [line[0] for line in drawn] == [" ", " ", " ", " ", " ", TARGET, " ", "█"]
    assert drawn[5] == f"{TARGET}{TARGET}██{TARGET}{TARGET}"
    assert [named for named, _ in bars((50,), 100, 4, 4)] == [150, 100, None, None]


def test_what_presses_stands_above_what_is_of_interest() -> None:
    lines = shown(blocked=2, quarantined=1, overridden=(("lag", 240.0),)).splitlines()
    assert lines.index(" blocks     ▲ 2 sessions wait for our batch") < next(
        n for n, one in enumerate(lines) if one.startswith(" batch")
    )
    assert " override   ▲ lag is not heeded for 4 min yet" in lines
    assert " poison     ▲ 1 row set aside that could not take a value: v lists them" in lines


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_all_of_a_running_backfill_fits_the_pane(size: tuple[int, int]) -> None:
    async with seat(filling(blocked=2, delayed=3, quarantined=12), size) as at:
        await at.press("7")
        for part in ("0:55 (40 to 70 s)", "2 sessions wait", "12 rows set aside", "in stripes", "523 B a row", "31 MB"):
            assert part in at.text
        assert (f"100 ms {TARGET}" in at.text) == (size == WIDE)


def test_in_the_end_it_tells_how_it_walked_and_nothing_of_what_comes_next() -> None:
    ended = shown(state=State.DONE, striped=0.75, walk=Walk.KEYSET, hot=0.01, rows_per_s=3.0, eta_s=0.0)
    assert "walk       75.0 % of the rows in stripes, 25.0 % plainly" in ended
    assert not any(part in ended for part in ("rows/s", "left ", "next batch", "gentler"))
    assert "walk       plainly, by keys" in shown(state=State.DONE, striped=0.0, walk=Walk.KEYSET, hot=None)


async def test_a_hundred_batches_a_second_are_not_painted_one_by_one() -> None:
    first = filling()
    assert first.window is not None

    def after(rows: int, **changes: object) -> Frame:
        progress = replace(COSTED, rows_done=rows, **changes)  # type: ignore[arg-type]  # by name
        return replace(first, window=replace(first.window, backfill=progress))

    async with seat(first, NARROW) as at:
        await at.press("7")
        await at.push(after(700_001))
        assert "700,001 rows" not in at.text
        at.clock.at += 0.3
        await at.push(after(700_002))
        assert "700,002 rows" in at.text
        await at.push(after(700_003, state=State.PAUSED))
        assert "700,003 rows" in at.text
        assert "‖ PAUSED" in at.text


# Before it runs


async def test_the_plan_is_shown_before_anybody_presses_b() -> None:
    async with seat("next is the backfill", NARROW) as at:
        await at.press("7")
        await wait_for(lambda: "by pages, in stripes" in at.text)
        assert "b starts it" in at.text
        assert "260 batches, 12 s, 420 MB of WAL" in at.text
        await at.press("d")
        for part in ("UPDATE users", "WHERE id > :lo_1", "Index Scan using users_pkey", "lag (no replica)"):
            assert part in at.text


async def test_a_plan_that_cannot_be_made_says_why() -> None:
    class Locked(ff.FakeDesk):
        async def plan_backfill(self, step: str) -> Foretold:
            raise RuntimeError("public.users is locked\x1b[2J")

    async with seat("next is the backfill", NARROW, desk=Locked()) as at:
        await at.press("7")
        await wait_for(lambda: "it cannot be planned now: public.users is locked" in at.text)
        assert "\x1b" not in at.text
        assert "SET phone = legacy_phone_field" in at.text


async def test_nobody_waits_for_a_plan_that_never_comes() -> None:
    async with seat("next is the backfill", NARROW, desk=ff.FakeDesk(silent=True)) as at:
        await at.press("7")
        assert "is being made" in at.text
        await at.press("1")
        assert at.front == "plan"


async def test_a_plan_grows_old_and_is_made_anew() -> None:
    async with seat("next is the backfill") as at:
        await at.press("7")
        await wait_for(lambda: "by pages, in stripes" in at.text)
        at.desk.foretold = replace(ff.FORETOLD, said=(("walk", "keyset: the table is partitioned"),))
        await later(at, 30)
        assert "made 30 s ago" in at.text
        await later(at, 40)
        await wait_for(lambda: "the table is partitioned" in at.text)


async def test_no_plan_is_made_while_another_step_comes_first() -> None:
    class Counting(ff.FakeDesk):
        asked_for = 0

        async def plan_backfill(self, step: str) -> Foretold:
            self.asked_for += 1
            return await super().plan_backfill(step)

    desk = Counting()
    async with seat("next is a person's", NARROW, desk=desk) as at:
        await at.press("7")
        assert "deploy comes first" in at.text
        assert desk.asked_for == 0


async def later(at: Seat, seconds: float) -> None:
    """So many seconds pass, and a frame comes."""
    at.clock.at += seconds
    await at.push(replace(at.app.latest))


# The rows that were set aside


async def test_the_rows_that_were_set_aside_are_listed_and_one_is_tried_again() -> None:
    async with seat(AFTER, NARROW) as at:
        await at.press("7", "v")
        await wait_for(lambda: '["4711"]' in at.text)
        assert "2 set aside (22001: 1, 23514: 1)" in at.text
        assert "value too long for type" in at.text
        await at.press("down", "r")
        assert "users_phone_same" in at.text
        assert at.desk.asked == []
        await at.press("y")
        assert at.desk.asked == [RetryRows("fill", '["4711"]')]
        await at.press("r", "a")
        assert at.desk.asked[1:] == [RetryRows("fill", None)]
        await at.press("v")
        assert "✓ done" in at.text


async def test_after_another_try_the_list_is_read_anew() -> None:
    async with seat(AFTER, NARROW) as at:
        await at.press("7", "v")
        await wait_for(lambda: '["4711"]' in at.text)
        at.desk.aside = replace(ff.ASIDE, total=0, tally="", rows=())
        await at.press("r", "y")
        await later(at, 0.1)
        await wait_for(lambda: "no row of it is set aside" in at.text)


def test_a_key_is_shown_whole_where_there_is_room_for_its_reason_too() -> None:
    for keys, width in ((("7", "8"), 20), (("7", "x" * 30), 30), (("0b7c6f6e-9d0e-4c0e-8f57-0123456789ab",), 36)):
        rows = tuple(AsideRow(key, key, "22001", "too long") for key in keys)
        columns = aside_sheet(replace(ff.ASIDE, rows=rows), "").columns
        assert fit(columns, 80)[0].width == width
        assert len(fit(columns, 80)) == 3, "nothing had to go"


async def test_enter_tells_all_about_a_row_that_was_set_aside() -> None:
    async with seat(AFTER, NARROW) as at:
        await at.press("7", "v")
        await wait_for(lambda: '["42"]' in at.text)
        await at.press("enter")
        assert "SQLSTATE   22001" in at.text
        assert "Mend the row, then r tries it again" in at.text


async def test_a_long_list_says_that_it_is_not_all() -> None:
    rows = tuple(AsideRow(f'["{n}"]', f'["{n}"]', "22001", "too long") for n in range(1000))
    async with seat(AFTER, NARROW, desk=ff.FakeDesk()) as at:
        at.desk.aside = Aside("fill", 7, 10_000, "22001: 10000", rows)
        await at.press("7", "v")
        await wait_for(lambda: "10,000 set aside (22001: 10000), the first 1,000 listed" in at.text)
        await at.press("end")
        assert '["999"]' in at.text


async def test_rows_are_not_tried_again_while_it_runs_nor_by_one_who_looks_on() -> None:
    async with seat(filling(quarantined=2), NARROW) as at:
        await at.press("7", "v")
        await wait_for(lambda: '["42"]' in at.text)
        await at.press("r")
        assert "fill is running: rows are tried again when it does not" in at.text
    navigating = ff.frames()["navigator"]
    async with seat(navigating, NARROW, desk=ff.FakeDesk(accepts=ff.intents.NAVIGATOR)) as at:
        await at.press("7", "v")
        await wait_for(lambda: '["42"]' in at.text)
        await at.press("r", "o", "t")
        assert at.desk.asked == []
        assert len(at.app.screen_stack) == 1


async def test_a_list_that_cannot_be_read_says_why_and_keeps_what_it_had() -> None:
    class Failing(ff.FakeDesk):
        down = False

        async def rows_aside(self, step: str) -> Aside:
            if self.down:
                raise RuntimeError("connection refused")
            return await super().rows_aside(step)

    desk = Failing()
    async with seat(AFTER, WIDE, desk=desk) as at:
        await at.press("7", "v")
        await wait_for(lambda: '["42"]' in at.text)
        desk.down = True
        await later(at, 6)
        await wait_for(lambda: "connection refused" in at.text)
        assert '["42"]' in at.text


# What a driver may change while it runs


async def test_a_signal_is_overridden_for_a_stated_time() -> None:
    held = filling(state=State.THROTTLED, reason="replica r1 is 12 s behind", signal="lag")
    async with seat(held, NARROW) as at:
        await at.press("7")
        assert "replica r1 is 12 s behind; goes on by itself; o goes on all the same" in at.text
        await at.press("o")
        assert "▶ lag" in at.text
        assert "this one, now" in at.text
        await at.press("enter")
        assert at.desk.asked == []
        await at.press("2")
        assert at.desk.asked == [OverrideSignal("lag", 900.0)]


async def test_an_overridden_signal_is_heeded_again_by_one_key() -> None:
    async with seat(filling(overridden=(("xmin", 240.0),)), NARROW) as at:
        await at.press("7", "o")
        assert "▲ off for 4 min yet" in at.text
        await at.press("0")
        assert at.desk.asked == [OverrideSignal("xmin", 0.0)]
        await at.press("o", "down", "0", "escape")
        assert len(at.desk.asked) == 1


async def test_the_cursor_of_the_signals_reaches_the_last_one() -> None:
    async with seat(filling(), NARROW) as at:
        await at.press("o", *["down"] * 20)
        assert f"▶ {ranked(COSTED)[-1]}" in at.text


def test_every_signal_that_pauses_can_be_overridden_and_the_one_that_holds_it_back_stands_first() -> None:
    assert set(MEANS) == set(PAUSING)
    assert ranked(replace(COSTED, signal="wal", overridden=(("lag", 3.0),)))[:2] == ("wal", "lag")


async def test_the_batch_time_is_changed_while_it_runs() -> None:
    async with seat(filling(base_target_ms=100.0), NARROW) as at:
        await at.press("7", "t")
        assert "100 ms; the last one took 92 ms" in at.text
        await at.press(*"5", "enter")
        assert "out of range: 10 ms to 10 s" in at.text
        await at.press(*"0", "enter")
        assert at.desk.asked == [SetBatchTime(0.05)]


@pytest.mark.parametrize(
    ("written", "means"), [("50", 0.05), ("50ms", 0.05), ("0.2s", 0.2), (" 1s ", 1.0), ("10", 0.01), ("10s", 10.0)]
)
def test_a_batch_time_may_be_written_as_people_do(written: str, means: float) -> None:
    assert read(written) == pytest.approx(means)


@pytest.mark.parametrize("written", ["", "x", "-5", "nan", "inf", "1e3", "9", "11s", "²", "1.2.3"])
def test_what_is_no_batch_time_is_told(written: str) -> None:
    assert isinstance(read(written), str)
