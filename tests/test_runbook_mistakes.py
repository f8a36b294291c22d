"""A text in; all of its mistakes out, each with its line and its mend."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from runbooks import WINDOW, line_of, mistakes

from dbwatch.errors import Exit, UsageError
from dbwatch.runbook.loader import RunbookError, parse
from dbwatch.runbook.model import Runbook
from dbwatch.text import sanitize

# A change to the runbook, and what is said of it; `{part}` is the number of the line that holds that part.

SAID = [
    pytest.param(
        ('table = "users"', 'tabel = "users"'),
        ['{tabel}: phase "code", step "fill": unknown key "tabel"; did you mean "table"?'],
        id="a misspelt key is one mistake, not an unknown and a missing one",
    ),
    pytest.param(
        ('table = "users"', 'table = "users"\nto = "head"'),
        ['{to = "head"}: phase "code", step "fill": unknown key "to"; it belongs to a migrate step'],
        id="a key of another kind",
    ),
    pytest.param(
        ('lock_timeout = "2s"', 'lock_timeout = "2s"\nbudget = "1h"'),
        [
            '{budget = "1h"}: [target]: unknown key "budget";'
            " it belongs at the top of the file, before the first [table]"
        ],
        id="a key of the top after a header",
    ),
    pytest.param(
        ('budget = "60min"', "guard = 1"),
        ['{guard}: unknown key "guard"; keys here are title, alembic, budget, rollback_budget, target, contact, phase'],
        id="a key that nobody knows",
    ),
    pytest.param(
        ('kind = "sql"', 'kind = "soak"'),
        [
            '{"soak"}: phase "code", step "validate": unknown kind "soak";'
            " kinds are manual, check, migrate, backfill, sql"
        ],
        id="a kind of a later dbwatch",
    ),
    pytest.param(
        ('kind = "sql"\n', ""),
        ['50: phase "code", step "validate": the step has no kind; kinds are manual, check, migrate, backfill, sql'],
        id="no kind: at the step's header",
    ),
    pytest.param(
        ('to = "3f1c"\n', ""),
        ['23: phase "expand", step "add": "to" is missing; write to = "head"'],
        id="a missing key: at the step's header",
    ),
    pytest.param(
        ('title = "users.phone replaces legacy_phone_field"\n', ""),
        ['1: "title" is missing; write title = "users.phone replaces legacy_phone_field"'],
        id="a missing key of the top: at the first line",
    ),
    pytest.param(
        ('id = "complete"\n', ""),
        ['44: phase "code", step 3: "id" is missing; write id = "fill"'],
        id="a step without an id is told by its number",
    ),
    pytest.param(
        ('to = "3f1c"', "to = 3"),
        ['{to = 3}: phase "expand", step "add": "to": expected text in quotes, not a whole number; write to = "head"'],
        id="a number for a text",
    ),
    pytest.param(
        ("expect = 0", "expect = [0]"),
        [
            '{expect}: phase "code", step "complete": "expect": expected a number, text, true or false,'
            " not a list; write one value"
        ],
        id="a list for a value",
    ),
    pytest.param(
        ("expect = 0", "expect = nan"),
        ['{expect}: phase "code", step "complete": "expect": nothing equals nan; write a finite number'],
        id="an expectation that nothing can meet",
    ),
    pytest.param(
        ('budget = "60min"', 'budget = "60 minutes"'),
        ['{60 minutes}: "budget": "60 minutes" is no duration; write "500ms", "2s", "60min", "24h" or "14d"'],
        id="a unit that is none",
    ),
    pytest.param(
        ('budget = "60min"', "budget = 3600"),
        [
            '{3600}: "budget": expected a duration in quotes, not a whole number;'
            ' write "500ms", "2s", "60min", "24h" or "14d"'
        ],
        id="a duration without a unit",
    ),
    pytest.param(
        ('budget = "60min"', 'budget = "-1s"'),
        ['{-1s}: "budget": "-1s" is not longer than nothing; write "500ms", "2s", "60min", "24h" or "14d"'],
        id="a negative duration",
    ),
    pytest.param(
        ('lock_timeout = "2s"', 'lock_timeout = "0.4ms"'),
        [
            '{0.4ms}: [target]: "lock_timeout": a timeout is 1ms at least and 24d at most;'
            ' write "500ms", "2s", "60min", "24h" or "14d"'
        ],
        id="a timeout that PostgreSQL would round to none",
    ),
    pytest.param(
        ('table = "users"', 'table = "users"\nbatch_time = "3ms"'),
        [
            '{3ms}: phase "code", step "fill": "batch_time": a batch takes 10ms at least and 10s at most;'
            ' write "500ms", "2s", "60min", "24h" or "14d"'
        ],
        id="a batch time that the backfill would refuse",
    ),
    pytest.param(
        ('table = "users"', 'table = "users"\nundo = "UPDATE users SET phone = NULL"'),
        ['{undo}: phase "code", step "fill": "undo": expected true or false, not text; write undo = true'],
        id="SQL where a backfill asks only whether",
    ),
    pytest.param(
        ('statement_timeout = "60s"', 'statement_timeout = "1s"'),
        [
            "8: [target]: a lock_timeout of 2 s never fires before a statement_timeout of 1 s;"
            " make lock_timeout the shorter one: a migrate step is repeated only after a lock_timeout"
        ],
        id="a lock_timeout that cannot fire",
    ),
    pytest.param(
        ('id = "complete"', 'id = "fill"'),
        ['45: phase "code", step "fill": the id "fill" stands twice; give it another; the first is in line 38'],
        id="an id twice: at the second",
    ),
    pytest.param(
        ('name = "code"', 'name = "expand"'),
        ['29: phase "expand": the phase "expand" stands twice; give it another; the first is in line 16'],
        id="a phase twice: at the second",
    ),
    pytest.param(
        ('id = "complete"', 'id = "is it complete?"'),
        [
            '{is it}: phase "code", step "is it complete?": "id": "is it complete?" is no id;'
            " write 1 to 40 letters, digits, dots, dashes or underscores"
        ],
        id="an id of several words",
    ),
    pytest.param(
        ('alembic = "alembic.ini"', ""),
        [
            '{kind = "migrate"}: phase "expand", step "add": a migrate step needs Alembic\'s configuration;'
            ' write alembic = "alembic.ini" at the top of the runbook'
        ],
        id="a migrate step without alembic",
    ),
    pytest.param(
        ('to = "3f1c"', 'to = "+1"'),
        [
            '{+1}: phase "expand", step "add": "to": "+1" is relative and moves again when the step is repeated;'
            " name the revision"
        ],
        id="a relative revision would be applied twice after a crash",
    ),
    pytest.param(
        ('to = "3f1c"', 'to = "base"'),
        [
            '{base}: phase "expand", step "add": "to": "base" is the way down;'
            " name a revision, head or heads; an abort goes down by itself"
        ],
        id="a migrate step goes up",
    ),
    pytest.param(
        ('where = "phone IS NULL"', 'where = "WHERE phone IS NULL"'),
        [
            '{"WHERE}: phase "code", step "fill": "where": it begins with the word WHERE;'
            " leave the word out, it is added"
        ],
        id="the word WHERE in the condition",
    ),
    pytest.param(
        ('where = "phone IS NULL"', 'where = "phone IS NULL;"'),
        [
            '{NULL;}: phase "code", step "fill": "where": it ends with a semicolon;'
            " leave it out, this is a part of a statement"
        ],
        id="a semicolon in the condition",
    ),
    pytest.param(
        ("VALIDATE CONSTRAINT phone_given'''", "VALIDATE \u202e'''"),
        [
            '53: phase "code", step "validate": "sql": it holds the invisible character U+202E;'
            " remove it; in a literal of SQL it can be written as an escape, U&'\\....'"
        ],
        id="SQL that would not be what it looks like",
    ),
    pytest.param(
        ("VALIDATE CONSTRAINT phone_given'''", "VALIDATE CONSTRAINT phone_given; COMMIT'''"),
        [
            '53: phase "code", step "validate": "sql": it begins or ends a transaction;'
            " leave BEGIN, COMMIT and the like out: the step is one already"
        ],
        id="a COMMIT, after which the journal knows nothing of what was done",
    ),
    pytest.param(
        ('sql = "SELECT count(*) FROM users WHERE phone IS NULL"', 'sql = "COMMIT; DELETE FROM users"'),
        [
            '{DELETE}: phase "code", step "complete": "sql": it begins or ends a transaction;'
            " leave BEGIN, COMMIT and the like out: the step is one already"
        ],
        id="a check that leaves its read only transaction",
    ),
    pytest.param(
        ('kind = "sql"', 'kind = "sql"\nundo = "BEGIN; DROP TABLE t; END"'),
        [
            '{undo}: phase "code", step "validate": "undo": it begins or ends a transaction;'
            " leave BEGIN, COMMIT and the like out: the step is one already"
        ],
        id="a transaction of its own on the way back",
    ),
    pytest.param(
        ('text = "deploy v0.8.0"', 'text = "  "'),
        ['{"  "}: phase "code", step "deploy": "text": it is empty; say something'],
        id="text of blanks",
    ),
    pytest.param(
        ('up -d"', 'up -d\\ndate"'),
        ['{rollback = }: phase "code", step "deploy": "rollback": it stands on several lines; put it on one'],
        id="a command of several lines",
    ),
    pytest.param(
        ('where = "phone IS NULL"', 'where = "phone IS NULL"\nmode = "twice"'),
        ['{mode}: phase "code", step "fill": "mode": "twice" is not among its values; write "pending" or "once"'],
        id="a mode that is none",
    ),
    pytest.param(
        ('to = "3f1c"', 'to = "3f1c"\nretries = 101'),
        ['{retries}: phase "expand", step "add": "retries": 101 is out of range; write at most 100'],
        id="too many retries",
    ),
    pytest.param(
        ("[target]", "[[target]]"),
        ['6: "target": expected one table, not a list; write [target] with single brackets'],
        id="a list of targets",
    ),
    pytest.param(
        ("[[contact]]", "[contact]"),
        ['11: "contact": expected a list of tables, not a table; write [[contact]], for each its own'],
        id="a list in single brackets",
    ),
]


@pytest.mark.parametrize(("change", "said"), SAID)
def test_a_mistake_is_told_with_its_line_and_its_mend(change: tuple[str, str], said: list[str]) -> None:
    old, new = change
    assert WINDOW.count(old) >= 1
    text = WINDOW.replace(old, new, 1)

    def numbered(expected: str) -> str:
        return re.sub(r"^\{(.+?)\}:", lambda match: f"{line_of(text, match[1])}:", expected)

    assert mistakes(text) == [f"runbook.toml:{numbered(line)}" for line in said]


TEXTS = [
    pytest.param("", ['runbook.toml: the runbook is empty; begin with title = "..." and a [[phase]]'], id="nothing"),
    pytest.param(
        "\n# later\n",
        ['runbook.toml: the runbook is empty; begin with title = "..." and a [[phase]]'],
        id="a comment alone",
    ),
    pytest.param(
        'title = "t"\n',
        ["runbook.toml:1: the runbook has no phases; add [[phase]] with a name, and its steps"],
        id="no phases",
    ),
    pytest.param(
        'title = "t"\n\n[[phase]]\nname = "x"\n',
        ['runbook.toml:3: phase "x": the phase has no steps; add [[phase.step]] with an id and a kind'],
        id="no steps",
    ),
    pytest.param(
        'title = "t"\nphase = []\n',
        ['runbook.toml:2: "phase": it is empty; add one'],
        id="an empty list of phases",
    ),
    pytest.param(
        'title = "t"\nphase = [\n  1,\n  { name = "x", step = [\n     "y",\n  ] },\n]\n',
        [
            "runbook.toml:3: phase 1: expected a table, not a whole number; write [[phase]], for each its own",
            'runbook.toml:5: phase "x", step 1: expected a table, not text; write [[phase.step]], for each its own',
        ],
        id="values where tables belong",
    ),
    pytest.param(
        'title = t\nbudgett = "1h"\n[[phase]]\nname = "x"\n[[phase.step]]\nid = fill\nkind = "manual"\ntxt = "x"\n',
        [
            'runbook.toml:1: TOML: invalid value; text and durations stand in quotes: to = "head"',
            'runbook.toml:2: unknown key "budgett"; did you mean "budget"?',
            'runbook.toml:6: TOML: invalid value; text and durations stand in quotes: to = "head"',
            'runbook.toml:8: phase "x", step 1: unknown key "txt"; did you mean "text"?',
        ],
        id="mistakes of syntax hide no others, and no key is missing that was left out with them",
    ),
    pytest.param(
        'title = "t"\ntitle = "u"\n\n[target]\n[target]\nfoo = 1\n',
        [
            'runbook.toml:2: "title" stands twice; keep one of the two; the first is in line 1',
            'runbook.toml:5: "target" stands twice; keep one of the two;'
            " a list of tables needs double brackets, [[phase]]; the first is in line 4;"
            " what follows was not read",
        ],
        id="a key and a table twice",
    ),
    pytest.param(
        'title = """\nnever closed\n[[phase]]\n',
        ["runbook.toml:1: TOML: unterminated string; close the quotes; what follows was not read"],
        id="text without an end is told where it begins",
    ),
    pytest.param(
        'title = "t"\nalembic = [\n  "a",\n[[phase]\nname = "x"\n',
        [
            'runbook.toml:4: TOML: invalid value; text and durations stand in quotes: to = "head";'
            " it begins in line 2; what follows was not read"
        ],
        id="a list without an end is told with where it begins",
    ),
    pytest.param(
        'title = "one\n  count(*) two\n  WHERE three = 3"\nphase = 1\n',
        [
            'runbook.toml:1: TOML: illegal character \'\\n\'; close the quotes, or use """ for text of several lines',
            'runbook.toml:4: "phase": expected a list of tables, not a whole number; write [[phase]], for each its own',
        ],
        id="text of several lines in single quotes is one mistake",
    ),
    pytest.param(
        f"title = {'9' * 5000}\n",
        ["runbook.toml: a number does not fit into 64 bits; write a smaller one, or text; what follows was not read"],
        id="a number of five thousand digits",
    ),
    pytest.param(
        f'title = "t"\nx = [1, {{ y = 0x{"f" * 5000} }}]\n',
        ["runbook.toml:2: a number does not fit into 64 bits; write a smaller one, or text"],
        id="a number that could be read but not shown",
    ),
    pytest.param(
        f"title = {'[' * 50_000}\n",
        ["runbook.toml: lists or tables are nested too deeply; write it flat; what follows was not read"],
        id="fifty thousand brackets",
    ),
    pytest.param(
        'title = "t"\n[[phase]]\nname = "\\u001b[2J"\nf\u00fcr = 1\n"\\u202e" = 1\n',
        [
            "runbook.toml:4: TOML: expected '=' after a key in a key/value pair; write key = \"value\"",
            'runbook.toml:5: phase "␛[2J": unknown key "·"; keys here are name, step',
        ],
        id="hostile text is shown, not obeyed",
    ),
]


