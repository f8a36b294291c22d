"""A snapshot as JSON: what `dbwatch snapshot --json` prints. Its keys are a contract with scripts. Pure."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from dbwatch.monitor.samples import Snapshot, View

VIEWS = ("activity", "locks", "statements", "indexes", "tables", "progress", "replication")


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """`{"server": {...}, "activity": {"status", "at", "reason", "rows"}, "locks": ..., ...}`, ready for json.dumps.

    Instants are ISO 8601 in UTC. `server` holds the facts, whether there is a connection, and the vitals.
    """
    facts = snapshot.facts
    server: dict[str, Any] = {"connected": snapshot.connected, "trouble": snapshot.trouble, "at": _plain(snapshot.at)}
    if facts is not None:
        server |= _plain(facts)
        server |= {"name": facts.name, "major": facts.major, "version_text": facts.version_text}
        server["looked_at"] = server.pop("at")
        server["at"] = _plain(snapshot.at)
    server["own_pids"] = sorted(snapshot.own_pids)
    server["vitals"] = _view(snapshot.vitals)
    return {"server": server, **{name: _view(getattr(snapshot, name)) for name in VIEWS}}


def _view(view: View[Any]) -> dict[str, Any]:
    return {
        "status": view.status.value,
        "reason": view.reason,
        "at": _plain(view.at),
        "rows": [_plain(row) for row in view.rows],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (tuple, list, frozenset)):
        return [_plain(item) for item in value]
    return value
