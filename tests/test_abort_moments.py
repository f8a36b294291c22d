"""The way back, from moments that nobody chose: drawn from a seed, inside each long step, on 15 and 18.

`make abort-moments` takes twenty of each; a few are in every run of the tests.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic_projects import AlembicProject, go, job, table
from servers import Database, OwnServers
from windows import Shop, begin_abort, driven, end_of_abort, small_shop, steps_before, until

from dbwatch.clock import SystemClock
from dbwatch.errors import ConnectionLost
from dbwatch.journal import events as ev
from dbwatch.migration.chain import Chain
from dbwatch.migration.forked import spawn
from dbwatch.migration.runner import run
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.session import Role, Session
from dbwatch.steps.migrate import ended
from dbwatch.steps.step import Done, Failed
from dbwatch.window import survey as surveying
from dbwatch.window.intents import Abort, RunStep
from dbwatch.window.rollback import away, lost
from dbwatch.window.survey import Survey

MOMENTS = int(os.environ.get("ABORT_MOMENTS", "1"))
SEED = os.environ.get("ABORT_SEED", "1")


async def went_back(shop: Shop, before: str) -> None:
    """The database is as it was."""
    assert await shop.heads() == ["9a20"]
    assert await shop.dump() == before


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("where", ["index build", "backfill", "lock wait"])
async def test_an_abort_at_a_random_moment_restores_the_schema(
    db: Database, tmp_path: Path, where: str, moment: int
) -> None:
    dice = random.Random(f"{SEED} {db.major} {where} {moment}")
    shop = await small_shop(db, tmp_path, users=60_000 if where == "backfill" else 20_000)
    before = await shop.dump()
    step_id = {"index build": dice.choice(("add", "drop")), "backfill": "fill"}.get(where, "add")
    holder = await shop.db.foreign("reports", autocommit=False)
    async with driven(shop) as conductor:
        await steps_before(conductor, step_id)
        if where == "lock wait":
            await holder.execute("SELECT count(*) FROM users")
        elif where == "index build":
            await holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await holder.execute("SELECT count(*) FROM products")
        assert (await conductor.submit(RunStep(step_id, conductor.state.database))).taken
        wait_s = dice.choice((0.0, dice.uniform(0.0, 1.0), dice.uniform(0.0, 3.0)))
        if where == "backfill":
            await until(conductor, lambda c: c.work.backfill is not None or not c.work.under_way)
            wait_s /= 3
        await asyncio.sleep(wait_s)
        plan = await begin_abort(conductor)
        if dice.random() < 0.5:
            await holder.rollback()
        else:
            asyncio.get_running_loop().call_later(dice.uniform(0.5, 3.0), holder.pgconn.finish)
        assert plan.prediction is not None
        await end_of_abort(conductor)
        finished = next(e.fact for e in reversed(conductor.events) if isinstance(e.fact, ev.AbortFinished))
        assert (finished.equal, finished.missed) == (True, []), (finished.differences, wait_s)
        assert conductor.state.outcome == "aborted"
    await went_back(shop, before)


async def test_two_who_confirm_the_abort_at_once_begin_one(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    before = await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, "deploy")
        plan = await conductor.plan_abort()
        wish = Abort(plan.digest, conductor.state.database)
        answers = await asyncio.gather(conductor.submit(wish), conductor.submit(wish), conductor.submit(wish))
        assert [answer.taken for answer in answers].count(True) == 1
        assert {answer.text for answer in answers if not answer.taken} == {"an abort is under way"}
        await end_of_abort(conductor)
        assert sum(isinstance(e.fact, ev.AbortConfirmed) for e in conductor.events) == 1
    await went_back(shop, before)


async def test_a_line_that_goes_while_the_version_table_is_read_is_no_refusal(
    db18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as conductor:
        own = Kept(shop.db.connector.tagged("aside"), Role.CONTROL)
        survey = Survey(replace(conductor.ground, control=own))
        assert await survey.heads() == {"9a20"}
        pid = (await own.session()).pid
        await shop.db.sql(f"SELECT pg_terminate_backend({pid}, 5000)")
        assert await survey.heads() == {"9a20"}  # on a new one
        monkeypatch.setattr(surveying, "committed_heads", severed)
        with pytest.raises(ConnectionLost) as gone:
            await survey.heads()
        assert away(gone.value)
        await own.close()


async def severed(session: Session, _: Chain) -> None:
    """It is lost while it reads."""
    session.sever()


async def test_a_step_that_a_restart_kept_from_beginning_may_be_run_again(
    own_server: OwnServers, tmp_path: Path
) -> None:
    server = await own_server(18)
    db = await own_server.database(server)
    project = AlembicProject(tmp_path / "project").revision("r1", *table("one"))

    async def after_a_restart(*args: Any) -> Any:
        await server.restart("immediate")
        return await spawn(*args)

    outcome = await run(
        job(project),
        db.connector,
        clock=SystemClock(),
        on_event=lambda _: None,
        stop=asyncio.Event(),
        spawn=after_a_restart,
    )
    assert outcome.failure is not None
    assert "the server was restarted while Alembic began" in outcome.failure.message
    assert lost(outcome.failure)
    end = ended(outcome)
    assert isinstance(end, Failed)
    assert end.again
    assert ended(await go(db, job(project))) == Done("at r1", ("r1",))
