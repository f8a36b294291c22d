"""Door: drives a window without a screen."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from dbwatch.cli.actor import who
from dbwatch.cli.output import say, tell
from dbwatch.cli.signals import Signals
from dbwatch.clock import SystemClock
from dbwatch.errors import Exit, UsageError
from dbwatch.journal.fold import StepStatus
from dbwatch.journal.mirror import state_folder
from dbwatch.journal.words import sentence
from dbwatch.runbook.loader import LoadedRunbook, load
from dbwatch.runbook.model import Manual, Step
from dbwatch.text import one_line
from dbwatch.window import gates
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.intents import Intent, RunStep, SignOff
from dbwatch.window.opening import Wish, enter


def main(
    runbook: Path,
    *,
    signatures: list[str],
    confirm: str,
    amend: bool,
    take_over: str,
    actor: str,
    folder: Path | None,
) -> int:
    """Runs the automatic steps; the exit code. Raises DbwatchError where the window cannot be entered."""
    book = load(runbook, os.environ)
    wish = Wish(who(actor), folder or state_folder(), amend=amend, take_over=take_over)
    return asyncio.run(_run(book, wish, _parsed(signatures), confirm))


async def _run(book: LoadedRunbook, wish: Wish, signatures: dict[str, str], name: str) -> int:
    signals = Signals(screen=False)
    ground = await enter(book, SystemClock(), wish, tell)
    async with driving(ground) as conductor:
        teller = Teller(conductor)
        printing = asyncio.create_task(teller.run())
        working = asyncio.create_task(_steps(conductor, signatures, name))
        ending = asyncio.create_task(signals.wait())
        try:
            await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                await conductor.work.end(1.0)
                return Exit.INTERRUPTED
            return working.result()
        finally:
            for task in (printing, working, ending):
                task.cancel()
            await asyncio.wait({printing, working, ending}, timeout=0.5)
            teller.tell()


class Teller:
    """Prints each event of the journal once, as it happens: from our own entering on, an event a line."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        epoch = conductor.ground.store.epoch
        before = [event.seq for event in conductor.events if event.epoch < epoch]
        self._last = max(before, default=0)

    def tell(self) -> None:
        """Prints what is new."""
        for event in self._conductor.events:
            if event.seq > self._last:
                say(f"{event.at.astimezone():%H:%M:%S} {one_line(sentence(event.fact))}")
                self._last = event.seq

    async def run(self) -> None:
        """Prints until cancelled."""
        feed = self._conductor.feed()
        while True:
            await feed.next()
            self.tell()


async def _steps(conductor: Conductor, signatures: dict[str, str], name: str) -> int:
    """Does one step after the other; the exit code. *name* is the database's, for a step that asks for it."""
    await conductor.recovered.wait()
    await conductor.work.settled()
    while conductor.state.open:
        step = gates.next_step(conductor.state, conductor.ground.runbook)
        if step is not None and isinstance(step, Manual) and step.id not in signatures:
            tell(f"{step.id} is a person's step: {step.text}")
            tell(f"sign it off on the screen (dbwatch run), or with --sign {step.id}=NOTE")
            return Exit.REFUSED
        answer = await conductor.submit(_intent(step, signatures, name))
        if not answer.taken:
            tell(answer.text + ("; say --confirm DBNAME" if answer.name_needed else ""))
            return Exit.REFUSED
        if step is not None and not await _done(conductor, step):
            return Exit.REFUSED if conductor.state.step(step.id).status is StepStatus.PENDING else Exit.FAILED
    return Exit.OK if conductor.state.outcome == "done" else Exit.FAILED


def _intent(step: Step | None, signatures: dict[str, str], name: str) -> Intent:
    """What brings the window on: its next step, or its close where none is left. Pure."""
    if step is None:
        return RunStep()
    if isinstance(step, Manual):
        return SignOff(step.id, signatures[step.id], name)
    return RunStep(step.id, name)


async def _done(conductor: Conductor, step: Step) -> bool:
    """Waits until *step* has ended, first for a second person's word where it needs one; whether it is done."""
    feed = conductor.feed()

    def waits() -> bool:
        proposal = conductor.state.proposal
        return proposal is not None and proposal.step == step.id

    if waits():
        tell(f"{step.id} waits for a second person's word: dbwatch attach, on their side")
    while waits() or conductor.work.under_way or conductor.state.step(step.id).status is StepStatus.RUNNING:
        if not conductor.driving:
            tell(f"{conductor.state.driver} drives now")
            return False
        await feed.next()
    return conductor.state.step(step.id).status is StepStatus.DONE


def _parsed(signatures: list[str]) -> dict[str, str]:
    found = {}
    for signature in signatures:
        step, equals, note = signature.partition("=")
        if not equals or not note:
            raise UsageError(f"--sign {signature!r} has no note", next="write --sign STEP=NOTE")
        found[step] = note
    return found
