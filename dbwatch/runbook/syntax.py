"""Reads TOML, and goes on after a mistake where that is safe, so that one slip does not hide the others. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dbwatch.runbook.locate import Outline, Path, Place, outline
from dbwatch.runbook.mistakes import Mistake, at
from dbwatch.runbook.values import quoted
from dbwatch.text import one_line

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_MOST = 20
"""Mistakes of syntax after which a text is given up."""

_NO_STATEMENT = ("TOML: expected '=' after a key", "TOML: invalid statement")
"""After a line that was left out, this is its continuation: text of several lines in single quotes."""

_LARGE = ("a number does not fit into 64 bits", "write a smaller one, or text")
"""TOML's own limit; Python would read it and then, in decimals, refuse to show it."""

_MENDS = (
    ("Cannot overwrite", "keep one of the two"),
    ("Cannot declare", "keep one of the two; a list of tables needs double brackets, [[phase]]"),
    ("Invalid value", 'text and durations stand in quotes: to = "head"'),
    ("Expected newline", 'text and durations stand in quotes: budget = "60min"'),
    ("Expected '='", 'write key = "value"'),
    ("Expected ']", "close the brackets of the header"),
    ("Illegal character", 'close the quotes, or use """ for text of several lines'),
    ("Unterminated string", "close the quotes"),
    ("Expected \"'", "close the quotes"),
    ("Unclosed array", "close the list with ]"),
    ("Unclosed inline table", "close the table with }, on one line"),
    ("Unescaped '\\'", "write \\\\ for a backslash, or put the text in single quotes"),
)


@dataclass(frozen=True, slots=True)
class Read:
    """What could be read of a text."""

    data: dict[str, object] | None
    """None where nothing sure can be said of what the text holds."""
    places: Outline
    mistakes: tuple[Mistake, ...]
    damaged: frozenset[Path]
    """Tables from which a statement was left out: nobody can say that a key is missing there."""


def read(text: str) -> Read:
    """The values of *text* and its mistakes of syntax; lines end in a line feed alone.

    A refused `key = value` on one line is left out, and the rest is read; after any other mistake, such as a header
    or a string without an end, what follows cannot be told apart, and only the mistakes so far are told.
    """
    mistakes: list[Mistake] = []
    damaged: set[Path] = set()
    followers: set[int] = set()
    for _ in range(_MOST):
        try:
            data: dict[str, object] = tomllib.loads(text)
        except RecursionError:
            mistakes.append(Mistake(None, None, "lists or tables are nested too deeply", "write it flat"))
            break
        except ValueError as error:  # TOMLDecodeError is one; int() raises another, for over 4300 digits
            mistake, slip = _slip(text, str(error))
            if not (mistake.line in followers and mistake.what.startswith(_NO_STATEMENT)):
                mistakes.append(mistake)
            if slip is None:
                break
            text = _without_line(text, slip.line)
            followers.add(slip.line + 1)
            damaged.add(slip.table)
        else:
            places = outline(text)
            large = [at(places.find(path), *_LARGE) for path in _large(data)]
            return Read(None if large else data, places, (*mistakes, *large), frozenset(damaged))
    mistakes[-1] = replace(mistakes[-1], mend=f"{mistakes[-1].mend}; what follows was not read")
    return Read(None, outline(""), tuple(mistakes), frozenset())


def _large(value: object, path: Path = ()) -> Iterator[Path]:
    """The paths of all whole numbers that do not fit into 64 bits."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _large(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _large(inner, (*path, index))


@dataclass(frozen=True, slots=True)
class _Slip:
    """A `key = value` that can be left out."""

    line: int
    table: Path


def _slip(text: str, message: str) -> tuple[Mistake, _Slip | None]:
    position = _POSITION.search(message)
    if position is None:
        return Mistake(None, None, *_LARGE), None
    message = message[: position.start()]
    noticed = Place(int(position[1]), int(position[2])) if position[1] else None
    last = outline(text if noticed is None else _before(text, noticed)).last
    mend = next((mend for start, mend in _MENDS if message.startswith(start)), "see toml.io for the format")
    what = f"TOML: {message[:1].lower()}{one_line(message[1:], 200)}"
    if last is None:
        return at(noticed or Place(1, 1), what, mend), None
    place = noticed or last.place
    if message.startswith(("Cannot overwrite", "Cannot declare", "Cannot mutate")):
        place = last.place
        if last.before is not None:
            what = f"{quoted('.'.join(str(part) for part in last.key))} stands twice"
            mend = f"{mend}; the first is in line {last.before.line}"
    elif last.place.line < place.line:
        mend = f"{mend}; it begins in line {last.place.line}"
    single = not last.header and last.place.line == (noticed or last.place).line
    at_end = noticed is None and last.place.line <= text.rstrip().count("\n")
    return at(place, what, mend), _Slip(last.place.line, last.table) if single and not at_end else None


def _before(text: str, place: Place) -> str:
    """What stands before *place*."""
    lines = text.split("\n")
    return "\n".join([*lines[: place.line - 1], lines[place.line - 1][: place.column - 1]])


def _without_line(text: str, line: int) -> str:
    """*text* with this line empty: the places of all others stay."""
    lines = text.split("\n")
    lines[line - 1] = ""
    return "\n".join(lines)
