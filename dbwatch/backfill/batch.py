"""One connection that carries out batches: each a message with its own limits, timed by the server's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from typing import Any

import psycopg
from psycopg import sql

from dbwatch.backfill.images import Images
from dbwatch.backfill.keys import Key, to_text
from dbwatch.backfill.pages import last_of
from dbwatch.backfill.part import Filled, Part, Pending, Restored, Timeouts
from dbwatch.backfill.passes import stripes
from dbwatch.backfill.progress import Worker
from dbwatch.backfill.row import Position
from dbwatch.backfill.statements import PINNED, Statements, bound, given
from dbwatch.backfill.trouble import Poison
from dbwatch.errors import CannotConnect, ConnectionLost, ServerSilent
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Results, Role, Session

_NOTHING = sql.SQL("")
_TEXTS = 64
"""Texts that are remembered: a leg has some forms of a batch, and of each one for every pass, within a message and at
its end."""


class BatchSession:
    """The worker's connection."""

    def __init__(self, session: Session, worker: Worker | None) -> None:
        self.session = session
        self.worker = worker
        """None behind a pooler, where a backend is ours only for a transaction."""
        self.images: Images | None = None
        """Where the batches keep what they overwrite; None: nowhere."""
        self.analyzed = False
        """An ANALYZE of the table was under way when the last message of batches ended."""
        self._texts: dict[Any, str] = {}

    @classmethod
    async def open(cls, connector: Connector) -> BatchSession:
        """Connects. Raises CannotConnect, on a standby too, and as `Session.call` does."""
        session = await connector.open(Role.WORKER)
        try:
            if not session.pooled:  # batches are dated ISO anyway; here the driver has to read the server's clock
                await session.execute("SET DateStyle = 'ISO, YMD'")
            [(pid, started, in_recovery)] = await session.values(
                "SELECT a.pid, a.backend_start, pg_catalog.pg_is_in_recovery()"
                " FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a"
            )
        except BaseException:
            session.sever()
            raise
        if in_recovery:
            session.sever()
            raise CannotConnect(
                "the server is a standby", why="nothing can be written there", next="give the primary's DSN"
            )
        ours = pid == session.pid and isinstance(started, datetime)
        return cls(session, Worker(pid, started) if ours else None)

    async def edge(
        self, statements: Statements, lo: Key | None, top: Key | None, n: int, timeouts: Timeouts
    ) -> tuple[Key | None, float]:
        """The key *n* keys above *lo*, else the last one not above *top*; None where no key is left; the seconds.

        A walk by pages needs a *top*, and asks nobody.
        """
        if statements.pages is not None:
            return (None if top is None else statements.pages.edge(lo, top, n)), 0.0
        bounds = {"after": lo is not None, "upto": top is not None}
        parameters = {**bound("lo", lo), **bound("top", top), "n": n}
        found, seconds = await self._look(statements.edge(**bounds), parameters, timeouts)
        if not found:
            found, more = await self._look(statements.last(**bounds), parameters, timeouts)
            seconds += more
        return (tuple(found[0]) if found else None), seconds

    async def is_analyzed(self, statements: Statements) -> bool:
        """Whether an ANALYZE of the table is under way, as far as we may know. Raises as `Session.call` does."""
        [(self.analyzed,)] = await self.session.values(self._about("backfill-analyze", statements))
        return self.analyzed

    async def top(self, statements: Statements, timeouts: Timeouts) -> Key | None:
        """The last page of the heap as it is now; None where it has none. Raises as `Session.call` does."""
        [(pages,)], _ = await self._look(self._about("backfill-pages", statements), {}, timeouts)
        return last_of(pages)

    async def fill(self, at: Position, part: Part, timeouts: Timeouts) -> Filled:
        """Fills *part* and commits, together with the cursor's move from *at*.

        Raises psycopg.Error where the server refused: then nothing was changed; and as `Session.call` does: then the
        row in the journal tells whether it was.
        """
        [filled] = await self.fill_each(at, (part,), timeouts)
        return filled

    async def fill_each(self, at: Position, parts: Sequence[Part], timeouts: Timeouts) -> list[Filled]:
        """As `fill`, one of *parts* after the other, each in a transaction of its own, all in one message.

        Where the server refuses one, those before it are committed nevertheless, and only the row tells which. Only the
        last COMMIT waits for the disk, if that one does: a server that crashes forgets rows together with the cursor's
        move past them, and what says that all is done is committed after them, and waits.
        """
        batches = []
        for left, part in zip(reversed(range(len(parts))), parts, strict=True):
            batches.append((self._text(at, part, timeouts, ends=not left), _moving(at, part)))
            if part.moves:
                at = at.after(rows=0, keys=part.keys, cursor=part.next)
        results = await self._run((*batches, self._ending(parts[-1])), timeouts)
        self.analyzed = results[-1][0][2]
        return _filled(results)

    async def fill_beside(self, at: Position, parts: Sequence[Part], timeouts: Timeouts) -> list[Filled]:
        """As `fill_each`, under the epoch of *at*, of *parts* that move no cursor: others fill meanwhile."""
        return await self.fill_each(at, parts, timeouts)

    async def retry(self, at: Position, part: Part, key: str, timeouts: Timeouts) -> Filled:
        """Fills *part*, the row whose *key* is in quarantine, and takes it out of there, in one transaction.

        Raises as `fill` does; MISSING is in the server's words where it is not in quarantine any more.
        """
        out = sql.SQL(self._file("backfill-quarantine-out") + ";\n")
        text = self._composed(part, self._settings, beforehand=out)
        batch = text, _moving(at, part) | _constant(at, part, timeouts) | {"key": key}
        began, _out, *results = await self._run((batch, self._ending(part)), timeouts)
        [filled] = _filled([began, *results])
        return filled

    async def set_aside(self, at: Position, part: Part, poison: Poison, timeouts: Timeouts) -> None:
        """Puts the row of *part* into quarantine, and commits, together with the cursor's move past it from *at*.

        Raises as `fill` does.
        """
        text = sql.SQL(self._file("backfill-quarantine")).format(settings=self._settings)
        parameters = _moving(at, part) | _constant(at, part, timeouts) | asdict(poison)
        await self._run([(text.as_string(None), parameters)], timeouts)

    async def on_trial(self, part: Part, timeouts: Timeouts) -> tuple[dict[str, Any], int, int]:
        """Fills *part* and rolls it back: EXPLAIN's word on it, how many rows were updated, and how many of them HOT.

        Raises as `fill` does.
        """
        statements = part.statements
        update = statements.update(after=part.lo is not None)
        text = sql.SQL(self._file("backfill-try")).format(
            settings=self._settings, relation=sql.Literal(statements.relation), update=sql.SQL(update)
        )
        parameters = {**bound("lo", part.lo), **bound("hi", part.hi), **_limits(timeouts)}
        _set, [before], [(explained,)], [after] = await self._run([(text.as_string(None), parameters)], timeouts)
        updates, hot = (now - then for now, then in zip(after, before, strict=True))
        return explained[0], updates, hot

    async def bring_back(self, at: Position, lo: Key | None, hi: Key, timeouts: Timeouts) -> Restored:
        """Brings back what the images above *lo* up to *hi* hold, and commits, together with the cursor's move.

        Raises as `fill` does.
        """
        images = self.images
        assert images is not None
        parts = {
            "restore": images.restore(after=lo is not None),
            "seen": images.seen(after=lo is not None),
            "range": images.range(after=lo is not None),
            "keys": images.keys(),
        }
        text = sql.SQL(self._file("backfill-restore")).format(
            settings=self._settings, images=images.own, **{part: sql.SQL(text) for part, text in parts.items()}
        )
        parameters = {
            **bound("lo", lo),
            **bound("hi", hi),
            **_limits(timeouts),
            "next": to_text(hi),
            "id": at.id,
            "epoch": at.epoch,
            "batches": at.batches,
            "cursor": at.cursor,
        }
        results = await self._run([(text.as_string(None), parameters)], timeouts)
        [_set, [(began, lsn)], [(rows, seen, _moved)], [(ended, lsn_after)]] = results
        return Restored(rows, seen, (ended - began).total_seconds(), int(lsn_after - lsn))

    async def count(self, statements: Statements, lo: Key | None, hi: Key, timeouts: Timeouts) -> Pending:
        """What is pending above *lo* up to *hi*. Raises as `fill` does."""
        parameters = {**bound("lo", lo), **bound("hi", hi)}
        [(rows, unfillable)], seconds = await self._look(statements.count(after=lo is not None), parameters, timeouts)
        return Pending(rows, unfillable, seconds)

    async def found(self, statements: Statements, n: int, timeouts: Timeouts, *, fillable: bool = False) -> list[Key]:
        """The versions of *n* pending rows, or of all, in one look at the whole table; with *fillable* only of those
        that SET will clear. Raises as `fill` does."""
        return (await self._look(statements.found(fillable=fillable), {"n": n}, timeouts))[0]

    async def standing(self, statements: Statements, lo: Key | None, hi: Key, timeouts: Timeouts) -> list[Key]:
        """The versions of all rows above *lo* up to *hi*. Raises as `fill` does."""
        parameters = {**bound("lo", lo), **bound("hi", hi)}
        return (await self._look(statements.standing(after=lo is not None), parameters, timeouts))[0]

    async def on_standby(self) -> bool:
        """Whether the server is a standby now, as far as it says."""
        try:
            return await self.session.values("SELECT pg_catalog.pg_is_in_recovery()", within=2.0) == [(True,)]
        except (psycopg.Error, ConnectionLost, ServerSilent):
            return False

    async def rollback(self) -> None:
        """Ends a failed transaction; where even that is not answered, the connection is closed."""
        try:
            await self.session.execute("ROLLBACK", within=2.0)
        except (psycopg.Error, ConnectionLost, ServerSilent):
            self.session.sever()

    def _text(self, at: Position, part: Part, timeouts: Timeouts, *, ends: bool) -> str:
        """A batch with all in it that is the same for the next one of its kind: each parameter costs our side a part of
        a batch's time. *ends*: it is the last one of its message, and only there a COMMIT waits."""
        images = None if self.images is None else self.images.relation
        form = part.statements, images, part.lo is None, part.fillable, part.of > 1, part.moves
        kind = form, part.of, part.number, ends, timeouts, at.id, at.epoch
        text = self._texts.get(kind)
        if text is None:
            if len(self._texts) >= _TEXTS:
                self._texts.clear()
            if form not in self._texts:
                self._texts[form] = self._composed(part, self._settings_of_batches)
            text = self._texts[kind] = given(self._texts[form], _constant(at, part, timeouts, ends=ends))
        return text

    def _composed(self, part: Part, settings: sql.Composable, *, beforehand: sql.Composable = _NOTHING) -> str:
        """A batch that begins with *settings*, and with what is to be done *beforehand* in the same transaction; with
        images it keeps what it overwrites."""
        images, statements = self.images, part.statements
        after, fillable, striped = part.lo is not None, part.fillable, part.of > 1
        update = statements.update(after=after, fillable=fillable, striped=striped)
        known = {
            "settings": settings,
            "beforehand": beforehand,
            "relation": sql.Literal(statements.relation),
            "next": sql.SQL("%(next)s" if part.moves else "b.cursor"),
            "stands": sql.SQL(_STANDS if part.moves else "true"),
        }
        if images is None:
            return sql.SQL(self._file("backfill-batch")).format(update=sql.SQL(update), **known).as_string(None)
        parts = {
            "update": update,
            "read": images.read(statements, after=after, fillable=fillable, striped=striped),
            "update_read": images.update_read(statements, after=after),
            "returning": images.returning(),
            "keep": images.keep(),
        }
        texts = {what: sql.SQL(text) for what, text in parts.items()}
        return sql.SQL(self._file("backfill-batch-undo")).format(**known, **texts).as_string(None)

    async def _look(
        self, question: str, parameters: dict[str, Any], timeouts: Timeouts
    ) -> tuple[list[tuple[Any, ...]], float]:
        text = sql.SQL(self._file("backfill-look")).format(settings=self._settings, question=sql.SQL(question))
        look = text.as_string(None), parameters | _limits(timeouts)
        [_set, [(began,)], rows, [(ended,)]] = await self._run([look], timeouts)
        return rows, (ended - began).total_seconds()

    async def _run(self, texts: Sequence[tuple[str, dict[str, Any]]], timeouts: Timeouts) -> Results:
        """The results of *texts*, that of the settings first."""
        return await self.session.results(texts, within=timeouts.within_s(len(texts)))

    def _ending(self, part: Part) -> tuple[str, dict[str, Any]]:
        """What ends a message of batches, of which *part* is one."""
        relation = part.statements.relation
        if relation not in self._texts:
            self._texts[relation] = self._about("backfill-committed", part.statements)
        return self._texts[relation], {}

    def _about(self, name: str, statements: Statements) -> str:
        """A question about the table."""
        return sql.SQL(self._file(name)).format(relation=sql.Literal(statements.relation)).as_string(None)

    def _file(self, name: str) -> str:
        return query(name, self.session.server_version).decode()

    @cached_property
    def _kept_to(self) -> tuple[sql.Composable, ...]:
        """What sets what every transaction keeps to."""
        texts = {**PINNED, "row_security": "off", "idle_in_transaction_session_timeout": "5s"}
        if self.session.server_version >= 140_000:
            texts["client_connection_check_interval"] = "500ms"
        limits = {"lock_timeout": "lock_ms", "statement_timeout": "run_ms"}
        return (
            *(_setting(name, sql.Literal(value)) for name, value in texts.items()),
            *(_setting(name, sql.Placeholder(value)) for name, value in limits.items()),
        )

    @cached_property
    def _settings(self) -> sql.Composable:
        return _set(self._kept_to)

    @cached_property
    def _settings_of_batches(self) -> sql.Composable:
        """Theirs: where a COMMIT does not wait, the server's WAL writer follows beside the next batch."""
        waits = sql.SQL(
            "CASE WHEN {} AND ({} OR current_setting('synchronous_standby_names') <> '')"
            " THEN current_setting('synchronous_commit') ELSE 'off' END"
        ).format(sql.Placeholder("ends"), sql.Placeholder("lasts"))
        return _set((*self._kept_to, _setting("synchronous_commit", waits)))


