"""From a file to a `Runbook`, or to all of its mistakes at once, each with its line and its mend."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dbwatch.runbook import dsn
from dbwatch.runbook.locate import Outline, outline
from dbwatch.runbook.mistakes import Mistake, RunbookError, at, of_model, of_whole
from dbwatch.runbook.model import Runbook
from dbwatch.runbook.syntax import read
from dbwatch.text import one_line, sanitize

LARGEST = 1 << 18
"""Bytes; a file beyond that is no runbook, and reading it is not attempted."""


@dataclass(frozen=True, slots=True)
class LoadedRunbook:
    """A runbook and the file that it came from."""

    path: Path
    text: str
    """As in the file, with ${VAR} unexpanded and lines that end in a line feed; what the journal keeps."""
    sha: str
    """SHA-256 of the text, hexadecimal."""
    runbook: Runbook
    """With ${VAR} expanded in the connection strings: not for the journal, not for the screen."""
    folder: Path
    """The file's folder; `alembic` is relative to it."""

    @property
    def alembic(self) -> Path | None:
        """Alembic's configuration file, None where the runbook has none. It may not exist."""
        return None if self.runbook.alembic is None else self.folder / self.runbook.alembic

    def check_files(self) -> None:
        """Raises RunbookError at the line that names a file which is not there."""
        if self.alembic is not None and not self.alembic.is_file():
            place = outline(self.text).find(("alembic",))
            what = f'"alembic": there is no file {one_line(str(self.alembic), 300)}'
            raise RunbookError(str(self.path), [at(place, what, "the path is relative to the runbook's folder")])


def load(path: Path, environ: Mapping[str, str]) -> LoadedRunbook:
    """The runbook in the file *path*. Raises RunbookError with every mistake."""
    text = _text(path)
    runbook = parse(text, str(path), environ)
    return LoadedRunbook(path, text, sha(text), runbook, path.absolute().parent)


def parse(text: str, name: str, environ: Mapping[str, str] | None) -> Runbook:
    """The runbook that *text* is, a file's or the journal's; *name* is what its mistakes are told of.

    Without *environ* its connection strings stay as they are written: it is only to be shown.

    Raises RunbookError with every mistake.
    """
    found = read(_with_line_feeds(text))
    mistakes = list(found.mistakes)
    if found.data == {} and not mistakes:
        mend = 'begin with title = "..." and a [[phase]]'
        raise RunbookError(name, [Mistake(None, None, "the runbook is empty", mend)])
    runbook = None
    if found.data is not None:
        data, faults = (found.data, []) if environ is None else _expanded(found.data, found.places, environ)
        mistakes += faults
        try:
            runbook = Runbook.model_validate(data)
        except ValidationError as error:
            mistakes += of_model(error, data, found.places, found.damaged)
        mistakes += of_whole(data, found.places, found.damaged)
    if mistakes or runbook is None:
        raise RunbookError(name, mistakes)
    return runbook


def sha(text: str) -> str:
    """SHA-256 of a runbook's text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def difference(old_text: str, new_text: str) -> str:
    """What was changed in a runbook, as a unified diff fit for a screen; empty where nothing was."""
    lines = difflib.unified_diff(
        _with_line_feeds(old_text).split("\n"),
        _with_line_feeds(new_text).split("\n"),
        fromfile="the runbook of this window",
        tofile="the file now",
        lineterm="",
    )
    return "\n".join(sanitize(line) for line in lines)


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n")


def _text(path: Path) -> str:
    """The file's text. Raises RunbookError."""

    def refused(what: str, mend: str, line: int | None = None, column: int | None = None) -> RunbookError:
        return RunbookError(str(path), [Mistake(line, column, what, mend)])

    try:
        if path.is_dir():
            raise refused("this is a folder", "name the runbook inside it")
        if path.exists() and not path.is_file():
            raise refused("this is no regular file", "write the runbook into one: it is read again after a crash")
        with path.open("rb") as file:
            octets = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise refused("there is no such file", "check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or str(error)
        raise refused(f"cannot be read: {one_line(why)}", "check the path and its permissions") from None
    if len(octets) > LARGEST:
        raise refused("is larger than 256 kB", "name a runbook; data belongs elsewhere")
    try:
        return _with_line_feeds(octets.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        before = octets[: error.start]
        line = before.count(b"\n") + 1
        what = f"byte 0x{octets[error.start]:02X} is not UTF-8"
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        raise refused(what, "save the file as UTF-8", line, column) from None


def _expanded(
    data: dict[str, object], places: Outline, environ: Mapping[str, str]
) -> tuple[dict[str, object], list[Mistake]]:
    """*data* with ${VAR} expanded in the connection strings, and what is wrong with them."""
    target = data.get("target")
    if not isinstance(target, dict):
        return data, []
    mistakes: list[Mistake] = []
    known: dict[str, object] = dict(target)
    for key in dsn.KEYS:
        written = known.get(key)
        if isinstance(written, str):
            place = places.find(("target", key))
            for what, mend in dsn.faults(written, environ):
                mistakes.append(at(place, f'[target]: "{key}": {what}', mend))
            known[key] = dsn.expand(written, environ)
    return {**data, "target": known}, mistakes
