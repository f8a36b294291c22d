"""What a runbook may say: one spec per kind of step. Values, checked as they are made.

The loader (`runbook/loader.py`) turns every violation into a file, a line and a mend. `examples` of a field that
must be there is what that mend shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dbwatch.runbook.values import (
    MOST_WORKERS,
    Assignments,
    BatchTime,
    Condition,
    Conninfo,
    Duration,
    Exact,
    Expected,
    Line,
    OptionalLine,
    OptionalTransactional,
    Prose,
    Revision,
    Signals,
    Timeout,
    Transactional,
    Word,
    filled,
    refuse,
)
from dbwatch.runbook.whole import breaches


class Spec(BaseModel):
    """What all tables of a runbook share: unknown keys and values of the wrong type are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Target(Spec):
    """The database that the window is about."""

    dsn: Conninfo = Field(default="", repr=False)
    """Anything libpq takes; empty means the PG* variables. ${VAR} is taken from the environment."""
    monitor_dsn: Exact | None = Field(default=None, repr=False)
    """A role of its own for polling, with pg_monitor."""
    migrate_dsn: Exact | None = Field(default=None, repr=False)
    """A role of its own for DDL, used by Alembic."""
    lock_timeout: Timeout = 2.0
    """How long a statement of ours may wait for a lock, others behind it; CONCURRENTLY and batches have their own."""
    statement_timeout: Timeout = 60.0
    """How long a statement of ours may take, unless it commits by itself or takes something back."""

    @model_validator(mode="after")
    def _lock_timeout_can_fire(self) -> Target:
        if self.lock_timeout >= self.statement_timeout:
            raise refuse(
                f"a lock_timeout of {self.lock_timeout:g} s never fires before"
                f" a statement_timeout of {self.statement_timeout:g} s",
                "make lock_timeout the shorter one: a migrate step is repeated only after a lock_timeout",
                at="lock_timeout" if "lock_timeout" in self.model_fields_set else "statement_timeout",
            )
        return self


class Contact(Spec):
    """Whom to call."""

    role: Line = Field(examples=["DBA on call"])
    """What they are called for."""
    name: Line = Field(examples=["Lin Wei"])
    """Who they are."""
    phone: OptionalLine = ""
    """How they are reached."""


class _Step(Spec):
    id: Word = Field(examples=["fill"])
    """Its short name, once in a runbook; the journal knows the step by it."""
    planned: Duration | None = None
    """How long the step is expected to take; shown against what it took."""
    rollback: OptionalLine = ""
    """What a person does to undo this step; signed off during an abort."""
    confirm: Literal["navigator"] | None = None
    """`navigator`: the driver proposes the step, and it begins once a second person has typed the database's name."""
    certificate: Word | None = Field(default=None, examples=["fill"])
    """The id of an earlier backfill: the step begins only with its certificate, that it left no row undone."""
    tolerates: int = Field(default=0, ge=0, le=1_000_000)
    """With `certificate`: how many rows that backfill may have left in quarantine."""

    @model_validator(mode="after")
    def _tolerates_what_a_certificate_leaves(self) -> _Step:
        if "tolerates" in self.model_fields_set and self.certificate is None:
            raise refuse(
                '"tolerates" says nothing without "certificate"', 'write certificate = "fill" too', at="tolerates"
            )
        return self


class Manual(_Step):
    """A person does it and signs it off with a note."""

    kind: Literal["manual"]
    text: Prose = Field(examples=["deploy v0.8.0"])
    """What the person is to do."""


class Check(_Step):
    """A query with an expectation: one value. The step fails where it does not hold."""

    kind: Literal["check"]
    sql: Transactional = Field(examples=["SELECT count(*) FROM users WHERE phone IS NULL"])
    """A query; the first column of its first row counts. Read only."""
    expect: Expected = Field(examples=[0])
    """The value it has to give: a number, text, true or false."""


class Migrate(_Step):
    """Alembic to a revision, in a child process."""

    kind: Literal["migrate"]
    to: Revision = Field(examples=["head"])
    """A revision, `head`, or `heads`."""
    retries: int = Field(default=5, ge=0, le=100)
    """Further attempts after a lock_timeout that left nothing behind."""
    patient: Duration | None = None
    """How long it may wait until nobody is in its way, and knock for 200 ms at a time, in place of `retries`."""


