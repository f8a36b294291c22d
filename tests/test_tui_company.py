"""Two people at one window: what each of them sees, and what their keys hand in."""

from __future__ import annotations

from dataclasses import replace

import fakefeed as ff
import pytest
from seat import NARROW, WIDE, Seat, seat, wait_for

from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.journal.fold import Proposal
from dbwatch.tui.alerts import alert
from dbwatch.tui.dialogs.unknown import ddl_lines, journal_of
from dbwatch.tui.keys import BY_NAME
from dbwatch.window import intents
from dbwatch.window.feed import Frame, WindowView

FRAMES = ff.frames()


def view(name: str) -> WindowView:
    found = FRAMES[name].window
    assert found is not None
    return found


def navigates() -> ff.FakeDesk:
    return ff.FakeDesk(accepts=intents.NAVIGATOR)


def drives() -> ff.FakeDesk:
    return ff.FakeDesk(accepts=intents.DRIVER)


def words(at: Seat) -> str:
    """What is shown, with the frames and the breaks of lines taken out."""
    return " ".join(at.text.replace("│", " ").split())


# A navigator's keys


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_a_navigator_sees_everything_live_and_has_no_key_that_starts_a_step(size: tuple[int, int]) -> None:
    async with seat("navigator", size, desk=navigates()) as at:
        shown = {"1": "███░░░░░ 47.3 %", "7": "12,400 rows/s", "8": "backfill rows/s", "9": "fill started"}
        for key, part in shown.items():
            await at.press(key)
            assert part in at.text
        await at.press("n", "1", "enter", "E")
        assert at.desk.asked == []
        offered = {name for name, command in BY_NAME.items() if command.offered(at.app.situation())}
        assert offered & {"gentler", "faster", "amend"} == set()
        assert offered >= {"next", "backfill_toggle", "stop", "abort", "note", "mark", "take", "cancel", "terminate"}


@pytest.mark.parametrize(
    ("key", "word", "intent"),
    [("b", "ask to pause", intents.PauseBackfill("fill")), ("X", "ask to stop", intents.StopOurs())],
)
async def test_a_navigator_asks_the_driver(key: str, word: str, intent: intents.Intent) -> None:
    async with seat("navigator", WIDE, desk=navigates()) as at:
        assert f"{key} {word}" in at.text
        await at.press(key)
        assert at.desk.asked == [intent]


async def test_a_mark_stands_in_the_journal_and_in_the_charts_beside_the_steps() -> None:
    early = Frame(ff.snapshot(211, taken=100.0), view("navigator"))
    async with seat(early, WIDE, desk=navigates()) as at:
        await at.press("M", "enter")
        assert at.desk.asked == []
        await at.press(*"v0.8.0 deployed", "enter")
        assert at.desk.asked == [intents.Mark("v0.8.0 deployed")]
        marked = ff.window(*ff.FILLING, ev.Marked("v0.8.0 deployed"))
        for seconds in (300, 301):
            await at.push(Frame(ff.snapshot(seconds, taken=seconds - 111.0), marked))
        await at.press("8")
        assert "★v0.8.0 deployed" in at.text
        assert "▼fill" in at.text
        assert "★ marked with M" in at.text
        await at.press("9")
        assert "mark: v0.8.0 deployed" in at.text


# A second person's word


def test_the_plan_shows_which_steps_need_a_second_person_before_they_are_reached() -> None:
    from test_tui_plan import plan

    early = Frame(ff.snapshot(), ff.window(*ff.ADDED, runbook=ff.SECOND))
    for width in (34, 78):
        line = next(line for line in plan(early, width).splitlines() if "drop" in line)
        assert "◎ drop" in line
        assert "2nd person" in line
    assert "waits for a second person, 8:11; X takes" in " ".join(plan("proposing", 78).split())
    assert "wei waits 8:11 for you: n confirms or declines" in " ".join(plan("proposed", 78).split())
    assert "lin has confirmed it: it is about to begin" in plan("confirmed", 78)


async def test_the_driver_proposes_and_can_take_it_back() -> None:
    ready = ff.window(*[e.fact for e in view("proposing").events[1:-1]], runbook=ff.SECOND)
    said = "drop is proposed: it begins once a navigator has typed the database's name"
    desk = ff.FakeDesk(accepts=intents.DRIVER, answer=intents.Answer(True, said))
    async with seat(Frame(ff.snapshot(), ready), WIDE, desk=desk) as at:
        assert "n propose drop" in at.text
        await at.press("n")
        assert at.desk.asked == [intents.RunStep("drop")]
        assert f"› {said}" in at.text
        await at.push(FRAMES["proposing"])
        assert "▲ drop waits for a second person's word: lin can give it; X takes it back" in at.text
        assert "X take back drop" in at.text
        await at.press("n", "X")
        assert at.desk.asked[1:] == [intents.StopOurs()]


