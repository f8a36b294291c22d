"""The process that Alembic's processes come from: replaced where it was killed, and gone when we are."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from alembic_projects import AlembicProject, Told, go, job, table
from servers import Database, eventually, lives

from dbwatch.migration.asking import MigrationError, inspect
from dbwatch.migration.forked import Nursery, nursery


def _pid(of: Nursery = nursery) -> int:
    assert of._process is not None
    return of._process.pid


async def test_it_is_one_for_all_and_replaced_where_it_was_killed(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", *table("a"))
    await inspect(project.project, db18.connector)
    first = _pid()
    await inspect(project.project, db18.connector)
    assert _pid() == first
    os.kill(first, signal.SIGKILL)
    assert (await inspect(project.project, db18.connector)).steps == ("r1",)
    assert _pid() != first


async def test_what_it_has_started_goes_on_without_it(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", "op.execute('SELECT pg_sleep(1)')")
    told = Told()
    running = asyncio.create_task(go(db18, job(project), told))
    await told.statement("pg_sleep")
    os.kill(_pid(), signal.SIGKILL)
    assert (await running).ok


async def test_a_child_knows_the_environment_as_it_is_now(
    db18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "import os\nraise RuntimeError('greeting ' + os.environ['GREETING'])"
    project = AlembicProject(tmp_path / "shop", env=body)
    for greeting in ("one", "two"):
        monkeypatch.setenv("GREETING", greeting)
        with pytest.raises(MigrationError, match=f"greeting {greeting}"):
            await inspect(project.project, db18.connector)


async def test_what_keeps_it_from_starting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    other = Nursery()
    read, write = os.pipe()
    with pytest.raises(OSError, match="the process that starts it ended: exit code 1"):
        await other.spawn(write)
    for descriptor in (read, write):
        os.close(descriptor)
    other.close()


async def test_it_ends_with_its_parent() -> None:
    code = "import os; from dbwatch.migration.forked import nursery as n; n.open(); print(n._process.pid, flush=True)"
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code + "; os.kill(os.getpid(), 9)"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    await parent.wait()

    async def gone() -> bool:
        return not await lives(pid)

    await eventually(gone)
