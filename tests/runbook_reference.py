"""The reference of runbooks, made from the model: `python tests/runbook_reference.py` prints it as Markdown."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic_core import PydanticUndefined

from dbwatch.runbook import model
from dbwatch.runbook.model import SPECS, Contact, Phase, Runbook, Spec, Target

_WORDS = {
    "Line": "text",
    "OptionalLine": "text",
    "Prose": "text",
    "Word": "text",
    "Exact": "text",
    "Revision": "text",
    "Conninfo": "text",
    "Transactional": "SQL",
    "OptionalTransactional": "SQL",
    "Assignments": "SQL",
    "Condition": "SQL",
    "Duration": "duration",
    "Timeout": "duration",
    "BatchTime": "duration",
    "Signals": "list of names",
    "Expected": "value",
    "int": "number",
    "bool": "`true` or `false`",
}
_STEP = model.Migrate.__mro__[1]  # what the kinds of step share
_ELSEWHERE = {"target", "contact", "phase", "step"}
"""Keys that are tables of their own."""


@dataclass(frozen=True, slots=True)
class Row:
    """One key."""

    key: str
    value: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Section:
    """One table of a runbook with its keys."""

    name: str
    meaning: str
    rows: tuple[Row, ...]


def sections() -> Iterator[Section]:
    """All tables of a runbook in the order in which one meets them."""
    yield _section("the top of the file", Runbook)
    yield _section("`[target]`", Target)
    yield _section("`[[contact]]`", Contact)
    yield _section("`[[phase]]`", Phase)
    yield Section("`[[phase.step]]`", "Every step.", (_kind_row(), *_rows(_STEP)))
    for kind, spec in SPECS.items():
        yield Section(f'`kind = "{kind}"`', inspect.getdoc(spec) or "", tuple(_rows(spec)))


def markdown() -> str:
    """The reference, a table for each section."""
    parts = []
    for section in sections():
        head = f"**{section.name}**: {section.meaning}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"
        rows = (f"| `{row.key}` | {row.value} | {row.default} | {row.meaning} |\n" for row in section.rows)
        parts.append(head + "".join(rows))
    return "\n".join(parts)


def _section(name: str, spec: type[Spec]) -> Section:
    return Section(name, inspect.getdoc(spec) or "", tuple(_rows(spec)))


def _kind_row() -> Row:
    return Row("kind", ", ".join(f'`"{kind}"`' for kind in SPECS), "must be there", "Who does it, and how.")


def _rows(spec: type[Spec]) -> Iterator[Row]:
    """The keys that *spec* itself adds."""
    (definition,) = ast.parse(inspect.getsource(spec)).body
    assert isinstance(definition, ast.ClassDef)
    body = definition.body
    for statement, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        key = statement.target.id
        if key == "kind" or key in _ELSEWHERE:
            continue
        doc = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            doc = " ".join(str(following.value.value).split())
        yield Row(key, _value(ast.unparse(statement.annotation)), _default(spec, key), doc)


def _value(annotation: str) -> str:
    annotation = annotation.removesuffix(" | None")
    if annotation.startswith("Literal"):
        values = annotation.removeprefix("Literal[").removesuffix("]").replace("'", "").split(", ")
        return " or ".join(f'`"{value}"`' for value in values)
    return _WORDS[annotation]


def _default(spec: type[Spec], key: str) -> str:
    default = spec.model_fields[key].default
    if default is PydanticUndefined:
        return "must be there"
    if default is None or default in ("", ()):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        return f'`"{default * 1000:g}ms"`' if default < 1 else f'`"{default:g}s"`'
    return f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


if __name__ == "__main__":
    print(markdown())
