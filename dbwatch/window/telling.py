"""What the driver's process tells the others of its running work and of the way back: as JSON, and back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from dbwatch.backfill.progress import BackfillProgress
from dbwatch.steps.progress import MigrationProgress
from dbwatch.window.abort import AbortPlan
from dbwatch.window.feed import Rollback

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """How far the running work is."""

    migration: MigrationProgress | None = None
    backfill: BackfillProgress | None = None


_TOLD, _PLAN, _VERDICT = TypeAdapter(Told), TypeAdapter(AbortPlan), TypeAdapter(Rollback)


def told(migration: MigrationProgress | None, backfill: BackfillProgress | None) -> str:
    """As JSON."""
    return _TOLD.dump_json(Told(migration, backfill)).decode()


def heard(text: str) -> Told:
    """What *text* tells; nothing where another version wrote what we cannot read."""
    return _read(_TOLD, text) or Told()


def plan_text(plan: AbortPlan) -> str:
    """The plan as JSON; `plan_of` gives an equal one back."""
    return _PLAN.dump_json(plan).decode()


def plan_of(text: str) -> AbortPlan | None:
    """The plan in *text*; None where another version wrote it."""
    return _read(_PLAN, text)


def verdict_text(rollback: Rollback) -> str:
    """As JSON."""
    return _VERDICT.dump_json(rollback).decode()


def verdict_of(text: str) -> Rollback | None:
    """The verdict in *text*; None where another version wrote it."""
    return _read(_VERDICT, text)


def _read(adapter: TypeAdapter[T], text: str) -> T | None:
    try:
        return adapter.validate_json(text)
    except ValidationError:
        return None
