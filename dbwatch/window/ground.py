"""What an open window stands on: everything that the conductor, a step's run and an abort share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dbwatch.clock import Clock
from dbwatch.journal.store import Store
from dbwatch.migration.fingerprint import Fingerprint
from dbwatch.migration.request import Project
from dbwatch.monitor.baseline import Baseline
from dbwatch.postgres.facts import ServerFacts
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.session import LIMITS, Connector, Limits, Role
from dbwatch.runbook.loader import LoadedRunbook
from dbwatch.runbook.model import Runbook


@dataclass(frozen=True, slots=True)
class Ground:
    """An open window that we drive."""

    connector: Connector
    """Tagged with our fence."""
    control: Kept
    store: Store
    clock: Clock
    book: LoadedRunbook
    facts: ServerFacts
    opening: Fingerprint
    """The schema where the window opened."""
    baseline: Baseline | None

    @property
    def runbook(self) -> Runbook:
        return self.book.runbook

    @property
    def alembic(self) -> Path | None:
        """Alembic's configuration file; None where the runbook has no project."""
        return self.book.folder / self.runbook.alembic if self.runbook.alembic else None

    @property
    def project(self) -> Project | None:
        return Project(self.alembic) if self.alembic else None

    @property
    def limits(self) -> Limits:
        """Of a worker's session, as the runbook's target asks."""
        target = self.runbook.target
        return Limits(
            lock_timeout_ms=round(target.lock_timeout * 1000),
            statement_timeout_ms=round(target.statement_timeout * 1000),
            idle_in_transaction_ms=LIMITS[Role.WORKER].idle_in_transaction_ms,
        )

    @property
    def target(self) -> str:
        """`shop@prod-db1 (primary, 16.4)`."""
        role = "standby" if self.facts.in_recovery else "primary"
        return f"{self.facts.name} ({role}, {self.facts.version_text})"
