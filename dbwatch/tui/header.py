"""The two status lines: where the window stands, and how the server is. Pure: values in, lines out.

What does not fit gives way by rank, never by being cut in the middle; colour never stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content

from dbwatch import text
from dbwatch.journal.fold import StepStatus
from dbwatch.monitor.rates import Rates
from dbwatch.monitor.samples import Snapshot, Status, Vitals
from dbwatch.tui.allowed import next_step, short
from dbwatch.tui.clocks import cut, time_spent, way_back
from dbwatch.tui.panes.age import MISSED_POLLS
from dbwatch.tui.say import BAD, FAINT, GOOD, WARN
from dbwatch.window.feed import Frame, WindowView

WIDE = 120
"""Columns from which the Plan stands beside the chosen pane."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a line. The one with the highest rank is left out first."""

    content: Content
    rank: int = 0


def is_stale(snapshot: Snapshot, now: float, interval: float) -> bool:
    """Whether what is shown is not the present: no connection, polls missed, or the last look at the vitals failed."""
    late = now - snapshot.taken > MISSED_POLLS * interval + 1.0
    return not snapshot.connected or late or snapshot.vitals.status is Status.ERROR


def data_age(snapshot: Snapshot, now: float) -> float | None:
    """Seconds since the vitals were read; None before the first time."""
    return None if snapshot.vitals.at is None else max(0.0, now - snapshot.vitals.taken)


def freshness(snapshot: Snapshot, now: float, interval: float, frozen_for: float | None, width: int) -> Content:
    """`● live 0.4 s`, `◌ stale 14 s (reconnecting, try 3)`, or `❚❚ FROZEN 12 s`; *now* and ages by one clock."""
    if frozen_for is not None:
        return Content.assemble(("‖ FROZEN ", f"bold {WARN}"), (text.age(frozen_for), WARN))
    age = data_age(snapshot, now)
    trouble = snapshot.trouble.split(":")[0] if width < WIDE else snapshot.trouble
    because = f" ({cut(trouble, 34 if width < WIDE else 60)})" if trouble else ""
    if age is None:
        return Content.assemble(("◌ ", WARN), (f"no data yet{because}", WARN if trouble else FAINT))
    if not is_stale(snapshot, now, interval):
        return Content.assemble(("● ", GOOD), f"live {text.age(age)}")
    return Content.assemble(("◌ stale ", f"bold {BAD}"), (f"{text.age(age)}{because}", BAD))


def fit(left: Sequence[Part], right: Sequence[Part], width: int, gap: str = "   ") -> Content:
    """The parts on one line of *width* cells: *left* ones from the left, *right* ones at the right edge."""
    kept = [*left, *right]
    while len(kept) > 1 and _cells(kept, gap) + 2 > width:
        worst = max(range(len(kept)), key=lambda i: (kept[i].rank, i))
        if kept[worst].rank == 0:
            break
        kept.pop(worst)
    on_left = [p.content for p in kept if any(p is part for part in left)]
    on_right = [p.content for p in kept if any(p is part for part in right)]
    head = Content(gap).join(on_left)
    tail = Content(gap).join(on_right)
    room = width - 2 - tail.cell_length - (len(gap) if on_right else 0)
    head = head.truncate(max(0, room), ellipsis=True)
    space = max(0, width - 2 - head.cell_length - tail.cell_length)
    return Content.assemble(" ", head, " " * space, tail)


def _cells(parts: Sequence[Part], gap: str) -> int:
    return sum(p.content.cell_length for p in parts) + len(gap) * max(0, len(parts) - 1)


def current_phase(view: WindowView) -> str | None:
    """The phase of the step that runs, or else of the next one; None where all is done."""
    running = view.state.running
    step = running.id if running else next_step(view)
    return next((phase.name for phase in view.runbook.phase if any(s.id == step for s in phase.step)), None)


def phases(view: WindowView, narrow: bool) -> Content:
    """`EXPAND ▸ code ▸ contract`: upper case and bold is where we are, a tick is behind us."""
    now, arrow = current_phase(view), "›" if narrow else " ▸ "
    pieces: list[Content | str | tuple[str, str]] = []
    for index, phase in enumerate(view.runbook.phase):
        done = all(view.state.step(s.id).status in (StepStatus.DONE, StepStatus.WAIVED) for s in phase.step)
        if index:
            pieces.append((arrow, FAINT))
        if phase.name == now:
            pieces.append((phase.name.upper(), "bold $accent"))
        else:
            pieces.append((f"{'✓' if done else ''}{phase.name.lower()}", FAINT))
    return Content.assemble(*pieces)


