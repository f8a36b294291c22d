"""What an open window stands on: everything that the conductor, a step's run and an abort share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dbwatch.clock import Clock
from dbwatch.errors import Refused
from dbwatch.journal.store import Store
from dbwatch.migration.chain import Chain
from dbwatch.migration.fingerprint import Fingerprint
from dbwatch.migration.request import Project
from dbwatch.monitor.baseline import Baseline
from dbwatch.postgres.facts import ServerFacts
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.session import LIMITS, Connector, Limits, Role
from dbwatch.runbook.loader import LoadedRunbook
from dbwatch.runbook.model import Runbook


@dataclass(slots=True)
class Ground:
    """An open window that we sit at."""

    base: Connector
    """The way to the target, not tagged."""
    control: Kept
    store: Store
    clock: Clock
    book: LoadedRunbook
    """As last amended."""
    facts: ServerFacts
    opening: Fingerprint
    """The schema where the window opened."""
    baseline: Baseline | None
    chain: Chain | None = None
    """The Alembic project as the opening read it; None where it was not asked here."""
    files: bool = True
    """Whether the files that the runbook names are on this machine."""

    @property
    def connector(self) -> Connector:
        """Tagged with the epoch that we hold now."""
        return self.base.tagged(self.store.fence.tag)

    @property
    def runbook(self) -> Runbook:
        return self.book.runbook

    @property
    def alembic(self) -> Path | None:
        """Alembic's configuration file; None where the runbook has no project.

        Raises Refused where the runbook names one, and it is not on this machine.
        """
        if self.runbook.alembic is not None and not self.files:
            raise Refused(
                "the Alembic files of this window are not on this machine",
                next="drive from where they are, or attach with --runbook FILE",
            )
        return self.book.alembic

    @property
    def project(self) -> Project | None:
        """As Alembic is run. Raises as `alembic`."""
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
