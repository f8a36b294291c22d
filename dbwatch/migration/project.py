"""Somebody's Alembic project, seen from the child: its configuration, its revisions, the way to a target."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO

from alembic.config import Config
from alembic.runtime.migration import MigrationStep, RevisionStep
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import URL

from dbwatch.migration.chain import Body, Revision, classify
from dbwatch.migration.events import Direction
from dbwatch.migration.request import Ask


def configure(ask: Ask, output: TextIO | None = None) -> Config:
    """The project's configuration with our URL in it, from within its folder. Raises CommandError."""
    file = Path(ask.config)
    if not file.is_file():
        raise CommandError(f"there is no {ask.config}")
    os.chdir(file.resolve().parent)
    toml = file if file.suffix == ".toml" else file.resolve().parent / "pyproject.toml"
    config = Config(
        file_=None if file.suffix == ".toml" else str(file),
        toml_file=str(toml) if toml.is_file() else None,
        ini_section=ask.section,
        output_buffer=output,
        cmd_opts=Namespace(x=list(ask.x), config=[str(file)], name=ask.section),
    )
    config.set_main_option("sqlalchemy.url", url(ask.dsn).render_as_string(hide_password=False).replace("%", "%%"))
    return config


def url(dsn: str) -> URL:
    """A libpq connection string as SQLAlchemy's URL for psycopg; what has no place of its own goes into the query."""
    known = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    host, port = known.pop("host", None), known.pop("port", None)
    if host is not None and ("," in host or host.startswith("/")):
        if port is not None:  # one for all, or one each: SQLAlchemy wants one each
            ports = port.split(",")
            known["port"], port = ",".join(ports if len(ports) > 1 else ports * len(host.split(","))), None
        known["host"], host = host, None
    return URL.create(
        "postgresql+psycopg",
        username=known.pop("user", None),
        password=known.pop("password", None),
        host=host,
        port=int(port) if port and port.isdigit() else None,
        database=known.pop("dbname", None),
        query=known,
    )


def revisions(script: ScriptDirectory) -> tuple[Revision, ...]:
    """All revisions, parents first. Raises CommandError where the chain does not hold together."""
    return tuple(_revision(one) for one in reversed(list(script.walk_revisions())))


def _revision(script: Script) -> Revision:
    up, down = (_classified(script, direction) for direction in Direction)
    return Revision(
        id=script.revision,
        down=_parents(script),
        doc=script.doc or "",
        path=script.path or "",
        upgrade=up,
        downgrade=down,
    )


def _parents(script: Script) -> tuple[str, ...]:
    return tuple(sorted(script._all_down_revisions))  # parents and dependencies, resolved; has no public name


def _classified(script: Script, direction: Direction) -> Body:
    path = Path(script.path or "")
    if path.suffix != ".py" or not path.is_file():
        return Body.UNKNOWN
    try:
        return classify(path.read_text("utf-8"), direction.value)
    except (SyntaxError, UnicodeDecodeError):
        return Body.UNKNOWN


def steps(
    script: ScriptDirectory, direction: Direction, to: str | tuple[str, ...], heads: Iterable[str]
) -> list[RevisionStep]:
    """The steps from the heads *heads* to *to*, in the order of running. Raises CommandError with the reason."""
    now = tuple(sorted(heads))
    way = _to_heads(script, direction, to, now) if isinstance(to, tuple) else None
    if way is not None:
        return [_step(script, one, direction) for one in way]
    assert isinstance(to, str)
    try:
        if direction is Direction.UP:
            return script._upgrade_revs(to, now)  # type: ignore[arg-type]  # takes the tuple that Alembic itself passes
        return script._downgrade_revs(to, now)  # type: ignore[arg-type]  # likewise
    except AttributeError as error:
        raise CommandError(f"a revision on the way has no {direction.value}(): {error}") from error


def _step(script: ScriptDirectory, one: Script, direction: Direction) -> RevisionStep:
    make = MigrationStep.upgrade_from_script if direction is Direction.UP else MigrationStep.downgrade_from_script
    try:
        return make(script.revision_map, one)
    except AttributeError as error:
        raise CommandError(f"revision {one.revision} has no {direction.value}()") from error


def _to_heads(script: ScriptDirectory, direction: Direction, to: tuple[str, ...], now: tuple[str, ...]) -> list[Script]:
    """The scripts between two sets of heads. Alembic's own syntax names one target, a rollback has a set of them."""
    walked = list(script.walk_revisions())  # from heads to base
    parents = {one.revision: _parents(one) for one in walked}
    have, want = _closure(parents, now), _closure(parents, to)
    if direction is Direction.UP:
        return [one for one in reversed(walked) if one.revision in want - have]
    if missing := want - have:
        raise CommandError(f"cannot downgrade to {', '.join(sorted(missing))}: the database is not there yet")
    return [one for one in walked if one.revision in have - want]


def _closure(parents: Mapping[str, tuple[str, ...]], heads: Iterable[str]) -> set[str]:
    """*heads* and all that they rest on."""
    found: set[str] = set()
    todo = list(heads)
    while todo:
        one = todo.pop()
        if one not in parents:
            raise CommandError(f"can't locate revision {one!r}: the scripts here do not know it")
        if one not in found:
            found.add(one)
            todo.extend(parents[one])
    return found
