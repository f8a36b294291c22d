"""The SQL of each revision on the way, rendered each by itself: one that fails does not hide the rest.

Offline first; one that has to look at the database before it acts then looks at it, and what it would do is taken down.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from dbwatch.migration import project
from dbwatch.migration.events import Direction
from dbwatch.migration.explain import explain
from dbwatch.migration.grammar import read
from dbwatch.migration.request import Ask, RenderedStatement, RevisionSql


class _Chunks(io.StringIO):
    """What Alembic writes, write by write: it gives each statement one. env.py's own prints go elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[str] = []

    def write(self, text: str) -> int:
        self.taken.append(text)
        return len(text)


def render(ask: Ask) -> tuple[RevisionSql, ...]:
    """Each revision between the heads `ask.start` and `ask.to`, in the order of running.

    env.py runs once, in its offline mode; the functions of the revisions run one after the other, and what one
    raises becomes its `trouble`. Raises CommandError where the target cannot be reached, or whatever env.py raises.
    """
    chunks = _Chunks()
    config = project.configure(ask, chunks)
    script = ScriptDirectory.from_config(config)
    found: list[RevisionSql] = []
    called = False

    def work(current: tuple[str, ...], context: MigrationContext) -> Iterator[RevisionStep]:
        nonlocal called
        called = True
        _stand_in(script, ask.direction)
        way = project.steps(script, ask.direction, ask.to, current)
        return (_isolated(step, ask, chunks, found) for step in way)

    options: dict[str, Any] = {
        "fn": work,
        "as_sql": True,
        "starting_rev": list(ask.start) or "base",
        "destination_rev": "+".join(ask.to) if isinstance(ask.to, tuple) else ask.to,
    }
    with EnvironmentContext(config, script, **options):
        script.run_env()
    if not called:
        raise CommandError("env.py did not run the migrations in its offline mode")
    return tuple(found)


def listen(
    ask: Ask, rendered: tuple[RevisionSql, ...], hear: Callable[[], AbstractContextManager[list[str]]]
) -> tuple[RevisionSql, ...]:
    """*rendered*, with those that could not be rendered offline run on a connection, as the database is now.

    A revision that looks before it acts needs a database to look at. What it asks is asked, in a read only transaction
    that is rolled back; what it would change is only heard: *hear* collects it and sends nothing. A revision that fails
    even so keeps its trouble. Raises whatever env.py raises.
    """
    config = project.configure(ask)
    script = ScriptDirectory.from_config(config)
    troubled = {one.revision for one in rendered if one.trouble}
    found: dict[str, RevisionSql] = {}

    def work(current: tuple[str, ...], context: MigrationContext) -> list[RevisionStep]:
        for step in project.steps(script, ask.direction, ask.to, ask.start):
            revision = step.revision.revision
            if revision in troubled and context.connection is not None:
                with context.begin_transaction(_per_migration=True):
                    nested = context.connection.begin_nested()
                    with hear() as heard, contextlib.suppress(Exception, SystemExit):  # foreign code: its trouble stays
                        step.migration_fn()
                        statements = tuple(_statements(heard))
                        found[revision] = RevisionSql(revision, ask.direction, statements, "")
                    nested.rollback()
        return []

    with EnvironmentContext(config, script, fn=work, dont_mutate=True):
        script.run_env()
    return tuple(found.get(one.revision, one) for one in rendered)


def _stand_in(script: ScriptDirectory, direction: Direction) -> None:
    """Gives a revision without the function one that says so, where Alembic would refuse the whole way."""
    for one in script.walk_revisions():
        if not hasattr(one.module, direction.value):
            setattr(one.module, direction.value, functools.partial(_missing, one, direction))


def _missing(script: Script, direction: Direction) -> None:
    raise CommandError(f"revision {script.revision} has no {direction.value}()")


def _isolated(step: RevisionStep, ask: Ask, chunks: _Chunks, found: list[RevisionSql]) -> RevisionStep:
    """*step*, which renders into *found* and never raises."""
    function = step.migration_fn

    def alone(**options: Any) -> None:
        chunks.taken.clear()
        trouble = ""
        try:
            function(**options)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code: it is told as this revision's trouble
            trouble = explain(error, ask, step.revision.revision).message
        statements = tuple(_statements(chunks.taken))
        found.append(RevisionSql(step.revision.revision, ask.direction, statements, trouble))

    alone.__name__ = ask.direction.value  # Alembic's log line tells it
    step.migration_fn = alone
    return step


def _statements(chunks: list[str]) -> Iterator[RenderedStatement]:
    """Alembic renders an autocommit block between a COMMIT and a BEGIN."""
    alone = False
    for chunk in chunks:
        text = chunk.strip().removesuffix(";").rstrip()
        if text.upper() in ("BEGIN", "COMMIT"):
            alone = text.upper() == "COMMIT"
        elif text:
            yield RenderedStatement(text, read(text).known, alone)
