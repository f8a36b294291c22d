"""The way back on paper: psql and alembic alone, in the hands of a person, bring everything back.

Nothing of dbwatch runs then, or is heard: the window was left in the middle, its driver killed or fenced out.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic_projects import INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY, AlembicProject, column, table
from psycopg.conninfo import conninfo_to_dict
from servers import Database, client_tools, eventually
from story import PATIENCE_S, Seat, journal
from story import column as values
from windows import Shop, driven, small_shop, steps_before, until

from dbwatch.journal import events as ev
from dbwatch.window.conductor import Conductor
from dbwatch.window.script import TAKEN_BACK
from dbwatch.window.wheel import BY_HAND


@pytest.fixture
async def shop18(db18: Database, tmp_path: Path) -> Shop:
    return await small_shop(db18, tmp_path)


# A person, with psql and alembic


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody at a shell, where there is no dbwatch."""

    db: Database
    desk: Path

    @property
    def environment(self) -> dict[str, str]:
        """psql and alembic, and where the database is; importing dbwatch is an error."""
        tools = self.desk / "bin"
        tools.mkdir(exist_ok=True)
        without = "import sys; sys.modules['dbwatch'] = None; from alembic.config import main; main(prog='alembic')"
        (tools / "alembic").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{without}" "$@"\n')
        (tools / "alembic").chmod(0o755)
        known = conninfo_to_dict(self.db.dsn)
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
        path = os.pathsep.join([str(tools), str(client_tools()), "/usr/bin", "/bin"])
        return {"PATH": path, "LC_ALL": "C.UTF-8", **{names[key]: str(known[key]) for key in names}}

    async def run(self, *command: str, typed: str = "") -> tuple[int | None, str]:
        """A command to its end: exit code, and all that it printed."""
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE if typed else DEVNULL, stdout=PIPE, stderr=STDOUT, env=self.environment, cwd=self.desk
        )
        said, _ = await asyncio.wait_for(process.communicate(typed.encode() if typed else None), 60)
        return process.returncode, said.decode()

    async def psql(self, script: Path, *options: str) -> tuple[int | None, str]:
        """`rollback.sql`, as its first lines say."""
        return await self.run("psql", "-X", "-v", "ON_ERROR_STOP=1", *options, "-f", str(script))

    async def follow(self, page: str) -> None:
        """`rollback.md`: its blocks in their order, each of which has to succeed."""
        blocks = re.findall(r"^ *```(sql|sh)\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE)
        assert blocks
        for language, block in blocks:
            shell = ("psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", "-") if language == "sql" else ("sh", "-e")
            code, said = await self.run(*shell, typed=block)
            assert code == 0, f"{block}\n{said}"


def person(shop: Shop) -> Person:
    return Person(shop.db, shop.folder)


def folder_of(conductor: Conductor) -> Path:
    return conductor.ground.store.mirror.folder


async def laid(conductor: Conductor) -> Path:
    """The folder with the paper, once that knows of the last event."""
    folder = folder_of(conductor)

    def up_to_date(conductor: Conductor) -> bool:
        page = folder / "rollback.md"
        return page.exists() and f"as of event {conductor.state.seq}." in page.read_text()

    await until(conductor, up_to_date)
    return folder


async def is_back(shop: Shop, before: str) -> None:
    assert await shop.dump() == before
    assert await shop.heads() == ["9a20"]
    assert await values(shop.db, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [0]


async def is_closed_by_abort(seat: Seat) -> None:
    """dbwatch, once it can be had again, finds the schema as it was, and closes the window."""
    done = await seat.run("abort", str(seat.shop.runbook), "--done", "deploy", "--confirm", seat.shop.db.name)
    assert done.code == 0, done.out + done.err
    assert "the schema equals the one at the opening" in done.out
    assert await values(seat.shop.db, "SELECT outcome FROM dbwatch.window") == ["aborted"]


# The script


@pytest.mark.parametrize(("db", "place"), [(18, "deploy"), (15, "nobody"), (18, "")], indirect=["db"])
async def test_the_script_takes_everything_back_with_psql_alone(db: Database, tmp_path: Path, place: str) -> None:
    shop = await small_shop(db, tmp_path)
    before = await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, place)
        folder = await laid(conductor)
        options: tuple[str, ...] = ()
        if place != "deploy":  # it was deployed: a person has to take that back before the column goes
            code, said = await person(shop).psql(folder / "rollback.sql")
            assert (code, "deploy has to be undone by a person now: git checkout v0.7.0" in said) == (3, True), said
            assert "run this again with -v undone_deploy=1" in said
            assert "3f1c" in await shop.heads()
            options = ("-v", "undone_deploy=1")
        code, said = await person(shop).psql(folder / "rollback.sql", *options)
        assert code == 0, said
        await until(conductor, lambda c: not c.driving)  # who drove was not even killed: it is fenced out
    await is_back(shop, before)
    events = await journal(shop.db)  # its chain holds
    assert [e.fact.driver for e in events if isinstance(e.fact, ev.DriverTook)][-1] == BY_HAND
    noted = {e.fact.step for e in events if isinstance(e.fact, ev.StepNoted) and e.fact.text == TAKEN_BACK}
    assert noted == {s for s in ("add", "deploy", "same", "drop") if came_before(conductor, s, place)}


def came_before(conductor: Conductor, step_id: str, place: str) -> bool:
    ids = [spec.id for spec in conductor.ground.runbook.steps()]
    return not place or ids.index(step_id) < ids.index(place)


async def test_a_script_laid_at_the_opening_takes_back_whatever_came_after(shop18: Shop) -> None:
    before = await shop18.dump()
    async with driven(shop18) as conductor:
        script = shop18.folder / "first.sql"
        script.write_text(((await laid(conductor)) / "rollback.sql").read_text())
        await steps_before(conductor, "")
    code, said = await person(shop18).psql(script, "-v", "undone_deploy=1")
    assert code == 0, said
    await is_back(shop18, before)
    seat = Seat.at(shop18)
    again = await seat.run("run", str(shop18.runbook), "--headless")
    assert (again.code, "taken back by hand" in again.err, "dbwatch abort" in again.err) == (4, True, True)
    assert "taken back by hand" in (await seat.run("status", shop18.db.dsn)).out
    await is_closed_by_abort(seat)
    code, said = await person(shop18).psql(script)
    assert (code, "this window is closed: there is nothing to take back" in said) == (3, True)


async def test_a_script_that_stopped_half_way_is_run_again(shop18: Shop) -> None:
    before = await shop18.dump()
    async with driven(shop18) as conductor:
        await steps_before(conductor, "deploy")
        script = (await laid(conductor)) / "rollback.sql"
    await shop18.db.sql("CREATE VIEW phones AS SELECT phone FROM users")
    code, said = await person(shop18).psql(script)
    assert (code, "other objects depend on it" in said) == (3, True)
    assert await values(shop18.db, "SELECT to_regclass('idx_users_phone') IS NULL") == [
        True
    ]  # what committed by itself
    assert await shop18.heads() == ["3f1c"]
    await shop18.db.sql("DROP VIEW phones")
    for _ in range(2):  # and once more than is needed
        code, said = await person(shop18).psql(script)
        assert code == 0, said
        await is_back(shop18, before)


# Killed


async def killed_in_a_build(seat: Seat, *, page_too: bool) -> Path:
    """Kills the driver while it builds the index, which is INVALID then; the folder with its paper.

    With *page_too* not before the page knows of that build: of what came after it, it only says that it does not.
    """
    reports = await seat.shop.db.foreign("reports", autocommit=False)
    await reports.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await reports.execute("SELECT count(*) FROM products")
    async with seat.started("run", str(seat.shop.runbook), "--headless", "--sign", "preview=read") as driver:
        waits = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'dbwatch migrate%' AND wait_event = 'virtualxid'"
        )

        async def builds() -> bool:
            return await values(seat.shop.db, waits) != [0]

        await eventually(builds, within=PATIENCE_S)
        [script] = (seat.shop.folder / "state").rglob("rollback.sql")  # it was there before the step began
        if page_too:
            [seq] = await values(seat.shop.db, "SELECT max(seq) FROM dbwatch.event")
            page = script.with_name("rollback.md")

            async def is_told() -> bool:
                return f"as of event {seq}." in page.read_text()

            await eventually(is_told, within=PATIENCE_S)
        driver.kill(signal.SIGKILL)
        await driver.ended()
    await seat.nobody_is_left()
    await reports.rollback()
    assert await values(seat.shop.db, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [1]
    return script.parent


async def test_the_script_removes_what_a_killed_build_left(shop18: Shop) -> None:
    before, seat = await shop18.dump(), Seat.at(shop18)
    folder = await killed_in_a_build(seat, page_too=False)
    code, said = await person(shop18).psql(folder / "rollback.sql")
    assert code == 0, said
    await is_back(shop18, before)
    await is_closed_by_abort(seat)


async def test_the_script_goes_on_where_an_abort_was_killed_and_dbwatch_behind_it(shop18: Shop) -> None:
    before, seat = await shop18.dump(), Seat.at(shop18)
    async with driven(shop18) as conductor:
        await steps_before(conductor, "nobody")
        script = (await laid(conductor)) / "rollback.sql"
    reports = await shop18.db.foreign("reports", autocommit=False)
    await reports.execute("SELECT count(*) FROM users")  # the downgrade of `add` waits for it
    arguments = ("abort", str(shop18.runbook), "--done", "deploy", "--confirm", shop18.db.name)
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'dbwatch%' AND wait_event_type = 'Lock'"
    )
    async with seat.started(*arguments) as way_back:

        async def stuck() -> bool:
            return await values(shop18.db, waits) != [0]

        await eventually(stuck, within=PATIENCE_S)
        way_back.kill(signal.SIGKILL)
        await way_back.ended()
    await seat.nobody_is_left()
    await reports.rollback()
    code, said = await person(shop18).psql(script, "-v", "undone_deploy=1")
    assert code == 0, said
    await is_back(shop18, before)
    await is_closed_by_abort(seat)


