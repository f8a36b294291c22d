"""Blocking calls in a thread of their own, which nobody waits for longer than they want.

Not `asyncio.to_thread`: its threads are waited for when the program ends, and a disk or a server that hangs would
keep it from leaving.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """What *work* returns or raises, from a daemon thread called *name*.

    Cancelling the future does not end the work.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def deliver(value: T | None, error: BaseException | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
            result.exception()  # read, so that asyncio does not complain where nobody waits any more
        else:
            result.set_result(value)  # type: ignore[arg-type]  # T where there is no error

    def run() -> None:
        value: T | None = None
        error: BaseException | None = None
        try:
            value = work()
        except BaseException as caught:  # noqa: BLE001  # handed to whoever waits for it
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits any more
            loop.call_soon_threadsafe(deliver, value, error)

    threading.Thread(target=run, name=f"dbwatch {name}", daemon=True).start()
    return result
