"""Contract: users.legacy_phone_field and its index go; users.phone has all of it."""

import sqlalchemy as sa
from alembic import op

revision = "7be4"
down_revision = "5e07"
branch_labels = None
depends_on = None

REFILL = """
DO $$
DECLARE
    lo bigint := 0;
    hi bigint;
BEGIN
    LOOP
        SELECT max(id) INTO hi
          FROM (SELECT id FROM users WHERE id > lo ORDER BY id LIMIT 10000) AS batch;
        EXIT WHEN hi IS NULL;
        UPDATE users SET legacy_phone_field = phone WHERE id > lo AND id <= hi;
        COMMIT;
        lo := hi;
    END LOOP;
END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("idx_users_legacy_phone", "users", postgresql_concurrently=True)
    op.drop_column("users", "legacy_phone_field")


def downgrade() -> None:
    op.add_column("users", sa.Column("legacy_phone_field", sa.String(32)))
    with op.get_context().autocommit_block():
        op.execute(REFILL)
        op.create_index("idx_users_legacy_phone", "users", ["legacy_phone_field"], postgresql_concurrently=True)
