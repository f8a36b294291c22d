"""Errors that a person reads: one sentence that says what, why, and what to try next."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1
    """The thing checked does not hold, or the run failed."""
    USAGE = 2
    """Usage or configuration."""
    CONNECT = 3
    """No connection to the server."""
    REFUSED = 4
    """Refused: a privilege, a guard or a confirmation is missing."""
    INTERRUPTED = 130


class DbwatchError(Exception):
    """Base of all errors with a sentence for a person.

    `str(error)` is that sentence: *what* happened, *why*, and *next*, the thing to try.
    """

    exit_code: Exit = Exit.FAILED

    def __init__(self, what: str, *, why: str = "", next: str = "") -> None:
        self.what, self.why, self.next = what, why, next
        super().__init__(what + (f": {why}" if why else "") + (f"; {next}" if next else ""))


class UsageError(DbwatchError):
    """A command line, a runbook or a configuration that cannot be used as it is."""

    exit_code = Exit.USAGE


class CannotConnect(DbwatchError):
    """The server could not be reached, or it did not let us in."""

    exit_code = Exit.CONNECT


class Refused(DbwatchError):
    """dbwatch or the server declines: a privilege, a guard or a confirmation is missing."""

    exit_code = Exit.REFUSED


class ServerSilent(DbwatchError):
    """The server did not answer within the deadline; the connection was closed by us."""


class ConnectionLost(DbwatchError):
    """The connection ended while it was in use; whether the last statement took effect is unknown."""


class Fenced(DbwatchError):
    """Somebody took over: our epoch is no longer the window's, and nothing of ours was written."""

    exit_code = Exit.REFUSED
