"""One connection that is polled, and what was learnt through it: names, texts, and which questions are in vain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql
from psycopg.adapt import Buffer, Loader
from psycopg.rows import tuple_row

from dbwatch.errors import CannotConnect
from dbwatch.postgres.facts import ServerFacts, look
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection, Connector, Role, Session, describe
from dbwatch.text import sanitize

DEADLINE_S = 3.0
"""For each question. The server's own statement_timeout (2 s, LIMITS) ends a slow one first, and the session lives."""


_OPENING = 4
"""Transactions in which a session is opened: two for its limits, one to settle, one to look."""

_IN_VAIN_LOOKS = 30
"""Looks at the facts (one in ten polls) between two attempts at what this server does not have: each is a line in its
log, and an extension may be updated meanwhile."""


class _AnyEncoding(Loader):
    """Text whose bytes may be wrong: pg_stat_activity shows queries of other databases in *their* encodings."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "replace")


async def _settle(connection: Connection) -> None:
    """Makes the session independent of what role and database have set: encoding, dates, time zone."""
    connection.adapters.register_loader("text", _AnyEncoding)
    await connection.execute("SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'")


async def _prepare(connection: Connection) -> None:
    """Has the server plan each question once: planning is most of what polling costs. Not behind a pooler, where a
    prepared statement would be in somebody else's backend."""
    connection.prepare_threshold = 0


@lru_cache(maxsize=4096)
def _short_clean(foreign: str) -> str:
    return sanitize(foreign)


def clean(foreign: str | None) -> str:
    """*foreign* sanitized, empty for None. The same short texts come with every poll, so they are remembered."""
    if not foreign:
        return ""
    return _short_clean(foreign) if len(foreign) <= 2_000 else sanitize(foreign)


class Source:
    """A polled session with its server's facts. One caller at a time."""

    def __init__(self, session: Session, facts: ServerFacts, dsn: str, asked: int) -> None:
        self.session = session
        self.facts = facts
        self.asked = asked + _OPENING
        """Transactions that polling has caused so far; counts on over reconnects."""
        self.asked_before = asked
        """The same as of the last poll: so many the server has reported, which it does a second later."""
        self.in_vain: set[str] = set()
        """Views that this server does not have: asked again after some minutes only, or when grants have changed."""
        self._dsn = dsn
        self._looks = 0
        self._names: dict[tuple[str, int], str] = {}
        self._texts: dict[int, str] = {}
        self._planned: set[bytes] = set()
        self._statements_version = session.server_version

    @classmethod
    async def open(cls, connector: Connector, *, within: float = 10.0, asked: int = 0) -> Source:
        """A new monitor session that has looked at its server. Raises CannotConnect, ServerSilent, ConnectionLost."""
        session = await connector.open(Role.MONITOR, within=within)
        dsn = connector.dsn(Role.MONITOR)
        try:
            await session.call(_settle, within=DEADLINE_S)
            facts = await look(session, dsn=dsn, within=DEADLINE_S)
            if not facts.pooled:
                await session.call(_prepare, within=DEADLINE_S)
            return cls(session, facts, dsn, asked)
        except BaseException as error:
            session.sever()
            if isinstance(error, psycopg.Error):
                raise CannotConnect("the server does not say what it is", why=describe(error)) from error
            raise

    async def close(self) -> None:
        """Ends the session; never blocks for long."""
        await self.session.close()

    async def look_again(self) -> None:
        """Asks for the facts once more. Where they changed, what was asked in vain is tried again; else rarely."""
        before, self.facts = self.facts, await look(self.session, dsn=self._dsn, within=DEADLINE_S)
        after = self.facts
        self.asked += 1
        self._looks += 1
        changed = (before.statements_schema, before.sees_all) != (after.statements_schema, after.sees_all)
        if changed or self._looks % _IN_VAIN_LOOKS == 0:
            self.in_vain.clear()
            self._statements_version = self.session.server_version

    async def rows(self, name: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of query *name* for this server's version. Raises as `Session.call` does."""
        return await self._ask(query(name, self.session.server_version), params)

    async def names(self, roles: Collection[int], databases: Collection[int]) -> None:
        """Learns the names of those roles and databases that are not known yet.

        Where pg_authid or pg_database is locked, numbers stand for names until it is free again.
        """
        new_roles = [oid for oid in roles if ("role", oid) not in self._names]
        new_databases = [oid for oid in databases if ("database", oid) not in self._names]
        if not new_roles and not new_databases:
            return
        try:
            known = await self.rows("names", {"roles": new_roles, "databases": new_databases})
        except psycopg.errors.LockNotAvailable:
            return
        self._names |= {(kind, oid): sanitize(name) for kind, oid, name in known}

    def role(self, oid: int | None) -> str:
        """The name of a role; empty for None, `role 16384` where it is not known."""
        return "" if oid is None else self._names.get(("role", oid), f"role {oid}")

    def database(self, oid: int | None) -> str:
        """The name of a database; empty for None, `database 16384` where it is not known."""
        return "" if oid is None else self._names.get(("database", oid), f"database {oid}")

    async def statements(self, schema: str) -> list[tuple[Any, ...]]:
        """The rows of statements.sql. Its columns follow the *extension's* version, which may lag behind the server's.

        Raises psycopg.errors.UndefinedColumn where the extension is older than that of 13.
        """
        while True:
            try:
                return await self._ask(self._of_extension("statements", schema), self._here())
            except psycopg.errors.UndefinedColumn:
                if self._statements_version < 140_000:
                    raise
                self._statements_version -= 10_000

    async def texts(self, schema: str, queryids: Collection[int]) -> Mapping[int, str]:
        """The texts of statements by queryid; those not known yet are asked for, those not wanted are forgotten."""
        unknown = [queryid for queryid in queryids if queryid not in self._texts]
        if unknown:
            params = {**self._here(), "queryids": unknown}
            rows = await self._ask(self._of_extension("statement-texts", schema), params)
            self._texts |= {queryid: text or "" for queryid, text in rows}
        self._texts = {queryid: self._texts[queryid] for queryid in queryids if queryid in self._texts}
        return self._texts

    def _here(self) -> dict[str, Any]:
        return {"database": self.facts.database_oid}

    def _of_extension(self, name: str, schema: str) -> sql.Composed:
        text = query(name, self._statements_version).decode()
        return sql.SQL(text).format(schema=sql.Identifier(schema))

    async def _ask(self, statement: bytes | sql.Composed, params: Mapping[str, Any] | None) -> list[tuple[Any, ...]]:
        async def work(connection: Connection) -> list[tuple[Any, ...]]:
            async with connection.cursor(row_factory=tuple_row) as cursor:
                await cursor.execute(statement, params)
                return await cursor.fetchall()

        text = statement if isinstance(statement, bytes) else statement.as_bytes()
        self.asked += 1 if text in self._planned or self.facts.pooled else 2  # planning it is a transaction, too
        self._planned.add(text)
        return await self.session.call(work, within=DEADLINE_S)
