"""Finds out what the way back depends on: heads, the schema's difference, the SQL of the downgrades."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from dbwatch.backfill import kept
from dbwatch.backfill.kept import Kept
from dbwatch.errors import ConnectionLost, DbwatchError
from dbwatch.journal.fold import StepState, StepStatus, WindowState
from dbwatch.migration import fingerprint, way
from dbwatch.migration.fingerprint import Fingerprint, SchemaUnreadable
from dbwatch.migration.heads import committed_heads
from dbwatch.migration.mend import Mend
from dbwatch.migration.residue import Residue, residue
from dbwatch.monitor.samples import Snapshot
from dbwatch.runbook.model import Backfill, Migrate, Sql
from dbwatch.window import effects, restoring, wayback
from dbwatch.window.abort import AbortPlan
from dbwatch.window.counting import Counter
from dbwatch.window.descent import Schema, barrier
from dbwatch.window.ground import Ground
from dbwatch.window.prediction import Prediction
from dbwatch.window.remains import forward, journalled, left_over
from dbwatch.window.scripts import Rendered, Scripts
from dbwatch.window.sightings import built, holders, needs_rows
from dbwatch.window.wayback import Situation, undone_by_sql

PATIENCE_S = 60.0
"""How long a locked relation may keep the comparison at the end of an abort waiting."""
COLUMNS = 40
"""Of so many new columns the values are counted for a plan."""
STEADY = 5
"""How often the schema is read anew where revisions were committed meanwhile."""
GLANCE_S = 1.0
"""The same for a plan that a person waits to see."""


class Survey:
    """Looks at one window's database."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.scripts = Scripts(ground)
        self._counter = Counter(ground.connector, ground.clock)

    async def heads(self) -> frozenset[str]:
        """The version table as it is now. Raises DbwatchError or psycopg.Error."""
        chain = await self.scripts.chain()
        if chain is None:
            return frozenset()
        for _ in range(2):  # the first one may be dead, and nobody knew
            session = await self._ground.control.session()
            found = await committed_heads(session, chain)
            if found is not None:
                return found
            if session.alive:
                raise DbwatchError("the version table cannot be read", next="look at its locks and at our privileges")
        raise ConnectionLost("the connection was lost while the version table was read", next="try it again")

    async def difference(self, patience_s: float) -> Residue:
        """What differs from the opening, by whose it is.

        Raises SchemaUnreadable where a lock keeps it from being read for so long, else DbwatchError or psycopg.Error.
        """
        now = await self._fingerprint(patience_s)
        return residue(self._ground.opening, now, [journalled(fact) for fact in self._ground.store.state.ddl])

    async def leftovers(self, *, patience_s: float = PATIENCE_S) -> tuple[tuple[Mend, ...], Residue]:
        """What our DDL made and no applied revision accounts for, in the order to remove it; and all that differs.

        Back at the opening's heads nothing is applied, so whatever of ours is still there is left over, Alembic's own
        version table included where the window made it. Raises as `difference` does.
        """
        now = await self._fingerprint(patience_s)
        return self._left_over(now, await self._accounted())

    async def found(self, stops: str = "", *, patience_s: float = PATIENCE_S) -> Prediction:
        """How the database stands now, in the words of a prediction. Raises as `difference` does."""
        found, heads = await self.difference(patience_s), await self._real_heads()
        return Prediction(
            heads=tuple(sorted(heads)),
            equal=found.empty and heads == frozenset(self._ground.store.state.start_heads),
            left=tuple(sorted(left.difference.key for left in found.ours)),
            not_ours=tuple(sorted(difference.key for difference in found.not_ours)),
            stops=stops,
        )

    async def undone(self) -> list[str]:
        """The steps of which nothing is left, where nothing of ours differs from the opening and the heads are back.

        Raises DbwatchError or psycopg.Error.
        """
        state = self._ground.store.state
        steps_ddl = [fact for fact in state.ddl if fact.attempt > 0]
        creator = partial(restoring.creator, self._ground.opening, steps_ddl)
        return effects.gone(state, self._ground.runbook, await self._images(state), creator)

    async def left_behind(self) -> tuple[str, ...]:
        """The names of `leftovers`. Raises DbwatchError or psycopg.Error."""
        return tuple(m.difference.key for m in (await self.leftovers())[0] if m.sql or m.by_hand)

    async def plan(self, snapshot: Snapshot, running: str) -> AbortPlan:
        """The way back from here. Raises DbwatchError or psycopg.Error where it cannot be told."""
        ground = self._ground
        heads, schema, left, not_ours, unread = await self._at_one_instant()
        state = ground.store.state
        downgrades = await self._downgrades(state, heads)
        rows = {t.relname: t.n_live_tup for t in snapshot.tables.rows}
        undos = {step.id: step.undo for step in ground.runbook.steps() if isinstance(step, Sql) and step.undo}
        waits = holders(snapshot, downgrades, left, undos)
        schema, held = await self._counted(schema, downgrades)
        situation = Situation(
            state=state,
            runbook=ground.runbook,
            target=ground.target,
            heads=heads,
            downgrades=downgrades,
            chain=self.scripts.known,
            schema=schema,
            leftovers=left,
            unread=unread,
            not_ours=not_ours,
            rows=rows,
            holders=waits,
            blockers=tuple(dict.fromkeys(b.pid for held_by in waits.values() for b in held_by)),
            held=held,
            builds=built(ground.store.events),
            images=await self._images(state),
            running=running,
            opened=state.opened_at.astimezone().strftime("%H:%M:%S") if state.opened_at else "",
        )
        return wayback.plan(situation)

    async def applied(self) -> frozenset[str]:
        """The revisions that the database has. Raises DbwatchError or psycopg.Error."""
        chain, heads = await self.scripts.chain(), await self.heads()
        return way.closure(chain, heads) if chain is not None else heads

    async def reach(self, heads: frozenset[str]) -> tuple[frozenset[str], str]:
        """How far down towards *heads* the database can go from where it is, and what is in the way; empty: nothing.

        Asked again when it is a downgrade's turn: a step that ran when the plan was shown may have committed more.
        Raises DbwatchError or psycopg.Error.
        """
        chain, now = await self.scripts.chain(), await self.heads()
        if chain is None:
            return heads, ""
        applied = way.closure(chain, now)
        if applied <= way.closure(chain, heads):
            return now, ""
        for revision in way.down(chain, now, heads):
            if why := barrier(chain, revision, self._ground.store.state.ddl):
                return way.heads_of(chain, applied), f"above {revision}: {why}"
            applied -= {revision}
        return heads, ""

    # --- inside

    async def _images(self, state: WindowState) -> tuple[Kept, ...]:
        """The before-images that the window's backfills kept."""
        began = any(isinstance(s, Backfill) and state.step(s.id).attempt for s in self._ground.runbook.steps())
        if not began:
            return ()
        return await kept.of_window(await self._ground.control.session(), self._ground.store.window)

    async def _counted(
        self, schema: Schema | None, downgrades: Mapping[str, Rendered]
    ) -> tuple[Schema | None, dict[tuple[str, str, str], int | None]]:
        """How much is in what the way back may drop, and which tables hold rows, where that decides how it ends."""
        if schema is None:
            return None, {}
        opening, now = schema.opening.items, schema.now.items
        made = [item for key, item in now.items() if item.kind == "column" and key not in opening]
        wanted = [(item.schema, item.parent, item.name) for item in made]
        asked = needs_rows(r for rendered in downgrades.values() for r in rendered)
        tables = [(i.schema, i.name, "") for i in now.values() if i.kind == "table" and i.name in asked]
        held = await self._counter.values([*wanted[:COLUMNS], *tables])
        filled = frozenset(place[1] for place in tables if (held.get(place) or 0) > 0)
        return replace(schema, filled=filled), held

    async def _fingerprint(self, patience_s: float) -> Fingerprint:
        return await fingerprint.take(self._ground.connector, self._ground.clock, patience_s=patience_s)

    def _left_over(self, now: Fingerprint, accounted: frozenset[str | None]) -> tuple[tuple[Mend, ...], Residue]:
        ddl = self._ground.store.state.ddl
        every = [journalled(fact) for fact in ddl]
        return left_over(self._ground.opening, now, every, forward(ddl), accounted)

    async def _at_one_instant(
        self,
    ) -> tuple[frozenset[str], Schema | None, tuple[Mend, ...], tuple[str, ...], str]:
        """The heads, and what `_now` finds: of the same instant, though a step of ours may be committing revisions."""
        heads = await self.heads()
        for _ in range(STEADY):
            found = await self._now(self._ground.store.state, heads)
            again = await self.heads()
            if again == heads:
                break
            heads = again
        return heads, *found

    async def _now(
        self, state: WindowState, heads: frozenset[str]
    ) -> tuple[Schema | None, tuple[Mend, ...], tuple[str, ...], str]:
        """The schema, what is left over in it and what is not ours; or, where our own work holds the lock, why it is
        not known."""
        try:
            now = await self._fingerprint(GLANCE_S)
        except SchemaUnreadable as error:
            if state.running is None:
                raise
            return None, (), (), str(error)
        mends, found = self._left_over(now, self._accounted_at(heads))
        schema = Schema(self._ground.opening, now, self._ground.facts.version // 10_000)
        return schema, tuple(m for m in mends if m.sql or m.by_hand), tuple(d.key for d in found.not_ours), ""

    async def _accounted(self) -> frozenset[str | None]:
        return self._accounted_at(await self.heads())

    def _accounted_at(self, heads: frozenset[str]) -> frozenset[str | None]:
        """The revisions of this window that are applied, and the sql steps that their own `undo` takes back."""
        state, chain = self._ground.store.state, self.scripts.known
        start, by_sql = frozenset(state.start_heads), undone_by_sql(state, self._ground.runbook)
        if heads == start or chain is None:
            return by_sql
        between = way.closure(chain, heads) - way.closure(chain, start)
        return between | by_sql | ({None} if heads else frozenset())

    async def _real_heads(self) -> frozenset[str]:
        """The heads without those that another one of them rests on, as the version table may hold them too."""
        heads, chain = await self.heads(), await self.scripts.chain()
        if heads == frozenset(self._ground.store.state.start_heads) or chain is None:
            return heads
        return way.heads_of(chain, way.closure(chain, heads))

    async def _downgrades(self, state: WindowState, heads: frozenset[str]) -> Mapping[str, Rendered]:
        found: dict[str, Rendered] = {}
        at, chain = heads, self.scripts.known
        for step in reversed(list(self._ground.runbook.steps())):
            known = state.step(step.id)
            if chain is None or not isinstance(step, Migrate) or not _ran(known):
                continue
            before = frozenset(known.heads_before)
            revisions = way.down(chain, at, before)
            if revisions:
                found[step.id] = await self.scripts.down(at, revisions)
                at = before
        return found


def _ran(known: StepState) -> bool:
    return known.status is not StepStatus.PENDING and not known.undone and known.attempt > 0
