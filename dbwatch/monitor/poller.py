"""Polls one server for as long as it lives, and publishes one immutable Snapshot per poll, whatever happens.

A silent server costs one deadline (3 s); from then on snapshots say that there is no connection, once a second, with
the last good rows kept, until a new session answers. Nothing here ends by itself but by cancellation.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NoReturn

import psycopg

from dbwatch.clock import Clock, SystemClock
from dbwatch.errors import ConnectionLost, DbwatchError
from dbwatch.monitor.collectors import COLLECTORS, Collector
from dbwatch.monitor.samples import Snapshot, Status, View
from dbwatch.monitor.source import Source
from dbwatch.monitor.verdict import after_failure
from dbwatch.postgres.facts import ServerFacts
from dbwatch.postgres.session import Connector, describe
from dbwatch.text import sanitize

MIN_INTERVAL_S, MAX_INTERVAL_S = 0.2, 60.0

_RESTED = 5.0
"""A view that took t seconds is left alone for 5 t: no question may keep the server busy more than a fifth of the
time, however large its catalogue or however slow it has become."""

_FACTS_EVERY = 10
"""Polls between two looks at the facts: a GRANT given now is noticed without a restart of dbwatch."""

_TICK_S = 1.0
_NOTICE_S = 60.0
_BACK_OFF_S = (0.2, 0.4, 0.8, 1.0)


class Poller:
    """Publishes snapshots of the server that *connector* leads to. `run()` is its only task.

    *publish* is called in that task with each new snapshot and must not block. *own* gives the pids of backends that
    are ours beyond those found by name, such as the migration child's.
    """

    def __init__(
        self,
        connector: Connector,
        clock: Clock,
        publish: Callable[[Snapshot], None],
        *,
        interval: float = 1.0,
        own: Callable[[], frozenset[int]] = frozenset,
        collectors: Sequence[Collector] = COLLECTORS,
    ) -> None:
        self.last = Snapshot()
        """The snapshot published last."""
        self.interval = interval
        """Seconds from the start of one poll to the start of the next; see `set_interval`."""
        self._connector, self._clock, self._publish, self._own = connector, clock, publish, own
        self._poll = Poll(clock, collectors)
        self._asked = 0
        self._why = ""
        self._noticed_at = 0.0
        self._nudged = asyncio.Event()

    def set_interval(self, seconds: float) -> None:
        """Polls every so many seconds from now on, between 0.2 and 60."""
        self.interval = min(MAX_INTERVAL_S, max(MIN_INTERVAL_S, seconds))
        self._nudged.set()

    def nudge(self) -> None:
        """Polls again without waiting for the interval: after something was cancelled, say."""
        self._nudged.set()

    async def run(self) -> NoReturn:
        """Polls until it is cancelled; then the session is closed. Raises nothing else."""
        while True:
            source = await self._reach()
            try:
                await self._watch(source)
            except DbwatchError as error:
                self._why = str(error)
            except Exception as error:  # noqa: BLE001 - the loop's edge: it is shown as trouble, and polling goes on
                self._why = f"{type(error).__name__}: {describe(error)}"
            finally:
                self._asked = source.asked
                await source.close()

    async def _watch(self, source: Source) -> NoReturn:
        self._connected(source)
        while True:
            started = self._clock.monotonic()
            self._nudged.clear()
            snapshot = await self._poll.take(source, self.last, self.interval)
            pids = _own_pids(snapshot, source, self._connector) | self._own()
            self._show(replace(snapshot, own_pids=pids, notice=self._notice(source.facts)))
            took = self._clock.monotonic() - started
            await self._rest(max(self.interval - took, took))

    def _connected(self, source: Source) -> None:
        """Compares the server with the one before: another one's rows must not stand under this one's name."""
        before, notice = self.last, self._notice(source.facts)
        if before.facts is not None and not before.facts.same_server(source.facts):
            before = Snapshot(number=before.number)
        self.last = replace(before, facts=source.facts, notice=notice)
        self._poll.start_over()

    def _notice(self, facts: ServerFacts) -> str:
        """What has changed since the last snapshot, or has changed less than a minute ago."""
        if news := changed(self.last.facts, facts):
            self._noticed_at = self._clock.monotonic()
            return news
        return self.last.notice if self._clock.monotonic() < self._noticed_at + _NOTICE_S else ""

    async def _reach(self) -> Source:
        """A source that answers, however long that takes; meanwhile a snapshot a second says what is tried."""
        tries = 0
        while True:
            tries += 1
            within = min(10.0, 3.0 + tries // 5)  # a slow link gets more time, a dead one is tried again soon
            attempt = asyncio.ensure_future(Source.open(self._connector, within=within, asked=self._asked))
            try:
                self._lost(tries)
                while not (await asyncio.wait({attempt}, timeout=_TICK_S))[0]:
                    self._lost(tries)
                return attempt.result()
            except asyncio.CancelledError:
                await _give_up(attempt)
                raise
            except DbwatchError as error:
                self._why = str(error)
            except Exception as error:  # noqa: BLE001 - as above
                await _give_up(attempt)
                self._why = f"{type(error).__name__}: {describe(error)}"
            await self._clock.sleep(_BACK_OFF_S[min(tries, len(_BACK_OFF_S)) - 1])

    def _lost(self, tries: int) -> None:
        doing = "connecting" if self.last.facts is None else "reconnecting"
        trouble = f"{doing}, try {tries}" + (f": {self._why}" if self._why else "")
        self._show(replace(self.last, connected=False, trouble=trouble, taken=self._clock.monotonic()))

    def _show(self, snapshot: Snapshot) -> None:
        self.last = replace(snapshot, number=self.last.number + 1)
        self._publish(self.last)

    async def _rest(self, seconds: float) -> None:
        """Sleeps, or less if somebody nudges."""
        sleep = asyncio.ensure_future(self._clock.sleep(seconds))
        nudge = asyncio.ensure_future(self._nudged.wait())
        try:
            await asyncio.wait({sleep, nudge}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            nudge.cancel()


class Poll:
    """Takes one poll after another: knows when each view is due, and what the server's clock says."""

    def __init__(self, clock: Clock, collectors: Sequence[Collector] = COLLECTORS) -> None:
        self._clock = clock
        self._collectors = collectors
        self._due: dict[str, float] = {}
        self._until_facts = _FACTS_EVERY
        self._server_at: tuple[datetime, float] | None = None

    def start_over(self) -> None:
        """Every view is due: the connection is a new one."""
        self._due.clear()

    async def take(self, source: Source, before: Snapshot, interval: float) -> Snapshot:
        """A snapshot with all due views asked and the others as they were.

        Raises ServerSilent or ConnectionLost; whatever else a view meets becomes its status.
        """
        started = self._clock.monotonic()
        if self._server_at is None:
            self._hear(source.facts.at)
        snapshot = before
        for collector in self._collectors:
            asked_at = self._clock.monotonic()
            if asked_at + interval / 4 < self._due.get(collector.name, 0.0) or collector.name in source.in_vain:
                continue
            view = await self._ask(collector, source, snapshot)
            snapshot = _with(snapshot, collector.name, view)
            took = self._clock.monotonic() - asked_at
            rest_s = collector.rest_s if view.status is Status.OK else collector.failed_s
            self._due[collector.name] = asked_at + max(collector.every * interval, _RESTED * took, rest_s)
        self._until_facts -= 1
        if self._until_facts <= 0:
            self._until_facts = _FACTS_EVERY
            with contextlib.suppress(psycopg.Error):  # refused for now: the facts of the last look hold
                await source.look_again()
        now = self._clock.monotonic()
        return replace(
            snapshot,
            taken=now,
            at=self._server_now(),
            connected=True,
            trouble="",
            facts=source.facts,
            took_s=now - started,
        )

    async def _ask(self, collector: Collector, source: Source, so_far: Snapshot) -> View[Any]:
        before: View[Any] = getattr(so_far, collector.name)
        try:
            reading = await collector.collect(source, so_far)
        except DbwatchError:
            raise
        except Exception as error:  # a view's edge: whatever it met becomes the status that is shown
            if not source.session.alive:
                raise ConnectionLost(
                    "the monitor connection was lost", why=describe(error), next="reconnect"
                ) from error
            view = after_failure(before, error, source.facts)
        else:
            if reading.at is not None:
                self._hear(reading.at)
            view = View(
                reading.status, reading.reason, self._server_now(), self._clock.monotonic(), tuple(reading.rows)
            )
        if view.status is Status.UNSUPPORTED:
            source.in_vain.add(collector.name)
        return view

    def _hear(self, at: datetime) -> None:
        self._server_at = (at, self._clock.monotonic())
        if isinstance(self._clock, SystemClock):
            self._clock.server_said(at)

    def _server_now(self) -> datetime | None:
        if self._server_at is None:
            return None
        at, heard = self._server_at
        return at + timedelta(seconds=self._clock.monotonic() - heard)


