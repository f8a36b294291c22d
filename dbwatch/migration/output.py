"""What env.py, the revisions and their subprocesses print: caught by descriptor, told as log lines, without secrets."""

from __future__ import annotations

import os
import sys
import threading
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from dbwatch.migration.answers import Answers
from dbwatch.migration.events import LogLine

_LINE_SHOWN = 4_000
"""Characters of a line that are told."""


class Output:
    """Takes standard output and error over for this process and its children; standard input becomes empty."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._read, write = os.pipe()
        for descriptor in (1, 2):
            os.dup2(write, descriptor)
        os.close(write)
        _point_at_nothing(0)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]  # real files
        self._thread = threading.Thread(target=self._forward, name="output", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Ends the taking over; waits, at most a second, until all that was written is told."""
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()
        _point_at_nothing(1)
        _point_at_nothing(2)
        self._thread.join(1.0)  # a subprocess may hold the other end for ever

    def _forward(self) -> None:
        with os.fdopen(self._read, encoding="utf-8", errors="replace") as lines:
            for text in lines:
                self._answers.send(LogLine(text.rstrip("\n")[:_LINE_SHOWN]), droppable=True)


def _point_at_nothing(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def secrets(dsn: str) -> frozenset[str]:
    """The passwords that this process knows, as they may stand in a text, in a URL too."""
    known = {str(value) for name, value in conninfo_to_dict(dsn).items() if "password" in name and value}
    known |= {os.environ[name] for name in ("PGPASSWORD",) if os.environ.get(name)}
    return frozenset(known | {quote(one, safe="") for one in known} | {quote(one, safe=" +") for one in known})
