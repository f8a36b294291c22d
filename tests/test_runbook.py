"""What a runbook says, where it comes from, and what its reference tells."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import get_args

import pytest
from psycopg.conninfo import conninfo_to_dict
from runbook_reference import markdown, sections
from runbooks import WINDOW, mistakes

from dbwatch.runbook import model
from dbwatch.runbook.loader import LARGEST, RunbookError, difference, load, parse, sha
from dbwatch.runbook.model import KINDS, SPECS, Contact, Phase, Runbook, Target

README = Path(__file__).parent.parent / "README.md"

# What a runbook says


def test_the_designs_runbook_is_read_as_it_is_meant() -> None:
    runbook = parse(WINDOW, "runbook.toml", {})
    assert [(step.id, step.kind) for step in runbook.steps()] == [
        ("preview", "manual"),
        ("add", "migrate"),
        ("deploy", "manual"),
        ("fill", "backfill"),
        ("complete", "check"),
        ("validate", "sql"),
    ]
    assert (runbook.budget, runbook.rollback_budget) == (3600.0, 300.0)
    assert (runbook.target.dsn, runbook.target.lock_timeout) == ("service=shop", 2.0)
    fill = runbook.step("fill")
    assert isinstance(fill, model.Backfill)
    assert (fill.mode, fill.batch_time, fill.key, fill.undo) == ("pending", 0.1, None, False)
    validate = runbook.step("validate")
    assert isinstance(validate, model.Sql)
    assert validate.sql == "ALTER TABLE users\n  VALIDATE CONSTRAINT phone_given"
    with pytest.raises(KeyError):
        runbook.step("nobody")


def test_kinds_specs_and_the_union_of_steps_are_the_same() -> None:
    assert set(get_args(get_args(model.Step)[0])) == set(SPECS.values())
    assert tuple(SPECS) == KINDS
    for kind, spec in SPECS.items():
        assert get_args(spec.model_fields["kind"].annotation) == (kind,)


def test_words_for_people_are_made_harmless_and_sql_is_kept_as_it_is() -> None:
    text = WINDOW.replace("Lin Wei", "Lin \\u001b[2J\\u202eWei").replace(
        '"deploy v0.8.0"', '"""\ndeploy\n  v0.8.0\n"""'
    )
    runbook = parse(text, "runbook.toml", {})
    assert runbook.contact[0].name == "Lin ␛[2J·Wei"
    deploy = runbook.step("deploy")
    assert isinstance(deploy, model.Manual)
    assert deploy.text == "deploy v0.8.0"


@pytest.mark.parametrize(
    "statement", ["SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; RELEASE a", "SELECT 'COMMIT' AS a", "REPAIR t"]
)
def test_what_stays_within_its_transaction_may_stand_in_a_sql_step(statement: str) -> None:
    old = "ALTER TABLE users\n  VALIDATE CONSTRAINT phone_given"
    spec = parse(WINDOW.replace(old, statement), "runbook.toml", {}).step("validate")
    assert isinstance(spec, model.Sql)
    assert spec.sql == statement


def test_a_runbook_written_on_windows_is_the_same_runbook() -> None:
    assert parse(WINDOW.replace("\n", "\r\n"), "runbook.toml", {}) == parse(WINDOW, "runbook.toml", {})


# ${VAR}


def test_variables_are_expanded_in_the_connection_strings_only() -> None:
    text = WINDOW.replace('"service=shop"', '"host=${HOST} dbname=${DB_1}"').replace("Lin Wei", "${HOST}")
    runbook = parse(text, "runbook.toml", {"HOST": "db1", "DB_1": "shop"})
    assert conninfo_to_dict(runbook.target.dsn) == {"host": "db1", "dbname": "shop"}
    assert runbook.contact[0].name == "${HOST}"


@pytest.mark.parametrize(
    ("written", "environ", "said"),
    [
        ("${A} ${A} ${B}", {}, ["${A} is not set in the environment", "${B} is not set in the environment"]),
        ("host=${A}", {"A": ""}, ["${A} is empty in the environment"]),
        ("host=${A", {"A": "x"}, ["${ without its }"]),
        ("host=${}", {}, ["${...} holds no name of a variable"]),
        ("hots=db1", {}, ['libpq cannot read this: invalid connection option "hots"']),
        ("${A}", {"A": "host=db1 s3cret"}, ["libpq cannot read this once it is expanded"]),
        ("host=h password=s3cret", {}, ["a password stands in the file, and the journal keeps the file"]),
        ("host=h sslpassword = 's3 cret'", {}, ["a password stands in the file, and the journal keeps the file"]),
        ("postgresql://u:s3cret@h/d", {}, ["a password stands in the file, and the journal keeps the file"]),
        ("postgresql://h/d?password=s3cret", {}, ["a password stands in the file, and the journal keeps the file"]),
        (
            "host=h password=my s3cret",
            {},
            ["a password stands in the file, and the journal keeps the file", "libpq cannot read this"],
        ),
        ("postgresql+psycopg://u@h/d", {}, []),
        ("postgresql://u:${P}@h:5432/d", {"P": "s3cret"}, []),
        ("host=h password='${P}'", {"P": "s3cret"}, []),
        ("postgresql://[::1]:5432/d", {}, []),
        ("", {}, []),
    ],
)
@pytest.mark.parametrize("key", ["dsn", "monitor_dsn", "migrate_dsn"])
def test_a_connection_string_is_judged_before_the_window_and_never_repeated(
    key: str, written: str, environ: dict[str, str], said: list[str]
) -> None:
    if key != "dsn" and not written:
        said = ["it is empty"]
    text = WINDOW.replace('dsn = "service=shop"', f'{key} = "{written}"')
    found = mistakes(text, environ)
    assert [line.split("; ")[0] for line in found] == [f'runbook.toml:7: [target]: "{key}": {s}' for s in said]
    assert "s3cret" not in "".join(found)


@pytest.mark.parametrize("secret", ["p@ss/w%rd", "it's a b\\c", "%41:/?#[]@!$&", " ", "\"'"])
@pytest.mark.parametrize("written", ["postgresql://u:${P}@h:5432/d?sslmode=prefer", "host=h user=u password=${P}"])
def test_a_password_from_the_environment_needs_no_quoting(written: str, secret: str) -> None:
    runbook = parse(WINDOW.replace("service=shop", written), "runbook.toml", {"P": secret})
    known = conninfo_to_dict(runbook.target.dsn)
    assert (known["password"], known["user"], known["host"]) == (secret, "u", "h")


@pytest.mark.parametrize("whole", ["postgresql://u:p@ss@h/d", "postgresql://u:p/ss@h/d", "postgresql://u:p%zz@h/d"])
def test_a_password_with_a_character_that_ends_it_is_never_taken_for_a_host(whole: str) -> None:
    assert "cannot read this" in mistakes(WINDOW.replace("service=shop", "${DSN}"), {"DSN": whole})[0]


def test_a_connection_string_is_in_no_picture_of_the_runbook() -> None:
    text = WINDOW.replace("service=shop", "password=${P}")
    runbook = parse(text, "runbook.toml", {"P": "s3cret"})
    assert runbook.target.dsn == "password=s3cret"
    assert "s3cret" not in repr(runbook) + str(runbook)


# The file


def test_a_loaded_runbook_keeps_its_text_unexpanded_with_its_hash(tmp_path: Path) -> None:
    text = WINDOW.replace("service=shop", "service=${SHOP}")
    file = tmp_path / "window.toml"
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    loaded = load(file, {"SHOP": "shop1"})
    assert loaded.text == text
    assert loaded.sha == hashlib.sha256(text.encode()).hexdigest() == sha(text)
    assert loaded.runbook.target.dsn == "service=shop1"
    assert (loaded.path, loaded.folder, loaded.alembic) == (file, tmp_path, tmp_path / "alembic.ini")
    with pytest.raises(RunbookError, match=rf":2: \"alembic\": there is no file {tmp_path}/alembic.ini; "):
        loaded.check_files()
    (tmp_path / "alembic.ini").touch()
    loaded.check_files()


def test_a_file_that_cannot_be_a_runbook_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def said(path: Path) -> str:
        with pytest.raises(RunbookError) as caught:
            load(path, {})
        return str(caught.value).removeprefix(str(tmp_path))

    file = tmp_path / "w.toml"
    assert said(file) == "/w.toml: there is no such file; check the path"
    assert said(tmp_path) == ": this is a folder; name the runbook inside it"
    assert said(Path("/dev/zero")).startswith("/dev/zero: this is no regular file; ")
    assert (
        said(Path("/dev/null/x")) == "/dev/null/x: cannot be read: Not a directory; check the path and its permissions"
    )
    assert said(tmp_path / ("x" * 300)).endswith(
        ": cannot be read: File name too long; check the path and its permissions"
    )
    file.write_bytes('title = "ä"\nbudget = "'.encode() + b"\xe4")
    assert said(file) == "/w.toml:2: byte 0xE4 is not UTF-8; save the file as UTF-8"
    file.write_text("x" * (LARGEST + 1))
    assert said(file) == "/w.toml: is larger than 256 kB; name a runbook; data belongs elsewhere"
    file.write_text("")
    assert said(file).startswith("/w.toml: the runbook is empty; ")


def test_an_edited_runbook_is_shown_as_a_difference_fit_for_a_screen() -> None:
    assert difference(WINDOW, WINDOW.replace("\n", "\r\n")) == ""
    shown = difference(WINDOW, WINDOW.replace("expect = 0", "expect = 1  # \x1b[31m\u2028"))
    assert shown.split("\n")[:2] == ["--- the runbook of this window", "+++ the file now"]
    assert "\n-expect = 0\n+expect = 1  # ␛[31m·\n" in shown


# The reference


def test_every_key_has_a_meaning_and_every_key_that_must_be_there_an_example() -> None:
    for section in sections():
        assert section.meaning
        for row in section.rows:
            assert row.meaning, (section.name, row.key)
            assert f"| `{row.key}` |" in markdown()
    for spec in (Runbook, Target, Contact, Phase, *SPECS.values()):
        for key, field in spec.model_fields.items():
            if field.is_required() and key not in ("kind", "phase", "step"):
                assert field.examples, (spec, key)


@pytest.mark.skipif(not README.exists(), reason="there is no README yet")
def test_the_readmes_reference_names_every_key_and_kind_of_a_runbook() -> None:
    text = README.read_text()
    absent = [
        f"{section.name}: {row.key}" for section in sections() for row in section.rows if f"`{row.key}`" not in text
    ]
    assert absent == []
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []
