"""What the journal knows of backfills: listed with what they set aside, and that tried again."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from ledger import ONCE
from servers import Database
from test_backfill_poison import PHONE, casts, held, poisoned, those
from test_window_undo import HASH, capitals, noted
from windows import PATIENCE_S, abort, driven, step, steps_before

from dbwatch.backfill import known, quarantine, retrying
from dbwatch.backfill.known import Known
from dbwatch.backfill.progress import State
from dbwatch.errors import Exit, Refused, UsageError
from dbwatch.journal import schema
from dbwatch.journal.fold import StepStatus
from dbwatch.postgres.session import Connector, Role
from dbwatch.window.intents import RunStep


async def door(*arguments: str) -> tuple[int, str, str]:
    """`dbwatch backfill` in a process of its own: its exit code and outputs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dbwatch", "backfill", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def backfills(db: Database) -> tuple[Known, ...]:
    session = await db.connector.open(Role.JOURNAL)
    try:
        return await known.backfills(session)
    finally:
        await session.close()


async def test_where_no_backfill_was_run_that_is_said(db18: Database) -> None:
    assert await door("status", db18.dsn) == (Exit.OK, "no backfill was ever run here\n", "")
    await schema.ensure(db18.connector)
    code, out, _ = await door("status", db18.dsn, "--json", "--quarantine")
    assert (code, json.loads(out)) == (Exit.OK, {"backfills": []})


async def test_every_backfill_is_listed_the_newest_first_and_whether_its_owner_is_alive(any_db: Database) -> None:
    ledger = await poisoned(any_db, [3])
    await ledger.run()
    backfill, scene = await ledger.backfill(replace(ONCE, set="v = v + 2", where="id > 5"))
    scene.react = lambda p: scene.control.pause() if p.batches else None
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.state is State.PAUSED)
    now, before = await backfills(any_db)
    assert (before.id, before.table, before.set, before.status) == (1, "public.t", "v = v + 1", "done")
    assert (before.rows_done, before.quarantined, before.fraction, before.alive) == (2999, 1, 1.0, False)
    assert (now.id, now.where, now.status, now.alive, now.owner) == (2, "id > 5", "running", True, backfill.owner)
    assert now.fraction is not None
    assert 0 < now.fraction < 1
    scene.control.stop()
    await running
    assert [one.state for one in await backfills(any_db)] == ["stopped", "done"]
    await any_db.sql("UPDATE dbwatch.backfill SET status = 'running' WHERE id = 2")
    assert (await backfills(any_db))[0].state == f"running, but its owner is gone: {backfill.owner}"


async def test_the_commands_list_and_retry(db18: Database) -> None:
    await casts(db18, 40, 50)
    await db18.sql("UPDATE t SET old = E'\\x1b[31m\u202ex' WHERE id = 50")
    spec = ("--table", "t", "--set", "v = old::int", "--where", "v IS NULL", "--quarantine", "2")
    code, out, err = await door(db18.dsn, *spec)
    assert (code, json.loads(out.splitlines()[-1])["quarantined"]) == (Exit.OK, 2)
    assert "2 rows are in quarantine and NOT filled (22P02: 2)" in err
    code, out, _ = await door("status", db18.dsn, "--quarantine")
    assert code == Exit.OK
    assert out.splitlines()[0] == "1     public.t  SET v = old::int"
    assert "      2,998 rows in" in out
    assert '      ["40"]  22P02  invalid input syntax for type integer: "x"' in out
    assert '      ["50"]  22P02  invalid input syntax for type integer: "␛[31m·x"' in out
    code, out, _ = await door("status", db18.dsn, "--quarantine", "--json")
    [told] = json.loads(out)["backfills"]
    assert [row["key"] for row in told["quarantine"]] == ['["40"]', '["50"]']
    await db18.sql("UPDATE t SET old = '1' WHERE id = 40")
    code, out, _ = await door("retry", db18.dsn, "--id", "1")
    assert code == Exit.FAILED
    assert out.splitlines()[0] == "1 row is filled, 0 needed nothing any more, 1 still in quarantine"
    assert out.splitlines()[1].startswith('["50"]  22P02  invalid input')


async def test_a_step_of_a_window_fails_over_its_budget_and_within_it_says_loudly_what_it_left(
    db18: Database, tmp_path: Path
) -> None:
    shop = await capitals(db18, tmp_path)
    shop.runbook.write_text(shop.runbook.read_text() + "quarantine = 1\n")
    odd = "ALTER TABLE users ADD CONSTRAINT odd CHECK (id NOT IN (5, 900) OR name <> upper(name)) NOT VALID"
    await db18.sql(odd)
    before = await db18.sql(HASH)
    async with driven(shop) as conductor:
        await steps_before(conductor, "capitals")
        assert (await conductor.submit(RunStep("capitals", conductor.state.database))).taken
        await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
        failed = conductor.state.step("capitals")
        assert failed.status is StepStatus.FAILED
        assert "than the 1 that may be set aside" in failed.text
        assert '["900"]' in failed.text
        assert any("it is in quarantine" in note for note in noted(conductor, "capitals"))
        await db18.sql("ALTER TABLE users DROP CONSTRAINT odd")
        await step(conductor, "capitals")
        text = conductor.state.step("capitals").text
        assert "1 row is in quarantine and NOT filled (23514: 1)" in text
        assert "2,999 rows" in text
        await db18.sql(odd)
        await abort(conductor)
    assert await db18.sql(HASH) == before


