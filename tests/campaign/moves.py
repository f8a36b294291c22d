"""What may happen to two people at a window: each move is tried, whatever state they are in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from dbwatch.journal.fold import StepStatus
from dbwatch.window.rollback import STOP_S

if TYPE_CHECKING:
    from campaign.referee import Referee


async def _both_press_n(referee: Referee, name: str, other: str) -> None:
    await asyncio.gather(referee.tell(name, "n"), referee.tell(other, "n"))


async def _n(referee: Referee, name: str, other: str) -> None:
    """Who drives presses n; the other confirms what waits for a second person."""
    driving = [p for p in (name, other) if (await referee.tell(p, "n", 6.0)).get("driving")]
    if driving:
        await asyncio.gather(*(referee.tell(p, "confirm", 6.0) for p in (name, other) if p not in driving))


async def _run(referee: Referee, name: str, other: str) -> None:
    """Some steps in a row."""
    pauses = [referee.dice.choice((0.05, 0.4, 1.0)) for _ in range(referee.dice.randint(2, 6))]
    for pause in pauses:
        await _n(referee, name, other)
        await asyncio.sleep(pause)
        found = await referee.found()
        if found is None or found.outcome or found.state.abort is not None:
            return
        if any(step.status is StepStatus.FAILED and not step.again for step in found.state.steps.values()):
            return


async def _abort_against_run(referee: Referee, name: str, other: str) -> None:
    async def abort() -> None:
        await asyncio.sleep(referee.dice.choice((0.0, 0.02, 0.1, 0.4)))
        await referee.tell(other, "abort", STOP_S + 10)

    await asyncio.gather(referee.tell(name, "n"), abort())


async def _undone(referee: Referee, name: str, other: str) -> None:
    await asyncio.gather(referee.tell(name, "undone"), referee.tell(other, "undone"))


async def _stop(referee: Referee, name: str, _: str) -> None:
    await referee.tell(name, "stop")


async def _backfill(referee: Referee, name: str, _: str) -> None:
    await referee.tell(name, "backfill")


async def _note(referee: Referee, name: str, _: str) -> None:
    await referee.tell(name, "note")


async def _take_over(referee: Referee, name: str, _: str) -> None:
    await referee.tell(name, "take-over", 25.0, reason=referee.dice.choice(("", "I can see more", "wei is asleep")))


async def _take_over_both(referee: Referee, name: str, other: str) -> None:
    await asyncio.gather(*(referee.tell(p, "take-over", 25.0, reason="mine") for p in (name, other)))


async def _take_over_from_a_stopped_one(referee: Referee, name: str, other: str) -> None:
    """The driver sleeps in the middle of something; the other takes the wheel; the sleeper wakes."""
    referee.behind(_quietly(referee.tell(name, "n")))
    await asyncio.sleep(referee.dice.choice((0.0, 0.05, 0.2, 0.5)))
    referee.sleeping(name, referee.dice.choice((1.0, 3.0, 6.0)))
    await referee.tell(other, "take-over", 25.0, reason="they sleep")
    await referee.tell(other, "n", 6.0)


async def _quietly(work: Awaitable[object]) -> None:
    await work


async def _kill(referee: Referee, name: str, other: str) -> None:
    """kill -9 in the middle of something; the other takes the wheel, or the same person comes back."""
    referee.behind(_quietly(referee.tell(name, referee.dice.choice(("n", "n", "n", "abort", "note")))))
    await asyncio.sleep(referee.dice.choice((0.0, 0.01, 0.05, 0.2, 0.5, 1.0)))
    referee.seats[name].kill()
    referee.result.kills += 1
    referee.log(f"{name} is killed")
    if referee.dice.random() < 0.6:
        await referee.tell(other, "take-over", 25.0, reason="they died")
    await _come_back(referee, name, other)


async def _leave(referee: Referee, name: str, other: str) -> None:
    took = await referee.seats[name].leave()
    referee.log(f"{name} left in {took:.1f} s")
    if took > 4.0 and not referee.seats[name].stopped and referee.seats[name].entered.get("in"):
        referee.log(f"{name} was slow to leave")
    await _come_back(referee, name, other)


async def _come_back(referee: Referee, name: str, _: str) -> None:
    """A player sits down anew, where theirs is gone or is to be replaced."""
    chance = referee.dice
    role = chance.choice(("join", "join", "attend", "drive"))
    await referee.sit(name, role, chance.choice(("", "", "I am back")) if role != "attend" else "")
    if chance.random() < 0.8:
        await referee.inside(name)
    else:
        await asyncio.sleep(chance.uniform(0.0, 1.2))


async def _restart(referee: Referee, name: str, _: str) -> None:
    referee.behind(_quietly(referee.tell(name, referee.dice.choice(("n", "abort")), STOP_S + 10)))
    await asyncio.sleep(referee.dice.choice((0.0, 0.05, 0.3, 0.8)))
    await referee.restart(referee.dice.choice(("fast", "immediate", "kill9")))


async def _cut(referee: Referee, name: str, _: str) -> None:
    referee.behind(_quietly(referee.tell(name, "n")))
    await asyncio.sleep(referee.dice.choice((0.0, 0.02, 0.1, 0.3)))
    proxy, way = referee.proxies[name], referee.dice.choice(("cut", "answer", "commit", "stall", "die"))
    referee.log(f"{name}'s line: {way}")
    match way:
        case "cut":
            proxy.cut()
        case "answer":
            proxy.drop_next_answer()
        case "commit":
            proxy.drop_answer_to(b"COMMIT")
        case "die":
            proxy.die_at(referee.dice.randint(1, 30), arrives=referee.dice.random() < 0.5)
        case "stall":
            proxy.stall()
            await asyncio.sleep(referee.dice.choice((0.5, 2.0, 6.0)))
            proxy.resume()


Move = Callable[["Referee", str, str], Awaitable[None]]
MOVES: dict[str, tuple[float, Move]] = {
    name: (weight, how)
    for name, weight, how in (
        ("n", 6.0, _n),
        ("run", 8.0, _run),
        ("both press n", 4.0, _both_press_n),
        ("abort against run", 1.2, _abort_against_run),
        ("undone", 1.0, _undone),
        ("stop", 1.0, _stop),
        ("backfill", 1.5, _backfill),
        ("note", 0.5, _note),
        ("take over", 1.5, _take_over),
        ("both take over", 0.7, _take_over_both),
        ("take over from a stopped one", 2.0, _take_over_from_a_stopped_one),
        ("kill -9", 3.0, _kill),
        ("leave and come back", 1.2, _leave),
        ("server restart", 0.8, _restart),
        ("line cut", 2.0, _cut),
    )
}
"""By name: how often it is drawn, and what it does."""
