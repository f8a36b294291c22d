"""Deliberately broken versions of dbwatch, to show that the oracles can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from dbwatch.journal import ledger, store
from dbwatch.journal.store import Store
from dbwatch.postgres.session import Connection
from dbwatch.steps import kinds, sql, statement
from dbwatch.steps.step import Done, Kit, Outcome
from dbwatch.window import opening, wheel


def _two_transactions() -> None:
    """A sql step commits first, and enters it into the journal a moment later."""

    async def run_together(session: Any, text: str, write: Any, *, limits: Any, **_: object) -> str:
        async def act(connection: Connection) -> str:
            return (await connection.execute(text.encode())).statusmessage or "done"

        async def enter(connection: Connection) -> None:
            async with connection.transaction():
                await write(connection, result)

        result = await session.call(act, within=statement.deadline_s(limits))
        await asyncio.sleep(3.0)
        await session.call(enter, within=5.0)
        return str(result)

    sql.run_together = run_together  # type: ignore[assignment]  # that is the fault


def _hopeful() -> None:
    """A step that was cut off is taken to be done."""

    async def recover(spec: Any, kit: Kit) -> Outcome:
        del spec, kit
        return Done("it will have been done")

    kinds.RECOVERIES = {kind: recover for kind in kinds.RECOVERIES}  # type: ignore[misc]  # that is the fault
    from dbwatch.window import work

    work.RECOVERIES = kinds.RECOVERIES  # type: ignore[misc]  # as above


def _unfenced() -> None:
    """Nobody looks at the epoch, and nobody ends the old driver's sessions."""
    written = Store._write

    async def write(self: Store, connection: Connection, decide: Any, epoch: int | None) -> Any:
        row = await ledger.locked(connection, self.window)
        return await written(self, connection, decide, row.epoch if epoch is not None else None)

    async def renew(self: Store, *, within: float = 3.0) -> None:
        del self, within

    async def leave_them(*_: object) -> None:
        return None

    Store._write = write  # type: ignore[method-assign]  # that is the fault
    Store.renew = renew  # type: ignore[method-assign]  # as above
    wheel.end_backends = opening.end_backends = leave_them  # type: ignore[assignment]  # as above


def _forgetful() -> None:
    """A mirror loses every third line."""
    took = store.Mirror.took

    async def lose(self: store.Mirror, events: Sequence[Any]) -> None:
        await took(self, [e for e in events if e.seq % 3])

    store.Mirror.took = lose  # type: ignore[method-assign]  # that is the fault


VERSIONS: dict[str, Callable[[], None]] = {
    "two transactions": _two_transactions,
    "hopeful": _hopeful,
    "unfenced": _unfenced,
    "forgetful": _forgetful,
}
