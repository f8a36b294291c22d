"""Whom our work waits for, or would wait for: only those whose locks stand in its way, by the names they have."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fakefeed import session, snapshot
from jam import Jam
from servers import Database

from dbwatch.monitor.poller import poll_once
from dbwatch.monitor.samples import Lock, Snapshot, Status, TableUse, View
from dbwatch.steps.patience import needs
from dbwatch.window.blockers import in_the_way, waiting_for

REPORT, WRITER, DDL, OURS = 47110, 47311, 47312, 48213
AGES = {REPORT: 600.0, WRITER: 3.0, DDL: 2.0, OURS: 1.0}
NAMES = {REPORT: "reports", WRITER: "app", DDL: "dba", OURS: "dbwatch migrate 7/3"}


def held(pid: int, mode: str, target: str = "users", gid: str = "") -> Lock:
    return Lock(pid, "relation", target, target, mode, True, None, gid)


def wanted(pid: int, mode: str, target: str = "users") -> Lock:
    at = snapshot(761).at
    assert at is not None
    return Lock(pid, "relation", target, target, mode, False, at - timedelta(seconds=AGES[pid]))


def seen(*locks: Lock, tables: tuple[str, ...] = ("public.users",)) -> Snapshot:
    """A poll of the four sessions with *locks*, in a database that has *tables*."""
    polled = snapshot(761)
    assert polled.at is not None
    rows = tuple(session(pid, name, "", at=polled.at, age=AGES[pid]) for pid, name in NAMES.items())
    spelled = (name.split(".") for name in tables)
    uses = tuple(TableUse(n, s, name, 0, 0, 0, 0, 0, None, None, 0) for n, (s, name) in enumerate(spelled))

    def view(rows: tuple[Any, ...]) -> View[Any]:
        return View(Status.OK, "", polled.at, polled.taken, rows)

    return replace(polled, activity=view(rows), locks=view(locks), tables=view(uses))


def stops(statement: str, polled: Snapshot) -> list[int]:
    return [blocker.pid for blocker in in_the_way(polled, needs([statement]).relations)]


# Whom it waits for


def test_a_holder_whose_lock_does_not_conflict_is_not_waited_for() -> None:
    polled = seen(held(REPORT, "AccessShareLock"), held(WRITER, "RowExclusiveLock"), wanted(OURS, "ShareLock"))
    assert waiting_for(polled, OURS) == "ShareLock on users, held by 47311 (app, active 3.0 s)"


def test_whoever_stands_ahead_in_the_queue_is_told_as_such() -> None:
    polled = seen(held(REPORT, "AccessShareLock"), wanted(DDL, "AccessExclusiveLock"), wanted(OURS, "RowExclusiveLock"))
    assert waiting_for(polled, OURS) == "RowExclusiveLock on users, behind 47312 (dba, active 2.0 s)"


def test_a_prepared_transaction_is_waited_for_under_its_name() -> None:
    polled = seen(held(0, "AccessExclusiveLock", gid="transfer 7"), wanted(OURS, "RowExclusiveLock"))
    assert waiting_for(polled, OURS) == "RowExclusiveLock on users, held by prepared transaction transfer 7"


def test_a_holder_that_has_gone_is_not_invented() -> None:
    assert waiting_for(seen(wanted(OURS, "ShareLock")), OURS) == (
        "ShareLock on users, held by a session that is not to be seen"
    )
    assert waiting_for(seen(held(REPORT, "AccessShareLock")), OURS) == ""


async def test_an_index_build_waits_for_the_writer_and_not_for_the_older_report(db: Database) -> None:
    await db.sql("CREATE TABLE users (id int PRIMARY KEY, email text)", "INSERT INTO users VALUES (1, 'a')")
    jam = Jam(db)
    try:
        await jam.holds("reports", "SELECT * FROM users")
        writer = await jam.holds("app-7", "UPDATE users SET email = 'b'")
        builder = await jam.waits("dba", "CREATE INDEX later ON users (email)")
        told = waiting_for(await poll_once(db.connector), builder)
    finally:
        await jam.close()
    assert told.startswith(f"ShareLock on users, held by {writer} (app-7, idle in transaction")
    assert "reports" not in told


# Whom it would wait for


@pytest.mark.parametrize(
    ("statement", "pids"),
    [
        ("CREATE INDEX i ON users (email)", [WRITER]),
        ("ALTER TABLE users ADD note text", [REPORT, WRITER]),
        ("ALTER TABLE users VALIDATE CONSTRAINT c", []),
        ("UPDATE users SET email = ''", []),
    ],
)
def test_only_a_lock_that_conflicts_with_the_statements_own_is_in_its_way(statement: str, pids: list[int]) -> None:
    assert stops(statement, seen(held(REPORT, "AccessShareLock"), held(WRITER, "RowExclusiveLock"))) == pids


@pytest.mark.parametrize(
    ("named", "pids"),
    [("users", [REPORT]), ("public.users", [REPORT]), ("audit.users", [WRITER]), ('"Users"', []),
     ('audit."Odd.Table"', [DDL])],
)  # fmt: skip
def test_a_table_of_the_same_name_in_another_schema_is_another_table(named: str, pids: list[int]) -> None:
    polled = seen(
        held(REPORT, "AccessShareLock", "users"),
        held(WRITER, "AccessShareLock", "audit.users"),
        held(DDL, "AccessShareLock", 'audit."Odd.Table"'),
        tables=("public.users", "audit.users"),
    )
    assert stops(f"ALTER TABLE {named} ADD note text", polled) == pids


def test_a_name_without_a_schema_means_the_only_table_of_that_name() -> None:
    shop = seen(held(WRITER, "AccessShareLock", "shop.users"), tables=("shop.users",))
    assert stops("ALTER TABLE users ADD note text", shop) == [WRITER]
    both = seen(held(WRITER, "AccessShareLock", "shop.users"), tables=("shop.users", "public.users"))
    assert stops("ALTER TABLE users ADD note text", both) == []


def test_of_what_a_session_holds_the_table_is_told_and_not_its_index() -> None:
    polled = seen(held(REPORT, "AccessShareLock", "users_phone"), held(REPORT, "AccessShareLock", "users"))
    relations = needs(["DROP INDEX users_phone", "ALTER TABLE users DROP COLUMN phone"]).relations
    assert [(one.pid, one.relation) for one in in_the_way(polled, relations)] == [(REPORT, "users")]


def test_our_own_locks_are_in_nobodys_way() -> None:
    assert stops("ALTER TABLE users ADD note text", seen(held(OURS, "AccessExclusiveLock"))) == []
