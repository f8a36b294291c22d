"""What does not hold of a backfill that says it is done, each breach a sentence.

The table is one of tests/ledger.py: a trigger counts, per key, how often a row was set. Mode is once.
"""

from __future__ import annotations

from typing import Any

from ledger import Ledger

_SETTINGS = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET extra_float_digits = 1"

_ROWS = """
SELECT e.key, coalesce(l.n, 0), t.v, q.key IS NOT NULL AS listed, {poison} AS poison
FROM eligible AS e
INNER JOIN t ON ROW({columns})::text = e.key
LEFT JOIN ledger AS l ON l.key = e.key
LEFT JOIN dbwatch.quarantine AS q ON q.key::jsonb = jsonb_build_array({texts})
WHERE
    CASE
        WHEN {poison} THEN coalesce(l.n, 0) <> 0 OR t.v <> 0 OR q.key IS NULL
        ELSE coalesce(l.n, 0) <> 1 OR t.v <> 1 OR q.key IS NOT NULL
    END
ORDER BY e.key
"""
"""Keys of the start that are still there and were not set exactly once; or, where they are poison, are not listed."""

_FACTS = """
SELECT
    (SELECT count(*) FROM ledger WHERE n > 1) AS twice,
    (SELECT coalesce(sum(n), 0) FROM ledger) AS counted,
    (SELECT count(*) FROM t WHERE v <> 0 AND ({columns}) > ({ceiling})) AS above,
    (SELECT count(*) FROM dbwatch.quarantine) AS held
"""
_CEILING = """
SELECT k.{column} FROM dbwatch.backfill AS b
CROSS JOIN LATERAL jsonb_populate_record(NULL::key, jsonb_build_object({named})) AS k
WHERE b.spec::json -> 'table' ->> 1 = 't' ORDER BY b.id DESC LIMIT 1
"""
_KEY = "CREATE TABLE key AS SELECT {bare} FROM t WITH NO DATA"
_JOURNAL = """
SELECT id, status, rows_done, batches, walked, coalesce(pending, -1), ended_at IS NOT NULL, images IS NOT NULL
FROM dbwatch.backfill WHERE spec::json -> 'table' ->> 1 = 't' ORDER BY id
"""
_KEPT = "SELECT count(*), count(*) FILTER (WHERE old_1 <> 0 OR new_1 <> 1) FROM dbwatch.before_{id}"
MOST_TOLD = 5


async def breaches(ledger: Ledger, poison: str = "false") -> list[str]:
    """All that does not hold; *poison* is SQL that tells of a row of t whether it refuses to be set."""
    columns = ", ".join(f"t.{column}" for column in _bare(ledger))
    texts = ", ".join(f"t.{column}::text" for column in _bare(ledger))
    wrong = await ledger.database.sql(_SETTINGS, _ROWS.format(columns=columns, texts=texts, poison=poison))
    found = [_told(*row) for row in wrong[:MOST_TOLD]]
    if len(wrong) > MOST_TOLD:
        found.append(f"and {len(wrong) - MOST_TOLD:,} rows more of {await _count(ledger, 'eligible')}")
    [(twice, counted, above, held)] = await ledger.database.sql(
        "DROP TABLE IF EXISTS key",
        _KEY.format(bare=", ".join(_bare(ledger))),
        _FACTS.format(columns=columns, ceiling=", ".join(f"({part})" for part in _ceiling(ledger))),
    )
    if twice:
        found.append(f"{twice:,} keys were set more than once, those included that came later")
    if above:
        found.append(f"{above:,} rows were set that came after the start, above the highest key of the start")
    journal = await ledger.database.sql(_JOURNAL)
    if len(journal) != 1:
        return [*found, f"the journal has {len(journal)} rows of one backfill"]
    return [*found, *await _of_journal(ledger, journal[0], counted, held)]


def _told(key: str, times: int, value: int, listed: bool, poison: bool) -> str:
    what = "poison, " if poison else ""
    return f"row {key}: {what}set {times} times, v = {value}{', in quarantine' if listed else ''}"


async def _of_journal(ledger: Ledger, row: tuple[Any, ...], counted: int, held: int) -> list[str]:
    """What the journal's row says wrongly, and what the table of before-images does."""
    id, status, rows, batches, walked, pending, ended, images = row
    wrong = {
        f"status is {status}": status != "done",
        f"{rows:,} rows are said to be done, {counted:,} were": rows != counted,
        f"{batches} batches did {rows:,} rows": rows > 0 and batches < 1,
        "it is not walked to its end": not walked,
        "it has no end": not ended,
        f"{pending} rows are said to be pending, {held} are in quarantine": pending != held,
    }
    found = [f"the journal: {what}" for what, holds in wrong.items() if holds]
    if images:
        [(kept, odd)] = await ledger.database.sql(_KEPT.format(id=id))
        if kept != counted or odd:
            found.append(f"{kept:,} before-images of {counted:,} rows that were set, {odd:,} of them wrong")
    return found


def _ceiling(ledger: Ledger) -> list[str]:
    """SQL of the highest key that the backfill was to do, as its row tells it, column by column."""
    named = ", ".join(f"'{column}', b.ceiling::jsonb -> '' ->> {n}" for n, column in enumerate(_bare(ledger)))
    return [_CEILING.format(column=column, named=named) for column in _bare(ledger)]


async def _count(ledger: Ledger, table: str) -> int:
    [(rows,)] = await ledger.database.sql(f"SELECT count(*) FROM {table}")  # noqa: S608  # one of our own two
    return int(rows)


def _bare(ledger: Ledger) -> list[str]:
    return [column.strip() for column in ledger.columns.split(",")]