def test_a_driver_who_is_alone_is_told_that_nobody_can_confirm() -> None:
    told = alert(replace(view("proposing"), navigators=()))
    assert told is not None
    assert "nobody else is at this window (dbwatch attach)" in told.text


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_a_navigator_is_told_of_a_proposal_and_confirms_it_by_the_databases_name(size: tuple[int, int]) -> None:
    async with seat("proposed", size, desk=navigates()) as at:
        assert "▲ wei proposes drop and waits for you: n confirms or declines" in at.text
        await at.press("n")
        assert "you are the second person" in at.text
        assert "alembic upgrade head" in at.text
        assert "it drops users.legacy_phone_field" in words(at)
        await at.press("enter", *"shopp", "enter")
        assert at.desk.asked == []
        assert "shopp is not the name of this database (shop)" in words(at)
        await at.press(*"shop", "enter")
        assert at.desk.asked == [intents.Confirm(10, "shop")]


async def test_a_navigator_declines_with_a_reason() -> None:
    async with seat("proposed", NARROW, desk=navigates()) as at:
        await at.press("n", "f4", "enter")
        assert at.desk.asked == []
        await at.press(*"not at noon", "enter")
        assert at.desk.asked == [intents.Decline(10, "not at noon")]


async def test_who_proposed_it_cannot_be_the_second_person() -> None:
    own = replace(view("proposed"), actor="Wei@home")
    async with seat(Frame(ff.snapshot(), own), WIDE, desk=navigates()) as at:
        assert "drop waits for a second person's word: somebody else than Wei" in at.text
        await at.press("n")
        assert "somebody else has to confirm it" in at.text
        await at.press(*"shop", "enter")
        assert at.desk.asked == []


async def test_a_proposal_that_is_taken_back_while_it_is_read_confirms_nothing() -> None:
    async with seat("proposed", WIDE, desk=navigates()) as at:
        await at.press("n", *"sho")
        facts = [e.fact for e in view("proposed").events[1:]]
        withdrawn = ff.window(*facts, ev.ConfirmationRefused("drop", 10, "taken back"), runbook=ff.SECOND,
                              actor=ff.LIN, driving=False)  # fmt: skip
        await at.push(Frame(ff.snapshot(), withdrawn))
        assert "It is not proposed any more" in at.text
        await at.press("p", "enter", "f4")
        assert at.desk.asked == []


async def test_a_new_proposal_rings_the_bell_once() -> None:
    async with seat("navigator", WIDE, desk=navigates()) as at:
        rung = []
        at.app.bell = lambda: rung.append(1)  # type: ignore[method-assign]  # a test hears nothing
        await at.push(FRAMES["proposed"])
        await at.push(replace(FRAMES["proposed"], snapshot=ff.snapshot(762, taken=101.0)))
        assert rung == [1]


# The wheel


async def test_a_driver_who_is_silent_is_told_loudly_and_the_wheel_can_be_taken_without_a_reason() -> None:
    async with seat("navigator, driver silent", NARROW, desk=navigates()) as at:
        assert "✗ wei was not heard of for 12 s: T takes the wheel" in at.text
        await at.press("T")
        assert "NOT heard of for 12 s: its lease has run out" in at.text
        assert "add: its sessions are terminated, then it is found out how it ended" in words(at)
        await at.press("enter")
        assert at.desk.asked == [intents.TakeOver("")]


async def test_from_a_driver_who_is_alive_the_wheel_is_taken_with_a_reason_only() -> None:
    async with seat("navigator", WIDE, desk=navigates()) as at:
        await at.press("T")
        assert "wei@bastion, epoch 3" in at.text
        assert "alive: its lease runs" in at.text
        await at.press("enter")
        assert at.desk.asked == []
        assert "a few words are needed" in at.text
        await at.press(*"wei went home", "enter")
        assert at.desk.asked == [intents.TakeOver("wei went home")]


