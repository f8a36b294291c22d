"""Every backfill that the journal knows: whose it is, how far, and what it left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from dbwatch.backfill import claim
from dbwatch.backfill.orders import Order
from dbwatch.backfill.quarantine import told
from dbwatch.backfill.row import RESTORED, RESTORING
from dbwatch.journal import rights, schema
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Session
from dbwatch.text import one_line

OVER = ("done", RESTORING, RESTORED)
"""One of these takes no orders any more."""


@dataclass(frozen=True, slots=True)
class Known:
    """One of them; all text is harmless."""

    id: int
    window: str | None
    """The window that it belongs to; None: none."""
    step: str | None
    table: str
    set: str
    where: str
    mode: str
    status: str
    """As the journal has it: running, stopped, incomplete, done, failed, restoring or restored."""
    owner: str
    alive: bool
    """It is at work now: its owner's backend is there, and writes."""
    rows_done: int
    batches: int
    fraction: float | None
    """How much of the table it has passed, 0 to 1; None where that is not known."""
    pending: int | None
    """As the final scan counted them; None where it was not reached."""
    quarantined: int
    note: str
    started_at: datetime
    ended_at: datetime | None
    paused: Order | None = None
    """The order from another terminal by which it pauses, or will when it is taken up; None: there is none."""
    heeded: bool = False
    """Its worker took notice of the newest order."""

    @property
    def state(self) -> str:
        """What it is doing, for a person."""
        if self.status not in ("running", RESTORING):
            return self.status
        return (
            f"{self.status}, by {self.owner}" if self.alive else f"{self.status}, but its owner is gone: {self.owner}"
        )

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        names = ("id", "window", "step", "table", "set", "where", "mode", "status", "owner", "alive", "rows_done")
        more = ("batches", "fraction", "pending", "quarantined", "note")
        return {
            **{name: getattr(self, name) for name in (*names, *more)},
            "started_at": self.started_at.isoformat(),
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
            "paused": {**asdict(self.paused), "at": self.paused.at.isoformat()} if self.paused else None,
        }


async def backfills(session: Session, *, within: float = 10.0) -> tuple[Known, ...]:
    """All of them, the newest first; none where there is no journal.

    Raises Refused where our role may not read it, and as `Session.call` does.
    """
    await rights.require_reading(session)
    if not await schema.present(session):
        return ()
    found = await session.fetch(_Found, query("backfill-status", session.server_version), within=within)
    return tuple(one.known() for one in found)


@dataclass(frozen=True, slots=True)
class _Found:
    """As the query gives it."""

    id: int
    window: str | None
    step: str | None
    spec: str
    status: str
    owner: str
    rows_done: int
    batches: int
    scanned: int
    walked: bool
    pending: int | None
    note: str | None
    started_at: datetime
    ended_at: datetime | None
    silent_s: float
    backend: bool
    quarantined: int
    rows_estimate: int | None
    ordered: str | None
    heeded: bool

    def known(self) -> Known:
        spec: Mapping[str, Any] = json.loads(self.spec)
        order = Order.from_text(self.ordered) if self.ordered and self.status not in OVER else None
        return Known(
            id=self.id,
            window=self.window,
            step=one_line(self.step, 200) if self.step else None,
            table=one_line(".".join(spec["table"]), 200),
            set=one_line(spec["set"]),
            where=one_line(spec["where"]),
            mode=one_line(spec["mode"], 20),
            status=one_line(self.status, 20),
            owner=one_line(self.owner, 100),
            alive=self.status in ("running", RESTORING)
            and claim.lives(self.owner, self.silent_s, backend=self.backend),
            rows_done=self.rows_done,
            batches=self.batches,
            fraction=self._fraction(),
            pending=self.pending,
            quarantined=self.quarantined,
            note=one_line(self.note or "", 2000),
            started_at=self.started_at.astimezone(UTC),
            ended_at=self.ended_at.astimezone(UTC) if self.ended_at else None,
            paused=order if order is not None and order.pauses else None,
            heeded=self.heeded,
        )

    def _fraction(self) -> float | None:
        if self.walked or self.status == "done":
            return 1.0
        return min(0.999, self.scanned / self.rows_estimate) if self.rows_estimate else None


def lines(known: Sequence[Known], quarantined: Mapping[int, Sequence[str]] | None = None) -> list[str]:
    """Them for a person, and where they are given the lines of what each holds in quarantine. Pure."""
    said: list[str] = []
    for one in known:
        said += _lines(one)
        said += [f"      {line}" for line in (quarantined or {}).get(one.id, ())]
    return said


def _lines(one: Known) -> list[str]:
    percent = f"{one.fraction:.0%} of the table, " if one.fraction is not None and one.fraction < 1 else ""
    pending = f", {one.pending:,} pending" if one.pending is not None else ""
    ended = f", ended {one.ended_at:%Y-%m-%d %H:%M:%S}" if one.ended_at else ""
    of = f"  (step {one.step})" if one.step else ""
    unheard = "" if one.heeded or not one.alive else "; its worker has not answered yet"
    return [
        f"{one.id:<4}  {one.table}  SET {one_line(one.set, 60)}{of}",
        f"      {one.state}",
        *([f"      {one.paused}, since {one.paused.since}{unheard}"] if one.paused else []),
        f"      {percent}{one.rows_done:,} rows in {one.batches:,} batches{pending}",
        f"      since {one.started_at:%Y-%m-%d %H:%M:%S}{ended} UTC",
        *([f"      {told(one.quarantined)} in quarantine"] if one.quarantined else []),
        *([f"      {one.note}"] if one.note else []),
    ]
