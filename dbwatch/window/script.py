"""The way back as a script for psql alone: rollback.sql. Pure.

The script covers the whole runbook, whatever has been done of it: each part looks whether it is due. So one that was
laid before a step began takes that step back as well, and one that stopped half-way is simply run again. What
Alembic would do in a transaction is one here too, with the version table's row; what a person has to do first stops it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from psycopg import sql

from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.journal.ledger import CHANNEL
from dbwatch.migration import grammar
from dbwatch.migration.ddl import Action as DdlAction
from dbwatch.migration.ddl import Named
from dbwatch.migration.request import RenderedStatement, RevisionSql
from dbwatch.postgres.queries import OURS, query
from dbwatch.runbook.model import Backfill, Migrate, Sql, Step
from dbwatch.text import one_line
from dbwatch.window.abort import AbortPlan, ActionKind
from dbwatch.window.ground import Ground
from dbwatch.window.revisions import Revisions
from dbwatch.window.wheel import BY_HAND

TAKEN_BACK = "taken back by hand, with rollback.sql"
"""What the script says of a step that it took back: by this it knows itself what it has done."""


def rollback_sql(plan: AbortPlan, ground: Ground, revisions: Revisions | None) -> str:
    """The script; *revisions* is None where the runbook has no Alembic project."""
    lines = [
        f"-- The way back: {one_line(plan.target)}, window {ground.store.window}, as of event {plan.seq}.",
        "-- Run it with: psql -X -v ON_ERROR_STOP=1 -f rollback.sql",
        "-- Each part looks whether it is due. Where it stops, mend what it says and run it again: it goes on there.",
        r"\set ON_ERROR_STOP on",
        *_words(ground, revisions),
        "",
        "-- Nothing of dbwatch goes on",
        *fence(ground),
        f"SELECT {_ask('says', ev.DriverTook.kind, chain.encode(ev.DriverTook(BY_HAND, 'rollback.sql')))} \\gset",
        "SET statement_timeout = 0;",
        "SET lock_timeout = '2s';",
    ]
    for action in plan.actions:
        if action.kind is ActionKind.CLEAN and action.sql:
            nothing_since = f"NOT {_ask('went_on', str(plan.seq))}"
            lines += ["", f"-- {one_line(action.title)}", *_if(nothing_since, _each(action.sql))]
    for step in reversed(list(ground.runbook.steps())):
        lines += _step(step, plan, ground, revisions)
    for action in plan.actions:
        if action.kind is ActionKind.COMPARE and action.sql:
            lines += ["", "-- What is left over at the end", *_each(action.sql)]
    if revisions is not None:
        lines += ["", *_arrived(revisions.start)]
    runbook = re.sub(r"[^A-Za-z0-9._ -]", "_", ground.book.path.name)
    lines += [
        "",
        r"\echo 'Taken back, as far as SQL can tell.'",
        rf"\echo 'Next: dbwatch abort {runbook}, which compares the schema and closes the window.'",
    ]
    return "\n".join(lines) + "\n"


def _words(ground: Ground, revisions: Revisions | None) -> list[str]:
    """The functions that everything else is said with."""
    versions = revisions.version_table.as_string() if revisions else "alembic_version"
    return _filled("paper-words", window=ground.store.window, channel=CHANNEL, versions=versions)


def fence(ground: Ground) -> list[str]:
    """Takes the wheel, and ends the sessions of whoever had it."""
    window = ground.store.window
    return _filled("paper-fence", window=window, driver=BY_HAND, sessions=f"dbwatch % {window.hex[:8]}/%")


def _filled(name: str, **values: object) -> list[str]:
    """The statements of that name, their values in place, and without our mark: a person runs them."""
    text = query(name, 130_000).decode().replace(f" {OURS}", "")
    filled = sql.SQL(text).format(**{key: sql.Literal(value) for key, value in values.items()})
    return filled.as_string().splitlines()


def _quoted(text: str) -> str:
    """*text* as an SQL literal."""
    return sql.Literal(text).as_string().strip()


def ended(statement: str) -> str:
    """*statement* with its semicolon, which no comment at its end swallows."""
    text = statement.rstrip().rstrip(";")
    return f"{text}\n;" if "--" in text.splitlines()[-1] else f"{text};"


# What is due


def _if(condition: str, lines: Iterable[str]) -> list[str]:
    """*lines*, only where *condition* holds when psql comes to it."""
    return [f"SELECT {condition} AS dbwatch_due \\gset", r"\if :dbwatch_due", *lines, r"\endif"]


def _ask(function: str, *arguments: str) -> str:
    return f"pg_temp.dbwatch_{function}({', '.join(map(_quoted, arguments))})"


def _says(step: str) -> str:
    """The line that enters into the journal that *step* was taken back."""
    said = _ask("says", ev.StepNoted.kind, chain.encode(ev.StepNoted(step, TAKEN_BACK)))
    return f"SELECT {said} \\gset"


def _ended_and_there(step: str) -> str:
    """Whether *step* took effect, or may have, and was not taken back by hand yet."""
    took = " OR ".join(_ask("said", kind, step) for kind in (ev.StepDone.kind, ev.StepUnknown.kind))
    return f"({took}) AND NOT {_ask('said', ev.StepNoted.kind, step, TAKEN_BACK)}"


def _stop(why: str) -> str:
    """The statement that ends the script with *why*."""
    raised = f"BEGIN RAISE EXCEPTION USING MESSAGE = {_quoted(why)}; END"
    return f"DO {_quoted(raised)};"


def _each(statements: Iterable[str]) -> list[str]:
    """*statements*, each by itself, and only where it has not been done."""
    return [
        line for one in statements for line in _unless_in_effect(one, outside([one]) if alone(one) else [ended(one)])
    ]


def _arrived(start: frozenset[str]) -> list[str]:
    """Stops the script where the version table is not as it was when the window opened."""
    wanted = ", ".join(sorted(start))
    why = f"the version table is not at {wanted or 'base'}, where this window opened: somebody else migrated further"
    return ["-- Is the version table as it was?", *_if(f"{_ask('heads')} <> {_quoted(wanted)}", [_stop(why)])]


# A step


def _step(step: Step, plan: AbortPlan, ground: Ground, revisions: Revisions | None) -> list[str]:
    """What takes one step back, under a line that names it; nothing where nothing can."""
    parts: list[str] = []
    if step.rollback:
        parts += _persons(step.id, step.rollback)
    if isinstance(step, Sql) and step.undo:
        parts += _if(_ended_and_there(step.id), _done_with(step.id, [step.undo]))
    for action in plan.actions:
        if action.step == step.id and action.sql and action.kind not in _FROM_THE_RUNBOOK:
            noted = _ask("said", ev.StepNoted.kind, step.id, TAKEN_BACK)
            parts += [f"-- {one_line(action.title)}", *_if(f"NOT {noted}", _done_with(step.id, action.sql))]
    if isinstance(step, Backfill) and step.undo and not parts:
        parts += _unknown_images(step.id, plan.seq)
    if isinstance(step, Migrate) and revisions is not None:
        parts += _migration(step.id, ground, revisions)
    return ["", f"-- {one_line(step.id)} ({step.kind})", *parts] if parts else []


_FROM_THE_RUNBOOK = (ActionKind.STOP, ActionKind.PERSON, ActionKind.SQL, ActionKind.CLEAN, ActionKind.DOWNGRADE)
"""Kinds of actions of a step that are known before it runs: they do not come from the plan."""


def _persons(step: str, how: str) -> list[str]:
    variable = "undone_" + re.sub(r"[^A-Za-z0-9]", "_", step)
    message = f"{step} has to be undone by a person now: {one_line(how)}; then run this again with -v {variable}=1"
    signed = [rf"\if :{{?{variable}}}", _says(step), r"\else", _stop(message), r"\endif"]
    return _if(_ended_and_there(step), signed)


def _unknown_images(step: str, seq: int) -> list[str]:
    """Stops the script where a backfill kept before-images only after it was laid: how it kept them is not in it."""
    why = f"what {step} overwrote is kept (dbwatch.backfill.images says where), and this script, as of event {seq},"
    return _if(_ask("kept", step), [_stop(f"{why} does not know how to bring it back: dbwatch abort does")])


def _done_with(step: str, statements: Sequence[str]) -> list[str]:
    """*statements* and the journal's word of it, in one transaction where they can be in one."""
    if any(alone(statement) for statement in statements):
        return [*outside(statements), _says(step)]
    return ["BEGIN;", *map(ended, statements), _says(step), "COMMIT;"]