async def test_a_retry_fills_what_can_take_its_value_now_and_counts_it(any_db: Database) -> None:
    ledger = await casts(any_db, 40, 50, 60)
    await ledger.run(replace(PHONE, undo=True))
    await any_db.sql("UPDATE t SET old = '7' WHERE id IN (40, 60)")
    retried = await retrying.retry(any_db.connector, 1, '["60"]')
    assert (retried.filled, retried.left) == (1, ())
    assert await held(any_db) == those([40, 50], "22P02")
    retried = await retrying.retry(any_db.connector, 1)
    assert (retried.filled, [p.key for p in retried.left]) == (1, ['["50"]'])
    assert await any_db.sql("SELECT rows_done, pending FROM dbwatch.backfill") == [(2999, 1)]
    assert await any_db.sql("SELECT count(*) FROM dbwatch.before_1") == [(2999,)]
    assert await any_db.sql("SELECT id, v FROM t WHERE id IN (40, 50, 60) ORDER BY id") == [
        (40, 7),
        (50, None),
        (60, 7),
    ]
    [(note,)] = await any_db.sql("SELECT note FROM dbwatch.backfill")
    assert note.startswith("1 row is in quarantine")


async def test_two_who_retry_at_once_set_each_row_once(db18: Database) -> None:
    ledger = await poisoned(db18, range(100, 140))
    await ledger.run()
    await db18.sql("ALTER TABLE t DROP CONSTRAINT poisoned")
    pair = [retrying.retry(db18.connector, 1) for _ in range(2)]
    ends = await asyncio.gather(*pair, return_exceptions=True)
    assert all(isinstance(end, Refused | retrying.Retried) for end in ends), ends
    while await held(db18):
        await retrying.retry(db18.connector, 1)
    assert await ledger.violations() == []
    assert await db18.sql("SELECT rows_done FROM dbwatch.backfill") == [(3000,)]


async def test_a_retry_is_refused_while_an_owner_is_alive(db18: Database) -> None:
    ledger = await poisoned(db18, [3])
    backfill, scene = await ledger.backfill()
    scene.react = lambda p: scene.control.pause() if p.quarantined else None
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.state is State.PAUSED)
    with pytest.raises(Refused, match=f"{backfill.owner} .* is alive"):
        await retrying.retry(db18.connector, 1)
    scene.react = lambda _: None
    scene.control.resume()
    assert (await running).quarantined == 1
    with pytest.raises(UsageError, match="knows no backfill 7"):
        await retrying.retry(db18.connector, 7)
    with pytest.raises(UsageError, match="is not in the quarantine"):
        await retrying.retry(db18.connector, 1, '["4"]')


async def test_a_retry_that_may_not_take_rows_out_changes_nothing(db18: Database) -> None:
    ledger = await poisoned(db18, [3])
    await ledger.run()
    await db18.sql(
        "ALTER TABLE t DROP CONSTRAINT poisoned",
        "DROP ROLE IF EXISTS retries", "CREATE ROLE retries LOGIN",
        "GRANT ALL ON t, ledger TO retries",
        "GRANT USAGE ON SCHEMA dbwatch TO retries",
        "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA dbwatch TO retries",
    )  # fmt: skip
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="quarantine"):
        await retrying.retry(Connector(db18.dsn_as("retries")), 1)
    await db18.sql("GRANT DELETE ON dbwatch.quarantine TO retries")
    assert (await retrying.retry(Connector(db18.dsn_as("retries")), 1)).filled == 1
    assert await ledger.violations() == []
    await db18.sql("DROP OWNED BY retries", "DROP ROLE retries")


@pytest.mark.parametrize(
    ("written", "kept"),
    [('["42"]', '["42"]'), ("[42]", '["42"]'), ('[ "a", "b" ]', '["a","b"]'), ("[true]", '["true"]')],
)
def test_a_key_as_a_person_writes_it(written: str, kept: str) -> None:
    assert quarantine.canonical(written) == kept


@pytest.mark.parametrize("written", ["42", "", "[]", '{"id": 1}', "[null]", "[[1]]", "\x1b"])
def test_what_is_no_key_is_refused(written: str) -> None:
    with pytest.raises(UsageError, match="is no list of values"):
        quarantine.canonical(written)


def test_a_hostile_key_is_shown_harmless_and_still_names_its_row() -> None:
    key = '["\u202e\x7fä"]'
    assert quarantine.shown(key) == '["\\u202e\\u007f\\u00e4"]'
    assert quarantine.canonical(quarantine.shown(key)) == key
    assert quarantine.shown('["ä"]') == '["ä"]'
