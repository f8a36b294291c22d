"""The way back: an ordered list of actions, computed from the state, shown, and then carried out as it was shown.

Pure here; `window/rollback.py` carries the plan out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from dbwatch.text import age
from dbwatch.window.prediction import Prediction


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
    RESTORE = "restore"
    """Bring back what a backfill overwrote, from its before-images."""
    CLEAN = "clean"
    """Drop what our own DDL left behind and no transaction took back."""
    DOWNGRADE = "downgrade"
    """Alembic, down to the heads before the step."""
    COMPARE = "compare"
    """Is the schema the one at the opening?"""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that an action would wait for, with all that cancelling it needs."""

    pid: int
    backend_start: datetime | None
    query_start: datetime | None
    who: str
    """Its application, else its user."""
    state: str
    """As pg_stat_activity has it: `idle in transaction`."""
    age_s: float | None
    """Of its transaction."""
    query: str
    relation: str = ""
    """What it holds that the action needs; empty where it is an old transaction alone."""

    @property
    def words(self) -> str:
        """`47110 (reports, idle in transaction 31 s)`."""
        state = " ".join(part for part in (self.state, age(self.age_s)) if part)
        return f"{self.pid} ({self.who}{', ' + state if state else ''})"

    def body(self) -> dict[str, Any]:
        """As the journal keeps it."""
        starts = {"backend_start": self.backend_start, "query_start": self.query_start}
        return {**asdict(self), **{name: at.isoformat() if at else None for name, at in starts.items()}}

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Blocker:
        """The blocker in a body of the journal."""
        starts = {name: body[name] for name in ("backend_start", "query_start")}
        return cls(**{**body, **{name: datetime.fromisoformat(at) if at else None for name, at in starts.items()}})


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
    """For a person: what it would wait for now, what could not be rendered."""
    locks: tuple[str, ...] = ()
    """The locks that it takes, strongest first: `ACCESS EXCLUSIVE on users (reads and writes wait)`."""
    waits_for: tuple[Blocker, ...] = ()
    """Whom it would wait for if it began now, the oldest first."""
    forecast: bool = False
    """The SQL is what it would be now: the step still runs, and may have committed more when it is this one's turn."""

    def body(self) -> dict[str, Any]:
        """As the journal keeps it."""
        lists = {name: list(getattr(self, name)) for name in _LISTS}
        return {**asdict(self), **lists, "kind": str(self.kind), "waits_for": [b.body() for b in self.waits_for]}

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Action:
        """The action in a body of the journal."""
        lists = {name: tuple(body.get(name, ())) for name in _LISTS}
        blockers = tuple(Blocker.of(blocker) for blocker in body.get("waits_for", ()))
        return cls(**{**body, **lists, "kind": ActionKind(body["kind"]), "waits_for": blockers})


_LISTS = ("sql", "heads", "notes", "locks")


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
    blockers: tuple[int, ...] = ()
    """Pids that it would wait for now."""
    prediction: Prediction | None = None
    """How the database will stand afterwards; computed from the same values as the actions."""

    def body(self) -> dict[str, Any]:
        """As the journal keeps it, for those who cannot compute it themselves."""
        return {
            **{name: getattr(self, name) for name in ("database", "target", "seq", "budget_s")},
            "actions": [action.body() for action in self.actions],
            "lost": list(self.lost),
            "obstacles": list(self.obstacles),
            "blockers": list(self.blockers),
            "prediction": self.prediction.body() if self.prediction else None,
        }

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> AbortPlan:
        """The plan in a body of the journal. Raises KeyError, TypeError or ValueError where it is none."""
        lists = {name: tuple(body[name]) for name in ("lost", "obstacles", "blockers")}
        actions = tuple(Action.of(action) for action in body["actions"])
        foreseen = Prediction.of(body["prediction"]) if body["prediction"] else None
        return cls(**{**body, **lists, "actions": actions, "prediction": foreseen})

    @property
    def in_the_way(self) -> tuple[Blocker, ...]:
        """Whom its actions would wait for now, each once."""
        return tuple({b.pid: b for action in self.actions for b in action.waits_for}.values())

    @property
    def estimate_s(self) -> float:
        """Seconds for all actions that a machine does."""
        return sum(action.estimate_s or 0.0 for action in self.actions)

    def covers(self, later: AbortPlan) -> bool:
        """Whether carrying this plan out does all that *later*, computed after it, asks for, and ends as was foreseen.

        So a plan stays good where a step has ended meanwhile: each action looks first what is left of it.
        """
        mine = iter(self.actions)
        asked = all(any(_does(one, action) for one in mine) for action in later.actions)
        foreseen, now = self.prediction, later.prediction
        return asked and (foreseen is None or now is None or foreseen.holds(now))

    @property
    def digest(self) -> str:
        """Names exactly these actions, their order and their SQL, and what was foreseen: what was shown is confirmed.

        Estimates and whom an action would wait for are left out: they change by the second.
        """
        foreseen = self.prediction.body() if self.prediction else None
        text = json.dumps([[[*_act(action), action.title, action.sql] for action in self.actions], foreseen])
        return hashlib.sha256(text.encode()).hexdigest()


def _does(mine: Action, theirs: Action) -> bool:
    """Whether carrying *mine* out does what *theirs* asks for."""
    same = (mine.kind, mine.step, mine.heads) == (theirs.kind, theirs.step, theirs.heads)
    return same and (mine.forecast or _act(mine) == _act(theirs))


def _act(action: Action) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
    """What carrying *action* out does, without how it is told.

    A clean-up removes what our own journalled DDL left, whatever that is by then: its SQL is a forecast.
    """
    sql = () if action.forecast or action.kind in (ActionKind.CLEAN, ActionKind.COMPARE) else action.sql
    return (str(action.kind), action.step, sql, action.heads)
