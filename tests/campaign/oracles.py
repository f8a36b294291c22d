"""What has to hold of a window, whatever happened to it. Each breach is a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from campaign.scene import Scene
from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.journal.chain import Event
from dbwatch.journal.fold import StepStatus, WindowState, fold
from dbwatch.journal.rows import event_of
from dbwatch.window.hindsight import foreseen_of

_EVENTS = """
SELECT seq, at, actor, epoch, kind, body, prev_hash, hash FROM dbwatch.event
WHERE window_id = (SELECT id FROM dbwatch.window ORDER BY opened_at DESC LIMIT 1) ORDER BY seq
"""
_WINDOW = "SELECT id::text, epoch, last_seq, head_hash, outcome FROM dbwatch.window ORDER BY opened_at DESC"
_FACTS = """
SELECT
    (SELECT count(*) FROM t WHERE v NOT IN (0, 1)) AS odd,
    (SELECT count(*) FROM t WHERE v = 1) AS ones,
    (SELECT count(*) FROM ledger INNER JOIN t USING (id) WHERE forth - back <> v OR forth > 1 OR back > 1) AS wrong,
    (SELECT count(*) FROM ledger WHERE back > 0) AS brought_back,
    (SELECT count(*) FROM t) AS rows,
    to_regclass('t_pad') IS NOT NULL AND (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('t_pad'))
        AS aside,
    EXISTS (SELECT FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'phone' AND NOT attisdropped)
        AS phone,
    to_regclass('t_old') IS NOT NULL AS old,
    EXISTS (SELECT FROM pg_index WHERE NOT indisvalid) AS invalid
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A window as the database has it."""

    id: str
    epoch: int
    last_seq: int
    head_hash: str
    outcome: str
    windows: int
    events: tuple[Event, ...]
    heads: tuple[str, ...] = ()
    deeds: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> WindowState:
        return fold(self.events)


async def look(scene: Scene, *, effects: bool = True) -> Found | None:
    """The newest window of the scene; None where none was opened. Raises psycopg.Error while the server is away."""
    async with await psycopg.AsyncConnection.connect(
        scene.db.dsn, autocommit=True, application_name="referee", connect_timeout=5
    ) as connection:
        windows = await (await connection.execute(_WINDOW)).fetchall()
        if not windows:
            return None
        events = tuple(event_of(row) for row in await (await connection.execute(_EVENTS)).fetchall())
        id, epoch, last_seq, head_hash, outcome = windows[0]
        if not effects:
            return Found(id, epoch, last_seq, head_hash, outcome or "", len(windows), events)
        heads = await (await connection.execute("SELECT version_num FROM alembic_version ORDER BY 1")).fetchall()
        deeds = await (await connection.execute("SELECT what, count(*) FROM deeds GROUP BY what")).fetchall()
        cursor = await connection.execute(_FACTS)
        names, values = [c.name for c in cursor.description or ()], await cursor.fetchone()
        assert values is not None
        return Found(
            id, epoch, last_seq, head_hash, outcome or "", len(windows), events, tuple(h for (h,) in heads),
            dict(deeds), dict(zip(names, values, strict=True)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a player's local mirror."""

    actor: str
    epoch: int
    kind: str
    at: datetime
    body: str
    seq: int | None
    """None: it waited for the table."""
    hash: str


def mirror(folder: Path, window: str) -> list[Line]:
    """The whole lines of a mirror; a last one cut short by a kill is none."""
    file = folder / window / "events.jsonl"
    lines = []
    for text in file.read_text("utf-8", "replace").split("\n") if file.exists() else ():
        try:
            said = json.loads(text)
        except ValueError:
            continue
        at = datetime.fromisoformat(said["at"])
        lines.append(
            Line(said["actor"], said["epoch"], said["kind"], at, said["body"], said.get("seq"), said.get("hash", ""))
        )
    return lines


