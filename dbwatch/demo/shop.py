"""The shop's rows: the same on every machine, made from mimesis' names and a fixed seed, loaded by COPY.

The names are drawn once into pools and composed from there, so that half a million users take seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import islice
from typing import Any

import psycopg
from mimesis import Generic, Locale
from psycopg import sql

from dbwatch.postgres.embedded import Progress

SEED = 20_260_101
USERS = 500_000
PRODUCTS = 500
ORDERS = 120_000
NULL = "\\N"
"""As COPY writes it."""
WITHOUT_PHONE = 50
"""Each user whose id is a multiple of this never gave a phone number: 2 %."""

_OPENED = date(2019, 3, 1)
_DAYS = 2_500
_BLOCK = 5_000
"""Rows made at a time: some 10 ms, so that the event loop is not held up."""


def phone_of(user_id: int) -> str | None:
    """The phone number that the shop was loaded with for this user; None for two in a hundred."""
    if user_id % WITHOUT_PHONE == 0:
        return None
    scattered = user_id * 7_368_787 % 9_999_991
    return f"+1 {212 + scattered % 700} {scattered // 10_000:03}-{scattered % 10_000:04}"


async def fill(connection: psycopg.AsyncConnection[Any], progress: Progress) -> None:
    """Loads the shop's tables, which are there and empty. Raises psycopg.Error.

    One transaction, frozen rows: nothing for autovacuum to do the moment the curtain goes up. Foreign keys are
    not checked row by row, the rows being ours; that needs a superuser.
    """
    tables = (
        ("products", "name, price_cents, stock", PRODUCTS, _products()),
        ("users", "email, name, city, created_at, last_seen_at, legacy_phone_field", USERS, _users()),
        ("orders", "user_id, product_id, quantity, total_cents, created_at", ORDERS, _orders()),
    )
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("TRUNCATE users, products, orders RESTART IDENTITY")
        for table, columns, rows, lines in tables:
            await _copy(connection, table, columns, _told(lines, table, rows, progress))


async def analyze(connection: psycopg.AsyncConnection[Any]) -> None:
    """Has the planner know the shop. Raises psycopg.Error."""
    await connection.execute("ANALYZE users, products, orders")
    await connection.execute("CHECKPOINT")


def _told(lines: Iterator[str], table: str, rows: int, progress: Progress) -> Iterator[str]:
    """*lines*, with *progress* told now and then how far it is."""
    for number, line in enumerate(lines):
        if number % 50_000 == 0:
            progress(f"loading {table}: {number:,} of {rows:,}")
        yield line


async def _copy(connection: psycopg.AsyncConnection[Any], table: str, columns: str, lines: Iterator[str]) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FREEZE)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns.split(", ")))
    )
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        while block := "".join(islice(lines, _BLOCK)):
            await copy.write(block)


def _products() -> Iterator[str]:
    mimesis, chance = Generic(Locale.EN, seed=SEED), random.Random(SEED)
    kinds = (mimesis.food.fruit, mimesis.food.vegetable, mimesis.food.spices, mimesis.food.drink)
    goods = sorted({draw() for draw in kinds for _ in range(400)})
    names = [f"{good}, {grams} g" for good in goods for grams in (100, 250, 500, 1000)]
    for name in chance.sample(names, PRODUCTS):
        yield f"{name}\t{chance.randrange(99, 4999)}\t{chance.randrange(10_000, 1_000_000)}\n"


def _users() -> Iterator[str]:
    mimesis, chance = Generic(Locale.EN, seed=SEED), random.Random(SEED + 1)
    first = [mimesis.person.first_name() for _ in range(2_000)]
    last = [mimesis.person.last_name() for _ in range(1_000)]
    cities = [mimesis.address.city() for _ in range(500)]
    domains = [f"{city.lower().replace(' ', '-')}.example" for city in cities]
    joined = _instants(chance, USERS)
    for user_id in range(1, USERS + 1):
        given, family = first[int(chance.random() * 2_000)], last[int(chance.random() * 1_000)]
        email = f"{given}.{family}{user_id}@{domains[user_id % 500]}".lower()
        city = cities[int(chance.random() * 500)]
        since = next(joined)
        yield f"{email}\t{given} {family}\t{city}\t{since}\t{since}\t{phone_of(user_id) or NULL}\n"


def _orders() -> Iterator[str]:
    chance = random.Random(SEED + 2)
    placed = _instants(chance, ORDERS)
    for at in placed:
        user_id, product_id = 1 + int(chance.random() * USERS), 1 + int(chance.random() * PRODUCTS)
        quantity = 1 + int(chance.random() * 9)
        yield f"{user_id}\t{product_id}\t{quantity}\t{quantity * (99 + product_id * 7)}\t{at}\n"


def _instants(chance: random.Random, number: int) -> Iterator[str]:
    """So many instants spread over the shop's years, day after day, as COPY reads them."""
    days = [f"{_OPENED + timedelta(days=day):%Y-%m-%d}" for day in range(_DAYS)]
    times = [f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}+00" for second in range(0, 86_400, 7)]
    for n in range(number):
        yield f"{days[n * _DAYS // number]} {times[int(chance.random() * len(times))]}"