def alone(statement: str) -> bool:
    """Whether *statement* cannot run in a transaction."""
    return grammar.read(statement).concurrently or _OUTSIDE.match(statement) is not None


_OUTSIDE = re.compile(r"\s*(VACUUM|ALTER\s+SYSTEM|(CREATE|DROP)\s+(DATABASE|TABLESPACE))\b", re.IGNORECASE)


def outside(statements: Iterable[str]) -> list[str]:
    """*statements*, each by itself; a concurrent one however long it waits: lock_timeout would break it off."""
    lines: list[str] = []
    for one in statements:
        waits = grammar.read(one).concurrently
        lines += ["SET lock_timeout = 0;", ended(one), "SET lock_timeout = '2s';"] if waits else [ended(one)]
    return lines


# Revisions


def _migration(step: str, ground: Ground, revisions: Revisions) -> list[str]:
    """What takes a migrate step back: what a cut-off revision left, then revision after revision."""
    lines: list[str] = []
    for revision in reversed(revisions.up.get(step, ())):
        if left := remains(revision, ground):
            applied = _ask("at", *revisions.above(revision.revision))
            cut_off = f"{_ask('said', ev.DdlSeen.kind, revision.revision)} AND NOT {applied}"
            lines += [f"-- What {revision.revision} left, if it was cut off", *_if(cut_off, left)]
    own = revisions.down.get(step, ())
    for revision in own:
        lines.append(f"-- Downgrade {revision.revision}")
        says = [_says(step)] if revision is own[-1] else []
        lines += _if(_ask("at", revision.revision), _downgrade(revision, revisions, says))
    return lines


