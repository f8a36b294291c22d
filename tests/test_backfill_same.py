"""Dual write: what has to be the same is looked at while the backfill runs, and all of it in the end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ledger import Ledger, Scene, planned
from servers import Database
from test_backfill_door import end, start
from test_window_undo import noted
from windows import PATIENCE_S, Shop, driven

from dbwatch.backfill import certificate, comparing
from dbwatch.backfill.comparing import Comparing, watched
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.same import Look, Tally
from dbwatch.backfill.spec import Spec
from dbwatch.clock import SystemClock
from dbwatch.errors import Exit, UsageError
from dbwatch.journal import events as ev
from dbwatch.journal import schema
from dbwatch.journal.fold import StepStatus
from dbwatch.steps.heard import Heard
from dbwatch.tui.panes.filling import progress_lines
from dbwatch.window.intents import RunStep

SAME = "phone IS NOT DISTINCT FROM legacy"
FILL = Spec("t", "phone = legacy", "phone IS NULL AND legacy IS NOT NULL", batch_time_ms=10, same=SAME)


async def shop(db: Database, rows: int = 3000, key: str = "id int") -> Ledger:
    """A table whose rows hold an old number, every fiftieth none, and no new one yet."""
    await db.sql(
        f"CREATE TABLE t ({key} PRIMARY KEY, legacy text, phone text)",
        f"INSERT INTO t SELECT i, CASE WHEN i % 50 > 0 THEN '+1 ' || i END FROM generate_series(1, {rows}) AS i",  # noqa: S608  # ours
        "ANALYZE t",
    )
    await schema.ensure(db.connector)
    return Ledger(db)


async def looks(db: Database, spec: Spec = FILL) -> Comparing:
    """Looks as a run would make them."""
    plan = await planned(db.connector, spec)
    assert spec.same is not None
    reporter = Reporter(plan, SystemClock(), Scene().see)
    return watched(db.connector, plan, spec.same, SystemClock(), reporter)


async def test_what_is_the_same_is_certified_so(any_db: Database) -> None:
    ledger = await shop(any_db)
    result = await ledger.run(FILL)
    assert (result.outcome, result.rows, result.compared, result.differing) == (State.DONE, 2940, 3000, 0)
    found = certificate.of(result, await ledger.plan(FILL), None)
    assert found is not None
    assert (found.same, found.compared) == (SAME, 3000)
    assert f"for 3,000 rows it was looked that {SAME}" in str(found)


async def test_a_row_that_differs_is_named_and_nothing_is_certified_until_it_is_mended(db: Database) -> None:
    ledger = await shop(db)
    await db.sql("UPDATE t SET phone = 'another' WHERE id IN (7, 2000)")
    result = await ledger.run(FILL)
    assert (result.outcome, result.pending, result.differing) == (State.INCOMPLETE, 0, 2)
    assert result.note == f'{SAME} does not hold for 2 rows: ["7"], ["2000"]'
    assert certificate.of(result, await ledger.plan(FILL), None) is None
    assert (await ledger.row())[0] == "incomplete"
    await db.sql("UPDATE t SET phone = legacy WHERE id IN (7, 2000)")
    result = await ledger.run(FILL)
    assert (result.outcome, result.differing, result.note) == (State.DONE, 0, "")


async def test_one_that_was_finished_before_is_looked_at_anew(db18: Database) -> None:
    ledger = await shop(db18)
    assert (await ledger.run(replace(FILL, same=None))).compared == 0
    await db18.sql("UPDATE t SET legacy = 'only this' WHERE id = 9")
    result = await ledger.run(FILL)
    assert (result.outcome, result.already, result.rows) == (State.INCOMPLETE, True, 2940)
    assert result.note.endswith('does not hold for 1 row: ["9"]')
    await db18.sql("UPDATE t SET phone = legacy WHERE id = 9")
    assert (await ledger.run(FILL)).outcome is State.DONE


async def test_a_condition_that_cannot_be_computed_for_a_row_certifies_nothing(db18: Database) -> None:
    ledger = await shop(db18)
    await db18.sql("UPDATE t SET legacy = '7' WHERE id > 10", "UPDATE t SET legacy = 'x' WHERE id = 10")
    result = await ledger.run(replace(FILL, same="legacy::int = phone::int OR id < 10"))
    assert (result.outcome, result.pending) == (State.INCOMPLETE, 0)
    assert "cannot be told: invalid input syntax for type integer" in result.note


async def test_looks_meet_differing_rows_by_key_and_by_page_on_every_major(any_db: Database) -> None:
    ledger = await shop(any_db, 9000)
    await ledger.run(replace(FILL, same=None))
    seen = await looks(any_db)
    await seen.look()
    assert (seen.tally.rows > 500, seen.tally.differing) == (True, 0)
    await any_db.sql(
        "UPDATE t SET legacy = 'only this' WHERE id = 8999",
        "INSERT INTO t VALUES (-5, 'a', 'b')",
    )
    for _ in range(40):
        await seen.look()
    assert set(seen.tally.keys) == {'["8999"]', '["-5"]'}
    assert seen.tally.young
    words = seen._reporter.differs
    assert words.startswith(f"{SAME} does not hold for 2 rows: ")
    assert words.endswith("; some were written since this run began")
    seen._drop()


async def test_each_page_and_each_key_has_its_turn(db18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await shop(db18, 20_000)
    await ledger.run(replace(FILL, same=None))
    await db18.sql("UPDATE t SET legacy = 'x' WHERE id % 1000 = 1", "VACUUM FULL t")
    monkeypatch.setattr(comparing, "TAIL_PAGES", 1)
    for half in ("_next_keys", "_next_pages"):
        seen = await looks(db18)
        await seen._connected()
        for _ in range(100):
            assert await seen._tried(await seen._connected(), getattr(seen, half)) == ""
        assert seen.tally.differing == 20, half
        seen._drop()


KINDS = {
    "no key": ["CREATE TABLE t (id int, legacy text, phone text)"],
    "a key with NULLs": ["CREATE TABLE t (id int UNIQUE, legacy text, phone text)"],
    "partitions": [
        "CREATE TABLE t (id int PRIMARY KEY, legacy text, phone text) PARTITION BY RANGE (id)",
        "CREATE TABLE one PARTITION OF t FOR VALUES FROM (0) TO (1500)",
        "CREATE TABLE two (phone text, id int NOT NULL, legacy text)",
        "ALTER TABLE t ATTACH PARTITION two FOR VALUES FROM (1500) TO (9000)",
    ],
}


@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_so_however_the_table_is_made(db: Database, kind: str) -> None:
    id = "nullif(i, 2000)" if kind == "a key with NULLs" else "i"
    await db.sql(*KINDS[kind], f"INSERT INTO t SELECT {id}, i FROM generate_series(1, 3000) AS i", "ANALYZE t")  # noqa: S608  # ours
    await schema.ensure(db.connector)
    ledger, spec = Ledger(db), replace(FILL, same="t.phone IS NOT DISTINCT FROM t.legacy")
    result = await ledger.run(spec)
    assert (result.outcome, result.rows, result.compared, result.differing) == (State.DONE, 3000, 3000, 0)
    await db.sql("UPDATE t SET phone = 'x' WHERE legacy IN ('7', '2000')")
    result = await ledger.run(spec)
    assert (result.outcome, result.differing) == (State.INCOMPLETE, 2)
    seen = await looks(db, spec)
    for _ in range(10):
        await seen.look()
    # A row that two looks find by different names, its key and its place, would count twice.
    assert (seen.tally.differing, "nobody could look" in seen._reporter.differs) == (2, False)
    seen._drop()


async def test_a_row_written_wrongly_while_it_runs_is_told_and_noted(
    db18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "EVERY_S", 0.05)
    ledger = await shop(db18)
    backfill, scene = await ledger.backfill(FILL)
    holder = await db18.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 2999 FOR UPDATE")
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.compared > 0)
    await db18.sql("INSERT INTO t VALUES (5000, 'old', 'new')")
    told = await scene.until(lambda p: p.differing > 0)
    assert (told.differing, told.differs) == (
        1,
        f'{SAME} does not hold for 1 row: ["5000"]; some were written since this run began',
    )
    names = await db18.sql("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'dbwatch%'")
    assert any(name.startswith("dbwatch probe") for (name,) in names)  # none of the application's
    await db18.sql("DELETE FROM t WHERE id = 5000")
    await holder.rollback()
    assert (await running).outcome is State.DONE


async def test_a_locked_table_is_not_waited_for_and_that_nobody_could_look_is_said(
    db18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop(db18)
    seen = await looks(db18)
    await seen.look()
    monkeypatch.setattr(comparing, "STALE_S", 0.1)
    holder = await db18.foreign(autocommit=False)
    await holder.execute("LOCK TABLE t")
    began = time.monotonic()
    await seen.look()
    assert time.monotonic() - began < 1.0
    assert f"nobody could look whether {SAME}: canceling statement due to lock timeout" in seen._reporter.differs
    await holder.rollback()
    await seen.look()
    assert seen._reporter.differs == ""
    seen._drop()


async def test_a_hostile_key_is_shown_harmless(db18: Database) -> None:
    ledger = await shop(db18, key="id text")
    await db18.sql("UPDATE t SET id = E'\\x1b[31m\u202e9', phone = 'x' WHERE id = '9'")
    result = await ledger.run(FILL)
    assert result.differing == 1
    assert "\x1b" not in result.note
    assert "\u202e" not in result.note
    assert "[31m" in result.note


@pytest.mark.parametrize(
    ("same", "why"),
    [
        ("phone = nobody", 'column "nobody" does not exist'),
        ("phone", "must be type boolean"),
        ("phone = legacy; DROP TABLE t", "semicolon"),
        ("phone = legacy ORDER BY 1", "more than a condition"),
        ("phone =", "cannot be read"),
        (" ", "has no same"),
    ],
)
async def test_a_condition_that_is_none_is_refused(db18: Database, same: str, why: str) -> None:
    await shop(db18, 10)
    with pytest.raises(UsageError, match=why):
        await planned(db18.connector, replace(FILL, same=same))


async def test_in_mode_once_it_is_refused(db18: Database) -> None:
    await shop(db18, 10)
    with pytest.raises(UsageError, match="in mode once: nothing in a row tells whether it was filled"):
        await planned(db18.connector, replace(FILL, mode="once"))


async def test_the_command_asks_for_it(db18: Database) -> None:
    await shop(db18)
    asked = ("--table", "t", "--set", FILL.set, "--where", FILL.where, "--same", SAME)
    code, lines, err = await end(await start(db18, *asked))
    assert (code, err, lines[-1]["compared"], lines[-1]["differing"]) == (Exit.OK, "", 3000, 0)
    assert lines[-1]["certificate"]["same"] == SAME
    await db18.sql("UPDATE t SET phone = 'x' WHERE id = 1")
    code, lines, err = await end(await start(db18, *asked))
    assert (code, lines[-1]["outcome"], lines[-1]["certificate"]) == (Exit.FAILED, "incomplete", None)
    assert 'does not hold for 1 row: ["1"]' in err


RUNBOOK = f"""
title = "dual write"