def _setting(name: str, value: sql.Composable) -> sql.Composable:
    return sql.SQL("pg_catalog.set_config({}, {}, true)").format(sql.Literal(name), value)


def _set(settings: Sequence[sql.Composable]) -> sql.Composable:
    """A SELECT of one column that makes all of *settings*; more may follow. Each statement and each column more costs
    our side a part of a batch's time."""
    return sql.SQL("SELECT /* dbwatch */ pg_catalog.num_nulls({})").format(sql.SQL(", ").join(settings))


_STANDS = "b.batches = %(batches)s AND b.cursor IS NOT DISTINCT FROM %(cursor)s"
"""The backfill's row is as we left it."""


def _moving(at: Position, part: Part) -> dict[str, Any]:
    """The parameters of *part* that no other batch shares."""
    bounds = {**bound("lo", part.lo), **bound("hi", part.hi)}
    if not part.moves:
        return bounds
    return {**bounds, "next": part.next, "scanned": part.keys, "batches": at.batches, "cursor": at.cursor}


def _constant(at: Position, part: Part, timeouts: Timeouts, *, ends: bool = True) -> dict[str, Any]:
    """Those that it shares with the others of its pass; *ends*: it is the last one of its message."""
    first, last = stripes(part.of, part.number)
    shared = {"id": at.id, "epoch": at.epoch, "ends": ends, "lasts": timeouts.lasts, "first": first, "last": last}
    return {**shared, **_limits(timeouts), **({} if part.moves else {"scanned": 0})}


def _filled(results: Results) -> list[Filled]:
    """What the batches of a message did, each of which ends where the next one begins."""
    *of_batches, [last] = results
    moments = [moment for [(_set, *moment)] in of_batches[::2]]
    filled = []
    for (began, lsn, *before), [(rows, *after, _moved)], (ended, lsn_after, *_) in zip(
        moments, of_batches[1::2], [*moments[1:], last], strict=True
    ):
        updates, hot = (now - then for now, then in zip(after, before, strict=True))
        share = hot / updates if updates else None
        filled.append(Filled(rows, (ended - began).total_seconds(), int(lsn_after - lsn), share))
    return filled


def _limits(timeouts: Timeouts) -> dict[str, Any]:
    return {"lock_ms": str(timeouts.lock_ms), "run_ms": str(timeouts.statement_ms)}
