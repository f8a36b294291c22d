"""One statement that can be stopped: it runs as a task, and a stop cancels its backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg

from dbwatch.errors import DbwatchError
from dbwatch.postgres.session import Connection, Session
from dbwatch.postgres.signals import signal
from dbwatch.steps.step import Kit

T = TypeVar("T")

CANCEL_WAIT_S = 2.0
"""How long a cancelled statement may take to end before its connection is closed."""


class Stopped(DbwatchError):
    """A person stopped it."""


async def stoppable(session: Session, kit: Kit, work: Callable[[Connection], Awaitable[T]], *, within: float) -> T:
    """The result of *work* on *session*; ends early where `kit.stop` is set.

    Raises Stopped then, and otherwise as `Session.call` does.
    """
    control = await kit.control.session()
    [(pid, backend_start)] = await control.values(
        "SELECT a.pid, a.backend_start FROM pg_catalog.pg_stat_get_activity(%s) AS a", [session.pid]
    )
    running = asyncio.ensure_future(session.call(work, within=within))
    stopping = asyncio.ensure_future(kit.stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        try:
            await signal(await kit.control.session(), pid, backend_start, terminate=False)
        except (DbwatchError, psycopg.Error):
            session.sever()
        await asyncio.wait({running}, timeout=CANCEL_WAIT_S)
        if not running.done():
            session.sever()
            await asyncio.wait({running}, timeout=1.0)
        if running.done() and not running.cancelled() and running.exception() is None:
            return running.result()
        raise Stopped("stopped by hand")
    finally:
        stopping.cancel()
        if not running.done():
            running.cancel()
