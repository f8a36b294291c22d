"""A runbook to change, and what is said of a text."""

from __future__ import annotations

from dbwatch.runbook.loader import RunbookError, parse

WINDOW = """\
title = "users.phone replaces legacy_phone_field"
alembic = "alembic.ini"                   # relative to this file
budget = "60min"
rollback_budget = "5min"

[target]
dsn = "service=shop"
lock_timeout = "2s"
statement_timeout = "60s"

[[contact]]
role = "DBA on call"
name = "Lin Wei"

[[phase]]
name = "expand"

[[phase.step]]
id = "preview"
kind = "manual"
text = "SQL preview read by a second person"

[[phase.step]]
id = "add"
kind = "migrate"
to = "3f1c"

[[phase]]
name = "code"

[[phase.step]]
id = "deploy"
kind = "manual"
text = "deploy v0.8.0"
rollback = "git checkout v0.7.0; docker compose up -d"

[[phase.step]]
id = "fill"
kind = "backfill"
table = "users"
set = "phone = legacy_phone_field"
where = "phone IS NULL"

[[phase.step]]
id = "complete"
kind = "check"
sql = "SELECT count(*) FROM users WHERE phone IS NULL"
expect = 0

[[phase.step]]
id = "validate"
kind = "sql"
sql = '''
ALTER TABLE users
  VALIDATE CONSTRAINT phone_given'''
"""


def mistakes(text: str, environ: dict[str, str] | None = None) -> list[str]:
    """The lines of the error that *text* gives; none where it is a runbook."""
    try:
        parse(text, "runbook.toml", environ or {})
    except RunbookError as error:
        return str(error).split("\n")
    return []


def line_of(text: str, part: str) -> int:
    """The number of the one line that holds *part*."""
    (line,) = [number for number, line in enumerate(text.split("\n"), 1) if part in line]
    return line
