"""Real chains, aborted at random moments: is what a plan foretells what is then found?

`make real-projects` installs Prefect and MLflow, each into an environment of its own under .cache, and runs this in
both. Each window opens somewhere on the project's chain, goes up it by a runbook with several migrate steps, and is
aborted at a random moment, between two steps or inside one. What the plan foretold before it was confirmed is then
compared with the database by this script's own look: the version table, and a fingerprint of the schema.

    .cache/real/mlflow/bin/python tests/real_projects.py mlflow --aborts 20 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import psycopg
import windows
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from servers import Database, Fleet
from windows import begin_abort, end_of_abort, until

from dbwatch.clock import SystemClock
from dbwatch.journal.events import AbortConfirmed, AbortFinished
from dbwatch.journal.fence import Fence
from dbwatch.journal.fold import StepStatus
from dbwatch.migration import fingerprint, runner
from dbwatch.migration.chain import Chain
from dbwatch.migration.events import Direction
from dbwatch.migration.request import Job, Project
from dbwatch.postgres.embedded import EmbeddedServer
from dbwatch.postgres.session import Connector
from dbwatch.runbook.loader import load
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.intents import RunStep
from dbwatch.window.opening import Wish, enter
from dbwatch.window.prediction import Prediction

PATIENCE_S = 900.0
"""For each wait: what is measured here is foresight, on however busy a machine."""
TEMPLATES = 16
"""Databases made beforehand, evenly along the chain, from which windows open."""

_ENV = """\
# {name}'s own env.py, run as {name} itself runs it: in a worker thread of AnyIO.
from pathlib import Path
import anyio
import anyio.to_thread
source = Path({source!r})
code = compile(source.read_text(), str(source), "exec")
def run():
    exec(code, {{"__name__": "env_py", "__file__": str(source)}})
async def main():
    await anyio.to_thread.run_sync(run)
anyio.run(main)
"""


@dataclass(frozen=True, slots=True)
class Real:
    """Somebody's project, installed in this environment."""

    name: str
    project: Project

    async def reach(self, db: Database) -> None:
        """Points the project's own configuration at *db*: Prefect reads its URL from the environment."""
        known = conninfo_to_dict(db.dsn)
        url = f"{known['user']}@{known['host']}:{known['port']}/{known['dbname']}"
        os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"postgresql+asyncpg://{url}"

    async def found(self, db: Database) -> None:
        """What the project makes before its first revision: MLflow its first tables, by its models."""
        if self.name != "mlflow":
            return
        known = conninfo_to_dict(db.dsn)
        url = f"postgresql+psycopg://{known['user']}@{known['host']}:{known['port']}/{known['dbname']}"
        code = (
            "import sys; from sqlalchemy import create_engine;"
            "from mlflow.store.tracking.dbmodels.initial_models import Base;"
            "Base.metadata.create_all(create_engine(sys.argv[1]))"
        )
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, url], check=True, capture_output=True)


