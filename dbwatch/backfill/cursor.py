"""How far a walk is: the last key done and, in the middle of a window, which of its stripes. Pure.

A window is a range of keys that is passed over several times, each pass taking one stripe of its keys; a plain walk has
windows of one pass. The journal keeps the whole of it as one text, so that one comparison tells whether the cursor is
where we left it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from dbwatch.backfill.keys import Key, to_text


@dataclass(frozen=True, slots=True)
class Window:
    """The keys above the cursor's `lo` up to *hi*, taken in *of* passes."""

    hi: Key
    keys: int
    """As many keys it holds, or fewer where the table ends in it."""
    of: int = 1
    stripe: int = 0
    """The pass under way; those below it are done."""
    at: Key | None = None
    """The last key that this pass has done; None: none yet."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a walk stands."""

    lo: Key | None = None
    """The last key done, and all below it; None: none yet."""
    window: Window | None = None
    """None: between two windows."""

    @classmethod
    def from_text(cls, text: str | None) -> Cursor:
        """What `to_text` wrote; None: the beginning."""
        if text is None:
            return cls()
        body = json.loads(text)
        if isinstance(body, list):
            return cls(_key(body))
        window = {**body, "hi": _key(body["hi"]), "at": _key(body["at"])}
        return cls(_key(window.pop("lo")), Window(**window))

    def to_text(self) -> str | None:
        """As the journal keeps it: the key alone between two windows, canonical JSON."""
        if self.window is None:
            return None if self.lo is None else to_text(self.lo)
        return json.dumps({"lo": self.lo, **asdict(self.window)}, ensure_ascii=False, separators=(",", ":"))

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
        if window.stripe + 1 < window.of:
            return replace(self, window=replace(window, stripe=window.stripe + 1, at=None))
        return Cursor(window.hi)


def _key(values: Any) -> Any:
    """A key as JSON holds it; null: none."""
    return None if values is None else tuple(map(str, values))
