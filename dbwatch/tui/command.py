"""What a person can do with a key, and what decides whether they can do it now. Values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from dbwatch.window.feed import WindowView


class Group(StrEnum):
    """The headings of the help screen."""

    PANES = "Panes"
    WINDOW = "The window"
    SESSIONS = "Sessions"
    TABLE = "The pane in front"
    SCREEN = "The screen"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that decides which commands can be given now."""

    window: WindowView | None = None
    accepts: frozenset[type] = frozenset()
    """The intents that the desk takes; empty without a desk."""
    pane: str = ""
    """The pane in front: the name of its command."""
    can: frozenset[str] = frozenset()
    """What the pane in front can do: filter, sort, export, detail."""
    session: bool = False
    """Whether the cursor is on a session of the server's."""
    step: str | None = None
    """The step under the Plan's cursor."""
    aside: bool = False
    """Whether the cursor is on a row that a backfill has set aside."""


Offered = Callable[[Situation], bool]
Refusal = Callable[[Situation], str]


def always(_: Situation) -> bool:
    """Every screen has it."""
    return True


def granted(_: Situation) -> str:
    """Nothing speaks against it."""
    return ""


@dataclass(frozen=True, slots=True)
class Command:
    """Something that a person can do with a key."""

    name: str
    """Also the name of the app's method: `do_<name>`."""
    keys: tuple[str, ...]
    """Textual's names of the keys."""
    key: str
    """As shown."""
    word: str
    """In the footer."""
    about: str
    """In the help and the palette."""
    group: Group
    offered: Offered = always
    refusal: Refusal = granted
    wording: Callable[[Situation], str] | None = None
    """What the key would do just now, where that is more than *word* says."""
    footer: int = 0
    """Which goes first where the footer is too narrow for all: 1 stays longest; 0 is not in the footer."""

    def said(self, situation: Situation) -> str:
        """The word in the footer."""
        return self.wording(situation) if self.wording is not None else self.word
