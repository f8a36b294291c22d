"""Makes the journal's schema, or brings it up to date, with dbwatch's own Alembic migrations."""

from __future__ import annotations

import asyncio
from functools import partial
from importlib.resources import files

import psycopg
from psycopg import sql

from dbwatch.errors import CannotConnect, DbwatchError, Refused
from dbwatch.journal import SCHEMA, rights
from dbwatch.journal.aside import aside
from dbwatch.postgres.session import Connector, Role, Session, describe, shut_down

_ADVISORY_LOCK = 0x6462_7761_7463_68
"""Two dbwatch that start at once take turns: `dbwatch` in ASCII."""


async def present(session: Session) -> bool:
    """Whether this database has a journal. Raises as `Session.call` does."""
    [(found,)] = await session.values(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n"
        " ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = 'window')",
        [SCHEMA],
    )
    return bool(found)


async def ensure(connector: Connector, *, within: float = 30.0) -> None:
    """Creates the journal's tables, or upgrades them.

    Raises Refused where our role may not, CannotConnect where the server does not let us in, and DbwatchError
    where it takes longer than *within* seconds; the connection is shut down then.
    """
    begun: list[psycopg.Connection[tuple[object, ...]]] = []
    task = aside(partial(_upgrade, connector.dsn(Role.JOURNAL), begun), "makes the journal's schema")
    try:
        await asyncio.wait({task}, timeout=within)
        if not task.done():
            raise DbwatchError(
                "the journal's schema could not be made", why=f"no answer within {within:g} s", next="try again"
            )
    finally:
        if not task.done():
            for connection in begun:
                shut_down(connection)
    try:
        task.result()
    except psycopg.OperationalError as error:
        raise CannotConnect("cannot make the journal's schema", why=describe(error)) from error
    except psycopg.Error as error:
        raise await _explained(connector, error) from error
    except _Failed as error:
        raise await _explained(connector, error.because) from error


class _Failed(Exception):
    """A statement of an upgrade."""

    def __init__(self, because: BaseException) -> None:
        super().__init__(because)
        self.because = because


async def _explained(connector: Connector, error: BaseException) -> DbwatchError:
    what = "the journal's schema could not be made"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        session = await connector.open(Role.JOURNAL)
        try:
            ours = await rights.look(session)
        finally:
            await session.close()
        what = "the journal here cannot be used" if ours.there else what
        return Refused(what, why=describe(error), next=ours.to_make)
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return Refused(what, why=describe(error), next="give the primary's DSN")
    return DbwatchError(what, why=describe(error), next="mend that and try again")


def _upgrade(dsn: str, begun: list[psycopg.Connection[tuple[object, ...]]]) -> None:
    def connect() -> psycopg.Connection[tuple[object, ...]]:
        connection = psycopg.connect(
            dsn, connect_timeout=10, application_name="dbwatch journal schema", prepare_threshold=None
        )
        begun.append(connection)
        return connection

    with connect() as connection:
        if _is_current(connection):
            return

    from alembic import command  # takes a second to import with SQLAlchemy, and is hardly ever needed
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(files("dbwatch.journal") / "migrations"))
    try:
        with engine.begin() as made:
            driver = made.connection.driver_connection
            assert driver is not None
            driver.execute("SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '15s'")
            driver.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
            [exists] = driver.execute(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s)", [SCHEMA]
            ).fetchone()
            if not exists:
                driver.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
            config.attributes["connection"] = made
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise _Failed(error.orig or error) from error


def newest() -> str:
    """The last of the journal's own revisions, which its files are named after."""
    versions = files("dbwatch.journal") / "migrations" / "versions"
    return max(file.name for file in versions.iterdir() if file.name.startswith("j")).partition("_")[0]


def _is_current(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether there is nothing to upgrade."""
    row = connection.execute("SELECT pg_catalog.to_regclass(%s)", [f"{SCHEMA}.alembic_version"]).fetchone()
    if row is None or row[0] is None:
        return False
    found = sql.SQL("SELECT version_num FROM {}.alembic_version").format(sql.Identifier(SCHEMA))
    return connection.execute(found).fetchall() == [(newest(),)]