def _downgrade(revision: RevisionSql, revisions: Revisions, says: list[str]) -> list[str]:
    """One revision, each transaction with all that belongs to it: the last one moves the version table."""
    if why := revisions.why_not(revision):
        return [_stop(f"{revision.revision}: {why}; see rollback.md")]
    *before, (_, last) = _pieces(revision.statements)
    lines: list[str] = []
    for by_itself, piece in before:
        again = [line for one in piece for line in _unless_in_effect(one, _run(one, by_itself))]
        lines += again if by_itself else ["BEGIN;", *again, "COMMIT;"]
    moves = revisions.moves(revision.revision)
    return [*lines, "BEGIN;", *map(ended, last), *map(ended, moves), *says, "COMMIT;"]


def _run(statement: str, by_itself: bool) -> list[str]:
    return outside([statement]) if by_itself else [ended(statement)]


def _pieces(statements: Sequence[RenderedStatement]) -> list[tuple[bool, list[str]]]:
    """*statements* cut where one cannot be in a transaction, and whether that is so of the piece.

    The last piece can be in one; it may be empty.
    """
    pieces: list[tuple[bool, list[str]]] = []
    for by_itself, piece in groupby(statements, _by_itself):
        pieces.append((by_itself, [statement.sql for statement in piece]))
    return pieces if pieces and not pieces[-1][0] else [*pieces, (False, [])]


def _by_itself(statement: RenderedStatement) -> bool:
    return statement.alone or alone(statement.sql)


def _unless_in_effect(statement: str, lines: list[str]) -> list[str]:
    """*lines*, which run *statement*, where it has not been done: a script cut off behind it is run again."""
    named = grammar.read(statement).named
    if not named or any(one.action is DdlAction.ALTER or one.kind not in _ASKED for one in named):
        return lines
    makes_index = [one for one in named if one.kind == "index" and one.action is DdlAction.CREATE]
    broken = [f"DROP INDEX CONCURRENTLY IF EXISTS {_relation(one)};" for one in makes_index if alone(statement)]
    return _if(f"NOT ({' AND '.join(map(_in_effect, named))})", [*broken, *lines])


_ASKED = ("table", "column", "constraint", "index")


def _in_effect(named: Named) -> str:
    part = named.kind in ("column", "constraint")
    made = named.action is DdlAction.CREATE
    kind = "valid index" if named.kind == "index" and made else named.kind
    there = _ask("there", kind, _relation(named), named.name if part else "")
    return there if made else f"NOT {there}"


def _relation(named: Named) -> str:
    """The relation that *named* is, or is part of."""
    name = named.parent if named.kind in ("column", "constraint") and named.parent else named.name
    return sql.Identifier(*([named.schema] if named.schema else []), name).as_string()


def remains(revision: RevisionSql, ground: Ground) -> list[str]:
    """What drops all that *revision* commits before it is whole: up to its last statement outside a transaction.

    Nothing that stood at the opening.
    """
    last = max((n for n, statement in enumerate(revision.statements) if _by_itself(statement)), default=-1)
    named = [one for statement in revision.statements[: last + 1] for one in grammar.read(statement.sql).named]
    made = [one for one in named if one.action is DdlAction.CREATE and one.name and not _stood(one, ground)]
    tables = {one.name for one in made if one.kind == "table"}
    lines: list[str] = []
    for one in reversed(made):
        if one.parent not in tables:
            lines += _drop(one)
    return lines


def _stood(named: Named, ground: Ground) -> bool:
    """Whether an object of that name was there when the window opened."""
    return any(
        (item.kind, item.name) == (named.kind, named.name)
        and (named.kind == "index" or (item.parent or None) == named.parent)
        for item in ground.opening.items.values()
    )


def _drop(named: Named) -> list[str]:
    relation, name = _relation(named), sql.Identifier(named.name).as_string()
    match named.kind:
        case "index":
            return outside([f"DROP INDEX CONCURRENTLY IF EXISTS {relation}"])
        case "column" | "constraint":
            return [f"ALTER TABLE IF EXISTS {relation} DROP {named.kind.upper()} IF EXISTS {name};"]
        case "table" | "view" | "materialized view" | "sequence" | "type" | "domain":
            return [f"DROP {named.kind.upper()} IF EXISTS {relation};"]
        case _:
            return [f"-- by hand: drop {named.kind} {one_line(name)}"]