# The page


async def test_the_page_takes_everything_back_with_psql_and_alembic(shop18: Shop) -> None:
    before = await shop18.dump()
    async with driven(shop18) as conductor:
        await steps_before(conductor, "nobody")
        page = ((await laid(conductor)) / "rollback.md").read_text()
        assert "undo deploy: git checkout v0.7.0" in page
        await person(shop18).follow(page)
        await until(conductor, lambda c: not c.driving)
    await is_back(shop18, before)
    again = await Seat.at(shop18).run("run", str(shop18.runbook), "--headless")
    assert (again.code, "taken back by hand" in again.err) == (4, True)


async def test_the_page_removes_what_a_killed_build_left(shop18: Shop) -> None:
    before, seat = await shop18.dump(), Seat.at(shop18)
    page = (await killed_in_a_build(seat, page_too=True)) / "rollback.md"
    await person(shop18).follow(page.read_text())
    await is_back(shop18, before)
    await is_closed_by_abort(seat)


# Data


FILL = """
title = "cities in capitals"

[target]
dsn = "${SHOP_DSN}"

[[phase]]
name = "all"

[[phase.step]]
id = "capitals"
kind = "backfill"
table = "users"
set = "city = upper(city)"
where = "city <> upper(city)"
undo = true

[[phase.step]]
id = "look"
kind = "manual"
text = "all is well"
"""


