"""Alembic to a revision, in its child process; every statement journalled, so that an abort knows what is ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from dbwatch.errors import DbwatchError, Fenced
from dbwatch.journal.events import DdlSeen, Fact, SentAlone, StepNoted
from dbwatch.migration import events as me
from dbwatch.migration import runner
from dbwatch.migration.events import Cause, Direction, Outcome
from dbwatch.migration.fingerprint import Change, Difference, SchemaUnreadable
from dbwatch.migration.request import Job, Project
from dbwatch.migration.retry import in_the_way
from dbwatch.runbook.model import Migrate
from dbwatch.steps import progress as shown
from dbwatch.steps import step
from dbwatch.steps.patience import Needs, Patience, needs
from dbwatch.steps.step import Done, Failed, Kit
from dbwatch.steps.waiting import Waiting, knocking
from dbwatch.text import one_line


def job(spec: Migrate, kit: Kit) -> Job:
    """What the engine is asked to do."""
    return Job(
        project=project(kit),
        direction=Direction.UP,
        to=spec.to,
        fence=kit.fence,
        lock_timeout_ms=kit.limits.lock_timeout_ms,
        statement_timeout_ms=kit.limits.statement_timeout_ms,
        attempts=spec.retries + 1,
    )


def project(kit: Kit) -> Project:
    """The runbook's Alembic project. Raises DbwatchError where it names none."""
    if kit.alembic is None:
        raise DbwatchError("the runbook names no Alembic project", next='write alembic = "alembic.ini" at its top')
    return Project(kit.alembic)


async def run(spec: Migrate, kit: Kit) -> step.Outcome:
    """Upgrades to the revision; retries where a lock was in the way and nothing was left behind."""
    scribe = _Scribe(spec, kit)
    if spec.patient is not None:
        return await _patiently(spec, kit, scribe, spec.patient)
    return ended(await _once(job(spec, kit), kit, scribe))


async def _once(job: Job, kit: Kit, scribe: _Scribe) -> Outcome:
    scribe.begin()
    return await runner.run(
        job, kit.connector, clock=kit.clock, on_event=scribe.hear, stop=kit.stop, journal=scribe.keep
    )


async def _patiently(spec: Migrate, kit: Kit, scribe: _Scribe, patient_s: float) -> step.Outcome:
    """Waits until the way is clear, and knocks; again where somebody was there first, and nothing was left behind."""
    limits = knocking(kit.limits)
    knock = replace(job(spec, kit), lock_timeout_ms=limits.lock_timeout_ms, attempts=1)
    needed = await _needs(spec, kit, frozenset(kit.previous.heads_before))
    waiting = Waiting(kit, spec.id, patient_s, needed, scribe.wait)
    scribe.stir = waiting.stir
    while True:
        if (instead := await waiting.until_clear()) is not None:
            return instead
        async with waiting.watching(lambda: scribe.pid):
            try:
                outcome = await _once(knock, kit, scribe)
            except SchemaUnreadable as error:  # nothing was sent
                if not error.locked:
                    raise
                waiting.found_closed()
                continue
        end = ended(outcome)
        if isinstance(end, Done):
            return replace(end, result=f"{end.result}; {waiting.state.words}")
        if outcome.failure is None or not in_the_way(outcome.failure) or not (isinstance(end, Failed) and end.again):
            return end
        waiting.found_closed()
        if outcome.committed:
            waiting.needs = await _needs(spec, kit, outcome.heads_after or frozenset())


async def _needs(spec: Migrate, kit: Kit, heads: frozenset[str]) -> Needs:
    """What the revisions from *heads* on need; nothing where env.py cannot render them: a knock will tell."""
    try:
        rendered = await runner.preview(project(kit), kit.connector, start=heads, to=spec.to, direction=Direction.UP)
    except runner.MigrationError:
        return Needs()
    return needs(statement.sql for revision in rendered for statement in revision.statements)


def ended(outcome: Outcome) -> step.Outcome:
    """What a migration's outcome means for its step. Pure."""
    if outcome.failure is None:
        heads = tuple(sorted(outcome.heads_after or ()))
        return Done(f"at {', '.join(heads) or 'base'}", heads)
    stopped = outcome.failure.cause is Cause.STOPPED
    if outcome.failure.cause is Cause.FENCED:
        raise Fenced(outcome.failure.message)
    parts = [outcome.failure.message]
    if outcome.committed:
        parts.append(f"committed before: {', '.join(outcome.committed)}")
    if outcome.alone:
        parts.append(_committed_by_themselves(outcome.alone))
    untouched = outcome.heads_before is None and not outcome.ddl  # it ended before it knew what to do
    if outcome.residue is None:
        parts.append("nothing was sent" if untouched else "what it left behind could not be read")
        return Failed("; ".join(parts), again=untouched, stopped=stopped)
    left = [o for o in outcome.residue.ours if o.revision not in outcome.committed]
    broken = [d.key for d in outcome.residue.not_ours if _is_broken_index(d)]
    if left or broken:
        parts.append(f"left behind: {', '.join([*(o.difference.key for o in left), *broken])}")
    clean = not broken and all(o.revision is None for o in left)  # env.py and Alembic make theirs where it is missing
    again = clean and not outcome.alone and (untouched or outcome.heads_after is not None)
    return Failed("; ".join(parts), again=again, stopped=stopped)


def _is_broken_index(difference: Difference) -> bool:
    """Whether it is what REINDEX CONCURRENTLY of a table, or of more, leaves where it is broken off."""
    item = difference.item
    broken = difference.kind is Change.ADDED and item.kind == "index" and "invalid" in item.definition.split("\n")
    return broken and item.name.rstrip("0123456789").endswith(("_ccnew", "_ccold"))


