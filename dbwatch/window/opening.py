"""Opens the window of a runbook, or rejoins it: one driver, proven to be the only one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError, Refused
from dbwatch.journal import events as ev
from dbwatch.journal import rights, rows, schema, store
from dbwatch.journal.fence import Fence
from dbwatch.journal.fold import fold
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
from dbwatch.runbook.loader import LoadedRunbook, difference, parse, sha
from dbwatch.window import gates
from dbwatch.window.amending import amend
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
    return _ground(book, connector, clock, seen, facts, row)


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
    control = Kept(connector.tagged(opened.fence.tag), Role.CONTROL)
    return Ground(connector, control, opened, clock, book, facts, before, baseline)


async def attend(connector: Connector, clock: Clock, wish: Wish, tell: Tell, runbook: Path | None = None) -> Ground:
    """The open window of the database that *connector* leads to, as a navigator; its runbook is in the journal.

    *runbook* is the file on this machine, where there is one: whoever takes the wheel needs what it names.

    Raises CannotConnect, and Refused where no window is open there, or our role may not write into its journal.
    """
    tell("connecting")
    session = await connector.open(Role.CONTROL)
    try:
        facts = await look(session, dsn=connector.dsn())
        require_direct(facts)
        require_writable(facts)
        await rights.require_reading(session)
        row = await rows.find_open(session) if await schema.present(session) else None
        if row is None:
            raise Refused(f"no window is open in {facts.name}", next="start one with dbwatch run RUNBOOK")
        await rights.require_writing(session)
        await schema.ensure(connector)
    finally:
        await session.close()
    tell("reading the journal")
    joined = Store(connector, clock, wish.actor, row.id, Mirror(wish.folder, row.id))
    await joined.load(mirrored=False)
    await joined.refresh()
    book = _journalled(row, joined, runbook)
    return _ground(book, connector, clock, joined, facts, row, files=runbook is not None)


def _journalled(row: WindowRow, joined: Store, runbook: Path | None) -> LoadedRunbook:
    """The runbook as the journal has it. Raises RunbookError where another version wrote what this one cannot read."""
    text = runbook_text(row, joined.events)
    path = runbook if runbook is not None else Path("the journal's runbook")
    return LoadedRunbook(path, text, sha(text), parse(text, str(path), None), path.absolute().parent)


def runbook_text(row: WindowRow, events: Sequence[ev.Event]) -> str:
    """The runbook that the window goes by, as last amended. Pure."""
    amended = (e.fact.text for e in reversed(events) if isinstance(e.fact, ev.RunbookAmended) and e.fact.text)
    return next(amended, row.runbook_text)


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
    known = runbook_text(row, events)
    edited = sha(known) != book.sha
    if edited and not wish.amend:
        raise Refused(
            "the runbook was edited since its window opened",
            why="\n" + difference(known, book.text) + "\n",
            next="undo the edit, or take it with --amend",
        )
    before = parse(known, "the journal's runbook", None)
    if edited and (refused := gates.amendment_refusal(fold(events), before, book.runbook)):
        raise Refused(refused, next="undo that part of the edit")
    await _free(session, row.id, row.epoch, row.driver, row.lease_left_s, wish.take_over)
    tell("rejoining the window")
    joined = Store(connector, clock, wish.actor, row.id, Mirror(wish.folder, row.id))
    await joined.load()
    await joined.take(wish.take_over or "started again", seen=None if wish.take_over else row.epoch)
    await joined.tell_gap()
    await end_backends(connector, joined.fence, clock)
    ground = _ground(book, connector, clock, joined, facts, row)
    if edited:
        ground.book = LoadedRunbook(book.path, known, sha(known), before, book.folder)
        await amend(ground, book)
    return ground


async def take_wheel(ground: Ground, reason: str) -> None:
    """Makes us the driver of the window at which we sit; the old driver's backends are gone afterwards.

    Raises Refused where another driver is alive and no *reason* is given, or takes it at the same moment, and
    DbwatchError where the old backends do not end.
    """
    joined = ground.store
    await joined.refresh()
    joined.mirror.prepare()
    session = await ground.control.session()
    state = joined.state
    await _free(session, joined.window, state.epoch, state.driver, joined.lease_left_s, reason)
    await joined.take(reason or "the driver was gone", seen=None if reason else state.epoch)
    await joined.tell_gap()
    await end_backends(ground.base, joined.fence, ground.clock)


async def _free(session: Session, window: UUID, epoch: int, driver: str, lease_left_s: float, reason: str) -> None:
    """Raises Refused where another driver is alive, its lease runs and a backend of its epoch is there, unless a
    *reason* is given to take the wheel nevertheless."""
    if reason or lease_left_s <= 0:
        return
    tag = Fence(window, epoch).tag
    if await session.values(query("backends-of-epoch", session.server_version), {"tag": tag}):
        raise Refused(
            f"{driver} drives this window",
            why=f"its lease runs for another {lease_left_s:.0f} s and its sessions are there",
            next="look on with dbwatch attach, or start with --take-over REASON",
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
    row: WindowRow,
    *,
    files: bool = True,
) -> Ground:
    baseline = Baseline.from_json(row.baseline) if row.baseline else None
    control = Kept(connector.tagged(window.fence.tag), Role.CONTROL)
    before = Fingerprint.from_json(row.fingerprint)
    return Ground(connector, control, window, clock, book, facts, before, baseline, files)
