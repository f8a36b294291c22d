"""Where the keys of a TOML text stand: checked against tomllib on texts of every spelling that TOML allows."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbwatch.runbook.locate import Outline, outline


def paths(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """All keys and positions of a TOML document."""
    found = {path} if path else set()
    parts: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in parts:
        found |= paths(inner, (*path, part))
    return found


def spellings(name: str) -> list[str]:
    """How a key may be written."""
    bare = [name] if re.fullmatch(r"[A-Za-z0-9_-]+", name) else []
    literal = [f"'{name}'"] if "'" not in name else []
    return [*bare, *literal, json.dumps(name), json.dumps(name, ensure_ascii=False)]


PIECES = ["[x]", "[[phase]]", "key = 1", "# no", '"', "'", "\n", "\\", "]", "}", ",", "é", "''", '""', " ", "= "]
NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "phase", "step", "id", "1", "-", "a.b", "a b", "", "é", "'", '"', "#", "[x]", "\\", "="]
    ),
    st.text("ab1-_.'\"#=[] ", max_size=5),
)
SCALARS = ["0", "-1.5e3", "+inf", "true", "0x_f".replace("_", ""), "1979-05-27 07:32:00", "1979-05-27", "07:32:00"]
FILLS = ["", "  # [not.a] = 'header'", "\t#"]


@st.composite
def strings(draw: st.DrawFn, *, flat: bool) -> str:
    """A string in any of TOML's four ways."""
    text = "".join(draw(st.lists(st.sampled_from(PIECES), max_size=6)))
    ways = [json.dumps(text, ensure_ascii=False)]
    if "\n" not in text and "'" not in text:
        ways.append(f"'{text}'")
    if not flat or "\n" not in text:
        escaped = text.replace("\\", "\\\\")
        ways.append('"""' + re.sub('"{3,}', lambda m: '\\"' * len(m[0]), escaped) + '"""')
        if "'''" not in text:
            ways.append(f"'''{text}'''")
    return draw(st.sampled_from(ways))


@st.composite
def values(draw: st.DrawFn, depth: int = 2, *, flat: bool = False) -> str:
    """A value in TOML; *flat* without line breaks, as in an inline table."""
    make = draw(st.sampled_from(["scalar", "string", "list", "table"] if depth else ["scalar", "string"]))
    if make == "scalar":
        return draw(st.sampled_from(SCALARS))
    if make == "string":
        return draw(strings(flat=flat))
    if make == "list":
        inner = draw(st.lists(values(depth - 1, flat=flat), max_size=3))
        gap = " " if flat else draw(st.sampled_from(["", " ", "\n", "\n  # ] [x]\n\t"]))
        comma = "," if inner and draw(st.booleans()) else ""
        return f"[{gap}" + f"{gap},{gap}".join(inner) + comma + f"{gap}]"
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    return "{" + ", ".join([draw(pair(name, depth - 1, flat=True)) for name in names]) + "}"


@st.composite
def pair(draw: st.DrawFn, name: str, depth: int = 2, *, flat: bool = False) -> str:
    """`key = value`, the key perhaps dotted."""
    inner = draw(st.lists(NAMES, max_size=2))
    dot = draw(st.sampled_from([".", " . ", ".\t"]))
    key = dot.join(draw(st.sampled_from(spellings(part))) for part in [name, *inner])
    return f"{key}{draw(st.sampled_from([' = ', '=']))}{draw(values(depth, flat=flat))}"


@st.composite
def tables(draw: st.DrawFn, header: str = "", depth: int = 3) -> list[str]:
    """The lines of a table: its pairs, then the tables in it."""
    names = draw(st.lists(NAMES, max_size=5, unique=True))
    cut = draw(st.integers(0, len(names))) if depth else len(names)
    lines = [draw(pair(name)) + draw(st.sampled_from(FILLS)) for name in names[:cut]]
    for name in names[cut:]:
        spelt = draw(st.sampled_from(spellings(name)))
        path = f"{header}{draw(st.sampled_from(['.', ' . ']))}{spelt}" if header else spelt
        double = draw(st.booleans())
        lines += draw(st.sampled_from([[], ["", "# [x]"]]))
        for _ in range(draw(st.integers(1, 3)) if double else 1):
            if double or draw(st.integers(0, 3)):  # sometimes a table is there by its parts alone
                lines.append((f"[[{path}]]" if double else f"[ {path} ]") + draw(st.sampled_from(FILLS)))
                lines += draw(tables(path, depth - 1))
            else:
                lines += [f"[{path}.late]", "x = 1", f"[{path}]", "y = 2"]
    return lines


def assert_right(text: str, found: Outline) -> None:
    """Each place holds the key that it is said to hold."""
    lines = text.split("\n")
    for path, place in found.places.items():
        rest = lines[place.line - 1][place.column - 1 :]
        names = [part for part in path if isinstance(part, str)]
        header = lines[place.line - 1].lstrip().startswith("[")
        if isinstance(path[-1], str) or (header and place.column > 1 and rest.startswith(tuple(spellings(names[-1])))):
            assert rest.startswith(tuple(spellings(names[-1]))), (path, place)
        else:
            assert rest.strip(), (path, place)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tables())
def test_the_locator_finds_each_key_of_any_toml_on_a_line_that_holds_it(lines: list[str]) -> None:
    text = "\n".join(lines)
    found = outline(text)
    assert found.complete
    assert set(found.places) == paths(tomllib.loads(text))
    assert_right(text, found)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tables(), st.data())
def test_the_locator_is_never_wrong_about_a_part_of_a_text(lines: list[str], data: st.DataObject) -> None:
    text = "\n".join(lines)
    whole = outline(text)
    part = outline(text[: data.draw(st.integers(0, len(text)))])
    here = {path: place for path, place in part.places.items() if path in whole.places}
    for path, place in here.items():
        later = whole.places[path]
        assert place == later or place.line <= later.line  # a table's own header may come after its parts


def test_a_key_that_stands_nowhere_is_told_at_the_table_around_it() -> None:
    found = outline("a = 1\n[b.c]\nd = [\n 1,\n {e = 2}]\n[[f]]\n[[f]]\n[b]\n")
    lines = {
        ("a",): 1,
        ("b",): 8,
        ("b", "c"): 2,
        ("b", "x"): 8,
        ("b", "c", "x"): 2,
        ("b", "c", "d", 1, "e"): 5,
        ("b", "c", "d", 1, "x", "y"): 5,
        ("b", "c", "d", 7): 3,
        ("f",): 6,
        ("f", 1): 7,
        ("f", 1, "x"): 7,
        ("x", "y"): 1,
        (): 1,
    }
    assert {path: found.find(path).line for path in lines} == lines
