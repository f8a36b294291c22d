"""Two people at one window, and everything that can go wrong, in a random order: nothing twice, nothing lost.

`python tests/campaign.py --seconds 600 --seed 1` runs window after window; a violation prints the seed that shows it
again: `--seed N --windows 1`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree
from typing import Any

import psycopg
from psycopg import sql
from servers import SETTINGS, Database, eventually, server_binaries
from windows import Shop, small_shop

from dbwatch.clock import SystemClock
from dbwatch.journal import events as ev
from dbwatch.journal import rows
from dbwatch.migration import fingerprint
from dbwatch.postgres.embedded import EmbeddedServer
from dbwatch.postgres.session import Connector, Role

THINGS = 3000
RUNBOOK = """
title = "campaign"
alembic = "alembic.ini"

[target]
dsn = "${SHOP_DSN}"
lock_timeout = "500ms"
statement_timeout = "20s"

[[phase]]
name = "all"

[[phase.step]]
id = "preview"
kind = "manual"
text = "read it"

[[phase.step]]
id = "add"
kind = "migrate"
to = "3f1c"

[[phase.step]]
id = "count"
kind = "sql"
sql = "UPDATE tally SET n = n + 1"
undo = "UPDATE tally SET n = n - 1"

[[phase.step]]
id = "deploy"
kind = "manual"
text = "deploy"
rollback = "deploy the one before"

[[phase.step]]
id = "alone"
kind = "sql"
sql = "CREATE INDEX CONCURRENTLY things_pad ON things (pad)"
undo = "DROP INDEX CONCURRENTLY IF EXISTS things_pad"

[[phase.step]]
id = "fill"
kind = "backfill"
table = "things"
set = "v = v + 1"
where = "id > 0"
mode = "once"
batch_time = "20ms"
undo = true

[[phase.step]]
id = "second"
kind = "sql"
confirm = "navigator"
sql = "UPDATE tally SET m = m + 1"
undo = "UPDATE tally SET m = m - 1"

