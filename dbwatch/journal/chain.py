"""The lines of a window's journal: a fact as canonical JSON, chained by hashes to the line before. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dbwatch.journal.events import KNOWN, Fact, Foreign


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KNOWN[kind])


def encode(fact: Fact) -> str:
    """The body of *fact* as canonical JSON text: sorted keys, no white space, UTF-8 as it is."""
    if isinstance(fact, Foreign):
        return fact.body
    plain = _adapter(fact.kind).dump_python(fact, mode="json")
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def decode(kind: str, body: str) -> Fact:
    """The fact in *body*. A kind, or a shape, that this version does not know becomes `Foreign`."""
    if kind not in KNOWN:
        return Foreign(kind, body)
    try:
        fact: Fact = _adapter(kind).validate_json(body)
    except ValidationError:
        return Foreign(kind, body)
    return fact


def kind_of(fact: Fact) -> str:
    """The kind under which *fact* stands in the journal."""
    return fact.name if isinstance(fact, Foreign) else fact.kind


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a window's journal."""

    seq: int
    """From 1, without a gap."""
    at: datetime
    """The server's clock."""
    actor: str
    """`name@host`."""
    epoch: int
    fact: Fact
    body: str
    prev_hash: str
    hash: str


def chain_hash(prev_hash: str, seq: int, at: datetime, actor: str, epoch: int, kind: str, body: str) -> str:
    """The hash of an event: SHA-256 over its predecessor's hash and its own columns, hexadecimal."""
    text = json.dumps([prev_hash, seq, at.astimezone(UTC).isoformat(), actor, epoch, kind, body], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def make(fact: Fact, *, seq: int, at: datetime, actor: str, epoch: int, prev_hash: str) -> Event:
    """The event that says *fact*, chained to its predecessor."""
    body = encode(fact)
    digest = chain_hash(prev_hash, seq, at, actor, epoch, kind_of(fact), body)
    return Event(seq, at, actor, epoch, fact, body, prev_hash, digest)


def broken_link(events: Iterable[Event], seq: int = 0, previous: str = "") -> int | None:
    """The seq of the first event that does not follow from its predecessor; None where the chain holds.

    *events* come after the one of that *seq* and with *previous* as its hash; after none, they are the whole journal.
    """
    expected = seq + 1
    for event in events:
        digest = chain_hash(previous, expected, event.at, event.actor, event.epoch, kind_of(event.fact), event.body)
        if event.seq != expected or event.prev_hash != previous or event.hash != digest:
            return event.seq
        previous, expected = event.hash, expected + 1
    return None
