"""Time, injected: durations are monotonic, instants belong to the server."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What the program knows of time; tests bring their own."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...

    def now(self) -> datetime:
        """The server's present instant as far as we know it, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspends the caller for *seconds*."""
        ...

    def server_said(self, at: datetime) -> None:
        """Takes *at*, the server's instant just received, as the present one."""
        ...


class SystemClock:
    """The machine's clock, corrected by what the server last said of its own."""

    def __init__(self) -> None:
        self._offset = timedelta(0)

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def server_said(self, at: datetime) -> None:
        self._offset = at - datetime.now(UTC)
