"""The engine without one of its protections, by name: what the oracle has to catch.

Each version takes `patch`: `setattr` in a process of its own, `monkeypatch.setattr` in a test. They hang on the SQL
files, whose text each of them finds or fails, and on names that other modules use.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import psycopg

from dbwatch import backfill
from dbwatch.backfill import batch, claim
from dbwatch.backfill.hold import Hold
from dbwatch.backfill.keys import UniqueIndex
from dbwatch.backfill.part import Timeouts
from dbwatch.backfill.row import Position
from dbwatch.backfill.statements import Statements

Patch = Callable[[Any, str, object], None]
"""`setattr`, or something that takes it back."""
Text = Callable[[str], str]

BATCHES = ("backfill-batch", "backfill-batch-undo")
CHECKED = "AND {stands}"
EPOCH = " AND b.epoch = %(epoch)s"
FILLED = (
    "WITH /* dbwatch */ filled AS (\n{update}\nRETURNING 1\n),\n"
    "counted AS (SELECT count(*) AS filled FROM filled),\nmoved AS ("
)
COUNTED = "(SELECT filled FROM counted)"
MOVED = "FROM moved;"
SET_ASIDE = "VALUES (%(id)s, %(key)s, %(sqlstate)s, %(message)s)"
APART = "COMMIT;\nBEGIN;\nSET LOCAL lock_timeout = '30s';\n"


def _rewritten(patch: Patch, files: tuple[str, ...], change: Text) -> None:
    """Whatever of the engine reads one of *files* gets it with *change* made to it."""
    for found in pkgutil.iter_modules(backfill.__path__, "dbwatch.backfill."):
        module = import_module(found.name)
        real = getattr(module, "query", None)
        if callable(real):
            patch(module, "query", _changing(real, files, change))


def _changing(real: Callable[[str, int], bytes], files: tuple[str, ...], change: Text) -> Callable[[str, int], bytes]:
    def changed(name: str, version: int) -> bytes:
        text = real(name, version)
        return change(text.decode()).encode() if name in files else text

    return changed


def _swapped(*pairs: tuple[str, str]) -> Text:
    """Replaces the first of each pair, which has to be there, by the second."""

    def change(text: str) -> str:
        for old, new in pairs:
            assert old in text, f"the SQL of a batch has no {old!r} any more: mend tests/faults/broken.py"
            text = text.replace(old, new)
        return text

    return change


def _rows_first(patch: Patch) -> None:
    """The rows commit, and then the cursor."""
    counted = "CREATE TEMP TABLE IF NOT EXISTS filled (n int, at timestamptz DEFAULT clock_timestamp());\n"
    filled = f"{counted}WITH f AS ({{update}}\nRETURNING 1) INSERT INTO filled SELECT count(*) FROM f;\n"  # noqa: S608  # ours
    rows = "(SELECT n FROM filled ORDER BY at DESC LIMIT 1)"
    apart = _swapped((FILLED, f"{filled}{APART}WITH moved AS ("), (COUNTED, rows))
    _rewritten(patch, ("backfill-batch",), apart)


def _cursor_first(patch: Patch) -> None:
    """The cursor commits, and then the rows."""
    apart = _swapped((FILLED, "WITH moved AS ("), (COUNTED, "%(scanned)s"), (MOVED, f"{MOVED}\n{APART}{{update}};"))
    _rewritten(patch, ("backfill-batch",), apart)


def _unchecked(patch: Patch) -> None:
    """The cursor moves from wherever it stands."""
    _rewritten(patch, BATCHES, _swapped((CHECKED, "")))


def _unfenced(patch: Patch) -> None:
    """A batch does not look at the epoch."""
    _rewritten(patch, BATCHES, _swapped((EPOCH, "")))


def _unclaimed(patch: Patch) -> None:
    """Whoever comes takes it, whether or not its owner is alive."""

    async def nobody(*_: object) -> None:
        return None

    patch(claim, "occupied", nobody)


def _all_alike(patch: Patch) -> None:
    """All three: two owners at once, neither of whom knows of the other."""
    _unclaimed(patch)
    _unfenced(patch)
    _unchecked(patch)


def _remembering(patch: Patch) -> None:
    """How far it is, it remembers itself; after an answer that was lost it does not read it from the database."""

    async def adopt(self: Hold, session: batch.BatchSession) -> None:
        del self, session

    patch(Hold, "_adopt", adopt)
    _unchecked(patch)


def _passing_over(patch: Patch) -> None:
    """A batch that the server refused is passed over: what was locked, dead-locked, cancelled, poisoned."""
    fill = batch.BatchSession.fill

    async def pass_over(self: batch.BatchSession, at: Any, part: Any, timeouts: Any) -> Any:
        try:
            return await fill(self, at, part, timeouts)
        except psycopg.Error:
            await self.rollback()
        nothing = replace(part.statements, where="false", assignments="v = v")
        return await fill(self, at, replace(part, statements=nothing), timeouts)

    patch(batch.BatchSession, "fill", pass_over)


def _forgetting(patch: Patch) -> None:
    """The cursor passes a poison row that nobody lists."""
    nothing = "SELECT %(id)s, %(key)s, %(sqlstate)s, %(message)s WHERE false"
    _rewritten(patch, ("backfill-quarantine",), _swapped((SET_ASIDE, nothing)))


def _any_key(patch: Patch) -> None:
    """Every unique index is good enough to walk by; NULL is nobody's highest key."""
    last = Statements.last
    patch(UniqueIndex, "obstacle", lambda *_, **__: "")
    patch(Statements, "last", lambda self, **bounds: last(self, **bounds).replace(" DESC", " DESC NULLS LAST"))


