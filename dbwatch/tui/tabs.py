"""The line of panes: which there are, which is in front, and which of them has something to say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.content import Content

from dbwatch.tui.command import Command
from dbwatch.tui.say import WARN
from dbwatch.window.feed import Frame

EDGE = "$border"
SHORT = {
    "statements": "Stmts", "indexes": "Idx", "backfill": "Fill", "journal": "Log",
}  # fmt: skip

Piece = Content | str | tuple[str, str]


def marks(frame: Frame) -> dict[str, str]:
    """What a pane has to say while it is not in front: sessions that wait, invalid indexes, how far the backfill is."""
    told: dict[str, str] = {}
    vitals = frame.snapshot.vitals.rows
    if vitals and vitals[0].waiting:
        told["locks"] = f"▲{vitals[0].waiting}"
    if invalid := sum(not row.is_valid for row in frame.snapshot.indexes.rows):
        told["indexes"] = f"!{invalid}"
    backfill = frame.window.backfill if frame.window is not None else None
    if backfill is not None and not backfill.state.ended:
        told["backfill"] = f" {int(backfill.fraction * 100)}%"
    return told


def narrow_tabs(tabs: Sequence[Command], front: str, told: Mapping[str, str], width: int) -> Content:
    """`1Plan 2Activity[3Locks▲2]4Stmts`: the one in front in brackets."""
    pieces: list[Piece] = []
    used = 0
    for tab in tabs:
        name = SHORT.get(tab.name, tab.word) if width < 100 else tab.word
        mark = told.get(tab.name, "")
        chosen = tab.name == front
        cells = len(tab.key + name + mark) + 2
        if used + cells > width:
            break
        used += cells
        pieces += [
            "[" if chosen else " ",
            (f"{tab.key}{name}", "bold reverse" if chosen else ""),
            (mark, f"bold {WARN}"),
        ]
        pieces.append("]" if chosen else " ")
    return Content.assemble(*pieces)


def wide_tabs(tabs: Sequence[Command], shown: str, front: str, told: Mapping[str, str], width: int) -> Content:
    """The upper edge of the right pane: `┌ 2 Activity ─[3 Locks ▲2]─ 4 Statements ───┐`; names as long as all fit."""
    for name in (lambda t: f"{t.key} {t.word}", lambda t: f"{t.key} {SHORT.get(t.name, t.word)}", lambda t: t.key):
        names = [name(tab) for tab in tabs]
        ends = [f" {told[tab.name].strip()}" if tab.name in told else "" for tab in tabs]
        used = 1 + sum(len(n) + len(e) + 3 for n, e in zip(names, ends, strict=True))
        if used <= width:
            break
    pieces: list[Piece] = [("┌", EDGE)]
    for index, (tab, label, end) in enumerate(zip(tabs, names, ends, strict=True)):
        chosen = tab.name == shown
        style = "" if not chosen else "bold reverse" if front == tab.name else "bold underline"
        pieces += [("─" if index else "", EDGE), "[" if chosen else " ", (label, style), (end, f"bold {WARN}")]
        pieces.append("]" if chosen else " ")
    pieces.append(("─" * max(0, width - used) + "┐", EDGE))
    return Content.assemble(*pieces).truncate(width)


def plan_top(front: bool, width: int) -> Content:
    """The upper edge of the Plan."""
    name = "1 Plan"
    line = ("─" * max(0, width - len(name) - 4) + "┐", EDGE)
    return Content.assemble(
        ("┌", EDGE), "[" if front else " ", (name, "bold reverse" if front else "bold"), "]" if front else " ", line
    )
