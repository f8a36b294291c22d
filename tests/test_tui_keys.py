"""One registry of keys: bindings, footer, help and palette say the same, and nothing that cannot be done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import fakefeed as ff
import pytest

from dbwatch.backfill.progress import State
from dbwatch.runbook.model import Contact
from dbwatch.tui import allowed, keys
from dbwatch.tui.app import DbwatchApp
from dbwatch.tui.board import PANES
from dbwatch.tui.command import Command, Group, Situation
from dbwatch.tui.dialogs.palette import entries, found
from dbwatch.tui.dialogs.reading import help_text
from dbwatch.tui.footline import keys_text
from dbwatch.tui.keys import COMMANDS, available, footer, offered
from dbwatch.tui.window_commands import WindowCommands
from dbwatch.window import intents

FRAMES = ff.frames()
WATCHING = frozenset({intents.Signal})


def situations() -> Iterator[Situation]:
    """Every state of the window, with every pane in front, at a desk that drives, one that signals, and none."""
    for frame in FRAMES.values():
        for pane in PANES:
            for accepts in (intents.ALL, WATCHING, frozenset[type]()):
                for session in (False, True):
                    step = "add" if pane.command == "plan" and frame.window else None
                    yield Situation(frame.window, accepts, pane.command, pane.can, session, step)


def names(commands: list[Command]) -> set[str]:
    return {command.name for command in commands}


def at(name: str, **changes: object) -> Situation:
    """At the driver's desk, Activity in front."""
    here = Situation(FRAMES[name].window, intents.ALL, "activity", frozenset({"filter", "sort", "detail", "export"}))
    return replace(here, **changes)  # type: ignore[arg-type]  # by name


def test_every_key_has_one_meaning() -> None:
    pressed = [key for command in COMMANDS for key in command.keys]
    assert len(pressed) == len(set(pressed))
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)


def test_every_command_is_carried_out_by_the_app_and_every_pane_has_its_key() -> None:
    panes = {command.name for command in keys.PANES}
    assert {pane.command for pane in PANES} == panes
    assert {(pane.command, str(pane.number)) for pane in PANES} == {(c.name, c.key) for c in keys.PANES}
    holders = (DbwatchApp, WindowCommands)
    done = [name.removeprefix("do_") for holder in holders for name in vars(holder) if name.startswith("do_")]
    assert sorted(done) == sorted(c.name for c in COMMANDS if c.name not in panes)


def test_every_binding_comes_from_the_registry() -> None:
    bound = {(binding.key, binding.action) for binding in keys.bindings()}
    assert bound == {(key, f"command('{c.name}')") for c in COMMANDS for key in c.keys}
    assert keys.bindings() == DbwatchApp.BINDINGS


def test_the_footer_holds_only_what_can_be_done_now_and_the_help_all_that_is_offered() -> None:
    for here in situations():
        can, has = names(available(here)), names(offered(here))
        assert names(footer(here, 400)) <= can <= has
        told = help_text(here).plain
        for command in COMMANDS:
            line = f" {command.key:<6}{command.word:<11} {command.about}\n"
            assert (line in told) == (command.name in has)
            if command.name in has - can:
                assert f"{line}{'':<19}not now: {command.refusal(here)}\n" in told


def test_whatever_is_refused_is_refused_with_a_sentence() -> None:
    for here in situations():
        for command in set(offered(here)) - set(available(here)):
            assert len(command.refusal(here)) > 5


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_footer_fits(width: int) -> None:
    for here in situations():
        assert keys_text(here, width).cell_length <= width


def test_help_and_quit_are_in_every_footer() -> None:
    for here in situations():
        assert {"help", "quit"} <= names(footer(here, 60))


def test_the_help_tells_whom_to_call_first() -> None:
    contacts = (Contact(role="DBA on call", name="Ada Byron", phone="+1 555 0100"), Contact(role="shop", name="Lin"))
    runbook = ff.RUNBOOK.model_copy(update={"contact": contacts})
    told = help_text(Situation(window=ff.window(runbook=runbook))).plain
    assert told.startswith("Whom to call\n DBA on call  Ada Byron  +1 555 0100\n shop         Lin\n\n")
    assert "Whom to call" not in help_text(Situation()).plain


def test_every_line_of_the_help_fits_eighty_columns() -> None:
    assert all(len(f" {c.key:<6}{c.word:<11} {c.about}") <= 75 for c in COMMANDS)


