"""Hands the newest frame to whoever looks. Frames are made when somebody asks, so a fast source costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dbwatch.window.feed import Frame


class Hub:
    """One source of frames; `touch` says that something changed."""

    def __init__(self, make: Callable[[], Frame], set_interval: Callable[[float], None]) -> None:
        self._make = make
        self._set_interval = set_interval
        self._version = 0
        self._changed = asyncio.Event()

    def touch(self) -> None:
        """Something that a frame shows has changed. Returns at once; to be called on the event loop."""
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def feed(self) -> HubFeed:
        """A feed of its own for one more looker-on."""
        return HubFeed(self)


class HubFeed:
    """A `Feed` on a hub: remembers which frame it gave out last."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._seen = -1

    @property
    def frame(self) -> Frame:
        return self._hub._make()

    async def next(self) -> Frame:
        while self._seen == self._hub._version:
            await self._hub._changed.wait()
        self._seen = self._hub._version
        return self._hub._make()

    def set_interval(self, seconds: float) -> None:
        self._hub._set_interval(seconds)
