"""What a server is: its version, its identity, and what our role may see and do there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.conninfo import conninfo_to_dict

from dbwatch.errors import Refused
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Session
from dbwatch.text import sanitize


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One look at a server through one session."""

    version: int
    """server_version_num: 150018 is 15.18."""
    database: str
    database_oid: int
    user: str
    host: str
    started_at: datetime
    system_identifier: str
    at: datetime
    """The server's clock when it answered."""
    in_recovery: bool
    read_only: bool
    superuser: bool
    sees_all: bool
    """Member of pg_read_all_stats (pg_monitor is): other sessions' queries are visible."""
    may_signal: bool
    """Member of pg_signal_backend."""
    may_create: bool
    """May create a schema in this database."""
    max_connections: int
    reserved_connections: int
    statements_schema: str | None
    """Where pg_stat_statements lives; None where the extension is missing here."""
    pooled: bool
    """The backend is not the one we connected to: a pooler lies between."""

    @property
    def major(self) -> int:
        return self.version // 10_000

    @property
    def version_text(self) -> str:
        """`16.4`."""
        return f"{self.version // 10_000}.{self.version % 10_000}"

    @property
    def name(self) -> str:
        """`shop@prod-db1`: the database and its host, as the screens and the confirmations show it."""
        return f"{self.database}@{self.host}"

    def same_server(self, other: ServerFacts) -> bool:
        """Whether both looks were at the same database of the same cluster (it may have restarted between)."""
        return (self.system_identifier, self.database_oid) == (other.system_identifier, other.database_oid)


async def look(session: Session, *, dsn: str = "", within: float = 5.0) -> ServerFacts:
    """Asks the server what it is. Raises as `Session.call` does."""
    [row] = await session.values(query("server", session.server_version), within=within)
    (version, database, oid, user, address, started, identifier, at, recovery, read_only, superuser) = row[:11]
    sees_all, may_signal, may_create, max_connections, reserved, statements, pid = row[11:]
    host = str(conninfo_to_dict(dsn).get("host") or address or "local") if dsn else (address or "local")
    return ServerFacts(
        version=version,
        database=sanitize(database),
        database_oid=oid,
        user=sanitize(user),
        host=sanitize("local" if host.startswith("/") else host),
        started_at=started,
        system_identifier=str(identifier),
        at=at,
        in_recovery=recovery,
        read_only=read_only,
        superuser=superuser,
        sees_all=sees_all,
        may_signal=may_signal,
        may_create=may_create,
        max_connections=max_connections,
        reserved_connections=reserved,
        statements_schema=statements,
        pooled=pid != session.pid,
    )


def require_direct(facts: ServerFacts) -> None:
    """Raises Refused where a pooler lies between: pids, session settings and advisory locks would not be ours."""
    if facts.pooled:
        raise Refused(
            f"a connection pooler lies between dbwatch and {facts.name}",
            why="pids and session settings behind it belong to whoever comes next",
            next="give the server's own address in the DSN, not PgBouncer's",
        )


def require_writable(facts: ServerFacts) -> None:
    """Raises Refused where nothing can be written: a standby, or a server set to read only."""
    if facts.in_recovery:
        raise Refused(
            f"{facts.name} is a standby", why="it is read only", next="give the DSN of the primary, or only watch"
        )
    if facts.read_only:
        raise Refused(
            f"{facts.name} is read only",
            why="default_transaction_read_only is on for this role or database",
            next="turn it off, or only watch",
        )
