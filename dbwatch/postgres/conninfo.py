"""Connection strings: read, shown without their secrets, and why one did not lead anywhere. Pure."""

from __future__ import annotations

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbwatch.errors import CannotConnect, Exit, UsageError
from dbwatch.text import one_line

_SHOWN = ("service", "user", "dbname", "host", "hostaddr", "port")
"""What of a connection string may be shown; of all other options somebody could make a secret."""
_FORMS = 'write "host=... dbname=..." with quotes around it, or "postgresql://user@host/dbname"'
_PASSWORD = "check the password (PGPASSWORD, ~/.pgpass or the service file)"
_FREE = "free a connection, or raise the limit"
_CHECK = "check host, port and that the server runs"


def normalize_dsn(dsn: str) -> str:
    """*dsn* as libpq takes it: SQLAlchemy's `postgresql+driver://` loses its driver; empty means PG* variables."""
    scheme, colon, rest = dsn.partition("://")
    return f"{scheme.split('+')[0]}{colon}{rest}" if colon else dsn


def hide_password(conninfo: str) -> str:
    """*conninfo* as one may show it: who, where, and nothing else."""
    try:
        known = conninfo_to_dict(conninfo)
    except psycopg.Error:
        return "(unreadable connection string)"
    return make_conninfo("", **{k: str(known[k]) for k in _SHOWN if known.get(k) is not None})


def fault(conninfo: str) -> str:
    """Why *conninfo* is no connection string; empty where it is one.

    libpq's own words are not repeated: they quote the text that it stumbled on, which may be a piece of a password.
    """
    if "://" in conninfo and _unencoded(conninfo):
        return "there is an @ too many in the URI: in a name or a password write %40 for @, %2F for /, %25 for %"
    try:
        known = conninfo_to_dict(conninfo)
    except psycopg.Error:
        if "://" in conninfo:
            return "libpq cannot read this URI: a character of it may have to be percent-encoded, % itself as %25"
        return "libpq cannot read it: each option is key=value, a value with spaces or quotes stands in '...'"
    for port in str(known.get("port") or "").split(","):
        if port and not (port.isdecimal() and 0 < int(port) < 65_536):
            return "its port is no number from 1 to 65535"
    return ""


def require_readable(conninfo: str) -> None:
    """Raises UsageError where *conninfo* is no connection string."""
    why = fault(conninfo)
    if not why:
        return
    if re.fullmatch(r"[\w.-]+", conninfo):
        raise UsageError(
            f"{one_line(conninfo, 100)!r} is neither a command nor a connection string",
            next=f"see dbwatch --help for the commands, or {_FORMS}",
        )
    raise UsageError("the connection string cannot be used", why=why, next=_FORMS)


def refused(conninfo: str, said: str) -> CannotConnect:
    """Why we were not let in where *conninfo* leads; *said* is what the driver or the server said, on one line.

    Its exit code is that of a wrong configuration where an option's value was the cause.
    """
    hint = next((hint for words, hint in _HINTS if words in said), _CHECK)
    error = CannotConnect(f"cannot connect to {shown(conninfo)}", why=_cause(said), next=hint)
    if any(words in said for words in _CONFIGURATION):
        error.exit_code = Exit.USAGE
    return error


def shown(conninfo: str) -> str:
    """*conninfo* in a sentence."""
    return one_line(hide_password(conninfo), 300) or "the server that the PG* variables name"


def _unencoded(uri: str) -> bool:
    """Whether libpq would end a user's name or password too early, and take the rest for a host or a database."""
    authority, _, path = uri.partition("://")[2].partition("/")
    return authority.partition("?")[0].count("@") > 1 or "@" in path.partition("?")[0]


def _cause(said: str) -> str:
    """The cause alone: without psycopg's introduction, libpq's question and the failures of other addresses."""
    text = re.sub(r"^connection (failed|is bad): ", "", said)
    text = text.partition(" Multiple connection attempts failed.")[0]
    text = re.sub(r" Is the server running .*?\?$", "", text)
    return re.sub(r"^failed to resolve host '(.*)': \[Errno -?\d+\] ", r"the name \1 cannot be resolved: ", text)


_CONFIGURATION = ("definition of service", "service file", "connection is bad: invalid ")
_TLS = "check sslmode, sslrootcert and what the server offers"
_SERVICE = "check its name, and the service file (~/.pg_service.conf, PGSERVICEFILE)"
_HINTS = (
    ("definition of service", _SERVICE),
    ("service file", _SERVICE),
    ("connection is bad: invalid ", "check that option of the connection string"),
    ("password authentication failed", _PASSWORD),
    ("no password supplied", _PASSWORD.replace("check the", "give a")),
    ("no pg_hba.conf entry", "check the user, the address and pg_hba.conf"),
    ("the database system is", "the server is starting or stopping; try again"),
    ("is not permitted to log in", "take another role, or ALTER ROLE ... LOGIN"),
    ("permission denied for database", "GRANT CONNECT ON DATABASE ... TO this role"),
    ("too many c", _FREE),
    ("remaining connection slots", _FREE),
    ("failed to resolve host", "check the host's name"),
    ("SSL", _TLS),
    ("certificate", _TLS),
    ("FATAL: role ", "check the user's name"),
    ("FATAL: database ", "check the database's name"),
)
"""libpq gives no SQLSTATE for a failure at connect, only the server's words (in the server's language)."""