@pytest.mark.parametrize(("text", "said"), TEXTS)
def test_a_text_that_is_no_runbook_is_told_what_it_lacks(text: str, said: list[str]) -> None:
    assert mistakes(text) == said


def test_all_mistakes_of_a_file_are_told_at_once_in_the_order_of_its_lines() -> None:
    text = (
        WINDOW.replace('alembic = "alembic.ini"', "")
        .replace('"service=shop"', '"${SHOP}"')
        .replace('"2s"', '"2 sec"')
        .replace('id = "complete"', 'id = "fill"')
        .replace('kind = "sql"', 'kind = "shell"')
        .replace('table = "users"', 'tabel = "users"')
    )
    with pytest.raises(RunbookError) as caught:
        parse(text, "runbook.toml", {})
    assert [mistake.line for mistake in caught.value.mistakes] == [7, 8, 25, 40, 45, 52]
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code is Exit.USAGE
    first = caught.value.mistakes[0]
    assert (first.column, first.what, first.mend) == (
        1,
        '[target]: "dsn": ${SHOP} is not set in the environment',
        "export SHOP before dbwatch is started",
    )


VALUES = ["1", "1.5", "inf", "true", '"x y"', '""', "2024-01-01", "[]", "[1]", "{}", "{ x = 1 }", '"a\\u200bb"']


