"""The one registry of keys: bindings, footer, help screen and command palette all come from it.

A command is *offered* where its door can do it at all (a mere watch has no plan, hence no `n`), and *refused*, with
a sentence, where it cannot be done just now. What is not offered stands nowhere; what is refused stands in the help
with its reason, and in neither footer nor palette.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from textual.binding import Binding

from dbwatch.backfill.progress import State
from dbwatch.journal.fold import ActionState, ActionStatus, StepStatus
from dbwatch.runbook.model import Manual
from dbwatch.window import gates
from dbwatch.window.abort import ActionKind
from dbwatch.window.feed import WindowView
from dbwatch.window.intents import (
    Abort,
    ChangeSpeed,
    CloseWindow,
    Note,
    RunStep,
    Signal,
    SignOff,
    StopOurs,
    ToggleBackfill,
)


class Group(StrEnum):
    """The headings of the help screen."""

    PANES = "Panes"
    WINDOW = "The window"
    SESSIONS = "Sessions"
    TABLE = "The pane in front"
    SCREEN = "The screen"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that decides which commands can be given now."""

    window: WindowView | None = None
    accepts: frozenset[type] = frozenset()
    """The intents that the desk takes; empty without a desk."""
    pane: str = ""
    """The pane in front: the name of its command."""
    can: frozenset[str] = frozenset()
    """What the pane in front can do: filter, sort, export, detail."""
    session: bool = False
    """Whether the cursor is on a session of the server's."""
    step: str | None = None
    """The step under the Plan's cursor."""


Offered = Callable[[Situation], bool]
Refusal = Callable[[Situation], str]


def _always(_: Situation) -> bool:
    return True


def _granted(_: Situation) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Command:
    """Something that a person can do with a key."""

    name: str
    """Also the name of the app's method: `do_<name>`."""
    keys: tuple[str, ...]
    """Textual's names of the keys."""
    key: str
    """As shown."""
    word: str
    """In the footer."""
    about: str
    """In the help and the palette."""
    group: Group
    offered: Offered = _always
    refusal: Refusal = _granted
    wording: Callable[[Situation], str] | None = None
    """What the key would do just now, where that is more than *word* says."""
    footer: int = 0
    """Which goes first where the footer is too narrow for all: 1 stays longest; 0 is not in the footer."""

    def said(self, situation: Situation) -> str:
        """The word in the footer."""
        return self.wording(situation) if self.wording is not None else self.word


def next_step(view: WindowView) -> str | None:
    """The id of the first step that is not over; None where all are."""
    step = gates.next_step(view.state, view.runbook)
    return None if step is None else step.id


def persons_action(view: WindowView) -> ActionState | None:
    """The action of a running abort that waits for a person's signature; None where none does."""
    actions = view.state.abort.actions if view.state.aborting and view.state.abort is not None else ()
    running = (a for a in actions if a.status is ActionStatus.RUNNING and a.body.get("kind") == ActionKind.PERSON)
    return next(running, None)


def is_signed_off(view: WindowView, step: str) -> bool:
    """Whether a person's signature ends this step: theirs to do, or nobody knows whether it took effect."""
    return isinstance(view.runbook.step(step), Manual) or view.state.step(step).status is StepStatus.UNKNOWN


def step_refusal(view: WindowView, step: str) -> str:
    """Why *step* cannot be run, or signed off, from this screen now."""
    refuses = gates.sign_off_refusal if is_signed_off(view, step) else gates.refusal
    return hands_off(view) or refuses(view.state, view.runbook, view.runbook.step(step))


def may_close(view: WindowView) -> bool:
    """Whether nothing is left to do but to close the window: all is done, or it was taken back."""
    abort = view.state.abort
    return view.state.open and (abort.finished if abort is not None else next_step(view) is None)


def hands_off(view: WindowView) -> str:
    """Why nobody at this screen may start anything; empty where one may."""
    if view.state.closed_at is not None:
        return f"the window is closed: {view.state.outcome}"
    if not view.driving:
        return f"{view.state.driver or 'somebody else'} drives this window; only the driver starts and stops its steps"
    return ""


