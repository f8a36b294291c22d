"""The app: frames in, pictures out; keys in, intents out. It touches no server, and no key waits for one.

It runs as a guest: `await DbwatchApp(feed, desk).run_async()` inside somebody else's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.app import App
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.screen import Screen

from dbwatch.clock import Clock, SystemClock
from dbwatch.text import sanitize
from dbwatch.tui import files, keys
from dbwatch.tui.alerts import alert
from dbwatch.tui.board import Board, FilterLine, Shown
from dbwatch.tui.command import Situation
from dbwatch.tui.dialogs import ask
from dbwatch.tui.dialogs.abort import AbortDialog
from dbwatch.tui.dialogs.dialog import Dialog
from dbwatch.tui.dialogs.palette import Palette
from dbwatch.tui.dialogs.reading import Detail, Help
from dbwatch.tui.footline import Said, last_seq
from dbwatch.tui.livetable import LiveTable
from dbwatch.tui.panes.backfill import BackfillPane
from dbwatch.tui.terminal import TooSmall, appearance, too_small
from dbwatch.tui.window_commands import WindowCommands
from dbwatch.window.feed import Desk, Feed, Frame
from dbwatch.window.intents import Abort, ChangeSpeed, Intent, RetryRows

INTERVALS = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between polls that `+` and `-` walk through."""
TICK_S = 1.0
"""So many seconds apart ages are brought up to date, with or without a new frame."""
GRACE_S = 0.2
"""How long leaving waits for an intent that is just being handed in."""


