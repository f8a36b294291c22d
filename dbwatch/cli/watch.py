"""Door: the dashboard alone."""

from __future__ import annotations

import asyncio

from dbwatch.cli.screen import require_terminal, show
from dbwatch.cli.signals import Signals
from dbwatch.clock import SystemClock
from dbwatch.postgres.session import Connector
from dbwatch.tui.app import DbwatchApp
from dbwatch.window.watching import Watch


def main(dsn: str) -> int:
    """Watches until `q`. Raises CannotConnect where the server cannot be reached at the start."""
    connector = Connector(dsn)
    require_terminal()
    return asyncio.run(_watch(connector))


async def _watch(connector: Connector) -> int:
    watching = await Watch.begin(connector, SystemClock())
    core = asyncio.create_task(watching.run())
    try:
        return await show(DbwatchApp(watching.feed(), watching), Signals())
    finally:
        core.cancel()
        await asyncio.wait({core}, timeout=1.0)
        await watching.close()