def _committed_by_themselves(sent: Sequence[str]) -> str:
    more = f"; and {len(sent) - 3:,} more" if len(sent) > 3 else ""
    return f"sent, and commits by itself: {'; '.join(one_line(sql, 200) for sql in sent[:3])}{more}"


async def recover(spec: Migrate, kit: Kit) -> step.Outcome:
    """The version table and the catalogue tell how it ended."""
    chain = await runner.inspect(project(kit), kit.connector, to=spec.to)
    now = tuple(sorted(chain.current))
    known = {revision.id for revision in chain.revisions}
    alone = [sql for id, sql in kit.previous.alone if id in chain.steps or id not in known]
    if not chain.steps and not chain.trouble and not alone:
        return Done(f"found at {', '.join(now) or 'base'} after it was cut off", now)
    left = await kit.left_behind()
    parts = ["it was cut off while it ran"]
    if now != kit.previous.heads_before:
        parts.append(f"it got to {', '.join(now)}")
    elif not alone:
        parts.append("nothing of it was committed")
    if alone:
        parts.append(_committed_by_themselves(alone))
    if left:
        parts.append(f"left behind: {', '.join(left)}")
    return Failed("; ".join(parts), again=not left and not alone)


class _Scribe:
    """Turns the engine's events into what is shown at once, and into what is journalled behind, in their order."""

    def __init__(self, spec: Migrate, kit: Kit) -> None:
        self._spec, self._kit = spec, kit
        self._progress = self._kept = shown.started(spec.id, spec.retries + 1)
        self._sent: dict[int, DdlSeen] = {}
        self._tries = 0
        self.stir: Callable[[], None] = _nothing
        """Called when a statement begins."""
        kit.show_migration(self._progress)

    @property
    def pid(self) -> int | None:
        """The backend that runs the statements."""
        return self._progress.pid

    def begin(self) -> None:
        """Another run of the engine begins; it counts its statements anew."""
        self._tries += 1
        fresh = shown.started(self._spec.id, 1 if self._spec.patient else self._spec.retries + 1)
        self._progress = self._kept = replace(
            fresh, knocks=self._progress.knocks, queued_worst_s=self._progress.queued_worst_s, note=self._progress.note
        )
        self._kit.show_migration(self._progress)

    def wait(self, patience: Patience, whom: str, pid: int | None) -> None:
        """Shows for whom the step waits before it sends anything, or what its knock costs others."""
        self._progress = shown.patient(self._progress, patience, whom, pid, self._kit.clock.monotonic())
        self._kit.show_migration(self._progress)

    def hear(self, event: me.Event) -> None:
        """Called by the engine; returns at once."""
        if isinstance(event, me.StatementStarted):
            self.stir()
        self._progress = self._after(self._progress, event)
        self._kit.show_migration(self._progress)

    async def keep(self, events: Sequence[me.Event]) -> None:
        """Journals *events*. Raises as `Store.record` does, and DbwatchError where they can be kept nowhere."""
        heard = [(self._fact(event), journalled_alone(self._spec.id, self._kit.attempt, event)) for event in events]
        facts = [fact for both in heard for fact in both if fact is not None]
        needed = any(isinstance(fact, DdlSeen | SentAlone) for fact in facts)
        if facts and not await self._kit.record(*facts) and needed:
            raise DbwatchError(
                "neither the journal nor its local copy can be written",
                why="nothing is committed that an abort would not know of",
                next="make room for one of them, and run the step again",
            )

    def _after(self, progress: shown.MigrationProgress, event: me.Event) -> shown.MigrationProgress:
        progress = shown.after(progress, event)
        if isinstance(event, me.Retrying) and (whom := self._kit.in_the_way()):
            return replace(progress, note=f"{progress.note}; it waited for {whom}")
        return progress

    def _fact(self, event: me.Event) -> Fact | None:
        self._kept = self._after(self._kept, event)
        self._tries += isinstance(event, me.Retrying)
        match event:
            case me.StatementStarted() as e if e.objects or not e.known:
                self._sent[e.n] = DdlSeen(
                    self._spec.id,
                    self._kit.attempt,
                    e.n + 1000 * (self._tries - 1),
                    e.revision or "",
                    e.sql,
                    e.autocommit,
                    False,
                    e.known,
                    [_plain(asdict(o)) for o in e.objects],
                )
                return self._sent[e.n]
            case me.StatementDone() as e if e.n in self._sent:
                seen = self._sent[e.n]
                made = [_plain(asdict(o)) for o in e.objects]
                objects = [o for o in seen.objects if not any(_same(o, m) for m in made)] + made
                return replace(seen, done=True, objects=objects)
            case me.Retrying() | me.Stopping():
                return StepNoted(self._spec.id, self._kept.note)
            case me.Committed(revision=revision):
                return StepNoted(self._spec.id, f"committed {revision}")
        return None


def journalled_alone(step: str, attempt: int, event: me.Event) -> SentAlone | None:
    """What is journalled where *event* says that something is sent that commits by itself; None where it does not."""
    if isinstance(event, me.StatementStarted) and event.lasting and event.revision:
        return SentAlone(step, attempt, event.revision, _PASSWORD.sub(r"\1'***'", event.sql))
    return None


_PASSWORD = re.compile(r"""(\bPASSWORD\s+)(?:E?'(?:[^'\\]|''|\\.)*'|\$(\w*)\$.*?\$\2\$)""", re.IGNORECASE | re.DOTALL)


def _nothing() -> None:
    """Nobody wants to know."""


def _plain(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "action": str(body["action"])}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[k] == other[k] for k in ("action", "kind", "name", "parent"))
