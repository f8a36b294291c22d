"""The panes about the server: frames in, tables of text out, at a narrow and at a wide size."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from fakefeed import T0, frames, session, snapshot, window

from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.journal import events as ev
from dbwatch.monitor.baseline import Baseline
from dbwatch.monitor.samples import IndexUse, Lock, Progress, Statement, Status, View
from dbwatch.tui.columns import Cell, plain
from dbwatch.tui.panes import activity, charts, indexes, locks, statements
from dbwatch.tui.panes.base import Choice, Sheet
from dbwatch.window.feed import Frame

JAM = frames()["migrating"]
AT = T0 + timedelta(seconds=761)


def table(sheet: Sheet, width: int) -> list[str]:
    return plain(sheet.lines, sheet.columns, width)


def view(*rows: object, status: Status = Status.OK, reason: str = "", taken: float = 100.0) -> View[Any]:
    return View(status, reason, AT, taken, rows)


def frame(**views: object) -> Frame:
    return Frame(replace(snapshot(761), **views))  # type: ignore[arg-type]  # fields by name, as replace takes them


# Activity


def test_activity_at_80_columns() -> None:
    assert table(activity.sheet(JAM), 80) == [
        "      pid    age wait         who              what",
        "    47110   31 s ClientRead   reports          idle in transaction:…  ← blocks 3",
        "    48213   12 s Lock         migrate ◆ 7/3    ALTER TABLE users AD…  ← 47110 ▲2",
        "    47311   12 s Lock         app-7            UPDATE users SET email …  ← 48213",
        "    47312   11 s Lock         app-2            SELECT * FROM users WHE…  ← 48213",
        "    47400  0.2 s              app-1            idle",
    ]


def test_activity_on_a_wide_screen() -> None:
    assert table(activity.sheet(JAM), 165)[1:4] == [
        "    47110    31 s  ClientRead    reports             31 s     12  app         shop        10.0.0.7         "
        "idle in transaction: SE…  ← holds what 48213 wants; 3 wait",
        "    48213    12 s  Lock          migrate ◆ 7/3       12 s     12  app         shop        10.0.0.7         "
        "ALTER TABLE users ADD …  ← waits behind 47110, 2 behind it",
        "    47311    12 s  Lock          app-7               12 s     12  app         shop        10.0.0.7         "
        "UPDATE users SET email = $1 WHERE i…  ← waits behind 48213",
    ]


def test_blockers_victims_and_ours_differ_by_more_than_colour() -> None:
    lines = {line.key[0]: line for line in activity.sheet(JAM).lines if isinstance(line.key, tuple)}
    assert {pid: line.tone for pid, line in lines.items()} == {
        47110: "holder", 48213: "holder", 47311: "victim", 47312: "victim", 47400: "dim",
    }  # fmt: skip
    assert "◆" in table(activity.sheet(JAM), 80)[2]


def test_idle_sessions_stand_below_working_ones_however_long_they_idle() -> None:
    idle = session(1, "pool", "COMMIT", at=AT, age=90_000, state="idle", xact_start=None)
    busy = session(2, "app", "SELECT 1", at=AT, age=0.1)
    sheet = activity.sheet(frame(activity=view(idle, busy)))
    assert [line.key for line in sheet.lines] == [busy.key, idle.key]
    assert sheet.note == "2 sessions · 1 idle"


@pytest.mark.parametrize(("sort", "first"), [("age", 47110), ("wait", 48213), ("who", 47400), ("xmin", 47110)])
def test_activity_can_be_sorted(sort: str, first: int) -> None:
    assert activity.records(JAM, Choice(sort=sort))[0]["pid"] == first


def test_a_filter_looks_at_the_whole_query_and_ignores_case() -> None:
    long = session(9, "app", "SELECT " + "x, " * 500 + "NEEDLE", at=AT)
    shown = activity.sheet(frame(activity=view(long, session(8, "app", "SELECT 1", at=AT))), Choice(filter="needle"))
    assert [line.key for line in shown.lines] == [long.key]


def test_a_hidden_session_says_so() -> None:
    hidden = session(7, "", "", at=AT, hidden=True, state="")
    assert table(activity.sheet(frame(activity=view(hidden))), 80)[1].endswith("app              (hidden)")


def test_the_detail_of_a_session_has_its_whole_query_in_its_own_lines_and_its_locks() -> None:
    row = session(48213, "dbwatch migrate 7/3", "ALTER TABLE users⏎→ADD COLUMN phone text", at=AT)
    changed = replace(JAM.snapshot, activity=view(JAM.snapshot.activity.rows[0], row))
    lines = activity.detail(Frame(changed), row.key)
    assert "who          dbwatch migrate 7/3 ◆ ours" in lines
    assert lines[lines.index("ALTER TABLE users") + 1] == "    ADD COLUMN phone text"
    assert "waits behind 47110 (reports, idle in transaction 31 s)" in lines
    assert "WANTS AccessExclusiveLock on users" in lines


def test_the_session_under_the_cursor_is_known_by_pid_and_start() -> None:
    row = JAM.snapshot.activity.rows[0]
    assert activity.session_of(JAM, row.key) is row
    assert activity.session_of(JAM, (row.pid, T0)) is None


# Locks


def test_the_lock_forest_at_80_columns() -> None:
    assert table(locks.sheet(JAM), 80) == [
        "    pid          age mode                  on     who           what",
        "  ▼ 47110       31 s AccessShare           users  reports       idle in tr…  ▲ 3",
        "    └ 48213     12 s wants AccessExclusive users  migrate ◆ 7/3 ALTER TABL…  ▲ 2",
        "      ├ 47311   12 s wants RowExclusive    users  app-7         UPDATE users SE…",
        "      └ 47312   11 s wants AccessShare     users  app-2         SELECT * FROM u…",
    ]
    assert locks.sheet(JAM).note == "1 blocks · 3 wait"


def test_the_lock_forest_on_a_wide_screen_says_that_the_root_is_the_one_to_end() -> None:
    assert table(locks.sheet(JAM), 130)[1].endswith("← 3 wait for its end")


def test_80_columns_are_enough_to_tell_who_is_in_the_lock_forest_with_the_longest_pids() -> None:
    long = "dbwatch migrate 1eecfb61/3"
    rows = [
        replace(row, pid=row.pid + 4_000_000, application_name=long if "migrate" in row.application_name else "app-7")
        for row in JAM.snapshot.activity.rows
    ]
    held = [replace(lock, pid=lock.pid + 4_000_000) for lock in JAM.snapshot.locks.rows]
    jam = replace(frame(activity=view(*rows), locks=view(*held)).snapshot, own_pids=frozenset({4_048_213}))
    narrow = table(locks.sheet(Frame(jam)), 80)
    assert "migrate ◆ 1ee…" in narrow[2]
    assert "app-7" in narrow[3]
    assert "users" in table(locks.sheet(Frame(jam)), 84)[3].split()


def test_nobody_waiting_is_said_in_words() -> None:
    quiet = frames()["watching, stale"]
    assert locks.sheet(quiet).lines == ()
    assert locks.sheet(quiet).empty == "nobody waits for a lock"


def test_branches_of_two_trees_are_drawn_to_their_ends() -> None:
    def lock(pid: int, key: str, mode: str, granted: bool) -> Lock:
        return Lock(pid, "relation", key, key, mode, granted, None if granted else AT - timedelta(seconds=pid))

    rows = [session(pid, f"a{pid}", "q", at=AT, age=60 - pid) for pid in range(1, 8)]
    held = [
        lock(1, "t", "AccessShareLock", True), lock(5, "t", "AccessExclusiveLock", False),
        lock(4, "t", "AccessShareLock", False), lock(5, "u", "AccessExclusiveLock", True),
        lock(3, "u", "AccessShareLock", False), lock(2, "v", "AccessExclusiveLock", True),
        lock(7, "v", "AccessShareLock", False),
    ]  # fmt: skip
    drawn = [branch + str(node.pid) for node, branch in locks.branches(
        locks.kept(frame(activity=view(*rows), locks=view(*held)), Choice()))]  # fmt: skip
    assert drawn == ["▼ 1", "  └ 5", "    ├ 3", "    └ 4", "▼ 2", "  └ 7"]


def test_a_bar_runs_down_beside_the_children_of_a_branch_that_is_not_the_last() -> None:
    def node(pid: int, depth: int, *children: Any) -> Any:
        root = locks.forest_of(JAM.snapshot)[0]
        return replace(root, pid=pid, depth=depth, children=children)

    tree = node(1, 0, node(2, 1, node(3, 2), node(4, 2)), node(5, 1))
    assert [branch + str(n.pid) for n, branch in locks.branches([tree])] == [
        "▼ 1", "  ├ 2", "  │ ├ 3", "  │ └ 4", "  └ 5",
    ]  # fmt: skip


def test_a_prepared_transaction_is_told_with_the_way_to_end_it() -> None:
    held = Lock(0, "relation", "users", "k", "AccessExclusiveLock", True, None, gid="tx-7")
    wants = Lock(5, "relation", "users", "k", "AccessShareLock", False, AT - timedelta(seconds=3))
    jam = frame(locks=view(held, wants), activity=view(session(5, "app", "SELECT 1", at=AT)))
    assert "▼ prepared" in table(locks.sheet(jam), 80)[1]
    assert any("ROLLBACK PREPARED" in line for line in locks.detail(jam, locks.sheet(jam).lines[0].key))


def test_a_filter_keeps_trees_whole() -> None:
    assert len(locks.sheet(JAM, Choice(filter="app-7")).lines) == 4
    assert locks.sheet(JAM, Choice(filter="nothing like it")).lines == ()


# Statements


def statement(queryid: int, query: str, calls: int, total: float, **more: Any) -> Statement:
    return Statement(10, 16384, queryid, True, query, calls, total, calls, 0, 0, **more)


BEFORE = (
    statement(1, "SELECT 1", 100, 100.0),
    statement(2, "SELECT 2", 100, 1000.0),
    statement(3, "SELECT 3", 10, 10.0),
)
AFTER = (
    statement(1, "SELECT 1", 200, 500.0),
    statement(2, "SELECT 2", 300, 3000.0),
    statement(3, "SELECT 3", 10, 10.0),
    statement(4, "-- dbwatch monitor: x", 10, 1.0, ours=True),
)
BASELINE = Baseline.of(replace(snapshot(0), statements=View(Status.OK, "", T0, 90.0, BEFORE)))
POLLED = replace(
    snapshot(761),
    statements=view(*AFTER),
    statements_before=view(*AFTER[::2], statement(2, "", 250, 2000.0), taken=95.0),
)


def test_what_became_slower_since_the_opening_stands_first() -> None:
    sheet = statements.sheet(POLLED, BASELINE)
    assert table(sheet, 85)[0] == "   slower  mean ms   was ms  calls  total  now/s statement"
    first, second, third = table(sheet, 85)[1:]
    assert first.split() == ["▲", "4.0×", "4.00", "1.00", "100", "0.4", "s", "SELECT", "1"]
    assert second.split()[:3] == ["10.0", "10.0", "200"]
    assert third.split()[0] == "new"
    assert third.endswith("◆ -- dbwatch monitor: x")
    assert sheet.note == "3 statements since 21:04:10 · ▲ 1 slower"


def test_a_slowing_down_that_cost_next_to_nothing_is_not_called_out() -> None:
    little = replace(POLLED, statements=view(statement(1, "SELECT 1", 101, 104.0)))
    sheet = statements.sheet(little, BASELINE)
    assert sheet.lines[0].cells[0] == Cell("▲ 4.0×")
    assert "slower" not in sheet.note


def test_a_slowing_down_that_cost_next_to_nothing_stands_below_what_costs_much() -> None:
    both = replace(POLLED, statements=view(statement(1, "SELECT 1", 101, 104.0), AFTER[1]))
    assert [line.key for line in statements.sheet(both, BASELINE).lines] == [AFTER[1].key, AFTER[0].key]


def test_the_last_poll_stands_beside_the_opening() -> None:
    sheet = statements.sheet(POLLED, BASELINE)
    titles = [column.title for column in sheet.columns]
    [line] = [line for line in sheet.lines if line.key == AFTER[1].key]
    assert line.cells[titles.index("now/s")] == "10"
    assert line.cells[titles.index("now ms")] == "20.0"


ENTERED = replace(
    POLLED,
    statements_before=view(
        statement(1, "SELECT 1", 190, 480.0), AFTER[2], taken=95.0, reason="500 of 812 statements shown"
    ),
)
"""Statement 2 was not among those shown of the poll before."""


def test_what_a_statement_did_since_the_last_poll_is_left_open_where_that_is_not_known() -> None:
    sheet = statements.sheet(ENTERED, BASELINE)
    titles = [column.title for column in sheet.columns]
    lines = {line.key: line for line in sheet.lines}
    now = {key: (line.cells[titles.index("now/s")], line.cells[titles.index("now ms")]) for key, line in lines.items()}
    assert now[AFTER[0].key] == ("2", "2.00")
    assert now[AFTER[1].key] == ("", "")
    exported = {record["queryid"]: record for record in statements.records(ENTERED, BASELINE)}
    assert (exported[1]["last_poll_calls"], exported[1]["last_poll_mean_ms"]) == (10, 2.0)
    assert (exported[2]["last_poll_calls"], exported[2]["last_poll_mean_ms"]) == (None, None)
    assert not any(line.startswith("last") for line in statements.detail(ENTERED, BASELINE, AFTER[1].key))


def test_a_statement_that_has_only_now_come_among_the_top_does_not_lead_what_runs_now() -> None:
    shown = statements.sheet(ENTERED, BASELINE, Choice(sort="now")).lines
    assert [line.key for line in shown[:2]] == [AFTER[0].key, AFTER[1].key]


def test_without_a_baseline_the_statements_are_those_of_the_last_poll() -> None:
    sheet = statements.sheet(POLLED, None)
    assert [line.key for line in sheet.lines] == [AFTER[1].key, AFTER[3].key]
    assert sheet.note.startswith("2 statements since the last poll")


def test_a_statement_that_is_missing_in_the_baseline_is_not_called_new_where_that_is_not_known() -> None:
    partial = replace(BASELINE, statements_complete=False)
    [line] = [line for line in statements.sheet(POLLED, partial).lines if line.key == AFTER[3].key]
    assert statements.slower(statements.kept(POLLED, partial, Choice(filter="dbwatch"))[0].since) == ("", "")
    assert "~10" in line.cells


def test_the_detail_of_a_statement_compares_ever_the_opening_and_the_last_poll() -> None:
    lines = statements.detail(POLLED, BASELINE, AFTER[1].key)
    assert lines[1:4] == [
        "ever            300 calls, mean 10.0 ms, 300 rows",
        "since 21:04:10  200 calls, mean 10.0 ms (was 10.0 ms), 200 rows, WAL 0 B, temporary 0 B",
        "last 5.0 s      50 calls, mean 20.0 ms (was 8.00 ms), 50 rows, WAL 0 B, temporary 0 B",
    ]
    assert lines[-1] == "SELECT 2"


# Indexes


def index(oid: int, name: str, scans: int, **more: Any) -> IndexUse:
    row = IndexUse(
        oid, "public", "users", name, scans, AT - timedelta(seconds=300), 21_000_000, True, True, False, False
    )
    return replace(row, **more)


INDEXES = (
    index(1, "users_pkey", 5000, is_primary=True, is_unique=True),
    index(2, "idx_users_legacy_phone", 700),
    index(3, "idx_users_ccnew", 0, is_valid=False, last_idx_scan=None),
    index(4, "idx_users_phone", 0, is_valid=False, is_ready=False, last_idx_scan=None),
    index(5, "idx_users_email", 900),
)
BUILD = Progress(
    48213, "CREATE INDEX CONCURRENTLY", "users", "building index: scanning table", 61, 100, "idx_users_phone", 47110
)
USED = Baseline.of(replace(snapshot(0), indexes=view(*INDEXES[1:2], index(5, "idx_users_email", 850))))


def indexed(baseline: Baseline | None = USED, *running: Progress) -> Frame:
    polled = replace(JAM.snapshot, indexes=view(*INDEXES), progress=view(*running))
    return Frame(polled, window(baseline=baseline))


def test_indexes_at_85_columns() -> None:
    assert table(indexes.sheet(indexed()), 85) == [
        "  state      index                 table               scans in all last use     size",
        "  ✗ INVALID  idx_users_ccnew       users                   0      0             20 MB",
        "  ✗ INVALID  idx_users_phone       users                   0      0             20 MB",
        "  ○ unused   idx_users_legacy_pho… users                   0    700    5 min    20 MB",
        "             idx_users_email       users                  50    900    5 min    20 MB",
        "  primary    users_pkey            users                5.0k   5.0k    5 min    20 MB",
    ]


def test_a_build_shows_its_percentage_and_whom_it_waits_for() -> None:
    sheet = indexes.sheet(indexed(USED, BUILD))
    assert table(sheet, 120)[1] == (
        "  ▶ 48213 ◆   idx_users_phone  ▕████    ▏ 61 %  building index: scanning table  "
        "waits for 47110 (reports, idle in trans…"
    )
    assert sheet.note == "4 indexes · 1 INVALID · 1 in the making · scans since 21:04:10"
    builder = indexes.IndexesPane().session_of(indexed(USED, BUILD), ("build", 48213))
    assert builder is not None
    assert builder.pid == 48213


def test_without_a_window_there_is_no_column_of_scans_since() -> None:
    titles = table(indexes.sheet(indexed(None)), 85)[0].split()
    assert "scans" not in titles
    assert table(indexes.sheet(indexed(None)), 85)[1].split()[0:2] == ["✗", "INVALID"]


def test_a_baseline_of_another_database_is_not_used() -> None:
    assert indexes.baseline_of(indexed(replace(USED, database_oid=1))) is None


def test_counters_that_were_reset_since_are_at_least_what_they_say() -> None:
    reset = replace(USED, indexes={**USED.indexes, 5: 100_000})
    assert table(indexes.sheet(indexed(reset), Choice(filter="email")), 85)[1].split()[2:4] == ["900+", "900"]


def scanned(baseline: Baseline | None = None, **of_index: Any) -> Frame:
    """An index that was scanned 900 times, or what *of_index* says."""
    row = index(7, "idx_users_city", 900, **of_index)
    return Frame(replace(JAM.snapshot, indexes=view(row), progress=view()), window(baseline=baseline))


@pytest.mark.parametrize(
    ("reset", "told"), [(T0 - timedelta(days=40), "2026-02-02 21:04"), (None, "the last reset")]
)  # fmt: skip
def test_an_index_without_scans_says_since_when_they_are_counted(reset: datetime | None, told: str) -> None:
    unused = scanned(idx_scan=0, last_idx_scan=None, stats_reset=reset)
    sheet = indexes.sheet(unused)
    assert sheet.lines[0].cells[0] == Cell("○ no scans", "warn")
    assert sheet.note == f"1 index · no scans since {told}"
    assert f"scans        0 since {told}" in indexes.detail(unused, 7)
    assert indexes.sheet(scanned(stats_reset=reset)).note == "1 index"


def test_an_index_that_the_baseline_may_have_missed_is_neither_new_nor_counted_since() -> None:
    [new] = indexes.sheet(scanned(USED)).lines
    assert new.cells[0] == Cell("new")
    assert new.cells[3] == "900"
    missed = scanned(replace(USED, indexes_complete=False))
    [line] = indexes.sheet(missed).lines
    assert line.cells[0] == Cell("")
    assert line.cells[3] == ""
    assert indexes.records(missed)[0]["idx_scan_since_opening"] is None
    assert not any("since the window opened" in told for told in indexes.detail(missed, 7))


def test_scans_since_the_opening_are_at_least_what_they_say_where_the_counters_were_reset_since() -> None:
    opened = replace(USED, indexes={7: 850})
    assert indexes.sheet(scanned(opened, stats_reset=T0 - timedelta(days=1))).lines[0].cells[3] == "50"
    assert indexes.sheet(scanned(opened, stats_reset=AT)).lines[0].cells[3] == "50+"


# Charts


def test_points_far_apart_are_not_joined() -> None:
    points = [(AT - timedelta(seconds=s), 1.0) for s in (40, 39, 20, 19)]
    assert charts.series("tps", points, AT).points == (
        (-40.0, 1.0), (-39.0, 1.0), (-29.5, None), (-20.0, 1.0), (-19.0, 1.0), (0.0, None),
    )  # fmt: skip


def test_steps_are_marked_where_they_began() -> None:
    opened = window(ev.StepStarted("add", 1, []))
    assert [(m.label, m.at_s) for m in charts.marks_of(opened.events, T0 + timedelta(seconds=60))] == [("add", -30.0)]


@pytest.mark.parametrize(
    ("number", "height", "each"), [(3, 30, [10, 10, 10]), (3, 17, [9, 8]), (3, 4, [4]), (1, 7, [7])]
)
def test_charts_share_the_height_and_give_way_where_it_is_small(number: int, height: int, each: list[int]) -> None:
    assert charts.heights(number, height) == each


def test_the_backfill_is_charted_while_it_runs() -> None:
    pane = charts.ChartsPane()
    running = BackfillProgress(table="users", state=State.RUNNING, rows_per_s=1200.0)
    for seconds in range(3):
        pane.collect(Frame(snapshot(seconds, taken=100.0 + seconds), window(backfill=running)))
    exported = pane.export()
    assert [r["value"] for r in exported if r["series"] == "tps"] == [1200.0, 1200.0]
    assert [r["value"] for r in exported if r["series"] == "backfill"] == [1200.0, 1200.0, 1200.0]
