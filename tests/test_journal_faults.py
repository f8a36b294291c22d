"""What the journal does when its server, its disk or its driver goes: nothing is lost, doubled or mis-told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
import pytest
from proxy import FaultProxy
from servers import Database, eventually
from test_journal import OPENED, joined, opened
from windows import rewind

from dbwatch.clock import SystemClock
from dbwatch.errors import ConnectionLost, DbwatchError, Fenced, Refused, ServerSilent
from dbwatch.journal import chain, rows
from dbwatch.journal import events as ev
from dbwatch.journal import store as journal
from dbwatch.journal.chain import Event
from dbwatch.journal.fold import StepStatus, fold
from dbwatch.journal.mirror import Mirror, Pending
from dbwatch.journal.schema import ensure
from dbwatch.journal.store import Opening, Store
from dbwatch.postgres.session import Connector, Role


async def table_of(db: Database, store: Store) -> list[Event]:
    """The events as the table has them."""
    session = await db.connector.open(Role.JOURNAL)
    try:
        return await rows.read_events(session, store.window)
    finally:
        await session.close()


async def notes(db: Database, store: Store) -> Counter[str]:
    """How often each note stands in the table, whose chain has to hold."""
    events = await table_of(db, store)
    assert chain.broken_link(events) is None
    return Counter(e.fact.text for e in events if isinstance(e.fact, ev.Noted))


async def healed(store: Store) -> None:
    """Refreshes until the journal answers and holds all that waits in the mirror."""

    async def well() -> bool:
        try:
            await store.refresh(within=2.0)
        except (DbwatchError, psycopg.Error):
            return False
        return not store.mirror.pending

    await eventually(well)


# The table


async def test_a_closed_window_makes_room_for_the_next_one(db18: Database, tmp_path: Path) -> None:
    store = await opened(db18.connector, tmp_path)
    await store.append(lambda _: [ev.WindowClosed("done")])
    assert await db18.sql("SELECT outcome, closed_at IS NOT NULL FROM dbwatch.window") == [("done", True)]
    with pytest.raises(Refused, match="the window is closed"):
        await store.append(lambda _: [ev.Noted("too late")])
    await store.close()
    following = await opened(db18.connector, tmp_path)
    assert following.window != store.window
    await following.close()


async def test_a_connection_that_dies_anywhere_loses_and_doubles_nothing(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(db18.dsn)
    store = await opened(Connector(proxy.dsn), tmp_path)
    told = []
    for back_at_once in (True, False):
        for arrives in (False, True):
            for piece in range(1, 12):
                told.append(f"back {back_at_once}, arrives {arrives}, piece {piece}")
                proxy.refusing = False
                await healed(store)
                proxy.die_at(piece, arrives=arrives)
                proxy.refusing = not back_at_once
                await store.record(ev.Noted(told[-1]), within=0.5)
    proxy.refusing = False
    await healed(store)
    assert await notes(db18, store) == Counter(told)
    assert list(store.events) == await table_of(db18, store)
    await store.close()


@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("piece", range(2, 9))
async def test_whoever_takes_over_knows_whether_it_did(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory, piece: int, arrives: bool
) -> None:
    proxy = await proxy_to(db18.dsn)
    store = await opened(Connector(proxy.dsn), tmp_path)
    await store.refresh()
    proxy.die_at(piece, arrives=arrives)
    try:
        await store.take("abort", within=1.0)
    except (ConnectionLost, ServerSilent):
        await store.take("abort", within=1.0)
    await store.append(lambda _: [ev.Noted("still the driver")])
    [(epoch, driver)] = await db18.sql("SELECT epoch, driver FROM dbwatch.window")
    assert (epoch, driver) == (store.epoch, "wei@a")
    assert store.state.epoch == epoch
    assert await notes(db18, store) == Counter(["still the driver"])
    await store.close()


async def unanswered(store: Store, proxy: FaultProxy) -> None:
    """Takes the wheel: it takes effect, the answer is lost, and so is every question whether it did."""
    proxy.drop_answer_to(b"COMMIT")
    proxy.refusing = True
    with pytest.raises((ConnectionLost, ServerSilent)):
        await store.take("abort", within=1.0)
    proxy.refusing = False
    assert store.epoch == 1


async def appended(store: Store) -> None:
    await store.append(lambda _: [ev.Noted("the first thing said")])


async def recorded(store: Store) -> None:
    assert await store.record(ev.Noted("the first thing said"))


@pytest.mark.parametrize("first", [Store.renew, Store.refresh, appended, recorded])
async def test_a_wheel_that_was_taken_unheard_is_ours_whatever_is_done_first(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory, first: Callable[[Store], Awaitable[None]]
) -> None:
    proxy = await proxy_to(db18.dsn)
    store = await opened(Connector(proxy.dsn), tmp_path)
    await unanswered(store, proxy)
    await first(store)
    assert store.epoch == 2
    await store.refresh()
    assert (store.state.epoch, store.state.driver) == (2, "wei@a")
    await store.renew()
    await store.record(ev.Noted("still the driver"))
    assert (await notes(db18, store))["still the driver"] == 1
    assert [(e.epoch, e.fact) for e in store.events[1:2]] == [(2, ev.DriverTook("wei@a", "abort"))]
    await store.close()


async def test_a_wheel_that_was_taken_unheard_and_by_another_since_is_the_others(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(db18.dsn)
    wei = await opened(Connector(proxy.dsn), tmp_path / "a")
    await unanswered(wei, proxy)
    lin = await joined(db18.connector, tmp_path / "b", wei)
    await lin.take("wei is away")
    for ask in (wei.renew, lambda: appended(wei)):
        with pytest.raises(Fenced, match="somebody took the window over"):
            await ask()
    await wei.refresh()
    assert wei.state.driver == "lin@b"
    await asyncio.gather(wei.close(), lin.close())


@pytest.mark.parametrize("gone", ["ALTER SCHEMA dbwatch RENAME TO elsewhere", "DROP SCHEMA dbwatch CASCADE"])
async def test_what_happened_is_kept_though_the_journal_itself_is_gone(
    db18: Database, tmp_path: Path, gone: str
) -> None:
    store = await opened(db18.connector, tmp_path)
    await db18.sql(gone)
    await store.record(ev.StepFailed("add", 1, "the database was restored over", 1.0, again=False))
    assert store.trouble
    assert store.state.step("add").status is StepStatus.FAILED
    [kept] = Mirror(tmp_path, store.window).pending
    assert kept.fact == ev.StepFailed("add", 1, "the database was restored over", 1.0, again=False)
    await store.close()


async def test_a_window_that_the_database_lost_is_not_called_taken_over(db18: Database, tmp_path: Path) -> None:
    store = await opened(db18.connector, tmp_path)
    await store.append(lambda _: [ev.Noted("one")])
    await db18.sql("DELETE FROM dbwatch.event", "DELETE FROM dbwatch.window")
    for ask in (store.refresh, store.renew):
        with pytest.raises(DbwatchError, match="no longer in the journal") as caught:
            await ask()
        assert not isinstance(caught.value, Fenced)
    assert store.state.open, "what was known is still shown"
    await store.record(ev.Noted("two"))
    assert [p.fact for p in store.mirror.pending] == [ev.Noted("two")]
    await store.close()


# A table that goes back


def rewinds(store: Store) -> list[ev.JournalRewound]:
    return [e.fact for e in store.events if isinstance(e.fact, ev.JournalRewound)]


async def test_a_rewound_journal_is_told_once_and_mirrored_from_there_on(db18: Database, tmp_path: Path) -> None:
    store = await opened(db18.connector, tmp_path)
    await store.append(lambda _: [ev.Noted(str(n)) for n in range(8)])
    await store.close()
    await rewind(db18, 3)
    for _ in range(3):
        store = await joined(db18.connector, tmp_path, store, "wei@a")
        await store.take("started again")
        await store.tell_gap()
        await store.close()
    assert rewinds(store) == [ev.JournalRewound(9, 3)]
    last = (await table_of(db18, store))[-1]
    assert Mirror(tmp_path, store.window).head == (last.seq, last.hash)


async def test_a_journal_rewound_under_its_driver_is_told_though_the_first_look_failed(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory
) -> None:
    for piece in range(1, 7):
        proxy = await proxy_to(db18.dsn)
        store = await opened(Connector(proxy.dsn), tmp_path)
        await store.append(lambda _: [ev.Noted(str(n)) for n in range(4)])
        await rewind(db18, 2)
        proxy.die_at(piece, arrives=True)
        proxy.refusing = True
        with contextlib.suppress(DbwatchError, psycopg.Error):
            await store.refresh(within=1.0)
        assert store.state.open, "what was known is still shown"
        proxy.refusing = False
        await healed(store)
        await healed(store)
        assert rewinds(store) == [ev.JournalRewound(5, 2)]
        assert store.state.rewound
        assert chain.broken_link(await table_of(db18, store)) is None
        await store.append(lambda _: [ev.WindowClosed("failed")])
        await store.close()


async def test_a_journal_that_went_another_way_is_noticed_though_it_is_longer(db18: Database, tmp_path: Path) -> None:
    wei = await opened(db18.connector, tmp_path / "a")
    await wei.append(lambda _: [ev.Noted("one"), ev.Noted("two")])
    await rewind(db18, 1)
    lin = await joined(db18.connector, tmp_path / "b", wei)
    await lin.append(lambda _: [ev.Noted(str(n)) for n in range(5)], fenced=False)
    await wei.refresh()
    assert wei.state.rewound
    assert chain.broken_link(list(wei.events)) is None
    assert rewinds(wei) == [ev.JournalRewound(3, 6)]
    await asyncio.gather(wei.close(), lin.close())


# What comes late


async def test_what_an_old_driver_says_late_stands_in_the_journal_and_changes_nothing(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(db18.dsn)
    wei = await opened(Connector(proxy.dsn), tmp_path / "a")
    await wei.append(lambda _: [ev.StepStarted("add", 1)])
    proxy.stall()
    await wei.record(ev.StepFailed("add", 1, "the line went dead", 1.0, again=True), within=0.3)
    await wei.record(ev.AbortConfirmed([{"kind": "fence"}], 1.0), within=0.3)
    await wei.close()
    lin = await joined(db18.connector, tmp_path / "b", wei)
    await lin.take("wei is away")
    await lin.record(ev.StepFailed("add", 1, "the driver vanished", 0.0, again=True))
    await lin.append(lambda _: [ev.StepStarted("add", 2)])
    await lin.record(ev.StepDone("add", 2, "at 3f1c", 1.0, ["3f1c"]))
    await lin.close()
    wei = await joined(db18.connector, tmp_path / "a", wei, "wei@a")
    await wei.take("back again")
    assert [chain.kind_of(e.fact) for e in wei.events].count("abort.confirmed") == 1, "it is in the journal"
    assert wei.state.step("add").status is StepStatus.DONE
    assert not wei.state.aborting
    assert wei.state == fold(await table_of(db18, wei))
    await wei.close()


async def test_a_driver_fenced_out_with_unsent_events_says_so_reads_on_and_takes_the_wheel_back(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(db18.dsn)
    wei = await opened(Connector(proxy.dsn), tmp_path / "a")
    proxy.stall()
    await wei.record(ev.Noted("the line went dead"), within=0.3)
    lin = await joined(db18.connector, tmp_path / "b", wei)
    await lin.take("wei is away")
    proxy.resume()
    with pytest.raises(Fenced, match="the local copy alone has 1 of our events"):
        await wei.renew()
    await lin.append(lambda _: [ev.Noted("on my way")])
    await wei.refresh()
    assert wei.events[2].fact == ev.Noted("on my way"), "it is seen while we look on"
    assert (wei.state.driver, wei.trouble) == ("lin@b", "")
    assert await notes(db18, wei) == Counter(["on my way"])
    await wei.take("back again")
    assert await notes(db18, wei) == Counter(["on my way", "the line went dead"])
    await asyncio.gather(wei.close(), lin.close())


async def test_a_driver_that_comes_back_itself_says_what_it_could_not(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(db18.dsn)
    store = await opened(Connector(proxy.dsn), tmp_path)
    await store.append(lambda _: [ev.StepStarted("add", 1)])
    proxy.stall()
    await store.record(ev.StepDone("add", 1, "at 3f1c", 1.0, ["3f1c"]), within=0.3)
    await store.close()
    store = await joined(db18.connector, tmp_path, store, "wei@a")
    await store.take("started again")
    assert store.state.step("add").status is StepStatus.DONE
    await store.close()


# The mirror


async def test_a_half_written_line_does_not_swallow_the_next(db18: Database, tmp_path: Path) -> None:
    store = await opened(db18.connector, tmp_path)
    file = store.mirror.folder / "events.jsonl"
    with file.open("a") as cut_short:
        cut_short.write('{"seq": 2, "at": "2026-03-')
    again = Mirror(tmp_path, store.window)
    await again.keep(Pending(SystemClock().now(), "wei@a", 1, ev.Noted("after the crash")))
    assert [p.fact for p in Mirror(tmp_path, store.window).pending] == [ev.Noted("after the crash")]
    await store.close()


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\x1e", "\r", "\n", "\ufeff"])
async def test_any_character_survives_the_mirror(tmp_path: Path, db18: Database, char: str) -> None:
    store = await opened(db18.connector, tmp_path)
    await store.mirror.keep(Pending(SystemClock().now(), f"wei{char}@a", 1, ev.Noted(f"a{char}b")))
    assert [(p.actor, p.fact) for p in Mirror(tmp_path, store.window).pending] == [
        (f"wei{char}@a", ev.Noted(f"a{char}b"))
    ]
    await store.close()


async def test_a_mirror_that_cannot_be_written_is_said_and_stops_nothing(db18: Database, tmp_path: Path) -> None:
    store = await opened(db18.connector, tmp_path)
    file = store.mirror.folder / "events.jsonl"
    file.unlink()
    file.mkdir()
    await store.append(lambda _: [ev.Noted("in the table")])
    assert "local copy" in store.trouble
    file.rmdir()
    await store.append(lambda _: [ev.Noted("and now")])
    assert not store.trouble
    texts = [e.fact for e in store.events if isinstance(e.fact, ev.Noted)]
    assert texts == [ev.Noted("in the table"), ev.Noted("and now")]
    assert Mirror(tmp_path, store.window).head == (3, store.events[-1].hash)
    await store.close()


async def test_with_neither_table_nor_mirror_it_is_kept_in_mind_and_said(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(db18.dsn)
    store = await opened(Connector(proxy.dsn), tmp_path)
    file = store.mirror.folder / "events.jsonl"
    file.rename(file.with_name("away"))
    file.mkdir()
    proxy.cut()
    proxy.refusing = True
    assert not await store.record(ev.Noted("nowhere to go"), within=0.5)
    assert "local copy" in store.trouble
    assert store.events[-1].fact == ev.Noted("nowhere to go")
    file.rmdir()
    file.with_name("away").rename(file)
    assert await store.record(ev.Noted("the disk is back"), within=0.5)
    kept = [p.fact for p in Mirror(tmp_path, store.window).pending]
    assert kept == [ev.Noted("nowhere to go"), ev.Noted("the disk is back")], "what the disk missed follows"
    proxy.refusing = False
    await healed(store)
    assert await notes(db18, store) == Counter(["nowhere to go", "the disk is back"])
    await store.close()


async def test_a_disk_that_hangs_does_not_hang_the_journal(
    db18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(db18.connector, tmp_path)
    answers = threading.Event()
    monkeypatch.setattr("dbwatch.journal.mirror.os.fsync", lambda _: answers.wait(30))
    try:
        async with asyncio.timeout(4):
            for n in range(5):
                await store.append(lambda _, n=n: [ev.Noted(str(n))])
        assert "does not answer" in store.trouble
        assert all(t.daemon for t in threading.enumerate() if "mirror" in t.name)
    finally:
        answers.set()
    await healed(store)
    await eventually(lambda: _nothing(store))
    assert Mirror(tmp_path, store.window).head == (6, store.events[-1].hash)
    await store.close()


async def _nothing(store: Store) -> bool:
    await store.refresh()
    return not store.trouble


async def test_a_folder_that_cannot_be_made_is_told_before_anything_is_opened(db18: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await ensure(db18.connector)
    with pytest.raises(DbwatchError, match="local copy"):
        await journal.open_window(
            db18.connector, SystemClock(), "wei@a", Opening(OPENED, "", "{}", "{}"), tmp_path / "file" / "state"
        )
    assert await db18.sql("SELECT 1 FROM dbwatch.window") == []


# A server that stops


async def test_making_the_schema_on_a_silent_server_ends_and_leaves_nobody_waiting(db18: Database) -> None:
    locker = await db18.foreign()
    await locker.execute("SELECT pg_advisory_lock(%s)", [0x6462_7761_7463_68])
    before = set(threading.enumerate())
    with pytest.raises(DbwatchError, match="no answer within"):
        await ensure(db18.connector, within=1.0)

    async def nobody_waits() -> bool:
        return not [t for t in threading.enumerate() if t not in before]

    await eventually(nobody_waits, within=3.0)
