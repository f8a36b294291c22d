"""Computes the way back from a situation. Pure: the same situation gives the same plan.

The application goes back before the schema that it needs: finished steps are walked in reverse, what no
transaction took back is cleaned first (it lies on top), and the schema is compared at the end.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from dbwatch.backfill.kept import Kept
from dbwatch.journal.events import DdlSeen
from dbwatch.journal.fold import StepState, StepStatus, WindowState
from dbwatch.migration import grammar, way
from dbwatch.migration.chain import Body, Chain
from dbwatch.migration.locks import Mode, expect
from dbwatch.migration.mend import Mend
from dbwatch.migration.request import RevisionSql
from dbwatch.runbook.model import Backfill, Migrate, Runbook, Sql
from dbwatch.steps.sql import made_by
from dbwatch.text import count, one_line
from dbwatch.window import effects, restoring
from dbwatch.window.abort import AbortPlan, Action, ActionKind, Blocker
from dbwatch.window.counting import told
from dbwatch.window.descent import WHY_NOT, Descent, Schema, body_of
from dbwatch.window.prediction import Prediction

CHILD_S = 1.5
"""Starting Alembic in its process, measured on two cores."""
STATEMENT_S = 0.2
"""A statement that only touches the catalogue."""
REWRITE_ROWS_PER_S = 100_000.0
"""An UPDATE of a whole table (facts: 128,000 rows/s on two cores)."""
INDEX_ROWS_PER_S = 400_000.0
"""CREATE INDEX, both scans of CONCURRENTLY included."""

_MAY_HAVE_DONE = (StepStatus.DONE, StepStatus.UNKNOWN)
_TOUCHED = (StepStatus.DONE, StepStatus.FAILED, StepStatus.RUNNING, StepStatus.UNKNOWN)


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
    schema: Schema | None = None
    """The schema at the opening and now; None where it cannot be read now."""
    leftovers: tuple[Mend, ...] = ()
    """What our own DDL made, that is there now, and that no applied revision accounts for."""
    unread: str = ""
    """Why the schema cannot be read now: our own running work may hold the lock; empty where it was read."""
    not_ours: tuple[str, ...] = ()
    """Differences from the opening that nothing of ours explains."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Live rows by table name, as the server estimates them."""
    images: tuple[Kept, ...] = ()
    """The before-images that the window's backfills kept, the newest first."""
    holders: Mapping[str, tuple[Blocker, ...]] = field(default_factory=dict)
    """By step (or `clean`): for whom its statements would wait now."""
    held: Mapping[tuple[str, str, str], int | None] = field(default_factory=dict)
    """By schema, table and column: how many values it holds, as far as counted."""
    builds: Mapping[str, float] = field(default_factory=dict)
    """By table: seconds that this window's own index build on it took."""
    blockers: tuple[int, ...] = ()
    running: str = ""
    """What of ours runs now, in plain words."""
    opened: str = ""
    """The opening's instant, for a sentence."""


def plan(situation: Situation) -> AbortPlan:
    """The way back from here to where the window opened, or to the last point that it can reach."""
    s = situation
    descent = Descent(
        s.schema, s.chain, s.heads, frozenset(s.state.start_heads), s.state.ddl, undone_by_sql(s.state, s.runbook)
    )
    actions, stops = _walk(s, descent)
    compare = f"compare the schema with the one at {s.opened or 'the opening'}"
    left = descent.left()
    descent.remove(left)
    actions.append(Action(ActionKind.COMPARE, compare, sql=tuple(sql for m in left for sql in m.sql), estimate_s=1.0))
    foreseen = descent.prediction(stops)
    counted = _counted(s, descent)
    return AbortPlan(
        database=s.state.database,
        target=s.target,
        seq=s.state.seq,
        actions=tuple(actions),
        lost=tuple(dict.fromkeys([*_lost(s, counted), *counted.values(), *_theirs(descent)])),
        obstacles=tuple(_obstacles(s, foreseen, (*s.leftovers, *left))),
        budget_s=s.runbook.rollback_budget,
        blockers=s.blockers,
        prediction=foreseen,
    )


