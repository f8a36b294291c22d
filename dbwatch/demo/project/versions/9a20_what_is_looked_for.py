"""What is looked for is found: users by email and by phone number, orders by user."""

from alembic import op

revision = "9a20"
down_revision = "51d0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_unique_constraint("users_email_key", "users", ["email"])
    op.create_index("idx_users_legacy_phone", "users", ["legacy_phone_field"])
    op.create_index("idx_orders_user", "orders", ["user_id"])


def downgrade() -> None:
    op.drop_index("idx_orders_user", "orders")
    op.drop_index("idx_users_legacy_phone", "users")
    op.drop_constraint("users_email_key", "users")
