"""One person at the window, in a process of their own: sits there as `dbwatch run` or `dbwatch attach` does.

Run as `python -m campaign.player` with a line of JSON (`Part`) on standard input; each further line is something that
the person does, `{"id": 1, "do": "n"}`, and is answered by `{"id": 1, "taken": ..., "text": ...}`. The first line out
says whether they got in. The end of standard input, or of the parent, is the end of the player: at once, as kill -9.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dbwatch.clock import SystemClock
from dbwatch.errors import DbwatchError
from dbwatch.journal.fold import StepStatus
from dbwatch.postgres.session import Connector
from dbwatch.runbook.loader import load
from dbwatch.runbook.model import Manual
from dbwatch.tui import allowed
from dbwatch.window import gates
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.ground import Ground
from dbwatch.window.intents import (
    Abort,
    Answer,
    Confirm,
    Decide,
    Note,
    RunStep,
    SignOff,
    StopOurs,
    TakeOver,
)
from dbwatch.window.opening import Wish, attend, enter, join

PR_SET_PDEATHSIG = 1
"""prctl(2): a signal for us when our parent is gone. It reaches a stopped process too."""


@dataclass(frozen=True, slots=True)
class Part:
    """Who sits there, and how they came in."""

    actor: str
    dsn: str
    runbook: str
    folder: str
    role: str = "join"
    """drive: as `dbwatch run --headless`; join: as `dbwatch run`; attend: as `dbwatch attach --runbook`."""
    take_over: str = ""
    broken: str = ""
    """Which deliberately broken version of dbwatch this is (`broken.py`); empty: the real one."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


async def come_in(part: Part) -> Ground:
    """Our place at the window. Raises as dbwatch's commands do."""
    wish = Wish(part.actor, Path(part.folder), take_over=part.take_over)
    clock, runbook = SystemClock(), Path(part.runbook)
    if part.role == "attend":
        return await attend(Connector(part.dsn), clock, wish, _silent, runbook)
    way_in: Callable[..., Any] = enter if part.role == "drive" else join
    ground: Ground = await way_in(load(runbook, {"CAMPAIGN_DSN": part.dsn}), clock, wish, _silent)
    return ground


def _silent(_: str) -> None:
    """Nobody reads what is being done."""


class Person:
    """Does at the desk what the referee's lines say."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor

    async def do(self, line: dict[str, Any]) -> dict[str, Any]:
        """Carries one line out; its answer."""
        c, name = self._conductor, self._conductor.state.database
        match line["do"]:
            case "n":
                answer = await self._next(str(line.get("step", "")))
            case "decide":
                answer = await c.submit(Decide(line["step"], bool(line["took"]), "looked"))
            case "backfill":
                answer = await self._backfill()
            case "stop":
                answer = await c.submit(StopOurs())
            case "abort":
                answer = await self._abort()
            case "undone":
                answers = [await c.submit(SignOff(step, "undone")) for step in c.awaited]
                answer = answers[-1] if answers else Answer(False, "nobody waits for that")
            case "confirm":
                proposal = c.state.proposal
                answer = await c.submit(Confirm(proposal.seq, name)) if proposal else Answer(False, "no proposal")
            case "note":
                answer = await c.submit(Note("was here"))
            case "take-over":
                answer = await c.submit(TakeOver(line["reason"]))
            case other:
                raise ValueError(other)
        view = c.feed().frame.window
        trouble = "; ".join(filter(None, (view.trouble, view.journal_trouble))) if view else ""
        return {"taken": answer.taken, "text": answer.text, "driving": c.driving, "trouble": trouble}

    async def _next(self, step_id: str) -> Answer:
        """The next step, whatever its kind, as `n` and the dialogs behind it do it."""
        c = self._conductor
        book, state = c.ground.runbook, c.state
        step = book.step(step_id) if step_id else gates.next_step(state, book)
        if isinstance(step, Manual) and state.step(step.id).status is not StepStatus.UNKNOWN and state.abort is None:
            return await c.submit(SignOff(step.id, "done", state.database))
        return await c.submit(RunStep(step_id or None, "" if state.abort is not None else state.database))

    async def _backfill(self) -> Answer:
        """`b`: what the footer says of it."""
        view = self._conductor.feed().frame.window
        wish = allowed.backfill_wish(view) if view else "no window is open here"
        return Answer(False, wish) if isinstance(wish, str) else await self._conductor.submit(wish)

    async def _abort(self) -> Answer:
        """`A`: the plan is shown, and the database's name typed."""
        c = self._conductor
        try:
            plan = await c.plan_abort()
        except Exception as error:  # noqa: BLE001  # the dialog shows it, whatever it is
            return Answer(False, f"no plan: {error}")
        return await c.submit(Abort(plan.digest, c.state.database))


async def main(part: Part, lines: asyncio.Queue[dict[str, Any]]) -> None:
    """Sits at the window until told to leave."""
    try:
        ground = await come_in(part)
    except Exception as error:  # noqa: BLE001  # the command's edge: a sentence, or a traceback that is a finding
        say({"in": False, "text": str(error), "kind": type(error).__name__, "known": isinstance(error, DbwatchError)})
        return
    async with driving(ground) as conductor:
        person = Person(conductor)
        say({"in": True, "window": str(ground.store.window), "driving": conductor.driving})
        doing: set[asyncio.Task[None]] = set()
        while (line := await lines.get())["do"] != "leave":
            task = asyncio.create_task(_answer(person, line))
            doing.add(task)
            task.add_done_callback(doing.discard)
    say({"left": True})


async def _answer(person: Person, line: dict[str, Any]) -> None:
    try:
        said = await person.do(line)
    except Exception as error:  # noqa: BLE001  # `submit` promises that nothing raises: a finding
        said = {"taken": False, "text": f"{type(error).__name__}: {error}", "raised": True}
    say({"id": line["id"], **said})


def say(what: dict[str, Any]) -> None:
    """One line to the referee."""
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(what), flush=True)


async def play() -> None:
    """Reads who we are, then plays it; dies with the parent."""
    lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    part = Part(**json.loads(sys.stdin.readline()))
    if part.broken:
        from campaign.broken import VERSIONS

        VERSIONS[part.broken]()
    buffer = b""

    def heard() -> None:
        nonlocal buffer
        piece = os.read(0, 65536)
        if not piece:
            os._exit(9)
        *whole, buffer = (buffer + piece).split(b"\n")
        for line in whole:
            lines.put_nowait(json.loads(line))

    loop.add_reader(0, heard)
    await main(part, lines)


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.stdin = open(0, buffering=1, closefd=False)  # noqa: SIM115  # the process's own standard input
    asyncio.run(play())
