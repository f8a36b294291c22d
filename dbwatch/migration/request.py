"""What the parent asks of the child process: which project, which way, how far, under which limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dbwatch.journal.fence import Fence
from dbwatch.migration.events import Direction

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


@dataclass(frozen=True, slots=True)
class RenderedStatement:
    """One statement of a preview."""

    sql: str
    """As Alembic rendered it, line breaks kept, each line sanitized."""
    known: bool
    """False where the grammar cannot read it: unknown, never clean."""


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
