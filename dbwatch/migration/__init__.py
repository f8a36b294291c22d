"""Run Alembic in a child process; prove the schema by fingerprint."""
