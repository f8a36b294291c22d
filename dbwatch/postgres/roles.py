"""The GRANT that mends a missing privilege, as a person would type it. Pure."""

from __future__ import annotations

import re

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def grant(what: str, user: str) -> str:
    """The statement that gives *what* (a role, or a privilege with its object) to *user*.

    `GRANT pg_monitor TO app`; a name that needs quotes gets them.
    """
    name = user if _PLAIN_NAME.fullmatch(user) else '"' + user.replace('"', '""') + '"'
    return f"GRANT {what} TO {name}"
