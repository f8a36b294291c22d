"""The pictures in screenshots/, from the running demo: `make screenshots` sets its stage and drives a window on it.

The server, the load, the migration and the abort are real, and the keys are pressed, by two people. Each has two
screens, one wide and one of 80x24, that look at the same window, so that both show the same moment.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from io import BytesIO
from pathlib import Path

import cairosvg
import fakefeed
import psycopg
from fakefeed import shown
from PIL import Image
from textual.pilot import Pilot

from dbwatch.cli.actor import who
from dbwatch.clock import SystemClock
from dbwatch.demo.stage import DATABASE, Stage, stage
from dbwatch.postgres.session import Connector
from dbwatch.runbook.loader import load
from dbwatch.tui.app import DbwatchApp
from dbwatch.window.driving import driving
from dbwatch.window.feed import Desk, Feed
from dbwatch.window.opening import Wish, attend, enter

FOLDER = Path(__file__).parent.parent / "screenshots"
SIZES = {"wide": (140, 40), "narrow": (80, 24)}
ACTOR, NAVIGATOR = "wei@bastion", "lin@laptop"
PATIENCE_S = 90.0
TRIES = 5
PATIENT_S = 15
"""How long the migration waits for its lock: long enough for a picture, also on a machine that is busy."""
IDLE_S = 30.0
"""How long the report has kept its transaction open when the migration comes."""
COLOURS = 128
"""More a picture does not need."""
FONT = "DejaVu Sans Mono"
"""It has the box characters and the glyphs."""
CELL = 12.2
"""How wide a cell is in a picture, in its own units; it is twice as high."""
SCALE = 12 / CELL


class Seat:
    """One screen. What is done at it is done in its own context: Textual finds the app of a widget there."""

    def __init__(self, pilot: Pilot[None]) -> None:
        """Captures the context that `run_test` has just entered."""
        self._pilot = pilot
        self._context = copy_context()

    @property
    def text(self) -> str:
        """What it shows."""
        return shown(self._pilot.app)

    async def press(self, *keys: str) -> None:
        """Presses *keys*, one after the other."""
        await asyncio.create_task(self._pilot.press(*keys), context=self._context)

    async def picture(self) -> str:
        """What it shows, once it has come to rest, as SVG."""
        await asyncio.create_task(self._pilot.pause(), context=self._context)
        return self._context.run(self._pilot.app.export_screenshot, simplify=True)


class Story:
    """Two screens over one window. Keys that only look go to both, those that act to one."""

    def __init__(self, screens: dict[str, Seat]) -> None:
        self._screens = screens

    async def look(self, *keys: str) -> None:
        """Presses *keys* at both screens."""
        for seat in self._screens.values():
            await seat.press(*keys)

    async def act(self, *keys: str) -> None:
        """Presses *keys* at the wide screen."""
        await self._screens["wide"].press(*keys)

    async def until(self, pattern: str, *on: str, within: float = PATIENCE_S) -> None:
        """Waits until *pattern* is found on the screens *on*: without any, on both."""
        for name in on or tuple(self._screens):
            seat = self._screens[name]
            try:
                async with asyncio.timeout(within):
                    while not re.search(pattern, seat.text):  # noqa: ASYNC110  # a screen tells nobody what it shows
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise SystemExit(f"not within {within:g} s: {pattern!r}; the {name} screen:\n{seat.text}") from None

    def shows(self, part: str) -> bool:
        """Whether *part* is on every screen now."""
        return all(part in seat.text for seat in self._screens.values())

    async def take(self, name: str) -> None:
        """One picture of each screen."""
        for size, seat in self._screens.items():
            (FOLDER / f"{size}-{name}.svg").write_text(_own_fonts(await seat.picture()))
        print(f"  {name}", file=sys.stderr, flush=True)


def _own_fonts(svg: str) -> str:
    """*svg* without the fonts that would be fetched from elsewhere, in one whose cells are as wide as the picture's."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;]*;", f"font-family: {FONT}, Menlo, Consolas, monospace;", svg)
    return svg.replace("font-size: 20px", "font-size: 20.26px")


