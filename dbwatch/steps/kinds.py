"""Every kind of step, by its name in a runbook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbwatch.steps import backfill, check, manual, migrate, sql
from dbwatch.steps.step import Executor

_KINDS: Mapping[str, Any] = {
    "manual": manual,
    "check": check,
    "migrate": migrate,
    "backfill": backfill,
    "sql": sql,
}
EXECUTORS: Mapping[str, Executor] = {kind: module.run for kind, module in _KINDS.items()}
"""Carries a step of that kind out."""
RECOVERIES: Mapping[str, Executor] = {kind: module.recover for kind, module in _KINDS.items()}
"""Tells how a step of that kind ended whose driver vanished."""
