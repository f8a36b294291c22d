"""What the window's Alembic project says: its chain, and the SQL of its upgrades and downgrades. Asked once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dbwatch.errors import DbwatchError
from dbwatch.migration import grammar, runner, way
from dbwatch.migration.chain import Chain
from dbwatch.migration.ddl import Action as DdlAction
from dbwatch.migration.ddl import Named
from dbwatch.migration.events import Direction
from dbwatch.migration.request import RevisionSql
from dbwatch.runbook.model import Migrate, Sql
from dbwatch.window import wayback
from dbwatch.window.ground import Ground
from dbwatch.window.revisions import Revisions

ASK_ANEW_S = 3.0
"""How long what could not be rendered is left at that."""

Rendered = tuple[RevisionSql, ...]


@dataclass(slots=True)
class _Known:
    """What was asked so far. Who asked before the runbook was amended writes into the one of before."""

    chain: Chain | None = None
    rendered: dict[tuple[frozenset[str], str], Rendered] = field(default_factory=dict)
    downs: dict[str, RevisionSql] = field(default_factory=dict)
    ups: dict[str, RevisionSql] = field(default_factory=dict)
    troubled_at: float = float("-inf")
    no_return: tuple[str, str] | None = None
    looked_ahead: bool = False


class Scripts:
    """The revision scripts of one window. Each question starts a process that imports Alembic, half a second or more:
    so who asks what somebody else is asking just now waits for that answer."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._asking = asyncio.Lock()
        self._known = _Known(ground.chain)

    async def chain(self) -> Chain | None:
        """The Alembic project; None where the runbook has none. Raises DbwatchError where it does not load."""
        known = self._known
        if known.chain is None and self._ground.project is not None:
            async with self._asking:
                if known.chain is None:
                    known.chain = await runner.inspect(self._ground.project, self._ground.connector)
        return known.chain

    @property
    def known(self) -> Chain | None:
        """The project as far as it was asked."""
        return self._known.chain

    def forget(self) -> None:
        """The runbook was amended: what was found out ahead does not hold any more."""
        self._known = _Known()

    async def no_return(self) -> tuple[str, str] | None:
        """The first step past which there is no whole way back, and why. Raises DbwatchError."""
        known = self._known
        if known.looked_ahead:
            return known.no_return
        chain = await self.chain()
        upgrades: dict[str, Rendered] = {}
        drops: dict[str, str] = {}
        created: set[str] = set()
        at = frozenset(self._ground.store.state.start_heads)
        for step in self._ground.runbook.steps():
            statements: list[str] = []
            if isinstance(step, Sql):
                statements = [step.sql]
            elif isinstance(step, Migrate) and chain is not None:
                upgrades[step.id] = await self._up(chain, at, step.to)
                statements = [s.sql for revision in upgrades[step.id] for s in revision.statements]
                at = _after(chain, at, upgrades[step.id])
            for named in (one for statement in statements for one in grammar.read(statement).named):
                if isinstance(step, Migrate) and named.action is DdlAction.CREATE and named.kind == "column":
                    created.add(f"{named.parent}.{named.name}")
                if lost := self._drops(named, created):
                    drops.setdefault(step.id, lost)
        known.no_return = wayback.point_of_no_return(self._ground.runbook, upgrades, chain, drops, frozenset(created))
        known.looked_ahead = True
        return known.no_return

    async def revisions(self) -> Revisions | None:
        """All that the runbook's migrate steps run, and what takes it back; None where there is no Alembic project.

        Raises DbwatchError.
        """
        chain = await self.chain()
        if chain is None:
            return None
        at = start = frozenset(self._ground.store.state.start_heads)
        up: dict[str, Rendered] = {}
        for step in self._ground.runbook.steps():
            if isinstance(step, Migrate):
                up[step.id] = await self._up(chain, at, step.to)
                at = _after(chain, at, up[step.id])
        ids = tuple(r.revision for rendered in up.values() for r in rendered)
        try:
            back = {r.revision: r for r in await self.down(at, ids)}
        except runner.MigrationError as error:  # an env.py that cannot render: the paper says so, revision by revision
            back = {one: RevisionSql(one, Direction.DOWN, (), str(error)) for one in ids}
        down = {step: tuple(back[r.revision] for r in reversed(rendered)) for step, rendered in up.items()}
        return Revisions(chain, start, up, down)

    async def down(self, at: frozenset[str], revisions: tuple[str, ...]) -> Rendered:
        """The downgrades of *revisions* from the heads *at*: each is rendered once, with all below it down to where
        the window opened. Raises DbwatchError.

        One that had to be rendered by asking the database may have met a lock of our own running work: it is tried
        again, now and then.
        """
        known = self._known
        async with self._asking:
            if self._lacking(known, revisions):
                start = frozenset(self._ground.store.state.start_heads)
                for rendered in await self._preview(at, start, Direction.DOWN):
                    known.downs[rendered.revision] = rendered
                known.troubled_at = self._ground.clock.monotonic()
        return tuple(
            known.downs.get(revision) or RevisionSql(revision, Direction.DOWN, (), "it was not rendered")
            for revision in revisions
        )

    # --- inside

    def _lacking(self, known: _Known, downs: tuple[str, ...]) -> bool:
        found = [known.downs.get(revision) for revision in downs]
        troubled = any(one is not None and one.trouble for one in found)
        return None in found or (troubled and self._ground.clock.monotonic() > known.troubled_at + ASK_ANEW_S)

    def _drops(self, named: Named, created: set[str]) -> str:
        name = f"{named.parent}.{named.name}" if named.kind == "column" else named.name
        if named.action is not DdlAction.DROP or named.kind not in ("column", "table") or name in created:
            return ""
        stood = any(
            item.kind == named.kind and item.name == named.name and (item.parent or None) == named.parent
            for item in self._ground.opening.items.values()
        )
        return name if stood else ""

    async def _up(self, chain: Chain, at: frozenset[str], to: str) -> Rendered:
        """What a step runs; on a plain way it is cut out of the whole of it, which is rendered once."""
        want, last, known = _plain(chain, to), self._last(chain), self._known
        async with self._asking:
            if want is None or last is None or not way.linear(chain, at, last):
                if (at, to) not in known.rendered:
                    known.rendered[at, to] = await self._preview(at, to, Direction.UP)
                return known.rendered[at, to]
            revisions = way.up(chain, at, want)
            if not all(revision in known.ups for revision in revisions):
                for rendered in await self._preview(at, last, Direction.UP):
                    known.ups[rendered.revision] = rendered
        return tuple(known.ups[revision] for revision in revisions if revision in known.ups)

    def _last(self, chain: Chain) -> frozenset[str] | None:
        """Where the runbook's last migrate step leads; None where only Alembic can tell."""
        targets = [step.to for step in self._ground.runbook.steps() if isinstance(step, Migrate)]
        return _plain(chain, targets[-1]) if targets else None

    async def _preview(self, start: frozenset[str], to: str | frozenset[str], direction: Direction) -> Rendered:
        project = self._ground.project
        if project is None:
            raise DbwatchError("the runbook names no Alembic project")
        return await runner.preview(project, self._ground.connector, start=start, to=to, direction=direction)


def _plain(chain: Chain, to: str) -> frozenset[str] | None:
    """The heads that a target names, where it is a whole revision or the only head; else None."""
    if to in ("head", "heads") and len(chain.heads) == 1:
        return chain.heads
    return frozenset({to}) if any(revision.id == to for revision in chain.revisions) else None


def _after(chain: Chain, at: frozenset[str], rendered: Rendered) -> frozenset[str]:
    for done in rendered:
        at = (at - frozenset(chain.revision(done.revision).down)) | {done.revision}
    return at
