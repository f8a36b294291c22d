"""What a table consists of, and how it fits a width: columns, lines, cells. Pure.

Widths are terminal cells, not characters: an ideograph takes two, a combining mark none.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.cells import cell_len

Tone = Literal["", "strong", "dim", "own", "holder", "victim", "good", "warn", "bad"]
"""What a text means. A colour goes with it, never colour alone: the text says the same by a word or a glyph."""

FIRST_FLAG, LAST_FLAG = "\U0001f1e6", "\U0001f1ff"
READABLE = 16
"""So many cells of a text stay beside a remark at its end."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. *width* None: it takes what the others leave; at most one column of a table is such."""

    title: str
    width: int | None
    align: Literal["left", "right"] = "left"
    priority: int = 1
    """Where it is too narrow for all, the lowest priority goes first, and among equals the rightmost."""
    least: int = 16
    """The flexible column keeps at least so much; the others give way before."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A text with a meaning."""

    text: str
    tone: Tone = ""
    tails: tuple[str, ...] = ()
    """Remarks for the right end of the cell, the fullest first; the first that leaves room for the text is shown."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it is shown. *key* names what it is about, so that the cursor can stay on it.

    Where there are fewer cells than columns, the last cell has all the room that is left.
    """

    key: Hashable
    cells: tuple[Cell | str, ...]
    tone: Tone = ""
    """For cells that have none of their own."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a column stands: *index* in the table, first cell *x*, *width* in cells."""

    index: int
    x: int
    width: int
    align: Literal["left", "right"]


def fit(columns: Sequence[Column], width: int, margin: int = 2) -> tuple[Place, ...]:
    """The columns that fit into *width*, behind *margin* cells for the cursor, a gap of one or two between them.

    The last column that is left is kept, whatever the width.
    """
    gap = 2 if width >= 100 else 1
    kept = list(range(len(columns)))

    def needed() -> int:
        sizes = (columns[i].least if (w := columns[i].width) is None else w for i in kept)
        return margin + sum(sizes) + gap * (len(kept) - 1)

    while len(kept) > 1 and needed() > width:
        kept.remove(min(kept, key=lambda i: (columns[i].priority, -i)))
    spare = max(0, width - needed())
    places, x = [], margin
    for index in kept:
        fixed = columns[index].width
        room = columns[index].least + spare if fixed is None else fixed
        room = max(0, min(room, width - x))
        places.append(Place(index, x, room, columns[index].align))
        x += room + gap
    return tuple(places)


def clip(text: str, width: int, align: Literal["left", "right"] = "left") -> str:
    """*text* as exactly *width* cells: padded, or cut with `…`.

    Terminals disagree about marks that pile up and about variation selectors, and a line that is wider than it
    claims wraps into its neighbour: at most two marks stay on a letter, and none stands without one.
    """
    if width <= 0:
        return ""
    if not text.isascii():
        text = _measurable(text[: 4 * width + 4])
    taken = text if len(text) <= width and text.isascii() else _cut(text, width)
    padding = " " * (width - cell_len(taken))
    return padding + taken if align == "right" else taken + padding


def _cut(text: str, width: int) -> str:
    if text.isascii():
        return text if len(text) <= width else text[: width - 1] + "…"
    if cell_len(text) <= width:
        return text
    used, end = 0, 0
    for end, char in enumerate(text):  # noqa: B007 (read after the loop)
        used += cell_len(char)
        if used > width - 1:
            break
    return text[:end] + "…"


def _measurable(text: str) -> str:
    """*text* without what terminals measure differently, with at most two marks on a letter and none at the start."""
    kept: list[str] = []
    marks = 0
    for char in text:
        if FIRST_FLAG <= char <= LAST_FLAG:  # two of them are a flag, in some terminals
            char = chr(ord("A") + ord(char) - ord(FIRST_FLAG))
        if cell_len(char):
            marks = 0
        elif unicodedata.category(char) not in {"Mn", "Me"} or _is_selector(char):
            continue
        else:
            marks += 1
            if marks > 2:
                continue
            if not kept:
                kept.append("◌")
        kept.append(char)
    return "".join(kept)


def _is_selector(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


def cell(value: Cell | str) -> Cell:
    """*value* as a Cell."""
    return Cell(value) if isinstance(value, str) else value


def filled(value: Cell, place: Place) -> str:
    """The text of *value* in exactly the width of *place*, with the remark that there is room for."""
    if not value.tails:
        return clip(value.text, place.width, place.align)
    spare = place.width - min(READABLE, cell_len(value.text)) - 2
    tail = next((t for t in value.tails if cell_len(t) <= spare), value.tails[-1])
    room = place.width - cell_len(tail) - 2
    if room < 1:
        return clip(tail, place.width)
    return clip(value.text, room) + "  " + tail


def laid(line: Line, places: Sequence[Place], width: int) -> Iterator[tuple[Cell, Place]]:
    """The cells of *line* with the places where they stand in a table of *width* cells."""
    last = len(line.cells) - 1
    for place in places:
        if place.index < last or len(line.cells) > places[-1].index:
            yield cell(line.cells[place.index]), place
        else:
            yield cell(line.cells[last]), replace(place, width=width - place.x, align="left")
            return


def differing(old: Line, new: Line, places: Sequence[Place], width: int) -> list[Place] | None:
    """The places where *new* looks different from *old*; None where the whole line does."""
    if old.tone != new.tone or len(old.cells) != len(new.cells):
        return None
    pairs = zip(laid(old, places, width), laid(new, places, width), strict=True)
    return [place for (before, place), (after, _) in pairs if before != after]


def plain(lines: Iterable[Line], columns: Sequence[Column], width: int) -> list[str]:
    """The table as text lines of *width* cells, titles first: what a person sees, without colour."""
    places = fit(columns, width)
    titles = tuple(column.title for column in columns)
    return [_plain_line(line, places, width) for line in (Line(None, titles), *lines)]


def _plain_line(line: Line, places: Sequence[Place], width: int) -> str:
    text = ""
    for value, place in laid(line, places, width):
        text += " " * (place.x - cell_len(text)) + filled(value, place)
    return text.rstrip()
