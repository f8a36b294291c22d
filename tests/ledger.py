"""The oracle of exactly once: a trigger counts, per key, how often a row was set.

The backfill under test runs in mode once with `v = v + 1`, so that a row done twice shows in its value too, and the
WHERE stays true, so that nothing but the cursor keeps a row from being done again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from servers import Database

from dbwatch.backfill.control import Control
from dbwatch.backfill.health import Thresholds
from dbwatch.backfill.plan import Plan, plan
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.run import Backfill, Result
from dbwatch.backfill.spec import Spec
from dbwatch.clock import SystemClock
from dbwatch.journal import schema
from dbwatch.postgres.session import Connector, Role

KEY = "id bigint PRIMARY KEY"
ONCE = Spec(table="t", set="v = v + 1", where="true", mode="once", batch_time_ms=10)

_MAKE = """
CREATE TABLE t ({key}, v int NOT NULL DEFAULT 0, pad text NOT NULL DEFAULT repeat('x', 40));
INSERT INTO t ({columns}) {rows};
CREATE TABLE eligible AS SELECT ROW({columns})::text AS key FROM t;
CREATE TABLE ledger (key text PRIMARY KEY, n int NOT NULL);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger VALUES (ROW({new})::text, 1) ON CONFLICT (key) DO UPDATE SET n = ledger.n + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW WHEN (OLD.v IS DISTINCT FROM NEW.v) EXECUTE FUNCTION note();
"""

_VIOLATIONS = """
SELECT e.key, coalesce(l.n, 0), t.v
FROM eligible AS e
INNER JOIN t ON ROW({columns})::text = e.key
LEFT JOIN ledger AS l ON l.key = e.key
WHERE coalesce(l.n, 0) <> 1 OR t.v <> 1
ORDER BY e.key
"""


@dataclass
class Ledger:
    """A table to be filled once, and the count of what was done to it."""

    database: Database
    columns: str = "id"
    connector: Connector = field(init=False)
    """The way to the server; a test may put a proxy there."""

    def __post_init__(self) -> None:
        self.connector = self.database.connector

    @classmethod
    async def make(
        cls,
        database: Database,
        rows: str = "SELECT generate_series(2, 6000, 2)",
        *,
        key: str = KEY,
        columns: str = "id",
    ) -> Ledger:
        """The table with *key* in its definition and *rows*, a query for *columns*; and the journal's schema."""
        new = ", ".join(f"NEW.{column.strip()}" for column in columns.split(","))
        await database.sql(_MAKE.format(key=key, columns=columns, rows=rows, new=new), "ANALYZE t")
        await schema.ensure(database.connector)
        return cls(database, columns)

    async def violations(self) -> list[tuple[Any, ...]]:
        """Keys that were there at the start and still are, and were not set exactly once: key, times, value."""
        qualified = ", ".join(f"t.{column.strip()}" for column in self.columns.split(","))
        return await self.database.sql(_VIOLATIONS.format(columns=qualified))

    async def plan(self, spec: Spec = ONCE) -> Plan:
        """The plan of *spec* on the direct way."""
        return await planned(self.database.connector, spec)

    async def backfill(self, spec: Spec = ONCE, **options: Any) -> tuple[Backfill, Scene]:
        """A backfill that is not running yet, and the scene that it will be seen in."""
        scene = Scene()
        options = {"clock": SystemClock(), "control": scene.control, "progress": scene.see, **options}
        return Backfill(self.connector, await self.plan(spec), **options), scene

    async def run(self, spec: Spec = ONCE, **options: Any) -> Result:
        """Runs it to its end."""
        backfill, _ = await self.backfill(spec, **options)
        return await backfill.run()

    async def row(self) -> tuple[Any, ...]:
        """The journal's row of the newest backfill: status, epoch, rows_done, batches, note."""
        return (
            await self.database.sql(
                "SELECT status, epoch, rows_done, batches, note FROM dbwatch.backfill ORDER BY id DESC LIMIT 1"
            )
        )[0]


async def planned(connector: Connector, spec: Spec) -> Plan:
    """The plan of *spec*."""
    session = await connector.open(Role.PROBE)
    try:
        return await plan(session, spec)
    finally:
        await session.close()


class Scene:
    """All that a backfill told, and its control; a test awaits what it wants to see."""

    def __init__(self) -> None:
        self.control = Control()
        self.told: list[BackfillProgress] = []
        self.react: Callable[[BackfillProgress], None] = lambda _: None
        self._wanted: list[tuple[Callable[[BackfillProgress], bool], asyncio.Future[BackfillProgress]]] = []

    def see(self, progress: BackfillProgress) -> None:
        """The backfill's Progress."""
        self.told.append(progress)
        self.react(progress)
        for wanted, future in self._wanted:
            if not future.done() and wanted(progress):
                future.set_result(progress)

    async def until(self, wanted: Callable[[BackfillProgress], bool], within: float = 20.0) -> BackfillProgress:
        """The next progress that is *wanted*."""
        future: asyncio.Future[BackfillProgress] = asyncio.get_running_loop().create_future()
        self._wanted.append((wanted, future))
        return await asyncio.wait_for(future, within)

    def reasons(self, state: State) -> list[str]:
        """Why it was in *state*, each reason once, in order."""
        return list(dict.fromkeys(p.reason for p in self.told if p.state is state))


QUICK = Thresholds(poll_s=0.1, calm_s=0.3)
"""A health gate for tests that wait for it."""


async def run_elsewhere(dsn: str, spec: Spec, broken: str = "") -> asyncio.subprocess.Process:
    """A backfill in a process of its own, to be killed. It prints a line per batch. *broken*: see faults/broken.py."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _ELSEWHERE,
        dsn,
        json.dumps(asdict(spec)),
        broken,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


_ELSEWHERE = """
import asyncio, json, sys
from faults import broken
from ledger import planned
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.run import Backfill
from dbwatch.clock import SystemClock
from dbwatch.postgres.session import Connector

async def main():
    broken.become(sys.argv[3])
    connector = Connector(sys.argv[1])
    plan = await planned(connector, Spec(**json.loads(sys.argv[2])))
    told = lambda progress: print(progress.batches, flush=True)
    print("begins", flush=True)
    await Backfill(connector, plan, clock=SystemClock(), progress=told).run()

asyncio.run(main())
"""


async def wait_for(database: Database, question: str, within: float = 10.0) -> None:
    """Returns when *question* is answered with true: an event in the server that nothing announces."""
    connection = await database.foreign("onlooker")
    async with asyncio.timeout(within):
        while (await (await connection.execute(question.encode())).fetchone()) != (True,):
            await connection.execute("SELECT pg_sleep(0.02)")


WORKER_WAITS = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE application_name LIKE 'dbwatch worker%' AND wait_event_type = 'Lock' AND datname = current_database()
)
"""
