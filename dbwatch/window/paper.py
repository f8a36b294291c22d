"""The way back on paper: a Markdown page and an SQL script, for psql and alembic alone. Pure."""

from __future__ import annotations

from dbwatch.text import clock
from dbwatch.window.abort import AbortPlan, Action, ActionKind
from dbwatch.window.ground import Ground


def rollback_md(plan: AbortPlan, ground: Ground) -> str:
    """The page that a person follows if dbwatch itself cannot."""
    lines = [
        f"# The way back: {plan.target}",
        "",
        f"Window {ground.store.window}, as of event {plan.seq}. Estimated {clock(plan.estimate_s)}"
        + (f" of {clock(plan.budget_s)}." if plan.budget_s else "."),
        "",
        "Make sure first that no dbwatch of this window runs any more.",
        "",
    ]
    for number, action in enumerate(plan.actions, 1):
        lines.append(f"{number}. {action.title}")
        lines.extend(f"   - {note}" for note in action.notes)
        lines.extend(_by_hand(action, ground))
    if plan.lost:
        lines += ["", "## What this loses", *(f"- {lost}" for lost in plan.lost)]
    if plan.obstacles:
        lines += ["", "## In the way", *(f"- {obstacle}" for obstacle in plan.obstacles)]
    return "\n".join(lines) + "\n"


def _by_hand(action: Action, ground: Ground) -> list[str]:
    match action.kind:
        case ActionKind.FENCE:
            return _block("sql", [_fence_sql(ground)])
        case ActionKind.STOP:
            return _block("sql", [_STOP_SQL])
        case ActionKind.DOWNGRADE:
            target = " ".join(action.heads) or "base"
            config = f"-c {ground.alembic.name} " if ground.alembic else ""
            return _block("sh", [f"cd {ground.alembic.parent}"] if ground.alembic else []) + _block(
                "sh", [f"alembic {config}downgrade {target}"]
            )
        case ActionKind.CLEAN | ActionKind.SQL:
            return _block("sql", [_ended(sql) for sql in action.sql])
        case _:
            return []


def _block(language: str, lines: list[str]) -> list[str]:
    return [f"   ```{language}", *(f"   {line}" for text in lines for line in text.splitlines()), "   ```"] if lines else []


def rollback_sql(plan: AbortPlan) -> str:
    """The SQL of the way back, for psql; a downgrade stands as Alembic renders it."""
    lines = [
        f"-- The way back: {plan.target}, as of event {plan.seq}. Run with: psql -v ON_ERROR_STOP=1 -f rollback.sql",
        "-- Each statement commits by itself. rollback.md tells the order of what is not SQL.",
        "SET lock_timeout = '2s';",
    ]
    for number, action in enumerate(plan.actions, 1):
        lines += ["", f"-- {number}. {one(action.title)}"]
        if action.kind is ActionKind.STOP:
            lines.append(_STOP_SQL)
        for sql in action.sql:
            alone = "CONCURRENTLY" in sql
            lines += ["SET lock_timeout = 0;"] if alone else []
            lines.append(_ended(sql))
            lines += ["SET lock_timeout = '2s';"] if alone else []
    return "\n".join(lines) + "\n"


_STOP_SQL = """SELECT pg_terminate_backend(pid), application_name, query
  FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'dbwatch %' AND pid <> pg_backend_pid();"""


def _fence_sql(ground: Ground) -> str:
    return f"UPDATE dbwatch.window SET epoch = epoch + 1 WHERE id = '{ground.store.window}';"


def _ended(sql: str) -> str:
    return sql.rstrip().rstrip(";") + ";"


def one(text: str) -> str:
    """*text* on one line, so that nothing of it leaves an SQL comment."""
    return " ".join(text.split())
