"""The version table, read from a second connection: the only word on what is committed."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import errors, sql

from dbwatch.errors import DbwatchError
from dbwatch.migration.chain import Chain
from dbwatch.migration.events import Planned
from dbwatch.postgres.session import Session

_SELECT = sql.SQL("SELECT version_num FROM {}")


async def committed_heads(session: Session, planned: Planned | Chain) -> frozenset[str] | None:
    """The heads that everybody sees; empty where there is no version table; None where it cannot be read now."""
    names = (planned.version_schema, planned.version_table) if planned.version_schema else (planned.version_table,)
    try:
        rows = await session.values(_SELECT.format(sql.Identifier(*names)))
    except errors.UndefinedTable:
        return frozenset()
    except (psycopg.Error, DbwatchError):
        return None
    return frozenset(str(head) for (head,) in rows)


def committed_count(sequence: Sequence[frozenset[str]], heads: frozenset[str] | None) -> int:
    """How many steps are committed: *sequence* has the heads before the first step and after each.

    0 also where *heads* is none of them: somebody else moved the version table.
    """
    for count in range(len(sequence) - 1, 0, -1):
        if sequence[count] == heads:
            return count
    return 0
