"""What our role may do with the journal; where it may not, the GRANT that mends it."""

from __future__ import annotations

from dataclasses import dataclass

from dbwatch.errors import Refused
from dbwatch.journal import SCHEMA
from dbwatch.postgres.queries import query
from dbwatch.postgres.roles import grant, quoted
from dbwatch.postgres.session import Session
from dbwatch.text import sanitize


@dataclass(frozen=True, slots=True)
class Rights:
    """One look at our role's privileges on the journal."""

    user: str
    database: str
    there: bool
    """The journal's tables exist."""
    owner: str
    """Who owns their schema; empty where there is none."""
    may_read: bool
    may_write: bool

    @property
    def to_make(self) -> str:
        """What lets this role make the journal, or use the one that is there."""
        user, owner = quoted(sanitize(self.user)), quoted(sanitize(self.owner))
        if not self.owner:
            create = grant(f"CREATE ON DATABASE {quoted(sanitize(self.database))}", sanitize(self.user))
            return f"{create}, or CREATE SCHEMA {SCHEMA} AUTHORIZATION {user}"
        if not self.there:
            return f"ALTER SCHEMA {SCHEMA} OWNER TO {user}"
        return f"run dbwatch once as {owner}, who owns it" if self.may_write else self.to_write

    @property
    def to_read(self) -> str:
        """What lets this role see the window."""
        return self._of("SELECT")

    @property
    def to_write(self) -> str:
        """What lets this role drive the window."""
        return self._of("SELECT, INSERT, UPDATE")

    @property
    def to_order(self) -> str:
        """What lets this role pause a backfill that somebody else runs."""
        user = sanitize(self.user)
        return f"{grant(f'USAGE ON SCHEMA {SCHEMA}', user)}; {grant(f'UPDATE ON {SCHEMA}.backfill', user)}"

    def _of(self, privileges: str) -> str:
        user = sanitize(self.user)
        on_tables = grant(f"{privileges} ON ALL TABLES IN SCHEMA {SCHEMA}", user)
        return f"{grant(f'USAGE ON SCHEMA {SCHEMA}', user)}; {on_tables}"


async def look(session: Session) -> Rights:
    """Our rights now. Raises as `Session.call` does."""
    [rights] = await session.fetch(Rights, query("journal-rights", session.server_version))
    return rights


async def require_reading(session: Session) -> None:
    """Raises Refused where a journal is there and our role may not read it; else as `Session.call` does."""
    rights = await look(session)
    if rights.there and not rights.may_read:
        raise Refused(f"{sanitize(rights.user)} may not read the journal", next=rights.to_read)


async def require_writing(session: Session) -> None:
    """Raises Refused where our role may not write the journal; else as `Session.call` does."""
    rights = await look(session)
    if not rights.may_write:
        raise Refused(f"{sanitize(rights.user)} may not write the journal", next=rights.to_write)
