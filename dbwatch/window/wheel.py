"""The wheel: who holds it, taking it, and the proof that the one before is gone before anything is done."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError, Refused
from dbwatch.journal.fence import Fence
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.window.ground import Ground

GONE_S = 10.0
"""How long the old driver's terminated backends may take to be gone."""
BY_HAND = "psql (the way back by hand)"
"""Who drives, as the journal has it, once somebody follows rollback.sql or rollback.md."""
NOW_CLOSE = "dbwatch abort with its runbook compares the schema and closes it"
"""What is to be done with a window that was taken back by hand."""


class Driven(Refused):
    """Somebody alive drives this window."""


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
    if joined.epoch != state.epoch:  # else it is ours already: only the answer to an earlier try was lost
        await require_free(session, joined.window, state.epoch, state.driver, joined.lease_left_s, reason)
    await joined.take(reason or "the driver was gone", seen=None if reason else state.epoch)
    await joined.tell_gap()
    await end_backends(ground.base, joined.fence, ground.clock)


async def require_free(
    session: Session, window: UUID, epoch: int, driver: str, lease_left_s: float, reason: str
) -> None:
    """Raises Refused where another driver is alive, its lease runs and a backend of its epoch is there, or where
    somebody took the window back by hand, unless a *reason* is given to take the wheel nevertheless."""
    if driver == BY_HAND and not reason:
        raise Refused(
            "this window was taken back by hand, or is about to be",
            why="what its steps did may be gone",
            next=f"{NOW_CLOSE}; --take-over REASON drives on nevertheless",
        )
    if reason or lease_left_s <= 0:
        return
    tag = Fence(window, epoch).tag
    if await session.values(query("backends-of-epoch", session.server_version), {"tag": tag}):
        raise Driven(
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
