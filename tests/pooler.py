"""PgBouncer in transaction mode before a server: what a connection string leads through that somebody else wrote.

It comes from the system (`apt-get install pgbouncer`, as .ci/run does). Where it is missing the test is skipped, or
fails where CI=true.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from servers import eventually

from dbwatch.postgres.reaped import Reaped

_CONFIG = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
admin_users = {user}
pool_mode = transaction
default_pool_size = 4
server_round_robin = 1
"""
"""The next session of a client gets another backend: whoever relies on keeping one is found out."""


@dataclass(frozen=True, slots=True)
class Pooler:
    """One that runs."""

    dsn: str
    """What leads through it."""
    config: Path
    """Its settings, which name the server."""
    settings: dict[str, object]

    async def lead_to(self, dsn: str) -> None:
        """From now on to the server of *dsn*: whoever is connected gets a backend there for the next transaction."""
        behind = conninfo_to_dict(dsn)
        self.config.write_text(_CONFIG.format(**{**self.settings, "host": behind["host"], "port": behind["port"]}))
        console = make_conninfo(self.dsn, dbname="pgbouncer")
        async with await psycopg.AsyncConnection.connect(console, autocommit=True) as connection:
            await connection.execute("RELOAD")


@asynccontextmanager
async def pgbouncer(dsn: str, *users: str) -> AsyncIterator[str]:
    """A pooler before the server of *dsn* for as long as the block lasts; the connection string that leads through.

    It lets in the user of *dsn*, and *users*, without a password.
    """
    async with pooler(dsn, *users) as running:
        yield running.dsn


@asynccontextmanager
async def pooler(dsn: str, *users: str) -> AsyncIterator[Pooler]:
    """As `pgbouncer`, for whoever leads it elsewhere."""
    behind = conninfo_to_dict(dsn)
    reaped = await Reaped.open("nobody" if os.geteuid() == 0 else None)
    try:
        known = reaped.folder / "users.txt"
        known.write_text("".join(f'"{user}" ""\n' for user in (behind["user"], *users)))
        port = _free_port()
        config = reaped.folder / "pgbouncer.ini"
        where = {"host": behind["host"], "port": behind["port"], "own_port": port, "users": known}
        where["user"] = behind["user"]
        config.write_text(_CONFIG.format(**where))
        child = await reaped.spawn([_program(), str(config)], reaped.folder / "pgbouncer.log")
        through = make_conninfo(dsn, host="127.0.0.1", port=port)

        async def answers() -> bool:
            assert not child.ended.done(), (reaped.folder / "pgbouncer.log").read_text()
            try:
                connection = await psycopg.AsyncConnection.connect(through, connect_timeout=5)
            except psycopg.OperationalError:
                return False
            await connection.close()
            return True

        await eventually(answers)
        yield Pooler(through, config, where)
    finally:
        await reaped.close()


def _program() -> str:
    """Where PgBouncer is. Skips or fails the test where it is not."""
    found = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if found is None:
        why = "no pgbouncer on this machine: apt-get install pgbouncer"
        if os.environ.get("CI", "") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
