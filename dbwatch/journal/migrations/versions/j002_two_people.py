"""What two people see of each other: who sits at the window, and the way back as its driver last computed it.

Revision ID: j002
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Integer, Text, Uuid

revision = "j002"
down_revision = "j001"

SCHEMA = "dbwatch"


def upgrade() -> None:
    op.create_table(
        "seat",
        Column("window_id", Uuid, ForeignKey(f"{SCHEMA}.window.id"), primary_key=True),
        Column("actor", Text, primary_key=True, comment="name@host"),
        Column("driving", Integer, nullable=False, comment="the epoch that this person holds; 0: a navigator"),
        Column("at", DateTime(timezone=True), nullable=False, comment="last sign of life"),
        schema=SCHEMA,
    )
    op.create_table(
        "way_back",
        Column("window_id", Uuid, ForeignKey(f"{SCHEMA}.window.id"), primary_key=True),
        Column("epoch", Integer, nullable=False),
        Column("seq", BigInteger, nullable=False, comment="the newest event that it takes into account"),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("plan", Text, nullable=False, comment="JSON"),
        Column("verdict", Text, nullable=False, comment="JSON: reversible or not, and from where on not"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("way_back", "seat"):
        op.drop_table(table, schema=SCHEMA)
