"""`dbwatch backfill`: what a shell, a script and a terminal get of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
from ledger import WORKER_WAITS, Ledger, wait_for
from servers import Database

from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.cli.backfill import bar
from dbwatch.cli.commands import BEHIND
from dbwatch.errors import Exit

ONCE = ("--table", "t", "--set", "v = v + 1", "--where", "true", "--mode", "once", "--batch-time", "10ms")


async def start(database: Database, *arguments: str) -> asyncio.subprocess.Process:
    """`dbwatch backfill` in a process of its own, its outputs piped."""
    command = (sys.executable, "-m", "dbwatch", "backfill", database.dsn, *arguments)
    return await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def end(process: asyncio.subprocess.Process) -> tuple[int, list[dict[str, Any]], str]:
    """Its exit code, the JSON lines on standard output, and what it said on standard error."""
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.decode().splitlines()], err.decode()


async def test_it_ends_with_one_line_of_json(db: Database) -> None:
    ledger = await Ledger.make(db)
    code, lines, err = await end(await start(db, *ONCE))
    assert (code, err) == (Exit.OK, "")
    last = lines[-1]
    assert {name: last[name] for name in ("rows", "pending", "quarantined", "outcome")} == {
        "rows": 3000,
        "pending": 0,
        "quarantined": 0,
        "outcome": "done",
    }
    assert last["batches"] > 1
    assert last["seconds"] > 0
    assert lines[-2]["state"] == "done"
    assert await ledger.violations() == []


async def test_it_is_nicer_than_who_started_it(db18: Database) -> None:
    await Ledger.make(db18)
    holder = await db18.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 1200 FOR UPDATE")
    process = await start(db18, *ONCE)
    await wait_for(db18, WORKER_WAITS)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, ours + BEHIND)
    await holder.rollback()
    assert (await end(process))[0] == Exit.OK


async def test_it_makes_the_journal_where_there_is_none(db18: Database) -> None:
    await db18.sql("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)")
    code, lines, _ = await end(await start(db18, *ONCE))
    assert (code, lines[-1]["rows"]) == (Exit.OK, 1)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_finishes_the_batch_and_the_next_call_goes_on(db18: Database, which: signal.Signals) -> None:
    ledger = await Ledger.make(db18)
    holder = await db18.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 1200 FOR UPDATE")
    process = await start(db18, *ONCE)
    await wait_for(db18, WORKER_WAITS)
    process.send_signal(which)
    await holder.rollback()
    code, lines, err = await end(process)
    assert (code, err) == (Exit.INTERRUPTED, "")
    assert lines[-1]["outcome"] == "stopped"
    assert await db18.sql("SELECT sum(v) FROM t") == [(lines[-1]["rows"],)]
    code, lines, _ = await end(await start(db18, *ONCE))
    assert (code, lines[-1]["rows"]) == (Exit.OK, 3000)
    assert await ledger.violations() == []


async def test_called_again_it_says_that_it_was_finished(db18: Database) -> None:
    ledger = await Ledger.make(db18)
    await end(await start(db18, *ONCE))
    code, lines, _ = await end(await start(db18, *ONCE))
    assert (code, lines[-1]["already"]) == (Exit.OK, True)
    assert "finished at" in lines[-1]["note"]
    assert await ledger.violations() == []


async def test_a_dry_run_shows_the_plan_and_changes_nothing(db18: Database) -> None:
    await db18.sql("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)")
    process = await start(db18, *ONCE, "--dry-run")
    out, _ = await process.communicate()
    assert process.returncode == Exit.OK
    assert "key      id (t_pkey)" in out.decode()
    assert 'UPDATE "public"."t"\nSET v = v + 1' in out.decode()
    code, lines, _ = await end(await start(db18, *ONCE, "--dry-run", "--json"))
    assert (code, lines[0]["rows_estimate"], lines[0]["mode"]) == (Exit.OK, 1, "once")
    assert await db18.sql("SELECT v FROM t") == [(0,)]
    assert await db18.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'dbwatch'") == [(0,)]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--table", "nobody", "--set", "v = 1", "--where", "v IS NULL"), Exit.USAGE, "there is no table"),
        (("--table", "t", "--set", "v = 1", "--where", "id > 0"), Exit.REFUSED, "stay pending for ever"),
        ((*ONCE[:-1], "soon"), Exit.USAGE, "no duration"),
    ],
)
async def test_a_refusal_is_one_sentence_and_an_exit_code(
    db18: Database, arguments: tuple[str, ...], code: Exit, words: str
) -> None:
    await db18.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    got, lines, err = await end(await start(db18, *arguments))
    assert (got, lines) == (code, [])
    assert words in err
    assert err.count("\n") == 1


async def test_rows_left_pending_are_told_and_are_no_success(db18: Database) -> None:
    await db18.sql("CREATE TABLE t (id int PRIMARY KEY, old int, v int); INSERT INTO t VALUES (1, NULL), (2, 7)")
    code, lines, _ = await end(await start(db18, "--table", "t", "--set", "v = old", "--where", "v IS NULL"))
    assert code == Exit.FAILED
    assert (lines[-1]["outcome"], lines[-1]["pending"]) == ("incomplete", 1)
    assert "AND ((old) IS NULL) IS NOT TRUE" in lines[-1]["note"]


async def test_it_fills_no_more_rows_a_second_than_it_may(db18: Database) -> None:
    ledger = await Ledger.make(db18)
    began = time.monotonic()
    code, lines, _ = await end(await start(db18, *ONCE, "--rows-per-second", "1500"))
    assert (code, lines[-1]["rows"]) == (Exit.OK, 3000)
    assert time.monotonic() - began >= 1.0  # the last batch of a second is not rested for
    assert await ledger.violations() == []
    code, _, err = await end(await start(db18, *ONCE, "--rows-per-second", "0"))
    assert code == Exit.USAGE
    assert "fewer than 1 row a second" in err


def test_the_bar_fits_its_width_and_says_why_it_is_slow() -> None:
    progress = BackfillProgress(
        "public.t",
        State.RUNNING,
        rows_done=43_000,
        fraction=0.43,
        rows_per_s=9100,
        eta_s=63,
        batch_ms=97,
        target_ms=100,
    )
    assert bar(progress, 100) == ("[#########...........]  43%  43,000 rows  9.1k/s  1:03 left  batch 97 of 100 ms")
    slow = replace(progress, state=State.THROTTLED, reason="replica r1 is 6.0 s behind")
    assert bar(slow, 200).endswith("throttled  replica r1 is 6.0 s behind")
    assert len(bar(slow, 79)) == 79
    harmful = bar(replace(progress, blocked=2, delayed=3, delayed_worst_s=0.42), 200)
    assert "2 wait for us  delayed 3, worst 0.4 s" in harmful


async def test_what_ran_with_undo_is_brought_back_by_the_same_command(db18: Database) -> None:
    await db18.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t SELECT i, i FROM generate_series(1, 900) i"
    )
    code, _, err = await end(await start(db18, *ONCE, "--restore"))
    assert code == Exit.REFUSED
    assert "there is nothing to bring back" in err
    code, lines, _ = await end(await start(db18, *ONCE, "--undo"))
    assert (code, lines[-1]["rows"], lines[-1]["images"]) == (Exit.OK, 900, "dbwatch.before_1")
    await db18.sql("UPDATE t SET v = -1 WHERE id = 7")
    code, [plan], _ = await end(await start(db18, *ONCE, "--restore", "--dry-run", "--json"))
    assert (code, plan["rows_at_most"], plan["images"]) == (Exit.OK, 900, "dbwatch.before_1")
    code, lines, _ = await end(await start(db18, *ONCE, "--restore"))
    assert (code, lines[-1]["outcome"]) == (Exit.OK, "done")
    assert (lines[-1]["rows"], lines[-1]["changed"], lines[-1]["missing"]) == (899, 1, 0)
    assert await db18.sql("SELECT count(*) FILTER (WHERE v = id), sum(v) FILTER (WHERE v <> id) FROM t") == [(899, -1)]