async def poll_once(connector: Connector, clock: Clock | None = None) -> Snapshot:
    """One snapshot of all views, on a session of its own. Raises CannotConnect, ServerSilent or ConnectionLost."""
    source = await Source.open(connector)
    try:
        snapshot = await Poll(clock or SystemClock()).take(source, Snapshot(number=1), 1.0)
        return replace(snapshot, own_pids=_own_pids(snapshot, source, connector))
    finally:
        await source.close()


def changed(before: ServerFacts | None, now: ServerFacts) -> str:
    """What a person must know about the server since *before*: it is another one, restarted, or was promoted.

    Empty where nothing changed, or where there was no look before.
    """
    if before is None:
        return ""
    if not before.same_server(now):
        return f"this is another server or database than before: {now.name}, was {before.name}"
    if before.in_recovery and not now.in_recovery:
        return f"{now.name} was promoted: it is a primary now"
    if not before.in_recovery and now.in_recovery:
        return f"{now.name} is a standby now, it was a primary"
    if before.started_at != now.started_at:
        return f"the server restarted at {now.started_at:%H:%M:%S} UTC"
    return ""


async def _give_up(attempt: asyncio.Task[Source]) -> None:
    """Leaves nothing open of *attempt*, whether it ended or not."""
    attempt.cancel()
    await asyncio.wait({attempt}, timeout=0.5)
    if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
        attempt.result().session.sever()


def _with(snapshot: Snapshot, name: str, view: View[Any]) -> Snapshot:
    if name == "statements" and view.taken != snapshot.statements.taken:
        snapshot = replace(snapshot, statements_before=snapshot.statements)
    filled: dict[str, Any] = {name: view}
    return replace(snapshot, **filled)


def _own_pids(snapshot: Snapshot, source: Source, connector: Connector) -> frozenset[int]:
    """Sessions that call themselves ours and belong to a role that we log in as, with their parallel workers.

    Not by the name alone, which anybody may take; and a worker need not be of the monitor's role.
    """
    users = {source.facts.user, *map(sanitize, connector.users)}
    named = {
        session.pid
        for session in snapshot.activity.rows
        if session.application_name.startswith("dbwatch ") and session.usename in users
    }
    workers = {session.pid for session in snapshot.activity.rows if session.leader_pid in named}
    mine = set() if source.facts.pooled else {source.session.pid}  # a pooler makes a number up
    return frozenset(named | workers | mine)
