"""The journal's local copy: a JSONL file, written as things happen, fsynced, never rewritten.

A line is an event of the table (`seq`, `hash`), or one that the table could not take yet (`pending`).
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from dbwatch.journal.events import Event, Fact, decode, encode, kind_of


def state_folder() -> Path:
    """Where dbwatch keeps what belongs to this machine: `$XDG_STATE_HOME/dbwatch`, else `~/.local/state/dbwatch`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "dbwatch"


@dataclass(frozen=True, slots=True)
class Pending:
    """A fact that happened while the table could not be written."""

    at: datetime
    actor: str
    epoch: int
    fact: Fact

    def is_event(self, event: Event) -> bool:
        """Whether *event* is this one, appended later: same instant, actor and text."""
        return (event.at, event.actor, kind_of(event.fact), event.body) == (
            self.at,
            self.actor,
            kind_of(self.fact),
            encode(self.fact),
        )


class Mirror:
    """The local folder of one window: `events.jsonl`, and the files laid beside it."""

    def __init__(self, folder: Path, window: UUID) -> None:
        self.folder = folder / str(window)
        self._file = self.folder / "events.jsonl"
        self._turn = asyncio.Lock()
        self.head: tuple[int, str] = (0, "")
        """(seq, hash) of the newest event of the table that this file holds."""
        self.pending: list[Pending] = []
        """What this file holds and the table was not seen to hold, oldest first."""
        self._read()

    def _read(self) -> None:
        if not self._file.exists():
            return
        for line in self._file.read_text("utf-8", "replace").splitlines():
            try:
                record = json.loads(line)
                at = datetime.fromisoformat(record["at"])
                if record.get("pending"):
                    fact = decode(record["kind"], record["body"])
                    self.pending.append(Pending(at, record["actor"], record["epoch"], fact))
                else:
                    self.head = (record["seq"], record["hash"])
                    self._settled(at, record["actor"], record["kind"], record["body"])
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a process that was killed while it wrote

    def _settled(self, at: datetime, actor: str, kind: str, body: str) -> None:
        self.pending = [
            p for p in self.pending if (p.at, p.actor, kind_of(p.fact), encode(p.fact)) != (at, actor, kind, body)
        ]

    async def took(self, events: list[Event]) -> None:
        """Writes events that the table has committed."""
        lines = []
        for event in events:
            if event.seq <= self.head[0] and event.hash != self.head[1]:
                continue
            lines.append(
                {
                    "seq": event.seq,
                    "at": event.at.astimezone(UTC).isoformat(),
                    "actor": event.actor,
                    "epoch": event.epoch,
                    "kind": kind_of(event.fact),
                    "body": event.body,
                    "hash": event.hash,
                }
            )
            self.head = (event.seq, event.hash)
            self._settled(event.at, event.actor, kind_of(event.fact), event.body)
        await self._write(lines)

    async def keep(self, pending: Pending) -> None:
        """Writes a fact that the table cannot take now."""
        self.pending.append(pending)
        record = {
            "pending": True,
            "at": pending.at.astimezone(UTC).isoformat(),
            "actor": pending.actor,
            "epoch": pending.epoch,
            "kind": kind_of(pending.fact),
            "body": encode(pending.fact),
        }
        await self._write([record])

    async def lay(self, name: str, text: str) -> Path:
        """Puts a file beside the events, whole or not at all; its path."""
        path = self.folder / name

        def put() -> None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_name(path.name + ".new")
            draft.write_text(text, "utf-8")
            draft.replace(path)

        async with self._turn:
            await asyncio.to_thread(put)
        return path

    async def _write(self, records: list[dict[str, object]]) -> None:
        if not records:
            return
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)

        def put() -> None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._file.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())

        async with self._turn:
            await asyncio.to_thread(put)