def _png(svg: str) -> bytes:
    """*svg* as pixels, so large that a cell is 12 by 24 of them: else bars and frames have seams.

    Every character gets a place of its own: CairoSVG does not know textLength, and rounds a font's widths.
    """

    def placed(text: re.Match[str]) -> str:
        x, cells = float(text["x"]), round(float(text["length"]) / CELL)
        return f'{text["before"]}x="{" ".join(f"{x + CELL * n:.1f}" for n in range(cells))}"{text["after"]}'

    svg = svg.replace("translate(9, 41)", f"translate({9 / SCALE:.3f}, {41 / SCALE:.3f})")
    svg = re.sub(
        r'(?P<before><text [^>]*)x="(?P<x>[\d.]+)"(?P<after>[^>]*textLength="(?P<length>[\d.]+)")', placed, svg
    )
    painted = Image.open(BytesIO(cairosvg.svg2png(svg.encode(), scale=SCALE)))
    small = BytesIO()
    painted.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


async def tell(story: Story, other: Story, set_up: Stage) -> None:
    """What the pictures show, in their order; *other* is the second person's."""
    await story.until(r"driver wei \(you\)", "wide")
    await story.act("2")
    await story.until(r"tps \d")
    await story.take("start")
    await _sign_off(story, "preview", "read by lin")
    async with _reports(set_up.dsn):
        await _sees_a_lock(story)
    await story.until("✓ add", "wide")
    await _sign_off(story, "deploy", "v0.8.0 is out")
    await _sees_the_backfill(story, other)
    await _needs_a_second_person(story, other)
    await _sees_the_way_back(story)


async def _sign_off(story: Story, step: str, note: str) -> None:
    await story.until(f"n sign off {step}", "wide")
    await story.act("n")
    await story.until(f"Sign off {step}", "wide")
    await story.act(*note, "enter")
    await story.until(f"✓ {step}", "wide")


async def _sees_a_lock(story: Story) -> None:
    """The migration waits behind a session that has forgotten its transaction, and the application behind both."""
    await story.until("n run add", "wide")
    await story.look("3")
    await story.act("n")
    await story.until(r"└ \d+ .*ALTER TABLE users[\s\S]*app-\d[\s\S]*app-\d", "wide")
    await story.take("locks")
    for _ in range(TRIES):
        await story.until(r"└ \d+ .*wants AccessExclusive")
        await story.look("K")
        if story.shows("Terminate this session"):
            break
        await story.look("escape")
    await story.until("Terminate this session")
    await story.take("terminate")
    await story.look("escape")


async def _sees_the_backfill(story: Story, other: Story) -> None:
    """It runs, and then a while gentler: rows, what an abort would mean, its rate over time, others' statements."""
    await story.until("n run fill", "wide")
    await story.look("7")
    await story.act("b")
    await story.until(r"[1-5]\d\.\d %[\s\S]*in stripes")
    await story.take("backfill")
    await story.act(*"[[[[")
    await story.look("1", "A")
    await story.until("Type the database's name to begin")
    await story.take("abort")
    await story.look("escape")
    await other.act("M")
    await other.until("Mark this moment", "wide")
    await other.act(*"v0.8.1 is out", "enter")
    await story.look("8")
    await story.until("★")
    await story.take("charts")
    await story.look("4")
    await story.until(r"\d+ statements since")
    await story.take("statements")
    await story.look("question_mark")
    await story.until("Panes")
    await story.take("help")
    await story.look("escape")


