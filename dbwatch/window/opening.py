"""Opens the window of a runbook, or rejoins it: one driver, proven to be the only one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError, Refused
from dbwatch.journal import events as ev
from dbwatch.journal import rights, rows, schema, store
from dbwatch.journal.fence import Fence
from dbwatch.journal.mirror import Mirror
from dbwatch.journal.rows import WindowRow
from dbwatch.journal.store import Opening, Store
from dbwatch.migration import fingerprint
from dbwatch.migration.fingerprint import Fingerprint
from dbwatch.monitor.baseline import Baseline
from dbwatch.monitor.poller import poll_once
from dbwatch.postgres.facts import ServerFacts, look, require_direct, require_writable
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.runbook.loader import LoadedRunbook, difference
from dbwatch.window.ground import Ground
from dbwatch.window.preflight import project_of, require_one_database

GONE_S = 10.0
"""How long the old driver's terminated backends may take to be gone."""
PATIENCE_S = 10.0
"""How long a locked relation may keep the opening's fingerprint waiting."""

Tell = Callable[[str], None]
"""Takes what is being done, in a few words."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How the window is to be entered."""

    actor: str
    """`name@host`."""
    folder: Path
    """Where the journal's mirror lies."""
    amend: bool = False
    """A runbook edited since the window opened is taken as it is now."""
    take_over: str = ""
    """Take the wheel even from a driver that is alive, for this reason."""
    open_new: bool = True
    """Open a window where none is open."""


def connector_of(book: LoadedRunbook) -> Connector:
    """The way to the runbook's target."""
    target = book.runbook.target
    own = {Role.MONITOR: target.monitor_dsn, Role.MIGRATE: target.migrate_dsn}
    return Connector(target.dsn, roles={role: dsn for role, dsn in own.items() if dsn})


async def enter(book: LoadedRunbook, clock: Clock, wish: Wish, tell: Tell) -> Ground:
    """The window of *book*, with us as its driver.

    Raises CannotConnect, Refused (a standby, a pooler, no privilege, another window, another driver), and
    DbwatchError where the project does not load or the schema cannot be read.
    """
    book.check_files()
    connector = connector_of(book)
    tell("connecting")
    session = await connector.open(Role.CONTROL)
    try:
        facts = await look(session, dsn=connector.dsn())
        require_direct(facts)
        require_writable(facts)
        await require_one_database(connector, facts)
        if wish.open_new or await schema.present(session):
            tell("looking for the journal")
            await schema.ensure(connector)
            await rights.require_writing(session)
        row = await rows.find_open(session) if await schema.present(session) else None
        if row is not None:
            return await _rejoin(book, connector, clock, wish, tell, facts, session, row)
        if not wish.open_new:
            raise Refused(f"no window is open in {facts.name}", next="start one with dbwatch run")
        return await _open(book, connector, clock, wish, tell, facts)
    finally:
        await session.close()


async def visit(book: LoadedRunbook, clock: Clock, wish: Wish, tell: Tell) -> Ground:
    """The open window of *book*, only to look at: no epoch is taken, nothing is written.

    Raises CannotConnect, and Refused where no window of this runbook is open, or nothing could be taken back here.
    """
    connector = connector_of(book)
    tell("connecting")
    session = await connector.open(Role.CONTROL)
    try:
        facts = await look(session, dsn=connector.dsn())
        require_direct(facts)
        require_writable(facts)
        await rights.require_reading(session)
        row = await rows.find_open(session) if await schema.present(session) else None
        if row is None:
            raise Refused(f"no window is open in {facts.name}", next="there is nothing to take back")
        _require_same(row, book, facts)
    finally:
        await session.close()
    seen = Store(connector, clock, wish.actor, row.id, Mirror(wish.folder, row.id))
    await seen.load(mirrored=False)
    return _ground(book, connector, clock, seen, facts, Fingerprint.from_json(row.fingerprint), None)


def _require_same(row: WindowRow, book: LoadedRunbook, facts: ServerFacts) -> None:
    if row.title != book.runbook.title:
        raise Refused(
            f"the window {row.title!r} is open in {facts.name}",
            why=f"driven by {row.driver}",
            next="finish or abort it first: a database has one window at a time",
        )


