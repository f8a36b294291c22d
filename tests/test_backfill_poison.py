"""Rows that cannot take their value: each alone is set aside, with the cursor's move past it; all others are done once.

The oracle is tests/ledger.py: what is in quarantine was never set, everything else exactly once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from ledger import ONCE, Ledger, run_elsewhere
from proxy import FaultProxy
from servers import Database

from dbwatch.backfill import batch, retrying
from dbwatch.backfill.hunt import Hunt
from dbwatch.backfill.progress import State
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.walk import Walk
from dbwatch.errors import DbwatchError
from dbwatch.journal import schema
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector

STRIPED = replace(ONCE, walk=Walk.STRIPES)
KEPT = replace(ONCE, undo=True)
REFUSE = "ALTER TABLE t ADD CONSTRAINT poisoned CHECK (v = 0 OR id NOT IN ({})) NOT VALID"


async def poisoned(db: Database, keys: Iterable[int], rows: int = 3000) -> Ledger:
    """A ledger whose rows under *keys* refuse to be set."""
    ledger = await Ledger.make(db, f"SELECT generate_series(1, {rows})")
    await db.sql(REFUSE.format(", ".join(map(str, keys))))
    return ledger


async def held(db: Database) -> list[tuple[Any, ...]]:
    """Key and SQLSTATE of what is in quarantine."""
    return await db.sql("SELECT key, sqlstate FROM dbwatch.quarantine ORDER BY length(key), key")


def those(keys: Iterable[int], state: str = "23514") -> list[tuple[str, str]]:
    return [(f'["{key}"]', state) for key in keys]


async def never_set(ledger: Ledger) -> list[tuple[str, str]]:
    """What the oracle finds violated, as `held` would tell it; twice set is told as such."""
    found = await ledger.violations()
    assert all((times, value) == (0, 0) for _, times, value in found), found
    return those(sorted(int(key.strip("()")) for key, _, _ in found))


PLACES = {
    "the first": [1],
    "the last": [3000],
    "in the middle": [1777],
    "two neighbours": [700, 701],
    "the ends": [1, 3000],
    "a stretch": [*range(1200, 1231)],
    "here and there": [*range(40, 3000, 97)],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spec", [ONCE, STRIPED, KEPT], ids=["keyset", "stripes", "undo"])
async def test_a_poison_row_is_set_aside_and_all_others_are_set_once(db18: Database, place: str, spec: Spec) -> None:
    keys = PLACES[place]
    ledger = await poisoned(db18, keys)
    result = await ledger.run(spec)
    assert (result.outcome, result.rows) == (State.DONE, 3000 - len(keys))
    assert (result.quarantined, result.pending) == (len(keys), len(keys))
    assert f"(23514: {len(keys)})" in result.note
    assert await held(db18) == those(keys) == await never_set(ledger)
    if spec.undo:
        assert await db18.sql("SELECT count(*) FROM dbwatch.before_1") == [(3000 - len(keys),)]


async def test_it_is_so_on_15_with_undo_in_stripes_too(db15: Database) -> None:
    ledger = await poisoned(db15, keys := [5, 6, 7, 2222])
    assert (await ledger.run(replace(KEPT, walk=Walk.STRIPES))).quarantined == 4
    assert await held(db15) == those(keys) == await never_set(ledger)
    assert await db15.sql("SELECT count(*) FROM dbwatch.before_1") == [(2996,)]


async def test_few_batches_fail_for_one_row(db18: Database) -> None:
    ledger = await poisoned(db18, [1777])
    backfill, scene = await ledger.backfill()
    result = await backfill.run()
    looked = [p for p in scene.told if "looks for the row" in p.reason]
    assert 5 <= len(looked) <= 40
    assert all("violates check constraint" in p.reason for p in looked)
    assert scene.told[-1].quarantined == 1
    assert result.batches < 100  # those of the walk are among them: the smaller, the slower the machine is just then


async def test_a_key_of_two_columns_is_kept_whole(db18: Database) -> None:
    ledger = await Ledger.make(
        db18,
        "SELECT i % 7, 'ä\" \\ ' || chr(9) || i FROM generate_series(1, 2000) AS i",
        key="a int, b text, PRIMARY KEY (a, b)",
        columns="a, b",
    )
    await db18.sql("ALTER TABLE t ADD CHECK (v = 0 OR b NOT LIKE '%777') NOT VALID")
    result = await ledger.run()
    assert (result.rows, result.quarantined) == (1998, 2)
    assert await held(db18) == [
        ('["0","ä\\" \\\\ \\t777"]', "23514"),
        ('["6","ä\\" \\\\ \\t1777"]', "23514"),
    ]
    assert len(await ledger.violations()) == 2
    await db18.sql("ALTER TABLE t DROP CONSTRAINT t_check")
    assert (await retrying.retry(db18.connector, 1)).filled == 2
    assert await ledger.violations() == []


async def spoil(db: Database, how: str) -> Spec:
    """A table t of 3000 rows of which 77 and 1900 are poison in that way; what fills it."""
    await db.sql(
        "CREATE TABLE t (id int PRIMARY KEY, old text, v text)",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 3000) AS i",
    )
    await schema.ensure(db.connector)
    fill = Spec("t", "v = old", "v IS NULL", batch_time_ms=10)
    ways = {
        "NOT NULL": ["ALTER TABLE t ALTER v SET DEFAULT ''", "UPDATE t SET old = NULL, v = '?' WHERE {bad}",
                     "UPDATE t SET v = '?'", "ALTER TABLE t ALTER v SET NOT NULL"],
        "a domain": ["CREATE DOMAIN short AS text CHECK (length(VALUE) < 9)", "ALTER TABLE t ALTER v TYPE short",
                     "UPDATE t SET old = repeat('x', 20) WHERE {bad}"],
        "a trigger": ["CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id IN (77, 1900) THEN"
                      " RAISE 'not \x1b[31mhim\u202e'; END IF; RETURN NEW; END $$",
                      "CREATE TRIGGER no BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no()"],
        "a trigger's own words": ["CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                      " IF NEW.id IN (77, 1900) THEN RAISE 'no' USING ERRCODE = 'SHOP1'; END IF; RETURN NEW; END $$",
                      "CREATE TRIGGER no BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no()"],
        "unique": ["CREATE UNIQUE INDEX ON t (v)", "UPDATE t SET old = '5' WHERE {bad}"],
        "a cast": ["ALTER TABLE t ALTER v TYPE int USING NULL", "UPDATE t SET old = 'x' WHERE {bad}"],
        "a division": ["ALTER TABLE t ALTER v TYPE int USING NULL", "UPDATE t SET old = '0' WHERE {bad}"],
        "too large for an index": ["CREATE INDEX ON t (v)", "ALTER TABLE t ALTER v SET STORAGE EXTERNAL",
                     "UPDATE t SET old = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 200) n)"
                     " WHERE {bad}"],
        "a constraint at COMMIT": [
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id IN (77, 1900) THEN"
            " RAISE 'too late' USING ERRCODE = 'check_violation'; END IF; RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER no AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION no()"],
        "a foreign key at COMMIT": ["CREATE TABLE u (id text PRIMARY KEY)", "INSERT INTO u SELECT id FROM t",
            "UPDATE t SET old = '99999' || id WHERE {bad}",
            "ALTER TABLE t ADD FOREIGN KEY (v) REFERENCES u DEFERRABLE INITIALLY DEFERRED"],
    }  # fmt: skip
    await db.sql(*(statement.replace("{bad}", "id IN (77, 1900)") for statement in ways[how]))
    if how == "NOT NULL":
        return replace(fill, where="v = '?'")
    if how == "a cast":
        return replace(fill, set="v = old::int")
    return replace(fill, set="v = 1000 / old::int") if how == "a division" else fill


WAYS = {
    "NOT NULL": "23502",
    "a domain": "23514",
    "a trigger": "P0001",
    "a trigger's own words": "SHOP1",
    "unique": "23505",
    "a cast": "22P02",
    "a division": "22012",
    "too large for an index": "54000",
    "a constraint at COMMIT": "23514",
    "a foreign key at COMMIT": "23503",
}


@pytest.mark.parametrize("how", WAYS)
async def test_whatever_the_server_refuses_is_quarantined_with_its_sqlstate(db18: Database, how: str) -> None:
    spec = await spoil(db18, how)
    result = await Ledger(db18).run(spec)
    assert (result.outcome, result.rows, result.pending, result.quarantined) == (State.DONE, 2998, 2, 2)
    assert await held(db18) == those([77, 1900], WAYS[how])
    if how == "a trigger":
        [(message,)] = await db18.sql("SELECT DISTINCT message FROM dbwatch.quarantine")
        assert message == "not ␛[31mhim·"


async def test_the_budget_ends_it_and_what_was_quarantined_stays_listed(db18: Database) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 3000)")
    await db18.sql("ALTER TABLE t ADD CHECK (v = 0) NOT VALID")
    spec = replace(ONCE, quarantine=7)
    with pytest.raises(DbwatchError, match=r'than the 7 that .* 23514: 7 in quarantine; and then \["8"\]: new row'):
        await ledger.run(spec)
    assert await held(db18) == those(range(1, 8))
    assert (await ledger.row())[0] == "failed"
    with pytest.raises(DbwatchError, match="than the 7 that"):  # a further run counts on
        await ledger.run(spec)
    assert await held(db18) == those(range(1, 8))
    with pytest.raises(DbwatchError, match="than the 9 that"):
        await ledger.run(replace(spec, quarantine=9))
    assert await held(db18) == those(range(1, 10))
    await db18.sql("ALTER TABLE t DROP CONSTRAINT t_v_check")
    result = await ledger.run(spec)
    assert (result.rows, result.quarantined) == (2991, 9)
    assert await never_set(ledger) == those(range(1, 10))


async def test_without_a_budget_the_first_poison_row_ends_it(db18: Database) -> None:
    ledger = await poisoned(db18, [1777])
    with pytest.raises(DbwatchError, match=r"failed: new row .* violates check constraint"):
        await ledger.run(replace(ONCE, quarantine=0))
    assert await held(db18) == []


async def test_what_fails_without_any_row_is_no_rows_fault(db18: Database) -> None:
    ledger = await Ledger.make(db18)
    await db18.sql(
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$",
        "CREATE TRIGGER never BEFORE UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION never()",
    )
    with pytest.raises(DbwatchError, match="failed: not today"):
        await ledger.run()
    assert await held(db18) == []


async def test_a_poison_that_heals_while_it_is_hunted_is_filled(db18: Database) -> None:
    ledger = await poisoned(db18, [1777])
    backfill, scene = await ledger.backfill()

    def heal(progress: object) -> None:
        if "looks for the row" in scene.told[-1].reason:
            scene.react = lambda _: None
            with psycopg.connect(db18.dsn, autocommit=True) as connection:
                connection.execute("ALTER TABLE t DROP CONSTRAINT poisoned")

    scene.react = heal
    result = await backfill.run()
    assert (result.rows, result.quarantined, result.note) == (3000, 0, "")
    assert await ledger.violations() == []


@pytest.mark.parametrize("spec", [ONCE, STRIPED, KEPT], ids=["keyset", "stripes", "undo"])
async def test_cut_off_again_and_again_while_it_hunts_it_loses_and_repeats_nothing(db18: Database, spec: Spec) -> None:
    """Its backend is ended at every third step, in the middle of halving, and before and after a row is set aside."""
    ledger = await poisoned(db18, keys := [1, 2, 900, 2500, 3000])
    backfill, scene = await ledger.backfill(spec)
    cuts = 0

    def cut(progress: object) -> None:
        nonlocal cuts
        told = scene.told[-1]
        if len(scene.told) % 3 == 0 and told.worker is not None and cuts < 25:
            cuts += 1
            with psycopg.connect(db18.dsn, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [told.worker.pid])

    scene.react = cut
    result = await asyncio.wait_for(backfill.run(), 40)
    assert cuts > 10
    assert (result.rows, result.quarantined) == (2995, 5)
    assert await held(db18) == those(keys) == await never_set(ledger)


async def test_killed_at_any_moment_of_a_hunt_another_process_goes_on(db18: Database) -> None:
    ledger = await poisoned(db18, keys := [*range(1, 3000, 200)])
    moments = random.Random(5)
    for _ in range(3):
        process = await run_elsewhere(db18.dsn, STRIPED)
        assert process.stdout is not None
        for _ in range(moments.randint(4, 25)):
            await process.stdout.readline()
        process.kill()
        await process.wait()
    assert await held(db18)
    assert (await ledger.run(STRIPED)).quarantined == len(keys)
    assert await held(db18) == those(keys) == await never_set(ledger)


async def test_stopped_in_the_middle_of_a_hunt_the_next_run_goes_on(db18: Database) -> None:
    ledger = await poisoned(db18, keys := [*range(200, 215), 2900])
    stops = 0
    while True:
        backfill, scene = await ledger.backfill(replace(ONCE, walk=Walk.STRIPES if stops % 2 else Walk.KEYSET))
        scene.react = lambda _, scene=scene: scene.control.stop() if len(scene.told) > 12 else None
        result = await backfill.run()
        if result.outcome is State.DONE:
            break
        stops += 1
        assert stops < 60
    assert stops > 2
    assert (result.rows, result.quarantined) == (2984, 16)
    assert await held(db18) == those(keys) == await never_set(ledger)


SET_ASIDE = b"INSERT INTO dbwatch.quarantine"


async def test_a_commit_of_the_quarantine_whose_answer_is_lost_is_not_repeated(
    db18: Database, proxy_to: FaultProxy.Factory
) -> None:
    ledger = await poisoned(db18, keys := [1777, 1778])
    proxy = await proxy_to(db18.dsn)
    ledger.connector = Connector(proxy.dsn)
    proxy.drop_answer_to(SET_ASIDE)
    backfill, scene = await ledger.backfill()
    result = await backfill.run()
    assert any("connection lost" in reason for reason in scene.reasons(State.THROTTLED))
    assert (result.rows, result.quarantined) == (2998, 2)
    assert await held(db18) == those(keys) == await never_set(ledger)


NOTHING = """SELECT %(id)s, %(key)s, %(sqlstate)s, %(message)s WHERE false"""


async def test_an_engine_whose_cursor_passes_a_row_that_is_not_set_aside_is_caught(
    db18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies between two commits: the row is neither set nor listed."""

    def forgetting(name: str, version: int) -> bytes:
        text = query(name, version).decode()
        if name != "backfill-quarantine":
            return text.encode()
        changed = text.replace("VALUES (%(id)s, %(key)s, %(sqlstate)s, %(message)s)", NOTHING)
        assert changed != text
        return changed.encode()

    monkeypatch.setattr(batch, "query", forgetting)
    ledger = await poisoned(db18, [1777])
    assert (await ledger.run()).outcome is State.DONE
    assert await held(db18) == []
    assert await never_set(ledger) == those([1777])