[[phase.step]]
id = "whole"
kind = "check"
sql = "SELECT count(*) FROM things WHERE v <> 1"
expect = 0
"""
OPERATIONS = {
    "next": 40, "both": 10, "backfill": 5, "confirm": 12, "note": 3, "stop": 5, "abort": 4, "take": 6,
    "kill": 8, "freeze": 6, "leave": 3, "restart": 2, "wait": 10,
}  # fmt: skip

Told = dict[str, Any]


class Player:
    """A process at the window."""

    def __init__(self, shop: Shop, actor: str, process: asyncio.subprocess.Process) -> None:
        self.shop, self.actor, self.process = shop, actor, process
        self.log: list[str] = []
        self._answers: dict[int, asyncio.Future[Told]] = {}
        self._n = 0
        self.ready: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def sit(cls, shop: Shop, actor: str) -> Player:
        here = Path(__file__).parent
        folder = shop.folder / f"state-{actor.partition('@')[2]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, here / "campaign_player.py", shop.runbook, actor, folder,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "SHOP_DSN": shop.db.dsn}, start_new_session=True,
        )  # fmt: skip
        return cls(shop, actor, process)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            told = json.loads(line)
            if "ready" in told:
                self.ready.set_result(told)
            elif (waiting := self._answers.pop(told["n"], None)) is not None:
                waiting.set_result(told)
        for left in (self.ready, *self._answers.values()):
            if not left.done():
                left.set_result({"taken": False, "text": "it is gone", "ready": False})

    async def do(self, what: str, within: float = 20.0) -> Told:
        """Asks the player, once it sits; its answer, or that there was none."""
        try:
            async with asyncio.timeout(within):
                if not (await asyncio.shield(self.ready)).get("ready"):
                    return {"taken": False, "text": "it could not sit down"}
                self._n += 1
                future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
                self._answers[self._n] = future
                assert self.process.stdin is not None
                self.process.stdin.write(json.dumps({"n": self._n, "do": what}).encode() + b"\n")
                return await future
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            return {"taken": False, "text": "no answer"}

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number) if number == signal.SIGKILL else self.process.send_signal(number)

    async def end(self, *, kill: bool = False) -> None:
        """Gone in the end, however it stands."""
        self.signal(signal.SIGCONT)
        if kill:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        elif self.process.stdin is not None:
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 15)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await self._reading


@dataclass
class Verdict:
    """What a window came to."""

    seed: int
    outcome: str = ""
    operations: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Referee:
    """Runs one window by its seed, and judges it."""

    def __init__(self, server: EmbeddedServer, shop: Shop, seed: int) -> None:
        self.server, self.shop, self.seed = server, shop, seed
        self.chance = random.Random(seed)  # a schedule, not a secret
        self.verdict = Verdict(seed)
        self.players: dict[str, Player] = {}
        self._asked: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()

    async def run(self, *, length: int) -> Verdict:
        before = await self._fingerprint()
        dump = await self.shop.dump()
        noise = asyncio.create_task(self._noise())
        try:
            await self._act(length)
            await self._finish()
        finally:
            noise.cancel()
            await asyncio.gather(noise, *self._asked, return_exceptions=True)
            for player in self.players.values():
                await player.end(kill=True)
        await self._judge(before, dump)
        self.verdict.seconds = time.monotonic() - self._began
        return self.verdict

    def _note(self, text: str) -> None:
        self.verdict.log.append(f"{time.monotonic() - self._began:6.2f} {text}")

    async def _fingerprint(self) -> fingerprint.Fingerprint:
        return await fingerprint.take(Connector(self.shop.db.dsn), SystemClock(), patience_s=10.0)

    async def _noise(self) -> None:
        """An application: short transactions on the things, now and then one that lasts."""
        chance = random.Random(self.seed + 1)
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self.shop.db.dsn, connect_timeout=5) as connection:
                    while True:
                        async with connection.transaction():
                            await connection.execute(
                                "UPDATE things SET pad = pad + 1 WHERE id = %s", (chance.randint(1, THINGS),)
                            )
                            await asyncio.sleep(chance.choice((0.0, 0.01, 0.05, 0.4)))
                        await asyncio.sleep(0.02)
            except (psycopg.Error, OSError):
                await asyncio.sleep(0.2)

    # --- the play

    async def _player(self, who: str) -> Player:
        player = self.players.get(who)
        if player is None or not player.alive or (player.ready.done() and not player.ready.result().get("ready")):
            if player is not None:
                await player.end(kill=True)
            player = self.players[who] = await Player.sit(self.shop, who)
            self._note(f"{who} sits down")
        return player

    def _ask(self, player: Player, what: str) -> None:
        async def ask() -> None:
            told = await player.do(what)
            self._note(f"{player.actor} {what}: {told.get('text', '')[:150]}")

        task = asyncio.create_task(ask())
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _act(self, length: int) -> None:
        people = ("wei@a", "lin@b")
        first = await self._player(people[0])
        await asyncio.wait_for(asyncio.shield(first.ready), 30)
        for _ in range(length):
            who = self.chance.choice(people)
            player = await self._player(who)
            [what] = self.chance.choices(list(OPERATIONS), list(OPERATIONS.values()))
            self.verdict.operations[what] += 1
            match what:
                case "both":
                    for other in people:
                        self._ask(await self._player(other), "next")
                case "kill":
                    self._note(f"{who} is killed")
                    player.signal(signal.SIGKILL)
                case "freeze":
                    await self._freeze(player, await self._player(people[who == people[0]]))
                case "leave":
                    self._note(f"{who} leaves")
                    await player.end()
                case "restart":
                    mode = self.chance.choice(("immediate", "fast"))
                    self._note(f"the server restarts ({mode})")
                    await self.server.restart(mode)  # type: ignore[arg-type]  # one of its modes
                case "wait":
                    await asyncio.sleep(self.chance.uniform(0.2, 1.0))
                case _:
                    self._ask(player, what)
            await asyncio.sleep(self.chance.choice((0.0, 0.05, 0.2, 0.5)))

    async def _freeze(self, asleep: Player, other: Player) -> None:
        """One sleeps in the middle of whatever it does, the other takes the wheel, and the first one wakes up."""
        self._note(f"{asleep.actor} is stopped")
        asleep.signal(signal.SIGSTOP)
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        self._ask(other, "take")
        await asyncio.sleep(self.chance.uniform(0.2, 1.0))
        if self.chance.random() < 0.5:
            self._ask(other, "next")
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        asleep.signal(signal.SIGCONT)
        self._note(f"{asleep.actor} wakes up")

    async def _finish(self) -> None:
        """Fresh people take the window to an end: on where that is safe, back where it is not."""
        for player in self.players.values():
            await player.end(kill=self.chance.random() < 0.5)
        self.players.clear()
        eve, mike = "eve@c", "mike@d"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            driver, second = await self._player(eve), await self._player(mike)
            stand = await driver.do("stand")
            if stand.get("closed"):
                self.verdict.outcome = stand["closed"]
                return
            if "driving" not in stand:
                await asyncio.sleep(0.2)
            elif not stand["driving"]:
                self._ask(driver, "take")
                await asyncio.sleep(0.5)
            elif stand["busy"] or stand["aborting"]:
                await asyncio.sleep(0.1)
            elif stand["proposed"]:
                self._ask(second, "confirm")
                await asyncio.sleep(0.3)
            elif stand["stuck"] and not stand["aborted"]:
                told = await driver.do("abort")
                self._note(f"eve goes back, for {stand['stuck']} is not safe: {told.get('text', '')}")
            else:
                told = await driver.do("next")
                self._note(f"eve: {told.get('text', '')[:150]}")
                if not told.get("taken") and stand["aborted"]:
                    await driver.do("abort")
            await asyncio.sleep(0.05)
        self.verdict.violations.append(f"the window did not come to an end: {stand}")

    # --- the judgement

    async def _judge(self, before: fingerprint.Fingerprint, dump: str) -> None:
        wrong, db = self.verdict.violations, self.shop.db
        session = await Connector(db.dsn).open(Role.CONTROL)
        try:
            row = await rows.find_last(session)
            events = await rows.read_events(session, row.id) if row is not None else []
        finally:
            await session.close()
        if (seq := ev.broken_link(events)) is not None:
            wrong.append(f"the chain of the journal is broken at {seq}")
        wrong.extend(journal_faults(events))
        [(n, m)] = await db.sql("SELECT n, m FROM tally")
        values: list[tuple[int, int]] = await db.sql("SELECT v, count(*) FROM things GROUP BY v")
        expected = {"done": (1, 1, [(1, THINGS)]), "aborted": (0, 0, [(0, THINGS)])}.get(self.verdict.outcome)
        if expected is not None and (n, m, values) != expected:
            wrong.append(f"{self.verdict.outcome}, and the data is {(n, m, values)} where {expected} was due")
        if self.verdict.outcome in ("aborted", "failed"):
            now = await self._fingerprint()
            if now.digest != before.digest:
                wrong.append(f"after the abort the schema differs: {sorted(set(now.items) ^ set(before.items))}")
            elif await self.shop.dump() != dump:
                wrong.append("after the abort pg_dump -s differs")
            if self.verdict.outcome == "failed":
                wrong.append(f"the abort was not whole: {events[-1].body if events else ''}")

        async def nobody() -> bool:
            left = await db.sql(
                "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name LIKE 'dbwatch %'"
            )
            return not left

        try:
            await eventually(nobody, within=15.0)
        except AssertionError:
            wrong.append("sessions of dbwatch were left behind")


def journal_faults(events: list[ev.Event]) -> list[str]:
    """What no journal may say: a step done twice, two at a time, an old epoch that acts."""
    wrong: list[str] = []
    done: set[str] = set()
    running, epoch = "", 0
    for event in events:
        fact = event.fact
        if isinstance(fact, ev.DriverTook):
            if event.epoch <= epoch:
                wrong.append(f"{event.seq}: epoch {event.epoch} after {epoch}")
        elif event.epoch < epoch and not isinstance(fact, ev.DdlSeen | ev.StepNoted):
            wrong.append(f"{event.seq}: {ev.kind_of(fact)} of epoch {event.epoch} in epoch {epoch}")
        epoch = max(epoch, event.epoch)
        match fact:
            case ev.StepStarted(step=step):
                if running:
                    wrong.append(f"{event.seq}: {step} began while {running} ran")
                if step in done:
                    wrong.append(f"{event.seq}: {step} began though it was done")
                running = step
            case ev.StepDone(step=step):
                if step in done:
                    wrong.append(f"{event.seq}: {step} was done twice")
                done.add(step)
                running = "" if running == step else running
            case ev.StepFailed(step=step) | ev.StepUnknown(step=step):
                running = "" if running == step else running
            case _:
                pass
    return wrong


class Ring:
    """A server and a shop to copy, for one window after the other."""

    def __init__(self, server: EmbeddedServer, folder: Path, template: Shop) -> None:
        self.server, self.folder, self.template = server, folder, template

    @classmethod
    @asynccontextmanager
    async def open(cls, server: EmbeddedServer, folder: Path) -> AsyncIterator[Ring]:
        name = "campaign_template"
        async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as connection:
            await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        db = Database(name, server, server.dsn_of(name), Connector(server.dsn_of(name)))
        shop = await small_shop(db, folder / "template", users=500)
        shop.runbook.write_text(RUNBOOK)
        await db.sql(
            "CREATE TABLE tally (n int NOT NULL, m int NOT NULL)",
            "INSERT INTO tally VALUES (0, 0)",
            "CREATE TABLE things (id int PRIMARY KEY, v int NOT NULL, pad int NOT NULL)",
            "INSERT INTO things SELECT g, 0, 0 FROM generate_series(1, 3000) AS g",
            "ANALYZE things",
        )
        yield cls(server, folder, shop)

    async def window(self, seed: int, *, length: int = 16) -> Verdict:
        """One window, from its opening to the judgement."""
        name = f"w{seed}"
        async with await psycopg.AsyncConnection.connect(self.server.dsn, autocommit=True) as connection:
            asked = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            await connection.execute(asked.format(sql.Identifier(name), sql.Identifier(self.template.db.name)))
        folder = self.folder / name
        copytree(self.template.runbook.parent, folder / "project")
        ini = folder / "project" / "alembic.ini"
        ini.write_text(ini.read_text().replace(self.template.db.name, name))
        db = Database(name, self.server, self.server.dsn_of(name), Connector(self.server.dsn_of(name)))
        shop = Shop(db, folder, folder / "project" / "runbook.toml")
        try:
            return await Referee(self.server, shop, seed).run(length=length)
        finally:
            async with await psycopg.AsyncConnection.connect(self.server.dsn, autocommit=True) as connection:
                dropping = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
                await connection.execute(dropping.format(sql.Identifier(name)))


async def campaign(seconds: float, seed: int, windows: int | None, major: int, log: bool) -> int:
    """Window after window; the number of violations."""
    verdicts: list[Verdict] = []
    until = time.monotonic() + seconds
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dbwatch-campaign-"))
        server = EmbeddedServer(server_binaries(major), settings=SETTINGS, listen="tcp")
        ring = await stack.enter_async_context(Ring.open(await stack.enter_async_context(server), Path(folder)))
        while time.monotonic() < until if windows is None else len(verdicts) < windows:
            verdict = await ring.window(seed + len(verdicts))
            verdicts.append(verdict)
            mark = "ok" if not verdict.violations else "VIOLATED"
            print(f"{verdict.seed:6} {verdict.outcome or '?':8} {verdict.seconds:5.1f} s {mark}", flush=True)
            if verdict.violations or log:
                print("\n".join((*verdict.log, *(f"  ! {v}" for v in verdict.violations))), flush=True)
    operations = sum((v.operations for v in verdicts), Counter[str]())
    violations = sum(len(v.violations) for v in verdicts)
    report = {
        "windows": len(verdicts),
        "outcomes": dict(Counter(v.outcome for v in verdicts)),
        "operations": dict(operations),
        "violations": violations,
        "seed": seed,
        "major": major,
    }
    print(json.dumps(report))
    return violations


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seconds", type=float, default=600)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--windows", type=int)
    asked.add_argument("--major", type=int, default=18)
    asked.add_argument("--log", action="store_true", help="tell what happened in every window")
    given = asked.parse_args()
    sys.exit(1 if asyncio.run(campaign(given.seconds, given.seed, given.windows, given.major, given.log)) else 0)
