"""Several connections that fill disjoint parts of a table side by side, while the worker's own cuts them.

What they do moves no cursor: it counts its rows in the backfill's row, under the epoch, and the cursor follows once all
below it is filled. So a part may be filled again after a crash, which is harmless where SET makes WHERE untrue, and
only there. They never deal with trouble: what fails is left to the worker, which comes by again alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.images import Images
from dbwatch.backfill.keys import Key
from dbwatch.backfill.part import Filled, Part, Timeouts
from dbwatch.backfill.progress import Worker
from dbwatch.backfill.row import Position
from dbwatch.backfill.trouble import EXPECTED
from dbwatch.clock import Clock
from dbwatch.postgres.session import Connector

AGAIN_AFTER_S = 30.0
"""How long we do without a connection that could not be made."""
READY_S = 1.0
"""How long we wait for one, once: until it is there the others do without."""


@dataclass(slots=True)
class Piece:
    """Parts that one connection fills in one message, and what became of them."""

    parts: tuple[Part, ...]
    keys: tuple[int, ...]
    """Of each."""
    windows: tuple[Key, ...]
    """The end of the window that each is in."""
    filled: list[Filled] | None = None
    """None: one failed, or it is not known whether they were committed."""


Cut = Callable[[], Awaitable[Piece | None]]


class Crew:
    """The connections, opened when they are needed; ended by `disband`."""

    def __init__(self, connector: Connector, clock: Clock, hands: int) -> None:
        self._connector = connector
        self._clock = clock
        self._hands: list[BatchSession | None] = [None] * hands
        self._not_before = [float("-inf")] * hands
        """When each may connect again."""
        self._opening: dict[int, asyncio.Task[BatchSession]] = {}
        """Those that connect just now."""
        self.changed: Callable[[], None] = lambda: None
        """Called where a connection came or went."""

    @property
    def hands(self) -> int:
        """How many connections there may be."""
        return len(self._hands)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Their backends; none behind a pooler."""
        alive = [hand for hand in self._hands if hand is not None and hand.session.alive]
        return tuple(hand.worker for hand in alive if hand.worker is not None)

    @property
    def analyzed(self) -> bool:
        """An ANALYZE of the table was under way when the last message of one of them ended."""
        return any(hand is not None and hand.analyzed for hand in self._hands)

    async def fill(self, at: Position, cut: Cut, images: Images | None, timeouts: Timeouts) -> list[Piece]:
        """Fills what *cut* gives until it gives None or one fails: all pieces, in the order in which they were cut.

        Raises what *cut* raises; the connections are severed then.
        """
        pieces: list[Piece] = []
        cutting, failed = asyncio.Lock(), asyncio.Event()

        async def work(number: int) -> None:
            hand = await self._hand(number)
            if hand is None:
                return  # the others do without it
            hand.images = images
            while not failed.is_set():
                async with cutting:
                    piece = None if failed.is_set() else await cut()
                    if piece is None:
                        return
                    pieces.append(piece)
                try:
                    piece.filled = await hand.fill_beside(at, piece.parts, timeouts)
                except EXPECTED:
                    failed.set()
                    await hand.rollback()
                    self.changed()

        tasks = [asyncio.create_task(work(n), name=f"backfill hand {n}") for n in range(len(self._hands))]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            self.sever()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1.0)
            raise
        return pieces

    async def cancel(self) -> None:
        """Has the server cancel what they do, as far as it hears of it."""
        hands = [hand.session for hand in self._hands if hand is not None and hand.session.alive]
        await asyncio.gather(*(session.cancel() for session in hands), return_exceptions=True)

    def sever(self) -> None:
        """Shuts the connections at once."""
        for opening in self._opening.values():
            opening.cancel()
        for hand in self._hands:
            if hand is not None:
                hand.session.sever()

    async def disband(self) -> None:
        """Ends the connections; `fill` opens them again."""
        opening, self._opening = list(self._opening.values()), {}
        if opening:
            for task in opening:
                task.cancel()
            ended, _ = await asyncio.wait(opening, timeout=1.0)
            for task in ended:
                if not task.cancelled() and task.exception() is None:
                    task.result().session.sever()
        hands = [hand for hand in self._hands if hand is not None]
        if not hands:
            return
        self._hands = [None] * len(self._hands)
        for hand in hands:
            await hand.session.close()
        self.changed()

    async def _hand(self, number: int) -> BatchSession | None:
        hand = self._hands[number]
        if hand is not None and hand.session.alive:
            return hand
        opening = self._opening.get(number)
        if opening is None:
            if self._clock.monotonic() < self._not_before[number]:
                return None
            connecting = BatchSession.open(self._connector)
            opening = self._opening[number] = asyncio.create_task(connecting, name=f"backfill hand {number} connects")
            await asyncio.wait({opening}, timeout=READY_S)
        if not opening.done():
            return None
        del self._opening[number]
        if opening.cancelled():
            return None
        try:
            hand = self._hands[number] = opening.result()
        except EXPECTED:
            self._not_before[number] = self._clock.monotonic() + AGAIN_AFTER_S
            return None
        self.changed()
        return hand
