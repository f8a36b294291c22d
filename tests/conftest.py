"""Fixtures: see servers.py for what each gives."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from proxy import FaultProxy
from servers import MAJORS, Database, Fleet, OwnServers, new_database

from dbwatch.postgres.embedded import EmbeddedServer

MEMORY = Path("/dev/shm")
ROOM = 8 << 30
"""In bytes: what two workers' servers may fill together, with room to spare."""


def pytest_configure(config: pytest.Config) -> None:
    _keep_files_in_memory()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started us in the background
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # some hundred processes would compile dbwatch anew, each
    config.addinivalue_line("markers", "majors: runs on every major from 13 to 18 (`make matrix`)")


def _keep_files_in_memory() -> None:
    """A database of its own for each test is 300 files: made and dropped they take 0.3 s on a disk, 0.05 s here."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    runs_programs = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    if runs_programs and shutil.disk_usage(MEMORY).free >= ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)  # of our processes, too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what runs on every major, by the fixture that it uses."""
    for item in items:
        if isinstance(item, pytest.Function) and "any_db" in item.fixturenames:
            item.add_marker(pytest.mark.majors)


def pytest_collection_finish() -> None:
    gc.freeze()  # some thousand tests stay to the end: no collection need look at them
    gc.set_threshold(20_000, 10, 10)  # as in a command's process


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.fixture
async def server18(fleet: Fleet) -> EmbeddedServer:
    return await fleet.server(18)


@pytest.fixture
async def server15(fleet: Fleet) -> EmbeddedServer:
    return await fleet.server(15)


@pytest.fixture
async def db18(fleet: Fleet) -> AsyncIterator[Database]:
    async with new_database(await fleet.server(18)) as database:
        yield database


@pytest.fixture
async def db15(fleet: Fleet) -> AsyncIterator[Database]:
    async with new_database(await fleet.server(15)) as database:
        yield database


@pytest.fixture(params=[15, 18])
async def db(fleet: Fleet, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with new_database(await fleet.server(request.param)) as database:
        yield database


@pytest.fixture(params=MAJORS)
async def any_db(fleet: Fleet, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with new_database(await fleet.server(request.param)) as database:
        yield database


@pytest.fixture
async def own_server(fleet: Fleet) -> AsyncIterator[OwnServers]:
    servers = OwnServers(fleet)
    yield servers
    await servers.close()


@pytest.fixture
async def proxy_to() -> AsyncIterator[FaultProxy.Factory]:
    factory = FaultProxy.Factory()
    yield factory
    await factory.close()
