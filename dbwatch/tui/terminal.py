"""What the terminal can show: its colours, and whether it is large enough."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from textual.app import ComposeResult
from textual.content import Content
from textual.screen import ModalScreen

from dbwatch.tui.say import Say

SMALLEST = (60, 15)
"""Columns and lines below which nothing useful fits."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """How the screens are coloured."""

    theme: str
    ansi: bool
    """The terminal's own sixteen colours, not ours."""
    animations: Literal["none", "basic", "full"]


def appearance(environ: Mapping[str, str] | None = None) -> Appearance:
    """Our own colours where the terminal says that it has them all, else its sixteen; none of them with NO_COLOR.

    NO_COLOR alone would still send greys in true colour: Textual honours it only under an ANSI theme.
    """
    env = os.environ if environ is None else environ
    rich = env.get("COLORTERM", "").lower() in ("truecolor", "24bit") and env.get("TERM") != "dumb"
    ansi = not rich or "NO_COLOR" in env
    light = env.get("COLORFGBG", "").rpartition(";")[2] in ("7", "15")
    theme = f"{'ansi' if ansi else 'textual'}-{'light' if light else 'dark'}"
    level = env.get("TEXTUAL_ANIMATIONS", "none").lower()
    animations: Literal["none", "basic", "full"] = (
        "full" if level == "full" else "basic" if level == "basic" else "none"
    )
    return Appearance(env.get("TEXTUAL_THEME") or theme, ansi, animations)


def too_small(columns: int, lines: int) -> str:
    """Why nothing can be shown in a terminal of this size; empty where it can."""
    if columns >= SMALLEST[0] and lines >= SMALLEST[1]:
        return ""
    return f"too small: needs {SMALLEST[0]}x{SMALLEST[1]}"


class TooSmall(ModalScreen[None]):
    """Covers everything while the terminal is too small; the app takes it away."""

    DEFAULT_CSS = """
    TooSmall { background: $background; }
    TooSmall Say { width: 100%; height: auto; text-wrap: wrap; }
    """

    def compose(self) -> ComposeResult:
        yield Say(Content(too_small(0, 0)), grows=True)
