"""The demo's stage: a server, the shop on it, its application at work, and a migration ready to drive.

Nothing of it outlives this process, however that ends: the server and the folder belong to a reaper, the load
ends with its control pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL

from dbwatch.demo.shop import analyze, fill
from dbwatch.errors import DbwatchError, UsageError
from dbwatch.postgres.binaries import find_binaries
from dbwatch.postgres.embedded import EmbeddedServer, Progress
from dbwatch.postgres.session import describe
from dbwatch.text import one_line

DATABASE = "shop"
TABLES = "51d0"
"""The revision that has the tables and not yet their indexes: rows load twice as fast into it."""
BEFORE = "9a20"
"""The revision at which the shop stands when the curtain rises."""

_SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "track_io_timing": "on",
    "track_activity_query_size": "8kB",
    "autovacuum_naptime": "15s",
    "maintenance_work_mem": "128MB",
    "log_lock_waits": "on",
}
_SET_UP_S = 180.0
"""It takes about six; a machine that needs longer than this has another problem."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the demo has set up."""

    dsn: str
    runbook: Path
    project: Path
    """The folder with alembic.ini."""
    server: EmbeddedServer
    load: subprocess.Popen[bytes]


@asynccontextmanager
async def stage(pg_bin: Path | str | None = None, progress: Progress = lambda _: None) -> AsyncIterator[Stage]:
    """Sets the demo up, in about ten seconds, and removes all of it in the end.

    *pg_bin* is a folder with server binaries; otherwise they are looked for. *progress* is told in a few words
    what is being done. Raises DbwatchError (UsageError where there are no binaries).
    """
    if sys.platform == "win32":
        raise UsageError("the demo needs Linux or macOS", next="point dbwatch at a server of your own")
    binaries = find_binaries(hint=pg_bin)
    async with EmbeddedServer(binaries, settings=_SETTINGS, progress=progress) as server:
        dsn = server.dsn_of(DATABASE)
        project = _copy_project(server.folder / "project", dsn)
        try:
            async with asyncio.timeout(_SET_UP_S):
                await _furnish(server, project, dsn, progress)
        except TimeoutError as error:
            why = f"it was not done within {_SET_UP_S:g} s"
            raise DbwatchError("the shop could not be set up", why=why) from error
        except psycopg.Error as error:
            raise DbwatchError("the shop could not be set up", why=describe(error)) from error
        progress("opening the shop")
        load = _start_load(server.folder / "load.log", dsn)
        try:
            yield Stage(dsn, project / "runbook.toml", project, server, load)
        finally:
            _end_load(load)


async def _furnish(server: EmbeddedServer, project: Path, dsn: str, progress: Progress) -> None:
    progress("building the shop")
    async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as connection:
        await connection.execute("CREATE DATABASE shop")
    await _alembic(project, "upgrade", TABLES)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("CREATE EXTENSION pg_stat_statements")
        await fill(connection, progress)
    progress("building indexes and gathering statistics")
    await _alembic(project, "upgrade", BEFORE)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await analyze(connection)
        await connection.execute("SELECT pg_stat_statements_reset()")


def _copy_project(target: Path, dsn: str) -> Path:
    """The packaged project, with the address of its database written where the package has none."""
    with as_file(files("dbwatch.demo") / "project") as packaged:
        shutil.copytree(packaged, target, ignore=shutil.ignore_patterns("__pycache__"))
    known = conninfo_to_dict(dsn)
    url = URL.create(
        "postgresql+psycopg",
        username=str(known["user"]),
        database=str(known["dbname"]),
        query={"host": str(known["host"]), "port": str(known["port"])},
    )
    escaped = url.render_as_string(hide_password=False).replace("%", "%%")
    _rewrite(target / "alembic.ini", "postgresql+psycopg:///shop", escaped)
    _rewrite(target / "runbook.toml", "${SHOP_DSN}", dsn)
    return target


def _rewrite(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


async def _alembic(project: Path, *arguments: str) -> None:
    argv = [sys.executable, "-m", "alembic", "-c", str(project / "alembic.ini"), *arguments]
    child = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        printed, _ = await asyncio.wait_for(child.communicate(), 60.0)
    except TimeoutError as error:
        raise DbwatchError("the shop's first migration did not end within 60 s") from error
    finally:
        if child.returncode is None:
            child.kill()
    if child.returncode:
        raise DbwatchError("the shop's first migration failed", why=one_line(printed.decode(errors="replace")[-500:]))


def _start_load(log: Path, dsn: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        load = subprocess.Popen(
            [sys.executable, "-P", "-m", "dbwatch.demo.load"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    assert load.stdin is not None
    load.stdin.write(dsn.encode() + b"\n")
    load.stdin.flush()
    return load


def _end_load(load: subprocess.Popen[bytes]) -> None:
    assert load.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        load.stdin.close()
    try:
        load.wait(1.0)
    except subprocess.TimeoutExpired:
        load.kill()
        load.wait()