def test_a_mere_watch_has_no_key_of_a_window() -> None:
    for accepts in (WATCHING, frozenset[type]()):
        here = Situation(None, accepts, "activity", frozenset({"filter"}), session=True)
        groups = {command.group for command in offered(here)}
        assert Group.WINDOW not in groups
        assert not {"plan", "backfill", "journal"} & names(offered(here))
        assert ({"cancel", "terminate"} <= names(offered(here))) == bool(accepts)


def test_cancel_and_terminate_need_a_session_under_the_cursor() -> None:
    assert not {"cancel", "terminate"} & names(available(at("migrating")))
    assert {"cancel", "terminate"} <= names(available(at("migrating", session=True)))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("window opened", "sign off preview"),
        ("add failed", "run add again"),
        ("next is the backfill", "run fill"),
        ("abort waits for a person", "sign off: deploy undone"),
        ("add unknown", "decide add"),
        ("proposed", "confirm drop"),
        ("no way back", "close the window"),
        ("abort stuck", "close the window"),
    ],
)
def test_the_footer_says_what_n_would_do_now(name: str, word: str) -> None:
    assert f" n {word} " in keys_text(at(name), 400).plain


@pytest.mark.parametrize(
    ("name", "word", "wish"),
    [("next is the backfill", "start backfill", intents.RunStep("fill")),
     ("filling", "pause backfill", intents.PauseBackfill("fill")),
     ("paused", "resume backfill", intents.ResumeBackfill("fill")),
     ("held back", "pause backfill", intents.PauseBackfill("fill")),
     ("navigator", "ask to pause", intents.PauseBackfill("fill"))],
)  # fmt: skip
def test_what_the_footer_says_of_b_is_what_is_handed_in(name: str, word: str, wish: intents.Intent) -> None:
    here = at(name)
    assert here.window is not None
    assert f" b {word} " in keys_text(here, 400).plain
    assert allowed.backfill_wish(here.window) == wish


def test_b_does_nothing_while_the_end_of_a_backfill_is_put_away() -> None:
    view = FRAMES["filling"].window
    assert view is not None
    ending = at("filling", window=replace(view, backfill=replace(ff.BACKFILLING, state=State.DONE)))
    assert keys.BY_NAME["backfill_toggle"].refusal(ending) == "no batch of fill is under way"


@pytest.mark.parametrize(
    ("name", "command", "why"),
    [
        ("migrating", "next", "add is running"),
        ("aborting", "next", "an abort is under way"),
        ("closed", "next", "the window is closed: done"),
        ("navigator", "next", "wei@bastion drives this window; only the driver starts and stops its steps"),
        ("navigator, driver silent", "backfill_toggle", "no backfill is running, and only wei can start one"),
        ("proposing", "next", "drop waits for a second person's word; X takes the proposal back"),
        ("confirmed", "next", "lin has confirmed drop: it is about to begin"),
        ("filling", "take", "you drive already"),
        ("closed", "take", "the window is closed: done"),
        ("closed", "mark", "the window is closed"),
        ("migrating", "backfill_toggle", "add comes before fill"),
        ("window opened", "stop", "nothing of ours is running"),
        ("window opened", "faster", "no backfill is running"),
        ("closed", "note", "the window is closed"),
    ],
)  # fmt: skip
def test_why_a_key_does_nothing_now(name: str, command: str, why: str) -> None:
    assert keys.BY_NAME[command].refusal(at(name)) == why


def test_an_abort_can_be_looked_at_again_when_it_runs_and_when_it_is_over() -> None:
    for name in ("aborting", "abort stuck", "back", "not back"):
        assert "abort" in names(available(at(name)))
        assert " A show the abort " in keys_text(at(name), 400).plain


async def test_the_palette_offers_what_can_be_done_now_and_does_it() -> None:
    desk = ff.FakeDesk()
    app = DbwatchApp(ff.FakeFeed(FRAMES["filling"]), desk, clock=ff.FakeClock(), environ={})
    async with app.run_test(size=(80, 24)) as pilot:
        assert names(entries(app.situation())) == names(available(app.situation())) - {"palette"}
        await pilot.press("ctrl+p", *"own work", "enter")
        await pilot.pause()
        assert desk.asked == [intents.StopOurs()]
        await pilot.press("ctrl+p", *["down"] * 2, "up", "enter")
        await pilot.pause()
        assert app.situation().pane == "activity"
        await pilot.press("ctrl+p", *"zzz", "enter", "escape")
        await pilot.pause()
        assert len(app.screen_stack) == 1


def test_the_palette_finds_commands_by_any_of_their_words() -> None:
    everything = entries(at("filling", session=True))
    assert [c.name for c in found(everything, "BACK way")] == ["abort"]
    assert [c.name for c in found(everything, "")] == [c.name for c in everything]
    assert found(everything, "zzz") == []
