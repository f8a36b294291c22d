"""The only place where other people's Alembic code runs: in a process of its own (nursery.py).

One request on standard input, events on a descriptor of their own (answers.py), and a leash on standard input after
that (leash.py). What env.py prints or logs becomes LogLine events (output.py). A project's own `alembic/` or
`logging.py` does not hide the real ones: the nursery runs with `-P`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from dbwatch.migration import preview, project
from dbwatch.migration.answers import Answers
from dbwatch.migration.chain import Chain
from dbwatch.migration.events import Applied, Failed, Finished, Planned
from dbwatch.migration.explain import explain
from dbwatch.migration.hooks import Hooks
from dbwatch.migration.leash import Leash
from dbwatch.migration.lookups import schema_of
from dbwatch.migration.output import Output, secrets
from dbwatch.migration.request import Ask


def main(fd: int) -> int:
    """Does what the one request asks; the exit code says no more than whether it ended as it should."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started us in the background
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answers = Answers(fd)
    leash = Leash(os.fdopen(os.dup(0), "rb"))
    output = Output(answers)
    text = leash.request()
    if not text:
        return 1
    ask = Ask.from_json(text)
    answers.hide(secrets(ask.dsn))
    hooks = Hooks(ask, answers, leash)
    hooks.install()
    leash.watch(hooks.cancel)
    last: object
    try:
        last = _WORK[ask.what](ask, answers, hooks)
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  # foreign code: it becomes an event
        traceback.print_exc()
        last = explain(error, ask, hooks.revision, stopped=leash.pulled)
    leash.done()
    output.drain()
    answers.send(last)
    answers.flush(within=5.0)
    return 0 if not isinstance(last, Failed) else 1


def _run(ask: Ask, answers: Answers, hooks: Hooks) -> Finished:
    """Upgrades or downgrades, telling each step before it starts and each revision when it is applied."""
    config = project.configure(ask)
    script = ScriptDirectory.from_config(config)
    heads: list[frozenset[str]] = []
    """As they were, and after each revision that was applied."""

    def work(current: tuple[str, ...], context: MigrationContext) -> Iterator[RevisionStep]:
        way = project.steps(script, ask.direction, ask.to, current)
        heads.append(frozenset(current))
        answers.send(_planned(current, context, way))
        context.on_version_apply_callbacks = (*context.on_version_apply_callbacks, applied)
        return told(way)

    def told(way: Iterable[RevisionStep]) -> Iterator[RevisionStep]:
        for step in way:
            hooks.revision = step.revision.revision
            yield step
        hooks.revision = None

    def applied(*, step: Any, **options: Any) -> None:
        now = frozenset(options["heads"])
        heads.append(now)
        answers.send(Applied(hooks.revision or "", step.is_upgrade, now))

    _environment(config, script, fn=work)
    if not heads:
        raise CommandError("env.py did not run the migrations: context.run_migrations() was never called")
    return Finished(heads[-1])


def _planned(current: Iterable[str], context: MigrationContext, way: Iterable[RevisionStep]) -> Planned:
    return Planned(
        steps=tuple(step.revision.revision for step in way),
        heads=frozenset(current),
        version_table=context.version_table,
        version_schema=context.version_table_schema or schema_of(context.connection, context.version_table),
        transaction_per_migration=bool(context.opts.get("transaction_per_migration", False)),
    )


def _inspect(ask: Ask, answers: Answers, hooks: Hooks) -> Chain:
    """The chain, with the heads that env.py's own connection finds; as `alembic current`, and nothing is committed."""
    config = project.configure(ask)
    script = ScriptDirectory.from_config(config)
    revisions = project.revisions(script)
    found: list[Planned] = []
    trouble: list[str] = []

    def work(current: tuple[str, ...], context: MigrationContext) -> list[RevisionStep]:
        way: list[RevisionStep] = []
        try:
            way = project.steps(script, ask.direction, ask.to, current)
        except CommandError as error:
            trouble.append(str(error))
        found.append(_planned(current, context, way))
        return []

    _environment(config, script, fn=work, dont_mutate=True)
    if not found:
        raise CommandError("env.py did not run the migrations: context.run_migrations() was never called")
    planned = found[-1]
    return Chain(
        revisions=revisions,
        heads=frozenset(script.get_heads()),
        current=planned.heads,
        version_table=planned.version_table,
        version_schema=planned.version_schema,
        transaction_per_migration=planned.transaction_per_migration,
        steps=planned.steps,
        trouble=trouble[-1] if trouble else "",
    )


def _preview(ask: Ask, answers: Answers, hooks: Hooks) -> Finished:
    rendered = preview.render(ask)
    if any(one.trouble for one in rendered):
        with contextlib.suppress(Exception, SystemExit):  # foreign code: then the troubles stay as they are
            rendered = preview.listen(ask, rendered, hooks.hearing)
    for one in rendered:
        answers.send(one)
    return Finished(frozenset())


def _environment(config: Any, script: ScriptDirectory, **options: Any) -> None:
    with EnvironmentContext(config, script, **options):
        script.run_env()


_WORK: Mapping[str, Callable[[Ask, Answers, Hooks], object]] = {"run": _run, "inspect": _inspect, "preview": _preview}