def breaches_of_the_journal(found: Found, mirrors: dict[str, list[Line]]) -> list[str]:
    """Where the journal's chain, its epochs, its steps or a mirror are not as they must be. Pure."""
    breaches = []
    events = found.events
    if (broken := chain.broken_link(list(events))) is not None:
        breaches.append(f"the chain is broken at event {broken}")
    if [e.seq for e in events] != list(range(1, len(events) + 1)):
        breaches.append("the journal has gaps")
    if (found.last_seq, found.head_hash) != (len(events), events[-1].hash if events else ""):
        breaches.append("the window's row does not name the journal's last event")
    breaches += _epochs(events, {(m.at, m.actor, m.kind, m.body) for lines in mirrors.values() for m in lines})
    breaches += _steps(events)
    breaches += _aborts(events)
    for name, lines in mirrors.items():
        breaches += [f"the mirror of {name} {breach}" for breach in _mirrored(lines, events)]
    return breaches


def _epochs(events: Sequence[Event], mirrored: set[tuple[datetime, str, str, str]]) -> Iterable[str]:
    """Epochs go up by one with each taking, and nobody writes under one that is over, but what a mirror kept."""
    epoch = 0
    driver = ""
    for e in events:
        if isinstance(e.fact, ev.WindowOpened | ev.DriverTook):
            if e.epoch != epoch + 1:
                yield f"event {e.seq} takes epoch {e.epoch} after {epoch}"
            epoch, driver = e.epoch, e.actor
        elif e.epoch > epoch:
            yield f"event {e.seq} is of epoch {e.epoch}, which nobody took"
        elif e.epoch < epoch and (e.at, e.actor, chain.kind_of(e.fact), e.body) not in mirrored:
            yield f"event {e.seq} ({chain.kind_of(e.fact)}) was written under epoch {e.epoch}, which was over"
        elif e.epoch == epoch and e.actor != driver and not isinstance(e.fact, _ANYBODYS):
            yield f"event {e.seq} ({chain.kind_of(e.fact)}) of epoch {epoch} is by {e.actor}, and {driver} drives"


_ANYBODYS = (
    ev.Noted, ev.Marked, ev.Requested, ev.ConfirmationGiven, ev.ConfirmationRefused, ev.SessionSignalled,
)  # fmt: skip


def _steps(events: Sequence[Event]) -> Iterable[str]:
    """A step begins when nothing runs, each attempt once, and is done at most once."""
    state = WindowState()
    for e in events:
        late = e.epoch < state.epoch
        match e.fact:
            case ev.StepStarted(step=step, attempt=attempt) if not late:
                known = state.step(step)
                if state.running is not None:
                    yield f"event {e.seq}: {step} began while {state.running.id} ran"
                if known.status is StepStatus.DONE:
                    yield f"event {e.seq}: {step} began though it was done"
                if attempt != known.attempt + 1:
                    yield f"event {e.seq}: attempt {attempt} of {step} after attempt {known.attempt}"
                if state.aborting:
                    yield f"event {e.seq}: {step} began while the abort was under way"
            case ev.StepDone(step=step, attempt=attempt) if not late:
                known = state.step(step)
                if known.status is StepStatus.DONE:
                    yield f"event {e.seq}: {step} was done twice"
                if known.status is StepStatus.FAILED:
                    yield f"event {e.seq}: {step} was done after it had failed, without a new beginning"
        state = fold([e], state)


def _aborts(events: Sequence[Event]) -> Iterable[str]:
    """One abort is under way at a time, its actions are done once and in their order."""
    done: list[int] = []
    under_way = False
    for e in events:
        match e.fact:
            case ev.AbortConfirmed():
                if under_way:
                    yield f"event {e.seq}: an abort was confirmed while one was under way"
                under_way, done = True, []
            case ev.AbortActionDone(number=number):
                if number in done or (done and number != done[-1] + 1) or (not done and number != 1):
                    yield f"event {e.seq}: action {number} of the abort was done after {done}"
                done.append(number)
            case ev.AbortFinished(missed=missed):
                under_way = False
                if missed:
                    yield f"event {e.seq}: the abort's plan foretold it wrongly: {'; '.join(missed)}"