class FrameArrived(Message):
    """A new frame. One that waits in the queue is replaced by a newer one."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame

    def can_replace(self, message: Message) -> bool:
        """Only the newest matters."""
        return isinstance(message, FrameArrived)


class DbwatchApp(App[None]):
    """The screens over one feed. Without a desk, or with one that takes few intents, keys are fewer."""

    CSS_PATH = "dbwatch.tcss"
    TITLE = "dbwatch"
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings()]
    ENABLE_COMMAND_PALETTE = False
    """Textual's own; see dialogs/palette.py for ours, and why."""

    def __init__(
        self,
        feed: Feed,
        desk: Desk | None = None,
        *,
        clock: Clock | None = None,
        folder: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        look = appearance(environ)
        super().__init__(ansi_color=look.ansi or None)
        self.theme = look.theme
        self.animation_level = look.animations
        self._feed, self._desk = feed, desk
        self._clock = clock or SystemClock()
        self._folder = folder or Path.cwd()
        self._latest = feed.frame
        self._frozen: Frame | None = None
        self._frozen_at = 0.0
        self._interval = 1.0
        self._said: Said | None = None
        self._rung = ""
        """For which alert the bell was rung."""
        self._board = Board(Shown(self._latest, self._latest, self._clock.monotonic(), self._interval))
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._under_way: set[Intent] = set()
        self._window = WindowCommands(self, desk)
        self._leaving = False

    # What runs behind the screens; every task is owned here

    def get_default_screen(self) -> Screen[None]:
        """The board lies under all dialogs."""
        return self._board

    def on_ready(self) -> None:
        """The board stands: begins to read frames, and to tick."""
        self._reader = self._own(self._read(), "frames")
        self.set_interval(TICK_S, self._tick)
        self._fit(self.size)

    async def on_unmount(self) -> None:
        """Ends what was begun here. An intent that is just being taken on gets a moment: half of it would be worse."""
        self._leaving = True
        if self._reader is not None:
            self._reader.cancel()
        for moment in (GRACE_S, GRACE_S):
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=moment)
            for task in self._tasks:
                task.cancel()

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _read(self) -> None:
        while True:
            try:
                frame = await self._feed.next()
            except Exception as error:  # noqa: BLE001 (a loop's edge: a person sees it, and the screens live on)
                self.say(f"no frames: {sanitize(str(error) or type(error).__name__)}", wrong=True)
                await self._clock.sleep(1.0)
            else:
                self.post_message(FrameArrived(frame))

    def on_frame_arrived(self, message: FrameArrived) -> None:
        """Shows the newest frame."""
        self._latest = message.frame
        pressing = alert(message.frame.window)
        name = pressing.name if pressing is not None else ""
        if name and name != self._rung:
            self.bell()
        self._rung = name
        self._show()

    def _tick(self) -> None:
        self._fit(self.size)
        self._show()

    def _show(self) -> None:
        if self._leaving:
            return
        now = self._clock.monotonic()
        frozen_for = None if self._frozen is None else now - self._frozen_at
        frame = self._frozen or self._latest
        self._board.show(Shown(self._latest, frame, now, self._interval, frozen_for, self._said))
        for screen in self.screen_stack:
            if isinstance(screen, Dialog):
                screen.view(self._latest, now)

    def on_resize(self, event: events.Resize) -> None:
        """A terminal may become too small, and large again."""
        self._fit(event.size)

    def _fit(self, size: Size) -> None:
        small = too_small(size.width, size.height)
        if small and not any(isinstance(screen, TooSmall) for screen in self.screen_stack):
            self.push_screen(TooSmall())
        elif not small and isinstance(self.screen, TooSmall):
            self.pop_screen()

    # Telling the person, asking the desk

    def say(self, text: str, *, wrong: bool = False) -> None:
        """Tells the person at this screen something, on the message line."""
        self._said = Said(text, self._clock.monotonic(), wrong, last_seq(self._latest))
        self._show()

    @property
    def board(self) -> Board:
        """The main screen."""
        return self._board

    @property
    def latest(self) -> Frame:
        """The newest frame, also while the display is frozen."""
        return self._latest

    @property
    def accepts(self) -> frozenset[type]:
        """The intents that the desk takes."""
        return frozenset() if self._desk is None else self._desk.accepts

    def situation(self) -> Situation:
        """What decides which commands can be given now."""
        return self._board.situation(self.accepts)

    def submit(self, intent: Intent, about: str) -> None:
        """Hands *intent* in. Keys go on meanwhile; the answer is told when it comes."""
        if intent in self._under_way and not isinstance(intent, ChangeSpeed):  # of that each press is a level more
            self.say(f"{about}: asked already, no answer yet")
            return
        self._under_way.add(intent)
        self.say(f"{about} …")
        self._own(self._submit(intent, about), f"intent {about}")

    async def _submit(self, intent: Intent, about: str) -> None:
        assert self._desk is not None
        try:
            answer = await self._desk.submit(intent)
        except Exception as error:  # noqa: BLE001 (a loop's edge: a person sees it, and the screens live on)
            self.say(f"{about}: {sanitize(str(error) or type(error).__name__)}", wrong=True)
            return
        finally:
            self._under_way.discard(intent)
        self.say(
            answer.text or f"{about}: {'taken' if answer.taken else 'refused'}",
            wrong=not (answer.taken or answer.name_needed),
        )
        if isinstance(intent, Abort) and not answer.taken and isinstance(self.screen, AbortDialog):
            self.screen.refused(answer.text)
        if isinstance(intent, RetryRows):
            self._board.backfill.look_again()
        if answer.name_needed and not self._leaving:
            self._window.name_needed(intent, answer.text)

    # Commands: one method per command of the registry

    def action_command(self, name: str) -> None:
        """Gives the command *name*, or says why it cannot be given now."""
        here = self.situation()
        if name == "step" and here.pane != "plan":
            name = "detail"
        command = keys.BY_NAME[name]
        if not command.offered(here):
            return
        if refusal := command.refusal(here):
            self.say(f"{command.word}: {refusal}", wrong=True)
            return
        if self._said is not None and self._said.wrong:
            self._said = None
        if name in self._board.panes:
            self._board.bring(name)
        else:
            holder = self if hasattr(self, f"do_{name}") else self._window
            getattr(holder, f"do_{name}")()

    def on_live_table_chosen(self, message: LiveTable.Chosen) -> None:
        """Enter on a line: the step, or the row's detail."""
        self.action_command("step")

    def on_abort_dialog_confirmed(self, message: AbortDialog.Confirmed) -> None:
        """The database's name was typed under the plan."""
        self._window.begin_abort(message.digest, message.confirmation)

    def on_abort_dialog_blocker_wanted(self, message: AbortDialog.BlockerWanted) -> None:
        """A look at the session that the way back would wait for."""
        self._window.look_at(message.pid)

    def on_abort_dialog_sign_off_wanted(self, message: AbortDialog.SignOffWanted) -> None:
        """A person did the action that the abort waits for."""
        self._window.sign_off_action(message.action)

    def on_backfill_pane_plan_wanted(self, message: BackfillPane.PlanWanted) -> None:
        """Somebody looks at a backfill before it runs."""
        self._own(self._window.bring_plan(message.step), "the backfill's plan")

    def on_backfill_pane_rows_wanted(self, message: BackfillPane.RowsWanted) -> None:
        """Somebody looks at the rows that were set aside."""
        self._own(self._window.bring_rows(message.step), "the rows set aside")

    def do_detail(self) -> None:
        """All about the row under the cursor."""
        pane = self._board.front
        key = pane.cursor_key
        if pane.detail(key):
            self.push_screen(Detail(pane.title, lambda: pane.detail(key)))
        else:
            self.say("there is nothing more to tell of this line")

    def do_filter(self) -> None:
        """Opens the field."""
        self._board.open_filter()

    def on_input_changed(self, message: FilterLine.Changed) -> None:
        """The pane follows as one types."""
        if isinstance(message.input, FilterLine):
            self._board.front.set_filter(message.value)

    def on_input_submitted(self, message: FilterLine.Submitted) -> None:
        """The filter stands."""
        if isinstance(message.input, FilterLine):
            self._board.close_filter()

    def do_sort(self) -> None:
        """By the pane's next column."""
        self.say(f"sorted by {self._board.front.next_sort()}")

    def do_freeze(self) -> None:
        """Holds the picture still, or lets it go on."""
        now = self._clock.monotonic()
        freeze = self._frozen is None
        self._frozen = self._latest if freeze else None
        self._frozen_at = now
        self._board.freeze(freeze, now)
        self.say("the display is frozen, collection goes on; p lets it go on" if freeze else "live again")

    def do_slower_poll(self) -> None:
        """The next longer interval."""
        self._poll_every(min((i for i in INTERVALS if i > self._interval), default=INTERVALS[-1]))

    def do_faster_poll(self) -> None:
        """The next shorter interval."""
        self._poll_every(max((i for i in INTERVALS if i < self._interval), default=INTERVALS[0]))

    def _poll_every(self, seconds: float) -> None:
        self._interval = seconds
        self._feed.set_interval(seconds)
        self.say(f"one poll every {seconds:g} s")

    def do_export(self) -> None:
        """The rows of the pane as they are shown."""
        pane = self._board.front
        records, name = pane.export(), f"{pane.command}-{self._stamp()}"
        if not records:
            self.say("there are no rows to export")
            return
        self._own(self._write(lambda: files.export(self._folder, name, records)), "export")

    def do_screenshot(self) -> None:
        """The screen as a picture."""
        picture, name = self.export_screenshot(), f"dbwatch-{self._stamp()}.svg"
        self._own(self._write(lambda: files.write(self._folder / name, picture)), "screenshot")

    def _stamp(self) -> str:
        return f"{self._clock.now():%Y%m%d-%H%M%S}"

    async def _write(self, write: Any) -> None:
        try:
            paths: list[Path] = await asyncio.to_thread(write)
        except OSError as error:
            self.say(f"nothing was written: {error.strerror} ({error.filename})", wrong=True)
        else:
            self.say(f"written: {', '.join(str(path) for path in paths)}")

    def do_palette(self) -> None:
        """The registry, to search in."""

        def chosen(name: str | None) -> None:
            if name is not None:
                self.action_command(name)

        self.push_screen(Palette(self.situation()), chosen)

    def do_help(self) -> None:
        """All keys."""
        self.push_screen(Help(self.situation()))

    def do_quit(self) -> None:
        """Leaves; asks while something of ours runs."""
        busy = self._latest.window.busy if self._latest.window is not None else ""
        if isinstance(self.screen, ask.Ask) or not busy:
            self.exit()
        else:
            self.push_screen(ask.leaving(busy), lambda answer: self.exit() if answer == "y" else None)
