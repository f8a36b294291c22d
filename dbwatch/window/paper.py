"""The way back on paper: a Markdown page and an SQL script, for psql and alembic alone. Pure."""

from __future__ import annotations

from dbwatch.postgres.queries import query
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
        case ActionKind.FENCE | ActionKind.STOP:
            return _block("sql", [_paper(_PAPER[action.kind])])
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
    return (
        [f"   ```{language}", *(f"   {line}" for text in lines for line in text.splitlines()), "   ```"]
        if lines
        else []
    )


def rollback_sql(plan: AbortPlan) -> str:
    """The SQL of the way back, for psql; a downgrade stands as Alembic renders it."""
    lines = [
        f"-- The way back: {plan.target}, as of event {plan.seq}. Run with: psql -v ON_ERROR_STOP=1 -f rollback.sql",
        "-- Each statement commits by itself. rollback.md tells the order of what is not SQL.",
        "SET lock_timeout = '2s';",
    ]
    for number, action in enumerate(plan.actions, 1):
        lines += ["", f"-- {number}. {one(action.title)}"]
        if action.kind in _PAPER:
            lines.append(_paper(_PAPER[action.kind]))
        for sql in action.sql:
            alone = "CONCURRENTLY" in sql
            lines += ["SET lock_timeout = 0;"] if alone else []
            lines.append(_ended(sql))
            lines += ["SET lock_timeout = '2s';"] if alone else []
    return "\n".join(lines) + "\n"


_PAPER = {ActionKind.FENCE: "paper-fence", ActionKind.STOP: "paper-stop"}


def _paper(name: str) -> str:
    """The statement of that name, without its leading comment."""
    return "\n".join(line for line in query(name, 0).decode().splitlines() if not line.startswith("--"))


def _ended(sql: str) -> str:
    return sql.rstrip().rstrip(";") + ";"


def one(text: str) -> str:
    """*text* on one line, so that nothing of it leaves an SQL comment."""
    return " ".join(text.split())
