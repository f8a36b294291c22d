"""A chart of bars, one a value, with the line that they should not cross. Pure."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
TARGET = "╌"
BEYOND = "▲"
"""On top of a bar that does not end where the chart does."""
HIGHEST = 4.0
"""Times the target: one batch that took for ever must not make all others look alike."""


def spark(values: Sequence[float], cells: int, top: float) -> str:
    """The last values, one per cell, as blocks from 0 to *top*; what is above *top* is cut off there."""
    last = values[-cells:] if cells > 0 else ()
    step = len(BLOCKS) / max(top, 1e-9)
    return "".join(BLOCKS[max(0, min(len(BLOCKS) - 1, int(value * step)))] for value in last)


def bars(values: Sequence[float], target: float, width: int, height: int) -> list[tuple[float | None, str]]:
    """The last values as *height* lines of at most *width* cells, the highest first, with a line at *target*.

    Each line comes with the value that it stands for, where that is one to name: the top's, and the target's.
    """
    last = values[-width:] if width > 0 else ()
    top = max(1.5 * target, min(HIGHEST * target, max(last, default=0.0)), 1e-9)
    at_target = min(height - 1, int(target / top * height))
    lines: list[tuple[float | None, str]] = []
    for row in range(height - 1, -1, -1):
        highest, empty = row == height - 1, TARGET if row == at_target else " "
        cells = "".join(_cell(value / top * height - row, empty, cut=highest and value > top) for value in last)
        named = target if row == at_target else top if highest else None
        lines.append((named, cells + empty * (width - len(last))))
    return lines


def _cell(filled: float, empty: str, *, cut: bool) -> str:
    """One cell of a bar that fills it so far; 1 and more fill it whole."""
    if cut:
        return BEYOND
    eighths = round(8 * filled)
    return empty if eighths <= 0 else BLOCKS[min(8, eighths) - 1]
