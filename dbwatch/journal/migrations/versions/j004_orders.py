"""What an order from another terminal needs: where it is written, and that the backfill's worker took notice of it.

Revision ID: j004
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Boolean, Column, Text, false

revision = "j004"
down_revision = "j003"

SCHEMA = "dbwatch"


def upgrade() -> None:
    for column in (
        Column("ordered", Text, comment="JSON, the newest order from another terminal: act, by, at, why; null: none"),
        Column("heeded", Boolean, nullable=False, server_default=false(), comment="its worker took notice of it"),
    ):
        op.add_column("backfill", column, schema=SCHEMA)


def downgrade() -> None:
    for name in ("heeded", "ordered"):
        op.drop_column("backfill", name, schema=SCHEMA)
