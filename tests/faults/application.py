"""The application that works on the table all the while: it updates, deletes, inserts, changes keys, and locks rows
downwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import psycopg

from faults.scene import Scene

USERS = 3
PAUSE_S = 0.003
SETTINGS = "-c lock_timeout=3000 -c statement_timeout=5000"


class Application:
    """Its sessions, which come back whenever the server does."""

    def __init__(self, scene: Scene, dsn: Callable[[], str], seed: str) -> None:
        self.done: Counter[str] = Counter()
        """What it did, by kind; `error` where the server refused."""
        self._scene = scene
        self._dsn = dsn
        self._going = True
        self._users = [asyncio.create_task(self._user(Random(f"{seed}/{n}"))) for n in range(USERS)]

    async def close(self) -> None:
        """Ends its sessions."""
        self._going = False
        await asyncio.wait(self._users, timeout=20)
        for user in self._users:
            user.cancel()

    async def _user(self, dice: Random) -> None:
        while self._going:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._dsn(), autocommit=True, application_name="app", connect_timeout=5, options=SETTINGS
                ) as connection:
                    while self._going:
                        await self._act(connection, dice)
                        await asyncio.sleep(PAUSE_S)
            except psycopg.Error:
                self.done["away"] += 1
                await asyncio.sleep(0.1)

    async def _act(self, connection: psycopg.AsyncConnection[Any], dice: Random) -> None:
        scene = self._scene
        kind = dice.choices(("update", "downwards", "insert", "delete", "move", "keyless"), (8, 4, 3, 1, 1, 1))[0]
        high, low = scene.pair(dice)
        pad = "UPDATE t SET pad = right(pad, 40) || 'y' WHERE "
        statements = {
            "update": [pad + scene.row(dice)],
            "downwards": ["BEGIN", pad + high, pad + low, "COMMIT"],
            "insert": [scene.insert()],
            "delete": [scene.delete(dice)],
            "move": [scene.move(dice)],
            "keyless": [f"UPDATE keyless SET pad = right(pad, 90) || 'yyy' WHERE id = {dice.randint(0, 99)}"],  # noqa: S608  # ours
        }[kind]
        try:
            for statement in statements:
                await connection.execute(statement.encode())
        except psycopg.Error:
            if connection.closed:
                raise
            self.done["refused"] += 1
            await connection.execute("ROLLBACK")
        self.done[kind] += 1
