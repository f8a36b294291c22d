"""What a way back will leave, told before it is gone; and whether it did. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

UNREAD = "the schema cannot be read now"
_NAMED = 5
"""How many keys a sentence names before it counts the rest."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """How a window's database stands after a way back: as foreseen, or as found."""

    heads: tuple[str, ...]
    """Of the version table, sorted; empty: base."""
    equal: bool
    """The schema is the one of the opening, and so are the heads."""
    left: tuple[str, ...] = ()
    """What of ours differs from the opening, by key, sorted: there, gone or changed."""
    not_ours: tuple[str, ...] = ()
    """What else differs, by key, sorted: nobody's but its maker's, and left alone."""
    stops: str = ""
    """Where the way back stops before its end, and why; empty: it is gone to its end."""
    unsure: tuple[str, ...] = ()
    """What could not be foreseen, each with its reason; the rest holds all the same."""

    def body(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Prediction:
        """The prediction in a body of the journal. Raises KeyError or TypeError where it is none."""
        lists = {name: tuple(body[name]) for name in ("heads", "left", "not_ours", "unsure")}
        return cls(**{**body, **lists})

    def missed(self, found: Prediction) -> tuple[str, ...]:
        """Where this was wrong, sentence by sentence; empty where *found* is what was foreseen."""
        wrong: list[str] = []
        if self.heads != found.heads:
            wrong.append(f"foreseen at {_at(self.heads)}, found at {_at(found.heads)}")
        if not self.stops and found.stops:
            wrong.append(f"foreseen to go to its end, {found.stops}")
        seen = (
            ()
            if self.blind
            else (
                ("left of ours", self.left, found.left),
                ("not ours", self.not_ours, found.not_ours),
            )
        )
        for name, foreseen, there in seen:
            if more := sorted(set(there) - set(foreseen)):
                wrong.append(f"not foreseen, {name}: {_listed(more)}")
            if less := sorted(set(foreseen) - set(there)):
                wrong.append(f"foreseen but not found, {name}: {_listed(less)}")
        if self.equal != found.equal and not wrong:
            wrong.append(f"foreseen {'equal to' if self.equal else 'different from'} the opening, and it is not so")
        return tuple(wrong)

    def holds(self, later: Prediction) -> bool:
        """Whether what was foreseen is foreseen still; where the schema could not be read, only how far it goes."""
        if (self.heads, self.stops) != (later.heads, later.stops):
            return False
        return self.blind or later.blind or (self.left, self.not_ours) == (later.left, later.not_ours)

    @property
    def blind(self) -> bool:
        """The schema could not be read when this was said."""
        return UNREAD in self.unsure

    @property
    def sentences(self) -> tuple[str, ...]:
        """For a person, before they confirm."""
        told = [
            f"afterwards: at {_at(self.heads)}, the schema {'equals' if self.equal else 'differs from'} the opening's"
        ]
        if self.stops:
            told.append(f"it stops: {self.stops}")
        if self.left:
            told.append(f"left of ours: {_listed(self.left)}")
        if self.not_ours:
            told.append(f"not ours, stays as it is: {_listed(self.not_ours)}")
        told.extend(f"cannot be foreseen: {why}" for why in self.unsure)
        return tuple(told)


def _at(heads: tuple[str, ...]) -> str:
    return ", ".join(heads) or "base"


def _listed(keys: list[str] | tuple[str, ...]) -> str:
    more = len(keys) - _NAMED
    return ", ".join(keys[:_NAMED]) + (f" and {more} more" if more > 0 else "")
