"""The journal.

Revision ID: j001
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    Text,
    Uuid,
    false,
    text,
)

revision = "j001"
down_revision: str | None = None

SCHEMA = "dbwatch"
_NOW = text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "window",
        Column("id", Uuid, primary_key=True),
        Column("title", Text, nullable=False),
        Column("runbook_text", Text, nullable=False, comment="with ${VAR} unexpanded"),
        Column("runbook_sha", Text, nullable=False),
        Column("opened_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
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
        schema=SCHEMA,
    )
    op.create_index(
        "window_open",
        "window",
        [text("(closed_at IS NULL)")],
        unique=True,
        schema=SCHEMA,
        postgresql_where=text("closed_at IS NULL"),
    )
    op.create_table(
        "event",
        Column("window_id", Uuid, ForeignKey(f"{SCHEMA}.window.id"), primary_key=True),
        Column("seq", BigInteger, primary_key=True),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("actor", Text, nullable=False),
        Column("epoch", Integer, nullable=False),
        Column("kind", Text, nullable=False),
        Column("body", Text, nullable=False, comment="canonical JSON, hashed verbatim"),
        Column("prev_hash", Text, nullable=False),
        Column("hash", Text, nullable=False),
        schema=SCHEMA,
    )
    op.create_table(
        "running",
        Column("window_id", Uuid, ForeignKey(f"{SCHEMA}.window.id"), primary_key=True),
        Column("step", Text, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("epoch", Integer, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("progress", Text, nullable=False, comment="JSON"),
        schema=SCHEMA,
    )
    op.create_table(
        "backfill",
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column(
            "window_id",
            Uuid,
            ForeignKey(f"{SCHEMA}.window.id"),
            comment="null: a backfill of its own, without a window",
        ),
        Column("step_id", Text),
        Column("spec", Text, nullable=False, comment="canonical JSON"),
        Column("spec_hash", Text, nullable=False),
        Column("status", Text, nullable=False, comment="running, stopped, incomplete, done or failed"),
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
        Column("started_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
        Column("beat_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
        Column("ended_at", DateTime(timezone=True)),
        schema=SCHEMA,
    )
    op.create_index("backfill_spec", "backfill", ["spec_hash"], schema=SCHEMA)
    op.create_table(
        "quarantine",
        Column("backfill_id", BigInteger, ForeignKey(f"{SCHEMA}.backfill.id"), primary_key=True),
        Column("key", Text, primary_key=True, comment="JSON array"),
        Column("sqlstate", Text, nullable=False),
        Column("message", Text, nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("quarantine", "backfill", "running", "event", "window"):
        op.drop_table(table, schema=SCHEMA)
