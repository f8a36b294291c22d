"""The rivals, each a process of its own as the tool is: `python -m bench_backfill.rivals pgroll DSN --batch 1000`.

Written anew from what is published of each; every one sends what it sends in one message and commits with it, and
none sleeps. What would make them slower is left out: retries, states of jobs, triggers, markers in the table.

- whole: one UPDATE of the whole table.
- published: the loop of countless articles, which looks for the next rows from the start of the table again.
- pgroll: from xataio/pgroll, pkg/backfill: lock the next rows of the key in a CTE, join them in an UPDATE, and go on
  from the highest key returned.
- gitlab: from gitlabhq/gitlabhq, app/models/concerns/each_batch.rb: look for the first key of the next batch, then
  update what lies between.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg import sql

Connection = psycopg.Connection[tuple[Any, ...]]

_PUBLISHED = """
UPDATE users SET phone = legacy_phone
WHERE id IN (SELECT id FROM users WHERE phone IS NULL LIMIT %(batch)s)
"""
_PGROLL = """
WITH next_rows AS (
    SELECT id FROM users
    WHERE phone IS NULL{after}
    ORDER BY id
    LIMIT %(batch)s
    FOR NO KEY UPDATE
), changed AS (
    UPDATE users SET phone = legacy_phone
    FROM next_rows
    WHERE users.id = next_rows.id
    RETURNING users.id
)
SELECT max(id)::text, count(*) FROM changed
"""
# Qualified, for a bare id in ORDER BY would be the column of the result: a text.
_EDGE_FIRST = "SELECT id::text FROM users ORDER BY users.id LIMIT 1"
_EDGE = "SELECT id::text FROM users WHERE id >= %(start)s ORDER BY users.id OFFSET %(batch)s LIMIT 1"
_BETWEEN = "UPDATE users SET phone = legacy_phone WHERE id >= %(start)s AND id < %(stop)s AND phone IS NULL"
_FROM = "UPDATE users SET phone = legacy_phone WHERE id >= %(start)s AND phone IS NULL"


def whole(connection: Connection, batch: int) -> Iterator[int]:
    """One UPDATE; *batch* means nothing here."""
    yield connection.execute("UPDATE users SET phone = legacy_phone WHERE phone IS NULL").rowcount


def published(connection: Connection, batch: int) -> Iterator[int]:
    """From the start of the table, again and again."""
    while rows := connection.execute(_PUBLISHED, {"batch": batch}).rowcount:
        yield rows


def pgroll(connection: Connection, batch: int) -> Iterator[int]:
    """Locked, joined, and on from the highest key."""
    after, bound = None, sql.SQL("")
    while True:
        text = sql.SQL(_PGROLL).format(after=bound)
        [(after, rows)] = connection.execute(text, {"after": after, "batch": batch}).fetchall()
        if not rows:
            return
        bound = sql.SQL(" AND id > %(after)s")
        yield rows


def gitlab(connection: Connection, batch: int) -> Iterator[int]:
    """Edge by edge."""
    found = connection.execute(_EDGE_FIRST).fetchone()
    while found:
        start = found[0]
        found = connection.execute(_EDGE, {"start": start, "batch": batch}).fetchone()
        if found:
            yield connection.execute(_BETWEEN, {"start": start, "stop": found[0]}).rowcount
        else:
            yield connection.execute(_FROM, {"start": start}).rowcount


LOOPS: dict[str, Callable[[Connection, int], Iterator[int]]] = {
    "whole": whole,
    "published": published,
    "pgroll": pgroll,
    "gitlab": gitlab,
}


def main() -> None:
    """Fills the table, and prints how many rows in how many batches."""
    parser = argparse.ArgumentParser(description="a rival of dbwatch backfill")
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("dsn")
    parser.add_argument("--batch", type=int, default=1000)
    asked = parser.parse_args()
    with psycopg.connect(asked.dsn, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        rows = list(LOOPS[asked.loop](connection, asked.batch))
    print(json.dumps({"rows": sum(rows), "batches": len(rows)}))


if __name__ == "__main__":
    main()
