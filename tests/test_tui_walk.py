"""Any key in any state at any size: nothing crashes, nothing hangs, and nothing happens unasked."""

from __future__ import annotations

import asyncio
import random

import fakefeed as ff
import pytest
from seat import Seat, seat
from textual import events

from dbwatch.tui.keys import COMMANDS
from dbwatch.window import intents

FRAMES = ff.frames()
LEAVING = ("q", "ctrl+q", "ctrl+c")
KEYS = [key for command in COMMANDS for key in command.keys if key not in LEAVING]
KEYS += ["up", "down", "pageup", "pagedown", "home", "end", "tab", "escape", "enter", "f2", "f3", "y", "r", "a", "0"]
CHARACTERS = {"slash": "/", "plus": "+", "minus": "-", "question_mark": "?", "left_square_bracket": "[",
              "right_square_bracket": "]", "enter": "\r", "escape": "\x1b"}  # fmt: skip
SIZES = ((140, 40), (120, 30), (80, 24), (60, 15), (20, 5))


async def tap(at: Seat, key: str) -> None:
    """A key as the terminal sends it. It waits for no screen to come to rest: a person does not either."""
    driver = at.app._driver
    assert driver is not None
    driver.send_message(events.Key(key, key if len(key) == 1 else CHARACTERS.get(key)))
    for _ in range(8):
        await asyncio.sleep(0)


async def walk(at: Seat, seed: int, steps: int) -> None:
    """Presses keys, plays frames, lets time pass and changes the size, by chance but always the same for a seed."""
    chance = random.Random(seed)
    for _ in range(steps):
        dice = chance.random()
        if dice < 0.85:
            await tap(at, chance.choice(KEYS))
        elif dice < 0.95:
            await at.push(FRAMES[chance.choice(ff.ALL_FRAMES)])
        elif dice < 0.97:
            at.clock.at += chance.choice((0.5, 3.0, 40.0))
            at.app._tick()
        else:
            await at.resize(chance.choice(SIZES))
        assert at.app.is_running


@pytest.mark.parametrize("seed", range(6))
async def test_a_walk_over_the_keyboard_breaks_nothing(seed: int) -> None:
    desk = ff.FakeDesk(silent=seed % 3 == 2)
    async with seat("filling", SIZES[seed % 4], desk=desk) as at:
        await walk(at, seed, 150)
        await at.press("escape", "escape", "escape")
        await at.resize((140, 40))
        await at.press("escape", "escape", "3")
        assert at.front == "locks"


@pytest.mark.parametrize("name", ff.ALL_FRAMES)
async def test_every_key_in_every_state(name: str) -> None:
    async with seat(name, (80, 24)) as at:
        for key in KEYS:
            await tap(at, key)
            await tap(at, "escape")
            while len(at.app.screen_stack) > 1:
                await tap(at, "escape")
        await at.pilot.pause()
        assert at.app.is_running
        assert not any(isinstance(intent, intents.Signal | intents.Abort | intents.SignOff) for intent in at.desk.asked)
