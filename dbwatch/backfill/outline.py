"""A plan as a person reads it, before anything runs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dbwatch.backfill.forecast import Forecast
from dbwatch.backfill.plan import Plan
from dbwatch.text import age, count, one_line, size


def outline(found: Plan) -> Iterator[tuple[str, str]]:
    """What *found* says, a name and a sentence each; its SQL is `batch_sql`."""
    yield "table", f"{found.table}, about {found.rows_estimate:,} rows"
    yield "pending", f"about {found.pending_estimate:,} rows ({found.estimated_by})"
    yield "key", _key(found)
    most = f", {found.spec.rows_per_second:,} rows a second at most" if found.spec.rows_per_second else ""
    yield "mode", f"{found.spec.mode}, batches of {age(found.spec.batch_time_ms / 1000)}{most}"
    yield "walk", found.walk
    yield "aside", f"{found.spec.quarantine:,} rows at most that cannot take their value; one more ends it"
    if found.forecast is not None:
        yield "costs", cost_of(found.forecast)
    yield from (("note", note) for note in found.notes)


def _key(found: Plan) -> str:
    if not found.key:
        return "none: its pages are passed over until no row is left"
    nulls = "; rows with NULL in it are found by pages" if found.nullable else ""
    return f"{', '.join(one_line(column.name) for column in found.key)} ({found.index}){nulls}"


def cost_of(costs: Forecast) -> str:
    """A forecast for a person."""
    return (
        f"about {count(costs.batches)} batches, {age(costs.seconds)}, {size(costs.wal_bytes)} of WAL, "
        f"{size(costs.bloat_bytes)} of bloat, to a factor of two"
    )
