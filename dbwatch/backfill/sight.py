"""What of a server's health can be seen at all: what is not there, and what privileges hide."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import psycopg

from dbwatch.backfill.signals import NAMES, PAUSING
from dbwatch.errors import ConnectionLost, Refused, ServerSilent, UsageError
from dbwatch.postgres.queries import query
from dbwatch.postgres.roles import grant, quoted
from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.text import one_line


@dataclass(frozen=True, slots=True)
class Sight:
    """What the role that polls can see."""

    role: str
    database: int
    """Its oid."""
    sees_all: bool
    """Member of pg_read_all_stats (pg_monitor is)."""
    statements_schema: str | None
    """Where pg_stat_statements lives; None where the extension is missing in this database."""
    statements_new_enough: bool
    statements_loaded: bool
    statements_usable: bool
    """Our role may use its schema."""
    replicas: int
    slots: int
    max_wal_size: int
    """Bytes."""

    @property
    def statements(self) -> str | None:
        """The schema of a pg_stat_statements that can be asked; None where there is none."""
        there = self.statements_loaded and self.statements_new_enough and self.statements_usable and self.sees_all
        return self.statements_schema if there else None

    def absent(self) -> Mapping[str, str]:
        """Signals that cannot exist here, and why."""
        found = {"conflicts": "a primary counts none, only the standbys do"}
        if not self.replicas:
            found["lag"] = "no replica"
        if not self.slots:
            found["slots"] = "no replication slot"
        if self.statements_schema is None:
            found["latency"] = "pg_stat_statements is not installed in this database"
        elif not self.statements_loaded:
            found["latency"] = "pg_stat_statements is not in shared_preload_libraries"
        elif not self.statements_new_enough:
            found["latency"] = "pg_stat_statements is older than 1.8: ALTER EXTENSION pg_stat_statements UPDATE"
        return found

    def hidden(self) -> Mapping[str, str]:
        """Signals that privileges hide from our role, and the GRANT that shows them."""
        there = [name for name in ("active", "latency", "lag", "xmin", "vacuum") if name not in self.absent()]
        found = {} if self.sees_all else dict.fromkeys(there, grant("pg_read_all_stats", self.role))
        if "latency" in there and "latency" not in found and not self.statements_usable:
            found["latency"] = grant(f"USAGE ON SCHEMA {quoted(self.statements_schema or '')}", self.role)
        return found

    def missing(self, ignored: Collection[str]) -> Mapping[str, str]:
        """Those of the hidden signals that would pause a backfill, unless they are *ignored*."""
        return {name: mend for name, mend in self.hidden().items() if name in PAUSING and name not in ignored}

    def notes(self, ignored: Collection[str]) -> Iterator[str]:
        """What a person should know of it before a backfill starts, one sentence each."""
        unseen = [name for name in self.hidden() if name not in ignored]
        if unseen:
            mends = "; ".join(dict.fromkeys(self.hidden()[name] for name in unseen))
            yield f"health signals hidden from {one_line(self.role)}: {', '.join(unseen)}: {one_line(mends)}"
        gone = [f"{name} ({why})" for name, why in self.absent().items() if name not in ignored]
        if gone:
            yield f"health signals that are not there: {', '.join(gone)}"
        if ignored:
            yield f"health signals that are ignored: {', '.join(name for name in NAMES if name in ignored)}"


async def look(session: Session, *, within: float = 5.0) -> Sight:
    """What the role of *session* can see. Raises as `Session.call` does."""
    [found] = await session.fetch(Sight, query("backfill-sight", session.server_version), within=within)
    return found


async def of(connector: Connector, session: Session) -> Sight:
    """What the role that will poll can see: that of *session*, unless the target names another one for polling.

    Raises CannotConnect, and as `Session.call` does.
    """
    if Role.MONITOR not in connector.apart:
        return await look(session)
    other = await connector.open(Role.MONITOR)
    try:
        return await look(other)
    except (psycopg.Error, ConnectionLost, ServerSilent):
        other.sever()
        raise
    finally:
        await other.close()


def require_known(names: Collection[str]) -> None:
    """Raises UsageError where one of *names* is no signal."""
    for name in names:
        if name not in NAMES:
            raise UsageError(f"there is no health signal {one_line(name, 40)!r}", next=f"choose of {', '.join(NAMES)}")


def require_seen(work: str, missing: Mapping[str, str]) -> None:
    """Raises Refused where signals that would pause *work* are *missing*: hidden, and not ignored by name."""
    if not missing:
        return
    mends = "; ".join(dict.fromkeys(missing.values()))
    ways = " ".join(f"--without {name}" for name in missing)
    listed = ", ".join(f'"{name}"' for name in missing)
    raise Refused(
        f"{work} would not see whom it harms",
        why=f"privileges hide the health signals {', '.join(missing)}",
        next=f"{one_line(mends)}, or ignore them: {ways} (in a runbook: without = [{listed}])",
    )
