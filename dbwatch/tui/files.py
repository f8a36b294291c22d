"""What a person takes away from the screen: rows as CSV and JSON, pictures as SVG."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from dbwatch.tui.panes.base import Record

FORMULA = ("=", "+", "-", "@")


def write(path: Path, text: str) -> list[Path]:
    """Writes *text*; the folder is made if need be. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return [path.resolve()]


def as_csv(records: Sequence[Record]) -> str:
    """The rows with a line of names. What a spreadsheet would take for a formula gets a quote before it."""
    names = list(dict.fromkeys(name for record in records for name in record))
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(names)
    for record in records:
        table.writerow([_harmless(record.get(name)) for name in names])
    return out.getvalue()


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def export(folder: Path, name: str, records: Sequence[Record]) -> list[Path]:
    """Writes *records* as `name.csv` and `name.json` into *folder*. Raises OSError."""
    rows = json.dumps([dict(record) for record in records], ensure_ascii=False, indent=1)
    return [*write(folder / f"{name}.csv", as_csv(records)), *write(folder / f"{name}.json", rows + "\n")]
