"""The shop's application at work: about 250 transactions a second, and now and then a report that takes its time.

Run as `python -P -m dbwatch.demo.load`; the first line of standard input is the connection string, and the end of
that input, for whatever reason, is the end of the load. It knows nothing of dbwatch, and behaves as a decent
application does: it reconnects for ever, it writes both phone columns where both are there, it looks a phone
number up in the new column first once that has its index, and a column that comes or goes while it runs does not
trouble it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.types.numeric import Int8

from dbwatch.demo.shop import ORDERS, PRODUCTS, SEED, USERS, phone_of

APPS = 8
RATE = 32.0
"""Transactions a second and session: with eight sessions about 250 in all."""
REPORT_EVERY_S = (14.0, 24.0)
REPORT_TAKES_S = (2.0, 5.0)

Connection = psycopg.AsyncConnection[Any]
Deed = Callable[[Connection, random.Random], Awaitable[None]]


async def see_user(connection: Connection, chance: random.Random) -> None:
    """A visitor's profile is shown."""
    await connection.execute("SELECT id, email, name, city FROM users WHERE id = %s", (_user(chance),))


async def see_orders(connection: Connection, chance: random.Random) -> None:
    """A customer looks at the latest orders."""
    await connection.execute(
        "SELECT o.id, p.name, o.quantity, o.total_cents FROM orders o JOIN products p ON p.id = o.product_id"
        " WHERE o.user_id = %s ORDER BY o.id DESC LIMIT 10",
        (_user(chance),),
    )


async def find_by_phone(connection: Connection, chance: random.Random) -> None:
    """Somebody calls: who is it? The new column is asked first where it has its index, the old one after it."""
    phone = phone_of(_user(chance))
    for column in await _phone_columns(connection):
        found = await connection.execute(
            sql.SQL("SELECT id, name FROM users WHERE {} = %s").format(sql.Identifier(column)), (phone,)
        )
        if found.rowcount:
            return


async def be_seen(connection: Connection, chance: random.Random) -> None:
    """A user was here."""
    await connection.execute("UPDATE users SET last_seen_at = now() WHERE id = %s", (_user(chance),))


async def buy(connection: Connection, chance: random.Random) -> None:
    """A user orders a product; the stock goes down."""
    product, quantity = Int8(1 + chance.randrange(PRODUCTS)), 1 + chance.randrange(3)
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO orders (user_id, product_id, quantity, total_cents)"
            " SELECT %s, id, %s, price_cents * %s FROM products WHERE id = %s",
            (_user(chance), quantity, quantity, product),
        )
        await connection.execute(
            "UPDATE products SET stock = CASE WHEN stock < %s THEN 1000000 ELSE stock - %s END WHERE id = %s",
            (quantity, quantity, product),
        )


async def join(connection: Connection, chance: random.Random) -> None:
    """A new user joins, with a phone number."""
    number = chance.randrange(10**12)
    phone = f"+1 {912 + number % 80} {number // 1000 % 1000:03}-{number // 10**6 % 10_000:04}"
    async with connection.transaction():
        columns = ("email", "name", "city", *await _phone_columns(connection, for_writing=True))
        await connection.execute(
            sql.SQL("INSERT INTO users ({}) VALUES ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.SQL(", ").join(sql.Placeholder() * len(columns)),
            ),
            (f"new{number}@shop.example", "New Friend", "Springfield", *[phone] * (len(columns) - 3)),
        )


async def change_phone(connection: Connection, chance: random.Random) -> None:
    """A user takes the number that another had: whatever columns hold it are written together."""
    phone = phone_of(_user(chance))
    async with connection.transaction():
        columns = await _phone_columns(connection, for_writing=True)
        if columns:
            changes = sql.SQL(", ").join(sql.SQL("{} = %(phone)s").format(sql.Identifier(c)) for c in columns)
            await connection.execute(
                sql.SQL("UPDATE users SET {} WHERE id = %(id)s").format(changes),
                {"phone": phone, "id": _user(chance)},
            )