def phase_of(view: WindowView) -> Content:
    """`CODE 2/3`: where we are, in the fewest cells."""
    names, now = [phase.name for phase in view.runbook.phase], current_phase(view)
    where = f"{now.upper()} {names.index(now) + 1}/{len(names)}" if now is not None else f"{len(names)} phases done"
    return Content.styled(where, "bold $accent")


def stage(view: WindowView, narrow: bool, named: bool = True) -> Content:
    """Where the window stands: its phases, or that it is being taken back, or how it ended."""
    abort = view.state.abort
    if view.state.closed_at is not None:
        return Content.assemble((f"CLOSED: {view.state.outcome}", "bold reverse"))
    if abort is not None and not abort.finished:
        return Content.assemble(("◀ GOING BACK", f"bold reverse {WARN}"))
    if abort is not None:
        return Content.assemble(("◀ BACK" if abort.equal else "◀ NOT QUITE BACK", f"bold reverse {WARN}"))
    return phases(view, narrow) if named else phase_of(view)


TITLES = ((48, True), (36, True), (28, True), (20, True), (14, True), (28, False), (20, False), (14, False))
"""How many cells of the title are kept, and whether all phases are named: the first that leaves room for the rest."""


def window_line(frame: Frame, width: int) -> Content:
    """The first status line."""
    narrow = width < WIDE
    gap = "  " if narrow else "     "
    for kept, named in TITLES:
        left, right = _window_parts(frame, narrow, kept, named)
        if _cells([*left, *right], gap) + 2 <= width:
            break
    return fit(left, right, width, gap)


def _window_parts(frame: Frame, narrow: bool, kept: int, named: bool) -> tuple[list[Part], list[Part]]:
    view, facts = frame.window, frame.snapshot.facts
    left: list[Part] = []
    right: list[Part] = []
    if view is None:
        left.append(Part(Content.assemble(("dbwatch", "bold"), (" ▸ ", FAINT), "watching")))
    else:
        title = (cut(view.runbook.title, kept), "bold")
        left.append(Part(Content.assemble(title, (" " if narrow else " ▸ ", FAINT), stage(view, narrow, named))))
    if facts is not None:
        version = facts.version_text if narrow else f"PostgreSQL {facts.version_text}"
        role = " standby" if facts.in_recovery else "" if narrow else " primary"
        left.append(Part(Content(f"{facts.name} {version}{role}"), rank=1))
        if facts.pooled:
            left.append(Part(Content.styled("▲ pooled: no K" if narrow else "▲ through a pooler: no K", WARN)))
    elif view is not None and view.state.database:
        left.append(Part(Content(view.state.database), rank=1))
    if view is not None:
        right += [
            Part(people(view, narrow), rank=3 if view.silent_s is None else 1),
            Part(time_spent(view, narrow), rank=2),
        ]
    elif frame.snapshot.at is not None:
        right.append(Part(Content(f"server {frame.snapshot.at:%H:%M:%S}"), rank=2))
    return left, right


def people(view: WindowView, narrow: bool) -> Content:
    """`driver wei (you) · navigator lin`; narrow `wei*+lin`, where `*` is you. A driver who is silent is told as such.

    Two of the same name are told apart by their hosts.
    """
    driver, me = view.state.driver, view.actor
    others = list(dict.fromkeys(view.navigators))
    if not view.driving and me not in others:
        others.append(me)
    names = [short(actor) for actor in dict.fromkeys((driver, *others))]
    named = {
        actor: actor if names.count(short(actor)) > 1 and not narrow else short(actor) for actor in (driver, *others)
    }
    silent = not view.driving and view.silent_s is not None
    if narrow:
        at_wheel = f"{named[driver] or '–'}{'*' if view.driving else '✗' if silent else ''}"
        seats = "".join(f"+{named[actor]}{'*' if actor == me and not view.driving else ''}" for actor in others)
        return Content.assemble((at_wheel, f"bold {BAD}" if silent else ""), seats)
    gone = f" ✗ silent {text.age(view.silent_s)}" if silent else ""
    at_wheel = f"driver {named[driver] or 'nobody'}{' (you)' if view.driving else ''}{gone}"
    seats = ", ".join(f"{named[actor]}{' (you)' if actor == me and not view.driving else ''}" for actor in others)
    word = " · navigators " if len(others) > 1 else " · navigator "
    return Content.assemble((at_wheel, f"bold {BAD}" if silent else ""), f"{word}{seats}" if seats else "")


