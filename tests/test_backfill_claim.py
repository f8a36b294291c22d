"""Whose backfill it is: takers-over, the window's fence, and owners behind a pooler."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from ledger import Ledger
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from servers import Database

from dbwatch.backfill import claim as claiming
from dbwatch.backfill.claim import Claimed, Finished, Occupied
from dbwatch.backfill.progress import State
from dbwatch.errors import Fenced, Refused
from dbwatch.journal.fence import Fence
from dbwatch.postgres.session import Connector, Role

GROWN_OLD = "UPDATE dbwatch.backfill SET beat_at = clock_timestamp() - interval '{}'"
WINDOW = """
INSERT INTO dbwatch.window (id, title, runbook_text, runbook_sha, start_heads, fingerprint, baseline, epoch, driver,
                            lease_until)
VALUES ('{}', 't', '', '', '[]', '{{}}', '{{}}', {}, 'wei', clock_timestamp())
"""


async def claim(
    ledger: Ledger, owner: str, *, fence: Fence | None = None, alive: bool = True
) -> Claimed | Finished | Occupied:
    """A claim by *owner*; where it is to be *alive* there is a backend of its name until the test ends."""
    if alive:
        await ledger.database.foreign(owner)
    session = await ledger.database.connector.open(Role.JOURNAL)
    try:
        return await claiming.claim(session, await ledger.plan(), owner=owner, fence=fence)
    finally:
        await session.close()


async def test_a_live_owner_keeps_it_and_a_gone_one_loses_it_at_once(db: Database) -> None:
    ledger = await Ledger.make(db)
    assert isinstance(await claim(ledger, "dbwatch worker a", alive=False), Claimed)
    taken = await claim(ledger, "dbwatch worker b")
    assert isinstance(taken, Claimed)
    assert taken.position.epoch == 2
    occupied = await claim(ledger, "dbwatch worker c")
    assert isinstance(occupied, Occupied)
    assert occupied.row.owner == "dbwatch worker b"


async def test_an_owner_that_is_there_and_silent_for_long_is_frozen_and_loses_it(db: Database) -> None:
    ledger = await Ledger.make(db)
    await claim(ledger, "dbwatch worker a")
    await db.sql(GROWN_OLD.format("29 s"))
    assert isinstance(await claim(ledger, "dbwatch worker b"), Occupied)
    await db.sql(GROWN_OLD.format("31 s"))
    assert isinstance(await claim(ledger, "dbwatch worker b"), Claimed)


async def test_behind_a_pooler_only_writing_tells_that_an_owner_lives(db: Database) -> None:
    ledger = await Ledger.make(db)
    await claim(ledger, "dbwatch worker a pooled", alive=False)
    occupied = await claim(ledger, "dbwatch worker b")
    assert isinstance(occupied, Occupied)
    assert occupied.pid is None
    await db.sql(GROWN_OLD.format("13 s"))
    assert isinstance(await claim(ledger, "dbwatch worker b"), Claimed)


async def test_a_driver_whose_window_was_taken_over_claims_nothing(db: Database) -> None:
    ledger = await Ledger.make(db)
    window = uuid4()
    await db.sql(WINDOW.format(window, 4))
    with pytest.raises(Fenced):
        await claim(ledger, "dbwatch worker a", fence=Fence(window, 3))
    assert await db.sql("SELECT count(*) FROM dbwatch.backfill") == [(0,)]
    assert isinstance(await claim(ledger, "dbwatch worker a", fence=Fence(window, 4)), Claimed)


async def test_a_finished_one_of_an_earlier_window_does_not_count_as_this_windows(db: Database) -> None:
    """The earlier window may have been aborted, and its column dropped and added again."""
    ledger = await Ledger.make(db)
    await ledger.run()
    window = uuid4()
    await db.sql(WINDOW.format(window, 1))
    taken = await claim(ledger, "dbwatch worker a", fence=Fence(window, 1))
    assert isinstance(taken, Claimed)
    assert taken.resumed is None


async def test_in_mode_once_an_unfinished_one_of_anybody_is_gone_on_with(db: Database) -> None:
    ledger = await Ledger.make(db)
    backfill, scene = await ledger.backfill()
    scene.react = lambda p: scene.control.stop() if p.batches >= 2 else None
    await backfill.run()
    window = uuid4()
    await db.sql(WINDOW.format(window, 1))
    assert (await ledger.run(fence=Fence(window, 1))).rows == 3000
    assert await ledger.violations() == []


@pytest.fixture
async def pooler(db18: Database, tmp_path: Path) -> AsyncIterator[str]:
    """The DSN of a PgBouncer in transaction mode before db18; skips where there is no pgbouncer."""
    binary = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")
    if binary is None:
        pytest.skip("no pgbouncer here")
    behind = conninfo_to_dict(db18.dsn)
    settings = tmp_path / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n{db18.name} = host={behind['host']} port={behind['port']} user=postgres\n"
        "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 0\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 2\n"
    )
    port = await _free_port()
    settings.write_text(settings.read_text().replace("listen_port = 0", f"listen_port = {port}"))
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if os.geteuid() == 0 and folder.owner() == "root" and "pytest" in str(folder):
            folder.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        binary, settings, stderr=asyncio.subprocess.PIPE, user="nobody" if os.geteuid() == 0 else None
    )
    assert process.stderr is not None
    while b"process up" not in (line := await asyncio.wait_for(process.stderr.readline(), 10)):
        assert line, "pgbouncer did not come up"
    try:
        yield make_conninfo(db18.dsn, host="127.0.0.1", port=port)
    finally:
        process.terminate()
        await process.wait()


async def _free_port() -> int:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def test_it_runs_through_a_pooler_and_leaves_no_setting_behind(db18: Database, pooler: str) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 20000)")
    ledger.connector = Connector(pooler)
    backfill, scene = await ledger.backfill()
    other, _ = await ledger.backfill()
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.batches >= 1)
    scene.control.pause()
    await scene.until(lambda p: p.state is State.PAUSED)
    with pytest.raises(Refused, match="through a pooler"):
        await other.run()
    scene.control.resume()
    result = await running
    assert (result.outcome, result.rows) == (State.DONE, 20_000)
    assert all(p.worker is None for p in scene.told)
    assert await ledger.violations() == []
    session = await Connector(pooler).open(Role.MONITOR)
    assert session.pooled
    settings = "SELECT name FROM pg_settings WHERE source = 'session' AND name <> 'application_name'"
    assert await session.values(settings) == []
    await session.close()


async def test_a_lost_epoch_is_claimed_anew(db: Database) -> None:
    """As after a failover to a standby that had not yet seen our claim: the row is older than what we hold."""
    ledger = await Ledger.make(db)
    backfill, scene = await ledger.backfill()
    await claim(ledger, "dbwatch worker gone", alive=False)
    scene.control.pause()
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.state is State.PAUSED)
    await db.sql("UPDATE dbwatch.backfill SET epoch = 1, owner = 'dbwatch worker gone'")
    scene.control.resume()
    assert (await running).rows == 3000
    assert (await ledger.row())[1] == 2
    assert await ledger.violations() == []


async def test_a_number_that_another_backfill_has_now_is_left_to_it(db: Database) -> None:
    """As after a failover that lost our claim: whoever claims next there is given our number, and our epoch."""
    ledger = await Ledger.make(db)
    backfill, scene = await ledger.backfill()
    scene.control.pause()
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.state is State.PAUSED)
    await db.sql(
        "UPDATE dbwatch.backfill SET spec = '{}', spec_hash = 'other', owner = 'dbwatch worker other'",
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = '{backfill.owner}'",  # noqa: S608  # ours
    )
    scene.control.resume()
    assert (await running).rows == 3000
    others, ours = await db.sql("SELECT status, rows_done FROM dbwatch.backfill ORDER BY id")
    assert (others, ours) == (("running", 0), ("done", 3000))
    assert await ledger.violations() == []


async def test_a_person_who_stops_it_does_not_wait_for_another_to_go_away(db18: Database) -> None:
    ledger = await Ledger.make(db18)
    first, seen = await ledger.backfill()
    seen.react = lambda told: seen.control.pause() if told.batches == 3 else None
    running = asyncio.create_task(first.run())
    await seen.until(lambda told: told.state is State.PAUSED)
    second, scene = await ledger.backfill()
    waiting = asyncio.create_task(second.run())
    await asyncio.sleep(0.3)
    scene.control.stop()
    async with asyncio.timeout(1.5):  # of the 3 s that it waits for an owner to go away
        result = await waiting
    assert (result.outcome, result.rows) == (State.STOPPED, 0)
    seen.control.resume()
    assert (await running).outcome is State.DONE
    assert await ledger.violations() == []