def _what_next(s: Situation) -> str:
    if s.window is None:
        return "next"
    if (action := persons_action(s.window)) is not None:
        return f"sign off: {action.body.get('step')} undone"
    if may_close(s.window):
        return "close the window"
    step = next_step(s.window)
    if step is None:
        return "next"
    again = " again" if s.window.state.step(step).attempt else ""
    return f"sign off {step}" if is_signed_off(s.window, step) else f"run {step}{again}"


def _what_abort(s: Situation) -> str:
    return "show the abort" if s.window is not None and s.window.state.abort is not None else "abort"


def _what_backfill(s: Situation) -> str:
    if s.window is None or s.window.backfill is None or s.window.backfill.state.ended:
        return "start backfill"
    return "resume backfill" if s.window.backfill.state is State.PAUSED else "pause backfill"


def _window(*intents: type) -> Offered:
    return lambda s: s.window is not None and all(intent in s.accepts for intent in intents)


def _in_window(refusal: Callable[[WindowView, Situation], str]) -> Refusal:
    """A refusal that has a window to ask."""
    return lambda s: "no window is open here" if s.window is None else refusal(s.window, s)


def _no_next(view: WindowView, s: Situation) -> str:
    if reason := hands_off(view):
        return reason
    if persons_action(view) is not None or (may_close(view) and CloseWindow in s.accepts):
        return ""
    step = next_step(view)
    return "every step is done" if step is None else step_refusal(view, step)


def _no_step(view: WindowView, s: Situation) -> str:
    if s.step is None:
        return "put the Plan's cursor on a step"
    return step_refusal(view, s.step)


def _no_backfill(view: WindowView, _: Situation) -> str:
    if reason := hands_off(view):
        return reason
    running = view.state.running
    if running is not None and running.id == view.backfill_step:
        return ""
    backfill = gates.next_backfill(view.state, view.runbook)
    return backfill if isinstance(backfill, str) else gates.refusal(view.state, view.runbook, backfill)


def _no_speed(view: WindowView, _: Situation) -> str:
    if reason := hands_off(view):
        return reason
    return "" if view.backfill is not None and not view.backfill.state.ended else "no backfill is running"


def _no_abort(view: WindowView, _: Situation) -> str:
    return "" if view.state.abort is not None else hands_off(view)


def _no_stop(view: WindowView, _: Situation) -> str:
    if not view.driving:
        return f"{view.state.driver or 'somebody else'} drives this window, and its work runs there"
    return "" if view.busy or view.state.running else "nothing of ours is running"


def _no_note(view: WindowView, _: Situation) -> str:
    return "the window is closed" if view.state.closed_at is not None else ""


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
        "next", ("n",), "n", "next", "run the next step, or sign it off where a person does it",
        Group.WINDOW, _window(RunStep, SignOff), _in_window(_no_next), _what_next, footer=1,
    ),
    Command(
        "step", ("enter",), "Enter", "this step", "run the step under the Plan's cursor, or sign it off",
        Group.WINDOW, lambda s: _window(RunStep, SignOff)(s) and s.pane == "plan", _in_window(_no_step), footer=6,
    ),
    Command(
        "backfill_toggle", ("b",), "b", "backfill", "start, pause or resume the backfill",
        Group.WINDOW, _window(ToggleBackfill), _in_window(_no_backfill), _what_backfill, footer=3,
    ),
    Command(
        "gentler", ("left_square_bracket",), "[", "gentler", "let the backfill take longer pauses",
        Group.WINDOW, _window(ChangeSpeed), _in_window(_no_speed), footer=9,
    ),
    Command(
        "faster", ("right_square_bracket",), "]", "faster", "let the backfill take shorter pauses",
        Group.WINDOW, _window(ChangeSpeed), _in_window(_no_speed), footer=9,
    ),
    Command(
        "stop", ("X",), "X", "stop ours", "stop our own work at once, change nothing else",
        Group.WINDOW, _window(StopOurs), _in_window(_no_stop), footer=2,
    ),
    Command(
        "abort", ("A",), "A", "abort", "show the way back; typing the database's name begins it",
        Group.WINDOW, _window(Abort), _in_window(_no_abort), _what_abort, footer=2,
    ),
    Command(
        "note", ("N",), "N", "note", "write a line into the journal",
        Group.WINDOW, _window(Note), _in_window(_no_note),
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
        "detail", ("d",), "d", "detail", "the whole row: query, locks held and waited for",
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
