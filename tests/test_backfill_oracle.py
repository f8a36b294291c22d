"""The oracle can fail: versions of the engine without their protection are caught by it."""

from __future__ import annotations

import pytest
from ledger import Ledger
from proxy import FaultProxy
from servers import Database

from dbwatch.backfill import batch
from dbwatch.backfill.progress import State
from dbwatch.backfill.worker import BatchWorker
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector

CHECKED = "AND b.batches = %(batches)s AND b.cursor IS NOT DISTINCT FROM %(cursor)s"
BATCH = b"filled AS ("


async def lose_an_answer(ledger: Ledger, proxy: FaultProxy) -> None:
    """A run in which the answer to the second batch's COMMIT is lost."""
    ledger.connector = Connector(proxy.dsn)
    backfill, scene = await ledger.backfill()
    scene.react = lambda p: proxy.drop_answer_to(BATCH) if p.batches == 1 and p.state is State.RUNNING else None
    await backfill.run()


async def test_the_engine_as_it_is_passes_what_the_others_fail(db18: Database, proxy_to: FaultProxy.Factory) -> None:
    ledger = await Ledger.make(db18)
    await lose_an_answer(ledger, await proxy_to(db18.dsn))
    assert await ledger.violations() == []


async def test_an_engine_that_guesses_what_became_of_its_commit_is_caught(
    db18: Database, proxy_to: FaultProxy.Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a lost answer for a lost batch, and its cursor moves from wherever it stands."""

    async def guess(self: BatchWorker, session: batch.BatchSession) -> None:
        del self, session

    def unchecked(name: str, version: int) -> bytes:
        text = query(name, version).decode()
        assert name != "backfill-batch" or CHECKED in text
        return text.replace(CHECKED, "").encode()

    monkeypatch.setattr(BatchWorker, "_adopt", guess)
    monkeypatch.setattr(batch, "query", unchecked)
    ledger = await Ledger.make(db18)
    await lose_an_answer(ledger, await proxy_to(db18.dsn))
    twice = await ledger.violations()
    assert len(twice) >= 10
    assert {(times, value) for _, times, value in twice} == {(2, 2)}


async def test_the_compare_and_set_alone_saves_an_engine_that_guesses(
    db18: Database, proxy_to: FaultProxy.Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its repeated batch is rolled back, and then it reads where it stands."""
    real = BatchWorker._adopt
    guesses = iter([True])

    async def guess_once(self: BatchWorker, session: batch.BatchSession) -> None:
        if not next(guesses, False):
            await real(self, session)

    monkeypatch.setattr(BatchWorker, "_adopt", guess_once)
    ledger = await Ledger.make(db18)
    await lose_an_answer(ledger, await proxy_to(db18.dsn))
    assert next(guesses, None) is None
    assert await ledger.violations() == []


@pytest.mark.parametrize("cursor_first", [True, False], ids=["cursor first", "cursor last"])
async def test_an_engine_that_commits_its_cursor_apart_is_caught(db18: Database, cursor_first: bool) -> None:
    """It dies between two commits: with the cursor first rows are lost, with the cursor last they are done twice."""
    ledger = await Ledger.make(db18)
    await db18.sql("CREATE TABLE naive (at bigint); INSERT INTO naive VALUES (0)")
    fill = "UPDATE t SET v = v + 1 WHERE id > {0} AND id <= {0} + 1000"
    move = "UPDATE naive SET at = {0} + 1000"
    steps = [move, fill] if cursor_first else [fill, move]
    dies_at = 2000
    while (at := (await db18.sql("SELECT at FROM naive"))[0][0]) < 6000:
        await db18.sql(steps[0].format(at))
        if at == dies_at:
            dies_at = -1
            continue
        await db18.sql(steps[1].format(at))
    violations = await ledger.violations()
    assert len(violations) == 500
    assert {times for _, times, _ in violations} == ({0} if cursor_first else {2})
