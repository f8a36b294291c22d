"""SQL by name and version: `sql/activity.sql` serves all majors, `sql/statements-17.sql` those from 17 on."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import dropwhile

OURS = "/* dbwatch */"
"""Stands in every statement of our own, so that it can be marked among pg_stat_statements. After the first keyword:
from 18 on comments before it are not kept."""


@cache
def query(name: str, server_version: int) -> bytes:
    """The text of query *name* for a server of *server_version* (server_version_num, 150018 is 15.18), marked as ours.

    The file `NAME-MAJOR.sql` with the highest major not above the server's is taken, else `NAME.sql`.
    Raises LookupError where no file serves this version.
    """
    folder = files("dbwatch.postgres") / "sql"
    for major in range(server_version // 10_000, 12, -1):
        file = folder / f"{name}-{major}.sql"
        if file.is_file():
            return _read(file)
    file = folder / f"{name}.sql"
    if file.is_file():
        return _read(file)
    raise LookupError(f"no {name}.sql for server version {server_version}")


def marked(statement: str) -> str:
    """*statement* with our mark after its first keyword, once. Pure."""
    return statement if OURS in statement else re.sub(r"\A\s*\w+", rf"\g<0> {OURS}", statement, count=1)


def _read(file: Traversable) -> bytes:
    """Without the comment at the top, which is for whoever reads the file: on a screen the statement begins with it."""
    lines = file.read_text("utf-8").splitlines(keepends=True)
    body = list(dropwhile(lambda line: line.startswith("--"), lines))
    return marked("".join(body)).encode()