def _walk(s: Situation, descent: Descent) -> tuple[list[Action], str]:
    """The actions before the comparison, and where they stop short of the opening, and why."""
    fence = f"fence: epoch {s.state.epoch} → {s.state.epoch + 1}, nothing older can commit"
    actions = [Action(ActionKind.FENCE, fence, estimate_s=0.1)]
    running = s.state.running
    if running is not None:
        notes = (s.running,) if s.running else ()
        stop = f"stop {running.id}, which is running"
        actions.append(Action(ActionKind.STOP, stop, step=running.id, estimate_s=1.0, notes=notes))
    if s.leftovers or (running is not None and isinstance(s.runbook.step(running.id), Migrate | Sql)):
        actions.append(_clean(s))
        descent.remove(s.leftovers)
    for step in reversed(list(s.runbook.steps())):
        known = s.state.step(step.id)
        if step.rollback and known.status in _MAY_HAVE_DONE and not known.undone:
            actions.append(Action(ActionKind.PERSON, f"undo {step.id}: {step.rollback}", step=step.id))
        if isinstance(step, Backfill):
            actions.extend(restoring.actions(s.images, step, known, partial(_creator, s)))
        if known.status not in _TOUCHED or known.undone:
            continue
        if isinstance(step, Sql) and step.undo and known.status in _MAY_HAVE_DONE:
            if why := descent.undo(step.undo, step.id):
                return actions, f"before the undo of {step.id}: {why}"
            took = known.seconds or 1.0
            undo = Action(ActionKind.SQL, f"undo {step.id}", step=step.id, sql=(step.undo,), estimate_s=took)
            actions.append(_waiting(s, undo))
        if isinstance(step, Migrate):
            going, why = _down(descent, s.downgrades.get(step.id, ()))
            going_on = known.status is StepStatus.RUNNING and s.chain is not None
            if going or (going_on and not why):
                to = tuple(sorted(descent.heads)) if why else known.heads_before
                actions.append(_downgrade(s, step, known, going, to))
            if why:
                return actions, why
    return actions, ""


def _down(descent: Descent, rendered: tuple[RevisionSql, ...]) -> tuple[tuple[RevisionSql, ...], str]:
    """The revisions that can be taken back, and why the next one cannot."""
    for n, revision in enumerate(rendered):
        if why := descent.down(revision):
            return rendered[:n], f"above {revision.revision}: {why}"
    return rendered, ""


def undone_by_sql(state: WindowState, runbook: Runbook) -> frozenset[str]:
    """As revisions, the sql steps whose own `undo` takes back what they made."""
    done = (s.id for s in runbook.steps() if isinstance(s, Sql) and s.undo)
    return frozenset(
        made_by(id) for id in done if state.step(id).status is StepStatus.DONE and not state.step(id).undone
    )


def _clean(s: Situation) -> Action:
    sql = tuple(sql for left in s.leftovers for sql in left.sql)
    notes = [f"{left.difference.key}: {left.note}" for left in s.leftovers if left.note]
    if s.unread:
        notes.append(f"what is there now cannot be read: {s.unread}; it is found out once our work has ended")
    what = ", ".join(left.difference.key for left in s.leftovers) or "whatever it is once our work has ended"
    title = f"clean up what no transaction took back: {what}"
    return _waiting(s, Action(ActionKind.CLEAN, title, sql=sql, estimate_s=1.0 * len(sql), notes=tuple(notes)))


def _downgrade(
    s: Situation, step: Migrate, known: StepState, going: tuple[RevisionSql, ...], heads: tuple[str, ...]
) -> Action:
    sql = tuple(statement.sql for revision in going for statement in revision.statements)
    start = ", ".join(r.revision for r in going) or "what it has committed by then"
    action = Action(
        ActionKind.DOWNGRADE,
        f"downgrade {start} → {', '.join(heads) or 'base'}",
        step=step.id,
        sql=sql,
        heads=heads,
        estimate_s=CHILD_S + sum(estimate(statement, s.rows, s.builds) for statement in sql),
        notes=tuple(f"{r.revision}: {r.trouble}" for r in going if r.trouble),
        forecast=known.status is StepStatus.RUNNING,
    )
    return _waiting(s, action)


