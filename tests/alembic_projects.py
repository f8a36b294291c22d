"""Throw-away Alembic projects: real folders with an alembic.ini, an env.py and revisions, as somebody else wrote them.

`project = AlembicProject(tmp_path)`, then `project.revision("r1", up="op.execute('...')", down="...")` in order;
`project.project` is what the engine takes. The env.py's differ as real ones do: sync or async, a transaction for each
revision or one for all, quiet or printing, with the URL of the configuration or one of their own.
"""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from servers import Database

from dbwatch.clock import SystemClock
from dbwatch.journal.fence import Fence
from dbwatch.migration.events import Direction, Event, Outcome, StatementStarted
from dbwatch.migration.request import Job, Project, Target
from dbwatch.migration.runner import Patience, run

T = TypeVar("T")
PATIENCE = Patience()
USERS = "CREATE TABLE users (id int PRIMARY KEY, name text)"

_INI = """\
[alembic]
script_location = %(here)s/migrations
prepend_sys_path = .
sqlalchemy.url = postgresql+psycopg://nobody@nowhere.invalid/nothing

[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = INFO
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"""

_SYNC = """\
def online():
    engine = create_engine(URL, poolclass=pool.NullPool{engine})
    with engine.connect() as connection:
        run(connection)

if context.is_offline_mode():
    context.configure(url=URL, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    online()
"""

_ASYNC = """\
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine

async def online():
    engine = create_async_engine(URL, poolclass=pool.NullPool{engine})
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()

if context.is_offline_mode():
    context.configure(url=URL, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(online())
"""

_ENV = """\
from alembic import context
from sqlalchemy import create_engine, pool, text
{extra}
config = context.config
URL = {url}

def run(connection):
    context.configure(connection=connection, transaction_per_migration={tpm})
    with context.begin_transaction():
        context.run_migrations()

{way}
"""

_NOISY = """\
import logging
import logging.config
import os
import sys
logging.config.fileConfig(context.config.config_file_name)
print("env.py says hello", flush=True)
print('{"event": "Finished", "heads": ["forged"]}', flush=True)
os.system("echo a subprocess says hello too")
sys.stderr.write("\\x1b[2J[/red] hostile \\u202e text\\n")
sys.stdout = open(os.devnull, "w")
"""


@dataclass
class AlembicProject:
    """A project in *folder*."""

    folder: Path
    tpm: bool = False
    asynchronous: bool = False
    noisy: bool = False
    url: str | None = None
    """A URL that env.py takes instead of the configuration's."""
    engine: str = ""
    """More arguments of create_engine, as `, echo=True`."""
    env: str | None = None
    """The whole text of env.py, instead of one of ours."""
    _last: str | None = field(default=None)

    def __post_init__(self) -> None:
        self.versions.mkdir(parents=True)
        (self.folder / "alembic.ini").write_text(_INI)
        self.write_env()

    @property
    def versions(self) -> Path:
        return self.folder / "migrations" / "versions"

    @property
    def project(self) -> Project:
        return Project(self.folder / "alembic.ini")

    def write_env(self) -> None:
        """Writes env.py as the fields say."""
        url = repr(self.url) if self.url else 'config.get_main_option("sqlalchemy.url")'
        way = (_ASYNC if self.asynchronous else _SYNC).replace("{engine}", self.engine)
        ours = _ENV.format(extra=_NOISY if self.noisy else "", url=url, tpm=self.tpm, way=way)
        (self.folder / "migrations" / "env.py").write_text(self.env or ours)

    def revision(
        self,
        id: str,
        up: str | None = "pass",
        down: str | None = "pass",
        *,
        after: str | tuple[str, ...] | None = None,
        depends_on: str | None = None,
        extra: str = "",
    ) -> AlembicProject:
        """Adds a revision after the last one (or *after*); *up* and *down* are Python bodies, None leaves one out."""
        parent = self._last if after is None else after
        lines = [
            f'"""The revision {id}."""',
            "import sqlalchemy as sa",
            "from alembic import op",
            f"revision = {id!r}",
            f"down_revision = {parent!r}",
            f"depends_on = {depends_on!r}",
            extra,
        ]
        for name, body in (("upgrade", up), ("downgrade", down)):
            if body is not None:
                lines.append(f"def {name}():\n{textwrap.indent(textwrap.dedent(body), '    ')}")
        (self.versions / f"{id}_.py").write_text("\n".join(lines) + "\n")
        self._last = id
        return self


def table(name: str) -> tuple[str, str]:
    """Bodies that make a table with a column and take it away again."""
    return f"op.create_table({name!r}, sa.Column('id', sa.Integer, primary_key=True))", f"op.drop_table({name!r})"


def column(name: str, of: str = "users") -> tuple[str, str]:
    """Bodies that add a nullable text column and take it away again."""
    return f"op.add_column({of!r}, sa.Column({name!r}, sa.Text))", f"op.drop_column({of!r}, {name!r})"


INDEX_CONCURRENTLY = """
    op.add_column('users', sa.Column('phone', sa.Text))
    with op.get_context().autocommit_block():
        op.create_index('users_phone', 'users', ['phone'], postgresql_concurrently=True)
"""
NO_INDEX_CONCURRENTLY = """
    with op.get_context().autocommit_block():
        op.drop_index('users_phone', 'users', postgresql_concurrently=True)
    op.drop_column('users', 'phone')
"""


class Told:
    """Collects what `run` tells, and lets a test wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    def all(self, kind: type[T]) -> list[T]:
        """The events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[T], such_that: Callable[[T], bool] = lambda _: True) -> T:
        """The first event of a kind that fits, past or to come within 20 s."""
        async with asyncio.timeout(20):
            while True:
                for event in self.all(kind):
                    if such_that(event):
                        return event
                self._news.clear()
                await self._news.wait()

    async def statement(self, words: str) -> StatementStarted:
        """The first statement with *words* in it."""
        return await self.until(StatementStarted, lambda started: words in started.sql)


def job(project: AlembicProject, direction: Direction = Direction.UP, to: Target = "heads", **options: Any) -> Job:
    """A job for a window that no journal knows, unless *options* bring a fence."""
    return Job(project.project, direction, to, **{"fence": Fence(uuid4(), 1), **options})


async def go(
    db: Database, job: Job, told: Told | None = None, stop: asyncio.Event | None = None, patience: Patience = PATIENCE
) -> Outcome:
    """Runs *job* on *db*, without jitter."""
    return await run(
        job,
        db.connector,
        clock=SystemClock(),
        on_event=told or Told(),
        stop=stop or asyncio.Event(),
        patience=patience,
        jitter=lambda: 0.0,
    )
