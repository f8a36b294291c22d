"""The way back on paper: a page for a person with psql and alembic, rollback.md. Pure.

The script that does the same without alembic, rollback.sql, is in script.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from dbwatch.runbook.model import Migrate
from dbwatch.text import clock, one_line
from dbwatch.window.abort import AbortPlan, Action, ActionKind
from dbwatch.window.ground import Ground
from dbwatch.window.revisions import Revisions
from dbwatch.window.script import alone, ended, fence, outside, remains

_NEWEST = "SELECT max(seq) FROM dbwatch.event WHERE window_id = (SELECT id FROM dbwatch.window WHERE closed_at IS NULL)"
_LOCK_TIMEOUT = "SET lock_timeout = '2s';"


def rollback_md(plan: AbortPlan, ground: Ground, revisions: Revisions | None, heads: frozenset[str]) -> str:
    """The page that a person follows if dbwatch itself cannot; *heads* are the version table's now."""
    window = ground.store.window
    budget = f" of {clock(plan.budget_s)}" if plan.budget_s else ""
    lines = [
        f"# The way back: {one_line(plan.target)}",
        "",
        f"Window {window}, as of event {plan.seq}. Estimated {clock(plan.estimate_s)}{budget}.",
        "",
        "Blocks of SQL are for `psql -X -v ON_ERROR_STOP=1`, in their order; the others are for a shell.",
        "`rollback.sql` beside this page does the same with psql alone: it looks itself what is due, and can be run",
        f"again where it was cut off. Take that where `{_NEWEST}` tells of an event after {plan.seq}.",
        "",
    ]
    for number, action in enumerate(plan.actions, 1):
        lines.append(f"{number}. {one_line(action.title)}")
        lines += [f"   - {one_line(note)}" for note in action.notes]
        lines += _by_hand(action, plan, ground, revisions, heads)
        heads = frozenset(action.heads) if action.kind is ActionKind.DOWNGRADE else heads
    lines += ["", "`dbwatch abort` with the runbook then compares the schema with the opening's and closes the window."]
    if plan.lost:
        lines += ["", "## What this loses", "", *(f"- {one_line(lost)}" for lost in plan.lost)]
    if plan.obstacles:
        lines += ["", "## In the way", "", *(f"- {one_line(obstacle)}" for obstacle in plan.obstacles)]
    return "\n".join(lines) + "\n"


def _by_hand(
    action: Action, plan: AbortPlan, ground: Ground, revisions: Revisions | None, heads: frozenset[str]
) -> list[str]:
    match action.kind:
        case ActionKind.FENCE:
            return _block("sql", fence(ground))
        case ActionKind.CLEAN:
            lines = _block("sql", _each(action.sql)) if action.sql else []
            return lines + [line for step in _running(plan) for line in _cut_off(step, ground, revisions)]
        case ActionKind.DOWNGRADE if revisions is not None and ground.alembic is not None:
            waits = any(alone(statement) for statement in action.sql)
            limit = "" if waits else "PGOPTIONS='-c lock_timeout=2s' "
            command = f"{limit}alembic -c {ground.alembic.name} downgrade "
            targets = revisions.commands(heads, frozenset(action.heads))
            return _block("sh", [f"cd '{ground.alembic.parent}'", *(command + target for target in targets)])
        case ActionKind.STOP | ActionKind.PERSON:
            return []
        case _:
            return _block("sql", _together(action.sql)) if action.sql else []


def _running(plan: AbortPlan) -> list[str]:
    """The step that ran when the plan was made."""
    return [action.step for action in plan.actions if action.kind is ActionKind.STOP]


def _cut_off(step: str, ground: Ground, revisions: Revisions | None) -> list[str]:
    """A block that drops what the running migrate step may have left: for each revision that is not applied."""
    if revisions is None or not isinstance(ground.runbook.step(step), Migrate):
        return []
    lines: list[str] = []
    applied = sql.SQL("SELECT NOT EXISTS (SELECT FROM {} WHERE version_num IN ({})) AS cut_off")
    for revision in reversed(revisions.up.get(step, ())):
        if left := remains(revision, ground):
            above = sql.SQL(", ").join(map(sql.Literal, revisions.above(revision.revision)))
            asked = applied.format(revisions.version_table, above).as_string()
            lines += [rf"{asked} \gset", r"\if :cut_off", *left, r"\endif"]
    return _block("sql", [_LOCK_TIMEOUT, *lines]) if lines else []


def _each(statements: Iterable[str]) -> list[str]:
    lines = [line for one in statements for line in (outside([one]) if alone(one) else [ended(one)])]
    return [_LOCK_TIMEOUT, *lines]


def _together(statements: Iterable[str]) -> list[str]:
    """*statements* in one transaction, where all of them can be in one."""
    found = list(statements)
    if any(alone(one) for one in found):
        return _each(found)
    return [_LOCK_TIMEOUT, "BEGIN;", *map(ended, found), "COMMIT;"]


def _block(language: str, lines: Iterable[str]) -> list[str]:
    """*lines* fenced, and indented as a list's item is."""
    return [f"   ```{language}", *(f"   {line}" for text in lines for line in text.splitlines()), "   ```"]
