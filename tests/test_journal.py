"""The journal: appended by deciding on the newest state, chained, mirrored, never written twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from proxy import FaultProxy
from servers import Database
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from dbwatch.clock import SystemClock
from dbwatch.errors import ConnectionLost, Fenced, Refused, ServerSilent
from dbwatch.journal import SCHEMA, chain, rows
from dbwatch.journal import events as ev
from dbwatch.journal import store as journal
from dbwatch.journal.chain import Event
from dbwatch.journal.fold import StepStatus, WindowState, fold
from dbwatch.journal.mirror import Mirror
from dbwatch.journal.schema import ensure, present
from dbwatch.journal.store import Opening, Store
from dbwatch.journal.tables import metadata
from dbwatch.postgres.session import Connector, Role

OPENED = ev.WindowOpened("users.phone", "shop", ["9a20"], "sha", "digest")


async def opened(connector: Connector, folder: Path, actor: str = "wei@a") -> Store:
    await ensure(connector)
    return await journal.open_window(connector, SystemClock(), actor, Opening(OPENED, "title = ''", "{}", "{}"), folder)


async def joined(connector: Connector, folder: Path, store: Store, actor: str = "lin@b") -> Store:
    other = Store(connector, SystemClock(), actor, store.window, Mirror(folder, store.window))
    await other.load()
    return other


async def test_the_schema_is_made_once_even_by_two_at_a_time(db: Database) -> None:
    await asyncio.gather(ensure(db.connector), ensure(db.connector))
    session = await db.connector.open(Role.JOURNAL)
    assert await present(session)
    await session.close()


async def test_the_migrations_make_exactly_the_tables_that_the_code_knows(db18: Database) -> None:
    await ensure(db18.connector)

    def differences() -> list[Any]:
        engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(db18.dsn), poolclass=NullPool)
        with engine.connect() as connection:
            options = {
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
                "version_table_schema": SCHEMA,
                "compare_server_default": True,
            }
            return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    assert await asyncio.to_thread(differences) == []


async def test_a_window_opens_once_in_a_database(db18: Database, tmp_path: Path) -> None:
    store = await opened(db18.connector, tmp_path)
    with pytest.raises(Refused, match="another window is open"):
        await opened(db18.connector, tmp_path)
    assert store.state.open
    assert store.state.start_heads == ("9a20",)
    await store.close()


async def test_two_who_append_at_once_decide_one_after_the_other(db18: Database, tmp_path: Path) -> None:
    wei = await opened(db18.connector, tmp_path / "a")
    lin = await joined(db18.connector, tmp_path / "b", wei)

    def start(state: WindowState) -> Sequence[ev.Fact]:
        return [] if state.step("add").status is StepStatus.RUNNING else [ev.StepStarted("add", 1)]

    await asyncio.gather(wei.append(start), lin.append(start, fenced=False))
    await wei.refresh()
    await lin.refresh()
    started = [e for e in wei.events if isinstance(e.fact, ev.StepStarted)]
    assert len(started) == 1
    assert wei.state == lin.state
    assert chain.broken_link(list(wei.events)) is None
    await asyncio.gather(wei.close(), lin.close())


async def test_a_take_over_fences_the_old_driver(db18: Database, tmp_path: Path) -> None:
    wei = await opened(db18.connector, tmp_path / "a")
    lin = await joined(db18.connector, tmp_path / "b", wei)
    fence = await lin.take("wei left")
    assert fence.epoch == 2
    with pytest.raises(Fenced):
        await wei.append(lambda _: [ev.StepStarted("add", 1)])
    with pytest.raises(Fenced):
        await wei.renew()
    await lin.renew()
    await lin.refresh()
    assert [chain.kind_of(e.fact) for e in lin.events] == ["window.opened", "driver.took"]
    await asyncio.gather(wei.close(), lin.close())


async def test_an_edited_event_breaks_the_chain(db18: Database, tmp_path: Path) -> None:
    store = await opened(db18.connector, tmp_path)
    await store.append(lambda _: [ev.Noted("one"), ev.Noted("two"), ev.Noted("three")])
    session = await db18.connector.open(Role.JOURNAL)
    assert chain.broken_link(await rows.read_events(session, store.window)) is None
    await session.execute("""UPDATE dbwatch.event SET body = '{"text":"TWO"}' WHERE seq = 3""")
    assert chain.broken_link(await rows.read_events(session, store.window)) == 3
    await asyncio.gather(session.close(), store.close())


async def test_an_edit_of_the_journal_is_told_once_by_whoever_drives_next(db18: Database, tmp_path: Path) -> None:
    store = await opened(db18.connector, tmp_path)
    await store.append(lambda _: [ev.Noted("one"), ev.Noted("two"), ev.Noted("three")])
    await db18.sql("""UPDATE dbwatch.event SET body = '{"text":"TWO"}' WHERE seq = 3""")
    await store.close()
    for _ in range(2):
        store = await joined(db18.connector, tmp_path, store, "wei@a")
        assert store.broken == 3
        await store.take("started again")
        await store.tell_gap()
        await store.close()
    assert [e.fact for e in store.events if isinstance(e.fact, ev.JournalBroken)] == [ev.JournalBroken(3)]
    assert store.state.broken == 3


async def test_a_line_that_was_written_by_hand_is_told_as_soon_as_it_is_read(db18: Database, tmp_path: Path) -> None:
    store = await opened(db18.connector, tmp_path)
    await db18.sql(
        "INSERT INTO dbwatch.event (window_id, seq, at, actor, epoch, kind, body, prev_hash, hash)"
        " SELECT id, 2, now(), 'lin@b', 1, 'note', '{\"text\":\"trust me\"}', head_hash, 'x' FROM dbwatch.window",
        "UPDATE dbwatch.window SET last_seq = 2, head_hash = 'x'",
    )
    await store.refresh()
    assert store.broken == 2
    assert [e.fact for e in store.events[1:]] == [ev.Noted("trust me"), ev.JournalBroken(2)]
    await store.append(lambda _: [ev.Noted("and on")])
    assert store.state.seq == 4
    await store.close()


async def test_what_the_table_cannot_take_waits_in_the_mirror(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(db18.dsn)
    through = Connector(proxy.dsn)
    store = await opened(through, tmp_path)
    proxy.stall()
    await store.record(ev.Noted("while the server was silent"), within=0.3)
    assert store.trouble
    assert store.state.seq == 2, "the state shows it at once"
    again = Mirror(tmp_path, store.window)
    assert [p.fact for p in again.pending] == [ev.Noted("while the server was silent")]
    proxy.resume()
    await store.append(lambda _: [ev.Noted("after")])
    assert [getattr(e.fact, "text", "") for e in store.events[1:]] == ["while the server was silent", "after"]
    assert not store.trouble
    assert Mirror(tmp_path, store.window).pending == []
    await store.close()


async def test_a_pending_fact_is_appended_once_though_its_driver_died_in_between(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(db18.dsn)
    store = await opened(Connector(proxy.dsn), tmp_path)
    proxy.stall()
    await store.record(ev.Noted("lost?"), within=0.3)
    await store.close()
    for _ in range(2):
        next_one = await joined(db18.connector, tmp_path, store, "wei@a")
        await next_one.take("started again")
        assert [e.fact for e in next_one.events if isinstance(e.fact, ev.Noted)] == [ev.Noted("lost?")]
        await next_one.close()


async def test_a_lost_answer_to_the_commit_is_not_a_second_event(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(db18.dsn)
    store = await opened(Connector(proxy.dsn), tmp_path)
    proxy.drop_answer_to(b"COMMIT")
    try:
        await store.append(lambda _: [ev.Noted("once")], within=1.0)
    except (ConnectionLost, ServerSilent):
        proxy.resume()
        await store.refresh()
    assert [e.fact for e in store.events[1:]] == [ev.Noted("once")]
    await store.close()


async def test_a_table_behind_the_mirror_is_said(db18: Database, tmp_path: Path) -> None:
    store = await opened(db18.connector, tmp_path)
    await store.append(lambda _: [ev.Noted("one"), ev.Noted("two")])
    session = await db18.connector.open(Role.JOURNAL)
    await session.execute("DELETE FROM dbwatch.event WHERE seq = 3")
    await session.execute(
        "UPDATE dbwatch.window SET last_seq = 2, head_hash = (SELECT hash FROM dbwatch.event WHERE seq = 2)"
    )
    again = await joined(db18.connector, tmp_path, store, "wei@a")
    await again.take("started again")
    await again.tell_gap()
    assert again.state.rewound
    assert [e.fact for e in again.events if isinstance(e.fact, ev.JournalRewound)] == [ev.JournalRewound(3, 2)]
    await store.refresh()
    assert store.state.rewound, "one who was there all the time sees it too"
    await asyncio.gather(session.close(), store.close(), again.close())


def sample(cls: type[ev.Fact]) -> ev.Fact:
    values: dict[str, Any] = {
        "str": "x\x1b[2J",
        "int": 7,
        "int | None": 7,
        "float": 0.1,
        "bool": True,
        "list[str]": ["x"],
        "list[str] | None": ["x"],
        "list[dict[str, Any]]": [{"a": 1}],
        "dict[str, Any] | None": {"a": 1},
    }
    return cls(**{f.name: values[str(f.type)] for f in fields(cls)})


@pytest.mark.parametrize("cls", list(ev.KNOWN.values()), ids=lambda c: c.kind)
def test_every_kind_of_event_survives_its_text(cls: type[ev.Fact]) -> None:
    fact = sample(cls)
    assert chain.decode(cls.kind, chain.encode(fact)) == fact


def test_a_kind_from_a_newer_version_is_kept_as_it_is() -> None:
    fact = chain.decode("step.levitated", '{"step":"add"}')
    assert chain.kind_of(fact) == "step.levitated"
    assert chain.encode(fact) == '{"step":"add"}'


def test_the_state_is_the_fold_of_the_events() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    facts: list[ev.Fact] = [
        OPENED,
        ev.StepStarted("add", 1, ["9a20"]),
        ev.StepFailed("add", 1, "lock timeout", 2.0, again=True),
        ev.StepStarted("add", 2, ["9a20"]),
        ev.StepDone("add", 2, "at 3f1c", 3.0, ["3f1c"]),
        ev.AbortConfirmed([{"kind": "fence"}, {"kind": "downgrade", "step": "add"}], 1.0),
        ev.AbortActionStarted(2),
        ev.AbortActionDone(2, "at 9a20", 1.0),
        ev.AbortFinished(equal=True, differences=[], seconds=4.0),
        ev.WindowClosed("aborted"),
    ]
    events: list[Event] = []
    for seq, fact in enumerate(facts, 1):
        events.append(
            chain.make(fact, seq=seq, at=at, actor="wei@a", epoch=1, prev_hash=events[-1].hash if events else "")
        )
    state = fold(events)
    step = state.step("add")
    assert (step.status, step.attempt, step.heads_before, step.heads_after) == (
        StepStatus.DONE,
        2,
        ("9a20",),
        ("3f1c",),
    )
    assert step.undone
    assert not state.open
    assert state.abort is not None
    assert state.abort.equal
    assert fold(events[4:], fold(events[:4])) == state, "folding in two parts is folding"
    assert replace(state) == state
