"""Watching without a window: snapshots, and signals to sessions; writes nothing."""

from __future__ import annotations

import psycopg

from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError, Refused
from dbwatch.monitor.poller import Poller
from dbwatch.monitor.samples import Snapshot
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.session import Connector, Role, describe
from dbwatch.window.abort import AbortPlan
from dbwatch.window.feed import Aside, Foretold, Frame
from dbwatch.window.hub import Hub, HubFeed
from dbwatch.window.intents import Answer, Intent, Signal
from dbwatch.window.signalling import signal_session


class Watch:
    """One server, looked at: a source of feeds, and a desk that takes signals only."""

    accepts: frozenset[type] = frozenset({Signal})

    def __init__(self, connector: Connector, clock: Clock) -> None:
        self._control = Kept(connector, Role.CONTROL)
        self._poller = Poller(connector, clock, self._saw)
        self._hub = Hub(self._frame, self._poller.set_interval)
        self._snapshot = Snapshot()

    @classmethod
    async def begin(cls, connector: Connector, clock: Clock) -> Watch:
        """Opens the control session at once: later a lock on a catalogue could keep it out. Raises CannotConnect."""
        watch = cls(connector, clock)
        await watch._control.session(within=10.0)
        return watch

    async def run(self) -> None:
        """Polls until cancelled."""
        await self._poller.run()

    def feed(self) -> HubFeed:
        """A feed of its own for one more looker-on."""
        return self._hub.feed()

    async def submit(self, intent: Intent) -> Answer:
        """Cancels or terminates a session; takes nothing else. Never raises."""
        if not isinstance(intent, Signal):
            return Answer(False, "no window is open here: start one with dbwatch run RUNBOOK")
        try:
            answer = await signal_session(self._control, intent)
        except (DbwatchError, psycopg.Error) as error:
            return Answer(False, f"not done: {describe(error)}")
        self._poller.nudge()
        return answer

    async def plan_abort(self) -> AbortPlan:
        """Raises Refused: there is nothing to take back."""
        raise Refused("no window is open here", next="start one with dbwatch run RUNBOOK")

    async def plan_backfill(self, step: str) -> Foretold:
        """Raises Refused, as `plan_abort`."""
        raise Refused("no window is open here", next="start one with dbwatch run RUNBOOK")

    async def rows_aside(self, step: str) -> Aside:
        """Raises Refused, as `plan_abort`."""
        raise Refused("no window is open here", next="start one with dbwatch run RUNBOOK")

    async def close(self) -> None:
        """Ends the control session."""
        await self._control.close()

    def _saw(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._hub.touch()

    def _frame(self) -> Frame:
        return Frame(self._snapshot)