def _offset(patch: Patch) -> None:
    """A batch begins so many rows from the top of the table, instead of above the last key. For keys called id."""
    fill = batch.BatchSession.fill

    async def by_number(self: batch.BatchSession, at: Any, part: Any, timeouts: Any) -> Any:
        found = await self.session.values("SELECT id::text FROM t ORDER BY t.id OFFSET %s LIMIT 1", [at.scanned - 1])
        return await fill(self, at, replace(part, lo=found[0]), timeouts)

    async def first(self: batch.BatchSession, at: Any, part: Any, timeouts: Any) -> Any:
        return await (by_number if at.scanned else fill)(self, at, part, timeouts)

    patch(batch.BatchSession, "fill", first)


def _no_ceiling(patch: Patch) -> None:
    """It goes on for as long as there are rows. For keys called id."""
    patch(Position, "top", lambda *_: ("9000000000",))


def _highest_text(patch: Patch) -> None:
    """The highest key is the one whose text is highest: 998, not 6000."""
    last = Statements.last

    def by_text(self: Statements, **bounds: Any) -> str:
        text, found = re.subn(r"ORDER BY .* DESC", "ORDER BY 1 DESC", last(self, **bounds))
        assert found
        return text

    patch(Statements, "last", by_text)


def _no_lock_timeout(patch: Patch) -> None:
    """It waits for a lock as long as it takes, with all that it has locked already."""
    usual = Timeouts.of
    patch(Timeouts, "of", staticmethod(lambda *a, **k: replace(usual(*a, **k), lock_ms=60_000)))


def _locking(patch: Patch) -> None:
    """It locks the table against itself, and so against VACUUM, ANALYZE and CREATE INDEX CONCURRENTLY."""
    begin = "{beforehand}WITH"
    lock = f"LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE;\n{begin}"
    _rewritten(patch, BATCHES, _swapped((begin, lock)))


VERSIONS: Mapping[str, Callable[[Patch], None]] = {
    "rows first": _rows_first,
    "cursor first": _cursor_first,
    "unchecked": _unchecked,
    "unfenced": _unfenced,
    "unclaimed": _unclaimed,
    "all alike": _all_alike,
    "remembering": _remembering,
    "passing over": _passing_over,
    "forgetting": _forgetting,
    "any key": _any_key,
    "offset": _offset,
    "no ceiling": _no_ceiling,
    "highest text": _highest_text,
    "no lock_timeout": _no_lock_timeout,
    "locking": _locking,
}


def become(version: str, patch: Patch = setattr) -> None:
    """Makes the engine of this process that *version*; empty leaves it as it is."""
    if version:
        VERSIONS[version](patch)