class Backfill(_Step):
    """Rows changed in batches."""

    kind: Literal["backfill"]
    table: Exact = Field(examples=["users"])
    """The table, with its schema where the search path does not find it."""
    set: Assignments = Field(examples=["phone = legacy_phone_field"])
    """What follows SET in the UPDATE."""
    where: Condition = Field(examples=["phone IS NULL"])
    """What follows WHERE: the rows still to do."""
    key: Exact | None = None
    """The unique key whose columns name a row; found from the catalogue where it is not said."""
    mode: Literal["pending", "once"] = "pending"
    """`pending`: a changed row no longer meets `where`. `once`: it still does; each row is changed exactly once."""
    batch_time: BatchTime = 0.1
    """How long a batch should take; a third of it among others, a quarter while those hardly ever idle."""
    rows_per_second: int | None = Field(default=None, ge=1, examples=[5000])
    """It fills no more than so many; otherwise it goes as fast as the server's health allows."""
    workers: int | None = Field(default=None, ge=1, le=MOST_WORKERS, examples=[1])
    """Connections that fill side by side, in mode `pending`; left out: one, and two while nobody else works."""
    undo: bool = Field(default=False, examples=[True])
    """Keep what is overwritten, so that an abort brings it back; a column that the window makes needs none of that."""
    quarantine: int = Field(default=100, ge=0, le=1_000_000)
    """How many rows that cannot take their value may be set aside; one more ends the step."""
    same: Condition | None = Field(default=None, examples=["phone IS NOT DISTINCT FROM legacy_phone_field"])
    """While both are written: what has to hold for each row that `where` does not take any more, now and in the end."""
    without: Signals = Field(default=(), strict=False, examples=[["lag"]])
    """Health signals that it does not look at, such as `"lag"`; `dbwatch backfill --help` lists them."""

    @model_validator(mode="after")
    def _some_need_pending(self) -> Backfill:
        if self.same is not None and self.mode == "once":
            raise refuse(
                'in mode "once" nothing in a row tells whether it was filled, and "same" has to hold for those',
                'leave it out, or choose mode = "pending"',
                at="same",
            )
        if (self.workers or 1) > 1 and self.mode == "once":
            raise refuse(
                'in mode "once" only one cursor keeps a row from being set twice, so that one worker has to do',
                'leave "workers" out, or choose mode = "pending"',
                at="workers",
            )
        return self


class Sql(_Step):
    """One statement in one transaction together with the journal's entry."""

    kind: Literal["sql"]
    sql: Transactional = Field(examples=["ALTER TABLE users VALIDATE CONSTRAINT phone_given"])
    """The statement; one that cannot run in a transaction (CREATE INDEX CONCURRENTLY) runs by itself."""
    undo: OptionalTransactional = ""
    """SQL that takes it back, run by an abort in the same manner."""
    patient: Duration | None = None
    """How long it may wait until nobody is in its way, and knock for 200 ms at a time."""


Step = Annotated[Manual | Check | Migrate | Backfill | Sql, Field(discriminator="kind")]
KINDS: tuple[str, ...] = ("manual", "check", "migrate", "backfill", "sql")
SPECS: Mapping[str, type[Spec]] = dict(zip(KINDS, (Manual, Check, Migrate, Backfill, Sql), strict=True))
"""The spec of each kind."""


class Phase(Spec):
    """A part of the window with its steps, in order."""

    name: Line = Field(examples=["expand"])
    """What the phase is called, once in a runbook."""
    step: Annotated[tuple[Step, ...], AfterValidator(filled)] = Field(strict=False)


class Runbook(Spec):
    """A window's plan."""

    title: Line = Field(examples=["users.phone replaces legacy_phone_field"])
    """What the window is for."""
    alembic: Exact | None = None
    """Alembic's configuration file, relative to the runbook's folder."""
    budget: Duration | None = None
    """How long the window may take."""
    rollback_budget: Duration | None = None
    """How long the way back may take."""
    target: Target = Target()
    contact: tuple[Contact, ...] = Field(default=(), strict=False)
    phase: Annotated[tuple[Phase, ...], AfterValidator(filled)] = Field(strict=False)

    @model_validator(mode="after")
    def _whole(self) -> Runbook:
        for breach in breaches(self.model_dump(include={"alembic", "phase"})):
            raise refuse(breach.what, breach.mend)
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


def table_of(path: tuple[str | int, ...], kind: str = "") -> type[Spec]:
    """The spec of the table at *path* in a runbook's data; *kind* where it is a step. Raises KeyError."""
    tables: Mapping[tuple[str, ...], type[Spec]] = {
        (): Runbook,
        ("target",): Target,
        ("contact",): Contact,
        ("phase",): Phase,
        ("phase", "step"): SPECS.get(kind, _Step),
    }
    return tables[tuple(part for part in path if isinstance(part, str))]
