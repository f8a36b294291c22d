"""The parent's side of the wire: one JSON line of the child becomes one value, its texts made harmless here."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dbwatch.migration.chain import Chain
from dbwatch.migration.events import (
    Applied,
    Connected,
    Failed,
    Finished,
    LogLine,
    Planned,
    StatementDone,
    StatementStarted,
)
from dbwatch.migration.request import RevisionSql
from dbwatch.text import one_line, sanitize

Answer = (
    Planned | Connected | StatementStarted | StatementDone | Applied | LogLine | Finished | Failed | Chain | RevisionSql
)
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Answer.__args__}


class Garbled(ValueError):
    """A line that no child of ours writes."""


def decode(line: bytes) -> Answer:
    """The value in *line*. Raises Garbled.

    All texts are sanitized but the names in `objects`, which have to match the catalogue exactly; SQL of statements
    is folded into one line, SQL of a preview keeps its lines.
    """
    try:
        body = json.loads(line)
        answer: Answer = _adapter(body.pop("event")).validate_python(_harmless(body))
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
        raise Garbled(f"not an answer: {sanitize(repr(line[:200]))}") from error
    return answer


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_KINDS[name])


def _harmless(value: Any, key: str = "", inside: str = "") -> Any:
    match value:
        case dict():
            return {name: _harmless(part, name, key) for name, part in value.items()}
        case list() if key == "objects":
            return value
        case list():
            return [_harmless(part, key, key) for part in value]
        case str() if key == "sql" and inside == "statements":
            return "\n".join(sanitize(text.expandtabs(4)) for text in value.splitlines())
        case str() if key in ("sql", "statement"):
            return one_line(value)
        case str():
            return sanitize(value)
    return value
