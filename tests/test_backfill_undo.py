"""What a backfill overwrote is brought back: exactly, in batches, through every interruption, and nobody else's."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from ledger import ONCE, QUICK, WORKER_WAITS, Ledger, Scene, planned, wait_for
from proxy import FaultProxy
from psycopg import sql
from servers import Database, OwnServers
from test_backfill_claim import WINDOW

from dbwatch.backfill import batch, kept
from dbwatch.backfill import images as images_of
from dbwatch.backfill.kept import Kept
from dbwatch.backfill.plan import Spec
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.restore import Restore, Returned
from dbwatch.backfill.run import Backfill, Result
from dbwatch.backfill.statements import Statements
from dbwatch.backfill.worker import BatchWorker
from dbwatch.clock import SystemClock
from dbwatch.errors import DbwatchError, Fenced, Refused
from dbwatch.journal import ledger as journal
from dbwatch.journal import rights, schema
from dbwatch.journal.fence import Fence
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Role

ROWS = 6000
UNDO = Spec(table="users", set="phone = legacy", where="phone IS DISTINCT FROM legacy", batch_time_ms=10, undo=True)
"""Of three rows one holds NULL before, one another value, and one is right already."""
HASH = "SELECT sum(hashtextextended(t::text, 0))::text, count(*) FROM {} AS t"

BEFORE = "CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN 'was ' || i ELSE 'l' || i END"
WRONG = (
    f"SELECT count(*) FROM (SELECT id AS i, * FROM users WHERE {{where}}) AS u WHERE phone IS DISTINCT FROM {BEFORE}"  # noqa: S608  # ours
)


async def users(db: Database, key: str = "i", kind: str = "bigint", rows: int = ROWS) -> str:
    """The table, filled; its hash."""
    await db.sql(
        f"CREATE TABLE users (id {kind} PRIMARY KEY, legacy text, phone text, seen int DEFAULT 0)",
        f"INSERT INTO users SELECT {key}, 'l' || i, {BEFORE} FROM generate_series(1, {rows}) AS i",  # noqa: S608  # ours
        "ANALYZE users",
    )
    await schema.ensure(db.connector)
    return await hashed(db)


async def hashed(db: Database, table: str = "users") -> str:
    [(found, rows)] = await db.sql(HASH.format(table))
    return f"{found}/{rows}"


async def fill(db: Database, spec: Spec = UNDO, scene: Scene | None = None) -> Result:
    scene = scene or Scene()
    found = await planned(db.connector, spec)
    return await Backfill(
        db.connector, found, clock=SystemClock(), control=scene.control, progress=scene.see, thresholds=QUICK
    ).run()


async def images(db: Database) -> Kept:
    """Those of the only backfill."""
    session = await db.connector.open(Role.JOURNAL)
    try:
        [(id,)] = await db.sql("SELECT max(id) FROM dbwatch.backfill")
        found = await kept.of_backfill(session, id)
    finally:
        await session.close()
    assert found is not None
    return found


async def back(
    db: Database, scene: Scene | None = None, connector: Connector | None = None, fence: Fence | None = None
) -> Returned:
    scene = scene or Scene()
    return await Restore(
        connector or db.connector,
        await images(db),
        clock=SystemClock(),
        control=scene.control,
        progress=scene.see,
        fence=fence,
        thresholds=QUICK,
        batch_time_ms=10,
    ).run()


async def tables_of_images(db: Database) -> list[tuple[Any, ...]]:
    return await db.sql("SELECT relname FROM pg_class WHERE relname ~ '^before_' AND relkind = 'r'")


async def test_what_was_filled_whole_is_brought_back_exactly(db: Database) -> None:
    before = await users(db)
    result = await fill(db)
    assert (result.outcome, result.rows) == (State.DONE, 4000)
    assert await hashed(db) != before
    returned = await back(db)
    assert (returned.outcome, returned.rows, returned.changed, returned.missing) == (State.DONE, 4000, 0, 0)
    assert await hashed(db) == before
    assert "were dropped" in returned.note
    assert await tables_of_images(db) == []


async def test_what_was_stopped_in_the_middle_is_brought_back_exactly(db: Database) -> None:
    before = await users(db)
    scene = Scene()
    scene.react = lambda p: scene.control.stop() if p.batches == 3 else None
    result = await fill(db, scene=scene)
    assert result.outcome is State.STOPPED
    assert 0 < result.rows < 4000
    returned = await back(db)
    assert returned.rows == result.rows
    assert await hashed(db) == before


async def test_a_backfill_without_undo_cannot_be_brought_back(db18: Database) -> None:
    """What the other tests compare does differ, and nothing is written where nothing was asked for."""
    before = await users(db18)
    await fill(db18, replace(UNDO, undo=False))
    assert await hashed(db18) != before
    assert await tables_of_images(db18) == []
    assert await db18.sql("SELECT images FROM dbwatch.backfill") == [(None,)]


KEYS = {
    "uuid": ("id uuid PRIMARY KEY", "id", "md5(i::text)::uuid"),
    "composite": ("a int, b text, PRIMARY KEY (b, a)", "b, a", "i % 7, 'k ' || i"),
    "odd names": ('"%s {0}" timestamptz PRIMARY KEY', '"%s {0}"', "'2026-01-01'::timestamptz + i * interval '1 min'"),
    "collation": ('id text COLLATE "C" PRIMARY KEY', "id", "CASE WHEN i % 2 = 0 THEN 'a' ELSE 'B' END || i"),
    "names of ours": ("key_1 int PRIMARY KEY, old_1 int", "key_1", "i, i"),
}


@pytest.mark.parametrize("which", KEYS)
async def test_keys_of_every_make_are_brought_back_by(db: Database, which: str) -> None:
    """Two columns are set, of types that know no equality, with NULLs on either side."""
    key, _, values = KEYS[which]
    await db.sql(
        f'CREATE TABLE "Odd %s" ({key}, new_1 json, "50%" numeric(9,3) DEFAULT 1.5)',
        f"""INSERT INTO "Odd %s" SELECT {values}, CASE WHEN i % 3 > 0 THEN '{{"was": 1}}'::json END, i
            FROM generate_series(1, 900) AS i""",  # noqa: S608  # ours
        'ANALYZE "Odd %s"',
    )
    await schema.ensure(db.connector)
    before = await hashed(db, '"Odd %s"')
    spec = Spec(
        table='"Odd %s"',
        set="""new_1 = CASE WHEN "50%" % 2 = 0 THEN '{}'::json END, "50%" = -"50%" """,
        where='"50%" > 0',
        undo=True,
        batch_time_ms=10,
    )
    result = await fill(db, spec)
    assert (result.outcome, result.rows) == (State.DONE, 900)
    assert (await back(db)).rows == 900
    assert await hashed(db, '"Odd %s"') == before


async def test_the_statement_on_paper_brings_back_the_same(db: Database) -> None:
    before = await users(db)
    await fill(db)
    await db.sql("UPDATE users SET phone = 'theirs' WHERE id = 7")
    statement = (await images(db)).kept_in.by_hand()
    await db.sql(statement, statement)
    assert await db.sql("SELECT phone FROM users WHERE id = 7") == [("theirs",)]
    returned = await back(db)  # what is as it was is not called changed by others
    assert (returned.rows, returned.changed, returned.missing) == (3999, 1, 0)
    await db.sql("UPDATE users SET phone = 'was 7' WHERE id = 7")
    assert await hashed(db) == before


async def test_what_others_wrote_since_stays_is_counted_and_named(db: Database) -> None:
    await users(db)
    await fill(db)
    await db.sql("UPDATE users SET phone = 'theirs' WHERE id <= 30")  # 20 of them have images
    await db.sql("UPDATE users SET seen = 1 WHERE id BETWEEN 31 AND 60")  # not the column that was filled
    await db.sql("DELETE FROM users WHERE id BETWEEN 61 AND 90")  # 20 of them too
    returned = await back(db)
    assert (returned.rows, returned.changed, returned.missing) == (3960, 20, 20)
    assert "20 rows changed by others since, left as they are; 20 rows gone since; what is left stays in" in str(
        returned
    )
    assert await db.sql("SELECT count(*) FROM users WHERE phone = 'theirs'") == [(30,)]
    assert await db.sql(WRONG.format(where="id > 30")) == [(0,)]
    assert await tables_of_images(db) == [("before_1",)]
    assert await db.sql("SELECT count(*) FROM dbwatch.before_1") == [(40,)]


async def test_what_others_write_while_it_fills_and_goes_back_survives(db: Database) -> None:
    """The application writes all the while, before and behind the cursors; its last word on each row stands."""
    await users(db, rows=12_000)
    await db.sql("CREATE TABLE said (id bigint PRIMARY KEY, phone text)")
    app = await db.foreign("app")
    over = asyncio.Event()
    say = """
        WITH s AS (INSERT INTO said SELECT DISTINCT (random() * 11999)::int + 1, 'app ' || {n}
                   FROM generate_series(1, 40)
                   ON CONFLICT (id) DO UPDATE SET phone = excluded.phone RETURNING id, phone)
        UPDATE users AS u SET phone = s.phone FROM (SELECT * FROM s ORDER BY id) AS s WHERE u.id = s.id
    """

    async def talk() -> None:
        n = 0
        while not over.is_set():
            n += 1
            try:
                await app.execute(say.format(n=n).encode())
            except psycopg.errors.DeadlockDetected:
                continue

    talking = asyncio.create_task(talk())
    scene = Scene()
    scene.react = lambda p: scene.control.stop() if p.rows_done > 5000 else None
    await fill(db, scene=scene)
    returned = await back(db)
    over.set()
    await talking
    # A word that we overwrote while we filled is brought back: it stood before our last write to the row.
    left = await db.sql("SELECT u.id FROM users AS u JOIN said AS s USING (id) WHERE u.phone IS DISTINCT FROM s.phone")
    assert left == []
    assert await db.sql(WRONG.format(where="id NOT IN (SELECT id FROM said)")) == [(0,)]
    assert returned.rows > 3000


# --- faults: the ledger's trigger counts; a row that was filled once and brought back once counts 2


UNDO_ONCE = replace(ONCE, undo=True)
RESTORING = b"restored AS ("
TWICE = (
    "SELECT count(*) FILTER (WHERE l.n = 2 AND t.v = 0), count(*) FROM t JOIN ledger AS l ON l.key = ROW(t.id)::text"
)


async def filled(db: Database, rows: int = 3000) -> Ledger:
    ledger = await Ledger.make(db, f"SELECT generate_series(1, {rows})")  # ours
    assert (await ledger.run(UNDO_ONCE)).rows == rows
    return ledger


async def test_killed_again_and_again_it_brings_each_row_back_once(db: Database) -> None:
    await filled(db, 12_000)
    moments = random.Random(db.major)
    for _ in range(3):
        process = await restore_elsewhere(db.dsn)
        assert process.stdout is not None
        for _ in range(moments.randrange(2, 6)):
            await process.stdout.readline()
        await asyncio.sleep(moments.random() * 0.01)
        process.kill()
        await process.wait()
    [(so_far,)] = await db.sql("SELECT restored FROM dbwatch.backfill")
    assert 0 < so_far < 12_000
    assert (await back(db)).rows == 12_000
    assert await db.sql(TWICE) == [(12_000, 12_000)]


async def test_a_commit_of_the_way_back_whose_answer_is_lost_is_not_repeated(
    db: Database, proxy_to: FaultProxy.Factory
) -> None:
    await filled(db)
    proxy = await proxy_to(db.dsn)
    scene = Scene()
    lost_after = {1, 3}

    def lose(progress: BackfillProgress) -> None:
        done = len(progress.history)
        if progress.state is State.RUNNING and done in lost_after:
            lost_after.discard(done)
            proxy.drop_answer_to(RESTORING)

    scene.react = lose
    assert (await back(db, scene, Connector(proxy.dsn))).rows == 3000
    assert lost_after == set()
    assert any("connection lost" in reason for reason in scene.reasons(State.THROTTLED))
    assert await db.sql(TWICE) == [(3000, 3000)]


async def test_one_that_repeats_an_unanswered_commit_is_caught(
    db18: Database, proxy_to: FaultProxy.Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the comparison with what we wrote, and images that are not used up, a lost answer does it twice."""
    same = images_of.Images._restoring

    def blindly(self: images_of.Images) -> sql.Composed:
        return sql.SQL("{}\n    OR t.id = i.key_1").format(same(self))

    async def guess(self: BatchWorker, session: batch.BatchSession) -> None:
        """Takes a lost answer for a lost batch."""
        del self, session

    def unchecked(name: str, version: int) -> bytes:
        text = query(name, version).decode()
        checked = "AND b.batches = %(batches)s AND b.back IS NOT DISTINCT FROM %(cursor)s"
        used_up = "DELETE FROM {images} AS i\n    WHERE {range} AND ({keys}) IN ("
        not_used_up = "SELECT 1 FROM {images} AS i\n    WHERE {range} AND ({keys}) IN ("
        if name == "backfill-restore":
            assert checked in text
            assert used_up in text
            text = (
                text.replace(checked, "")
                .replace(used_up, not_used_up)
                .replace("    RETURNING 1\n),\ncounted", "),\ncounted")
            )
        return text.encode()

    await filled(db18)
    await db18.sql(
        "DROP TRIGGER note ON t", "CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()"
    )
    monkeypatch.setattr(images_of.Images, "_restoring", blindly)
    monkeypatch.setattr(BatchWorker, "_adopt", guess)
    monkeypatch.setattr(batch, "query", unchecked)
    proxy = await proxy_to(db18.dsn)
    scene = Scene()
    first = iter([True])

    def lose(progress: BackfillProgress) -> None:
        if len(progress.history) == 1 and next(first, False):
            proxy.drop_answer_to(RESTORING)

    scene.react = lose
    await back(db18, scene, Connector(proxy.dsn))
    [(once, every)] = await db18.sql(TWICE)
    assert once < every


