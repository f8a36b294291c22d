"""Computes the way back from a situation. Pure: the same situation gives the same plan.

The application goes back before the schema that it needs: finished steps are walked in reverse, what no
transaction took back is cleaned first (it lies on top), and the schema is compared at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dbwatch.journal.fold import StepState, StepStatus, WindowState
from dbwatch.migration.chain import Body, Chain
from dbwatch.migration.request import RevisionSql
from dbwatch.runbook.model import Backfill, Migrate, Runbook, Sql, Step
from dbwatch.text import count
from dbwatch.window.abort import AbortPlan, Action, ActionKind

CHILD_S = 1.5
"""Starting Alembic in its process, measured on two cores."""
STATEMENT_S = 0.2
"""A statement that only touches the catalogue."""
REWRITE_ROWS_PER_S = 100_000.0
"""An UPDATE of a whole table (facts: 128,000 rows/s on two cores)."""
INDEX_ROWS_PER_S = 400_000.0
"""CREATE INDEX, both scans of CONCURRENTLY included."""

_TOUCHED = (StepStatus.DONE, StepStatus.FAILED, StepStatus.RUNNING, StepStatus.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that our own DDL made, that is there now, and that no applied revision accounts for."""

    key: str
    sql: tuple[str, ...]
    """What takes it away; empty: by hand."""
    note: str = ""
    """What a person should know of that."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that the way back depends on."""

    state: WindowState
    runbook: Runbook
    target: str
    """`shop@prod-db1 (primary, 16.4)`."""
    heads: frozenset[str]
    """As the version table has them now."""
    downgrades: Mapping[str, tuple[RevisionSql, ...]] = field(default_factory=dict)
    """By step: what Alembic would run from where the steps behind it leave the database."""
    chain: Chain | None = None
    leftovers: tuple[Leftover, ...] = ()
    unread: str = ""
    """Why the schema cannot be read now: our own running work may hold the lock; empty where it was read."""
    not_ours: tuple[str, ...] = ()
    """Differences from the opening that nothing of ours explains."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Live rows by table name, as the server estimates them."""
    waits: Mapping[str, str] = field(default_factory=dict)
    """By step (or `clean`): for whom its statements would wait now."""
    blockers: tuple[int, ...] = ()
    running: str = ""
    """What of ours runs now, in plain words."""
    opened: str = ""
    """The opening's instant, for a sentence."""


def plan(situation: Situation) -> AbortPlan:
    """The way back from here to where the window opened."""
    s = situation
    actions = [
        Action(
            ActionKind.FENCE,
            f"fence: epoch {s.state.epoch} → {s.state.epoch + 1}, nothing older can commit",
            estimate_s=0.1,
        )
    ]
    running = s.state.running
    if running is not None:
        notes = (s.running,) if s.running else ()
        actions.append(
            Action(
                ActionKind.STOP, f"stop {running.id}, which is running", step=running.id, estimate_s=1.0, notes=notes
            )
        )
    if s.leftovers or (running is not None and isinstance(s.runbook.step(running.id), Migrate | Sql)):
        actions.append(_clean(s))
    for step in reversed(list(s.runbook.steps())):
        known = s.state.step(step.id)
        if known.status in _TOUCHED and not known.undone:
            actions.extend(_undo(s, step, known))
    actions.append(
        Action(ActionKind.COMPARE, f"compare the schema with the one at {s.opened or 'the opening'}", estimate_s=1.0)
    )
    return AbortPlan(
        database=s.state.database,
        target=s.target,
        seq=s.state.seq,
        actions=tuple(actions),
        lost=tuple(_lost(s)),
        obstacles=tuple(_obstacles(s)),
        budget_s=s.runbook.rollback_budget,
        blockers=s.blockers,
    )


def _clean(s: Situation) -> Action:
    sql = tuple(sql for left in s.leftovers for sql in left.sql)
    notes = [f"{left.key}: {left.note}" for left in s.leftovers if left.note]
    if waits := s.waits.get("clean", ""):
        notes.append(f"would wait now for {waits}")
    if s.unread:
        notes.append(f"what is there now cannot be read: {s.unread}; it is found out once our work has ended")
    what = ", ".join(left.key for left in s.leftovers) or "whatever it is once our work has ended"
    title = f"clean up what no transaction took back: {what}"
    return Action(ActionKind.CLEAN, title, sql=sql, estimate_s=1.0 * len(sql), notes=tuple(notes))


def _undo(s: Situation, step: Step, known: StepState) -> list[Action]:
    found: list[Action] = []
    if step.rollback and known.status is StepStatus.DONE:
        found.append(Action(ActionKind.PERSON, f"undo {step.id}: {step.rollback}", step=step.id))
    if isinstance(step, Sql) and step.undo and known.status in (StepStatus.DONE, StepStatus.UNKNOWN):
        found.append(
            Action(ActionKind.SQL, f"undo {step.id}", step=step.id, sql=(step.undo,), estimate_s=known.seconds or 1.0)
        )
    if isinstance(step, Migrate) and step.id in s.downgrades:
        found.append(_downgrade(s, step, known, s.downgrades[step.id]))
    return found


