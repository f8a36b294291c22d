"""A small window with a step of every kind whose doing can be counted, and the database that counts.

`deeds` gets a row for each time that something took effect; `ledger` counts, by a trigger, how often each row of `t`
was changed forth and back. Nothing but dbwatch's own care keeps either from being done twice.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
from alembic_projects import AlembicProject
from psycopg import sql
from servers import Database, client_tools, create_database

from dbwatch.journal import schema
from dbwatch.postgres.embedded import EmbeddedServer
from dbwatch.postgres.session import Connector

ROWS = 3000
STEPS = ("read", "add", "count", "deploy", "fill", "all", "aside", "drop")

_MAKE = f"""
CREATE TABLE deeds (n int GENERATED ALWAYS AS IDENTITY, what text NOT NULL);
CREATE TABLE t (id bigint PRIMARY KEY, v int NOT NULL DEFAULT 0, old text, pad text NOT NULL DEFAULT repeat('x', 40));
INSERT INTO t (id, old) SELECT g, 'o' || g FROM generate_series(2, {2 * ROWS}, 2) AS g;
CREATE INDEX t_old ON t (old);
CREATE TABLE ledger (id bigint PRIMARY KEY, forth int NOT NULL DEFAULT 0, back int NOT NULL DEFAULT 0);
INSERT INTO ledger SELECT id FROM t;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger SET forth = forth + (NEW.v > OLD.v)::int, back = back + (NEW.v < OLD.v)::int WHERE id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW WHEN (OLD.v IS DISTINCT FROM NEW.v) EXECUTE FUNCTION note();
CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r1');
"""  # noqa: S608  # a constant of ours

_BOOK = """\
title = "a window of the campaign"
alembic = "{alembic}"
[target]
dsn = "${{CAMPAIGN_DSN}}"
lock_timeout = "1s"
statement_timeout = "20s"

[[phase]]
name = "expand"
[[phase.step]]
id = "read"
kind = "manual"
text = "read the SQL"
[[phase.step]]
id = "add"
kind = "migrate"
to = "r3"
{confirm}
[[phase.step]]
id = "count"
kind = "sql"
sql = "INSERT INTO deeds (what) VALUES ('count')"
undo = "INSERT INTO deeds (what) VALUES ('count back')"

[[phase]]
name = "code"
[[phase.step]]
id = "deploy"
kind = "manual"
text = "deploy"
rollback = "deploy the one before"
[[phase.step]]
id = "fill"
kind = "backfill"
table = "t"
set = "v = v + 1"
where = "true"
mode = "once"
batch_time = "{batch}"
undo = {undo}
[[phase.step]]
id = "all"
kind = "check"
sql = "SELECT count(*) FROM t WHERE v <> 1"
expect = 0
[[phase.step]]
id = "aside"
kind = "sql"
sql = "CREATE INDEX CONCURRENTLY t_pad ON t (pad, id)"
undo = "DROP INDEX CONCURRENTLY IF EXISTS t_pad"

[[phase]]
name = "contract"
[[phase.step]]
id = "drop"
kind = "migrate"
to = "r4"
"""

_ADD = "op.add_column('t', sa.Column('phone', sa.Text))\nop.execute(\"INSERT INTO deeds (what) VALUES ('r2')\")"
_NO_ADD = "op.drop_column('t', 'phone')\nop.execute(\"INSERT INTO deeds (what) VALUES ('r2 back')\")"
_INDEX = (
    "with op.get_context().autocommit_block():\n"
    "    op.create_index('t_phone', 't', ['phone', 'id'], postgresql_concurrently=True)"
)
_NO_INDEX = (
    "with op.get_context().autocommit_block():\n"
    "    op.drop_index('t_phone', 't', postgresql_concurrently=True, if_exists=True)"
)
_DROP = "op.drop_index('t_old', 't')\nop.execute(\"INSERT INTO deeds (what) VALUES ('r4')\")"
_NO_DROP = "op.create_index('t_old', 't', ['old'])\nop.execute(\"INSERT INTO deeds (what) VALUES ('r4 back')\")"


@dataclass(frozen=True, slots=True)
class Flavour:
    """What differs from window to window."""

    undo: bool = True
    """The backfill keeps before-images."""
    confirm: bool = False
    """A step asks for the navigator's word."""
    tpm: bool = False
    """Alembic commits each revision by itself."""
    batch: str = "10ms"


@dataclass(frozen=True, slots=True)
class Scene:
    """One window's database and runbook."""

    db: Database
    folder: Path
    runbook: Path
    flavour: Flavour

    async def dump(self) -> str:
        """`pg_dump -s`, schema dbwatch left out, without what changes from run to run."""
        argv = [str(client_tools() / "pg_dump"), "-s", "-N", "dbwatch", "-d", self.db.dsn]
        printed = await asyncio.to_thread(subprocess.run, argv, capture_output=True, check=True)
        return re.sub(r"^(--|\\(un)?restrict).*\n", "", printed.stdout.decode(), flags=re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stage:
    """A server with a database to be copied, and the Alembic projects."""

    server: EmbeddedServer
    folder: Path
    template: str

    @classmethod
    async def make(cls, server: EmbeddedServer, folder: Path) -> Stage:
        """The template, with the journal's schema in it, so that a window opens quickly."""
        db = await create_database(server)
        await db.sql(_MAKE, "ANALYZE")
        await schema.ensure(db.connector)
        for tpm in (False, True):
            project = AlembicProject(folder / f"project-{tpm}", tpm=tpm)
            project.revision("r1").revision("r2", _ADD, _NO_ADD).revision("r3", _INDEX, _NO_INDEX)
            project.revision("r4", _DROP, _NO_DROP)
        return cls(server, folder, db.name)

    async def scene(self, flavour: Flavour, folder: Path) -> Scene:
        """A new window's database and runbook."""
        name = f"t{uuid4().hex[:12]}"
        words = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(self.template))
        await self._on_server(words)
        folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # a local folder, before anything runs
        runbook = folder / "runbook.toml"
        runbook.write_text(
            _BOOK.format(
                alembic=self.folder / f"project-{flavour.tpm}" / "alembic.ini",
                undo=str(flavour.undo).lower(),
                confirm='confirm = "navigator"' if flavour.confirm else "",
                batch=flavour.batch,
            )
        )
        dsn = self.server.dsn_of(name)
        return Scene(Database(name, self.server, dsn, Connector(dsn)), folder, runbook, flavour)

    async def strike(self, scene: Scene) -> None:
        """The window's database goes."""
        await self._on_server(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(scene.db.name)))

    async def _on_server(self, words: sql.Composed) -> None:
        async with await psycopg.AsyncConnection.connect(self.server.dsn, autocommit=True) as connection:
            await connection.execute(words)
