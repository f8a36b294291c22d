"""PostgreSQL's lock modes and which of them conflict. Pure.

From the manual, "Explicit Locking", table 13.2 (Conflicting Lock Modes); the same table governs every kind of
heavyweight lock in pg_locks, advisory and transaction ones too (src/backend/storage/lmgr/lock.c, LockConflicts).
"""

from __future__ import annotations

from functools import reduce

MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)

_CONFLICTS = (
    # AS RS RX SUE S SRX E AE, requested against held
    "       X",
    "      XX",
    "    XXXX",
    "   XXXXX",
    "  XX XXX",
    "  XXXXXX",
    " XXXXXXX",
    "XXXXXXXX",
)

_BIT = {mode: 1 << number for number, mode in enumerate(MODES)}

_AGAINST = {
    mode: reduce(int.__or__, (1 << n for n, mark in enumerate(row) if mark == "X"))
    for mode, row in zip(MODES, _CONFLICTS, strict=True)
}


def bit(mode: str) -> int:
    """The mode as one bit of a set; 0 for a mode that blocks nobody (SIReadLock, or one that is not known)."""
    return _BIT.get(mode, 0)


def against(mode: str) -> int:
    """The set of modes that conflict with *mode*."""
    return _AGAINST.get(mode, 0)


def conflict(one: str, other: str) -> bool:
    """Whether two sessions cannot hold these modes on one object at the same time."""
    return bool(against(one) & bit(other))


def short(mode: str) -> str:
    """`AccessExclusive` for AccessExclusiveLock: as a narrow column shows it."""
    return mode.removesuffix("Lock")
