"""Opens the window of a runbook, or rejoins it: one driver, proven to be the only one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbwatch.clock import Clock
from dbwatch.errors import Refused
from dbwatch.journal import events as ev
from dbwatch.journal import rights, rows, schema, store
from dbwatch.journal.chain import Event
from dbwatch.journal.fold import fold
from dbwatch.journal.mirror import Mirror
from dbwatch.journal.rows import WindowRow
from dbwatch.journal.store import Opening, Store
from dbwatch.migration import fingerprint
from dbwatch.migration.fingerprint import Fingerprint
from dbwatch.migration.forked import nursery
from dbwatch.monitor.baseline import Baseline
from dbwatch.monitor.poller import poll_once
from dbwatch.postgres.facts import ServerFacts, look, require_direct, require_writable
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.runbook.loader import LoadedRunbook, difference, parse, sha
from dbwatch.window import gates
from dbwatch.window.amending import amend
from dbwatch.window.ground import Ground
from dbwatch.window.preflight import project_of, require_one_database
from dbwatch.window.wheel import Driven, end_backends, require_free

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


def connector_of(book: LoadedRunbook, dsn: str = "") -> Connector:
    """The way to the runbook's target; by *dsn* instead of the runbook's own where one is given."""
    target = book.runbook.target
    own = {Role.MONITOR: target.monitor_dsn, Role.MIGRATE: target.migrate_dsn}
    return Connector(dsn or target.dsn, roles={role: dsn for role, dsn in own.items() if dsn})


async def join(book: LoadedRunbook, clock: Clock, wish: Wish, tell: Tell) -> Ground:
    """The window of *book*: with us as its driver, or as a navigator where somebody alive drives it. Raises as `enter`.

    So a person whose terminal went away in the middle of a step finds it again, still under way.
    """
    try:
        return await enter(book, clock, wish, tell)
    except Driven as driven:
        tell(f"{driven.what}: you look on")
        return await attend(connector_of(book), clock, wish, tell, book.path)


async def enter(book: LoadedRunbook, clock: Clock, wish: Wish, tell: Tell) -> Ground:
    """The window of *book*, with us as its driver.

    Raises CannotConnect, Driven where somebody alive drives it already, Refused (a standby, a pooler, no privilege,
    another window), and DbwatchError where the project does not load or the schema cannot be read.
    """
    book.check_files()
    if book.alembic is not None:
        with contextlib.suppress(OSError):  # whoever needs it says so
            nursery.open()  # it imports Alembic while we connect
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
    return Ground(connector, control, opened, clock, book, facts, before, baseline, chain)


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


def runbook_text(row: WindowRow, events: Sequence[Event]) -> str:
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
    await require_free(session, row.id, row.epoch, row.driver, row.lease_left_s, wish.take_over)
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
    return Ground(connector, control, window, clock, book, facts, before, baseline, files=files)