@pytest.mark.parametrize("how", ["script", "page", "an older script"])
async def test_what_a_backfill_overwrote_is_brought_back(shop18: Shop, how: str) -> None:
    shop18.runbook.write_text(FILL)
    cities = "SELECT md5(string_agg(city, ',' ORDER BY id)) FROM users"
    before = await values(shop18.db, cities)
    async with driven(shop18) as conductor:
        older = ((await laid(conductor)) / "rollback.sql").read_text()
        await steps_before(conductor, "look")
        assert await values(shop18.db, cities) != before
        folder = await laid(conductor)
    script = folder / "rollback.sql"
    if how == "page":
        await person(shop18).follow((folder / "rollback.md").read_text())
    if how == "an older script":  # it cannot know where the images lie, and says so
        script = shop18.folder / "older.sql"
        script.write_text(older)
        code, said = await person(shop18).psql(script)
        assert (code, "what capitals overwrote is kept (dbwatch.backfill.images says where)" in said) == (3, True)
        script = folder / "rollback.sql"
    if how != "page":
        code, said = await person(shop18).psql(script)
        assert code == 0, said
    assert await values(shop18.db, cities) == before


# What cannot be taken back


async def test_the_script_stops_above_what_has_no_way_back_and_says_so(db18: Database, tmp_path: Path) -> None:
    shop = await branches(db18, tmp_path, dead_end=True)
    async with driven(shop) as conductor:
        await steps_before(conductor, "look")
        folder = await laid(conductor)
    code, said = await person(shop).psql(folder / "rollback.sql")
    assert (code, "a3: revision a3 has no downgrade(); see rollback.md" in said) == (3, True), said
    assert "a3" in await shop.heads()  # a4 is taken back, with its row of the version table