async def test_an_old_driver_sees_who_took_the_wheel_and_can_take_it_back() -> None:
    async with seat("wheel lost", WIDE, desk=navigates()) as at:
        assert "driver lin · navigator wei (you)" in at.text
        assert "✗ lin drives now, T takes the wheel back: this dbwatch is no longer the driver" in at.text
        await at.press("T", *"back at my desk", "enter")
        assert at.desk.asked == [intents.TakeOver("back at my desk")]


async def test_the_question_about_the_wheel_is_over_where_one_drives_meanwhile() -> None:
    async with seat("navigator", WIDE, desk=navigates()) as at:
        await at.press("T", *"x")
        await at.push(FRAMES["filling"])
        assert "✓ You drive." in at.text
        await at.press("enter")
        assert at.desk.asked == []


async def test_the_keys_follow_the_wheel() -> None:
    class Changing(ff.FakeDesk):
        driving = True

        @property
        def accepts(self) -> frozenset[type]:
            return intents.DRIVER if self.driving else intents.NAVIGATOR

    desk = Changing()
    async with seat("filling", WIDE, desk=desk) as at:
        assert "T take over" not in at.text
        desk.driving = False
        await at.push(FRAMES["wheel lost"])
        assert "T take over" in at.text
        assert "n run" not in at.text


# Past the point of no return


class Asking(ff.FakeDesk):
    """Wants the database's name first, and takes it."""

    async def submit(self, intent: intents.Intent) -> intents.Answer:
        self.asked.append(intent)
        if getattr(intent, "confirmation", "") == "shop":
            return intents.Answer(True, "drop started")
        why = "past drop there is no whole way back (it drops users.legacy): type the database's name to go on"
        return intents.Answer(False, why, name_needed=True)


READY = ff.window(*[e.fact for e in view("proposing").events[1:-1]])


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_a_step_past_which_there_is_no_way_back_asks_for_the_databases_name(size: tuple[int, int]) -> None:
    async with seat(Frame(ff.snapshot(), READY), size, desk=Asking()) as at:
        await at.press("n")
        await wait_for(lambda: "▲ Past drop there is no whole way back" in at.text)
        assert "it drops users.legacy" in words(at)
        assert "A takes everything back, in about 0:38" in words(at)
        await at.press(*"drop", "enter")
        assert at.desk.asked == [intents.RunStep("drop")]
        assert "drop is not the name of this database (shop)" in words(at)
        await at.press(*"shop", "enter")
        assert at.desk.asked[1:] == [intents.RunStep("drop", "shop")]
        await wait_for(lambda: "drop started" in at.text)


async def test_left_alone_the_question_begins_nothing() -> None:
    async with seat(Frame(ff.snapshot(), READY), WIDE, desk=Asking()) as at:
        await at.press("n")
        await wait_for(lambda: "▲ Past drop" in at.text)
        await at.press(*"shop", "escape")
        assert at.desk.asked == [intents.RunStep("drop")]


async def test_a_backfill_past_the_point_of_no_return_is_begun_by_its_name_too() -> None:
    async with seat("next is the backfill", WIDE, desk=Asking()) as at:
        await at.press("b")
        await wait_for(lambda: "▲ Past fill" in at.text)
        await at.press(*"shop", "enter")
        assert at.desk.asked == [intents.RunStep("fill"), intents.RunStep("fill", "shop")]


async def test_a_persons_step_keeps_its_note_when_it_asks_for_the_name() -> None:
    async with seat("window opened", WIDE, desk=Asking()) as at:
        await at.press("n", *"read", "enter")
        await wait_for(lambda: "▲ Past preview" in at.text)
        await at.press(*"shop", "enter")
        assert at.desk.asked == [intents.SignOff("preview", "read"), intents.SignOff("preview", "read", "shop")]


# A step of which nobody knows how it ended


@pytest.mark.parametrize(("key", "took_effect"), [("t", True), ("d", False)])
async def test_a_person_decides_how_a_step_ended_on_the_evidence(key: str, took_effect: bool) -> None:
    async with seat("add unknown", (100, 30), desk=drives()) as at:
        assert "✗ nobody knows how add ended: n shows what is known" in at.text
        await at.press("n")
        for part in ("the driver vanished during autocommit", "? sent, its end was not seen, commits by itself",
                     "create index public.users.idx_users_phone, OID 16431", "add: try 2 of 6"):  # fmt: skip
            assert part in words(at)
        await at.press("n", "enter", "y")
        assert at.desk.asked == []
        await at.press(key, "enter")
        assert at.desk.asked == []
        await at.press(*"looked", "enter")
        assert at.desk.asked == [intents.Decide("add", took_effect, "looked")]


