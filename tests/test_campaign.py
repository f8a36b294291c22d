"""Two people at one window, at random: a short piece of `make campaign`; and proof that its oracles can fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from campaign.player import Part
from campaign.referee import Referee, one
from campaign.scene import Stage
from servers import OwnServers, eventually

from dbwatch.journal.fold import StepStatus


@pytest.fixture
async def stage(own_server: OwnServers, tmp_path: Path) -> Stage:
    return await Stage.make(await own_server(18), tmp_path)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", ["short.1"])
async def test_whatever_two_people_do_nothing_is_done_twice_and_nothing_is_lost(
    stage: Stage, tmp_path: Path, seed: str
) -> None:
    result = await one(stage, seed, tmp_path / "windows", most=5)
    assert not result.breaches, "\n".join([*result.breaches, "", *result.log])
    assert result.outcome in ("done", "aborted")
    assert result.operations


async def until_step(referee: Referee, step: str, *statuses: StepStatus) -> None:
    """Waits until the journal says so."""

    async def holds() -> bool:
        found = await referee.found()
        return found is not None and found.state.step(step).status in statuses

    await eventually(holds, within=40)


async def counted(referee: Referee) -> bool:
    """Whether the sql step's statement has taken effect."""
    return await referee.scene.db.sql("SELECT count(*) FROM deeds WHERE what = 'count'") == [(1,)]


async def through(referee: Referee, name: str, *steps: str) -> None:
    """Does these steps, one after the other."""
    for step in steps:
        await referee.tell(name, "n", step=step)
        await until_step(referee, step, StepStatus.DONE)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("broken", "breach"),
    [("two transactions", "count: 1 in the database"), ("hopeful", "count: 0 in the database"), ("", "")],
)
async def test_the_oracles_see_a_step_whose_end_the_journal_tells_wrongly(
    stage: Stage, tmp_path: Path, broken: str, breach: str
) -> None:
    """A driver is killed in the middle of a sql step; the next one finds out how it ended."""
    referee = Referee(stage, f"broken {broken}", tmp_path / "window", broken)
    async with referee:
        await referee.sit("wei@a", "drive")
        assert await referee.inside("wei@a")
        await through(referee, "wei@a", "read", "add")
        holder = await referee.scene.db.foreign("app-1", autocommit=False)
        if broken != "two transactions":
            await holder.execute("LOCK TABLE deeds IN EXCLUSIVE MODE")
        await referee.tell("wei@a", "n", step="count")
        if broken == "two transactions":
            await eventually(lambda: counted(referee), within=20)
        referee.seats["wei@a"].kill()
        await referee.seats["wei@a"].gone()
        await holder.rollback()
        await referee.sit("lin@b", "drive", "wei died")
        assert await referee.inside("lin@b")
        await until_step(referee, "count", StepStatus.FAILED, StepStatus.DONE)
        result = await referee.judge()
    of_the_step = [b for b in result.breaches if b.startswith("count")]
    assert [b[: len(breach)] for b in of_the_step] == [breach] * bool(breach), "\n".join(result.log)


@pytest.mark.timeout(240)
async def test_the_oracles_see_a_driver_that_nobody_fenced_out(stage: Stage, tmp_path: Path) -> None:
    referee = Referee(stage, "unfenced", tmp_path / "window", "unfenced")
    async with referee:
        await referee.sit("wei@a", "drive")
        assert await referee.inside("wei@a")
        referee.seats["wei@a"].stop()
        await referee.sit("lin@b", "drive", "wei is asleep")
        assert await referee.inside("lin@b")
        referee.seats["wei@a"].wake()
        assert (await referee.tell("wei@a", "n", step="read"))["taken"]
        result = await referee.judge()
    assert any("is by wei@a, and lin@b drives" in breach for breach in result.breaches), result.breaches


def test_a_part_survives_its_way_to_the_player() -> None:
    part = Part("wei@a", "dsn", "runbook.toml", "folder", "drive", "asleep", "hopeful")
    assert Part(**json.loads(part.to_json())) == part
