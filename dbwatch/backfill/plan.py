"""What a backfill will do: decided once, shown, and then done exactly so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dbwatch.backfill import fragments, notes, same, sight
from dbwatch.backfill.estimate import Estimator, Sizes, estimate
from dbwatch.backfill.forecast import Forecast, Table, forecast
from dbwatch.backfill.keys import KeyColumn, UniqueIndex, choose
from dbwatch.backfill.legs import Leg, divisible, legs
from dbwatch.backfill.pages import Pages
from dbwatch.backfill.passes import WINDOW_MOST
from dbwatch.backfill.sight import Sight
from dbwatch.backfill.spec import Spec, require_possible
from dbwatch.backfill.statements import Statements, shown
from dbwatch.backfill.target import (
    Column,
    Heap,
    Target,
    WalkFacts,
    columns_of,
    describe_table,
    leaves,
    require_room,
    unique_indexes,
    walk_facts,
)
from dbwatch.backfill.walk import Walk, why_not_by_keys, why_plain
from dbwatch.errors import Refused, UsageError
from dbwatch.postgres.session import Session
from dbwatch.text import one_line, sanitize


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be run, and what is known of it beforehand."""

    spec: Spec
    spec_json: str
    """Table, SET, WHERE, key and mode as canonical JSON."""
    spec_hash: str
    """The identity by which an unfinished backfill is found again."""
    table: str
    """schema.table, quoted where it has to be."""
    index: str
    """The unique index whose columns name a row; empty: there is none."""
    key: tuple[KeyColumn, ...]
    nullable: bool
    """Rows may have NULL in their key."""
    statements: Statements
    """Of the table as a whole, by keys."""
    legs: tuple[Leg, ...]
    """Its parts in the order in which they are walked."""
    rows_estimate: int
    """Rows in the table."""
    pending_estimate: int
    """Rows that WHERE takes."""
    estimated_by: Estimator
    forecast: Forecast | None
    """What it will cost; None where nobody asked."""
    why_plain: str
    """Why a walk in stripes cannot pay; empty where it may."""
    notes: tuple[str, ...]
    """What a person should know before it starts, one sentence each."""
    kept: tuple[str, ...] = ()
    """The columns whose values before are kept, with undo; without those that the window itself made."""
    images_bytes: int | None = None
    """How large the table of before-images will be, its index included; None: none is kept."""
    undo_notes: tuple[str, ...] = ()
    """Those of the notes that say what undo keeps, and what it need not keep."""
    never_hot: bool = False
    """Every update of it has to write an index that holds what SET changes."""
    made_of: Mapping[str, Any] = field(default_factory=dict)
    """What a cursor in mode once means, as JSON: the table, the columns of SET, the key's types and collations."""
    unseen: Mapping[str, str] = field(default_factory=dict)
    """Health signals that privileges hide, by their short names, and the GRANT that shows each: it does not start
    until they are seen, or left out by name."""
    doing: str = "backfill"

    @property
    def work(self) -> str:
        """What is done, for a sentence: `the backfill of public.users`."""
        return f"the {self.doing} of {self.table}"

    @property
    def walk(self) -> str:
        """How the table is walked, for a person."""
        side = ""
        if self.hands > 1:
            side = " by two workers while nobody else works there"
        if (self.spec.workers or 1) > 1:
            side = f" by {self.spec.workers} workers side by side"
        if self.spec.walk is not Walk.AUTO:
            return f"{self.spec.walk}{side}, as it was asked for"
        by = "pages" if self.by_pages else "keys"
        of = f", {len(self.legs):,} partitions one after the other" if self.legs[0].partition else ""
        if self.why_plain:
            return f"plainly, by {by}{side}{of}: {self.why_plain}"
        return f"by {by}{side}, in stripes in windows of {WINDOW_MOST:,} rows at most, or plainly: both are timed{of}"

    @property
    def hands(self) -> int:
        """Connections that may fill side by side, at most."""
        if self.spec.workers is not None:
            return self.spec.workers
        spec = self.spec
        striped = spec.walk in (Walk.AUTO, Walk.STRIPES) and not self.why_plain
        return 2 if striped and spec.mode == "pending" and spec.rows_per_second is None else 1

    @property
    def unheeded(self) -> tuple[str, ...]:
        """Health signals that it does not look at: those left out by name, and lost HOT where no update can be HOT."""
        return (*self.spec.without, "hot") if self.never_hot else self.spec.without

    @property
    def by_pages(self) -> bool:
        """It is walked by the pages of the heap."""
        return self.legs[0].by_pages

    @property
    def as_one(self) -> Plan:
        """The same, with the partitions walked as one table, by keys."""
        return replace(self, legs=legs(self.statements, (), self.legs[0].pages, by_pages=False))

    @property
    def batch_sql(self) -> str:
        """The UPDATE of a batch, for a person to read."""
        return "\n".join(map(sanitize, shown(self.legs[0].statements.update(after=True)).splitlines()))


