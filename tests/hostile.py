"""Text from people who wish the screen ill, in every place where foreign text can stand.

Run as a program it shows the whole app over such frames: `python tests/hostile.py hostile`. With `still` every frame
is the same, with `harmless` they carry plain words.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from fakefeed import (
    ADDING,
    BACKFILLING,
    MIGRATING,
    PLAN,
    RUNBOOK,
    T0,
    FakeClock,
    FakeDesk,
    FakeFeed,
    session,
    snapshot,
    window,
)

from dbwatch.journal import events as ev
from dbwatch.monitor.samples import IndexUse, Lock, Progress, Snapshot, Statement, Status, View
from dbwatch.runbook.model import Runbook
from dbwatch.text import sanitize
from dbwatch.tui.app import DbwatchApp
from dbwatch.window.feed import Frame
from dbwatch.window.intents import Answer

PAYLOADS = {
    "clear the screen": "a\x1b[2J\x1b[Hb",
    "unterminated OSC": "a\x1b]0;owned",
    "terminated OSC": "a\x1b]52;c;b3duZWQ=\x07b",
    "DCS": "a\x1bP1$r0m\x1b\\b",
    "8-bit CSI": "a\x9b2Jb\x9d0;x\x9cc",
    "reset": "a\x1bcb\x0e\x0fc",
    "bidi": "a\u202etxet\u2066b\u2069",
    "zero width": "a\u200bb\u200d\ufeffc\u2060",
    "closing markup": "[/] [/foo] [b + x",
    "action markup": "[@click=app.quit]press[/]",
    "colour markup": "[red]x[/red] [on blue]y",
    "tabs and newlines": "a\tb\nc\r\nd\x0b\x0ce\x85f\u2028g\u2029h",
    "bells and backspaces": "a\x07\x08\x08\x08b\x7f\x00c",
    "wide": "日本語のクエリ" * 3,
    "combining": "Z\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308" * 5,
    "leading mark": "\u0301\u0302abc",
    "variation selectors": "❤\ufe0f☎\ufe0f1\ufe0f\u20e3",
    "emoji family": "👨\u200d👩\u200d👧 🇩🇪 🏳\ufe0f\u200d🌈",
    "lone surrogate": "a\ud83db\udc00",
    "very long": "x" * 100_000,
    "very long and wide": "語" * 50_000,
    "very long and combining": "e" + "\u0301" * 50_000,
    "a format": "{0} {x!r} %s %(x)s $x ${HOME} \\x1b",
}
HARMLESS = {name: f"plain text {number}" for number, name in enumerate(PAYLOADS)}

AT = T0 + timedelta(seconds=761)


def _view(*rows: object, status: Status = Status.OK, reason: str = "") -> View[Any]:
    return View(status, reason, AT, 100.0, rows)


def polled(texts: list[str]) -> Snapshot:
    """A poll in which each name and each text is one of *texts*; the collectors have sanitized them."""
    rows = [
        replace(session(1000 + n, text, text, at=AT, age=60 - n), usename=text, datname=text, client=text,
                wait_event_type="Lock" if n else "", wait_event="relation" if n else "")
        for n, text in enumerate(texts)
    ]  # fmt: skip
    hidden = session(2000, texts[0], "", at=AT, hidden=True)
    idle = session(2001, texts[1], texts[2], at=AT, state=f"idle {texts[3]}", backend_type=texts[4])
    locks = [
        Lock(
            1000 + n, "relation", texts[n], "k", "AccessExclusiveLock", n == 0, AT - timedelta(seconds=n) if n else None
        )
        for n in range(len(texts))
    ]
    prepared = [
        Lock(0, "relation", texts[0], "p", "AccessExclusiveLock", True, None, gid=texts[1]),
        Lock(2001, "relation", texts[0], "p", "AccessShareLock", False, AT),
    ]
    statements = [Statement(1, 1, n, True, text, 10, 50.0, 1, 1, 1) for n, text in enumerate(texts)]
    earlier = [replace(statement, calls=5, total_exec_time=1.0) for statement in statements]
    indexes = [IndexUse(n, text, text, text, n, AT, 10, n % 2 == 0, True, False, False) for n, text in enumerate(texts)]
    building = [
        Progress(1000 + n, "CREATE INDEX", text, text, n, 100, f"index {text}", 1000) for n, text in enumerate(texts)
    ]
    base = snapshot(761)
    assert base.facts is not None
    return replace(
        base,
        facts=replace(base.facts, database=texts[0], user=texts[1], host=texts[2]),
        notice=texts[3],
        activity=_view(*rows, hidden, idle, status=Status.HIDDEN, reason=texts[8]),
        locks=_view(*locks, *prepared, reason=texts[9]),
        statements=_view(*statements, status=Status.ERROR, reason=texts[10]),
        statements_before=_view(*earlier),
        indexes=_view(*indexes, status=Status.LOCKED, reason=texts[11]),
        progress=_view(*building, status=Status.UNSUPPORTED, reason=texts[0]),
    )


def runbook(texts: list[str]) -> Runbook:
    """The runbook with such texts as its author chose."""

    def dirty(step: Any, text: str) -> Any:
        return step.model_copy(update={field: text for field in ("text", "rollback", "sql") if hasattr(step, field)})

    phases = [
        phase.model_copy(update={"step": [dirty(step, texts[8 + n]) for n, step in enumerate(phase.step)]})
        for phase in RUNBOOK.phase
    ]
    return RUNBOOK.model_copy(update={"title": texts[8], "phase": phases})


def opened(texts: list[str]) -> Frame:
    """A window in which everybody wrote such texts into the journal."""
    said = [fact for text in texts for fact in (
        ev.Noted(text), ev.StepNoted("add", text), ev.SessionSignalled("cancel", 7, text, text, text),
        ev.WorkStopped(text), ev.StepFailed("add", 1, text, 1.0, again=True), ev.DriverTook(text, text),
        ev.StepDone("preview", 1, text, 1.0), ev.RunbookAmended("sha", text), ev.StepUnknown("add", 1, text),
    )]  # fmt: skip
    running = (*said, *ADDING)
    view = window(
        *running,
        runbook=runbook(texts),
        actor=texts[8],
        journal_trouble=texts[9],
        busy=texts[10],
        migration=replace(MIGRATING, statement=texts[0], waits_for=texts[9], revision=texts[10]),
        backfill=replace(BACKFILLING, table=texts[0], reason=texts[9]),
        backfill_step="fill",
    )
    return Frame(polled(texts), replace(view, rollback=replace(view.rollback, reason=texts[8], no_return="drop")))


def lost(texts: list[str]) -> Frame:
    """The same after the connection went."""
    frame = opened(texts)
    return replace(frame, snapshot=replace(frame.snapshot, connected=False, trouble=texts[1]))


def plan(texts: list[str]) -> Any:
    """An abort plan with such texts."""
    actions = tuple(
        replace(action, title=texts[8 + n % 3], notes=(texts[n],), sql=(texts[n + 1],))
        for n, action in enumerate(PLAN.actions)
    )
    return replace(PLAN, actions=actions, lost=(texts[1],), obstacles=(texts[2],), target=texts[3])


async def main(kind: str) -> None:
    """Shows the app; a new frame comes whenever a key was pressed, so that every picture is drawn more than once."""
    chosen = HARMLESS if kind == "harmless" else PAYLOADS
    texts = [sanitize(text) for text in chosen.values()]
    feed = FakeFeed(opened(texts))
    desk = FakeDesk(answer=Answer(False, texts[1]))
    desk.plan = plan(texts)
    app = DbwatchApp(feed, desk, clock=FakeClock())

    async def more() -> None:
        number = 0
        while True:
            await asyncio.sleep(0.25)
            number += kind != "still"
            order = texts[number % len(texts) :] + texts[: number % len(texts)]
            feed.push((lost if number % 9 == 8 else opened)(order))

    pushing = asyncio.create_task(more())
    with patch.object(app, "bell"):  # each that is heard then comes from a text
        await app.run_async()
    pushing.cancel()
    sys.exit(app.return_code or 0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
