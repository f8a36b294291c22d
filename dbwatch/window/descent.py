"""How far down the revisions go, and what that leaves: foreseen statement by statement. Pure.

A revision that cannot be taken back is a barrier: the way back goes down to just above it and no further. A downgrade
that does nothing is one too where its upgrade did change the schema: running it would move the version away from the
truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbwatch.journal.events import DdlSeen
from dbwatch.migration import way
from dbwatch.migration.chain import Body, Chain
from dbwatch.migration.ddl import JournalledDdl
from dbwatch.migration.fingerprint import Change, Fingerprint
from dbwatch.migration.foresee import carried_out
from dbwatch.migration.mend import Mend
from dbwatch.migration.request import RevisionSql
from dbwatch.migration.residue import residue
from dbwatch.migration.resting import WouldFail
from dbwatch.migration.scene import Scene
from dbwatch.window.prediction import UNREAD, Prediction
from dbwatch.window.remains import forward, journalled, left_over

WHY_NOT = {
    Body.MISSING: "it has no downgrade",
    Body.RAISES: "its downgrade raises",
    Body.NOOP: "its downgrade does nothing, the schema would stay",
}


@dataclass(frozen=True, slots=True)
class Schema:
    """What is known of the schema when a way back is planned."""

    opening: Fingerprint
    now: Fingerprint
    major: int
    filled: frozenset[str] = frozenset()
    """Tables that hold rows, by their bare names."""


def body_of(chain: Chain | None, revision: str) -> Body:
    """What the revision's downgrade is by its source."""
    if chain is None:
        return Body.UNKNOWN
    return next((r.downgrade for r in chain.revisions if r.id == revision), Body.UNKNOWN)


def changed_schema(revision: str, ddl: Sequence[DdlSeen]) -> bool:
    """Whether the revision's upgrade, as this window ran it, sent any DDL."""
    return any(fact.revision == revision and fact.attempt > 0 for fact in ddl)


def barrier(chain: Chain | None, revision: str, ddl: Sequence[DdlSeen]) -> str:
    """Why the revision's downgrade must not be run; empty where it may.

    Doing nothing is right where there is nothing to take back: after a merge, or an upgrade that changed no schema.
    """
    body = body_of(chain, revision)
    if body is Body.NOOP and not changed_schema(revision, ddl):
        return ""
    return WHY_NOT.get(body, "")


class Descent:
    """The schema and the version table under the actions of a way back, one after the other."""

    def __init__(
        self, schema: Schema | None, chain: Chain | None, heads: frozenset[str], start: frozenset[str],
        ddl: Sequence[DdlSeen], by_sql: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.heads = heads
        self.unsure: list[str] = []
        self._schema, self._chain, self._start, self._ddl = schema, chain, start, ddl
        self._by_sql = by_sql
        self._scene = Scene.of(schema.now, schema.opening, schema.major, schema.filled) if schema else None

    def remove(self, mends: Sequence[Mend]) -> None:
        """Takes left-overs away."""
        for statement in (sql for mend in mends for sql in mend.sql):
            self._try([statement], None)

    def undo(self, statement: str, step: str) -> str:
        """A step's own `undo`; why it would fail, or nothing."""
        self._by_sql -= {f"step {step}"}
        return self._try([statement], None)

    def down(self, rendered: RevisionSql) -> str:
        """One revision; why it stays applied, or nothing."""
        revision = rendered.revision
        why = barrier(self._chain, revision, self._ddl) or self._try([s.sql for s in rendered.statements], revision)
        if why:
            return why
        if rendered.trouble and body_of(self._chain, revision) is not Body.NOOP:
            self.unsure.append(f"{revision}: {rendered.trouble}")
        if self._chain is not None:
            applied = way.closure(self._chain, self.heads) - {revision}
            self.heads = way.heads_of(self._chain, applied)
        return ""

    def _try(self, statements: Sequence[str], revision: str | None) -> str:
        if self._scene is None:
            return ""
        try:
            self._scene = carried_out(self._scene, statements, revision)
        except WouldFail as error:
            return f"its downgrade would fail: {error}" if revision else f"it would fail: {error}"
        return ""

    def left(self) -> tuple[Mend, ...]:
        """What the comparison at the end would find of ours, and remove."""
        if self._scene is None or self._schema is None:
            return ()
        mends, _ = left_over(self._schema.opening, self._scene.fingerprint, self._all, self._steps, self.accounted)
        return mends

    @property
    def back(self) -> bool:
        """The version table is where it was at the opening."""
        return self.heads == self._start

    @property
    def accounted(self) -> frozenset[str | None]:
        """The revisions, and steps, that are still applied."""
        if self.back or self._chain is None:
            return self._by_sql
        between = way.closure(self._chain, self.heads) - way.closure(self._chain, self._start)
        return between | self._by_sql | ({None} if self.heads else set())

    @property
    def _steps(self) -> list[JournalledDdl]:
        return forward(self._ddl)

    @property
    def _all(self) -> list[JournalledDdl]:
        ran = self._scene.ddl if self._scene else []
        return [*(journalled(fact) for fact in self._ddl), *ran]

    def gone(self) -> tuple[tuple[str, ...], tuple[tuple[str, str, str], ...]]:
        """What is there now and would be gone: others' objects by key, and our columns by schema, table and name."""
        if self._scene is None or self._schema is None:
            return (), ()
        after = self._scene.things
        differs = residue(self._schema.opening, self._schema.now, [journalled(fact) for fact in self._ddl])
        theirs = tuple(d.key for d in differs.not_ours if d.kind is Change.ADDED and d.item.key not in after)
        ours = [left.difference.item for left in differs.ours if left.difference.item.key not in after]
        columns = tuple((i.schema, i.parent, i.name) for i in ours if i.kind == "column")
        return theirs, columns

    def prediction(self, stops: str) -> Prediction:
        """How it stands now."""
        heads = tuple(sorted(self.heads))
        if self._scene is None or self._schema is None:
            unsure = (*self.unsure, UNREAD)
            return Prediction(heads, self.back and not stops, stops=stops, unsure=unsure)
        found = residue(self._schema.opening, self._scene.fingerprint, self._all)
        ours = tuple(sorted(left.difference.key for left in found.ours))
        others = tuple(sorted(difference.key for difference in found.not_ours))
        unsure = tuple(dict.fromkeys((*self.unsure, *self._scene.unsure)))
        return Prediction(heads, self.back and found.empty, ours, others, stops, unsure)
