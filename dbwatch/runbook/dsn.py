"""The connection strings of a runbook: ${VAR} from the environment, and no password in the file.

The text of a runbook is kept in the journal and shown to everybody at the window; the expanded strings are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbwatch.postgres.conninfo import fault, normalize_dsn
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
    """*dsn* with each ${VAR} that is set in its place.

    Where it stands in the value of an option, or in a part of a URI, it is that value as it is: a password of any
    characters needs no quoting and no percent-encoding. Elsewhere it may hold options, or be all of the string.
    """

    def filled(text: str) -> str:
        return _REFERENCE.sub(lambda match: environ.get(match[1]) or match[0], text)

    if not _REFERENCE.search(dsn) or _REFERENCE.fullmatch(dsn.strip()):
        return filled(dsn)
    try:
        known = conninfo_to_dict(normalize_dsn(dsn))
    except psycopg.Error:
        return filled(dsn)
    return make_conninfo("", **{key: filled(str(value)) for key, value in known.items()})


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
    if fault(normalize_dsn(dsn)):
        what = f"libpq cannot read this{' once it is expanded' if dsn != written else ''}{_why(written)}"
        yield what, 'write "host=... dbname=..." or "postgresql://user@host/dbname"'


def _why(written: str) -> str:
    """libpq's reason where nothing in the file can be a secret: it repeats the word that it stumbled on."""
    if "${" in written or "password" in written.lower() or "://" in written:
        return ""
    try:
        conninfo_to_dict(written)
    except psycopg.Error as error:
        return f": {one_line(str(error), 200)}"
    return f": {fault(written)}"
