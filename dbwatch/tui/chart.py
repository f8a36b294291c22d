"""Charts: a small adapter on plotext 6, which knows one global figure and is costly to import.

So charts are built one after another, in the app's thread, and plotext is loaded with the first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from dbwatch.text import age, count
from dbwatch.tui.columns import clip

SMALLEST = (24, 5)
"""Cells by lines; below that a chart is only its last value."""
DOT = "hd"
"""Quadrants of a cell. Braille is finer, but many a terminal's font lacks it."""
HEADROOM = 1.2
"""The axis ends so far above the highest value: the names of the marks stand there."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time. Points are (seconds before now, as a negative number or 0; value), oldest first.

    A value of None is a gap: nothing was measured there, and no line is drawn across it.
    """

    name: str
    points: tuple[tuple[float, float | None], ...]

    @property
    def last(self) -> float | None:
        """The newest value; None where there is none or the newest point is a gap."""
        return self.points[-1][1] if self.points else None


@dataclass(frozen=True, slots=True)
class Mark:
    """An instant worth a line across the chart: *at_s* seconds before now, negative."""

    at_s: float
    label: str
    glyph: str = "▼"


def chart(
    series: Series,
    width: int,
    height: int,
    marks: Sequence[Mark] = (),
    *,
    span_s: float = 300.0,
    shown: Callable[[float | None], str] = count,
) -> Text:
    """*series* over the last *span_s* seconds, exactly *height* lines of *width* cells, the name in the first line.

    *shown* writes a value. Without a value, or without the room, the lines say so in words.
    """
    lines = [_heading(series, shown)]
    runs = _runs(series.points, span_s)
    if not runs:
        lines.append("  nothing measured yet")
    elif width >= SMALLEST[0] and height > SMALLEST[1]:
        lines += _plot(runs, width, height - 1, _within(marks, span_s), span_s, shown)
    lines += [""] * (height - len(lines))
    return Text("\n".join(clip(line, width) for line in lines[:height]), no_wrap=True, end="")


def _heading(series: Series, shown: Callable[[float | None], str]) -> str:
    values = [value for _, value in series.points if value is not None]
    if not values:
        return series.name
    now = "no value now" if series.last is None else shown(series.last)
    return f"{series.name} {now}   least {shown(min(values))}   most {shown(max(values))}"


def _runs(points: Sequence[tuple[float, float | None]], span_s: float) -> list[tuple[list[float], list[float]]]:
    """The points of the last *span_s* seconds as unbroken runs of x and y."""
    runs: list[tuple[list[float], list[float]]] = []
    broken = True
    for x, y in points:
        if y is None or not math.isfinite(y):
            broken = True
        elif -span_s <= x <= 0:
            if broken:
                runs.append(([], []))
            broken = False
            runs[-1][0].append(float(x))
            runs[-1][1].append(float(y))
    return runs


def _within(marks: Sequence[Mark], span_s: float) -> list[Mark]:
    return [mark for mark in marks if -span_s <= mark.at_s <= 0]


def _plot(
    runs: Sequence[tuple[list[float], list[float]]],
    width: int,
    height: int,
    marks: Sequence[Mark],
    span_s: float,
    shown: Callable[[float | None], str],
) -> list[str]:
    """The plot without its heading. The figure is plotext's only one: it is cleared first."""
    import plotext

    plotext.terminal.limit(False, False)  # else charts end where the terminal did when plotext was loaded
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, height)
    figure.theme("colorless")
    figure.axes(False, axis="both", side=1)
    top = nice_top(max(max(ys) for _, ys in runs))
    for xs, ys in runs:
        figure.draw(figure.signal(xs, ys, marker=DOT).lines())
    labels = _labels(marks, width, span_s)
    for mark, (begins, label) in zip(marks, labels, strict=True):
        figure.line(float(mark.at_s), "vertical", style="dotted")
        figure.draw(figure.text(float(begins), top, label))
    across, up = figure.ruler("x"), figure.ruler("y")
    across.lim(-span_s, 0.0)
    parts = 5 if width >= 60 else 1
    ticks = [-span_s * part / parts for part in range(parts, 0, -1)]
    across.ticks([*ticks, 0.0], [*(f"-{age(-tick)}" for tick in ticks), "now"])
    up.lim(0.0, top)
    up.ticks([0.0, top / 2], [shown(0.0).rjust(6), shown(top / 2).rjust(6)])
    plain: list[str] = Text.from_ansi(str(figure.build())).plain.split("\n")
    return plain[:height]


def _labels(marks: Sequence[Mark], width: int, span_s: float) -> list[tuple[float, str]]:
    """Where each mark's name begins, and the name: right of its line, else left of it, else the glyph alone.

    None runs into its neighbour or over an edge. *marks* stand in the order of their time.
    """
    cell_s = span_s / max(1, width - 8)
    free, placed = -span_s, list[tuple[float, str]]()
    for mark, end in zip(marks, [*(mark.at_s for mark in marks), 0.0][1:], strict=True):
        needed = (len(mark.label) + 1) * cell_s
        if mark.at_s + needed <= end:
            placed.append((mark.at_s, f"{mark.glyph}{mark.label}"))
            free = mark.at_s + needed
        elif mark.at_s - needed >= free:
            placed.append((mark.at_s - len(mark.label) * cell_s, f"{mark.label}{mark.glyph}"))
            free = mark.at_s + cell_s
        else:
            placed.append((mark.at_s, mark.glyph))
            free = mark.at_s + cell_s
    return placed


def nice_top(highest: float) -> float:
    """Where an axis that shows *highest* ends: a round number of which the half is round too, with headroom."""
    wanted = max(highest * HEADROOM, 1.0)
    power = 10.0 ** math.floor(math.log10(wanted))
    return next((step * power for step in (1, 2, 3, 4, 5, 6, 8) if step * power >= wanted), 10 * power)
