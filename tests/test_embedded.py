"""The embedded server: it starts anywhere, obeys, and leaves nothing behind however its owner ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from servers import Database, OwnServers, eventually

from dbwatch.errors import DbwatchError, Exit, UsageError
from dbwatch.postgres.binaries import Binaries, embedded_bin, find_binaries
from dbwatch.postgres.embedded import EmbeddedServer

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="what root may not do matters to root only")

OWNER = """
import asyncio, sys
from dbwatch.postgres.binaries import find_binaries
from dbwatch.postgres.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer(find_binaries(), progress=lambda what: print("progress", what, flush=True))
    await server.initialize()
    print("folder", server.folder, flush=True)
    await server.start()
    print("pid", server.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
"""A program that owns a server and does nothing to clean up."""


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        yield process
        process.kill()


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """The rest of the first line of the process's output that begins with *word*."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line.removeprefix(word).strip()
    raise AssertionError(f"the process ended without saying {word!r}")


def wait_until(holds: Callable[[], bool], *, within: float) -> None:
    """Looks every 20 ms whether something holds; the process table tells nobody when it changes."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.02)


def traces(folder: Path) -> list[str]:
    """What is left of a server: its folder, and every process that names it or works in it."""
    found = [str(folder)] if folder.exists() else []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            if str(folder) in command or folder in (entry / "cwd").readlink().parents:
                found.append(f"{entry.name} {command}")
        except OSError:
            continue
    return found


def mode(path: Path) -> int:
    return path.stat().st_mode


def owner_of(path: Path) -> int:
    return path.stat().st_uid


async def one(dsn: str, query: str) -> object:
    async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=10) as connection:
        [value] = await (await connection.execute(query.encode())).fetchone() or [None]
        return value


async def test_every_major_gives_a_new_empty_database(any_db: Database) -> None:
    [(version, statements)] = await any_db.sql(
        "CREATE EXTENSION pg_stat_statements",
        "SELECT current_setting('server_version_num')::int / 10000, count(*) FROM pg_stat_statements",
    )
    assert version == any_db.major
    assert statements > 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_server_and_its_files_go_with_an_owner_that_is_killed(
    owner: subprocess.Popen[str], number: signal.Signals
) -> None:
    folder = Path(read_until(owner, "folder"))
    read_until(owner, "pid")
    assert len(traces(folder)) > 3
    os.killpg(owner.pid, number)
    wait_until(lambda: not traces(folder), within=15)


def test_nothing_stays_of_an_owner_killed_while_its_server_is_being_made(owner: subprocess.Popen[str]) -> None:
    read_until(owner, "progress creating")
    wait_until(lambda: bool(list_folders(owner.pid)), within=10)
    [folder] = list_folders(owner.pid)
    owner.kill()
    wait_until(lambda: not traces(folder), within=15)


def list_folders(owner: int) -> list[Path]:
    """The folders of the programs that the reaper of *owner* runs at present."""
    children = [p for p in Path("/proc").glob("[0-9]*") if parent_of(p) == owner]
    working = [p for p in Path("/proc").glob("[0-9]*") if parent_of(p) in [int(c.name) for c in children]]
    return [(p / "cwd").readlink().parent for p in working]


