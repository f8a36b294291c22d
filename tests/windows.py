"""A small shop with the demo's migration, and windows on it, for tests that drive."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from shutil import copytree, ignore_patterns

from psycopg.conninfo import conninfo_to_dict
from servers import Database, client_tools

from dbwatch.clock import SystemClock
from dbwatch.errors import ConnectionLost
from dbwatch.journal.events import AbortFinished
from dbwatch.journal.fold import StepStatus
from dbwatch.postgres.session import Connector
from dbwatch.runbook.loader import LoadedRunbook, load
from dbwatch.runbook.model import Manual
from dbwatch.window.abort import AbortPlan
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.intents import Abort, RunStep, SignOff
from dbwatch.window.opening import Wish, attend, enter

PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Shop:
    """The demo's project on a database of its own, with a few thousand users."""

    db: Database
    folder: Path
    runbook: Path

    def book(self) -> LoadedRunbook:
        return load(self.runbook, {"SHOP_DSN": self.db.dsn})

    def wish(self, actor: str = "wei@a", **given: object) -> Wish:
        return Wish(actor, self.folder / f"state-{actor}", **given)  # type: ignore[arg-type]  # its own fields

    async def heads(self) -> list[str]:
        return sorted(v for (v,) in await self.db.sql("SELECT version_num FROM alembic_version"))

    async def dump(self) -> str:
        """`pg_dump -s`, schema dbwatch left out, without what changes from run to run."""
        return await pg_dump(self.db, "-s", "-N", "dbwatch")


async def pg_dump(db: Database, *options: str) -> str:
    """What pg_dump says of *db*, as statements alone."""
    argv = [str(client_tools() / "pg_dump"), *options, "-d", db.dsn]
    printed = await asyncio.to_thread(subprocess.run, argv, capture_output=True, check=True)
    return re.sub(r"^(--|\\(un)?restrict).*\n", "", printed.stdout.decode(), flags=re.MULTILINE)


async def small_shop(db: Database, folder: Path, users: int = 3000, *, as_staged: bool = False) -> Shop:
    """Lays the project down and brings the database to its first revision.

    Unless it is to be *as_staged* by the demo, `add` builds the column's index too, and there is no step `index`: so
    that one step has both kinds of statement, the one in a transaction and the one that commits by itself.
    """
    project = folder / "project"
    with as_file(files("dbwatch.demo") / "project") as packaged:
        copytree(packaged, project, ignore=ignore_patterns("__pycache__"))
    known = conninfo_to_dict(db.dsn)
    url = f"postgresql+psycopg://{known['user']}@{known['host']}:{known['port']}/{known['dbname']}"
    ini = project / "alembic.ini"
    ini.write_text(ini.read_text().replace("postgresql+psycopg:///shop", url))
    if not as_staged:
        _index_at_once(project)
    await _upgrade_to_the_first(db, ini)
    await db.sql(
        f"SET shop.users = {users}",
        "INSERT INTO users (email, name, city, legacy_phone_field) "
        "SELECT g || '@example.com', 'n' || g, 'c', CASE WHEN g % 50 > 0 THEN '+1 555 ' || g END "
        "FROM generate_series(1, current_setting('shop.users')::int) AS g",
        "ANALYZE users",
    )
    return Shop(db, folder, project / "runbook.toml")


_FIRST: dict[int, str] = {}
"""By major: what makes a new database one at the first revision."""


async def _upgrade_to_the_first(db: Database, ini: Path) -> None:
    """By Alembic, once; from then on by what pg_dump said of that, in a twentieth of the time."""
    if first := _FIRST.get(db.major):
        await db.sql(first)
        return
    argv = [sys.executable, "-m", "alembic", "-c", str(ini), "upgrade", "9a20"]
    await asyncio.to_thread(subprocess.run, argv, capture_output=True, check=True)
    made = await pg_dump(db, "--inserts")
    _FIRST[db.major] = re.sub(r"^SET .*\n", "", made, flags=re.MULTILINE)  # some of 18's are not known to older ones


