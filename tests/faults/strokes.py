"""What happens to a run, each under the number of its fault. A stroke tells whether it could take place."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import psycopg
from pooler import pgbouncer

from dbwatch.postgres.embedded import StopMode
from faults.filler import Filler

if TYPE_CHECKING:
    from faults.run import Run

BATCH = b"filled AS ("
"""In the message that carries a batch."""
OURS = "starts_with(application_name, 'dbwatch worker') AND datname = current_database()"
_WAITS = f"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {OURS} AND %s = ANY(pg_blocking_pids(pid)))"  # noqa: S608  # ours


async def _kill(run: Run) -> bool:
    filler = await run.start()
    if run.dice.random() < 0.5:  # in the middle of a batch that waits
        async with await run.session() as holder:
            await _hold(run, holder)
            await _waited_for(holder, 0.4)
            await filler.kill()
    else:
        await filler.kill()
    await run.start()
    return True


async def _answer_lost(run: Run) -> bool:
    proxy, how = run.proxy, run.dice.choice(("batch", "batch", "batch", "piece", "cut"))
    run.log(f"by {how}")
    match how:
        case "batch":
            proxy.drop_answer_to(BATCH)
        case "piece":
            proxy.die_at(run.dice.randint(1, 30), arrives=run.dice.random() < 0.7)
        case _:
            proxy.cut()
    return True


async def _crash(run: Run) -> bool:
    modes: list[StopMode | None] = ["immediate", "immediate", None, "fast"]
    mode = run.dice.choice(modes)
    run.log(f"by {mode or 'kill -9'}")
    if mode is None:
        await run.house.primary.kill9()
    await run.house.primary.restart(mode or "immediate")
    run.doubt()
    return True


async def _fail_over(run: Run) -> bool:
    if run.house.standby is None:
        return False
    await run.house.fall_behind()
    if run.main is not None:
        await run.main.ended(run.dice.choice((0.05, 0.3, 0.8)))
    await run.moved()
    run.doubt()
    return True


async def _deadlock(run: Run) -> bool:
    """The application locks a row ahead of the cursor; once we wait for it, it asks for one that we hold."""
    async with await run.session() as application:
        keys = await _ahead(run, application)
        if len(keys) < 2:
            return False
        await application.execute("BEGIN")
        try:
            await application.execute(f"UPDATE t SET pad = 'd' WHERE {run.scene.found(keys[1])}".encode())  # noqa: S608  # ours
            waited = await _waited_for(application, 2.0)
            await application.execute(f"UPDATE t SET pad = 'd' WHERE {run.scene.found(keys[0])}".encode())  # noqa: S608  # ours
            await application.execute("COMMIT")
        except psycopg.errors.DeadlockDetected:
            await application.execute("ROLLBACK")
            return True
    return waited


async def _second(run: Run) -> bool:
    run.rivals.append(await run.filler("rival"))
    return True


async def _second_pooled(run: Run) -> bool:
    if shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin") is None:
        return False
    through = await run.stack.enter_async_context(pgbouncer(run.ledger.database.dsn))
    run.rivals.append(await run.filler("pooled rival", through))
    return True


async def _both_anew(run: Run) -> bool:
    """The one that worked is killed, and two come at once."""
    filler = await run.start()
    await filler.kill()
    run.rivals.append(await run.filler("rival"))
    await run.start()
    return True


async def _keyless(run: Run) -> bool:
    """A table without a key: mode once is refused there, mode pending fills it; another time that process is killed."""
    if run.keyless is not None and run.keyless.alive:
        await run.keyless.begun(10.0)
        await run.keyless.kill()
        await run.fill_keyless()
        return True
    await run.fill_keyless()
    refused = await Filler.start("keyless once", run.ledger.database.dsn, run.scene.flavour.keyless_once, "")

    async def look() -> None:
        await refused.ended(30)
        told = refused.complaint.decode(errors="replace")
        if refused.code == 0 or (refused.code != 4 and "no key to walk by" in told):
            run.breach(f"mode once without a key ended with {refused.code}: {told}")

    run.meanwhile(look())
    return True


async def _row_locked(run: Run) -> bool:
    """A row ahead of the cursor is locked for a while."""
    seconds = run.dice.choice((0.3, 1.0, 2.5))

    async def hold() -> None:
        async with await run.session() as holder:
            await _hold(run, holder)
            await asyncio.sleep(seconds)

    run.meanwhile(hold())
    return True


async def _table_locked(run: Run) -> bool:
    """VACUUM, ANALYZE, or the lock that they and CREATE INDEX CONCURRENTLY take."""
    what = run.dice.choice(("VACUUM t", "ANALYZE t", "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"))
    seconds = run.dice.choice((0.3, 1.0, 2.5))

    async def hold() -> None:
        async with await run.session() as holder:
            if not what.startswith("LOCK"):
                await holder.execute(what.encode())
                return
            await holder.execute("BEGIN")
            await holder.execute(what.encode())
            await asyncio.sleep(seconds)

    run.meanwhile(hold())
    return True


async def _burst(run: Run) -> bool:
    """In one transaction many rows come, go and move."""
    scene, dice = run.scene, run.dice
    statements = [
        *(scene.insert() for _ in range(150)),
        *(scene.delete(dice) for _ in range(80)),
        *(scene.move(dice) for _ in range(40)),
    ]

    async def act() -> None:
        async with await run.session() as session, session.pipeline():
            await session.execute("SET lock_timeout = '3s'")
            for statement in statements:
                await session.execute(statement.encode())

    run.meanwhile(act())
    return True


async def _abort(run: Run) -> bool:
    """Somebody stops it: by a signal, by two, or in the server."""
    filler = await run.start()
    how = run.dice.choice(("once", "twice", "term", "cancel", "terminate"))
    run.log(f"by {how}")
    if how in ("cancel", "terminate"):
        async with await run.session() as session:
            await session.execute(f"SELECT pg_{how}_backend(pid) FROM pg_stat_activity WHERE {OURS}".encode())  # noqa: S608  # ours
        return True
    filler.signal(signal.SIGTERM if how == "term" else signal.SIGINT)
    if how == "twice":
        await asyncio.sleep(run.dice.choice((0.0, 0.02)))
        filler.signal(signal.SIGINT)
    if not await filler.ended(20):
        run.breach(f"{filler.name} did not end within 20 s of its signal: {filler.last}")
    return True


async def _column(run: Run) -> bool:
    """A column that SET reads is dropped, and some time later it is there again."""
    async with await run.session() as session:
        await session.execute("SET lock_timeout = '2s'")
        try:
            await session.execute("ALTER TABLE t DROP w")
        except psycopg.errors.LockNotAvailable:
            return False
        try:
            if run.main is not None and not await run.main.ended(30):
                run.breach(f"{run.main.name} goes on without the column: {run.main.last}")
        finally:
            await session.execute("SET lock_timeout = 0")
            await session.execute("ALTER TABLE t ADD w int NOT NULL DEFAULT 1")
    return True


async def _ahead(run: Run, session: psycopg.AsyncConnection[Any]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = await (await session.execute(run.scene.ahead(run.dice).encode())).fetchall()
    return found


async def _hold(run: Run, holder: psycopg.AsyncConnection[Any]) -> None:
    """Locks a row that is not done, where there is one, in a transaction that stays open."""
    keys = await _ahead(run, holder)
    await holder.execute("BEGIN")
    if keys:
        await holder.execute(f"SELECT FROM t WHERE {run.scene.found(keys[-1])} FOR UPDATE".encode())


async def _waited_for(holder: psycopg.AsyncConnection[Any], within_s: float) -> bool:
    """Whether we wait for *holder* before that time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while loop.time() < deadline:
        if await (await holder.execute(_WAITS, [holder.info.backend_pid])).fetchone() == (True,):
            return True
        await asyncio.sleep(0.01)
    return False


