"""What a person should know before a backfill starts, one sentence each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dbwatch.backfill import fragments
from dbwatch.backfill.estimate import Sizes
from dbwatch.backfill.forecast import Forecast
from dbwatch.backfill.sight import Sight
from dbwatch.backfill.signals import Thresholds
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.target import Column, Target
from dbwatch.journal import SCHEMA
from dbwatch.postgres.session import Session
from dbwatch.text import count, one_line, size


def of_rows(
    spec: Spec, read: fragments.Fragments, target: Target, columns: Mapping[str, Column], sizes: Sizes
) -> Iterator[str]:
    """What becomes of its rows."""
    if target.update_triggers:
        yield f"each row fires: {', '.join(map(one_line, target.update_triggers))}"
    if sizes.unfillable:
        yield (
            f"about {sizes.unfillable} rows stay pending, since SET leaves them so; if that is meant, add to WHERE: "
            f"{extra_condition(read.stays_pending)}"
        )
    named = read.set_columns | read.where_columns | set(read.targets)
    if any(c.type == "timestamp with time zone" for c in columns.values() if c.name in named or "*" in named):
        yield "batches run with TimeZone UTC and DateStyle ISO: casts of timestamps in SET and WHERE follow them"
    if spec.same is not None:
        yield f"while it runs, and for all rows in the end, it is looked whether {one_line(spec.same, 200)}"
    if spec.mode == "once":
        yield "only the cursor keeps a row from being set twice; rows above the highest key at the start stay out"


def of_health(spec: Spec, session: Session, seen: Sight, costs: Forecast) -> Iterator[str]:
    """What of the server's health is not seen, or will hold it up."""
    yield from seen.notes(spec.without)
    if session.pooled and "blocked" not in spec.without:
        yield "behind a pooler nobody sees whom our batches block: give the server's own address"
    if "wal" not in spec.without and costs.wal_bytes > Thresholds().wal_share * seen.max_wal_size:
        yield (
            f"about {size(costs.wal_bytes)} of WAL to a max_wal_size of {size(seen.max_wal_size)}: it pauses so that"
            " checkpoints do not come early; raise max_wal_size, or leave out the signal wal"
        )


def of_undo(spec: Spec, target: Target, makers: Mapping[str, str], sizes: Sizes) -> Iterator[str]:
    """What undo keeps; *makers* names the step that made each column that SET assigns."""
    if not spec.undo:
        return
    for column, maker in makers.items():
        if maker:
            name = one_line(f"{target.display}.{column}")
            yield f"undo: {name} was made by {maker} and goes with it, so that no before-images of it are needed"
    if sizes.images_bytes is not None:
        kept = ", ".join(one_line(column) for column, maker in makers.items() if not maker)
        fires = ("; bringing it back fires the same triggers",) if target.update_triggers else ()
        yield "".join(
            (
                f"undo: what {kept} held before is kept in schema {SCHEMA}, ",
                f"about {size(sizes.images_bytes)} for {count(sizes.pending)} rows",
                *fires,
            )
        )


def extra_condition(stays_pending: str | None) -> str:
    """What to add to WHERE so that it takes only rows that SET clears; empty where that cannot be told."""
    return f"AND ({stays_pending}) IS NOT TRUE" if stays_pending else ""
