"""The kinds of value that a runbook holds, each checked as it is read; a refusal says what is wrong and the mend.

A runbook is reviewed by a second person: what stands on the screen must be what is sent to the server. So text that
is only read is made harmless here, and text that is executed is refused where it holds an invisible character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import date, time
from math import isfinite
from typing import Annotated, Any

import postgast
from postgast import pg_query_pb2 as pg
from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from dbwatch.text import one_line, sanitize, seconds

_DURATIONS = 'write "500ms", "2s", "60min", "24h" or "14d"'
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LONGEST_TIMEOUT_S = 2_147_483.0  # PostgreSQL keeps a timeout as milliseconds in 32 bits


def refuse(what: str, mend: str, at: str | None = None) -> PydanticCustomError:
    """The error that the loader turns into a `Mistake`; *at* names the key meant, where a whole table is judged."""
    return PydanticCustomError("mistake", "{what}; {mend}", {"what": what, "mend": mend, "at": at})


def quoted(foreign: object) -> str:
    """A short piece of the file for a sentence, harmless and in quotes."""
    return f'"{one_line(str(foreign), 60)}"'


def noun(value: object) -> str:
    """What a TOML value is, in words: `text`, `a whole number`, `a list`."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return "text"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case date() | time():
            return "a date or time"
        case _:
            return "a value of another kind"


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise refuse(f"expected a duration in quotes, not {noun(value)}", _DURATIONS)
    try:
        length = seconds(value)
    except ValueError:
        raise refuse(f"{quoted(value)} is no duration", _DURATIONS) from None
    if length <= 0:
        raise refuse(f"{quoted(value)} is not longer than nothing", _DURATIONS)
    return length


def _timeout(length: float) -> float:
    # PostgreSQL counts in whole milliseconds and takes 0 for "no limit": 0.4ms must not turn the limit off.
    if not 0.001 <= length <= _LONGEST_TIMEOUT_S:
        raise refuse("a timeout is 1ms at least and 24d at most", _DURATIONS)
    return length


MOST_WORKERS = 16
"""Of a backfill; each takes a core of the server, or waits for one."""


def _batch_time(length: float) -> float:
    # As the backfill's own plan, which would refuse it only when the step is run.
    if not 0.01 <= length <= 10.0:
        raise refuse("a batch takes 10ms at least and 10s at most", _DURATIONS)
    return length