def _waiting(s: Situation, action: Action) -> Action:
    """*action* with the locks that it takes, and whom it would wait for now."""
    locks = _locks(action.sql)
    waits = s.holders.get(action.step or "clean", ())
    if not waits:
        return replace(action, locks=locks)
    words = ", ".join(blocker.words for blocker in waits[:_NAMED])
    words += f" and {len(waits) - _NAMED} more" if len(waits) > _NAMED else ""
    return replace(action, locks=locks, waits_for=waits, notes=(*action.notes, f"would wait now for {words}"))


_NAMED = 3
"""How many sessions a note names."""


def _locks(statements: tuple[str, ...]) -> tuple[str, ...]:
    """The strongest lock on each relation, the strongest first."""
    strongest: dict[str, Mode] = {}
    for lock in (lock for statement in statements for lock in expect(statement)):
        strongest[lock.relation] = max(lock.mode, strongest.get(lock.relation, lock.mode))
    ordered = sorted(strongest.items(), key=lambda item: -item[1])
    return tuple(
        f"{mode.label} on {one_line(name)}" + (f" ({mode.stops} wait)" if mode.stops else "") for name, mode in ordered
    )


def estimate(statement: str, rows: Mapping[str, int], builds: Mapping[str, float] = MappingProxyType({})) -> float:
    """Seconds that one statement of a downgrade may take where nothing is in its way.

    An index is built in the time that this window's own build on the table took, where it made one (*builds*).
    """
    words = statement.upper()
    touched = max((n for table, n in rows.items() if table.upper() in words), default=0)
    if words.startswith(("UPDATE", "DELETE", "INSERT")):
        return STATEMENT_S + touched / REWRITE_ROWS_PER_S
    if words.startswith(("CREATE INDEX", "CREATE UNIQUE INDEX")):
        if known := max((s for table, s in builds.items() if table.upper() in words), default=0.0):
            return STATEMENT_S + known
        return STATEMENT_S + touched / INDEX_ROWS_PER_S
    return STATEMENT_S


def _obstacles(s: Situation, foreseen: Prediction, left: tuple[Mend, ...]) -> list[str]:
    found = []
    if foreseen.stops:
        found.append(f"the way back stops {foreseen.stops}")
        found.extend(_way_out(s, foreseen))
    found.extend(f"{mend.difference.key}: {mend.note}" for mend in left if mend.by_hand)
    return list(dict.fromkeys(found))


def _way_out(s: Situation, foreseen: Prediction) -> list[str]:
    """What is left to do where the way back stops, and how a person can do it."""
    start = ", ".join(s.state.start_heads) or "base"
    found = []
    if s.chain is not None and frozenset(foreseen.heads) != frozenset(s.state.start_heads):
        rest = way.down(s.chain, foreseen.heads, s.state.start_heads)
        found.append(f"not taken back: {', '.join(rest)}")
        below = ", ".join(sorted(way.heads_of(s.chain, way.closure(s.chain, foreseen.heads) - {rest[0]}))) or "base"
        found.append(
            f"the way out: take back by hand what {rest[0]} did (its DDL is in the journal), `alembic stamp {below}`, "
            f"and go on down to {start} by rollback.md; or restore the backup from before the window"
        )
    return found


