"""A line that a person types at the terminal, waited for so that it can be given up at any time.

`input` in a thread cannot: whoever leaves waits for that thread, and it waits for Enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading

from dbwatch.errors import Refused


async def typed(question: str, *, instead: str) -> str:
    """What a person answers, without the blanks around it.

    Raises Refused where nobody is there, or they end the input; *instead* is what to do then.
    """
    if not sys.stdin.isatty():
        raise Refused("nobody is there to confirm", next=instead)
    asking = sys.stdout if sys.stdout.isatty() else sys.stderr
    print(question, end="", file=asking, flush=True)
    said = await line_from(sys.stdin.fileno())
    if not said.endswith(b"\n"):
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(file=asking, flush=True)
        raise Refused("the input ended before the answer", next=instead)
    return said.decode(sys.stdin.encoding, "replace").strip()


async def line_from(terminal: int) -> bytes:
    """The next line, with its end; without one where the input ends first, or the terminal goes."""
    said = b""
    while not said.endswith(b"\n"):
        await _readable(terminal)
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            return b""
        if not piece:
            return b""
        said += piece
    return said


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except (OSError, NotImplementedError):  # not every loop can watch every descriptor
        threading.Thread(target=_tell_once_readable, args=(descriptor, loop, readable), daemon=True).start()
        await readable.wait()
        return
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


def _tell_once_readable(descriptor: int, loop: asyncio.AbstractEventLoop, readable: asyncio.Event) -> None:
    with contextlib.suppress(OSError, ValueError):
        select.select([descriptor], [], [])
    with contextlib.suppress(RuntimeError):  # the loop is over, and nobody waits any more
        loop.call_soon_threadsafe(readable.set)