def _harmless(keep: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        for char in value:
            if unicodedata.category(char) in _INVISIBLE and char not in keep:
                if char == "\n":
                    raise refuse("it stands on several lines", "put it on one")
                mend = "remove it; in a literal of SQL it can be written as an escape, U&'\\....'"
                raise refuse(f"it holds the invisible character U+{ord(char):04X}", mend)
        return value

    return check


def _filled(value: str) -> str:
    if not value.strip():
        raise refuse("it is empty", "say something")
    return value


def _line(value: str) -> str:
    if "\n" in value.strip():
        raise refuse("it stands on several lines", "put it on one")
    return sanitize(value.strip())


def _without_word(word: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if re.match(rf'\s*{word}\s+[\w"(]', value, re.IGNORECASE):  # a column may be called "set"
            raise refuse(f"it begins with the word {word}", "leave the word out, it is added")
        if value.rstrip().endswith(";"):
            raise refuse("it ends with a semicolon", "leave it out, this is a part of a statement")
        return value

    return check


_WITHIN = frozenset({pg.TRANS_STMT_SAVEPOINT, pg.TRANS_STMT_RELEASE, pg.TRANS_STMT_ROLLBACK_TO})


def _within_a_transaction(value: str) -> str:
    try:
        statements = [raw.stmt for raw in postgast.parse(value).stmts]
    except (postgast.PgQueryError, UnicodeEncodeError):
        return value  # the server tells what is wrong with it
    if any(one.HasField("transaction_stmt") and one.transaction_stmt.kind not in _WITHIN for one in statements):
        raise refuse("it begins or ends a transaction", "leave BEGIN, COMMIT and the like out: the step is one already")
    return value


def _word(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", value):
        mend = "write 1 to 40 letters, digits, dots, dashes or underscores"
        raise refuse(f"{quoted(value)} is no id", mend)
    return value


def _revision(value: str) -> str:
    # A relative revision counts from where the database stands: run again after a crash, it would move twice.
    if re.search(r"[+-]\d+$", value):
        raise refuse(f"{quoted(value)} is relative and moves again when the step is repeated", "name the revision")
    if value == "base":
        raise refuse('"base" is the way down', "name a revision, head or heads; an abort goes down by itself")
    if not re.fullmatch(r"([^\s@+:-][^\s@+:]*@)?[^\s@+:-][^\s@+:]*", value):
        raise refuse(f"{quoted(value)} is no revision", "name one revision, head or heads")
    return value


def _expected(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise refuse(f"expected a number, text, true or false, not {noun(value)}", "write one value")
    if isinstance(value, float) and not isfinite(value):
        raise refuse(f"nothing equals {value}", "write a finite number")
    return _harmless("")(value) if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(_duration)]
"""Seconds; written with a unit."""

Timeout = Annotated[float, BeforeValidator(_duration), AfterValidator(_timeout)]
"""Seconds, in the range of PostgreSQL's own timeouts; written with a unit."""

BatchTime = Annotated[float, BeforeValidator(_duration), AfterValidator(_batch_time)]
"""Seconds that a batch of a backfill may be asked to take; written with a unit."""

Line = Annotated[str, AfterValidator(_filled), AfterValidator(_line)]
"""One line that a person reads."""

OptionalLine = Annotated[str, AfterValidator(_line)]
"""One line that a person reads, or nothing."""

Prose = Annotated[str, AfterValidator(_filled), AfterValidator(one_line)]
"""Words for a person: line breaks are folded into spaces."""

Word = Annotated[str, AfterValidator(_word)]
"""A short name without spaces."""

Exact = Annotated[str, AfterValidator(_filled), AfterValidator(_harmless(""))]
"""One line that is used as it stands."""

Conninfo = Annotated[str, AfterValidator(_harmless(""))]
"""What libpq takes; may be empty."""

Statement = Annotated[str, AfterValidator(_filled), AfterValidator(_harmless("\n\t"))]
"""SQL that is sent as it stands; may have several lines."""

OptionalStatement = Annotated[str, AfterValidator(_harmless("\n\t"))]
"""SQL that is sent as it stands, or nothing."""

Transactional = Annotated[Statement, AfterValidator(_within_a_transaction)]
"""SQL that is sent as it stands, and neither begins nor ends a transaction."""

OptionalTransactional = Annotated[OptionalStatement, AfterValidator(_within_a_transaction)]
"""The same, or nothing."""

Assignments = Annotated[Statement, AfterValidator(_without_word("SET"))]
"""What follows the word SET."""

Condition = Annotated[Statement, AfterValidator(_without_word("WHERE"))]
"""What follows the word WHERE."""

Revision = Annotated[Exact, AfterValidator(_revision)]
"""Where Alembic goes: one revision, `head`, `heads`, or `label@head`."""

SIGNALS = (
    *("blocked", "active", "latency", "lag", "slots", "wal", "checkpoints", "dead", "xmin", "freeze", "deadlocks"),
    *("conflicts", "connections", "identity", "vacuum", "hot"),
)
"""The short names of the health signals that a backfill looks at."""


def _signal(value: str) -> str:
    if value not in SIGNALS:
        raise refuse(f"{quoted(value)} is no health signal", f"choose of {', '.join(SIGNALS)}")
    return value


Signals = tuple[Annotated[str, AfterValidator(_signal)], ...]
"""Health signals by their short names."""

Expected = Annotated[int | float | str | bool, BeforeValidator(_expected)]
"""One value to compare with."""


def filled(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuses a list without elements."""
    if not values:
        raise refuse("it is empty", "add one")
    return values