def parent_of(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_a_stopped_server_goes_too(owner: subprocess.Popen[str]) -> None:
    folder = Path(read_until(owner, "folder"))
    postmaster = int(read_until(owner, "pid"))
    os.kill(postmaster, signal.SIGSTOP)
    owner.kill()
    wait_until(lambda: not traces(folder), within=15)


def test_a_stopped_backend_goes_too(owner: subprocess.Popen[str]) -> None:
    folder = Path(read_until(owner, "folder"))
    postmaster = int(read_until(owner, "pid"))
    with psycopg.connect(host=str(folder / "pg"), port=5432, user="postgres", dbname="postgres") as connection:
        os.kill(connection.info.backend_pid, signal.SIGSTOP)
        os.kill(postmaster, signal.SIGKILL)
        owner.kill()
        wait_until(lambda: not traces(folder), within=25)


async def test_a_server_outlives_neither_its_block_nor_its_reaper() -> None:
    async with EmbeddedServer(find_binaries()) as server:
        folder = server.folder
        assert await one(server.dsn, "SELECT 1") == 1
        reaper = parent_of(Path(f"/proc/{server.pid}"))
        os.kill(reaper, signal.SIGKILL)
    wait_until(lambda: not traces(folder), within=10)


async def test_a_killed_server_starts_again_at_the_same_address(own_server: OwnServers) -> None:
    server = await own_server()
    before, first = server.dsn, server.pid
    async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
        await server.kill9()
        assert not server.running
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("SELECT 1")
    await server.start()
    assert (server.dsn, await one(server.dsn, "SELECT x FROM kept")) == (before, 1)
    assert server.pid != first


async def test_a_stopped_postmaster_accepts_nobody_until_it_goes_on(own_server: OwnServers) -> None:
    server = await own_server()
    await server.sigstop()
    waiting = asyncio.create_task(one(server.dsn, "SELECT 1"))
    done, _ = await asyncio.wait({waiting}, timeout=0.3)
    assert not done
    await server.sigcont()
    assert await asyncio.wait_for(waiting, 10) == 1


async def test_settings_change_at_a_reload_and_at_a_restart(own_server: OwnServers) -> None:
    server = await own_server(15)
    server.settings["work_mem"] = "5MB"
    await server.reload()

    async def reloaded() -> bool:
        return await one(server.dsn, "SHOW work_mem") == "5MB"

    await eventually(reloaded)
    server.settings["max_connections"] = "20"
    await server.restart()
    assert await one(server.dsn, "SHOW max_connections") == "20"


async def test_a_setting_that_is_none_is_named(own_server: OwnServers) -> None:
    with pytest.raises(DbwatchError, match=r"did not start: .*no_such_setting"):
        await own_server(settings={"no_such_setting": "it's"})


async def test_a_standby_follows_its_primary(own_server: OwnServers) -> None:
    primary = await own_server(15)
    standby = await own_server.standby(primary)
    assert await one(standby.dsn, "SELECT pg_is_in_recovery()") is True
    assert await one(primary.dsn, "SELECT application_name FROM pg_stat_replication") == "standby"


async def test_two_servers_have_one_identity_unless_asked_otherwise(own_server: OwnServers) -> None:
    query = "SELECT system_identifier::text FROM pg_control_system()"
    servers = [await own_server(), await own_server(), await own_server(fresh=True)]
    copy, other_copy, fresh = [await one(server.dsn, query) for server in servers]
    assert copy == other_copy
    assert fresh != copy


async def test_the_socket_lets_nobody_else_in() -> None:
    async with EmbeddedServer(find_binaries()) as server:
        assert mode(Path(server.host)) & 0o077 == 0
        assert await one(server.dsn, "SHOW listen_addresses") == ""


@ROOT
async def test_root_gets_a_server_that_runs_as_nobody_and_owns_only_its_data() -> None:
    async with EmbeddedServer(find_binaries()) as server:
        assert owner_of(Path(f"/proc/{server.pid}")) == owner_of(server.data) != 0
        assert owner_of(server.folder) == owner_of(server.log) == 0


@ROOT
async def test_binaries_that_its_user_cannot_read_are_copied(tmp_path: Path) -> None:
    embedded = embedded_bin()
    assert embedded is not None
    package = embedded.parent.parent
    shutil.copytree(package, tmp_path / package.name, symlinks=True)
    shutil.copytree(f"{package}.libs", tmp_path / f"{package.name}.libs")
    before = mode(tmp_path)
    assert before & 0o077 == 0
    hidden = find_binaries(hint=tmp_path / package.name / "pginstall" / "bin")
    async with EmbeddedServer(hidden) as server:
        assert server.binaries.bin.is_relative_to(server.folder)
        assert await one(server.dsn, "SELECT 1") == 1
    assert mode(tmp_path) == before


def test_binaries_are_found_by_a_folder_or_the_folder_above(tmp_path: Path) -> None:
    found = find_binaries(18)
    assert find_binaries(hint=found.bin) == find_binaries(18, found.bin.parent) == found
    assert found.version_text.startswith("18.")


@pytest.mark.parametrize(
    ("version", "major", "words"),
    [(None, None, "no PostgreSQL server binaries in"), ("12.22", None, "too old"), ("17.2", 16, "was asked for")],
)
def test_a_folder_that_will_not_do_is_refused_in_a_sentence(
    tmp_path: Path, version: str | None, major: int | None, words: str
) -> None:
    if version:
        for name in ("initdb", "postgres"):
            (tmp_path / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
            (tmp_path / name).chmod(0o755)
    with pytest.raises(UsageError, match=words) as refusal:
        find_binaries(major, tmp_path)
    assert refusal.value.exit_code == Exit.USAGE


async def test_a_program_that_does_not_run_is_a_sentence(tmp_path: Path) -> None:
    for name in ("initdb", "postgres"):
        (tmp_path / name).touch(mode=0o755)
    server = EmbeddedServer(Binaries(tmp_path, 18, "18.0"))
    try:
        with pytest.raises(DbwatchError, match="initdb"):
            await server.initialize()
    finally:
        await server.remove()


def test_a_reaper_that_can_make_no_folder_says_why_and_ends(tmp_path: Path) -> None:
    argv = [sys.executable, "-P", "-m", "dbwatch.postgres.reaper", str(tmp_path / "missing")]
    ended = subprocess.run(argv, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=20, check=False)
    assert "failed" in ended.stdout
    assert "missing" in ended.stdout
