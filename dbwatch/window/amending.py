"""A runbook that is edited while its window is open: seen, shown as a difference, taken only when it is confirmed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from dbwatch.errors import DbwatchError, Refused
from dbwatch.journal import events as ev
from dbwatch.journal.fold import WindowState
from dbwatch.runbook.loader import LoadedRunbook, difference, load, parse
from dbwatch.window import gates
from dbwatch.window.ground import Ground
from dbwatch.window.intents import Answer
from dbwatch.window.preflight import project_of

LOOK_S = 3.0
"""How often the runbook's file is looked at."""


class Amending:
    """Watches the file of one window's runbook."""

    def __init__(self, ground: Ground, forget: Callable[[], None]) -> None:
        self._ground, self._forget = ground, forget
        self.edited: LoadedRunbook | None = None
        """The file as it is now, where it differs from what the window goes by."""
        self.trouble = ""
        """Why the edited file cannot be taken."""

    @property
    def difference(self) -> str:
        """What was changed, as a unified diff, or why the file cannot be read; empty where nothing was."""
        return self.trouble or (difference(self._ground.book.text, self.edited.text) if self.edited else "")

    async def watch(self, touch: Callable[[], None]) -> None:
        """Looks at the file until cancelled."""
        while True:
            await self._ground.clock.sleep(LOOK_S)
            if not self._ground.files:
                continue
            before = (self.edited, self.trouble)
            await self._look()
            if before != (self.edited, self.trouble):
                touch()

    async def _look(self) -> None:
        try:
            book = await asyncio.to_thread(load, self._ground.book.path, os.environ)
        except DbwatchError as error:
            self.edited, self.trouble = None, str(error)
        else:
            self.edited, self.trouble = (None if book.sha == self._ground.book.sha else book), ""

    async def amend(self, sha: str) -> Answer:
        """Goes by the file from now on, if it is still the one that was shown. Raises Refused, and as `append`."""
        await self._look()
        book = self.edited
        if book is None or book.sha != sha:
            return Answer(False, self.trouble or "the file has changed since it was shown; look at it again")
        await amend(self._ground, book)
        self.edited = None
        self._forget()
        return Answer(True, "the runbook was amended")


def follow(ground: Ground) -> None:
    """Goes by the runbook that the journal has, where somebody else amended it."""
    sha = ground.store.state.runbook_sha
    if not sha or sha == ground.book.sha:
        return
    amended = (e.fact for e in reversed(ground.store.events) if isinstance(e.fact, ev.RunbookAmended))
    fact = next((fact for fact in amended if fact.runbook_sha == sha and fact.text), None)
    if fact is not None:
        runbook = parse(fact.text, "the journal's runbook", None)
        ground.book = replace(ground.book, text=fact.text, sha=sha, runbook=runbook)


async def amend(ground: Ground, book: LoadedRunbook) -> None:
    """Journals *book* as this window's runbook from now on.

    Raises Refused where it does not go with what was done already, and as `project_of` and `Store.append` do.
    """
    await project_of(book, ground.connector)
    shown = difference(ground.book.text, book.text)

    def amended(state: WindowState) -> Sequence[ev.Fact]:
        if refused := gates.amendment_refusal(state, ground.runbook, book.runbook):
            raise Refused(refused, next="undo that part of the edit")
        taken_back = [ev.ConfirmationRefused(p.step, p.seq, "the runbook was amended") for p in [state.proposal] if p]
        return [*taken_back, ev.RunbookAmended(book.sha, shown, book.text)]

    await ground.store.append(amended)
    ground.book = book
    await ground.store.mirror.lay("runbook.toml", book.text)