def _downgrade(s: Situation, step: Migrate, known: StepState, rendered: tuple[RevisionSql, ...]) -> Action:
    sql = tuple(statement.sql for revision in rendered for statement in revision.statements)
    notes = [f"{r.revision}: {r.trouble}" for r in rendered if r.trouble]
    if waits := s.waits.get(step.id, ""):
        notes.append(f"would wait now for {waits}")
    start = ", ".join(r.revision for r in rendered)
    return Action(
        ActionKind.DOWNGRADE,
        f"downgrade {start} → {', '.join(known.heads_before) or 'base'}",
        step=step.id,
        sql=sql,
        heads=known.heads_before,
        estimate_s=CHILD_S + sum(estimate(statement, s.rows) for statement in sql),
        notes=tuple(notes),
    )


def estimate(statement: str, rows: Mapping[str, int]) -> float:
    """Seconds that one statement of a downgrade may take where nothing is in its way."""
    words = statement.upper()
    touched = max((n for table, n in rows.items() if table.upper() in words), default=0)
    if words.startswith(("UPDATE", "DELETE", "INSERT")):
        return STATEMENT_S + touched / REWRITE_ROWS_PER_S
    if words.startswith(("CREATE INDEX", "CREATE UNIQUE INDEX")):
        return STATEMENT_S + touched / INDEX_ROWS_PER_S
    return STATEMENT_S


def _obstacles(s: Situation) -> list[str]:
    found = []
    for revisions in s.downgrades.values():
        for rendered in revisions:
            body = _body(s.chain, rendered.revision)
            why = _WHY_NOT.get(body)
            if why:
                found.append(f"{rendered.revision}: {why}")
    found.extend(f"{left.key}: {left.note}" for left in s.leftovers if not left.sql)
    return found


_WHY_NOT = {
    Body.MISSING: "it has no downgrade",
    Body.RAISES: "its downgrade raises",
    Body.NOOP: "its downgrade does nothing, the schema would stay",
}


def _body(chain: Chain | None, revision: str) -> Body:
    if chain is None:
        return Body.UNKNOWN
    return next((r.downgrade for r in chain.revisions if r.id == revision), Body.UNKNOWN)


def _lost(s: Situation) -> list[str]:
    found = []
    for step in s.runbook.steps():
        known = s.state.step(step.id)
        if not isinstance(step, Backfill) or known.status not in _TOUCHED:
            continue
        column = step.set.partition("=")[0].strip()
        rows = f" ({known.text})" if known.status is StepStatus.DONE and known.text else ""
        if creator := _creator(s, step.table, column):
            found.append(f"{step.table}.{column}{rows}: made by {creator}, goes with the column")
        else:
            found.append(f"{step.table}.{column}{rows}: existed at the opening; what it held before is not kept")
    for ddl in s.state.ddl:
        for o in ddl.objects:
            if o.get("action") == "drop" and o.get("kind") in ("column", "table") and _kept(s, ddl.step):
                name = ".".join(str(part) for part in (o.get("parent"), o.get("name")) if part)
                found.append(f"{name}: dropped by {ddl.step}; its downgrade makes it anew, not what it held")
    if s.not_ours:
        found.append(f"not ours, stays as it is: {count(len(s.not_ours))} ({', '.join(s.not_ours[:3])})")
    return found


def _kept(s: Situation, step_id: str) -> bool:
    return s.state.step(step_id).status is StepStatus.DONE


def _creator(s: Situation, table: str, column: str) -> str:
    for ddl in s.state.ddl:
        for o in ddl.objects:
            made = o.get("action") == "create" and o.get("name")
            if made in (column, table) and o.get("parent") in (table.rpartition(".")[2], None):
                return ddl.step
    return ""


def point_of_no_return(
    runbook: Runbook,
    upgrades: Mapping[str, tuple[RevisionSql, ...]],
    chain: Chain | None,
    drops: Mapping[str, str],
    created: frozenset[str] = frozenset(),
) -> tuple[str, str] | None:
    """The first step past which there is no whole way back, and why; None where every step can be taken back.

    *upgrades* holds what each migrate step will run, *drops* by step what it drops that existed at the opening,
    *created* the columns (`users.phone`) that the window itself makes.
    """
    for step in runbook.steps():
        if isinstance(step, Migrate):
            for revision in upgrades.get(step.id, ()):
                why = _WHY_NOT.get(_body(chain, revision.revision))
                if why:
                    return step.id, f"{revision.revision}: {why}"
            if step.id in drops:
                return step.id, f"it drops {drops[step.id]}, which held rows before this window"
        if isinstance(step, Backfill):
            column = f"{step.table.rpartition('.')[2]}.{step.set.partition('=')[0].strip()}"
            if column not in created:
                return step.id, f"it overwrites {column}, which existed at the opening"
    return None
