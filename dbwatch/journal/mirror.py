"""The journal's local copy: a JSONL file, written as things happen, fsynced, never rewritten.

A line is an event of the table (`seq`, `hash`), or one that the table could not take yet (`pending`). A disk that is
full or hangs stops nobody: what it did not take is written as soon as it does, and `trouble` says so until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from dbwatch.errors import UsageError
from dbwatch.journal.aside import aside
from dbwatch.journal.chain import Event, decode, encode, kind_of
from dbwatch.journal.events import Fact
from dbwatch.text import one_line

WAIT_S = 1.0
"""How long a write to the disk is waited for; it goes on behind after that."""


def state_folder() -> Path:
    """Where dbwatch keeps what belongs to this machine: `$XDG_STATE_HOME/dbwatch`, else `~/.local/state/dbwatch`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "dbwatch"


_Key = tuple[datetime, str, str, str]


@dataclass(frozen=True, slots=True)
class Pending:
    """A fact that happened while the table could not be written."""

    at: datetime
    actor: str
    epoch: int
    fact: Fact

    @property
    def key(self) -> _Key:
        """By what it is known again once the table has it: instant, actor, kind and text."""
        return self.at, self.actor, kind_of(self.fact), encode(self.fact)


def key_of(event: Event) -> _Key:
    """By what *event* is known as a `Pending` that was appended later."""
    return event.at, event.actor, kind_of(event.fact), event.body


class Mirror:
    """The local folder of one window: `events.jsonl`, and the files laid beside it."""

    def __init__(self, folder: Path, window: UUID) -> None:
        """Reads what an earlier driver left there. Raises UsageError where that may not be read."""
        self.folder = folder / str(window)
        self._file = self.folder / "events.jsonl"
        self._hashes: dict[int, str] = {}
        self.pending: list[Pending] = []
        """What this file holds and the table was not seen to hold, oldest first."""
        self._unwritten: list[str] = []
        self._written = 0
        self._writing: asyncio.Future[None] | None = None
        self._late, self._failed = False, ""
        try:
            self._read()
        except OSError as error:
            raise self._unusable("cannot be read", error) from error

    @property
    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest event of the table that this file holds; (0, "") where it holds none."""
        seq = max(self._hashes, default=0)
        return seq, self._hashes.get(seq, "")

    @property
    def trouble(self) -> str:
        """Why this file is behind what happened; empty where it is not."""
        if self._failed:
            return f"the local copy cannot be written: {self._failed}"
        return f"the local copy cannot be written: {self._file} does not answer" if self._late else ""

    def prepare(self) -> None:
        """Makes the folder. Raises UsageError where nothing can be written there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._file.open("a"):
                pass
        except OSError as error:
            raise self._unusable("cannot be written", error) from error

    def _unusable(self, what: str, error: OSError) -> UsageError:
        why = error.strerror or one_line(str(error))
        next = "make that folder yours, or name another one with --state-dir"
        return UsageError(f"the journal's local copy in {self.folder} {what}", why=why, next=next)

    def _read(self) -> None:
        if not self._file.exists():
            return
        for line in self._file.read_text("utf-8", "replace").split("\n"):
            try:
                record = json.loads(line)
                at, actor, body = datetime.fromisoformat(record["at"]), record["actor"], record["body"]
                if record.get("pending"):
                    self._await(Pending(at, actor, record["epoch"], decode(record["kind"], body)))
                else:
                    self._hold(record["seq"], record["hash"], (at, actor, record["kind"], body))
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a process that was killed, or of a disk that was full, while it wrote

    def _await(self, pending: Pending) -> None:
        if pending not in self.pending:
            self.pending.append(pending)

    def _hold(self, seq: int, digest: str, key: _Key) -> None:
        """Takes a line of the table in. One that differs from ours of that seq: the table went another way there."""
        if self._hashes.get(seq, digest) != digest:
            self._hashes = {n: known for n, known in self._hashes.items() if n < seq}
        self._hashes[seq] = digest
        self.pending = [p for p in self.pending if p.key != key]

    async def took(self, events: list[Event]) -> None:
        """Writes events that the table has committed, those that the file lacks."""
        lines = []
        for event in events:
            if self._hashes.get(event.seq) == event.hash:
                continue
            self._hold(event.seq, event.hash, key_of(event))
            own = {"seq": event.seq, "hash": event.hash}
            lines.append(own | _record(event.at, event.actor, event.epoch, kind_of(event.fact), event.body))
        await self._write(lines)

    async def keep(self, *facts: Pending) -> None:
        """Writes facts that the table cannot take now."""
        lines = []
        for p in facts:
            self._await(p)
            lines.append({"pending": True} | _record(p.at, p.actor, p.epoch, kind_of(p.fact), encode(p.fact)))
        await self._write(lines)

    async def lay(self, name: str, text: str) -> Path:
        """Puts a file beside the events, whole or not at all; its path. Raises OSError, within a few seconds."""
        path = self.folder / name

        def put() -> None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_name(path.name + ".new")
            draft.write_text(text, "utf-8")
            draft.replace(path)

        await asyncio.wait_for(aside(put, f"lays {name}"), 3 * WAIT_S)
        return path

    async def catch_up(self) -> None:
        """Writes what the disk did not take before, where there is any."""
        if self._unwritten:
            await self._write([])

    async def _write(self, records: list[dict[str, object]]) -> None:
        """Hands lines to the disk, and waits a moment for it; never raises: `trouble` says what became of it."""
        self._unwritten += [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        last = self._written + len(self._unwritten)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while self._written < last and not self._late:
                    if self._writing is None:
                        self._begin_write()
                    assert self._writing is not None
                    await asyncio.wait({self._writing})
                    if self._failed:
                        return
                return
        self._late = self._writing is not None

    def _begin_write(self) -> None:
        lines = len(self._unwritten)
        self._writing = aside(self._appending("".join(self._unwritten)), "writes the mirror")
        self._writing.add_done_callback(lambda done: self._wrote(done, lines))

    def _wrote(self, writing: asyncio.Future[None], lines: int) -> None:
        self._writing, self._late = None, False
        error = None if writing.cancelled() else writing.exception()
        self._failed = one_line(str(error)) if error is not None else ""
        if error is None:
            del self._unwritten[:lines]
            self._written += lines

    def _appending(self, text: str) -> Callable[[], None]:
        def put() -> None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._file.open("ab") as file:
                file.write(_end_of_line(self._file) + text.encode("utf-8", "replace"))
                file.flush()
                os.fsync(file.fileno())

        return put


def _end_of_line(path: Path) -> bytes:
    """What has to come before a new line: a line feed where the last one was cut short."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return b""
        file.seek(-1, os.SEEK_END)
        return b"" if file.read(1) == b"\n" else b"\n"


def _record(at: datetime, actor: str, epoch: int, kind: str, body: str) -> dict[str, object]:
    return {"at": at.astimezone(UTC).isoformat(), "actor": actor, "epoch": epoch, "kind": kind, "body": body}
