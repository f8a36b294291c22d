"""What the parent asks of the child process: which project, which way, how far, under which limits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dbwatch.journal.fence import Fence
from dbwatch.migration.events import Direction

ONE_MORE = b"."
"""What the nursery is sent for each child, with its descriptors (nursery.py)."""

Target = str | frozenset[str]
"""What Alembic takes (`head`, `heads`, `+1`, `base`, part of an id), or an exact set of heads (empty: base)."""


@dataclass(frozen=True, slots=True)
class Project:
    """Somebody's Alembic project."""

    config: Path
    """alembic.ini, or a pyproject.toml with [tool.alembic]; the child works in its folder."""
    section: str = "alembic"
    """As `alembic --name`."""
    x: tuple[str, ...] = ()
    """As `alembic -x`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One migration to run: what is shown to a person, and then done."""

    project: Project
    direction: Direction
    to: Target
    fence: Fence
    lock_timeout_ms: int = 2_000
    statement_timeout_ms: int = 60_000
    """0 is none; both are off while a CONCURRENTLY statement runs."""
    attempts: int = 5
    """How often in all, where a lock is in the way and nothing was left behind."""
    resume: bool = False
    """What an earlier attempt has done already is not done again: a statement that makes what is there by that name,
    or drops what is gone, is not sent. So a migration that commits half-way can be tried again, as a way back has to
    be; whether it got where it should is for the caller's comparison to say."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The one line that the child is sent: all that it knows. It carries a password, so it goes through a pipe."""

    what: Literal["inspect", "preview", "run"]
    config: str
    section: str
    x: tuple[str, ...]
    dsn: str
    system_identifier: str
    database_oid: int
    started_at: str
    """When the server started, in UTC with microseconds: this tells a restored copy from the original."""
    application_name: str
    direction: Direction
    to: str | tuple[str, ...]
    start: tuple[str, ...] = ()
    """The heads from which a preview starts."""
    lock_timeout_ms: int = 2_000
    statement_timeout_ms: int = 60_000
    window: str = ""
    """Empty: there is no epoch to check."""
    epoch: int = 0
    resume: bool = False
    kept_within_s: float = 0.0
    """How long a transaction waits until all that it did is kept; 0: nobody keeps it."""

    @property
    def read_only(self) -> bool:
        """Nothing may be committed: env.py is only asked."""
        return self.what != "run"

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Ask:
        """The value that `to_json` made."""
        body = json.loads(text)
        to = body["to"] if isinstance(body["to"], str) else tuple(body["to"])
        lists = {"x": tuple(body["x"]), "to": to, "start": tuple(body["start"])}
        return cls(**{**body, **lists, "direction": Direction(body["direction"])})


@dataclass(frozen=True, slots=True)
class RenderedStatement:
    """One statement of a preview."""

    sql: str
    """As Alembic rendered it, line breaks kept, each line sanitized."""
    known: bool
    """False where the grammar cannot read it: unknown, never clean."""
    alone: bool = False
    """It stands in an autocommit block, outside of the revision's transaction: what precedes it is committed then."""


@dataclass(frozen=True, slots=True)
class RevisionSql:
    """The SQL of one revision, rendered without a database."""

    revision: str
    direction: Direction
    statements: tuple[RenderedStatement, ...]
    trouble: str
    """Why (the rest of) this revision could not be rendered; empty where all of it could."""

    @property
    def known(self) -> bool:
        """Whether every statement is there and can be read."""
        return not self.trouble and all(statement.known for statement in self.statements)
