"""Hostile text reaches no terminal as anything but visible characters: asserted on the bytes in a pty."""

from __future__ import annotations

import asyncio
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hostile import PAYLOADS
from jam import Jam
from servers import Database
from terminal import Terminal, controls, printed, terminal

from dbwatch.text import sanitize

HOST = [sys.executable, str(Path(__file__).with_name("hostile.py"))]
NEVER = {"Cc", "Cf", "Cs", "Zl", "Zp"}
PANES = "2345789"
DIALOGS = ("2 C escape", "3 K escape", "A down escape", "? escape", "/ x escape", "n escape", "X escape", "1 d escape")
AFTER_ESCAPE_S = 0.15
"""A key that follows sooner makes a key with Alt of the two."""
WIDE, NARROW = (140, 45), (80, 24)


TEXTUAL = {
    "0x0a", "0x0d", "CSI H", "CSI m", "] 22",
    *(f"CSI ? {way} {mode}" for way in "hl" for mode in (7, 25, 1000, 1003, 1004, 1006, 1015, 1049, 2004)),
    "CSI > u 25", "CSI < u", "CSI ? $ p",
}  # fmt: skip
"""All that Textual itself sends: positions, colours, modes of mouse, paste, focus and keyboard, the pointer's shape."""
EVIL = "e\x1b[2J\x1b]0;x\x9b3J\u202e\u200b[/][@click=app.quit]日"


def hostile_characters(stream: str) -> set[str]:
    """What of *stream* is neither text nor a whole control sequence, and yet no visible character."""
    return {char for char in printed(stream) if unicodedata.category(char) in NEVER}


async def walk_through(shown: Terminal) -> None:
    """Everything that a person can look at: each pane and its detail, the dialogs, the help, the filter."""
    await shown.until("live")
    for keys in (*(f"{pane} down end s d down escape" for pane in PANES), *DIALOGS):
        for key in keys.split():
            shown.press(key)
            await shown.quiet(AFTER_ESCAPE_S if key == "escape" else 0.05)


async def stream_of(command: Sequence[str], size: tuple[int, int], folder: Path) -> str:
    """All bytes of a walk through the app. Fails where it does not leave by `q` with exit code 0."""
    async with terminal(command, columns=size[0], rows=size[1], cwd=folder) as shown:
        await walk_through(shown)
        await leave(shown)
        return shown.stream


async def leave(shown: Terminal) -> None:
    """Leaves by `q`, which closes a dialog that is still open, and by `y` once that is asked."""
    for key in ("q", "y") * 20:
        with suppress(OSError):
            shown.press(key)
        with suppress(AssertionError):
            assert await shown.ended(0.5) == 0, shown.text
            return
    assert await shown.ended(1) == 0, shown.text


DRAWN = {"very long and combining", "combining", "very long", "very long and wide"}
"""Made shorter, but nothing in them acts on a terminal."""


@pytest.mark.parametrize("name", [n for n, text in PAYLOADS.items() if sanitize(text) != text and n not in DRAWN])
def test_the_check_would_see_a_text_that_was_not_sanitized(name: str) -> None:
    assert hostile_characters(PAYLOADS[name]) or controls(PAYLOADS[name])


@pytest.mark.parametrize("text", PAYLOADS.values(), ids=PAYLOADS)
def test_sanitized_text_has_no_control_and_stays_as_it_is(text: str) -> None:
    once = sanitize(text)
    assert not hostile_characters(once)
    assert not controls(once)
    assert sanitize(once) == once
    assert len(once) <= 20_000


async def test_no_control_reaches_the_terminal_but_those_that_draw(tmp_path: Path) -> None:
    plain, wide, narrow = await asyncio.gather(
        stream_of([*HOST, "harmless"], WIDE, tmp_path),
        stream_of([*HOST, "hostile"], WIDE, tmp_path),
        stream_of([*HOST, "hostile"], NARROW, tmp_path),
    )
    assert controls(plain) <= TEXTUAL
    for stream in (wide, narrow):
        assert controls(stream) <= TEXTUAL
        assert hostile_characters(stream) == set()


async def test_names_and_queries_of_a_real_server_are_only_text(db18: Database, tmp_path: Path) -> None:
    table = f'"{EVIL}"'
    await db18.sql(
        "CREATE EXTENSION pg_stat_statements", f"CREATE TABLE {table} ({table} int)",
        f'CREATE INDEX "{EVIL}i" ON {table} ({table})',
    )  # fmt: skip
    jam = Jam(db18)
    try:
        await jam.holds(EVIL, f"LOCK TABLE {table} /* {EVIL} */")
        await jam.waits("[/][red]x", f"TABLE /* {EVIL} */ {table}")
        command = [sys.executable, "-m", "dbwatch", "watch", db18.dsn]
        async with terminal(command, columns=WIDE[0], rows=WIDE[1], cwd=tmp_path) as shown:
            await shown.until("live")
            for pane, there in (("2", "[/][red]x"), ("3", "└ "), ("5", "e␛[2J␛]0;x·3J··[/]"), ("4", "◆"), ("3", "└ ")):
                shown.press(pane)
                await shown.until(there)
                for key in ("down", "d", "escape", "C", "escape"):
                    shown.press(key)
                    await shown.quiet(AFTER_ESCAPE_S)
            await leave(shown)
            assert controls(shown.stream) <= TEXTUAL
            assert hostile_characters(shown.stream) == set()
    finally:
        await jam.close()


async def test_markup_is_shown_as_it_is_and_does_nothing_when_clicked() -> None:
    async with terminal([*HOST, "still"], columns=140, rows=45) as shown:
        await shown.until("[@click=app.quit]press[/]")
        shown.press("2")
        await shown.quiet()
        assert "[/] [/foo] [b + x" in shown.text
        assert "[red]x[/red] [on blue]y" in shown.text
        y, line = next((y, line) for y, line in enumerate(shown.lines, 1) if "[@click=app.quit]press" in line[60:])
        x = line.index("press", 60) + 2
        for button in ("M", "m", "M", "m"):
            shown.press(f"\x1b[<0;{x};{y}{button}")
            await shown.quiet(0.1)
        shown.press("escape")
        await shown.quiet(AFTER_ESCAPE_S)
        shown.press("3")
        await shown.until("└ ")
        await leave(shown)


async def test_pasted_text_is_foreign_too() -> None:
    async with terminal([*HOST, "harmless"], columns=120, rows=40) as shown:
        await shown.until("live")
        shown.press("2", "/")
        await shown.until("only rows with this text")
        shown.press("\x1b[200~a\u202eb\x9b2Jc\u200bd\te\x1b[201~")
        await shown.until("a·b·2Jc·d e")
        assert controls(shown.stream) <= TEXTUAL
        assert hostile_characters(shown.stream) == set()