DEEDS: tuple[tuple[Deed, float], ...] = (
    (see_user, 50),
    (see_orders, 20),
    (find_by_phone, 8),
    (be_seen, 12),
    (buy, 8),
    (join, 0.5),
    (change_phone, 1),
)
"""What an application's session does, and how often, in hundredths."""


async def _phone_columns(connection: Connection, *, for_writing: bool = False) -> list[str]:
    """Those of users' phone columns that are there, the new one first; to be read, only those that an index leads to.

    *for_writing* takes the table's lock before it looks: the columns then stay as they are until the end of the
    transaction, and no row is ever written with one of two columns.
    """
    if for_writing:
        await connection.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
    cursor = await connection.execute(
        "SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = to_regclass('users') AND NOT a.attisdropped"
        " AND a.attname IN ('phone', 'legacy_phone_field') AND (%s OR EXISTS (SELECT FROM pg_index AS i"
        " WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indisvalid)) ORDER BY a.attname DESC",
        (for_writing,),
    )
    return [name for (name,) in await cursor.fetchall()]


def _user(chance: random.Random) -> Int8:
    """Some user's id; always a bigint, so that pg_stat_statements sees one statement and not one per width."""
    return Int8(1 + chance.randrange(USERS))


async def work(dsn: str, name: str, chance: random.Random) -> None:
    """One of the application's sessions."""
    deeds, weights = zip(*DEEDS, strict=True)
    connection = await _connect(dsn, name)
    async with connection:
        while True:
            await asyncio.sleep(chance.expovariate(RATE))
            [deed] = chance.choices(deeds, weights)
            try:
                await deed(connection, chance)
            except psycopg.Error:
                if connection.closed:
                    raise


async def report(dsn: str, name: str, chance: random.Random) -> None:
    """The weekly figures: read in one snapshot, and then looked at for a while before the transaction ends."""
    connection = await _connect(dsn, name)
    await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    async with connection:
        while True:
            await _pause(connection, chance.uniform(*REPORT_EVERY_S))
            async with connection.transaction():
                await connection.execute(
                    "SELECT u.city, count(*), sum(o.total_cents) FROM orders o JOIN users u ON u.id = o.user_id"
                    " WHERE o.id > %s GROUP BY u.city ORDER BY 3 DESC LIMIT 20",
                    (ORDERS - 2_000,),
                )
                await _pause(connection, chance.uniform(*REPORT_TAKES_S))


async def _pause(connection: Connection, pause_s: float) -> None:
    """Lets the session be idle, and raises psycopg.OperationalError as soon as it is ended from the other side."""
    async for _ in connection.notifies(timeout=pause_s):
        pass


async def _connect(dsn: str, name: str) -> Connection:
    options: LiteralString = "-c statement_timeout=30s -c idle_in_transaction_session_timeout=60s"
    return await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, application_name=name, options=options, connect_timeout=10
    )


async def forever(session: Callable[[str, str, random.Random], Awaitable[None]], dsn: str, name: str) -> None:
    """Keeps *session* going through terminated backends, restarts and missing tables."""
    chance = random.Random(f"{SEED} {name}")
    while True:
        try:
            await session(dsn, name, chance)
        except (psycopg.Error, OSError) as error:
            print(f"{name}: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr, flush=True)
        await asyncio.sleep(chance.uniform(0.2, 1.0))


async def main(dsn: str) -> None:
    """Runs the load until standard input ends."""
    asyncio.get_running_loop().add_reader(0, _obey_the_pipe)
    apps = (forever(work, dsn, f"app-{number}") for number in range(1, APPS + 1))
    await asyncio.gather(*apps, forever(report, dsn, "reports"))


def _obey_the_pipe() -> None:
    """The other end is gone: so are we, at once; a polite goodbye to a stopped server would take ten seconds."""
    if not os.read(0, 4096):
        os._exit(0)


if __name__ == "__main__":
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        address = pipe.readline().decode().strip()
    asyncio.run(main(address))
