"""Puts a conductor together with its poller, and runs it for as long as somebody drives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbwatch.monitor.poller import Poller
from dbwatch.monitor.samples import Snapshot
from dbwatch.window.conductor import Conductor
from dbwatch.window.ground import Ground


@asynccontextmanager
async def driving(ground: Ground) -> AsyncIterator[Conductor]:
    """A conductor at work on *ground*; in the end our work is ended and the window let go of, within 2 s."""

    def saw(snapshot: Snapshot) -> None:
        conductor.saw(snapshot)

    poller = Poller(ground.connector, ground.clock, saw, own=lambda: conductor.own_pids())
    conductor = Conductor(ground, poller)
    core = asyncio.create_task(conductor.run())
    recovering = asyncio.create_task(conductor.recover())
    try:
        yield conductor
    finally:
        recovering.cancel()
        await conductor.shut()
        core.cancel()
        await asyncio.wait({core, recovering}, timeout=0.2)
        ground.connector.sever()
        await asyncio.wait({core, recovering}, timeout=0.5)
