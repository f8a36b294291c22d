"""The journal's tables, in schema `dbwatch` of the target database. Created by `journal/migrations`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    false,
    func,
)

from dbwatch.journal import SCHEMA

metadata = MetaData(schema=SCHEMA)

window = Table(
    "window",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("title", Text, nullable=False),
    Column("runbook_text", Text, nullable=False, comment="with ${VAR} unexpanded"),
    Column("runbook_sha", Text, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("start_heads", Text, nullable=False, comment="Alembic heads at the opening, JSON array"),
    Column("fingerprint", Text, nullable=False, comment="the schema at the opening, JSON"),
    Column("baseline", Text, nullable=False, comment="counters at the opening, JSON"),
    Column("epoch", Integer, nullable=False),
    Column("driver", Text, nullable=False),
    Column("lease_until", DateTime(timezone=True), nullable=False),
    Column("last_seq", BigInteger, nullable=False, server_default="0"),
    Column("head_hash", Text, nullable=False, server_default=""),
    Column("closed_at", DateTime(timezone=True)),
    Column("outcome", Text, comment="done, aborted or failed"),
)
# At most one open window in a database.
Index("window_open", window.c.closed_at.is_(None), unique=True, postgresql_where=window.c.closed_at.is_(None))

event = Table(
    "event",
    metadata,
    Column("window_id", Uuid, ForeignKey(window.c.id), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False, comment="canonical JSON, hashed verbatim"),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

running = Table(
    "running",
    metadata,
    Column("window_id", Uuid, ForeignKey(window.c.id), primary_key=True),
    Column("step", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("progress", Text, nullable=False, comment="JSON"),
)

seat = Table(
    "seat",
    metadata,
    Column("window_id", Uuid, ForeignKey(window.c.id), primary_key=True),
    Column("actor", Text, primary_key=True, comment="name@host"),
    Column("driving", Integer, nullable=False, comment="the epoch that this person holds; 0: a navigator"),
    Column("at", DateTime(timezone=True), nullable=False, comment="last sign of life"),
)

way_back = Table(
    "way_back",
    metadata,
    Column("window_id", Uuid, ForeignKey(window.c.id), primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False, comment="the newest event that it takes into account"),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("plan", Text, nullable=False, comment="JSON"),
    Column("verdict", Text, nullable=False, comment="JSON: reversible or not, and from where on not"),
)

backfill = Table(
    "backfill",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("window_id", Uuid, ForeignKey(window.c.id), comment="null: a backfill of its own, without a window"),
    Column("step_id", Text),
    Column("spec", Text, nullable=False, comment="canonical JSON"),
    Column("spec_hash", Text, nullable=False),
    Column(
        "status",
        Text,
        nullable=False,
        comment="running, stopped, incomplete, done or failed; restoring or restored: its data goes or went back",
    ),
    Column("owner", Text, nullable=False, comment="application_name of the worker that holds the epoch"),
    Column("epoch", Integer, nullable=False),
    Column("cursor", Text, comment="JSON array, the last key done; null before the first batch"),
    Column("ceiling", Text, comment="JSON array, the last key to do; null where the table was empty"),
    Column("rows_done", BigInteger, nullable=False, server_default="0"),
    Column("batches", BigInteger, nullable=False, server_default="0"),
    Column("scanned", BigInteger, nullable=False, server_default="0", comment="keys that the cursor has passed"),
    Column(
        "walked", Boolean, nullable=False, server_default=false(), comment="the end was reached, the final scan not"
    ),
    Column("pending", BigInteger, comment="rows still pending as the final scan counted them"),
    Column("note", Text, comment="why it failed or is incomplete, one sentence"),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("beat_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("ended_at", DateTime(timezone=True)),
    Column("images", Text, comment="JSON, where the before-images are; null: none are kept"),
    Column("busy_s", Double, nullable=False, server_default="0", comment="of batches that kept images, with rests"),
    Column("back", Text, comment="JSON array, the last key brought back; null before the first"),
    Column("restored", BigInteger, nullable=False, server_default="0", comment="rows brought back"),
    Column("changed", BigInteger, nullable=False, server_default="0", comment="left: others changed them since"),
    Column("missing", BigInteger, nullable=False, server_default="0", comment="left: they are gone"),
    Column("ordered", Text, comment="JSON, the newest order from another terminal: act, by, at, why; null: none"),
    Column("heeded", Boolean, nullable=False, server_default=false(), comment="its worker took notice of it"),
)
Index("backfill_spec", backfill.c.spec_hash)

quarantine = Table(
    "quarantine",
    metadata,
    Column("backfill_id", BigInteger, ForeignKey(backfill.c.id), primary_key=True),
    Column("key", Text, primary_key=True, comment="JSON array"),
    Column("sqlstate", Text, nullable=False),
    Column("message", Text, nullable=False),
)