def meter(fraction: float, cells: int) -> str:
    """`████░░░░`: a fraction of one, in whole cells, so that the rest is seen without colour too."""
    full = int(min(1.0, max(0.0, fraction)) * cells)
    return "█" * full + "░" * (cells - full)


def bar(fraction: float, cells: int) -> str:
    """`██▌   `: a fraction of one, in eighths of a cell."""
    eighths = round(min(1.0, max(0.0, fraction)) * cells * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + ("" if not rest else " ▏▎▍▌▋▊▉"[rest])).ljust(cells)


def connections(vitals: Vitals, narrow: bool) -> Content:
    """`conn ▕██████▏ 61/97`; `!` from 80 % on."""
    share = vitals.connections / max(1, vitals.connections_usable)
    style = BAD if share >= 0.95 else WARN if share >= 0.8 else ""
    figure = f"{vitals.connections}/{vitals.connections_usable}{'!' if style else ''}"
    return Content.assemble("conn ", "" if narrow else (f"▕{bar(share, 6)}▏ ", style), (figure, style))


def longest_wait(snapshot: Snapshot) -> float | None:
    """Seconds for which the longest waiting session has waited for a lock, when it was looked at."""
    at = snapshot.locks.at
    starts = [row.waitstart for row in snapshot.locks.rows if not row.granted and row.waitstart is not None]
    if at is None or not starts:
        at = snapshot.activity.at
        starts = [r.query_start for r in snapshot.activity.rows if r.wait_event_type == "Lock" and r.query_start]
    return max(0.0, (at - min(starts)).total_seconds()) if at is not None and starts else None


def waiting(snapshot: Snapshot, vitals: Vitals, narrow: bool) -> Content:
    """`waiting 3 (12 s)`."""
    word = "wait" if narrow else "waiting"
    if not vitals.waiting:
        return Content(f"{word} 0")
    age = longest_wait(snapshot)
    since = "" if age is None else f" {text.age(age)}" if narrow else f" ({text.age(age)})"
    style = BAD if (age or 0) >= 5 else WARN
    return Content.assemble((f"▲ {word} {vitals.waiting}{since}", f"bold {style}"))


def server_line(
    frame: Frame, figures: Rates, *, now: float, interval: float, frozen_for: float | None, width: int
) -> Content:
    """The second status line. *now* is the monotonic clock by which the snapshot was taken."""
    narrow, snapshot = width < WIDE, frame.snapshot
    left: list[Part] = []
    if snapshot.vitals.rows:
        vitals = snapshot.vitals.rows[0]
        left.append(Part(connections(vitals, narrow), rank=1))
        left.append(Part(Content(f"tps {text.count(figures.tps) or '–'}"), rank=4))
        left.append(Part(waiting(snapshot, vitals, narrow), rank=0))
        lags = [r.replay_lag_s for r in snapshot.replication.rows if r.replay_lag_s is not None]
        if lags:
            left.append(Part(Content(f"lag {text.age(max(lags))}"), rank=5))
        if figures.wal_bytes_s is not None:
            left.append(Part(Content(f"WAL {text.size(figures.wal_bytes_s)}/s"), rank=7))
        if vitals.oldest_xmin_s is not None:
            old = vitals.oldest_xmin_s >= 300
            mark = Content.styled(f"xmin {text.age(vitals.oldest_xmin_s)}{'!' if old else ''}", WARN if old else "")
            left.append(Part(mark, rank=6))
    elif snapshot.vitals.status is not Status.WAITING:
        left.append(Part(Content.styled(cut(f"no figures: {snapshot.vitals.reason}", width // 2), WARN), rank=3))
    if frame.window is not None and frame.window.state.open:
        left.append(Part(way_back(frame.window, narrow), rank=0))
    live = freshness(snapshot, now, interval, frozen_for, width)
    return fit(left, [Part(live)], width, "  " if narrow else "   ")
