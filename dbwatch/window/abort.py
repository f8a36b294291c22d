"""The way back: an ordered list of actions, computed from the state, shown, and then carried out as it was shown.

Pure here; `window/rollback.py` carries the plan out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class ActionKind(StrEnum):
    """What an action of the way back does."""

    FENCE = "fence"
    """Epoch + 1: nothing of the old epoch can commit any more."""
    STOP = "stop"
    """Cancel our running work."""
    PERSON = "person"
    """A person undoes a manual step and signs it off."""
    SQL = "sql"
    """The `undo` of a sql step."""
    CLEAN = "clean"
    """Drop what our own DDL left behind and no transaction took back."""
    DOWNGRADE = "downgrade"
    """Alembic, down to the heads before the step."""
    COMPARE = "compare"
    """Is the schema the one at the opening?"""


@dataclass(frozen=True, slots=True)
class Action:
    """One action. All that carrying it out needs is in it."""

    kind: ActionKind
    title: str
    """One line for a person: `downgrade 3f1c → 9a20`."""
    step: str = ""
    """The step that it takes back; empty for the others."""
    sql: tuple[str, ...] = ()
    """The statements as far as they are known beforehand."""
    heads: tuple[str, ...] = ()
    """DOWNGRADE: where to."""
    estimate_s: float | None = None
    """None: nobody can tell (a person's step)."""
    notes: tuple[str, ...] = ()
    """What it would wait for now, the locks it takes, what could not be rendered."""

    def body(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return {**asdict(self), "kind": str(self.kind)}

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Action:
        """The action in a body of the journal."""
        lists = {name: tuple(body[name]) for name in ("sql", "heads", "notes")}
        return cls(**{**body, **lists, "kind": ActionKind(body["kind"])})


@dataclass(frozen=True, slots=True)
class AbortPlan:
    """The way back from one state of the window."""

    database: str
    target: str
    """`shop@prod-db1 (primary, 16.4)`."""
    seq: int
    """The journal's last event that the plan knows."""
    actions: tuple[Action, ...]
    lost: tuple[str, ...] = ()
    """What the way back destroys, in plain words."""
    obstacles: tuple[str, ...] = ()
    """Why the way back cannot be gone to its end; empty: it can."""
    budget_s: float | None = None
    blockers: tuple[int, ...] = field(default=())
    """Pids that it would wait for now."""

    @property
    def estimate_s(self) -> float:
        """Seconds for all actions that a machine does."""
        return sum(action.estimate_s or 0.0 for action in self.actions)

    def covers(self, later: AbortPlan) -> bool:
        """Whether carrying this plan out does all that *later*, computed after it, asks for, in its order.

        So a plan stays good where a step has ended meanwhile: each action looks first what is left of it.
        """
        mine = iter([_act(action) for action in self.actions])
        return all(_act(action) in mine for action in later.actions)

    @property
    def digest(self) -> str:
        """Names exactly these actions, their order and their SQL: what was shown is what is confirmed.

        Estimates and whom an action would wait for are left out: they change by the second.
        """
        text = json.dumps([[*_act(action), action.title, action.sql] for action in self.actions])
        return hashlib.sha256(text.encode()).hexdigest()


def _act(action: Action) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
    """What carrying *action* out does, without how it is told.

    A clean-up removes what our own journalled DDL left, whatever that is by then: its SQL is a forecast.
    """
    sql = () if action.kind is ActionKind.CLEAN else action.sql
    return (str(action.kind), action.step, sql, action.heads)