[target]
dsn = "${{SHOP_DSN}}"

[[phase]]
name = "code"

[[phase.step]]
id = "fill"
kind = "backfill"
table = "t"
set = "{FILL.set}"
where = "{FILL.where}"
same = "{SAME}"

[[phase.step]]
id = "drop"
kind = "sql"
sql = "ALTER TABLE t DROP legacy"
certificate = "fill"
"""


async def test_a_step_fails_where_rows_differ_and_the_next_one_waits(
    db18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "EVERY_S", 0.05)
    await shop(db18)
    await db18.sql("UPDATE t SET phone = 'x' WHERE id = 1")
    (tmp_path / "same.toml").write_text(RUNBOOK)
    async with driven(Shop(db18, tmp_path, tmp_path / "same.toml")) as conductor:
        for id in ("fill", "fill"):
            assert (await conductor.submit(RunStep(id, conductor.state.database))).taken
            await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
        failed = conductor.state.step("fill")
        assert failed.status is StepStatus.FAILED
        assert failed.text.endswith(f'batches; {SAME} does not hold for 1 row: ["1"]')
        assert failed.again
        assert "0 still pending" not in failed.text
        assert not (await conductor.submit(RunStep("drop", conductor.state.database))).taken
        assert not [e for e in conductor.events if isinstance(e.fact, ev.BackfillCertified)]
        assert len([note for note in noted(conductor, "fill") if "does not hold" in note]) <= 2


# --- pure


def test_a_row_is_counted_once_and_of_very_many_the_least_is_told() -> None:
    tally = Tally().after(Look(10, 2, 0, ('["1"]', '["2"]'), 0.0)).after(Look(10, 1, 1, ('["2"]',), 0.0))
    assert (tally.rows, tally.differing, tally.young) == (20, 2, True)
    assert (
        tally.words("a = b") == 'a = b does not hold for 2 rows: ["1"], ["2"]; some were written since this run began'
    )
    many = Tally().after(Look(500, 300, 0, tuple(f'["{n}"]' for n in range(100)), 0.0))
    assert many.words("a = b") == 'a = b does not hold for at least 100 rows: ["0"], ["1"], ["2"], ...'
    assert many.words("a = b", 300) == 'a = b does not hold for 300 rows: ["0"], ["1"], ["2"], ...'
    assert Tally().words("a = b") == ""


def test_the_pane_says_what_differs() -> None:
    told = BackfillProgress("public.t", State.RUNNING, differing=1, differs='a = b does not hold for 1 row: ["7"]')
    lines = [line.plain for line in progress_lines(told, 78)]
    assert any("differs" in line and '▲ a = b does not hold for 1 row: ["7"]' in line for line in lines)
    assert not any("differs" in line.plain for line in progress_lines(replace(told, differs=""), 78))


def test_the_journal_is_told_once_and_again_when_there_are_ten_times_more() -> None:
    heard, notes = Heard(), []
    for now, rows in enumerate([0, 1, 1, 5, 9, 10, 11, 99, 100]):
        heard, new = heard.after(BackfillProgress("t", State.RUNNING, differing=rows, differs=str(rows)), float(now))
        notes += new
    assert notes == ["1", "10", "100"]
