"""What a backfill with `undo` needs: where its before-images are, and how far they were brought back.

Revision ID: j003
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Text

revision = "j003"
down_revision = "j002"

SCHEMA = "dbwatch"
_WORK = "running, stopped, incomplete, done or failed"
_WAY_BACK = "restoring or restored: its data goes or went back"


def upgrade() -> None:
    for column in (
        Column("images", Text, comment="JSON, where the before-images are; null: none are kept"),
        Column("busy_s", Double, nullable=False, server_default="0", comment="of batches that kept images, with rests"),
        Column("back", Text, comment="JSON array, the last key brought back; null before the first"),
        Column("restored", BigInteger, nullable=False, server_default="0", comment="rows brought back"),
        Column("changed", BigInteger, nullable=False, server_default="0", comment="left: others changed them since"),
        Column("missing", BigInteger, nullable=False, server_default="0", comment="left: they are gone"),
    ):
        op.add_column("backfill", column, schema=SCHEMA)
    op.alter_column("backfill", "status", existing_type=Text, comment=f"{_WORK}; {_WAY_BACK}", schema=SCHEMA)


def downgrade() -> None:
    op.alter_column("backfill", "status", existing_type=Text, comment=_WORK, schema=SCHEMA)
    for name in ("missing", "changed", "restored", "back", "busy_s", "images"):
        op.drop_column("backfill", name, schema=SCHEMA)