def _index_at_once(project: Path) -> None:
    [add], [index], [drop] = ([*(project / "versions").glob(f"{revision}_*")] for revision in ("3f1c", "5e07", "7be4"))
    built, dropped = (text.partition("-> None:\n")[2].rstrip() + "\n" for text in index.read_text().split("\ndef ")[1:])
    column, goes = '    op.add_column("users"', '    op.drop_column("users"'
    text = add.read_text()
    end_of_line = text.index("\n", text.index(column)) + 1
    text = text[:end_of_line] + built + text[end_of_line:]
    add.write_text(text.replace(goes, dropped + goes))
    index.unlink()
    drop.write_text(drop.read_text().replace('"5e07"', '"3f1c"'))
    runbook = project / "runbook.toml"
    before, _, after = runbook.read_text().partition('[[phase.step]]\nid = "index"\n')
    runbook.write_text(before + after[after.index("[[phase.step]]") :])


@asynccontextmanager
async def driven(shop: Shop, actor: str = "wei@a", **given: object) -> AsyncIterator[Conductor]:
    """A conductor that drives the shop's window."""
    ground = await enter(shop.book(), SystemClock(), shop.wish(actor, **given), lambda _: None)
    async with driving(ground) as conductor:
        await asyncio.wait_for(conductor.recovered.wait(), PATIENCE_S)
        yield conductor


@asynccontextmanager
async def attended(shop: Shop, actor: str = "lin@b", runbook: Path | None = None) -> AsyncIterator[Conductor]:
    """A navigator at the shop's window, from another machine."""
    ground = await attend(Connector(shop.db.dsn), SystemClock(), shop.wish(actor), lambda _: None, runbook)
    async with driving(ground) as conductor:
        yield conductor


async def until(conductor: Conductor, holds: Callable[[Conductor], bool], within: float = PATIENCE_S) -> None:
    """Waits, frame by frame, until *holds*."""
    feed = conductor.feed()

    async def watch() -> None:
        while not holds(conductor):
            await feed.next()

    await asyncio.wait_for(watch(), within)


async def step(conductor: Conductor, step_id: str) -> None:
    """Does one step, whatever its kind, and waits for its end; it has to succeed."""
    spec = conductor.ground.runbook.step(step_id)
    name = conductor.state.database
    intent = SignOff(step_id, "done", name) if isinstance(spec, Manual) else RunStep(step_id, name)
    answer = await conductor.submit(intent)
    assert answer.taken, answer.text
    await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
    known = conductor.state.step(step_id)
    assert known.status is StepStatus.DONE, known.text


async def steps_before(conductor: Conductor, step_id: str) -> None:
    """Does all steps before this one."""
    for spec in conductor.ground.runbook.steps():
        if spec.id == step_id:
            return
        await step(conductor, spec.id)


async def abort(conductor: Conductor) -> AbortPlan:
    """Shows the plan, confirms it, signs a person's actions off, and waits for the end; the plan.

    What it foresaw has to be what was found.
    """
    plan = await begin_abort(conductor)
    await end_of_abort(conductor)
    finished = next(e.fact for e in reversed(conductor.events) if isinstance(e.fact, AbortFinished))
    assert finished.missed == []
    assert finished.found is not None
    return plan


async def begin_abort(conductor: Conductor) -> AbortPlan:
    """Shows the plan and confirms it, again where it changed meanwhile or was lost on the way, as a person would."""
    for last in [False] * 9 + [True]:
        try:
            plan = await conductor.plan_abort()
        except ConnectionLost:
            if last:
                raise
            continue
        answer = await conductor.submit(Abort(plan.digest, conductor.state.database))
        if "changed meanwhile" not in answer.text:
            break
    assert answer.taken, answer.text
    return plan


async def end_of_abort(conductor: Conductor) -> None:
    """Signs a person's actions off, and waits for the end."""
    feed = conductor.feed()
    async with asyncio.timeout(PATIENCE_S):
        while conductor.work.under_way:
            for step_id in conductor.awaited:
                await conductor.submit(SignOff(step_id, "undone"))
            await feed.next()


async def rewind(db: Database, seq: int) -> None:
    """The database as it was when the open window had *seq* events."""
    await db.sql(
        f"SET test.seq = {seq}",
        "DELETE FROM dbwatch.event AS e USING dbwatch.window AS w WHERE w.closed_at IS NULL AND e.window_id = w.id"
        " AND e.seq > current_setting('test.seq')::int",
        "UPDATE dbwatch.window AS w SET last_seq = e.seq, head_hash = e.hash FROM dbwatch.event AS e"
        " WHERE w.closed_at IS NULL AND e.window_id = w.id AND e.seq = current_setting('test.seq')::int",
    )
