"""The figures from before the window, against which its changes are measured; as text for the journal. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dbwatch.monitor.samples import Snapshot, Statement, Status
from dbwatch.postgres.facts import ServerFacts

StatementKey = tuple[int, int, int, bool]

TOP = 500
"""Statements that a baseline keeps: as many as one poll brings."""

_MOST_INDEXES = 1_000
"""Indexes that one poll brings at most."""

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """Cumulative figures of one statement; times in milliseconds."""

    calls: int
    total_exec_time: float
    rows: int
    temp_blks_written: int
    wal_bytes: int
    stats_since: datetime | None = None

    @classmethod
    def of(cls, statement: Statement) -> Figures:
        """Those of a row of pg_stat_statements."""
        return cls(
            statement.calls,
            statement.total_exec_time,
            statement.rows,
            statement.temp_blks_written,
            statement.wal_bytes,
            statement.stats_since,
        )


@dataclass(frozen=True, slots=True)
class TableFigures:
    """Counters of one table."""

    bytes: int
    n_live_tup: int
    n_dead_tup: int
    n_tup_upd: int
    n_tup_hot_upd: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the counters stood at, at one instant of the server's clock."""

    at: datetime
    system_identifier: str
    database_oid: int
    statements: Mapping[StatementKey, Figures] = field(default_factory=dict)
    statements_complete: bool = True
    """False where there were more statements than kept: one that is missing here may have run before."""
    indexes: Mapping[int, int] = field(default_factory=dict)
    """idx_scan by indexrelid."""
    indexes_complete: bool = True
    """False where some were not read: one that is missing here may have been there before."""
    tables: Mapping[int, TableFigures] = field(default_factory=dict)
    """By relid."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> Baseline:
        """The baseline that *snapshot* gives. Raises ValueError where it never reached a server."""
        if snapshot.facts is None or snapshot.at is None:
            raise ValueError("this snapshot has not seen a server yet")
        kept = statement_figures(snapshot.statements.rows[:TOP])
        view, indexes = snapshot.statements, snapshot.indexes
        return cls(
            at=snapshot.at,
            system_identifier=snapshot.facts.system_identifier,
            database_oid=snapshot.facts.database_oid,
            statements=kept,
            statements_complete=view.status is Status.OK and not view.reason and len(view.rows) < TOP,
            indexes={index.indexrelid: index.idx_scan for index in indexes.rows},
            indexes_complete=indexes.status is Status.OK and not indexes.reason,
            tables={
                t.relid: TableFigures(t.bytes, t.n_live_tup, t.n_dead_tup, t.n_tup_upd, t.n_tup_hot_upd)
                for t in snapshot.tables.rows
            },
        )

    def fits(self, facts: ServerFacts) -> bool:
        """Whether it was taken in the database that *facts* describe."""
        return (self.system_identifier, self.database_oid) == (facts.system_identifier, facts.database_oid)

    def to_json(self) -> str:
        """Canonical text: equal baselines give equal text. `from_json` reads it."""
        body = {
            "format": _FORMAT,
            "at": self.at.isoformat(),
            "system_identifier": self.system_identifier,
            "database_oid": self.database_oid,
            "statements_complete": self.statements_complete,
            "statements": [[*key, *_plain(figures)] for key, figures in sorted(self.statements.items())],
            "indexes": [list(item) for item in sorted(self.indexes.items())],
            "indexes_complete": self.indexes_complete,
            "tables": [
                [relid, t.bytes, t.n_live_tup, t.n_dead_tup, t.n_tup_upd, t.n_tup_hot_upd]
                for relid, t in sorted(self.tables.items())
            ],
        }
        return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Baseline:
        """The baseline that `to_json` wrote as *text*. Raises ValueError where it is none.

        A text of before `indexes_complete` says by their number whether it has all of them.
        """
        try:
            body = json.loads(text)
            if body["format"] != _FORMAT:
                raise ValueError(f"a baseline of format {body['format']} is not known here")
            return cls(
                at=datetime.fromisoformat(body["at"]),
                system_identifier=str(body["system_identifier"]),
                database_oid=int(body["database_oid"]),
                statements_complete=bool(body["statements_complete"]),
                statements={_key(row): _figures(row[4:]) for row in body["statements"]},
                indexes={int(oid): int(scans) for oid, scans in body["indexes"]},
                indexes_complete=bool(body.get("indexes_complete", 0 < len(body["indexes"]) < _MOST_INDEXES)),
                tables={int(relid): TableFigures(*map(int, rest)) for relid, *rest in body["tables"]},
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"this is no baseline: {type(error).__name__} {error}") from error


def statement_figures(statements: Sequence[Statement]) -> dict[StatementKey, Figures]:
    """The figures of *statements* by their key."""
    return {statement.key: Figures.of(statement) for statement in statements}


def _plain(figures: Figures) -> list[Any]:
    since = figures.stats_since
    return [
        figures.calls,
        figures.total_exec_time,
        figures.rows,
        figures.temp_blks_written,
        figures.wal_bytes,
        since.isoformat() if since else None,
    ]


def _key(row: Sequence[Any]) -> StatementKey:
    return (int(row[0]), int(row[1]), int(row[2]), bool(row[3]))


def _figures(row: Sequence[Any]) -> Figures:
    calls, total, rows, temp, wal, since = row
    at = datetime.fromisoformat(since) if since else None
    return Figures(int(calls), float(total), int(rows), int(temp), int(wal), at)
