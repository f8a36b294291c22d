"""What a step does besides the schema, and which steps have left nothing once the schema is back. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import postgast

from dbwatch.backfill.kept import Kept
from dbwatch.journal.fold import StepState, StepStatus, WindowState
from dbwatch.migration import grammar
from dbwatch.runbook.model import Backfill, Check, Manual, Migrate, Runbook, Sql, Step
from dbwatch.window import restoring
from dbwatch.window.restoring import Creator

_UPKEEP = frozenset({"vacuum_stmt", "reindex_stmt", "cluster_stmt", "refresh_mat_view_stmt", "check_point_stmt"})
"""Statements that change neither the schema nor what rows hold."""


def schema_alone(text: str) -> bool:
    """Whether the grammar proves that *text*, one statement or several, changes the schema and nothing else.

    It proves nothing of a SELECT, which may call any function, nor of a DO.
    """
    try:
        statements = postgast.parse(text).stmts
    except (postgast.PgQueryError, UnicodeEncodeError):
        return False
    raw = text.encode()
    for one in statements:
        end = one.stmt_location + one.stmt_len if one.stmt_len else len(raw)
        reading = grammar.read(raw[one.stmt_location : end].decode())
        if not (reading.known and reading.named) and one.stmt.WhichOneof("node") not in _UPKEEP:
            return False
    return True


def for_good(step: Sql) -> bool:
    """Whether nothing takes back what the statement of *step* does besides the schema."""
    return not step.undo and not step.rollback and not schema_alone(step.sql)


def gone(state: WindowState, runbook: Runbook, images: Iterable[Kept], creator: Creator) -> list[str]:
    """The steps of which nothing is left, where all that they made of the schema is gone and the heads are back."""
    kept = tuple(images)
    begun = [(s, state.step(s.id)) for s in runbook.steps()]
    return [
        step.id
        for step, known in begun
        if known.status not in (StepStatus.PENDING, StepStatus.WAIVED) and _nothing_left(step, known, kept, creator)
    ]


def _nothing_left(step: Step, known: StepState, images: tuple[Kept, ...], creator: Creator) -> bool:
    if known.undone:
        return True
    match step:
        case Manual():
            return False
        case Check() | Migrate():
            return True
        case Sql():
            return known.status is StepStatus.FAILED or schema_alone(step.sql)
        case Backfill():
            mine = [one for one in images if one.step == step.id]
            stood = [c for c in restoring.columns_of(step) if not creator(restoring.table_of(step), c)]
            return not stood or (step.undo and all(one.over for one in mine))