@pytest.mark.parametrize("line", [line for line in WINDOW.split("\n") if " = " in line and "'''" not in line])
@pytest.mark.parametrize("value", VALUES)
def test_any_value_under_any_key_is_taken_or_told_in_our_words_at_its_line(line: str, value: str) -> None:
    key = line.split(" = ")[0]
    text = WINDOW.replace(line, f"{key} = {value}", 1)
    for said in mistakes(text):
        assert said.startswith(f"runbook.toml:{WINDOW[: WINDOW.index(line)].count(chr(10)) + 1}:")
        assert not re.search(r"Input should|Value error|valid (string|tuple|dict)|NoneType|<class", said)


def test_a_table_of_the_wrong_make_is_told_by_python_code_too() -> None:
    step = {"id": "a", "kind": "manual", "text": "x"}
    with pytest.raises(ValidationError, match='the id "a" stands twice'):
        Runbook.model_validate({"title": "t", "phase": [{"name": "x", "step": [step, step]}]})


PIECES = ["[x]", "[[phase]]", "key = 1", "# no", '"', "'", "\n", "\\", "]", "}", ",", "é", "''", '""', " ", "= "]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_in_a_runbook_of_any_order_a_mistake_is_told_at_the_line_where_it_was_put(data: st.DataObject) -> None:
    head, *steps = WINDOW.split("[[phase.step]]\n")
    steps = [step.partition("\n[[phase]]")[0].rstrip("\n") for step in data.draw(st.permutations(steps))]
    lines = head.rstrip("\n").split("\n")
    for step in steps:
        body = [step] if "'''" in step else data.draw(st.permutations(step.split("\n")))
        lines += ["[[phase.step]]", *"\n".join(body).split("\n"), *data.draw(st.sampled_from([[], [""], ["# x = 1"]]))]
    assert mistakes("\n".join(lines)) == []
    at = data.draw(
        st.sampled_from([n for n, line in enumerate(lines) if re.match(r"\w+ = ", line) and "'''" not in line])
    )
    wrong = data.draw(st.sampled_from(["key", "value", "syntax"]))
    key = lines[at].split(" = ")[0]
    if wrong == "key":
        lines.insert(at, "zzz = 1")
    else:
        lines[at] = f"{key} = 2024-01-01" if wrong == "value" else f"{key} = zzz"
    with pytest.raises(RunbookError) as caught:
        parse("\n".join(lines), "runbook.toml", {})
    assert {mistake.line for mistake in caught.value.mistakes if "migrate step needs" not in mistake.what} == {at + 1}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_a_damaged_runbook_is_read_or_refused_but_nothing_else_is_raised(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(WINDOW)))
    gone = data.draw(st.integers(0, 40))
    hostile = [*PIECES, "{", "${", "\x00", "\r", "\ufeff", "\u2028"]
    put = data.draw(st.one_of(st.sampled_from(hostile), st.text(max_size=5)))
    text = WINDOW[:at] + put + WINDOW[at + gone :]
    for said in mistakes(text):
        assert said == sanitize(said)
        line = re.match(r"runbook\.toml:(\d+): .+; .+", said)
        assert line
        assert 1 <= int(line[1]) <= text.count("\n") + 1