Maker = Callable[[Target, str], str]
"""The step of this window that made a column of the target; empty: the column was there when the window opened."""


def nobody(target: Target, column: str) -> str:
    """The Maker of a backfill outside a window."""
    del target, column
    return ""


async def plan(
    session: Session, spec: Spec, *, made_by: Maker = nobody, seen: Sight | None = None, within: float = 20.0
) -> Plan:
    """Decides how *spec* will be run; changes nothing, and waits for no lock longer than 100 ms.

    With undo, a column that a step of the window made (*made_by*) needs no before-images: it goes as it came. *seen*
    is what the role that polls can see of the server; without it, it is what our own role can.
    Raises UsageError where the fragments cannot be run as they are written, Refused where the table, our role or the
    server does not allow it, with the way out, and as `Session.call` does.
    """
    require_possible(spec)
    sight.require_known(spec.without)
    read = fragments.read(spec.table, spec.set, spec.where)
    if spec.same is not None:
        fragments.read_condition(spec.table, "same", spec.same)
    wanted = fragments.read_key(spec.key) if spec.key is not None else None
    target = await describe_table(session, read.table, within=within)
    columns = await columns_of(session, target, within=within)
    _check_targets(spec, read, target, columns)
    makers = {column: made_by(target, column) for column in read.targets}
    kept = tuple(column for column, maker in makers.items() if spec.undo and not maker)
    loose = spec.mode == "pending" and not kept and spec.walk is not Walk.KEYSET
    indexes = await unique_indexes(session, target, within=within)
    index = choose(indexes, read.targets, wanted, target.display, loose=loose)
    key = index.key if index is not None else ()
    nullable = index is not None and index.nullable
    statements = Statements(
        target.schema, target.name, key, spec.set, spec.where, read.stays_pending, nullable=nullable
    )
    if kept:
        await require_room(session, target, within=within)
    facts = await walk_facts(session, target, key[0].name if key else None, read.targets, within=within)
    sizes = await estimate(session, target, statements, kept, within=within)
    if spec.same is not None:
        await same.require_sound(session, statements, spec.same, within=within)
    # Before-images are kept under the table's own name: with them its partitions are walked as one.
    parts = [] if kept else await leaves(session, target, within=within)
    if not key and not divisible(parts):
        raise _undivided(target, parts)
    version = session.server_version
    divided = target.kind == "r" or (bool(parts) and divisible(parts))
    by_pages, why = _route(spec, target, facts, sizes, key, version, divided=divided)
    spec_json = _canonical(spec, target, index)
    undo_notes = tuple(notes.of_undo(spec, target, makers, sizes))
    seen = seen or await sight.look(session, within=within)
    costs = _forecast(spec, facts, sizes, why)
    pages = Pages(_rows_each(sizes, facts), ranges=version >= 140_000, octets=facts.block_bytes)
    return Plan(
        spec=spec,
        spec_json=spec_json,
        spec_hash=hashlib.sha256(spec_json.encode()).hexdigest(),
        table=target.display,
        index=one_line(index.index) if index is not None else "",
        key=key,
        nullable=nullable,
        statements=statements,
        legs=legs(statements, parts, pages, by_pages=by_pages),
        rows_estimate=sizes.rows,
        pending_estimate=sizes.pending,
        estimated_by=sizes.by,
        forecast=costs,
        why_plain=why,
        notes=(
            *notes.of_rows(spec, read, target, columns, sizes),
            *notes.of_health(spec, session, seen, costs),
            *undo_notes,
        ),
        undo_notes=undo_notes,
        never_hot=bool(facts.indexes),
        unseen=seen.missing(spec.without),
        made_of=_made_of(read, target, columns, key),
        kept=kept,
        images_bytes=sizes.images_bytes,
    )


