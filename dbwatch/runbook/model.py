"""What a runbook may say: one spec per kind of step. Values, checked as they are made.

The loader (`runbook/loader.py`) turns every violation into a file, a line and a mend.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from dbwatch.text import seconds


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return seconds(value)
    raise ValueError("a duration is text with a unit: write \"500ms\", \"2s\", \"60min\", \"24h\" or \"14d\"")


Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0)]
"""Seconds; written with a unit."""

Text = Annotated[str, Field(min_length=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Target(_Spec):
    """The database that the window is about."""

    dsn: str = ""
    """Anything libpq takes; empty means the PG* variables. ${VAR} is taken from the environment."""
    monitor_dsn: str | None = None
    """A role of its own for polling, with pg_monitor."""
    migrate_dsn: str | None = None
    """A role of its own for DDL, used by Alembic."""
    lock_timeout: Duration = 2.0
    statement_timeout: Duration = 60.0


class Contact(_Spec):
    """Whom to call."""

    role: Text
    name: Text
    phone: str = ""


class _Step(_Spec):
    id: Text
    planned: Duration | None = None
    """How long the step is expected to take; shown against what it took."""
    rollback: str = ""
    """What a person does to undo this step; signed off during an abort."""

    @field_validator("id")
    @classmethod
    def _word(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", value):
            raise ValueError("an id is 1 to 40 letters, digits, dots, dashes or underscores")
        return value


class Manual(_Step):
    """A person does it and signs it off with a note."""

    kind: Literal["manual"]
    text: Text


class Check(_Step):
    """A query with an expectation: one value. The step fails where it does not hold."""

    kind: Literal["check"]
    sql: Text
    expect: int | float | str | bool


class Migrate(_Step):
    """Alembic to a revision, in a child process."""

    kind: Literal["migrate"]
    to: Text
    """A revision, `head`, or `heads`."""
    retries: int = Field(default=5, ge=0, le=100)
    """Further attempts after a lock_timeout that left nothing behind."""


class Backfill(_Step):
    """Rows changed in batches."""

    kind: Literal["backfill"]
    table: Text
    set: Text
    where: Text
    key: str | None = None
    mode: Literal["pending", "once"] = "pending"
    batch_time: Duration = 0.1


class Sql(_Step):
    """One statement in one transaction together with the journal's entry."""

    kind: Literal["sql"]
    sql: Text
    undo: str = ""
    """SQL that takes it back, run by an abort in the same manner."""


Step = Annotated[Manual | Check | Migrate | Backfill | Sql, Field(discriminator="kind")]
KINDS: tuple[str, ...] = ("manual", "check", "migrate", "backfill", "sql")


class Phase(_Spec):
    """A part of the window with its steps, in order."""

    name: Text
    step: tuple[Step, ...] = Field(min_length=1, strict=False)


class Runbook(_Spec):
    """A window's plan."""

    title: Text
    alembic: str | None = None
    """Alembic's configuration file, relative to the runbook's folder."""
    budget: Duration | None = None
    rollback_budget: Duration | None = None
    target: Target = Target()
    contact: tuple[Contact, ...] = Field(default=(), strict=False)
    phase: tuple[Phase, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _whole(self) -> Runbook:
        seen: set[str] = set()
        for step in self.steps():
            if step.id in seen:
                raise ValueError(f"the id {step.id!r} stands twice; give each step its own")
            seen.add(step.id)
            if isinstance(step, Migrate) and self.alembic is None:
                raise ValueError('a migrate step needs alembic = "alembic.ini" at the top of the runbook')
        return self

    def steps(self) -> Iterator[Manual | Check | Migrate | Backfill | Sql]:
        """All steps in the order in which they are carried out."""
        for phase in self.phase:
            yield from phase.step

    def step(self, step_id: str) -> Manual | Check | Migrate | Backfill | Sql:
        """The step with this id. Raises KeyError."""
        for step in self.steps():
            if step.id == step_id:
                return step
        raise KeyError(step_id)
