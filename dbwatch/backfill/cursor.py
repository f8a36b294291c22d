"""How far a walk is: on which leg, the last key done and, in the middle of a window, which of its passes. Pure.

A leg is a table, or one partition of it, walked by keys or by the pages of its heap, where a page stands for a key
(`pages.py`). A window is a range of keys that is passed over several times, each pass taking its share of them
(`passes.py`); a plain walk has windows of one pass. The journal keeps the whole of it as one text, so that one
comparison tells whether the cursor is where we left it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from dbwatch.backfill.keys import Key, to_text


@dataclass(frozen=True, slots=True)
class Window:
    """The keys above the cursor's `lo` up to *hi*, taken in *of* passes."""

    hi: Key
    keys: int
    """As many keys it holds, or fewer where the table ends in it."""
    of: int = 1
    number: int = 0
    """Of the pass under way; those below it are done."""
    at: Key | None = None
    """The last key that this pass has done; None: none yet."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a walk stands."""

    lo: Key | None = None
    """The last key done, and all below it; None: none yet."""
    window: Window | None = None
    """None: between two windows."""
    leg: str = ""
    """The name of the leg; empty: the first or the only one, by keys."""

    @classmethod
    def from_text(cls, text: str | None) -> Cursor:
        """What `to_text` wrote; None: the beginning."""
        if text is None:
            return cls()
        body = json.loads(text)
        if isinstance(body, list):
            return cls(_key(body))
        lo, leg = _key(body.pop("lo")), body.pop("leg", "")
        if not body:
            return cls(lo, leg=leg)
        return cls(lo, Window(**{**body, "hi": _key(body["hi"]), "at": _key(body["at"])}), leg)

    def to_text(self) -> str | None:
        """As the journal keeps it: canonical JSON, the key alone between two windows of the only leg by keys."""
        leg = {"leg": self.leg} if self.leg else {}
        window = self.window
        if window is not None:
            where = {"keys": window.keys, "of": window.of, "number": window.number, "at": window.at}
            return _json({**leg, "lo": self.lo, "hi": window.hi, **where})
        if leg:
            return _json({**leg, "lo": self.lo})
        return None if self.lo is None else to_text(self.lo)

    @property
    def after(self) -> Key | None:
        """The key above which the next batch begins."""
        return self.lo if self.window is None or self.window.at is None else self.window.at

    def opened(self, window: Window) -> Cursor:
        """At the beginning of *window*."""
        return replace(self, window=window)

    def passed(self, edge: Key) -> Cursor:
        """After a batch of the pass under way up to *edge*."""
        window = self.window
        assert window is not None
        if edge != window.hi:
            return replace(self, window=replace(window, at=edge))
        if window.number + 1 < window.of:
            return replace(self, window=replace(window, number=window.number + 1, at=None))
        return Cursor(window.hi, leg=self.leg)


def _json(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _key(values: Any) -> Any:
    """A key as JSON holds it; null: none."""
    return None if values is None else tuple(map(str, values))