def _route(
    spec: Spec,
    target: Target,
    facts: WalkFacts,
    sizes: Sizes,
    key: Sequence[KeyColumn],
    version: int,
    *,
    divided: bool,
) -> tuple[bool, str]:
    """Whether it is walked by pages, and why stripes cannot pay; the latter is empty where they can."""
    why = why_plain(target, facts, sizes.rows)
    if not key:
        return True, why or ("" if version >= 140_000 else "up to 13 the server reads a range of pages row by row")
    can = divided and spec.mode == "pending" and version >= 140_000
    if spec.walk is Walk.PAGES and not can:
        raise UsageError(
            "it cannot be walked by pages",
            why="that needs mode pending, PostgreSQL 14, and partitions that are ours to change",
            next="leave --walk out",
        )
    auto = spec.walk is Walk.AUTO and ((spec.workers or 1) > 1 or not why)
    if can and (auto or spec.walk in (Walk.PAGES, Walk.STRIPES)):
        return True, why
    return False, why or why_not_by_keys(facts, key[0].name)


def _undivided(target: Target, parts: Sequence[Heap]) -> Refused:
    foreign = next((part for part in parts if part.kind != "r"), None)
    if foreign is not None:
        return Refused(
            f"{target.display} has no key to walk by, and a partition elsewhere",
            why=f"{one_line(f'{foreign.schema}.{foreign.name}')} is a foreign table",
            next="name the other partitions one by one",
        )
    hidden = next(part for part in parts if not part.ours)
    table = one_line(f"{hidden.schema}.{hidden.name}")
    return Refused(
        f"{target.display} has no key to walk by, and a partition that our role {target.role} may not fill by itself",
        why=f"it is {table}",
        next=f"GRANT SELECT, UPDATE ON {table} TO {target.role}, and the same for the others",
    )


_ROWS_EACH = 50.0
"""Rows a page, where nothing is known of it."""


def _rows_each(sizes: Sizes, facts: WalkFacts) -> float:
    pages = max(sizes.heap_bytes, facts.heap_bytes) // facts.block_bytes
    return max(0.01, sizes.rows / pages) if pages and sizes.rows else _ROWS_EACH


def _forecast(spec: Spec, facts: WalkFacts, sizes: Sizes, why: str) -> Forecast:
    striped = spec.walk is Walk.STRIPES or (spec.walk is Walk.AUTO and not why)
    table = Table(sizes.rows, max(facts.heap_bytes, sizes.heap_bytes), facts.indexes_all)
    return forecast(
        table, sizes.pending, striped=striped, batch_time_s=spec.batch_time_ms / 1000, most_per_s=spec.rows_per_second
    )


def _canonical(spec: Spec, target: Target, index: UniqueIndex | None) -> str:
    identity = {
        "table": [target.schema, target.name],
        "set": spec.set.strip(),
        "where": spec.where.strip(),
        "key": index.columns if index is not None else [],
        "mode": spec.mode,
    }
    return json.dumps(identity, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _made_of(
    read: fragments.Fragments, target: Target, columns: Mapping[str, Column], key: Sequence[KeyColumn]
) -> dict[str, Any]:
    collations = {column.name: column.collation or columns[column.name].collation for column in key}
    return {
        "table": target.oid,
        "set": {column: columns[column].number for column in read.targets},
        "key": [[columns[c.name].number, c.type, collations[c.name]] for c in key],
    }


def _check_targets(spec: Spec, read: fragments.Fragments, target: Target, columns: Mapping[str, Column]) -> None:
    for assigned in read.targets:
        column = columns.get(assigned)
        if column is None:
            raise UsageError(
                f"{target.display} has no column {one_line(assigned)!r}",
                next="correct SET, or run the migration that adds it",
            )
        if column.generated:
            raise Refused(
                f"{target.display}.{assigned} is a generated column",
                why="the server computes it",
                next="set the columns that it is generated from",
            )
        if column.always_identity:
            raise Refused(
                f"{target.display}.{assigned} is an identity column GENERATED ALWAYS",
                why="an UPDATE may set it to DEFAULT only",
                next="leave it out of SET",
            )
    if read.changes_nothing and not target.update_triggers:
        raise Refused(
            "SET changes nothing",
            why="it gives each column the value that it has",
            next="say what the column is to hold",
        )
    moving = [column for column in read.targets if column in target.divided_by]
    if moving:
        raise Refused(
            f"{target.display} is partitioned by {', '.join(map(one_line, moving))}, which SET changes",
            why="its rows would have to move to other partitions, and each is filled by itself",
            next="change that column by an UPDATE of the whole table, in a step of kind sql",
        )
    if spec.mode == "pending" and not {*read.targets, "*"} & read.where_columns:
        raise Refused(
            f"WHERE does not look at {', '.join(read.targets)}",
            why="rows would stay pending for ever",
            next="add a condition that SET makes untrue, or choose mode once",
        )
