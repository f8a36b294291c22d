"""The journal's own Alembic migrations."""
