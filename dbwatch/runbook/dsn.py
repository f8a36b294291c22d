"""The connection strings of a runbook: ${VAR} from the environment, and no password in the file.

The text of a runbook is kept in the journal and shown to everybody at the window; the expanded strings are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dbwatch.postgres.session import normalize_dsn
from dbwatch.text import one_line

KEYS = ("dsn", "monitor_dsn", "migrate_dsn")
"""The keys of [target] in which ${VAR} is expanded."""

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PASSWORDS = (
    re.compile(r"://[^:@/?#\s]*:([^@/?#]*)@"),
    re.compile(r"(?:^|[\s?&])(?:ssl)?password\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&]*)", re.IGNORECASE),
)


def expand(dsn: str, environ: Mapping[str, str]) -> str:
    """*dsn* with each ${VAR} that is set in its place, as it is: quoting is the writer's."""
    return _REFERENCE.sub(lambda match: environ.get(match[1]) or match[0], dsn)


def faults(dsn: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with *dsn* as it stands in the file, and the mend. Never repeats what may be a secret."""
    if any(_REFERENCE.sub("", password).strip("'") for p in _PASSWORDS for password in p.findall(dsn)):
        yield (
            "a password stands in the file, and the journal keeps the file",
            "use ${VAR}, a service, or a password file",
        )
    names = _REFERENCE.findall(dsn)
    bad = False
    for name in dict.fromkeys(names):
        if not _NAME.fullmatch(name):
            bad = True
            yield "${...} holds no name of a variable", "write ${NAME} with letters, digits and underscores"
        elif not environ.get(name):
            bad = True
            state = "empty" if name in environ else "not set"
            yield f"${{{name}}} is {state} in the environment", f"export {name} before dbwatch is started"
    if "${" in _REFERENCE.sub("", dsn):
        bad = True
        yield "${ without its }", "write ${NAME}"
    if not bad:
        yield from _unreadable(expand(dsn, environ), written=dsn)


def _unreadable(dsn: str, written: str) -> Iterator[tuple[str, str]]:
    try:
        conninfo_to_dict(normalize_dsn(dsn))
    except psycopg.Error as error:
        # libpq repeats the word that it stumbled on, which may be a part of a password.
        secret = dsn != written or "password" in dsn.lower() or "://" in dsn
        why = "" if secret else f": {one_line(str(error), 200)}"
        what = f"libpq cannot read this{' once it is expanded' if dsn != written else ''}{why}"
        yield what, 'write "host=... dbname=..." or "postgresql://user@host/dbname"'