async def _open(
    book: LoadedRunbook, connector: Connector, clock: Clock, wish: Wish, tell: Tell, facts: ServerFacts
) -> Ground:
    tell("reading the Alembic project")
    chain = await project_of(book, connector)
    heads = chain.current if chain is not None else frozenset()
    tell("taking the schema's fingerprint")
    before = await fingerprint.take(connector, clock, patience_s=PATIENCE_S)
    tell("taking the baseline")
    baseline = Baseline.of(await poll_once(connector))
    fact = ev.WindowOpened(book.runbook.title, facts.database, sorted(heads), book.sha, before.digest)
    opening = Opening(fact, book.text, before.to_json(), baseline.to_json() if baseline else "")
    opened = await store.open_window(connector, clock, wish.actor, opening, wish.folder)
    await opened.mirror.lay("runbook.toml", book.text)
    return _ground(book, connector, clock, opened, facts, before, baseline)


async def _rejoin(
    book: LoadedRunbook,
    connector: Connector,
    clock: Clock,
    wish: Wish,
    tell: Tell,
    facts: ServerFacts,
    session: Session,
    row: WindowRow,
) -> Ground:
    _require_same(row, book, facts)
    events = await rows.read_events(session, row.id)
    sha = next((e.fact.runbook_sha for e in reversed(events) if hasattr(e.fact, "runbook_sha")), row.runbook_sha)
    edited = sha != book.sha
    if edited and not wish.amend:
        raise Refused(
            "the runbook was edited since its window opened",
            why="\n" + difference(row.runbook_text, book.text) + "\n",
            next="undo the edit, or take it with --amend",
        )
    if edited:
        await project_of(book, connector)
    await _free(session, row, wish)
    tell("rejoining the window")
    joined = Store(connector, clock, wish.actor, row.id, Mirror(wish.folder, row.id))
    await joined.load()
    await joined.take(wish.take_over or "started again", seen=None if wish.take_over else row.epoch)
    await joined.tell_gap()
    await end_backends(connector, joined.fence, clock)
    if edited:
        shown = difference(row.runbook_text, book.text)
        await joined.append(lambda _: [ev.RunbookAmended(book.sha, shown)])
    baseline = Baseline.from_json(row.baseline) if row.baseline else None
    return _ground(book, connector, clock, joined, facts, Fingerprint.from_json(row.fingerprint), baseline)


async def _free(session: Session, row: WindowRow, wish: Wish) -> None:
    """Raises Refused where another driver is alive: its lease runs, and a backend of its epoch is there."""
    if wish.take_over or row.lease_left_s <= 0:
        return
    tag = Fence(row.id, row.epoch).tag
    backends = await session.values(query("backends-of-epoch", session.server_version), {"tag": tag})
    if backends:
        raise Refused(
            f"{row.driver} drives this window",
            why=f"its lease runs for another {row.lease_left_s:.0f} s and its sessions are there",
            next="wait until it has ended, or start with --take-over REASON",
        )


async def end_backends(connector: Connector, fence: Fence, clock: Clock) -> None:
    """Terminates the backends of the window's earlier epochs and waits until they are gone.

    Each of the window's roles ends its own: none of them needs the right to signal another's. Raises DbwatchError
    where they are still there after 10 s, and as `Connector.open` and `Session.call` do.
    """
    async with AsyncExitStack() as opened:
        sessions = []
        for login in (Role.CONTROL, *connector.apart):
            sessions.append(await connector.open(Role.CONTROL, login=login))
            opened.push_async_callback(sessions[-1].close)
        until = clock.monotonic() + GONE_S
        while left := [row for session in sessions for row in await _end(session, fence)]:
            if clock.monotonic() > until:
                names = dict(row[:2] for row in left)
                raise DbwatchError(
                    "the old driver's sessions do not end",
                    why=", ".join(f"{pid} ({name})" for pid, name in names.items()),
                    next="look at them in pg_stat_activity, and start again",
                )
            await clock.sleep(0.1)


async def _end(session: Session, fence: Fence) -> list[tuple[Any, ...]]:
    wish = {"window": f"{fence.window.hex[:8]}/", "epoch": fence.epoch}
    return await session.values(query("end-older-epochs", session.server_version), wish)


def _ground(
    book: LoadedRunbook,
    connector: Connector,
    clock: Clock,
    window: Store,
    facts: ServerFacts,
    before: Fingerprint,
    baseline: Baseline | None,
) -> Ground:
    tagged = connector.tagged(window.fence.tag)
    return Ground(tagged, Kept(tagged, Role.CONTROL), window, clock, book, facts, before, baseline)
