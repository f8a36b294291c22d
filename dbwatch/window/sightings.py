"""What a plan sees around it: who is in the way, how long things took, what hangs on the rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from dbwatch.journal.chain import Event
from dbwatch.journal.events import DdlSeen
from dbwatch.migration import grammar
from dbwatch.migration.mend import Mend
from dbwatch.migration.request import RevisionSql
from dbwatch.monitor.samples import Snapshot
from dbwatch.steps.patience import needs
from dbwatch.window import blockers
from dbwatch.window.abort import Blocker


def holders(
    snapshot: Snapshot,
    downgrades: Mapping[str, tuple[RevisionSql, ...]],
    left: tuple[Mend, ...],
    undos: Mapping[str, str],
) -> dict[str, tuple[Blocker, ...]]:
    """By step, or `clean`, for whom its statements would wait now."""
    texts = {step: [s.sql for r in rendered for s in r.statements] for step, rendered in downgrades.items()}
    texts["clean"] = [sql for item in left for sql in item.sql]
    texts.update({step: [sql] for step, sql in undos.items()})
    found: dict[str, tuple[Blocker, ...]] = {}
    for key, statements in texts.items():
        if waits := blockers.in_the_way(snapshot, needs(statements).relations):
            found[key] = waits
    return found


def built(events: Sequence[Event]) -> dict[str, float]:
    """By table, how long the slowest index build of the window took: from sent to done, by the journal's clock."""
    sent: dict[tuple[str, int, int], datetime] = {}
    found: dict[str, float] = {}
    for event in events:
        fact = event.fact
        if not isinstance(fact, DdlSeen):
            continue
        key = (fact.step, fact.attempt, fact.n)
        if not fact.done:
            sent[key] = event.at
            continue
        took = (event.at - sent.get(key, event.at)).total_seconds()
        for o in fact.objects:
            if o.get("action") == "create" and o.get("kind") == "index" and o.get("parent"):
                found[str(o["parent"])] = max(took, found.get(str(o["parent"]), 0.0))
    return found


def needs_rows(rendered: Iterable[RevisionSql]) -> set[str]:
    """Tables that get a NOT NULL: whether that can be done depends on the rows they hold."""
    statements = [s.sql for revision in rendered for s in revision.statements if "NOT NULL" in s.sql.upper()]
    return {n.parent for sql in statements for n in grammar.read(sql).named if n.kind == "column" and n.parent}
