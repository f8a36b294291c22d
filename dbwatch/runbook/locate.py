"""Where does each key of a TOML text stand? tomllib reads values and forgets their lines; this keeps the lines.

A scanner of what tomllib has accepted already, so it only has to tell the parts apart (headers, keys, strings,
lists, inline tables), not to judge them. Given a text that tomllib refused, it is scanned as far as it makes sense:
the statement begun last is then the one that the refusal is about. Pure.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Keys and positions in lists, from the top: ("phase", 0, "step", 2, "to")."""

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_END = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_KEY = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"|\'[^\'\n]*\'|[A-Za-z0-9_-]+')
# A multi-line string may end in up to two quotes of its own before the three that close it.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\[^\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^\s,\]}#\"']+(?: [0-9][^\s,\]}#]*)?")  # a date and its time may be parted by a space

_DEEPEST = 50
"""Parts of a dotted key; beyond, the scan gives up: noting each of n parts with its path takes n^2."""


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a text, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A header or a `key = value`."""

    place: Place
    table: Path
    """The table that it stands in; of a header, the table before it."""
    key: Path
    """What it defines; empty where that could not be made out."""
    header: bool
    before: Place | None
    """Where the same key was defined before."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The places of all keys, tables and elements of a text."""

    places: Mapping[Path, Place]
    last: Statement | None
    """The statement begun last; None in a text without any."""
    complete: bool
    """Whether the scan came to the end of the text."""

    def find(self, path: Path) -> Place:
        """Where *path* stands; where it stands nowhere, the table or list around it; at last the text's first line."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path] if path else Place(1, 1)


def outline(text: str) -> Outline:
    """The outline of *text*, whose lines end in a line feed alone. Never raises."""
    scan = _Scan(text)
    try:
        while scan.statement():
            pass
    except (_LostError, RecursionError):
        return scan.outline(complete=False)
    return scan.outline(complete=True)


class _LostError(Exception):
    """The text is not what the scanner expects."""


class _Scan:
    """A position that moves through a text and notes what it passes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._offsets: dict[Path, int] = {}
        self._sizes: dict[Path, int] = {}
        """How many elements each list of [[tables]] has so far."""
        self._table: Path = ()
        self._begun: tuple[int, Path, bool] | None = None
        self._key: Path = ()
        self._before: int | None = None

    def outline(self, *, complete: bool) -> Outline:
        places = {path: self._place(offset) for path, offset in self._offsets.items()}
        if self._begun is None:
            return Outline(places, None, complete)
        offset, table, header = self._begun
        before = None if self._before is None else self._place(self._before)
        return Outline(places, Statement(self._place(offset), table, self._key, header, before), complete)

    def statement(self) -> bool:
        """Passes one statement; False at the end of the text."""
        self._match(_BLANK)
        if self._at >= len(self._text):
            return False
        header = self._text.startswith("[", self._at)
        self._begun, self._key, self._before = (self._at, self._table, header), (), None
        if header:
            self._header()
        else:
            self._pair(self._table, outermost=True)
        self._match(_END)
        return True

    def _header(self) -> None:
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        self._match(_SPACE)
        *outer, (name, offset) = self._keys()
        path: Path = ()
        passed: list[tuple[Path, int]] = []
        for part, at in outer:
            path = (*path, part)
            passed.append((path, at))
            if path in self._sizes:
                path = (*path, self._sizes[path] - 1)
        path = (*path, name)
        self._key, self._before = path, self._offsets.get(path)
        self._match(_SPACE)
        self._expect("]" * brackets)
        for implied, at in passed:
            self._offsets.setdefault(implied, at)
        if brackets == 2:
            index = self._sizes.get(path, 0)
            self._sizes[path] = index + 1
            self._offsets.setdefault(path, offset)
            path = (*path, index)
        self._offsets[path] = offset  # its own header is the table's place, not an earlier [table.part]
        self._table = path

    def _pair(self, table: Path, *, outermost: bool = False) -> None:
        path = table
        for name, offset in self._keys():
            path = (*path, name)
            before = self._offsets.setdefault(path, offset)
        if outermost:
            self._key, self._before = path, before if before != offset else None
        self._match(_SPACE)
        self._expect("=")
        self._match(_SPACE)
        self._value(path)

    def _keys(self) -> list[tuple[str, int]]:
        """The parts of a dotted key, each with its offset."""
        parts = [self._part()]
        while True:
            self._match(_SPACE)
            if not self._text.startswith(".", self._at):
                return parts
            if len(parts) == _DEEPEST:
                raise _LostError
            self._at += 1
            self._match(_SPACE)
            parts.append(self._part())

    def _part(self) -> tuple[str, int]:
        offset = self._at
        raw = self._match(_KEY)
        if raw[0] not in "\"'":
            return raw, offset
        try:
            name = tomllib.loads(f"key = {raw}")["key"]
        except tomllib.TOMLDecodeError:
            raise _LostError from None
        return str(name), offset

    def _value(self, path: Path) -> None:
        match self._text[self._at : self._at + 1]:
            case "[":
                self._list(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._match(_STRING)
            case _:
                self._match(_SCALAR)

    def _list(self, path: Path) -> None:
        self._at += 1
        self._match(_BLANK)
        index = 0
        while not self._text.startswith("]", self._at):
            self._offsets[*path, index] = self._at
            self._value((*path, index))
            index += 1
            self._separator("]")
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        self._match(_BLANK)
        while not self._text.startswith("}", self._at):
            self._pair(path)
            self._separator("}")
        self._at += 1

    def _separator(self, closing: str) -> None:
        self._match(_BLANK)
        if not self._text.startswith(closing, self._at):
            self._expect(",")
            self._match(_BLANK)

    def _expect(self, token: str) -> None:
        if not self._text.startswith(token, self._at):
            raise _LostError
        self._at += len(token)

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _LostError
        self._at = found.end()
        return found.group()

    def _place(self, offset: int) -> Place:
        line = bisect_right(self._lines, offset)
        return Place(line, offset - self._lines[line - 1] + 1)
