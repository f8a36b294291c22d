"""What a command prints for a person or a program. Whether somebody still reads it changes nothing of the work."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Prints *text* and its end of line. A reader who left (`| head`) is no error: from then on nobody is told.

    Raises OSError where it cannot be written for another reason, such as a full disk.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _to_nobody(sys.stdout.fileno())


def tell(text: str) -> None:
    """A line for the person, beside what a program reads; lost where nobody can read it."""
    try:
        print(f"dbwatch: {text}", file=sys.stderr, flush=True)
    except OSError:
        _to_nobody(sys.stderr.fileno())


def _to_nobody(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
