"""Door: the way back without a screen."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

from dbwatch.cli.actor import who
from dbwatch.cli.headless import Teller
from dbwatch.cli.output import say, tell
from dbwatch.cli.signals import Signals
from dbwatch.cli.typed import typed
from dbwatch.clock import SystemClock
from dbwatch.errors import Exit, Refused
from dbwatch.journal.mirror import state_folder
from dbwatch.monitor.poller import poll_once
from dbwatch.runbook.loader import LoadedRunbook, load
from dbwatch.text import clock
from dbwatch.window.abort import AbortPlan, ActionKind
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.ground import Ground
from dbwatch.window.hindsight import FOR_ABORT
from dbwatch.window.intents import SignOff
from dbwatch.window.opening import Wish, enter, visit
from dbwatch.window.survey import Survey


def main(runbook: Path, *, dry_run: bool, confirm: str, undone: list[str], actor: str, folder: Path | None) -> int:
    """Shows the plan, and carries it out where it is confirmed; the exit code. Raises DbwatchError."""
    book = load(runbook, os.environ)
    wish = Wish(who(actor), folder or state_folder(), amend=True, take_over=FOR_ABORT, open_new=False)
    return asyncio.run(_abort(book, wish, dry_run, confirm, frozenset(undone)))


async def _abort(book: LoadedRunbook, wish: Wish, dry_run: bool, confirm: str, undone: frozenset[str]) -> int:
    ground = await visit(book, SystemClock(), wish, tell)
    try:
        plan = await _plan(ground)
    finally:
        await ground.store.close()
    say("\n".join(plan_lines(plan)))
    if dry_run:
        return Exit.OK
    persons = [a.step for a in plan.actions if a.kind is ActionKind.PERSON and a.step not in undone]
    if persons and not sys.stdin.isatty():
        raise Refused(
            f"{', '.join(persons)}: a person has to undo this first",
            next="do it, and say so with " + " ".join(f"--done {step}" for step in persons),
        )
    question = f"Type the database's name ({plan.database}) to begin: "
    name = confirm or await typed(question, instead="say --confirm DBNAME")
    if name != plan.database:
        raise Refused("that is not the database's name; nothing was done", next=f"the name is {plan.database}")
    return await _carry_out(book, wish, plan, undone)


async def _plan(ground: Ground) -> AbortPlan:
    return await Survey(ground).plan(await poll_once(ground.connector), "")


async def _carry_out(book: LoadedRunbook, wish: Wish, plan: AbortPlan, undone: frozenset[str]) -> int:
    """Carries out *plan*, which was shown and confirmed; or goes on with an abort that was cut short."""
    signals = Signals(screen=False)
    ground = await enter(book, SystemClock(), wish, tell)
    async with driving(ground) as conductor:
        teller = Teller(conductor)
        telling = asyncio.create_task(teller.run())
        going = asyncio.create_task(_go_back(conductor, plan))
        signing = asyncio.create_task(_sign(conductor, undone))
        ending = asyncio.create_task(signals.wait())
        try:
            await asyncio.wait({going, signing, ending}, return_when=asyncio.FIRST_COMPLETED)
            if going.done():
                going.result()
            elif ending.done():
                return Exit.INTERRUPTED
            else:
                signing.result()
        finally:
            for task in (telling, going, signing, ending):
                task.cancel()
            await asyncio.wait({telling, going, signing, ending}, timeout=0.5)
            teller.tell()
        abort = conductor.state.abort
        return Exit.OK if abort is not None and abort.equal else Exit.FAILED


async def _go_back(conductor: Conductor, plan: AbortPlan) -> None:
    """Begins the way back, or goes on with one that was cut short, until nothing of ours runs any more."""
    await conductor.recovered.wait()
    if not conductor.state.aborting:
        _require_covered(plan, await conductor.plan_abort())
        conductor.driver.aborting.begin(plan)
    await conductor.work.settled()


def _require_covered(shown: AbortPlan, now: AbortPlan) -> None:
    """Raises Refused where the way back is not the one any more that was shown."""
    if not shown.covers(now):
        raise Refused(
            "the way back has changed since it was shown; nothing was taken back",
            why="\n" + "\n".join(plan_lines(now)) + "\n",
            next="look at it, and start again",
        )


async def _sign(conductor: Conductor, undone: frozenset[str]) -> NoReturn:
    """Signs a person's actions off: those named on the command line at once, others when the person says so.

    Raises Refused where the person ends the input instead.
    """
    feed = conductor.feed()
    while True:
        await feed.next()
        for step in conductor.awaited:
            said = "undone already, says the command line" if step in undone else ""
            question = f"{step} has to be undone by a person now; done? Say how: "
            note = said or await typed(question, instead=f"undo {step}, then dbwatch abort goes on with --done {step}")
            await conductor.submit(SignOff(step, note))


def plan_lines(plan: AbortPlan) -> list[str]:
    """The plan for a person, line by line. Pure."""
    lines = [f"The way back to where this window opened: {plan.target}"]
    for number, action in enumerate(plan.actions, 1):
        estimated = clock(action.estimate_s) if action.estimate_s is not None else "?"
        lines.append(f"{number:3} {action.title}  [{estimated}]")
        lines.extend(f"      {line}" for sql in action.sql for line in sql.splitlines())
        lines.extend(f"      {note}" for note in action.notes)
    lines.extend(f"lost: {lost}" for lost in plan.lost)
    lines.extend(f"in the way: {obstacle}" for obstacle in plan.obstacles)
    lines.extend(plan.prediction.sentences if plan.prediction else ())
    budget = f" of {clock(plan.budget_s)}" if plan.budget_s else ""
    lines.append(f"estimated {clock(plan.estimate_s)}{budget}")
    return lines