def _lost(s: Situation, counted: Container[tuple[str, str]]) -> list[str]:
    """What is lost of what the steps did; without the columns whose values are *counted* already."""
    found = []
    for step in s.runbook.steps():
        known = s.state.step(step.id)
        if isinstance(step, Sql) and known.status in _MAY_HAVE_DONE and not known.undone and effects.for_good(step):
            found.append(f"{step.id}: what its statement did besides the schema stays so; it has no undo")
        if not isinstance(step, Backfill) or known.status not in _TOUCHED:
            continue
        found.extend(restoring.lost(s.images, step, known, partial(_creator, s), counted))
    for ddl in _forward(s):
        for o in ddl.objects:
            if o.get("action") == "drop" and o.get("kind") in ("column", "table") and _kept(s, ddl.step):
                name = ".".join(str(part) for part in (o.get("parent"), o.get("name")) if part)
                found.append(f"{name}: dropped by {ddl.step}; its downgrade makes it anew, not what it held")
    for rendered in (r for way_down in s.downgrades.values() for r in way_down):
        if body_of(s.chain, rendered.revision) is Body.NOOP and not any(
            d.revision == rendered.revision for d in s.state.ddl
        ):
            found.append(f"{rendered.revision}: its downgrade does nothing; rows that its upgrade wrote stay so")
    if s.not_ours:
        found.append(f"not ours, stays as it is: {count(len(s.not_ours))} ({', '.join(s.not_ours[:3])})")
    return found


def _counted(s: Situation, descent: Descent) -> dict[tuple[str, str], str]:
    """By (table, column), the values that go with a column which the way back drops, and where they came from."""
    filled = {
        (restoring.table_of(step), column): _copied(step, column)
        for step in s.runbook.steps()
        if isinstance(step, Backfill) and s.state.step(step.id).status in _TOUCHED
        for column in restoring.columns_of(step)
    }
    found = {}
    for schema, table, column in descent.gone()[1]:
        held, name = s.held.get((schema, table, column), 0), one_line(f"{table}.{column}")
        if held != 0 and (source := filled.get((table, column))):
            maker = _creator(s, table, column)
            by = f" (made by {maker})" if maker else ""
            found[table, column] = f"{told(held)} of {name}{by}, copied from {table}.{source}"
        elif held != 0 and (table, column) not in filled:
            found[table, column] = f"{told(held)} of {name}, written since the opening"
    return found


def _theirs(descent: Descent) -> list[str]:
    return [f"{key}: not ours, goes along with what the way back drops" for key in descent.gone()[0]]


_COPY = re.compile(r"\s*(\w+)\s*=\s*(\w+)\s*")


def _copied(step: Backfill, column: str) -> str:
    """The column that the backfill copies *column* from; empty where it computes it."""
    copy = _COPY.fullmatch(step.set)
    return copy[2] if copy is not None and copy[1] == column and not copy[2].isdigit() else ""


def _kept(s: Situation, step_id: str) -> bool:
    return s.state.step(step_id).status is StepStatus.DONE


def _forward(s: Situation) -> tuple[DdlSeen, ...]:
    """What the steps ran; what a way back ran stands under a negative attempt."""
    return tuple(fact for fact in s.state.ddl if fact.attempt > 0)


def _creator(s: Situation, table: str, column: str) -> str:
    return restoring.creator(s.schema.opening if s.schema else None, _forward(s), table, column)


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
                body = body_of(chain, revision.revision)
                why = WHY_NOT.get(body)
                if why and not (body is Body.NOOP and _harmless(revision)):
                    return step.id, f"{revision.revision}: {why}"
        if step.id in drops:
            return step.id, f"it drops {drops[step.id]}, which held rows before this window"
        if isinstance(step, Sql) and effects.for_good(step):
            return step.id, "nothing takes back what its statement does besides the schema: it has no undo"
        if isinstance(step, Backfill):
            column = restoring.overwrites(step, created)
            if column:
                return step.id, f"it overwrites {column}, which existed at the opening"
    return None


def _harmless(upgrade: RevisionSql) -> bool:
    """Whether an upgrade changes no schema, so that a downgrade that does nothing is right."""
    readings = [grammar.read(statement.sql) for statement in upgrade.statements]
    return not upgrade.trouble and all(reading.known and not reading.named for reading in readings)
