"""The rows that a backfill set aside, since they could not take their value: each with the server's reason. Pure."""

from __future__ import annotations

from rich.cells import cell_len

from dbwatch.tui.columns import Column, Line
from dbwatch.tui.panes.base import Record, Sheet
from dbwatch.window.feed import Aside, AsideRow

KEY_CELLS = 20, 36
"""How wide a key may be shown: a uuid whole, with room for the reason beside it where the screen is narrow."""


def columns(found: Aside | None) -> tuple[Column, ...]:
    """The columns, the keys' as wide as these want it."""
    least, most = KEY_CELLS
    longest = max((cell_len(row.shown) for row in found.rows), default=0) if found is not None else 0
    return (
        Column("key", min(most, max(least, longest)), priority=3),
        Column("state", 5, priority=2),
        Column("why it could not take its value", None, priority=9, least=30),
    )


def aside_sheet(found: Aside | None, trouble: str) -> Sheet:
    """The table of rows; while there is none, in words why."""
    if found is None:
        return Sheet(columns(found), (), trouble or "asking …")
    lines = tuple(Line(row.key, (row.shown, row.sqlstate, row.message)) for row in found.rows)
    none = "no row of it is set aside" if found.backfill is not None else "it never began in this window"
    return Sheet(columns(found), lines, none, heading(found))


def heading(found: Aside) -> str:
    """How many there are, and of them how many are listed."""
    if not found.total:
        return "no rows set aside"
    told = f"{found.total:,} set aside ({found.tally})"
    return told if len(found.rows) == found.total else f"{told}, the first {len(found.rows):,} listed"


def row_lines(row: AsideRow, found: Aside) -> list[str]:
    """All about one of them."""
    return [
        f"backfill   {found.backfill} ({found.step})",
        f"key        {row.shown}",
        f"SQLSTATE   {row.sqlstate}",
        f"why        {row.message}",
        "",
        "Mend the row, then r tries it again: filled by the backfill's own SET and WHERE, it is counted and taken out.",
    ]


def records(found: Aside | None) -> list[Record]:
    """The rows as they are exported."""
    rows = found.rows if found is not None else ()
    return [{"key": row.shown, "sqlstate": row.sqlstate, "message": row.message} for row in rows]
