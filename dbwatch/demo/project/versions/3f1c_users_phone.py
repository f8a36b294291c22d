"""Expand: users.phone, which is to replace legacy_phone_field."""

import sqlalchemy as sa
from alembic import op

revision = "3f1c"
down_revision = "9a20"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("phone", sa.String(20)))


def downgrade() -> None:
    op.drop_column("users", "phone")
