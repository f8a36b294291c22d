"""Every event goes to two: at once to whoever looks on, and in order to a journal that outlives us.

The child waits for the second one before it commits anything: so nothing of ours can be there that the journal does
not know of, wherever we are killed. While the journal is written, what happens meanwhile gathers, and is written next
in one piece: the child's wait before a commit is that of two writes, however much the transaction did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from dbwatch.migration.events import Event, StatementDone, StatementStarted

OnEvent = Callable[[Event], None]
"""Looks on: called on the event loop, must neither wait nor raise."""
Journal = Callable[[Sequence[Event]], Awaitable[None]]
"""Keeps events, in the order in which they happened; returns once they would survive our death."""
Acknowledge = Callable[[int], None]
"""Tells the child that said something, by its receipt, that it is kept."""


class Keeper:
    """Hands events on, from the beginning of a run to its end."""

    def __init__(self, on_event: OnEvent, journal: Journal | None, halt: asyncio.Event) -> None:
        """*halt* is set where *journal* raises: nothing more may be done that nobody keeps."""
        self._on_event = on_event
        self._halt = halt
        self._heard: list[tuple[Event, Acknowledge | None]] = []
        self._news = asyncio.Event()
        self._over = False
        self._keeping = asyncio.create_task(self._keep(journal)) if journal is not None else None

    def tell(self, event: Event, acknowledge: Acknowledge | None = None) -> None:
        """Takes one more event; returns at once. *acknowledge* is called when it is kept, if it asks for that."""
        self._on_event(event)
        if self._keeping is not None and not self._keeping.done():
            self._heard.append((event, acknowledge))
            self._news.set()

    async def end(self) -> None:
        """Waits until everything that was told is kept. Raises what the journal raised."""
        self._over = True
        self._news.set()
        if self._keeping is not None:
            await self._keeping

    async def _keep(self, journal: Journal) -> None:
        try:
            while not self._over or self._heard:
                await self._news.wait()
                self._news.clear()
                heard, self._heard = self._heard, []
                if heard:
                    await journal([event for event, _ in heard])
                for event, acknowledge in heard:
                    asks = isinstance(event, StatementStarted | StatementDone) and event.receipt
                    if asks and acknowledge is not None:
                        acknowledge(asks)
        except BaseException:
            self._halt.set()
            raise
