"""What a backfill will cost: forecast from the catalogue, and tried on one batch that is rolled back."""

from __future__ import annotations

import json

import pytest
from ledger import planned
from servers import Database

from dbwatch.backfill import trial
from dbwatch.backfill.forecast import Table, forecast
from dbwatch.backfill.spec import Spec
from dbwatch.cli import backfill as door
from dbwatch.errors import DbwatchError

MEASURED = Table(rows=2_000_000, heap_bytes=381 * 2**20, indexes=2)
"""What the facts were measured on."""
FILL = Spec("u", "v = n", "v IS NULL")


def test_the_forecast_says_what_was_measured() -> None:
    plain = forecast(MEASURED, 2_000_000, striped=False, batch_time_s=0.1)
    for measured in (15.7 / 0.72, 15.2):  # on 15, on 18
        assert plain.seconds == pytest.approx(measured, rel=0.35)
    assert plain.wal_bytes / 2e6 == pytest.approx(749, rel=0.1)
    assert plain.bloat_bytes == pytest.approx(MEASURED.heap_bytes, rel=0.01)
    striped = forecast(MEASURED, 2_000_000, striped=True, batch_time_s=0.1)
    for measured in (15.7 / 1.73, 8.0):
        assert striped.seconds == pytest.approx(measured, rel=0.35)
    assert striped.wal_bytes / 2e6 == pytest.approx(522, rel=0.15)
    assert striped.bloat_bytes / MEASURED.heap_bytes == pytest.approx(0.18, abs=0.05)


def test_nothing_costs_nothing() -> None:
    nothing = forecast(Table(0, 0, 3), 0, striped=False, batch_time_s=0.1)
    assert (nothing.batches, nothing.seconds, nothing.wal_bytes, nothing.bloat_bytes) == (0, 0, 0, 0)


async def shop(db: Database) -> None:
    await db.sql(
        "CREATE TABLE c (id int PRIMARY KEY)",
        "INSERT INTO c SELECT generate_series(0, 9)",
        "CREATE TABLE u (id int PRIMARY KEY, n int NOT NULL, v int REFERENCES c, done int)",
        "INSERT INTO u SELECT n, n % 10, CASE WHEN n <= 1500 THEN 0 END FROM generate_series(1, 4000) AS n",
        "CREATE SEQUENCE heard",
        "CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM nextval(''heard''); NEW.done := 1; RETURN NEW; END'",
        "CREATE TRIGGER hears BEFORE UPDATE ON u FOR EACH ROW EXECUTE FUNCTION hear()",
        "ANALYZE u",
    )


async def test_a_trial_tells_of_the_first_pending_rows_and_leaves_none_behind(any_db: Database) -> None:
    await shop(any_db)
    plan = await planned(any_db.connector, FILL)
    tried = await trial.attempt(any_db.connector, plan)
    assert tried is not None
    assert tried.rows == 1000  # of the 2,000 keys above the first 500
    assert tried.wal_bytes > 50 * tried.rows
    assert tried.hot is not None
    assert tried.hit_blocks > 10
    [trigger] = [fired for fired in tried.fired if not fired.constraint]
    assert (trigger.name, trigger.calls) == ("hears", 1000)
    [key] = [fired for fired in tried.fired if fired.constraint]
    assert key.name == "u_v_fkey"
    assert tried.nodes[0].startswith("ModifyTable on u")
    assert await any_db.sql("SELECT count(*) FROM u WHERE v IS NULL") == [(2500,)]
    assert await any_db.sql("SELECT last_value FROM heard") == [(1000,)]
    lines = trial.told(tried, plan.pending_estimate)
    assert "1,000 rows" in lines[0]
    assert "trigger hears: 1,000 calls" in "\n".join(lines)


async def test_a_trial_meets_what_a_commit_would_refuse(db18: Database) -> None:
    await shop(db18)
    await db18.sql(
        "ALTER TABLE u ALTER CONSTRAINT u_v_fkey DEFERRABLE INITIALLY DEFERRED", "UPDATE u SET n = 77 WHERE id = 1600"
    )
    with pytest.raises(DbwatchError, match="u_v_fkey"):
        await trial.attempt(db18.connector, await planned(db18.connector, FILL))


async def test_the_dry_run_shows_costs_and_the_trial(db18: Database, capsys: pytest.CaptureFixture[str]) -> None:
    await shop(db18)
    for as_json in (False, True):
        assert await door._dry(db18.dsn, FILL, as_json, True) == 0
    *text, last = capsys.readouterr().out.splitlines()
    assert any(line.startswith("costs    about 1 batch") for line in text)
    assert any(line.startswith("trial    1,000 rows") for line in text)
    told = json.loads(last)
    assert told["trial"]["rows"] == 1000
    assert told["forecast"]["batches"] == 1


async def test_the_plan_is_shown_although_the_trial_is_refused(
    db18: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    await shop(db18)
    await db18.sql("ALTER TABLE u ADD CHECK (v <> 7)")
    with pytest.raises(DbwatchError, match="on trial failed"):
        await door._dry(db18.dsn, FILL, False, True)
    assert "walk     " in capsys.readouterr().out
