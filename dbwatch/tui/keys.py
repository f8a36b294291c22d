"""The one registry of keys: bindings, footer, help screen and command palette all come from it.

A command is *offered* where its door can do it at all (a mere watch has no plan, hence no `n`), and *refused*, with
a sentence, where it cannot be done just now (`allowed.py`). What is not offered stands nowhere; what is refused stands
in the help with its reason, and in neither footer nor palette.
"""

from __future__ import annotations

from textual.binding import Binding

from dbwatch.tui import allowed
from dbwatch.tui.allowed import in_window
from dbwatch.tui.command import Command, Group, Offered, Refusal, Situation
from dbwatch.window.intents import (
    Abort,
    Amend,
    ChangeSpeed,
    Confirm,
    Mark,
    Note,
    OverrideSignal,
    PauseBackfill,
    RetryRows,
    RunStep,
    SetBatchTime,
    Signal,
    SignOff,
    StopOurs,
    TakeOver,
)


def _window(*intents: type) -> Offered:
    """In a window, at a desk that takes one of *intents*."""
    return lambda s: s.window is not None and any(intent in s.accepts for intent in intents)


def _no_session(s: Situation) -> str:
    return "" if s.session else "put the cursor on a session first: panes 2 and 3"


def _pane_can(what: str, sentence: str) -> Refusal:
    return lambda s: "" if what in s.can else sentence


PANES: tuple[Command, ...] = (
    Command("plan", ("1",), "1", "Plan", "the steps: done, running, next", Group.PANES, lambda s: s.window is not None),
    Command("activity", ("2",), "2", "Activity", "who is connected and what they do, longest first", Group.PANES),
    Command("locks", ("3",), "3", "Locks", "who blocks whom: the holder, the DDL, all behind it", Group.PANES),
    Command("statements", ("4",), "4", "Statements", "what became slower since the opening", Group.PANES),
    Command("indexes", ("5",), "5", "Indexes", "use since the opening, invalid ones, builds in progress", Group.PANES),
    Command(
        "backfill", ("7",), "7", "Backfill", "rows, pace, and why it is slow or paused", Group.PANES,
        lambda s: s.window is not None,
    ),
    Command("charts", ("8",), "8", "Charts", "tps and the backfill's rate, marked where steps began", Group.PANES),
    Command(
        "journal", ("9",), "9", "Journal", "what happened in this window, newest last", Group.PANES,
        lambda s: s.window is not None,
    ),
)  # fmt: skip

