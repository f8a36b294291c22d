"""Finds out what the way back depends on: heads, the schema's difference, the SQL of the downgrades."""

from __future__ import annotations

from collections.abc import Mapping

from dbwatch.errors import DbwatchError
from dbwatch.journal.events import DdlSeen
from dbwatch.journal.fold import StepState, StepStatus, WindowState
from dbwatch.migration import fingerprint, grammar, runner
from dbwatch.migration.chain import Chain
from dbwatch.migration.ddl import Action as DdlAction
from dbwatch.migration.ddl import JournalledDdl, Named
from dbwatch.migration.events import Direction
from dbwatch.migration.fingerprint import SchemaUnreadable
from dbwatch.migration.heads import committed_heads
from dbwatch.migration.mend import Mend, clean_up
from dbwatch.migration.request import RevisionSql
from dbwatch.migration.residue import Residue, residue
from dbwatch.monitor.samples import Snapshot
from dbwatch.runbook.model import Migrate, Sql
from dbwatch.steps.sql import made_by
from dbwatch.window import blockers, wayback
from dbwatch.window.abort import AbortPlan
from dbwatch.window.ground import Ground
from dbwatch.window.wayback import Leftover, Situation

PATIENCE_S = 60.0
"""How long a locked relation may keep the comparison at the end of an abort waiting."""
GLANCE_S = 1.0
"""The same for a plan that a person waits to see."""

Rendered = tuple[RevisionSql, ...]


class Survey:
    """Looks at one window's database. What only depends on the revision scripts is asked once."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._chain: Chain | None = None
        self._rendered: dict[tuple[frozenset[str], str | frozenset[str], Direction], Rendered] = {}
        self._no_return: tuple[str, str] | None = None
        self._looked_ahead = False

    async def chain(self) -> Chain | None:
        """The Alembic project; None where the runbook has none. Raises DbwatchError where it does not load."""
        if self._chain is None and self._ground.project is not None:
            self._chain = await runner.inspect(self._ground.project, self._ground.connector)
        return self._chain

    def forget(self) -> None:
        """The runbook was amended: what was found out ahead does not hold any more."""
        self._chain, self._rendered, self._no_return, self._looked_ahead = None, {}, None, False

    async def heads(self) -> frozenset[str]:
        """The version table as it is now. Raises DbwatchError or psycopg.Error."""
        chain = await self.chain()
        if chain is None:
            return frozenset()
        found = await committed_heads(await self._ground.control.session(), chain)
        if found is None:
            raise DbwatchError("the version table cannot be read", next="look at its locks and at our privileges")
        return found

    async def difference(self, patience_s: float) -> Residue:
        """What differs from the opening, by whose it is.

        Raises SchemaUnreadable where a lock keeps it from being read for so long, else DbwatchError or psycopg.Error.
        """
        now = await fingerprint.take(self._ground.connector, self._ground.clock, patience_s=patience_s)
        return residue(self._ground.opening, now, [journalled(fact) for fact in self._ground.store.state.ddl])

    async def leftovers(
        self, *, last: bool = False, patience_s: float = PATIENCE_S
    ) -> tuple[tuple[Mend, ...], Residue]:
        """What our DDL made and no applied revision accounts for, in the order to remove it; and all that differs.

        *last*: everything was taken back that takes itself back, so whatever of ours is still there is left over,
        Alembic's own version table included where the window made it. Raises as `difference` does.
        """
        found = await self.difference(patience_s)
        kept: set[str | None] = set()
        if not last:
            kept |= await self._applied() | self._undone_by_sql()
            if await self.heads():
                kept.add(None)
        ours = tuple(o for o in found.ours if o.revision not in kept)
        return clean_up(Residue(ours, found.not_ours)), found

    async def left_behind(self) -> tuple[str, ...]:
        """The names of `leftovers`. Raises DbwatchError or psycopg.Error."""
        return tuple(m.difference.key for m in (await self.leftovers())[0] if m.sql or m.by_hand)

    async def plan(self, snapshot: Snapshot, running: str) -> AbortPlan:
        """The way back from here. Raises DbwatchError or psycopg.Error where it cannot be told."""
        ground, state = self._ground, self._ground.store.state
        heads = await self.heads()
        left, not_ours, unread = await self._now(state)
        downgrades = await self._downgrades(state, heads)
        rows = {t.relname: t.n_live_tup for t in snapshot.tables.rows}
        waits, pids = _waits(snapshot, downgrades, left)
        situation = Situation(
            state=state,
            runbook=ground.runbook,
            target=ground.target,
            heads=heads,
            downgrades=downgrades,
            chain=self._chain,
            leftovers=left,
            unread=unread,
            not_ours=not_ours,
            rows=rows,
            waits=waits,
            blockers=pids,
            running=running,
            opened=state.opened_at.astimezone().strftime("%H:%M:%S") if state.opened_at else "",
        )
        return wayback.plan(situation)

    async def no_return(self) -> tuple[str, str] | None:
        """The first step past which there is no whole way back, and why. Raises DbwatchError."""
        if self._looked_ahead:
            return self._no_return
        chain = await self.chain()
        upgrades: dict[str, Rendered] = {}
        drops: dict[str, str] = {}
        created: set[str] = set()
        at = frozenset(self._ground.store.state.start_heads)
        for step in self._ground.runbook.steps():
            if not isinstance(step, Migrate) or chain is None:
                continue
            upgrades[step.id] = await self._render(at, step.to, Direction.UP)
            for statement in (s for revision in upgrades[step.id] for s in revision.statements):
                for named in grammar.read(statement.sql).named:
                    if named.action is DdlAction.CREATE and named.kind == "column":
                        created.add(f"{named.parent}.{named.name}")
                    if lost := self._drops(named, created):
                        drops.setdefault(step.id, lost)
            at = _after(chain, at, upgrades[step.id])
        self._no_return = wayback.point_of_no_return(self._ground.runbook, upgrades, chain, drops, frozenset(created))
        self._looked_ahead = True
        return self._no_return

    # --- inside

    async def _now(self, state: WindowState) -> tuple[tuple[Leftover, ...], tuple[str, ...], str]:
        """What is left over now and what is not ours; or, where our own work holds the lock, why it is not known."""
        try:
            mends, found = await self.leftovers(patience_s=GLANCE_S)
        except SchemaUnreadable as error:
            if state.running is None:
                raise
            return (), (), str(error)
        left = tuple(_leftover(m) for m in mends if m.sql or m.by_hand)
        return left, tuple(d.key for d in found.not_ours), ""

    def _drops(self, named: Named, created: set[str]) -> str:
        name = f"{named.parent}.{named.name}" if named.kind == "column" else named.name
        if named.action is not DdlAction.DROP or named.kind not in ("column", "table") or name in created:
            return ""
        stood = any(
            item.kind == named.kind and item.name == named.name and (item.parent or None) == named.parent
            for item in self._ground.opening.items.values()
        )
        return name if stood else ""

    def _undone_by_sql(self) -> frozenset[str]:
        """As revisions, the sql steps whose own `undo` takes back what they made."""
        state = self._ground.store.state
        done = (s for s in self._ground.runbook.steps() if isinstance(s, Sql) and s.undo)
        return frozenset(
            made_by(s.id) for s in done if state.step(s.id).status is StepStatus.DONE and not state.step(s.id).undone
        )

    async def _applied(self) -> frozenset[str]:
        """Revisions between the opening's heads and the present ones."""
        heads, start = await self.heads(), frozenset(self._ground.store.state.start_heads)
        if heads == start or self._ground.project is None:
            return frozenset()
        return frozenset(r.revision for r in await self._render(heads, start, Direction.DOWN))

    async def _downgrades(self, state: WindowState, heads: frozenset[str]) -> Mapping[str, Rendered]:
        found: dict[str, Rendered] = {}
        at = heads
        for step in reversed(list(self._ground.runbook.steps())):
            known = state.step(step.id)
            if isinstance(step, Migrate) and _ran(known) and at != frozenset(known.heads_before):
                found[step.id] = await self._render(at, frozenset(known.heads_before), Direction.DOWN)
                at = frozenset(known.heads_before)
        return found

    async def _render(self, start: frozenset[str], to: str | frozenset[str], direction: Direction) -> Rendered:
        key = (start, to, direction)
        if key not in self._rendered:
            project = self._ground.project
            if project is None:
                raise DbwatchError("the runbook names no Alembic project")
            self._rendered[key] = await runner.preview(
                project, self._ground.connector, start=start, to=to, direction=direction
            )
        return self._rendered[key]


