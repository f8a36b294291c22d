"""Nothing foreign is ever read as markup: a rule about the source of the screens, checked on its syntax trees.

Textual reads a plain str as markup: `[/]` in it ends the app, `[red]` swallows text, `[@click=...]` becomes an action.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dbwatch.tui

SOURCES = sorted(Path(dbwatch.tui.__file__).parent.rglob("*.py"))
WIDGETS = {"Static", "Label", "Button", "Checkbox", "RadioButton", "Option", "Collapsible", "Link", "Markdown"}
SAFE = {"Content", "Text", "Content.styled", "Content.assemble", "Text.assemble"}
TITLES = {"border_title", "border_subtitle"}


def name_of(node: ast.expr) -> str:
    """`Static`, `self.notify` as `.notify`, `Content.styled`."""
    if isinstance(node, ast.Attribute):
        owner = node.value.id if isinstance(node.value, ast.Name) and node.value.id[:1].isupper() else ""
        return f"{owner}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def composed(node: ast.expr) -> bool:
    """Whether *node* puts a str together: an f-string, +, %, str(), format() or join()."""
    match node:
        case ast.JoinedStr() | ast.BinOp(op=ast.Add() | ast.Mod()):
            return True
        case ast.Call(func=func):
            return name_of(func) in {"str", "repr", ".format", ".join"}
        case ast.IfExp(body=body, orelse=orelse):
            return composed(body) or composed(orelse)
    return False


def constant(node: ast.expr) -> bool:
    """Whether *node* is a str without a bracket, written in the source."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and "[" not in node.value


def plain(call: ast.Call) -> bool:
    """Whether *call* says markup=False."""
    return any(
        k.arg == "markup" and isinstance(k.value, ast.Constant) and k.value.value is False for k in call.keywords
    )


def safe(node: ast.expr) -> bool:
    """Whether *node* is text that Textual does not parse."""
    return constant(node) or (isinstance(node, ast.Call) and name_of(node.func) in SAFE)


def breaches(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every place where a str could be read as markup: line, and what is wrong."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=func, args=[first, *_]) if name_of(func) in WIDGETS:
                if not plain(node) and not safe(first):
                    yield node.lineno, f"{name_of(func)}(...) of what may be a str needs Content or markup=False"
            case ast.Call(func=func, args=[first, *_]) if name_of(func) == ".notify":
                if not plain(node) and not constant(first):
                    yield node.lineno, "notify(...) needs markup=False"
            case ast.Call(func=func, args=[first, *_]) if name_of(func) == ".update" and composed(first):
                yield node.lineno, "update(...) of a str that was put together needs Content"
            case ast.Assign(targets=[ast.Attribute(attr=attr)], value=value) if attr in TITLES and not safe(value):
                yield node.lineno, f"{attr} needs Content"
            case ast.Attribute(attr="from_markup"):
                yield node.lineno, "from_markup() is not used here"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_no_screen_lets_foreign_text_be_read_as_markup(path: Path) -> None:
    found = list(breaches(ast.parse(path.read_text("utf-8"))))
    assert not found, "\n".join(f"{path}:{line}: {what}" for line, what in found)


@pytest.mark.parametrize(
    "source",
    [
        "Static(f'{who} waits')",
        "Static(query)",
        "Label(query, id='x')",
        "self.notify(answer.text)",
        "self.app.notify(f'{x}', severity='error')",
        "self.body.update(f'{x}')",
        "body.update('\\n'.join(lines))",
        "body.update('a' + x)",
        "self.border_title = name",
        "pane.border_subtitle = f'{age}'",
        "Static('[red]x')",
        "Content.from_markup(x)",
    ],
)
def test_the_rule_sees_a_breach(source: str) -> None:
    assert list(breaches(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "Static('nothing yet')",
        "Static(Content(f'{who}'))",
        "Static(query, markup=False)",
        "self.notify(answer.text, markup=False)",
        "body.update(Content(f'{x}'))",
        "body.update(lines)",
        "pane.border_title = Content(name)",
        "Static()",
    ],
)
def test_the_rule_lets_safe_text_pass(source: str) -> None:
    assert not list(breaches(ast.parse(source)))
