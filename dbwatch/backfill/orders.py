"""Orders from another terminal: a backfill pauses, and goes on, by what its row in the journal says.

The row holds the newest order as a text that says who gave it and when, so that no two are alike: whoever answers one
names its text, and where another came meanwhile nothing happens. It outlives whoever works on the backfill.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from dbwatch.backfill.control import Control
from dbwatch.backfill.row import Position
from dbwatch.clock import Clock
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Session
from dbwatch.text import one_line

LOOK_EVERY_S = 1.0
"""How often a run asks whether there is a new order."""

Act = Literal["pause", "resume"]


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants of a backfill that runs elsewhere; all text is harmless."""

    act: str
    by: str
    """`name@host`."""
    at: datetime
    """By the server's clock."""
    why: str

    @classmethod
    def from_text(cls, text: str) -> Order:
        """As the row holds it."""
        said = json.loads(text)
        by, why = one_line(said["by"], 100), one_line(said["why"], 200)
        return cls(one_line(said["act"], 20), by, datetime.fromisoformat(said["at"]).astimezone(UTC), why)

    @property
    def pauses(self) -> bool:
        """No further batch until another order, or a person at its own screen, lets it go on."""
        return self.act == "pause"

    @property
    def since(self) -> str:
        """When it was given, for a sentence."""
        return f"{self.at:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def reason(self) -> str:
        """Why a backfill pauses that obeys it, and what ends that."""
        return f"{self}; dbwatch backfill resume lets it go on"

    def __str__(self) -> str:
        did = "paused" if self.pauses else "resumed"
        return f"{did} by {self.by} from another terminal" + (f" ({self.why})" if self.why else "")


class Orders:
    """How one run obeys: an order to pause is a hand on its control, until it is resumed, here or there."""

    def __init__(self, control: Control, clock: Clock) -> None:
        self.told = ""
        """The newest order that this run obeyed, in plain words; empty: none, or a person overruled it."""
        self._control = control
        self._clock = clock
        self._next = float("-inf")
        self._text: str | None = None
        """The newest order that was read."""
        self._standing: Order | None = None
        """The order by which it is paused."""

    async def look(self, session: Session, at: Position) -> None:
        """Obeys what the row says, once a second. Raises as `Session.call` does."""
        now = self._clock.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK_EVERY_S
        row = {"id": at.id, "epoch": at.epoch}
        for text, heeded in await session.values(query("backfill-ordered", session.server_version), row):
            if text != self._text:
                self._obey(text)
            elif self._standing is not None and self._control.paused_because is None:
                await self._answer("backfill-lifted", session, row)
                self._obey(None)
                return
            if text is not None and not heeded:
                await self._answer("backfill-heeded", session, row)

    def _obey(self, text: str | None) -> None:
        """A hand that paused it here before stays: its pause ends here."""
        order = Order.from_text(text) if text is not None else None
        before, self._text = self._standing, text
        self._standing = order if order is not None and order.pauses else None
        ours = self._control.paused_because in (None, before.reason if before is not None else None)
        if self._standing is not None and ours:
            self._control.pause(self._standing.reason)
        elif before is not None and ours:
            self._control.resume()
        obeyed = self._standing is not None or before is not None  # else it was over before this run began
        self.told = str(order) if order is not None and obeyed else ""

    async def _answer(self, how: str, session: Session, row: dict[str, int]) -> None:
        await session.execute(query(how, session.server_version), {**row, "ordered": self._text})