def _mirrored(lines: list[Line], events: Sequence[Event]) -> Iterable[str]:
    """A mirror is a beginning of the table, or all of it."""
    by_seq = {e.seq: e.hash for e in events}
    numbered = {line.seq: line.hash for line in lines if line.seq is not None}
    if sorted(numbered) != list(range(1, len(numbered) + 1)):
        yield f"has gaps: {sorted(set(range(1, max(numbered) + 1)) - set(numbered))}"
    for seq, digest in numbered.items():
        if by_seq.get(seq) != digest:
            yield f"has another event {seq} than the table"


def breaches_of_the_effects(found: Found) -> list[str]:
    """Where what the journal says was done is not what was done. Pure."""
    state, facts, deeds = found.state, found.facts, found.deeds
    breaches = []

    def there(what: str) -> int:
        return deeds.get(what, 0) - deeds.get(f"{what} back", 0)

    for what in ("count", "r2", "r4"):
        if deeds.get(what, 0) not in (there(what), 1) or there(what) not in (0, 1):
            breaches.append(f"{what} was done {deeds.get(what, 0)} times and taken back {there(what)} short of that")
    done = {s.id for s in state.steps.values() if s.status is StepStatus.DONE}
    back = {s.id for s in state.steps.values() if s.undone}
    if there("count") != ("count" in done - back):
        breaches.append(f"count: {there('count')} in the database, the journal says {state.step('count')}")
    order = ("r1", "r2", "r3", "r4")
    at = order.index(found.heads[0]) if found.heads else -1
    if there("r2") != (at >= 1) or there("r4") != (at >= 3):
        breaches.append(f"at {found.heads}, but r2 is there {there('r2')} times and r4 {there('r4')} times")
    for step, revision in (("add", 2), ("drop", 3)):
        if step in done - back and at < revision:
            breaches.append(f"{step} is done and not taken back, and the version table says {found.heads}")
    if facts["odd"] or facts["wrong"]:
        breaches.append(f"{facts['odd']} rows hold what no single change gives, {facts['wrong']} were changed twice")
    if "fill" in done - back and state.abort is None and facts["ones"] != facts["rows"]:
        breaches.append(f"fill is done, and {facts['ones']} of {facts['rows']} rows are")
    if state.step("fill").status is StepStatus.PENDING and facts["ones"]:
        breaches.append(f"fill never began, and {facts['ones']} rows are done")
    if "aside" in done - back and not facts["aside"]:
        breaches.append("aside is done, and its index is not there")
    return breaches


def breaches_of_the_end(found: Found, *, undo: bool) -> list[str]:
    """Where the closed window is not as its outcome says. Pure."""
    state, facts = found.state, found.facts
    if found.outcome == "done":
        left = [k for k, holds in (("phone", facts["phone"]), ("aside", facts["aside"])) if not holds]
        if found.heads != ("r4",) or facts["old"] or left or facts["invalid"] or facts["ones"] != facts["rows"]:
            return [f"closed as done at {found.heads} with {facts}"]
        return []
    if found.outcome != "aborted":
        return [f"it ended as {found.outcome or 'still open'}: {state.abort.differences if state.abort else ''}"]
    breaches = []
    if state.abort is None or not state.abort.equal:
        breaches.append(f"aborted with differences: {state.abort.differences if state.abort else 'no abort'}")
    if found.heads != ("r1",) or facts["phone"] or not facts["old"] or facts["aside"] or facts["invalid"]:
        breaches.append(f"aborted, and at {found.heads} with {facts}")
    if undo and facts["ones"]:
        breaches.append(f"aborted, and {facts['ones']} rows keep what the backfill wrote")
    if foreseen_of(found.events) is None:
        breaches.append("the abort foretold nothing")
    return breaches