async def test_a_row_that_somebody_holds_is_kept_as_they_leave_it(db: Database) -> None:
    """Our batch waits for the row, and its before-image is what the other commits, not what we first saw."""
    await users(db, rows=300)
    await a_word_while_we_wait(db)
    assert await db.sql("SELECT phone, seen FROM users WHERE id = 100") == [("theirs", 1)]


async def test_images_that_are_read_without_the_lock_are_caught(
    db15: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = images_of.Images.read

    def unlocked(self: images_of.Images, statements: Statements, *, after: bool, fillable: bool) -> str:
        return real(self, statements, after=after, fillable=fillable).replace("FOR UPDATE", "")

    monkeypatch.setattr(images_of.Images, "read", unlocked)
    await users(db15, rows=300)
    await a_word_while_we_wait(db15)
    assert await db15.sql("SELECT phone, seen FROM users WHERE id = 100") == [("was 100", 1)]


async def a_word_while_we_wait(db: Database) -> None:
    """Row 100 is written by somebody else while a batch waits for it; then everything is brought back."""
    holder = await db.foreign("holder", autocommit=False)
    await holder.execute("UPDATE users SET phone = 'theirs', seen = 1 WHERE id = 100")
    running = asyncio.create_task(fill(db, replace(UNDO, lock_timeout_ms=10_000)))
    await wait_for(db, WORKER_WAITS)
    await holder.commit()
    assert (await running).outcome is State.DONE
    returned = await back(db)
    assert (returned.rows, returned.changed) == (200, 0)


async def test_a_row_that_is_pending_again_keeps_what_was_there_first_unless_others_wrote_it(db: Database) -> None:
    """Row 1 is filled twice with nobody in between, row 4 after a word of the application's."""
    await users(db, rows=6)
    scene = Scene()
    scene.react = lambda p: scene.control.stop() if p.batches == 1 else None
    assert (await fill(db, scene=scene)).rows == 4
    await db.sql(
        "UPDATE users SET legacy = 'newer' WHERE id = 1",
        "UPDATE users SET phone = 'theirs' WHERE id = 4",
    )
    assert (await fill(db)).rows == 6  # four, and two of them again
    assert (await back(db)).rows == 4
    assert await db.sql("SELECT id, phone FROM users WHERE id IN (1, 4) ORDER BY id") == [(1, "was 1"), (4, "theirs")]


async def test_a_poison_row_ends_the_backfill_and_what_stands_before_it_is_brought_back(db: Database) -> None:
    before = await users(db)
    await db.sql("ALTER TABLE users ADD CHECK (phone <> 'l4000')")
    with pytest.raises(DbwatchError, match="violates check constraint"):
        await fill(db)
    [(rows, n)] = await db.sql("SELECT rows_done, (SELECT count(*) FROM dbwatch.before_1) FROM dbwatch.backfill")
    assert 0 < rows == n < 4000
    assert (await back(db)).rows == rows
    assert await hashed(db) == before


async def test_a_way_back_that_was_taken_over_stops_and_the_next_one_goes_on(db: Database) -> None:
    before = await users(db)
    window = uuid4()
    await db.sql(WINDOW.format(window, 1))
    found = await planned(db.connector, UNDO)
    await Backfill(db.connector, found, clock=SystemClock(), fence=Fence(window, 1), thresholds=QUICK).run()
    scene = Scene()
    scene.react = lambda p: scene.control.pause() if len(p.history) == 2 else None
    sleeping = asyncio.create_task(back(db, scene, fence=Fence(window, 1)))
    await scene.until(lambda p: p.state is State.PAUSED)
    connection = await db.foreign("journal", autocommit=False)
    assert await journal.raise_epoch(connection, window, "lin@b", timedelta(seconds=15)) == 2
    await connection.commit()
    scene.react = lambda _: None
    scene.control.resume()
    with pytest.raises(Fenced):
        await sleeping
    [(so_far,)] = await db.sql("SELECT restored FROM dbwatch.backfill")
    assert 0 < so_far < 4000
    with pytest.raises(Fenced):
        await back(db, fence=Fence(window, 1))
    assert (await back(db, fence=Fence(window, 2))).rows == 4000
    assert await hashed(db) == before


async def test_nobody_fills_while_data_goes_back_and_nobody_brings_back_while_it_fills(db18: Database) -> None:
    await users(db18)
    scene = Scene()
    scene.react = lambda p: scene.control.pause() if p.batches == 2 else None
    filling = asyncio.create_task(fill(db18, scene=scene))
    await scene.until(lambda p: p.state is State.PAUSED)
    with pytest.raises(Refused, match="at work already"):
        await back(db18)
    scene.control.stop()
    await filling
    scene = Scene()
    scene.react = lambda p: scene.control.stop() if len(p.history) == 1 else None
    returned = await back(db18, scene)
    assert (returned.outcome, returned.note) == (State.STOPPED, "stopped; it goes on from here")
    with pytest.raises(Refused, match="is being brought back"):
        await fill(db18)
    done = await back(db18)
    assert done.outcome is State.DONE
    again = await back(db18)
    assert (again.rows, again.note) == (done.rows, "")
    assert (await fill(db18)).rows == 4000  # a new one, for the old one's rows are as they were


async def test_what_was_begun_without_undo_is_not_gone_on_with_as_if_it_had_images(db18: Database) -> None:
    await users(db18)
    scene = Scene()
    scene.react = lambda p: scene.control.stop() if p.batches == 2 else None
    await fill(db18, replace(UNDO, undo=False), scene)
    with pytest.raises(Refused, match="was begun without undo"):
        await fill(db18)
    await fill(db18, replace(UNDO, undo=False))


async def test_images_are_made_with_the_least_privileges_and_shared_with_whoever_may_take_over(
    db18: Database,
) -> None:
    before = await users(db18)
    worker, other = f"worker_{db18.name}", f"other_{db18.name}"
    grants = [
        f"CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE ON users TO {role}; GRANT USAGE ON SCHEMA dbwatch TO {role};"
        f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA dbwatch TO {role}"
        for role in (worker, other)
    ]
    await db18.sql(*grants)
    try:
        connector = Connector(db18.dsn_as(worker))
        with pytest.raises(Refused, match=f"GRANT USAGE, CREATE ON SCHEMA dbwatch TO {worker}"):
            await planned(connector, UNDO)
        await db18.sql(f"GRANT CREATE ON SCHEMA dbwatch TO {worker}")
        found = await planned(connector, UNDO)
        await Backfill(connector, found, clock=SystemClock(), thresholds=QUICK).run()
        session = await Connector(db18.dsn_as(other)).open(Role.JOURNAL)
        assert (await rights.look(session)).may_write
        await session.close()
        returned = await back(db18, connector=Connector(db18.dsn_as(other)))
        assert "could not be dropped: must be owner of table before_1 (42501); DROP TABLE" in returned.note
        assert await hashed(db18) == before
    finally:
        await db18.sql(f"DROP OWNED BY {worker}, {other}", f"DROP ROLE {worker}, {other}")


@pytest.mark.parametrize("restart", ["immediate", "fast"])
async def test_a_server_that_restarts_while_data_goes_back_costs_time_only(
    own_server: OwnServers, restart: str
) -> None:
    server = await own_server(18)
    db = await own_server.database(server)
    before = await users(db)
    await fill(db)
    scene = Scene()
    running = asyncio.create_task(back(db, scene))
    await scene.until(lambda p: len(p.history) == 2)
    await server.restart(restart)
    assert (await running).rows == 4000
    assert await hashed(db) == before


async def test_a_server_that_forgot_the_claim_is_given_new_images(db18: Database) -> None:
    """As a failover does that lost the claim, the rows and the images: all three go back to nothing at once."""
    before = await users(db18)
    scene = Scene()
    scene.react = lambda p: scene.control.pause() if p.batches == 2 else None
    filling = asyncio.create_task(fill(db18, scene=scene))
    paused = await scene.until(lambda p: p.state is State.PAUSED)
    assert paused.worker is not None
    await db18.sql(
        (await images(db18)).kept_in.by_hand(),
        "DELETE FROM dbwatch.backfill",
        "DROP TABLE dbwatch.before_1",
        f"SELECT pg_terminate_backend({paused.worker.pid}, 5000)",
    )
    scene.react = lambda _: None
    scene.control.resume()
    assert (await filling).rows == 4000
    assert await tables_of_images(db18) == [("before_2",)]
    assert (await back(db18)).rows == 4000
    assert await hashed(db18) == before


async def restore_elsewhere(dsn: str) -> asyncio.subprocess.Process:
    """A way back in a process of its own, to be killed. It prints a line per batch."""
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ELSEWHERE, dsn, stdout=asyncio.subprocess.PIPE, env=path
    )


_ELSEWHERE = """
import asyncio, sys
from dbwatch.backfill import kept
from dbwatch.backfill.restore import Restore
from dbwatch.clock import SystemClock
from dbwatch.postgres.session import Connector, Role

async def main():
    connector = Connector(sys.argv[1])
    session = await connector.open(Role.JOURNAL)
    of = await kept.of_backfill(session, 1)
    await session.close()
    told = lambda progress: print(progress.batches, flush=True)
    print("begins", flush=True)
    await Restore(connector, of, clock=SystemClock(), progress=told, batch_time_ms=10).run()

asyncio.run(main())
"""
