"""The edge of every command: whatever went wrong becomes one sentence on standard error, and an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable

from cyclopts import CycloptsError
from cyclopts.exceptions import UnusedCliTokensError

from dbwatch.errors import CannotConnect, DbwatchError, Exit, Refused, UsageError
from dbwatch.text import one_line, sanitize


def carried_out(command: Callable[[], int | None], *, debug: bool) -> int:
    """Runs *command*; its exit code, or that of what it raised, which is told. With *debug* tracebacks are too."""
    _open_standard_streams()
    if not debug:  # a library's warning would stand in the middle of a screen; what matters to a person is a status
        logging.getLogger().addHandler(logging.NullHandler())
        warnings.simplefilter("ignore")
    try:
        code = command() or Exit.OK
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except SystemExit:  # nothing of ours raises it: it is rich's, whose reader left in the middle of a help
        code = Exit.OK
    except BrokenPipeError as error:
        code = Exit.OK if _reader_left() else _told(error, debug=debug)
    except Exception as error:  # noqa: BLE001  # the command's edge: it becomes a sentence, and an exit code
        code = _told(error, debug=debug)
    _let_go_of_output()
    return code


def _told(error: Exception, *, debug: bool) -> Exit:
    """Tells *error* on standard error; its exit code."""
    if debug:
        traceback.print_exception(error)
    told = explained(error)
    print("dbwatch: " + "\n".join(sanitize(line) for line in str(told).split("\n")), file=sys.stderr)
    return told.exit_code


def explained(error: Exception) -> DbwatchError:
    """*error* as one with a sentence for a person. Pure."""
    if isinstance(error, DbwatchError):
        return error
    if isinstance(error, CycloptsError):
        return _misused(error)
    if isinstance(error, OSError):
        file = f" {one_line(str(error.filename), 300)}" if error.filename else ""
        return DbwatchError(f"the system refused{file}", why=error.strerror or one_line(str(error)))
    return _from_server(error) or DbwatchError(
        "this is a fault in dbwatch",
        why=f"{type(error).__name__}: {one_line(str(error), 300)}",
        next="run it again with --debug, and report what that prints",
    )


def _misused(error: CycloptsError) -> UsageError:
    command = " ".join(["dbwatch", *(error.command_chain or ())])
    if isinstance(error, UnusedCliTokensError):  # its words are not repeated: a piece of a password may be among them
        what, mend = f"{command} was given more arguments than it takes", "put a connection string in quotes, or "
    else:
        what = one_line(str(error), 300).replace(". Did you mean", ", did you mean").rstrip(".?")
        what, mend = what[:1].lower() + what[1:], ""
    return UsageError(what, next=f"{mend}see {command} --help")


def _from_server(error: Exception) -> DbwatchError | None:
    """What a server refused that nobody closer by has explained; None where *error* is none of a server's."""
    import psycopg  # not before it is needed: --help is quicker without

    from dbwatch.postgres.session import describe

    if not isinstance(error, psycopg.Error):
        return None
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return Refused("a privilege is missing", why=describe(error), next="see README.md, Privileges")
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        return CannotConnect("the connection was lost", why=describe(error), next="try again")
    return DbwatchError("the server refused", why=describe(error))


def _open_standard_streams() -> None:
    """Gives a closed standard stream (`2>&-`) something to write to: the next socket would get its number, and the
    next warning would be written into it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal of another encoding shows "?" for what it does not have
        sys.stdout.reconfigure(errors="replace")


def _reader_left() -> bool:
    """Whether nobody reads standard output any more (`| head`): what was to be read was read, and that is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def _let_go_of_output() -> None:
    """Takes away what could not be written, so that the interpreter does not try again on its way out."""
    try:
        sys.stdout.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)
