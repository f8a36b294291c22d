"""The fault proxy does what it says, so that the tests built on it mean something."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import pytest
from proxy import FaultProxy
from servers import Database


async def connect(proxy: FaultProxy) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(proxy.dsn, autocommit=True, connect_timeout=10)


async def test_a_conversation_passes(db18: Database, proxy_to: FaultProxy.Factory) -> None:
    proxy = await proxy_to(db18.dsn)
    async with await connect(proxy) as connection:
        text = "x" * 1_000_000
        [(back,)] = await (await connection.execute("SELECT %s || current_database()", (text,))).fetchall()
    assert back == text + db18.name
    assert proxy.accepted == 1


async def test_an_answer_can_be_late(db18: Database, proxy_to: FaultProxy.Factory) -> None:
    proxy = await proxy_to(db18.dsn)
    async with await connect(proxy) as connection:
        proxy.delay_s = 0.3
        asked = time.monotonic()
        await connection.execute("SELECT 1")
        assert time.monotonic() - asked >= 0.3
        proxy.delay_s = 0


async def test_a_stalled_network_says_nothing_until_it_resumes(db18: Database, proxy_to: FaultProxy.Factory) -> None:
    proxy = await proxy_to(db18.dsn)
    async with await connect(proxy) as connection:
        proxy.stall()
        answer = asyncio.create_task(connection.execute("SELECT 1"))
        newcomer = asyncio.create_task(connect(proxy))
        done, _ = await asyncio.wait({answer, newcomer}, timeout=0.3)
        assert not done
        proxy.resume()
        await asyncio.wait_for(answer, 10)
        await (await asyncio.wait_for(newcomer, 10)).close()


async def test_a_cut_ends_what_exists_and_lets_new_ones_through(db18: Database, proxy_to: FaultProxy.Factory) -> None:
    proxy = await proxy_to(db18.dsn)
    connection = await connect(proxy)
    proxy.cut()
    with pytest.raises(psycopg.OperationalError):
        await connection.execute("SELECT 1")
    async with await connect(proxy) as another:
        await another.execute("SELECT 1")


async def test_a_dropped_answer_leaves_a_commit_that_its_client_cannot_know_of(
    db18: Database, proxy_to: FaultProxy.Factory
) -> None:
    await db18.sql("CREATE TABLE t (x int)")
    proxy = await proxy_to(db18.dsn)
    connection = await connect(proxy)
    proxy.drop_next_answer()
    with pytest.raises(psycopg.OperationalError):
        await connection.execute("INSERT INTO t VALUES (1)")
    assert await db18.sql("SELECT x FROM t") == [(1,)]
