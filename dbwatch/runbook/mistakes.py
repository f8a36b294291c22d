"""What is wrong with a runbook, in words: each mistake with its line and its mend, all of them at once. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dbwatch.errors import UsageError
from dbwatch.runbook.locate import Outline, Path, Place
from dbwatch.runbook.model import KINDS, SPECS, Runbook, Target, table_of
from dbwatch.runbook.values import noun, quoted
from dbwatch.runbook.whole import breaches
from dbwatch.text import one_line

_EXPECTED = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake of a file. Its text names the place within the plan; the file and the line are told beside it."""

    line: int | None
    """From 1; None where the file as a whole is meant."""
    column: int | None
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}; {self.mend}"


class RunbookError(UsageError):
    """A runbook that cannot be used: all its mistakes in the order of their lines. Its text is a line for each."""

    def __init__(self, name: str, mistakes: Iterable[Mistake]) -> None:
        self.name = one_line(name)
        self.mistakes = tuple(sorted(mistakes, key=lambda m: (m.line or 0, m.column or 0)))
        super().__init__("\n".join(f"{self.name}:{'' if m.line is None else f'{m.line}:'} {m}" for m in self.mistakes))


def at(place: Place, what: str, mend: str) -> Mistake:
    """A mistake at *place*."""
    return Mistake(place.line, place.column, what, mend)


def context(data: object, path: Path) -> str:
    """Where in the plan *path* is, as a beginning of a sentence: `phase "code", step "fill": `; empty at the top."""
    match path:
        case ("phase", int(index), "step", int(number), *_):
            phase = f"phase {_called(data, path[:2], 'name', index)}"
            return f"{phase}, step {_called(data, path[:4], 'id', number)}: "
        case ("phase", int(index), *_):
            return f"phase {_called(data, path[:2], 'name', index)}: "
        case ("contact", int(index), *_):
            return f"contact {_called(data, path[:2], 'role', index)}: "
        case ("target", str(), *_):
            return "[target]: "
        case _:
            return ""


def _called(data: object, path: Path, key: str, index: int) -> str:
    table = value_at(data, path)
    name = table.get(key) if isinstance(table, dict) else None
    return quoted(name) if isinstance(name, str) and name.strip() else str(index + 1)


def value_at(data: object, path: Path) -> object:
    """The value at *path* in a TOML document; None where there is none (TOML has no null)."""
    for part in path:
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return data


def of_model(
    error: ValidationError, data: Mapping[str, object], places: Outline, damaged: Container[Path] = ()
) -> Iterator[Mistake]:
    """What the model found, in our words. Of a *damaged* table nobody can say that it lacks a key."""
    details = [(detail, *_path(detail["loc"])) for detail in error.errors(include_url=False)]
    slips = {
        (*path[:-1], meant)
        for detail, path, kind in details
        if detail["type"] == "extra_forbidden" and (meant := _meant(str(path[-1]), path[:-1], kind))
    }
    for detail, path, kind in details:
        if detail["type"] == "missing" and (path in slips or path[:-1] in damaged):
            continue  # a key that is misspelt is one mistake, not two
        if detail["type"] == "union_tag_not_found" and path in damaged:
            continue
        if path:  # what only the whole shows is told by `of_whole`, with its line
            what, mend, path = _words(detail, path, kind)
            yield at(places.find(path), context(data, path) + what, mend)


def of_whole(data: Mapping[str, object], places: Outline, damaged: Container[Path] = ()) -> Iterator[Mistake]:
    """What no single key shows: names that stand twice, a migrate step without Alembic."""
    for breach in breaches({"alembic": "", **data} if () in damaged else data):
        first = "" if breach.first is None else f"; the first is in line {places.find(breach.first).line}"
        yield at(places.find(breach.path), context(data, breach.path[:-1]) + breach.what, breach.mend + first)


def _path(loc: Sequence[str | int]) -> tuple[Path, str]:
    """Where the error is in the data, and the kind of the step: the model's own path names it after the step."""
    match tuple(loc):
        case ("phase", int(), "step", int(), str(kind), *rest):
            return (*loc[:4], *rest), kind
        case path:
            return path, ""