@dataclass(frozen=True, slots=True)
class Stroke:
    """A fault that can befall a run."""

    weight: float
    """How often it is drawn."""
    act: Callable[[Run], Awaitable[bool]]


STROKES = {
    "1 kill -9": Stroke(2.0, _kill),
    "2 an answer lost": Stroke(5.0, _answer_lost),
    "3 the server restarts": Stroke(1.0, _crash),
    "4 failover": Stroke(0.5, _fail_over),
    "5 a deadlock": Stroke(2.0, _deadlock),
    "6 a second operator": Stroke(0.8, _second),
    "6 a second operator, pooled": Stroke(0.4, _second_pooled),
    "6 two at once": Stroke(1.0, _both_anew),
    "8 a table without a key": Stroke(1.0, _keyless),
    "9 a row locked": Stroke(2.0, _row_locked),
    "10 the table locked": Stroke(1.5, _table_locked),
    "11 many rows at once": Stroke(2.0, _burst),
    "12 an abort": Stroke(2.0, _abort),
    "12 the column dropped": Stroke(0.7, _column),
}
"""By name, the number of the fault first. 7, poison rows, is the table's; 11 is the application's as well."""


def drawn(dice: Random, many: int) -> list[str]:
    """So many strokes by chance; at most one failover, for a run has one standby."""
    names, found = list(STROKES), list[str]()
    while len(found) < many:
        [name] = dice.choices(names, [STROKES[name].weight for name in names])
        if not (name.startswith("4 ") and name in found):
            found.append(name)
    return found
