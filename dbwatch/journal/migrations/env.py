"""Alembic's environment for the journal: one connection, handed over by `journal/schema.py`."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from dbwatch.journal import SCHEMA
from dbwatch.journal.tables import metadata

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, version_table_schema=SCHEMA)
with context.begin_transaction():
    context.run_migrations()