COMMANDS: tuple[Command, ...] = (
    *PANES,
    Command(
        "next", ("n",), "n", "next", "the next step: run it, sign it off, decide or confirm it",
        Group.WINDOW, _window(RunStep, SignOff, Confirm), in_window(allowed.no_next), allowed.what_next, footer=1,
    ),
    Command(
        "step", ("enter",), "Enter", "this step", "the same with the step under the Plan's cursor",
        Group.WINDOW, lambda s: _window(RunStep, SignOff, Confirm)(s) and s.pane == "plan",
        in_window(allowed.no_step), footer=6,
    ),
    Command(
        "backfill_toggle", ("b",), "b", "backfill", "start, pause or resume the backfill",
        Group.WINDOW, _window(PauseBackfill), in_window(allowed.no_backfill), allowed.what_backfill, footer=3,
    ),
    Command(
        "gentler", ("left_square_bracket",), "[", "gentler", "shorter batches of the backfill, and more rest",
        Group.WINDOW, _window(ChangeSpeed), in_window(allowed.no_speed), footer=9,
    ),
    Command(
        "faster", ("right_square_bracket",), "]", "faster", "longer batches of the backfill, and less rest",
        Group.WINDOW, _window(ChangeSpeed), in_window(allowed.no_speed), footer=9,
    ),
    Command(
        "batch_time", ("t",), "t", "batch time", "what a batch of the backfill should take",
        Group.WINDOW, _window(SetBatchTime), in_window(allowed.no_speed), footer=9,
    ),
    Command(
        "override", ("o",), "o", "override", "let it go on in spite of a health signal for a while",
        Group.WINDOW, _window(OverrideSignal), in_window(allowed.no_speed), footer=8,
    ),
    Command(
        "aside", ("v",), "v", "rows aside", "the rows that the backfill could not fill, and back",
        Group.WINDOW, lambda s: s.window is not None and s.pane == "backfill", in_window(allowed.no_aside), footer=6,
    ),
    Command(
        "retry", ("r",), "r", "try again", "try the row under the cursor again, or all of them",
        Group.WINDOW, lambda s: _window(RetryRows)(s) and s.pane == "backfill", in_window(allowed.no_retry), footer=5,
    ),
    Command(
        "stop", ("X",), "X", "stop ours", "stop our own work at once, change nothing else",
        Group.WINDOW, _window(StopOurs), in_window(allowed.no_stop), allowed.what_stop, footer=2,
    ),
    Command(
        "abort", ("A",), "A", "abort", "show the way back; typing the database's name begins it",
        Group.WINDOW, _window(Abort), in_window(allowed.no_abort), allowed.what_abort, footer=2,
    ),
    Command(
        "amend", ("E",), "E", "edited", "show what was edited in the runbook's file; take it",
        Group.WINDOW, lambda s: _window(Amend)(s) and s.window is not None and bool(s.window.edited), footer=2,
    ),
    Command(
        "take", ("T",), "T", "take over", "drive this window; whoever drove it is fenced out",
        Group.WINDOW, _window(TakeOver), in_window(allowed.no_wheel), footer=3,
    ),
    Command(
        "note", ("N",), "N", "note", "write a line into the journal",
        Group.WINDOW, _window(Note), in_window(allowed.no_words), footer=10,
    ),
    Command(
        "mark", ("M",), "M", "mark", "mark this moment in charts and journal: a deploy, a test",
        Group.WINDOW, _window(Mark), in_window(allowed.no_words), footer=10,
    ),
    Command(
        "cancel", ("C",), "C", "cancel", "cancel the query under the cursor, after a look at it",
        Group.SESSIONS, lambda s: Signal in s.accepts, _no_session, footer=4,
    ),
    Command(
        "terminate", ("K",), "K", "terminate", "end the session under the cursor, after a look at it",
        Group.SESSIONS, lambda s: Signal in s.accepts, _no_session, footer=4,
    ),
    Command(
        "detail", ("d",), "d", "detail", "the whole row: query, locks; a backfill's SQL and plan",
        Group.TABLE, refusal=_pane_can("detail", "there is no row to look at here"), footer=7,
    ),
    Command(
        "filter", ("slash",), "/", "filter", "show only rows with this text",
        Group.TABLE, refusal=_pane_can("filter", "this pane has no rows to filter"), footer=5,
    ),
    Command(
        "sort", ("s",), "s", "sort", "sort by the next column",
        Group.TABLE, refusal=_pane_can("sort", "this pane keeps its own order"), footer=8,
    ),
    Command(
        "export", ("x",), "x", "export", "write the pane's rows into a CSV and a JSON file",
        Group.TABLE, refusal=_pane_can("export", "this pane has no rows to export"),
    ),
    Command("freeze", ("p",), "p", "freeze", "hold the picture still; collection goes on", Group.SCREEN, footer=8),
    Command("slower_poll", ("plus",), "+", "poll less", "wait longer between polls, up to 10 s", Group.SCREEN),
    Command("faster_poll", ("minus",), "-", "poll more", "wait less between polls, down to 0.5 s", Group.SCREEN),
    Command("screenshot", ("S",), "S", "screenshot", "save the screen as an SVG picture", Group.SCREEN),
    Command("palette", ("ctrl+p",), "^p", "palette", "find a command by its name", Group.SCREEN),
    Command("help", ("question_mark",), "?", "help", "all keys, and whom to call", Group.SCREEN, footer=1),
    Command("quit", ("q", "ctrl+q", "ctrl+c"), "q", "quit", "leave; asks while ours runs", Group.SCREEN, footer=1),
)  # fmt: skip

BY_NAME: dict[str, Command] = {command.name: command for command in COMMANDS}


def bindings() -> list[Binding]:
    """One binding per command; the app asks `refused` when it is pressed."""
    return [
        Binding(key, f"command('{c.name}')", c.about, show=False, priority=key in ("ctrl+q", "ctrl+c"))
        for c in COMMANDS
        for key in c.keys
    ]


def offered(situation: Situation) -> list[Command]:
    """The commands that this screen has at all: the help screen lists these."""
    return [command for command in COMMANDS if command.offered(situation)]


def available(situation: Situation) -> list[Command]:
    """The commands that can be given now: the footer and the palette list these."""
    return [command for command in offered(situation) if not command.refusal(situation)]


def footer(situation: Situation, width: int) -> list[Command]:
    """The commands of the footer that fit into *width* columns, in the registry's order."""
    candidates = sorted((c for c in available(situation) if c.footer), key=lambda c: c.footer)
    used, chosen = 0, set[str]()
    for command in candidates:
        cells = 1 + len(command.key) + 1 + len(command.said(situation)) + (1 if chosen else 0)
        if used + cells <= width:
            used += cells
            chosen.add(command.name)
    return [command for command in COMMANDS if command.name in chosen]
