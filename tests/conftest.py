"""Fixtures: see servers.py for what each gives."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from proxy import FaultProxy
from servers import MAJORS, Database, Fleet, OwnServers, new_database

from dbwatch.postgres.embedded import EmbeddedServer


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started us in the background
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # some hundred processes would compile dbwatch anew, each
    config.addinivalue_line("markers", "majors: runs on every major from 13 to 18 (`make matrix`)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what runs on every major, by the fixture that it uses."""
    for item in items:
        if isinstance(item, pytest.Function) and "any_db" in item.fixturenames:
            item.add_marker(pytest.mark.majors)


def pytest_collection_finish() -> None:
    gc.freeze()  # some thousand tests stay to the end: no collection need look at them


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
