"""The GRANT that mends a missing privilege, as a person would type it. Pure."""

from __future__ import annotations

import re

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def quoted(name: str) -> str:
    """*name* as an identifier: as it is where it is a plain one, else in quotes."""
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def grant(what: str, user: str) -> str:
    """The statement that gives *what* (a role, or a privilege with its object) to *user*: `GRANT pg_monitor TO app`."""
    return f"GRANT {what} TO {quoted(user)}"
