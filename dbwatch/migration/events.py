"""What a running migration reports, and how it ended. Values; the texts for a person are sanitized.

The child writes these as JSON lines and the parent reads them (`wire.py`); nothing here knows of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dbwatch.migration.ddl import JournalledDdl, Named
from dbwatch.migration.residue import Residue


class Direction(StrEnum):
    """Which of a revision's two functions runs."""

    UP = "upgrade"
    DOWN = "downgrade"


class Cause(StrEnum):
    """Why a migration did not get where it was to go."""

    CONFIG = "config"
    """No alembic.ini, an env.py or a revision that does not load, a revision that does not exist."""
    ELSEWHERE = "elsewhere"
    """env.py connected to another database than the one it was given; nothing ran."""
    DATABASE = "database"
    """The server refused a statement, or no connection was to be had; the SQLSTATE says why."""
    CODE = "code"
    """A revision's Python raised."""
    STOPPED = "stopped"
    """We were asked to stop."""
    FENCED = "fenced"
    """Somebody took the window over; the transaction that was open was rolled back."""
    SILENT = "silent"
    """The child did not answer within its deadline, and was killed."""
    UNKEPT = "unkept"
    """The journal did not take in time what the transaction had done; it was rolled back."""
    DIED = "died"
    """The child ended without saying how."""
    UNSEEN = "unseen"
    """The child said that it finished, and the version table does not confirm it, or could not be read."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The child resolved the target; nothing has run yet."""

    steps: tuple[str, ...]
    """Revisions in the order in which they will run."""
    heads: frozenset[str]
    """As the version table has them now."""
    version_table: str
    version_schema: str | None
    """Where the search_path of env.py finds that table; None where nothing could tell."""
    transaction_per_migration: bool


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection of env.py reached the right database and carries our settings."""

    pid: int
    backend_start: datetime


@dataclass(frozen=True, slots=True)
class StatementStarted:
    """A statement is sent to the server: at once, or where it commits by itself, when this is kept."""

    n: int
    """Counts from 1 in each attempt."""
    sql: str
    """One line, for the eye."""
    revision: str | None
    """None outside of any revision: Alembic's own bookkeeping, or env.py's."""
    autocommit: bool
    """It commits by itself: no rollback takes it back."""
    concurrently: bool
    """lock_timeout and statement_timeout are off while it runs."""
    objects: tuple[Named, ...]
    known: bool
    """False where the grammar could not tell what it touches."""
    receipt: int = 0
    """What the child commits nothing without: it is sent this number once the event is kept. 0: nobody waits."""
    lasting: bool = False
    """It commits by itself, or commits what precedes it, and no fingerprint shows what that changed."""


@dataclass(frozen=True, slots=True)
class StatementDone:
    """The server completed a statement; without `autocommit` it may still be rolled back."""

    n: int
    seconds: float
    objects: tuple[Named, ...]
    """Those it created, with their OIDs."""
    receipt: int = 0
    """As of `StatementStarted`."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A revision ran and the version table was written, in a transaction that is *not committed* yet."""

    revision: str
    up: bool
    heads: frozenset[str]
    """As they will be once it is."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A second connection read the version table: this revision is there to stay (or, downwards, gone)."""

    revision: str
    up: bool


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that env.py, Alembic or a revision printed or logged. Foreign text, sanitized."""

    text: str


@dataclass(frozen=True, slots=True)
class Retrying:
    """An attempt met a lock, left nothing behind, and will be made again."""

    sqlstate: str
    message: str
    attempt: int
    """The one to come: 2 is the first retry."""
    attempts: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class Stopping:
    """The ladder of a stop took its next step: `cancel`, `interrupt`, `terminate` or `kill`."""

    rung: str
    said: str
    """What came of it, for a person."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The child reached the target and committed."""

    heads: frozenset[str]


@dataclass(frozen=True, slots=True)
class Failed:
    """The child gave up; what was not committed before was rolled back."""

    cause: Cause
    message: str
    """One sentence."""
    sqlstate: str | None = None
    revision: str | None = None
    statement: str | None = None


Event = (
    Planned
    | Connected
    | StatementStarted
    | StatementDone
    | Applied
    | Committed
    | LogLine
    | Retrying
    | Stopping
    | Finished
    | Failed
)
"""What `run` hands to its callback, in the order in which it happened."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a migration ended. `failure` is None exactly if the target was reached and seen committed."""

    heads_before: frozenset[str] | None
    """As the child found them; None where it did not get that far."""
    heads_after: frozenset[str] | None
    """As a second connection read them at the end; None where nobody could."""
    committed: tuple[str, ...]
    """Revisions seen committed, in the order in which they ran, over all attempts."""
    failure: Failed | None
    ddl: tuple[JournalledDdl, ...]
    """Every DDL statement that was sent in the last attempt, with the OIDs known."""
    residue: Residue | None
    """After a failure: what differs from the schema before; None where that could not be read."""
    attempts: int
    seconds: float
    alone: tuple[str, ...] = ()
    """Statements of revisions that are not committed, which commit by themselves and change what no fingerprint shows:
    sent, and not refused whole. Another run would send them once more."""

    @property
    def ok(self) -> bool:
        """The target was reached."""
        return self.failure is None