def real(name: str, folder: Path) -> Real:
    """The project *name*, its configuration written into *folder*."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{name} is not installed in this environment; see make real-projects")
    package = Path(next(iter(spec.submodule_search_locations)))
    ini = folder / "alembic.ini"
    if name == "prefect":
        home = package / "server/database/_migrations"
        (folder / "migrations").mkdir()
        (folder / "migrations/env.py").write_text(_ENV.format(name=name, source=str(home / "env.py")))
        os.environ["PREFECT_HOME"] = str(folder / "home")
        scripts, versions = folder / "migrations", f"version_locations = {home / 'versions/postgresql'}\n"
    else:
        scripts, versions = package / "store/db_migrations", ""
    ini.write_text(f"[alembic]\nscript_location = {scripts}\npath_separator = os\n{versions}sqlalchemy.url = none\n")
    return Real(name, Project(ini))


@dataclass(frozen=True, slots=True)
class Moment:
    """When a window is aborted."""

    step: int
    """Counts from 0; all before it are done."""
    statement: int | None
    """While it runs, once it has sent so many; None: once it is done."""

    def __str__(self) -> str:
        where = "done" if self.statement is None else f"statement {self.statement}"
        return f"step {self.step + 1}, {where}"


@dataclass(frozen=True, slots=True)
class Tried:
    """One window, aborted."""

    seed: str
    opened: str
    revisions: int
    steps: int
    moment: Moment
    ended: str
    foreseen: str
    wrong: tuple[str, ...]
    unsure: tuple[str, ...]
    seconds: float


async def ladder(server: EmbeddedServer, project: Real) -> tuple[Chain, list[tuple[int, Database]]]:
    """The chain, and databases at TEMPLATES places of it: by how many revisions are applied."""
    made: list[tuple[int, Database]] = []
    db = await _create(server, None)
    await project.reach(db)
    await project.found(db)
    chain = await runner.inspect(project.project, db.connector)
    order = [revision.id for revision in chain.revisions]
    cuts = sorted({round(n * (len(order) - 6) / TEMPLATES) for n in range(TEMPLATES + 1)})
    for cut in cuts:
        if made:
            db = await _create(server, made[-1][1].name)
            await project.reach(db)
        if cut:
            job = Job(project.project, Direction.UP, order[cut - 1], Fence(uuid4(), 1), statement_timeout_ms=0)
            outcome = await runner.run(
                job, db.connector, clock=SystemClock(), on_event=lambda _: None, stop=asyncio.Event()
            )
            if outcome.failure:
                sys.exit(f"{project.name} does not reach {order[cut - 1]}: {outcome.failure.message}")
        made.append((cut, db))
    return chain, made


async def _create(server: EmbeddedServer, template: str | None) -> Database:
    name = f"t{uuid4().hex[:12]}"
    words = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
        sql.Identifier(name), sql.Identifier(template or "template0")
    )
    async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as connection:
        await connection.execute(words)
    return Database(name, server, server.dsn_of(name), Connector(server.dsn_of(name)))


def book(project: Real, targets: list[str]) -> str:
    """A runbook of migrate steps to *targets*."""
    steps = "".join(
        f'[[phase.step]]\nid = "up{n}"\nkind = "migrate"\nto = "{to}"\nretries = 0\n' for n, to in enumerate(targets)
    )
    return (
        f'title = "{project.name}"\nalembic = "{project.project.config}"\n'
        f'[target]\ndsn = "${{REAL_DSN}}"\nstatement_timeout = "60s"\n[[phase]]\nname = "up"\n{steps}'
    )


async def one(
    seed: str, server: EmbeddedServer, project: Real, chain: Chain, bases: list[tuple[int, Database]]
) -> Tried:
    """Opens a window, drives it to a random moment, aborts it, and looks."""
    dice = random.Random(f"{project.name} {seed}")
    order = [revision.id for revision in chain.revisions]
    base, template = dice.choice(bases)
    steps = dice.randint(2, 4)
    ends = sorted(dice.sample(range(base + 1, min(base + 20, len(order)) + 1), steps))
    targets = [order[n - 1] for n in ends]
    moment = Moment(dice.randrange(steps), dice.choice([None, dice.randint(1, 12)]))
    began = time.monotonic()
    db = await _create(server, template.name)
    folder = Path(tempfile.mkdtemp(prefix="dbwatch-real-"))
    try:
        await project.reach(db)
        file = folder / "runbook.toml"
        file.write_text(book(project, targets))
        clock = SystemClock()
        before = await fingerprint.take(db.connector, clock)
        ground = await enter(load(file, {"REAL_DSN": db.dsn}), clock, Wish("wei@a", folder / "state"), lambda _: None)
        async with driving(ground) as conductor:
            await asyncio.wait_for(conductor.recovered.wait(), PATIENCE_S)
            await go(conductor, moment)
            plan = await begin_abort(conductor)
            await end_of_abort(conductor)
            finished = next(e.fact for e in reversed(conductor.events) if isinstance(e.fact, AbortFinished))
            confirmed = next(e.fact for e in reversed(conductor.events) if isinstance(e.fact, AbortConfirmed))
        foreseen = plan.prediction
        assert foreseen is not None
        assert confirmed.prediction is not None
        if foreseen.blind:  # our own work held the lock while the plan was shown: it was told when that had ended
            foreseen = Prediction.of(confirmed.prediction)
        wrong = list(finished.missed)
        heads = (
            tuple(sorted(v for (v,) in await db.sql("SELECT version_num FROM alembic_version")))
            if (await db.sql("SELECT to_regclass('alembic_version')") != [(None,)])
            else ()
        )
        if heads != foreseen.heads:
            wrong.append(f"heads foretold {foreseen.heads}, found {heads}")
        differs = {d.key for d in fingerprint.diff(before, await fingerprint.take(db.connector, clock))}
        if differs != {*foreseen.left, *foreseen.not_ours}:
            wrong.append(f"differences not as foretold: {sorted(differs ^ {*foreseen.left, *foreseen.not_ours})[:6]}")
        if foreseen.equal != (not differs and heads == tuple(sorted(conductor.state.start_heads))):
            wrong.append("equal to the opening or not: foretold wrongly")
        ended = "back" if finished.equal else "; ".join(finished.differences)[:100]
        told = f"{foreseen.stops or 'back'}{', unsure' * bool(foreseen.unsure)}; {len(foreseen.left)} left"
        opened = order[base - 1] if base else "base"
        return Tried(
            seed,
            opened,
            ends[-1] - base,
            steps,
            moment,
            ended,
            told,
            tuple(wrong),
            foreseen.unsure,
            time.monotonic() - began,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        await drop(server, db)


async def drop(server: EmbeddedServer, db: Database) -> None:
    async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as connection:
        await connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(db.name)))


async def go(conductor: Conductor, moment: Moment) -> None:
    """Drives to *moment*; a step that is over before it has sent so many statements is that moment too."""
    steps = list(conductor.ground.runbook.steps())
    for n, step in enumerate(steps[: moment.step + 1]):
        answer = await conductor.submit(RunStep(step.id, conductor.state.database))
        assert answer.taken, answer.text
        if n == moment.step and moment.statement is not None:
            await until(conductor, partial(_so_far, moment.statement), within=PATIENCE_S)
            return
        await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
        known = conductor.state.step(step.id)
        assert known.status is StepStatus.DONE, known.text


def _so_far(statements: int, conductor: Conductor) -> bool:
    running = conductor.work.migration
    return not conductor.work.under_way or (running is not None and running.number >= statements)


async def campaign(name: str, aborts: int, seed: int, only: str | None, first: int) -> int:
    """Runs the windows; how many were not as foretold."""
    windows.PATIENCE_S = PATIENCE_S
    fleet = Fleet()
    folder = Path(tempfile.mkdtemp(prefix="dbwatch-real-"))
    bad = 0
    try:
        server = await fleet.server(18)
        project = real(name, folder)
        chain, bases = await ladder(server, project)
        bodies = [str(revision.downgrade) for revision in chain.revisions]
        print(f"{name}: {len(bodies)} revisions, {bodies.count('noop')} no-op downgrades", flush=True)
        for n in range(first, aborts):
            each = f"{seed}.{n}"
            if only is not None and each != only:
                continue
            tried = await one(each, server, project, chain, bases)
            bad += bool(tried.wrong)
            print(
                f"{'WRONG' if tried.wrong else 'ok':5} {name} {tried.seed:6} "
                f"from {tried.opened:12} +{tried.revisions:2} "
                f"in {tried.steps} steps, aborted at {tried.moment!s:22} foretold: {tried.foreseen:60} "
                f"[{tried.seconds:.0f} s]",
                flush=True,
            )
            for why in (*tried.wrong, *tried.unsure):
                print(f"      {why}", flush=True)
        print(f"{name}: {aborts - first - bad} of {aborts - first} as foretold" if only is None else "", flush=True)
    finally:
        fleet.close()
        shutil.rmtree(folder, ignore_errors=True)
    return bad


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["prefect", "mlflow"])
    parser.add_argument("--aborts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one window of the campaign, as its line names it: 1.7")
    parser.add_argument("--first", type=int, default=0, help="begin with this one: a campaign that was cut goes on")
    given = parser.parse_args()
    return 1 if asyncio.run(campaign(given.name, given.aborts, given.seed, given.only, given.first)) else 0


if __name__ == "__main__":
    sys.exit(main())
