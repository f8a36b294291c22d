"""The certificate of a complete backfill: what it says, and what waits for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ledger import Ledger
from runbooks import WINDOW, line_of, mistakes
from servers import Database
from test_backfill_door import ONCE as BY_SHELL
from test_backfill_door import end, start
from test_backfill_poison import PHONE, casts
from windows import Shop, driven, step, until

from dbwatch.backfill import certificate, retrying
from dbwatch.backfill.certificate import Certificate
from dbwatch.errors import Exit
from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus, WindowState, fold
from dbwatch.journal.words import sentence
from dbwatch.runbook.loader import parse
from dbwatch.window import gates
from dbwatch.window.conductor import Conductor
from dbwatch.window.intents import Amend, RunStep, SignOff

RUNBOOK = """
title = "numbers"

[target]
dsn = "${SHOP_DSN}"

[[phase]]
name = "code"

[[phase.step]]
id = "fill"
kind = "backfill"
table = "t"
set = "v = old::int"
where = "v IS NULL"

[[phase.step]]
id = "look"
kind = "manual"
text = "somebody looks"
certificate = "fill"

[[phase]]
name = "contract"

[[phase.step]]
id = "drop"
kind = "sql"
sql = "ALTER TABLE t DROP old"
certificate = "fill"
"""


async def numbers(db: Database, folder: Path, *bad: int) -> Shop:
    """A window that fills a column of numbers, of which those under the *bad* keys are none."""
    await casts(db, *bad)
    runbook = folder / "numbers.toml"
    runbook.write_text(RUNBOOK)
    return Shop(db, folder, runbook)


def certified(conductor: Conductor) -> ev.BackfillCertified:
    """The one in the journal."""
    [fact] = [e.fact for e in conductor.events if isinstance(e.fact, ev.BackfillCertified)]
    return fact


async def test_a_step_begins_once_the_backfill_before_it_is_certified(any_db: Database, tmp_path: Path) -> None:
    shop = await numbers(any_db, tmp_path)
    async with driven(shop) as conductor:
        await step(conductor, "fill")
        fact = certified(conductor)
        assert (fact.step, fact.table, fact.rows, fact.pending) == ("fill", "public.t", 3000, 0)
        assert (fact.quarantined, fact.unfillable, fact.backfill) == (0, 0, 1)
        assert fact.batches > 1
        assert fact.seconds > 0
        said = f"public.t: 3,000 rows in {fact.batches} batches, none pending, none in quarantine in "
        assert sentence(fact).startswith(f"fill certified: {said}")
        assert sentence(fact).endswith("delayed nobody that was seen")
    async with driven(shop) as conductor:  # the journal knows it, whoever drives
        assert conductor.state.step("fill").certificate == fact
        await step(conductor, "look")
        await step(conductor, "drop")


async def test_rows_in_quarantine_keep_the_next_step_waiting_until_they_are_filled_or_tolerated(
    db18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DSN", db18.dsn)
    shop = await numbers(db18, tmp_path, 40, 50)
    async with driven(shop) as conductor:
        await step(conductor, "fill")
        assert (certified(conductor).quarantined, certified(conductor).pending) == (2, 0)
        answer = await conductor.submit(SignOff("look", "seen"))
        assert (answer.taken, answer.text) == (
            False,
            "look requires the certificate of fill, which left 2 rows in quarantine: dbwatch backfill retry --id 1"
            " tries them again; or amend the runbook: tolerates = 2 in look",
        )
        await db18.sql("UPDATE t SET old = '7' WHERE id = 40")
        await retrying.retry(db18.connector, 1)
        assert "which left 1 row in quarantine" in (await conductor.submit(SignOff("look", "seen"))).text
        shop.runbook.write_text(RUNBOOK.replace('"somebody looks"', '"somebody looks"\ntolerates = 1'))
        await until(conductor, lambda c: bool(c.feed().frame.window.edited_sha))  # type: ignore[union-attr]
        edited = conductor.feed().frame.window
        assert edited is not None
        assert (await conductor.submit(Amend(edited.edited_sha))).taken
        await step(conductor, "look")
        await db18.sql("UPDATE t SET old = '7' WHERE id = 50")
        refused = await conductor.submit(RunStep("drop", conductor.state.database))
        assert "which left 1 row in quarantine" in refused.text
        assert conductor.state.step("drop").status is StepStatus.PENDING
        await retrying.retry(db18.connector, 1)
        await step(conductor, "drop")


async def test_one_that_ended_before_is_certified_by_what_is_known_of_it(db18: Database) -> None:
    ledger = await casts(db18)
    await ledger.run(PHONE)
    result = await ledger.run(PHONE)
    found = certificate.of(result, await ledger.plan(PHONE), None)
    assert found is not None
    assert (found.backfill, found.rows, found.seconds, found.harm, found.pending) == (1, 3000, 0.0, "", 0)
    assert str(found).endswith("none pending, none in quarantine")


async def test_the_last_line_of_a_backfill_bears_it(db18: Database) -> None:
    await Ledger.make(db18)
    code, lines, _ = await end(await start(db18, *BY_SHELL))
    found = lines[-1]["certificate"]
    assert code == Exit.OK
    assert (found["backfill"], found["table"], found["mode"], found["rows"]) == (1, "public.t", "once", 3000)
    assert (found["pending"], found["quarantined"], found["unfillable"]) == (None, 0, 0)
    code, lines, _ = await end(await start(db18, *BY_SHELL))
    assert lines[-1]["certificate"] == {**found, "seconds": 0.0, "harm": ""}


async def test_what_is_not_complete_is_not_certified(db18: Database) -> None:
    await db18.sql("CREATE TABLE t (id int PRIMARY KEY, old int, v int); INSERT INTO t VALUES (1, NULL), (2, 7)")
    code, lines, _ = await end(await start(db18, "--table", "t", "--set", "v = old", "--where", "v IS NULL"))
    assert (code, lines[-1]["certificate"], lines[-1]["unfillable"]) == (Exit.FAILED, None, 1)


# --- pure

CERTIFICATE = Certificate(7, "public.t", "once", 3000, 12, 1.5, 1, 0, None, "", 0, "delayed nobody that was seen")


def test_in_mode_once_it_claims_no_more_than_is_known() -> None:
    assert str(CERTIFICATE) == (
        "public.t: 3,000 rows in 12 batches, each key up to the highest at its start was passed once, "
        "1 in quarantine and not filled in 1.5 s; delayed nobody that was seen"
    )


FACT = ev.BackfillCertified(
    step="fill", backfill=7, table="public.t", mode="pending", rows=1, batches=1, seconds=1.0, quarantined=0,
    unfillable=0, pending=0,
)  # fmt: skip


def journal(*facts: ev.Fact) -> WindowState:
    """The state after those."""
    at, events, previous = datetime(2026, 1, 1, tzinfo=UTC), [], ""
    opened = ev.WindowOpened("numbers", "shop", [], "", "")
    for seq, fact in enumerate((opened, *facts), 1):
        events.append(chain.make(fact, seq=seq, at=at, actor="wei@a", epoch=1, prev_hash=previous))
        previous = events[-1].hash
    return fold(events)


DROP = parse(RUNBOOK, "numbers.toml", {"SHOP_DSN": "service=shop"}).step("drop")


@pytest.mark.parametrize(
    ("facts", "now", "why"),
    [
        ((ev.StepStarted("fill", 1), FACT, ev.StepDone("fill", 1, "", 1.0)), ("done", 0), ""),
        ((ev.StepStarted("fill", 1), ev.StepDone("fill", 1, "", 1.0)), ("done", 0), "and there is none; run fill"),
        ((FACT, ev.StepStarted("fill", 2)), ("done", 0), "and there is none"),
        ((FACT,), ("restored", 0), "its backfill 7 is restored now"),
        ((FACT,), ("done", 1), "which left 1 row in quarantine"),
    ],
)
def test_when_it_stands(facts: tuple[ev.Fact, ...], now: tuple[str, int], why: str) -> None:
    said = gates.uncertified(journal(*facts), DROP, *now)
    assert (why in said) if why else said == ""
    assert gates.uncertified(journal(*facts), DROP.model_copy(update={"certificate": None}), *now) == ""


def test_an_event_of_it_is_read_back_as_it_was_written() -> None:
    full = replace(FACT, same="a = b", compared=3, harm="h", says="s")
    assert chain.decode("backfill.certified", chain.encode(full)) == full


MISTAKES = {
    "no such step": (
        'id = "validate"', 'certificate = "fil"', 'there is no step "fil"; name a backfill before it: "fill"',
    ),
    "no backfill": ('id = "validate"', 'certificate = "add"', '"add" is no backfill, and has no certificate'),
    "later": ('id = "deploy"', 'certificate = "fill"', 'the step "fill" comes later; put it after a backfill'),
    "its own": ('id = "fill"', 'certificate = "fill"', '"fill" would need its own certificate'),
    "no number": ('id = "validate"', "tolerates = 1", '"tolerates" says nothing without "certificate"'),
    "less than none": ('id = "validate"', 'certificate = "fill"\ntolerates = -1', "write at least 0"),
    "same, once": ('id = "fill"', 'mode = "once"\nsame = "a = b"', 'in mode "once" nothing in a row tells'),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_at_its_line(name: str) -> None:
    after, written, said = MISTAKES[name]
    text = WINDOW.replace(after, f"{after}\n{written}")
    [told] = mistakes(text)
    assert told.startswith(f"runbook.toml:{line_of(text, written.splitlines()[-1])}:")
    assert said in told


def test_a_step_may_require_a_backfill_before_it() -> None:
    assert mistakes(WINDOW.replace('id = "validate"', 'id = "validate"\ncertificate = "fill"\ntolerates = 3')) == []
