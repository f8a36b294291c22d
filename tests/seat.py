"""A seat at the app: the screens over a feed made by hand, driven by keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import fakefeed as ff
from textual.pilot import Pilot

from dbwatch.tui.app import DbwatchApp
from dbwatch.window.feed import Frame

FRAMES = ff.frames()
WIDE, MEDIUM, NARROW, TINY = (140, 40), (120, 30), (80, 24), (20, 5)


async def wait_for(holds: Callable[[], bool]) -> None:
    """Waits until the screen has come so far. Fails after five seconds."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # a screen tells nobody what it shows
            await asyncio.sleep(0.005)


class Seat:
    """An app on a screen, its feed, its desk and its clock."""

    def __init__(self, pilot: Pilot[None], app: DbwatchApp, feed: ff.FakeFeed, desk: ff.FakeDesk, clock: ff.FakeClock):
        self.pilot, self.app, self.feed, self.desk, self.clock = pilot, app, feed, desk, clock

    @property
    def text(self) -> str:
        return ff.shown(self.app)

    @property
    def front(self) -> str:
        return self.app.situation().pane

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def resize(self, size: tuple[int, int]) -> None:
        """Another size of terminal, until the screen on top has taken it."""
        await self.pilot.resize_terminal(*size)
        await wait_for(lambda: self.app.screen.size == size)
        await self.pilot.pause()

    async def push(self, frame: Frame) -> None:
        """The feed's next frame, until it is shown."""
        self.feed.push(frame)
        await wait_for(lambda: self.app._latest is frame)
        await self.pilot.pause()


@asynccontextmanager
async def seat(
    name: str | Frame,
    size: tuple[int, int] = WIDE,
    *,
    desk: ff.FakeDesk | None = None,
    folder: Path | None = None,
) -> AsyncIterator[Seat]:
    frame = FRAMES[name] if isinstance(name, str) else name
    feed, desk, clock = ff.FakeFeed(frame), desk or ff.FakeDesk(), ff.FakeClock()
    with TemporaryDirectory() as exports:
        where = folder or Path(exports)
        app = DbwatchApp(feed, desk, clock=clock, folder=where, environ={"COLORTERM": "truecolor"})
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            yield Seat(pilot, app, feed, desk, clock)
