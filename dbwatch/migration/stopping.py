"""How a running migration is stopped: a ladder, each rung with its wait, the gentlest first.

1. `stop` on the control pipe (no new statement, no commit) and pg_cancel_backend, by (pid, backend_start).
2. SIGINT to the child.
3. pg_terminate_backend: before the kill, since a killed client leaves its backend running to the statement's end.
4. SIGKILL to the child's whole session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg

from dbwatch.errors import ConnectionLost, ServerSilent
from dbwatch.migration.events import Stopping
from dbwatch.migration.process import Child
from dbwatch.postgres.session import Session, describe
from dbwatch.postgres.signals import signal


@dataclass(frozen=True, slots=True)
class Ladder:
    """How long each rung is given, in seconds."""

    cancel_s: float = 2.0
    interrupt_s: float = 3.0
    terminate_s: float = 2.0


Backend = tuple[int, datetime]
"""(pid, backend_start): a pid alone can be somebody else by now."""


async def climb(
    child: Child,
    ended: asyncio.Future[None],
    control: Session,
    backends: Callable[[], Sequence[Backend]],
    on_event: Callable[[Stopping], None],
    ladder: Ladder,
) -> None:
    """Stops *child*; returns when *ended* is done, or when it was killed. Never raises for what the server does."""
    child.pull()
    on_event(Stopping("cancel", await _signal(control, backends(), terminate=False)))
    if await _over(ended, ladder.cancel_s):
        return
    child.interrupt()
    on_event(Stopping("interrupt", f"process {child.pid} was interrupted"))
    if await _over(ended, ladder.interrupt_s):
        return
    on_event(Stopping("terminate", await _signal(control, backends(), terminate=True)))
    if await _over(ended, ladder.terminate_s):
        return
    child.kill()
    on_event(Stopping("kill", f"process {child.pid} was killed"))


async def _over(ended: asyncio.Future[None], seconds: float) -> bool:
    done, _ = await asyncio.wait({ended}, timeout=seconds)
    return bool(done)


async def _signal(control: Session, backends: Sequence[Backend], *, terminate: bool) -> str:
    """What came of signalling each of *backends*, for a person."""
    said: list[str] = []
    for pid, start in backends:
        try:
            said.append((await signal(control, pid, start, terminate=terminate)).reason)
        except (ServerSilent, ConnectionLost, psycopg.Error) as error:
            said.append(f"session {pid} could not be signalled: {describe(error)}")
    return "; ".join(said) or "it had no session yet"
