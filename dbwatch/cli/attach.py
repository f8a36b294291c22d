"""Door: joins an open window from another terminal, as its navigator."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from dbwatch.cli.actor import who
from dbwatch.cli.output import tell
from dbwatch.cli.run import sit
from dbwatch.cli.screen import require_terminal
from dbwatch.cli.signals import Signals
from dbwatch.clock import SystemClock
from dbwatch.journal.mirror import state_folder
from dbwatch.postgres.session import Connector
from dbwatch.runbook.loader import load
from dbwatch.window.opening import Wish, attend, connector_of


def main(dsn: str, *, runbook: Path | None, actor: str, folder: Path | None) -> int:
    """Looks on until `q`. Raises DbwatchError where no window is open there, or it may not be joined."""
    require_terminal()
    connector = connector_of(load(runbook, os.environ), dsn) if runbook is not None else Connector(dsn)
    wish = Wish(who(actor), folder or state_folder())
    return asyncio.run(_attach(connector, wish, runbook))


async def _attach(connector: Connector, wish: Wish, runbook: Path | None) -> int:
    signals = Signals()
    ground = await attend(connector, SystemClock(), wish, tell, runbook)
    return await sit(ground, signals)
