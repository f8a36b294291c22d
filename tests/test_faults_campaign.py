"""A backfill under load, killed, cut off, overtaken and locked out at random: a short piece of `make faults`; and proof
that it can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import oracle
from faults.house import House
from faults.run import one
from ledger import ONCE, Ledger
from servers import Database, OwnServers

LOST = "2 an answer lost"
MIXED = (LOST, "11 many rows at once", "1 kill -9", "5 a deadlock", "4 failover")


@pytest.fixture
async def house(own_server: OwnServers) -> House:
    return await House.of(own_server, 18)


@pytest.mark.timeout(240)
async def test_whatever_befalls_it_each_row_is_set_once(house: House, tmp_path: Path) -> None:
    result = await one(house, "short.2", tmp_path, strokes=MIXED)
    assert result.breaches == [], "\n".join(result.log)
    assert result.rows > 5_000
    assert {LOST, "1 kill -9", "11 inserts, deletes, changed keys"} <= set(result.faults)


@pytest.mark.timeout(240)
async def test_an_engine_that_remembers_by_itself_how_far_it_is_does_not_get_through(
    house: House, tmp_path: Path
) -> None:
    result = await one(house, "short.12", tmp_path, "remembering", strokes=[LOST] * 5)
    assert any("keys were set more than once" in breach for breach in result.breaches), "\n".join(result.log)
    assert "2 an answer lost" in (tmp_path / "run-short.12.txt").read_text()


BROKEN = {
    "UPDATE t SET v = 2 WHERE id = 4": "row (4): set 2 times, v = 2",
    "INSERT INTO ledger VALUES ('(-1)', 2)": "1 keys were set more than once, those included that came later",
    "INSERT INTO t (id, v) VALUES (7000, 1)": "1 rows were set that came after the start, above the highest key",
    "DELETE FROM ledger WHERE key = '(4)'": "row (4): set 0 times, v = 1",
    "UPDATE dbwatch.backfill SET rows_done = 2999": "the journal: 2,999 rows are said to be done, 3,000 were",
    "UPDATE dbwatch.backfill SET status = 'running'": "the journal: status is running",
    "UPDATE dbwatch.backfill SET pending = 1": "the journal: 1 rows are said to be pending, 0 are in quarantine",
    "INSERT INTO dbwatch.quarantine VALUES (1, '[\"4\"]', '23514', '')": "row (4): set 1 times, v = 1, in quarantine",
    "DELETE FROM dbwatch.before_1 WHERE key_1 = 4": "2,999 before-images of 3,000 rows that were set, 0 of them wrong",
    "UPDATE dbwatch.before_1 SET old_1 = 7 WHERE key_1 = 4": "1 of them wrong",
}


async def test_the_oracle_sees_each_thing_that_does_not_hold(db18: Database) -> None:
    ledger = await Ledger.make(db18)
    await ledger.run(type(ONCE)("t", "v = v + 1", "true", mode="once", undo=True))
    assert await oracle.breaches(ledger) == []
    for spoil, breach in BROKEN.items():
        found = await spoiled(ledger, spoil)
        assert breach in found, (spoil, found)


async def spoiled(ledger: Ledger, statement: str) -> str:
    """What the oracle says once *statement* was carried out, which is taken back."""
    tables = ("t", "ledger", "dbwatch.backfill", "dbwatch.quarantine", "dbwatch.before_1")
    kept = [f"CREATE TABLE kept_{n} AS TABLE {table}" for n, table in enumerate(tables)]
    back = [
        f"DELETE FROM {table}; INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept_{n}; DROP TABLE kept_{n}"  # noqa: S608  # ours
        for n, table in enumerate(tables)
    ]
    await ledger.database.sql(*kept, statement)
    found = "; ".join(await oracle.breaches(ledger))
    await ledger.database.sql("SET session_replication_role = replica", *back)
    return found