def _words(detail: ErrorDetails, path: Path, kind: str) -> tuple[str, str, Path]:
    """What is wrong, the mend, and the path meant."""
    error, value, given = detail["type"], detail["input"], detail.get("ctx", {})
    *_, key = path
    name = f'"{key}"' if isinstance(key, str) else ""
    match error:
        case "mistake":
            at_key = given["at"]
            if at_key:
                return given["what"], given["mend"], (*path, at_key)
            return f"{name}: {given['what']}", given["mend"], path
        case "missing":
            return *_missing(str(key), path, kind), path
        case "extra_forbidden":
            return f"unknown key {quoted(key)}", _unknown(str(key), path[:-1], kind), path
        case "union_tag_invalid":
            return f"unknown kind {quoted(given['tag'])}", f"kinds are {', '.join(KINDS)}", (*path, "kind")
        case "union_tag_not_found":
            return "the step has no kind", f"kinds are {', '.join(KINDS)}", path
        case "model_type" | "model_attributes_type" | "dict_type" | "tuple_type":
            return *_structure(path, value, listed=error == "tuple_type"), path
        case "literal_error":
            values = given["expected"].replace("'", '"')
            return f"{name}: {quoted(value)} is not among its values", f"write {values}", path
        case _ if error in _BOUNDS:
            bound, word = _BOUNDS[error]
            return f"{name}: {value} is out of range", f"write {word} {given[bound]}", path
        case _ if error in _EXPECTED:
            return f"{name}: expected {_EXPECTED[error]}, not {noun(value)}", f"write {_example(path, kind)}", path
        case _:
            return f"{name}: {one_line(detail['msg'], 200)}", "see the runbook reference in README.md", path


def _missing(key: str, path: Path, kind: str) -> tuple[str, str]:
    if key == "step":
        return "the phase has no steps", "add [[phase.step]] with an id and a kind"
    if key == "phase":
        return "the runbook has no phases", "add [[phase]] with a name, and its steps"
    return f'"{key}" is missing', f"write {_example(path, kind)}"


def _example(path: Path, kind: str) -> str:
    """A line that would do for the key at *path*."""
    field = table_of(path[:-1], kind).model_fields[str(path[-1])]
    example = field.examples[0] if field.examples else field.default
    if example is None or example == "":
        return f'{path[-1]} = "..."'
    if isinstance(example, bool):
        return f"{path[-1]} = {str(example).lower()}"
    return f"{path[-1]} = " + (f'"{example}"' if isinstance(example, str) else str(example))


def _structure(path: Path, value: object, *, listed: bool) -> tuple[str, str]:
    header = ".".join(part for part in path if isinstance(part, str))
    if listed:
        return f'"{path[-1]}": expected a list of tables, not {noun(value)}', f"write [[{header}]], for each its own"
    if isinstance(path[-1], int):
        return f"expected a table, not {noun(value)}", f"write [[{header}]], for each its own"
    return f'"{path[-1]}": expected one table, not {noun(value)}', f"write [{header}] with single brackets"


def _meant(key: str, table: Path, kind: str) -> str:
    """The key that this one is a slip of; empty where none is near."""
    close = get_close_matches(key, table_of(table, kind).model_fields, n=1)
    return close[0] if close else ""


def _unknown(key: str, table: Path, kind: str) -> str:
    """The mend for a key that its table does not know: a likely slip, where it belongs, or what there is."""
    if meant := _meant(key, table, kind):
        return f'did you mean "{meant}"?'
    homes = [f"a {name} step" for name, spec in SPECS.items() if kind and key in spec.model_fields]
    if homes:
        return f"it belongs to {' or '.join(homes)}"
    if table and key in Runbook.model_fields:
        return "it belongs at the top of the file, before the first [table]"
    if key in Target.model_fields:
        return "it belongs in [target]"
    return f"keys here are {', '.join(table_of(table, kind).model_fields)}"
