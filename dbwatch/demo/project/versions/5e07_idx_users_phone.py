"""Expand: users are found by phone. Its index comes once the column is filled: until then every row is spared it."""

from alembic import op

revision = "5e07"
down_revision = "3f1c"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("idx_users_phone", "users", ["phone"], postgresql_concurrently=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("idx_users_phone", "users", postgresql_concurrently=True)
