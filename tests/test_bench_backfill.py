"""The benchmark itself: it judges by ratios of medians, says missed where it missed, and measures what it says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from bench_backfill.__main__ import bench, holds
from bench_backfill.child import batch_durations_ms
from bench_backfill.evaluation import cpu_share, found, verdicts, would_take_s
from bench_backfill.figures import DBWATCH, FIGURES, SEQUENTIAL, WHOLE, loop
from bench_backfill.load import Request, felt
from bench_backfill.report import Found, asked, markdown
from bench_backfill.runner import Asked
from bench_backfill.values import App, Batches, Figure, Goal, Measure, Point, Run

FASTER = Goal(Measure.SPEED, at_least=1.5, against=WHOLE.name)
LEANER = Goal(Measure.WAL, at_most=0.8, against=WHOLE.name)
FIGURE = Figure("one", "a figure", SEQUENTIAL, (DBWATCH, WHOLE), (FASTER, LEANER))
ABOUT = {"cores": 2, "ram_gb": 8, "postgresql": "18", "settings": {"fsync": "on"}}


def run(contender: str, seconds: float, **more: object) -> Run:
    plain = Run(contender, 0, 1000, seconds, wal_bytes=100_000, heap_before=100, heap_after=120)
    return replace(plain, **more)


def words(figure: Figure, *runs: Run) -> dict[str, str]:
    return {asked(verdict.goal): verdict.word for verdict in verdicts(figure, runs)}


def test_a_speed_is_the_ratio_of_medians_over_the_rounds() -> None:
    ours = [run("dbwatch", seconds) for seconds in (4.0, 5.0, 100.0)]
    theirs = [run(WHOLE.name, seconds) for seconds in (10.0, 1.0, 11.0)]
    assert found(FASTER, FIGURE, [*ours, *theirs]) == pytest.approx(10.0 / 5.0)


def test_what_is_missed_is_called_missed() -> None:
    said = words(FIGURE, run("dbwatch", 5.0), run(WHOLE.name, 10.0))
    assert said["speed >= 1.5 against one UPDATE"] == "reached"
    assert said["WAL <= 0.8 against one UPDATE"] == "missed"
    table = markdown([Found(FIGURE, (run("dbwatch", 5.0), run(WHOLE.name, 10.0)))], ABOUT, 1000, 1)
    assert "| a figure | WAL <= 0.8 against one UPDATE | 1.00 | **missed** |" in table


def test_a_value_that_one_round_lacks_is_not_measured_and_not_reached() -> None:
    figure = replace(FIGURE, goals=(Goal(Measure.BATCH_P99_MS, at_most=100),))
    timed = run("dbwatch", 5.0, batches=Batches(3, 10, 20, 30))
    assert words(figure, timed)["batch p99, ms <= 100"] == "reached"
    assert words(figure, timed, run("dbwatch", 5.0))["batch p99, ms <= 100"] == "not measured"
    assert words(FIGURE, run("dbwatch", 5.0))["speed >= 1.5 against one UPDATE"] == "not measured"


def test_the_longest_batch_is_that_of_all_rounds() -> None:
    goal = Goal(Measure.BATCH_MAX_MS, at_most=250)
    runs = [run("dbwatch", 5.0, batches=Batches(9, 10, 20, longest)) for longest in (30.0, 40.0, 260.0)]
    assert found(goal, FIGURE, runs) == 260.0


def test_a_row_left_pending_fails_whatever_the_speed() -> None:
    runs = (run("dbwatch", 1.0, pending=1, wal_bytes=1), run("dbwatch", 1.0, wal_bytes=1), run(WHOLE.name, 10.0))
    assert words(FIGURE, *runs)["rows left pending of dbwatch <= 0"] == "missed"
    assert not holds([Found(FIGURE, runs)])
    assert holds([Found(FIGURE, (run("dbwatch", 100.0), run(WHOLE.name, 10.0)))])
    assert not holds([Found(FIGURE, (), failed="the server did not start")])


def test_a_rival_that_was_cut_off_is_taken_to_have_gone_on_as_fast() -> None:
    cut = run("published 1000", 60.0, pending=750, cut=True)
    assert would_take_s(cut) == pytest.approx(240.0)
    assert would_take_s(run("published 1000", 60.0, pending=750)) == 60.0


def test_at_equal_p99_the_fastest_that_is_as_gentle_counts() -> None:
    small, large = loop("pgroll", 200), loop("pgroll", 5000)
    goal = Goal(Measure.SPEED_AT_EQUAL_P99, above=1.0, against="pgroll")
    figure = Figure("equal", "", SEQUENTIAL, (DBWATCH, small, large), (goal,))

    def felt_by(name: str, seconds: float, p99_ms: float) -> Run:
        return run(name, seconds, app=App(100, 1000, 1000, 1, p99_ms, p99_ms))

    ours = felt_by("dbwatch", 10.0, 5.0)
    assert found(goal, figure, [ours, felt_by(small.name, 20.0, 5.0), felt_by(large.name, 4.0, 50.0)]) == 2.0
    assert found(goal, figure, [ours, felt_by(small.name, 20.0, 6.0), felt_by(large.name, 4.0, 50.0)]) == math.inf


def test_the_last_tenth_is_compared_with_the_first_without_the_final_scan() -> None:
    even = [Point(float(n), 100 * n, 0.03 * n) for n in range(11)]
    slower = [*even[:-1], Point(11.0, 1000, 0.33), Point(30.0, 1000, 0.35)]
    goal = Goal(Measure.TENTHS, at_most=1.1)
    assert found(goal, FIGURE, [run("dbwatch", 10.0, trace=tuple(even))]) == pytest.approx(1.0)
    assert found(goal, FIGURE, [run("dbwatch", 30.0, trace=tuple(slower))]) == pytest.approx(2.0)
    assert cpu_share(run("dbwatch", 10.0, trace=tuple(even))) == pytest.approx(0.03)


def test_requests_that_still_wait_when_the_backfill_ends_count_as_not_served() -> None:
    answered = [Request(due=0.1 * n, answered=0.1 * n + 0.002) for n in range(50)]
    blocked = Request(due=5.0, answered=10.5)
    app = felt([*answered, blocked], 10.0, 0.0, 10.0)
    assert app is not None
    assert (app.served, app.due) == (50, 100)
    assert (app.p50_ms, app.max_ms) == (pytest.approx(2.0), pytest.approx(5500.0))


def test_only_messages_that_change_the_table_are_batches() -> None:
    log = (
        "2026-01-01 00:00:00.000 UTC [7] dbwatch worker LOG:  duration: 12.500 ms  statement: -- one batch\n"
        '\tBEGIN;\n\tUPDATE "public"."users"\n\tSET phone = legacy_phone;\n\tCOMMIT\n'
        "2026-01-01 00:00:00.100 UTC [7] dbwatch worker LOG:  duration: 0.100 ms  statement: SELECT 'users'\n"
        "2026-01-01 00:00:00.150 UTC [6] probe LOG:  duration: 1.000 ms  statement: EXPLAIN UPDATE users SET v\n"
        "2026-01-01 00:00:00.200 UTC [8] rival LOG:  duration: 3.000 ms  statement: UPDATE users SET phone = '1'\n"
        "2026-01-01 00:00:00.300 UTC [8] rival LOG:  duration: 9.000 ms  parse s1: UPDATE users SET phone = '1'\n"
    )
    assert batch_durations_ms(log) == [12.5, 3.0]


def test_a_message_of_several_batches_is_told_by_its_queries() -> None:
    stats = (
        "2026-01-01 00:00:00.000 UTC [{}] dbwatch worker LOG:  EXECUTOR STATISTICS\n"
        "2026-01-01 00:00:00.000 UTC [{}] dbwatch worker DETAIL:  ! system usage stats:\n"
        "\t!\t0.000009 s user, 0.000017 s system, {:.6f} s elapsed\n\t!\t[0.003080 s user, 0.006160 s system total]\n"
    )
    ours = [0.001, 0.049, 0.05, 0.001, 0.019, 0.02, 0.0001]
    queries = [(8, 0.5), *((7, seconds) for seconds in ours)]
    batch = "BEGIN;\n\tSELECT 1;\n\tWITH f AS (UPDATE users\n\tSET v = 1 RETURNING 1) SELECT 1 FROM f;\n\tCOMMIT;\n\t"
    log = "".join(stats.format(pid, pid, seconds) for pid, seconds in queries) + (
        f"2026-01-01 00:00:00.000 UTC [7] dbwatch worker LOG:  duration: 80.000 ms  statement: {batch}{batch}SELECT 2\n"
    )
    assert batch_durations_ms(log) == [pytest.approx(51), pytest.approx(29)]
    with pytest.raises(ValueError, match="another form"):
        batch_durations_ms(log.replace("[8]", "[7]"))


def test_every_goal_speaks_of_contenders_of_its_figure() -> None:
    for figure in FIGURES:
        names = {each.name for each in figure.contenders} | {each.family for each in figure.contenders}
        assert all(goal.of in names and (not goal.against or goal.against in names) for goal in figure.goals), figure
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


async def test_a_small_figure_runs_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gitlab = loop("gitlab", 500)
    figure = Figure("small", "a small one", SEQUENTIAL, (DBWATCH, gitlab), (LEANER,), load=0.1)
    small = {"shared_buffers": "16MB", "min_wal_size": "32MB", "fsync": "off"}
    output = tmp_path / "bench.json"
    [measured] = await bench([figure], Asked(3000, 1, "100ms", 1.0), small, 18, output)

    assert not measured.failed
    runs = {each.contender: each for each in measured.runs}
    assert list(runs) == [DBWATCH.name, gitlab.name]
    for name in (DBWATCH.name, gitlab.name):
        each = runs[name]
        assert each.pending == 0
        assert each.batches is not None
        assert each.batches.count == each.said["batches"] >= 2
        assert each.seconds * 1000 > each.batches.max_ms > 0
        assert each.heap_after > each.heap_before > 0
        assert each.wal_bytes > 3000 * 100
    assert all(each.app is not None and each.app.served > 0 for each in measured.runs)
    assert runs[DBWATCH.name].trace[-1].rows == 3000
    kept = json.loads(output.read_text())
    assert [each["verdict"] for each in kept["figures"][0]["goals"]] == ["not measured", "reached"]
    assert "| small | gitlab 500 |" in capsys.readouterr().out