async def test_an_engine_that_sets_a_row_aside_before_its_cursor_passes_it_is_caught(
    db18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies between two commits, the row heals and is set, and as it is still listed it is set once more."""

    async def apart(self: batch.BatchSession, at: Any, part: object, poison: Any, timeouts: object) -> None:
        del self, part, timeouts
        await db18.sql(
            f"INSERT INTO dbwatch.quarantine VALUES ({at.id}, '{poison.key}', '23514', '')",  # noqa: S608  # ours
            "ALTER TABLE t DROP CONSTRAINT poisoned",
        )

    monkeypatch.setattr(batch.BatchSession, "set_aside", apart)
    ledger = await poisoned(db18, [1777])
    assert (await ledger.run()).rows == 3000
    assert await ledger.violations() == []
    assert (await retrying.retry(db18.connector, 1)).filled == 1
    assert [(times, value) for _, times, value in await ledger.violations()] == [(2, 2)]


# --- the final scan


PHONE = Spec("t", "v = old::int", "v IS NULL", batch_time_ms=10)


async def casts(db: Database, *bad: int, rows: int = 3000) -> Ledger:
    await db.sql(
        "CREATE TABLE t (id int PRIMARY KEY, old text, v int)",
        f"INSERT INTO t SELECT i, i FROM generate_series(1, {rows}) AS i",  # noqa: S608  # ours
        f"UPDATE t SET old = 'x' WHERE id = ANY('{{{', '.join(map(str, bad))}}}')",  # noqa: S608  # ours
    )
    await schema.ensure(db.connector)
    return Ledger(db)


async def test_the_final_scan_leaves_out_what_is_in_quarantine_and_counts_it(any_db: Database) -> None:
    """Not even whether such a row is pending can be computed: SET stands in the scan's own question."""
    ledger = await casts(any_db, 5, 2900)
    result = await ledger.run(PHONE)
    assert (result.outcome, result.rows, result.pending, result.quarantined) == (State.DONE, 2998, 2, 2)
    assert await any_db.sql("SELECT status, pending FROM dbwatch.backfill") == [("done", 2)]
    told = await ledger.run(PHONE)
    assert (told.already, told.quarantined) == (True, 2)
    assert "2 rows are in quarantine and NOT filled (22P02: 2)" in told.note


async def test_a_poison_row_written_behind_the_cursor_is_found_by_the_final_scan(db18: Database) -> None:
    ledger = await casts(db18, 2000)
    backfill, scene = await ledger.backfill(PHONE)

    def write(progress: object) -> None:
        if scene.told[-1].batches > 3:
            scene.react = lambda _: None
            with psycopg.connect(db18.dsn, autocommit=True) as connection:
                connection.execute("INSERT INTO t VALUES (-1, 'late', NULL), (0, '8', NULL)")

    scene.react = write
    result = await backfill.run()
    assert (result.outcome, result.rows, result.pending) == (State.DONE, 3000, 2)
    assert await held(db18) == [('["-1"]', "22P02"), ('["2000"]', "22P02")]
    assert await db18.sql("SELECT v FROM t WHERE id = 0") == [(8,)]


async def test_rows_that_are_pending_for_another_reason_keep_it_incomplete(db18: Database) -> None:
    ledger = await casts(db18, 2000)
    await db18.sql("UPDATE t SET old = NULL WHERE id = 3")
    result = await ledger.run(PHONE)
    assert (result.outcome, result.pending, result.quarantined) == (State.INCOMPLETE, 2, 1)
    assert "1 rows stay pending because SET leaves them so" in result.note
    assert "1 row is in quarantine" in result.note


async def test_a_row_that_was_mended_by_hand_is_pending_no_longer(db18: Database) -> None:
    ledger = await casts(db18, 40, 50)
    backfill, scene = await ledger.backfill(PHONE)

    def mend(progress: object) -> None:
        if scene.told[-1].quarantined == 2:
            scene.react = lambda _: None
            with psycopg.connect(db18.dsn, autocommit=True) as connection:
                connection.execute("UPDATE t SET v = 0 WHERE id = 40")

    scene.react = mend
    result = await backfill.run()
    assert (result.outcome, result.pending, result.quarantined) == (State.DONE, 1, 2)
    retried = await retrying.retry(db18.connector, 1)
    assert (retried.filled, retried.healed, [p.key for p in retried.left]) == (0, 1, ['["50"]'])


@pytest.mark.parametrize("bad", [set(), {0}, {511}, {3, 4, 5}, set(range(512)), set(range(0, 512, 50))])
def test_halving_finds_exactly_the_bad_keys(bad: set[int]) -> None:
    at, found, attempts, now = 0, set(), 0, Hunt()
    while at < 512:
        attempts += 1
        take = min(now.take, 512) if now.on else 512
        if not bad & set(range(at, at + take)):
            at, now = at + take, now.passed(take, 512) if now.on else now
        elif now.on and take == 1:
            found.add(at)
            at, now = at + 1, now.set_aside()
        else:
            now = now.failed(take)
    assert found == bad
    assert attempts <= 11 + 20 * len(bad)