def test_the_evidence_is_that_of_the_last_attempt() -> None:
    first = (ev.StepStarted("add", 1), ff.SENT, ev.StepFailed("add", 1, "lock timeout", 2.0, again=True))
    second = (ev.StepStarted("add", 2), replace(ff.SENT, attempt=2, done=True), ev.StepUnknown("add", 2, "vanished"))
    known = ff.window(*ff.PREVIEWED, *first, *second)
    assert [chain.kind_of(e.fact) for e in journal_of(known, "add")] == ["step.started", "step.unknown"]
    assert ddl_lines(known, "add")[0].startswith("✓ done")
    assert len(ddl_lines(known, "add")) == 2


async def test_only_the_driver_decides() -> None:
    other = replace(view("add unknown"), driving=False, actor=ff.LIN)
    async with seat(Frame(ff.snapshot(), other), WIDE, desk=navigates()) as at:
        assert "wei has to decide" in at.text
        await at.press("n")
        assert len(at.app.screen_stack) == 1


# A runbook edited meanwhile


async def test_an_edited_runbook_is_shown_as_a_difference_and_taken_by_a_key() -> None:
    async with seat("edited", WIDE, desk=drives()) as at:
        assert "▲ the runbook's file was edited: E shows the difference" in at.text
        await at.press("E")
        assert '-planned = "10min"' in at.text
        assert '+planned = "20min"' in at.text
        await at.press("enter")
        assert at.desk.asked == []
        await at.press("y")
        assert at.desk.asked == [intents.Amend("5ha")]


async def test_what_was_not_read_is_not_taken() -> None:
    async with seat("edited", WIDE, desk=drives()) as at:
        await at.press("E")
        again = replace(view("edited"), edited="+budget = 1", edited_sha="n3w")
        await at.push(Frame(ff.snapshot(), again))
        assert "It was edited again just now." in at.text
        await at.press("y")
        assert at.desk.asked == []
        await at.press("r")
        assert "+budget = 1" in at.text
        await at.press("y")
        assert at.desk.asked == [intents.Amend("n3w")]


async def test_an_edited_runbook_that_cannot_be_read_says_why_and_is_not_taken() -> None:
    async with seat("edited, broken", NARROW, desk=drives()) as at:
        await at.press("E")
        assert "unknown key 'palnned'" in at.text
        assert "It cannot be taken as it is" in at.text
        await at.press("y")
        assert at.desk.asked == []


async def test_where_nothing_was_edited_there_is_no_such_key() -> None:
    async with seat("filling", WIDE, desk=drives()) as at:
        await at.press("E")
        assert len(at.app.screen_stack) == 1
        assert "edited" not in at.text


# What presses most


def test_trouble_comes_before_a_silent_driver_and_that_before_a_proposal() -> None:
    silent = replace(view("proposed"), silent_s=3.0)
    told = [alert(replace(silent, journal_trouble="disk full")), alert(silent), alert(view("proposed"))]
    assert [one.name.split()[0] for one in told if one is not None] == ["journal", "silent", "proposal"]
    assert alert(view("filling")) is alert(None) is None


def test_a_lost_wheel_is_told_for_a_minute() -> None:
    told = alert(view("wheel lost"))
    assert told is not None
    assert told.bad
    assert alert(replace(view("wheel lost"), elapsed_s=400.0)) is None


def test_what_runs_at_a_silent_drivers_is_not_told_as_if_it_still_ran() -> None:
    from test_tui_plan import plan

    assert "nothing is heard of wei: nobody knows whether it still runs" in plan("navigator, driver silent", 90)


def test_a_confirmed_proposal_waits_for_nobody() -> None:
    given = view("confirmed").state.proposal
    assert isinstance(given, Proposal)
    assert given.confirmed_by == ff.LIN
    assert alert(view("confirmed")) is None


async def test_a_window_whose_way_back_stopped_is_closed_only_for_its_databases_name() -> None:
    async with seat("abort stuck", WIDE, desk=Asking()) as at:
        await at.press("n", "y")
        await wait_for(lambda: "▲ The way back did not reach its end" in at.text)
        assert "it goes on from here" in words(at)
        await at.press(*"shop", "enter")
        assert at.desk.asked == [intents.CloseWindow(), intents.CloseWindow("shop")]
