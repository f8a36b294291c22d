"""What a refresh of the live table costs: `python tests/bench_livetable.py`. Not a test: figures depend on the machine.

10 columns at 120x40 in a real pty; each second 30 % of the rows change one cell and 1 % are replaced. The lines are
made beforehand: CPU is that of this process for the difference and for the paint, up to the last byte written.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time

from terminal import terminal
from textual.app import App, ComposeResult

from dbwatch.tui.columns import Column, Line
from dbwatch.tui.livetable import LiveTable

COLUMNS = (*(Column(f"c{n}", 9) for n in range(9)), Column("what", None, priority=9))
REFRESHES = 20
SETTLE_S = 0.15


def first(rows: int) -> list[Line]:
    """The table to begin with."""
    return [Line(n, (*(f"{n}.{c}" for c in range(9)), f"statement {n} " * 5)) for n in range(rows)]


def changed(lines: list[Line], rng: random.Random, turn: int) -> list[Line]:
    """*lines* a second later."""
    after = list(lines)
    for index in rng.sample(range(len(lines)), len(lines) * 3 // 10):
        cells = list(lines[index].cells)
        cells[rng.randrange(1, 9)] = f"{turn}.{index}"
        after[index] = Line(lines[index].key, tuple(cells))
    for index in rng.sample(range(len(lines)), max(1, len(lines) // 100)):
        after[index] = Line((turn, index), tuple(f"new {turn}" for _ in COLUMNS))
    return after


class Bench(App[str]):
    """Refreshes the table some times and ends with the medians."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.written = 0

    def compose(self) -> ComposeResult:
        yield LiveTable(COLUMNS)

    def on_mount(self) -> None:
        self.run_worker(self.refreshes())

    async def refreshes(self) -> None:
        driver = self._driver
        assert driver is not None
        write = driver.write

        def counted(data: str) -> None:
            self.written += len(data.encode())
            write(data)

        driver.write = counted  # type: ignore[method-assign]  # the only place where all bytes pass
        rng, lines = random.Random(7), first(self.rows)
        table = self.query_one(LiveTable)
        table.show(lines)
        await asyncio.sleep(0.5)
        costs: list[tuple[float, float, int]] = []
        for turn in range(REFRESHES):
            lines = changed(lines, rng, turn)
            self.written, began = 0, time.process_time()
            table.show(lines)
            shown = time.process_time()
            await asyncio.sleep(SETTLE_S)
            costs.append((shown - began, time.process_time() - began, self.written))
        show, paint, size = (statistics.median(column) for column in zip(*costs, strict=True))
        self.exit(f"show {show * 1000:.2f} ms, with painting {paint * 1000:.2f} ms, {size:,.0f} bytes")


async def main() -> None:
    """Runs the bench in a pty for three sizes."""
    for rows in (100, 1_000, 5_000):
        async with terminal([sys.executable, __file__, str(rows)], columns=120, rows=40) as shown:
            await shown.ended(60)
            figures = next(line for line in shown.stream.splitlines() if "with painting" in line)
            sys.stdout.write(f"{rows:>6,} rows: {figures[figures.index('show ') :]}\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(f"{Bench(int(sys.argv[1])).run()}\n")
    else:
        asyncio.run(main())
