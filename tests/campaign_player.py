"""One person at a window, as a process: sits there as `dbwatch run` does, and does what its standard input says.

A line in: `{"n": 7, "do": "next"}`. A line out: `{"n": 7, "taken": true, "text": "..."}`. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import psycopg

from dbwatch.clock import SystemClock
from dbwatch.errors import DbwatchError
from dbwatch.journal.fold import StepStatus
from dbwatch.runbook.loader import load
from dbwatch.runbook.model import Manual
from dbwatch.window import gates
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.intents import (
    Abort,
    Answer,
    Confirm,
    Decide,
    Intent,
    Note,
    RunStep,
    SignOff,
    StopOurs,
    TakeOver,
    ToggleBackfill,
)
from dbwatch.window.opening import Wish, join


def say(**told: object) -> None:
    print(json.dumps(told), flush=True)


def following(conductor: Conductor) -> Intent:
    """What a person presses n for, the way they are asked to."""
    name, state = conductor.state.database, conductor.state
    step = gates.next_step(state, conductor.ground.runbook)
    if step is None or state.abort is not None:
        return RunStep()
    known = state.step(step.id)
    if known.status is StepStatus.UNKNOWN:
        return Decide(step.id, is_there(), "looked whether its index is there")
    return SignOff(step.id, "done", name) if isinstance(step, Manual) else RunStep(step.id, name)


def is_there() -> bool:
    """What a person looks at where nobody knows how CREATE INDEX CONCURRENTLY ended."""
    with psycopg.connect(os.environ["SHOP_DSN"], connect_timeout=5) as connection:
        asked = (
            "SELECT coalesce(bool_and(indisvalid), false) FROM pg_index WHERE indexrelid = to_regclass('things_pad')"
        )
        found = connection.execute(asked).fetchone()
    return found == (True,)


async def act(conductor: Conductor, do: str) -> Answer:
    state = conductor.state
    match do:
        case "next":
            try:
                return await conductor.submit(following(conductor))
            except psycopg.Error as error:
                return Answer(False, str(error))
        case "backfill":
            return await conductor.submit(ToggleBackfill())
        case "stop":
            return await conductor.submit(StopOurs())
        case "abort":
            try:
                plan = await conductor.plan_abort()
            except DbwatchError as error:
                return Answer(False, str(error))
            return await conductor.submit(Abort(plan.digest, state.database))
        case "take":
            return await conductor.submit(TakeOver("because the referee says so"))
        case "confirm" if state.proposal is not None:
            return await conductor.submit(Confirm(state.proposal.seq, state.database))
        case "note":
            return await conductor.submit(Note("I am here"))
        case _:
            return Answer(False, "there is nothing to do")


def standing(conductor: Conductor) -> dict[str, object]:
    state = conductor.state
    return {
        "driving": conductor.driving,
        "busy": bool(conductor.driver.busy) or not conductor.recovered.is_set(),
        "closed": state.outcome,
        "aborting": state.aborting,
        "aborted": state.abort is not None,
        "proposed": state.proposal is not None,
        "stuck": next(
            (s.id for s in state.steps.values() if s.status in (StepStatus.FAILED, StepStatus.UNKNOWN) and not s.again),
            "",
        ),
        "steps": {s.id: str(s.status) for s in state.steps.values()},
        "differences": list(state.abort.differences) if state.abort else [],
    }


async def sign_actions(conductor: Conductor) -> None:
    """A person's actions of an abort are done as soon as they are asked for."""
    feed = conductor.feed()
    while True:
        for step_id in conductor.awaited:
            await conductor.submit(SignOff(step_id, "undone"))
        await feed.next()


async def answer(conductor: Conductor, line: dict[str, object]) -> None:
    do = str(line["do"])
    if do == "stand":
        say(n=line["n"], **standing(conductor))
        return
    told = await act(conductor, do)
    say(n=line["n"], taken=told.taken, text=told.text)


async def play(runbook: Path, actor: str, folder: Path) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    book = load(runbook, os.environ)
    ground = await join(book, SystemClock(), Wish(actor, folder), lambda _: None)
    async with driving(ground) as conductor:
        signing = asyncio.create_task(sign_actions(conductor))
        under_way: set[asyncio.Task[None]] = set()
        say(ready=True, driving=conductor.driving)
        while line := await reader.readline():
            task = asyncio.create_task(answer(conductor, json.loads(line)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        signing.cancel()


if __name__ == "__main__":
    try:
        asyncio.run(play(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
    except DbwatchError as error:
        say(ready=False, text=str(error))
