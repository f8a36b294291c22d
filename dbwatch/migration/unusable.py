"""An index that is there and INVALID: no query uses it, and a unique one promises nothing."""

from __future__ import annotations

from collections.abc import Sequence

from dbwatch.errors import DbwatchError


class Unusable(DbwatchError):
    """Indexes that a statement was to make were there before it, INVALID; CREATE INDEX IF NOT EXISTS leaves them so."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"INVALID, and left as it was: {', '.join(f'index {name}' for name in names)}",
            why="a build that was broken off left it, or somebody builds it just now",
            next="drop it or wait, then run the step again",
        )
