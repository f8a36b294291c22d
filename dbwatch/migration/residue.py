"""What a migration left behind: what is ours, by the DDL we journalled, and what is somebody else's. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dbwatch.migration.ddl import Named
from dbwatch.migration.fingerprint import Difference


@dataclass(frozen=True, slots=True)
class JournalledDdl:
    """One DDL statement of ours, as it goes into the journal before (and, with OIDs, after) it runs."""

    sql: str
    """One line, for the eye; `objects` say what it touches."""
    revision: str | None
    autocommit: bool
    objects: tuple[Named, ...]
    done: bool
    """The server completed it."""
    known: bool = True
    """False where the grammar could not tell what it touches."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A difference that our own DDL explains."""

    difference: Difference
    revision: str | None
    """Whose DDL named it last."""


@dataclass(frozen=True, slots=True)
class Residue:
    """Everything that differs between two fingerprints, by whose it is."""

    ours: tuple[Leftover, ...]
    not_ours: tuple[Difference, ...]
    """Never dropped by us: partitions, other people's indexes."""

    @property
    def empty(self) -> bool:
        """The schema is as it was."""
        return not self.ours and not self.not_ours