# Several heads


BRANCHES = """
title = "three branches"
alembic = "alembic.ini"

[target]
dsn = "${SHOP_DSN}"

[[phase]]
name = "all"

[[phase.step]]
id = "up"
kind = "migrate"
to = "heads"

[[phase.step]]
id = "look"
kind = "manual"
text = "all is well"
"""


async def branches(db: Database, folder: Path, *, dead_end: bool = False) -> Shop:
    """A window that opens on two branches, brings both further, and begins a third.

    With *dead_end* a revision of the first branch has no downgrade.
    """
    project = AlembicProject(folder / "project")
    project.revision("r0", *table("users"))
    for name in ("a", "b"):
        project.revision(f"{name}1", *table(f"{name}1"), after="r0")
        project.revision(f"{name}2", *column(f"{name}2", of="users"))
    if dead_end:
        project.revision("a3", column("a3")[0], None, after="a2")
        project.revision("a4", *column("a4"))
    project.revision("c1", INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY, after="r0")
    ini, runbook = project.project.config, folder / "project" / "runbook.toml"
    there = conninfo_to_dict(db.dsn)
    url = f"postgresql+psycopg://{there['user']}@{there['host']}:{there['port']}/{there['dbname']}"
    ini.write_text(ini.read_text().replace("postgresql+psycopg://nobody@nowhere.invalid/nothing", url))
    runbook.write_text(BRANCHES)
    for target in ("a1", "b1"):
        argv = [sys.executable, "-m", "alembic", "-c", str(ini), "upgrade", target]
        await asyncio.to_thread(subprocess.run, argv, capture_output=True, check=True)
    return Shop(db, folder, runbook)


@pytest.mark.parametrize("how", ["script", "page"])
async def test_several_heads_are_as_they_were(db18: Database, tmp_path: Path, how: str) -> None:
    shop = await branches(db18, tmp_path)
    before = await shop.dump()
    async with driven(shop) as conductor:
        await steps_before(conductor, "look")
        assert await shop.heads() == ["a2", "b2", "c1"]
        folder = await laid(conductor)
        if how == "script":
            code, said = await person(shop).psql(folder / "rollback.sql")
            assert code == 0, said
        else:
            await person(shop).follow((folder / "rollback.md").read_text())
    assert await shop.heads() == ["a1", "b1"]
    assert await shop.dump() == before