def journalled(fact: DdlSeen) -> JournalledDdl:
    """A statement of the journal as the migration engine knows it. Pure."""
    objects = tuple(Named(**{**o, "action": DdlAction(o["action"])}) for o in fact.objects)
    return JournalledDdl(fact.sql, fact.revision or None, fact.autocommit, objects, fact.done, fact.known)


def _ran(known: StepState) -> bool:
    return known.status is not StepStatus.PENDING and not known.undone and known.attempt > 0


def _leftover(mend: Mend) -> Leftover:
    return Leftover(mend.difference.key, mend.sql, mend.note)


def _after(chain: Chain, at: frozenset[str], rendered: Rendered) -> frozenset[str]:
    for done in rendered:
        at = (at - frozenset(chain.revision(done.revision).down)) | {done.revision}
    return at


def _waits(
    snapshot: Snapshot, downgrades: Mapping[str, Rendered], left: tuple[Leftover, ...]
) -> tuple[dict[str, str], tuple[int, ...]]:
    """By step, for whom its statements would wait now; and those sessions' pids."""
    waits: dict[str, str] = {}
    pids: set[int] = set()
    texts = {step: [s.sql for r in rendered for s in r.statements] for step, rendered in downgrades.items()}
    texts["clean"] = [sql for item in left for sql in item.sql]
    for key, statements in texts.items():
        relations = {n.parent or n.name for sql in statements for n in grammar.read(sql).named}
        sessions = blockers.holders(snapshot, relations)
        if sessions:
            waits[key] = blockers.sentence(sessions, snapshot.at)
            pids |= {s.pid for s in sessions}
    return waits, tuple(sorted(pids))
