"""Door: the demo. A stage is set, the screen comes up on it, and all of it is gone afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from dbwatch.cli.actor import who
from dbwatch.cli.run import on_screen
from dbwatch.cli.screen import require_terminal
from dbwatch.demo.stage import stage
from dbwatch.errors import UsageError
from dbwatch.runbook.loader import load
from dbwatch.window.opening import Wish


def main(pg_bin: Path | None) -> int:
    """Runs the demo until `q`. Raises UsageError where no server binaries are found, or the extra is missing."""
    require_terminal()
    try:
        import mimesis  # noqa: F401  # what the extra brings is asked for before the server is started
    except ImportError as error:
        raise UsageError("the demo's data needs mimesis", next="pip install 'dbwatch[demo]'") from error
    return asyncio.run(_demo(pg_bin))


async def _demo(pg_bin: Path | None) -> int:
    async with stage(pg_bin, _progress) as set_up:
        book = load(set_up.runbook, {**os.environ, "SHOP_DSN": set_up.dsn})
        _progress("opening the window")
        second = f'a second person joins with: dbwatch attach "{set_up.dsn}" --runbook {set_up.runbook} --as lin'
        return await on_screen(book, Wish(who(""), set_up.project / "state"), lonely=False, note=second)


def _progress(text: str) -> None:
    print(f"  {text} ...", file=sys.stderr, flush=True)
