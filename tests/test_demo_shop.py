"""The demo's stage: it is up in time, its load works on whatever happens, its migrations come back exactly."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict
from servers import client_tools, eventually
from test_embedded import read_until, traces, wait_until

from dbwatch.demo.load import APPS
from dbwatch.demo.shop import ORDERS, PRODUCTS, USERS, WITHOUT_PHONE, phone_of
from dbwatch.demo.stage import Stage, stage
from dbwatch.errors import UsageError
from dbwatch.runbook.loader import load
from dbwatch.runbook.model import KINDS

SHARED = pytest.mark.asyncio(loop_scope="module")
"""For tests of the stage that this file shares: they run in the loop that it lives in."""

READY_S = 20.0
"""The screen has to be up in 20 s on a busy machine; it takes about 6."""

OWNER = """
import asyncio
from dbwatch.demo.stage import stage

async def main():
    async with stage() as demo:
        print("folder", demo.server.folder, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Raised:
    """The one stage that the tests of this file share, and how it came up."""

    stage: Stage
    took_s: float
    told: list[str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def raised() -> AsyncIterator[Raised]:
    told: list[str] = []
    asked = time.monotonic()
    async with stage(progress=told.append) as demo:
        yield Raised(demo, time.monotonic() - asked, told)


@pytest_asyncio.fixture(loop_scope="module")
async def demo(raised: Raised) -> Stage:
    await eventually(lambda: all_at_work(raised.stage), within=15)
    return raised.stage


async def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(query.encode())
        return await cursor.fetchall() if cursor.description else []


async def alembic(demo: Stage, *arguments: str) -> str:
    argv = [sys.executable, "-m", "alembic", "-c", str(demo.project / "alembic.ini"), *arguments]
    child = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    printed, _ = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0, printed.decode()
    return printed.decode()


async def schema(demo: Stage) -> str:
    """`pg_dump -s`, without the lines that differ from one run to the next."""
    dump = await asyncio.create_subprocess_exec(
        client_tools() / "pg_dump", "-s", "-d", demo.dsn, stdout=subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(dump.communicate(), 60)
    assert dump.returncode == 0
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", printed.decode())


async def sessions(demo: Stage) -> dict[str, int]:
    """The load's sessions: application_name and pid."""
    found = await rows(
        demo.dsn,
        "SELECT application_name, pid FROM pg_stat_activity WHERE application_name ~ '^(app-[0-9]+|reports)$'",
    )
    return {str(name): int(str(pid)) for name, pid in found}


async def all_at_work(demo: Stage) -> bool:
    return len(await sessions(demo)) == APPS + 1


async def commits(demo: Stage) -> int:
    [(number,)] = await rows(demo.dsn, "SELECT xact_commit FROM pg_stat_database WHERE datname = 'shop'")
    return int(str(number))


async def more_commits(demo: Stage, than: int) -> bool:
    return await commits(demo) > than


@SHARED
async def test_the_curtain_rises_in_time_on_a_shop_under_load(raised: Raised, demo: Stage) -> None:
    assert raised.took_s < READY_S
    assert any("users" in line for line in raised.told)
    counts = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM products), (SELECT count(*) FROM orders)"
    [(users, products, orders)] = await rows(demo.dsn, counts)
    assert int(str(users)) >= USERS
    assert products == PRODUCTS
    assert int(str(orders)) >= ORDERS
    [(without,)] = await rows(demo.dsn, "SELECT avg((legacy_phone_field IS NULL)::int) FROM users")
    assert 0.015 < float(str(without)) < 0.025
    assert "9a20" in await alembic(demo, "current")
    before = await commits(demo)
    await eventually(lambda: more_commits(demo, before + 300))


@SHARED
async def test_the_staged_project_names_its_own_server_and_nothing_else(demo: Stage) -> None:
    host = str(conninfo_to_dict(demo.dsn)["host"])
    runbook = load(demo.runbook, {}).runbook
    assert runbook.target.dsn == demo.dsn
    assert {step.kind for step in runbook.steps()} == set(KINDS)
    assert Path(host).is_relative_to(demo.server.folder)
    assert demo.project.is_relative_to(demo.server.folder)


@SHARED
async def test_terminated_sessions_of_the_load_come_back(demo: Stage) -> None:
    first = await sessions(demo)
    await rows(demo.dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> ''")

    async def all_are_new() -> bool:
        now = await sessions(demo)
        return now.keys() == first.keys() and not set(now.values()) & set(first.values())

    await eventually(all_are_new)
    await demo.server.restart("immediate")
    await eventually(lambda: all_at_work(demo), within=15)


@SHARED
async def test_the_migration_goes_all_the_way_and_comes_back_exactly_while_the_shop_works(demo: Stage) -> None:
    differ = "SELECT count(*) FROM users WHERE phone IS DISTINCT FROM legacy_phone_field"
    workers = await sessions(demo)
    at_9a20 = await schema(demo)

    await alembic(demo, "upgrade", "3f1c")
    await alembic(demo, "downgrade", "9a20")
    assert await schema(demo) == at_9a20, "expand and back"

    await alembic(demo, "upgrade", "3f1c")
    await rows(
        demo.dsn,
        "UPDATE users SET phone = legacy_phone_field WHERE phone IS NULL AND legacy_phone_field IS NOT NULL",
    )
    await rows(demo.dsn, "ALTER TABLE users ADD CHECK (phone IS NOT DISTINCT FROM legacy_phone_field) NOT VALID")
    newest = await rows(demo.dsn, "SELECT max(id) FROM users")

    async def somebody_joined() -> bool:
        return await rows(demo.dsn, "SELECT max(id) FROM users") != newest

    await eventually(somebody_joined)
    assert await rows(demo.dsn, differ) == [(0,)], "the application writes both columns"

    await alembic(demo, "upgrade", "head")
    before = await commits(demo)
    await eventually(lambda: more_commits(demo, before + 300))
    await alembic(demo, "downgrade", "3f1c")
    assert await rows(demo.dsn, differ) == [(0,)], "the old column has its values back"
    await alembic(demo, "downgrade", "9a20")
    assert await schema(demo) == at_9a20, "expand, contract and back"
    assert await sessions(demo) == workers, "no session of the load was lost on the way"


def test_every_phone_number_fits_the_new_column_and_belongs_to_one_user() -> None:
    numbers = [number for user_id in range(1, 20_001) if (number := phone_of(user_id))]
    assert len(set(numbers)) == len(numbers) == 20_000 - 20_000 // WITHOUT_PHONE
    assert max(map(len, numbers)) <= 20


def test_nothing_of_the_stage_stays_when_its_owner_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        folder = Path(read_until(owner, "folder"))
        at_work = [entry for entry in Path("/proc").glob("[0-9]*") if loads_for(entry, owner.pid)]
        assert len(at_work) == 1
        owner.kill()
        wait_until(lambda: not traces(folder) and not at_work[0].exists(), within=15)


def loads_for(entry: Path, owner: int) -> bool:
    try:
        parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        return parent == owner and b"dbwatch.demo.load" in (entry / "cmdline").read_bytes()
    except OSError:
        return False


async def test_a_folder_without_binaries_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no PostgreSQL server binaries in"):
        async with stage(tmp_path):
            pass