async def _needs_a_second_person(story: Story, other: Story) -> None:
    """The step past which there is no whole way back: its driver types the name, and so has a second person to."""
    await story.act(*"]]]]]]")
    await story.until("n run complete", "wide")
    await story.act("n")
    await story.until("n run index", "wide")
    await story.act("n")
    await story.until("n run same", "wide")
    await story.act("n")
    await _sign_off(story, "nobody", "not one scan since the opening")
    await story.until("n propose drop", "wide")
    await story.look("1", "n")
    await story.until("Past drop there is no whole way back")
    await story.take("no-return")
    await story.look("escape")
    await story.act("n")
    await story.until("Past drop there is no whole way back", "wide")
    await story.act(*DATABASE, "enter")
    await other.look("1")
    await other.until("wei proposes drop and waits for you")
    await other.take("navigator")
    await other.look("n")
    await other.until("you are the second person")
    await other.take("confirmation")
    await other.act("f4")
    await other.until("Decline drop", "wide")
    await other.act(*"not before the stable week is over", "enter")
    await other.until("not confirmed: not before", "wide")
    await other.look("escape")


async def _sees_the_way_back(story: Story) -> None:
    """The plan once more, the database's name, a person's part, and the proof."""
    await story.look("1", "A")
    await story.until("Type the database's name to begin")
    await story.act(*DATABASE, "enter")
    await story.until("Waits for a person", "wide")
    await story.act("f3")
    await story.until("Sign off deploy", "wide")
    await story.act(*"v0.7.0 is back", "enter")
    await story.until("back: the schema equals")
    await story.take("verdict")
    await story.look("escape", "9")
    await story.until("window closed: aborted")
    await story.take("journal")


@asynccontextmanager
async def _reports(dsn: str) -> AsyncIterator[None]:
    """A report whose transaction was left open a while ago."""
    async with await psycopg.AsyncConnection.connect(dsn, application_name="reports") as connection:
        await connection.execute("SELECT city, count(*) FROM users GROUP BY city ORDER BY 2 DESC LIMIT 20")
        await asyncio.sleep(IDLE_S)
        yield


@asynccontextmanager
async def _screens(feed: Callable[[], Feed], desk: Desk) -> AsyncIterator[Story]:
    """A wide and a narrow screen at one place."""
    async with AsyncExitStack() as running:
        seats = {}
        for name, size in SIZES.items():
            app = DbwatchApp(feed(), desk, environ={"COLORTERM": "truecolor"})
            seats[name] = Seat(await running.enter_async_context(app.run_test(size=size)))
        yield Story(seats)


async def _unknown() -> None:
    """What is asked where nobody knows how a step ended: that cannot be staged, its frame is made by hand."""
    async with _screens(lambda: fakefeed.FakeFeed(fakefeed.frames()["add unknown"]), fakefeed.FakeDesk()) as story:
        await story.look("n")
        await story.until("Nobody knows how add ended")
        await story.take("unknown")


async def main() -> None:
    """Drives the demo's window, with a second person at it, and takes the pictures."""
    os.environ["DBWATCH_ACTOR"] = ACTOR
    FOLDER.mkdir(exist_ok=True)
    await _unknown()
    async with stage(progress=_progress) as set_up:
        asked = set_up.runbook.read_text().replace('id = "drop"\n', 'id = "drop"\nconfirm = "navigator"\n')
        set_up.runbook.write_text(asked.replace('lock_timeout = "2s"', f'lock_timeout = "{PATIENT_S}s"'))
        book = load(set_up.runbook, {**os.environ, "SHOP_DSN": set_up.dsn})
        ground = await enter(book, SystemClock(), Wish(who(""), set_up.project / "state"), _progress)
        async with driving(ground) as conductor, _screens(conductor.feed, conductor) as story:
            wish = Wish(NAVIGATOR, set_up.project / "lin")
            joined = await attend(Connector(set_up.dsn), SystemClock(), wish, _progress)
            async with driving(joined) as navigator, _screens(navigator.feed, navigator) as other:
                await tell(story, other, set_up)
    for picture in sorted(FOLDER.glob("*.svg")):
        picture.with_suffix(".png").write_bytes(_png(picture.read_text()))


def _progress(text: str) -> None:
    print(f"  {text} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
