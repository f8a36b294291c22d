"""Who sits at the keyboard, as the journal names them."""

from __future__ import annotations

import getpass
import os
import socket

from dbwatch.text import one_line


def who(named: str) -> str:
    """`name@host`: *named*, else DBWATCH_ACTOR, else the login."""
    name = named or os.environ.get("DBWATCH_ACTOR", "")
    if not name:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):  # a uid without a name, as in containers
            name = str(os.getuid())
    return one_line(name if "@" in name else f"{name}@{socket.gethostname()}", 100)
