"""The way down a chain: which revisions, in which order, and where that leaves the version table. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dbwatch.errors import DbwatchError
from dbwatch.migration.chain import Chain


def closure(chain: Chain, heads: Iterable[str]) -> frozenset[str]:
    """*heads* and all that they rest on. Raises DbwatchError for a revision that the scripts do not know."""
    parents = {revision.id: revision.down for revision in chain.revisions}
    found: set[str] = set()
    todo = list(heads)
    while todo:
        one = todo.pop()
        if one not in parents:
            raise DbwatchError(
                f"the scripts here do not know revision {one}",
                why="the database has it",
                next="check out the code that made it",
            )
        if one not in found:
            found.add(one)
            todo.extend(parents[one])
    return frozenset(found)


def heads_of(chain: Chain, applied: Iterable[str]) -> frozenset[str]:
    """What of *applied*, a set of revisions closed under what they rest on, nothing else in it rests on."""
    there = frozenset(applied)
    below = {parent for revision in chain.revisions if revision.id in there for parent in revision.down}
    return there - below


def down(chain: Chain, have: Iterable[str], want: Iterable[str]) -> tuple[str, ...]:
    """The revisions between the heads *have* and the heads *want*, in the order in which Alembic takes them back.

    Raises DbwatchError as `closure` does.
    """
    between = closure(chain, have) - closure(chain, want)
    return tuple(revision.id for revision in reversed(chain.revisions) if revision.id in between)


def up(chain: Chain, have: Iterable[str], want: Iterable[str]) -> tuple[str, ...]:
    """The revisions from the heads *have* to the heads *want*, parents first. Raises DbwatchError as `closure` does."""
    between = closure(chain, want) - closure(chain, have)
    return tuple(revision.id for revision in chain.revisions if revision.id in between)


def linear(chain: Chain, have: Iterable[str], want: Iterable[str]) -> bool:
    """Whether one revision follows another on that way, so that its order is no question."""
    between = closure(chain, want) - closure(chain, have)
    parents = [parent for revision in chain.revisions if revision.id in between for parent in revision.down]
    return len(parents) == len(set(parents)) and all(len(chain.revision(id).down) <= 1 for id in between)
