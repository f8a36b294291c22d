"""Every health signal as a value: from where on it pauses, from where on it only warns, and how it is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dbwatch.backfill.control import Control
from dbwatch.backfill.health import Gate
from dbwatch.backfill.latency import Ledger
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.reading import Counts, Holder, Latency, Reading, Replica, Server, Slot, Table, Waiter
from dbwatch.backfill.sight import Sight, require_seen
from dbwatch.backfill.signals import NAMES, PAUSING, WARNING, Memory, Thresholds
from dbwatch.errors import Refused, UsageError
from dbwatch.steps.heard import Heard

GB = 2**30
SERVER = Server(4, 5, 20, 97, 0, GB, 300.0, ("7311", "00000001", "2026-01-01"))
TABLE = Table("public.users", 2_000_000, 0, 0, 0, 1000, "", True)
COUNTS = Counts(0, 0, 0)
SLOT = Slot("s1", "reserved", 20 * GB, 20 * GB)


def seen(at: float, **parts: Any) -> Reading:
    return replace(Reading(at, server=SERVER, table=TABLE, counts=COUNTS), **parts)


def after(gate: Gate, *readings: Reading) -> Gate:
    for reading in readings:
        gate = gate.see(reading, reading.at)
    return gate


def calm(seconds: int = 6) -> Gate:
    """A gate that knows what is usual here."""
    return after(Gate(), *(seen(float(at)) for at in range(seconds)))


def server(**changes: Any) -> dict[str, Any]:
    return {"server": replace(SERVER, **changes)}


def table(**changes: Any) -> dict[str, Any]:
    return {"table": replace(TABLE, **changes)}


def test_how_busy_others_are_is_the_mean_of_the_last_looks() -> None:
    def busy(*looks: tuple[int, int]) -> float | None:
        readings = (seen(float(at), **server(brisk=all_, busy=now)) for at, (all_, now) in enumerate(looks))
        return after(Gate(), *readings).memory.busy

    assert busy((8, 0), (8, 8), (8, 4)) == 0.5
    assert busy((8, 8), *((8, 2),) * 8) == 0.25  # long ago
    assert busy((3, 3), (4, 4), (3, 3)) == 0.0  # jobs, and no application
    assert busy() is None


def test_glances_of_one_reading_count_like_looks_of_their_own() -> None:
    reading = seen(0.0, **server(brisk=8, busy=6, glances=((8, 0),) * 7))
    assert after(Gate(), reading).memory.busy == pytest.approx(6 / 64)


PAUSES: list[tuple[str, dict[str, Any], str]] = [
    ("blocked", {"waiters": (Waiter(47, "app", 1.0),)}, "we block 47 (app) for 1.0 s"),
    ("latency", {"latency": Latency(900, 3.4, 2.0)},
     "the application's statements take 3.4 ms a call, 2.0 ms when we began"),
    ("lag", {"replicas": (Replica("r1", 5.0, 0),)}, "replica r1 is 5.0 s behind"),
    ("lag", {"replicas": (Replica("r1", 0.1, 256 * 2**20),)}, "replica r1 is 256 MB of WAL behind"),
    ("slots", {"slots": (replace(SLOT, wal_status="extended"),)},
     "the WAL that replication slot s1 keeps is extended: more than max_wal_size"),
    ("slots", {"slots": (replace(SLOT, safe_wal_size=2 * GB),)},
     "replication slot s1 is 2.0 GB of WAL away from being lost"),
    ("wal", server(wal=int(0.62 * GB)), "WAL is written at 62 % of what max_wal_size allows per checkpoint_timeout"),
    ("checkpoints", {"counts": replace(COUNTS, checkpoints=1)},
     "checkpoints are requested before their time: 1"),
    ("dead", table(live=2_000_000, dead=500_000), "public.users has 500k dead rows to 2.0M live ones, and waits"),
    ("xmin", {"holders": (Holder("session 47 (reports)", 600.0, ""),)},
     "session 47 (reports) keeps dead rows from being removed for 10 min"),
    ("freeze", table(freeze_age=1_720_000_000), "public.users is 80 % of the way to transaction wraparound"),
    ("deadlocks", {"counts": replace(COUNTS, deadlocks=2)}, "deadlocks are found in this database: 2"),
    ("conflicts", {"counts": replace(COUNTS, conflicts=1)}, "queries on a standby are cancelled by replay: 1"),
    ("connections", server(connections=78), "78 of 97 connections are taken"),
    ("identity", server(identity=("7311", "00000001", "2026-01-02")), "the server is just started anew"),
    ("identity", server(identity=("7311", "00000002", "2026-01-01")), "a standby is the primary now"),
    ("identity", server(identity=("9", "00000001", "2026-01-01")), "another server answers at this address"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parts", "words"), PAUSES, ids=[f"{name}-{n}" for n, (name, _, _) in enumerate(PAUSES)]
)
def test_a_signal_at_its_threshold_closes_the_gate_in_plain_words(name: str, parts: dict[str, Any], words: str) -> None:
    gate = after(calm(), seen(6, **parts))
    assert gate.closed_because.startswith(words)
    assert gate.hurt_by == name


@pytest.mark.parametrize(
    ("name", "parts", "words"), PAUSES, ids=[f"{name}-{n}" for n, (name, _, _) in enumerate(PAUSES)]
)
def test_a_signal_left_out_by_name_closes_nothing(name: str, parts: dict[str, Any], words: str) -> None:
    del words
    gate = replace(calm(), thresholds=Thresholds().without([name]))
    assert after(gate, seen(6, **parts)).open


def test_every_signal_that_pauses_is_held_above_or_below() -> None:
    assert {name for name, _, _ in PAUSES} | {"active"} == set(PAUSING)
    assert set(NAMES) == {*PAUSING, *WARNING}


NOT_YET: list[dict[str, Any]] = [
    {"latency": Latency(900, 2.9, 2.0)},
    {"latency": Latency(900, 0.9, 0.1)},  # nine times as long, and still nothing that anybody feels
    {"slots": (replace(SLOT, safe_wal_size=3 * GB),)},
    {"slots": (Slot("small", "reserved", GB, GB),)},  # all that it may ever keep
    {"slots": (Slot("free", "reserved", None, None),)},
    server(wal=int(0.49 * GB)),
    table(live=2_000_000, dead=399_999),
    table(live=100_000, dead=100_000),  # a table so small is vacuumed in no time
    table(live=2_000_000, dead=900_000, cleaned=False),  # nobody will come
    table(live=2_000_000, dead=500_000, updated=TABLE.updated + 1_000_000, hot=TABLE.hot + 500_000),  # no bloat
    server(connections=77),
    {"holders": (Holder("slot s1", None, "733"),)},  # seen for the first time
]


@pytest.mark.parametrize("parts", NOT_YET)
def test_below_its_threshold_it_does_not(parts: dict[str, Any]) -> None:
    assert after(calm(), seen(6, **parts)).open


def test_dead_rows_pause_where_most_updates_are_not_hot() -> None:
    hot_enough, too_few = ({"updated": TABLE.updated + 1_000_000, "hot": TABLE.hot + n} for n in (500_000, 499_999))
    gates = [after(calm(), seen(6, **table(live=2_000_000, dead=500_000, **each))) for each in (hot_enough, too_few)]
    assert [gate.hurt_by for gate in gates] == ["", "dead"]


def test_twice_as_many_active_sessions_as_usual_pause_but_not_for_an_instant() -> None:
    usual = [seen(float(at), **server(active=12)) for at in range(6)]
    busy = [seen(float(at), **server(active=25)) for at in range(6, 9)]
    assert after(Gate(), *usual, busy[0]).open
    assert after(Gate(), *usual, *busy).closed_because == "25 sessions are active, 12 when we began"


def test_a_few_active_sessions_on_a_quiet_server_are_no_load() -> None:
    quiet = [seen(float(at), **server(active=0)) for at in range(6)]
    assert after(Gate(), *quiet, *(seen(float(at), **server(active=9)) for at in range(6, 9))).open


def test_others_work_here_where_most_of_the_last_looks_saw_them() -> None:
    seen = [None, 0, 3, 2, 0, 0, None]
    memory, told = Memory(), []
    for at, lately in enumerate(seen, 1):
        memory = memory.after(Reading(float(at), server=replace(SERVER, lately=lately)), Thresholds())
        told.append(memory.others)
    assert told == [None, False, False, True, True, False, False]


def test_what_is_usual_is_no_load_at_all() -> None:
    """Else a server that is always busy would be filled at a crawl."""
    usual = {"latency": Latency(900, 40.0, 40.0), **server(active=50, connections=75)}
    assert after(Gate(), *(seen(float(at), **usual) for at in range(8))).load == 0


def test_wal_counts_within_one_checkpoint_timeout_only() -> None:
    steady = [seen(float(at), **server(wal=at * GB // 1000)) for at in range(0, 3000, 10)]
    gate = after(Gate(), *steady)
    assert gate.open
    assert gate.load == pytest.approx(0.6, abs=0.03)


def test_who_holds_an_xmin_without_saying_since_when_is_timed_by_us() -> None:
    slot = {"holders": (Holder("slot s1", None, "733"),)}
    assert after(calm(), seen(6, **slot), seen(605, **slot)).open
    assert after(calm(), seen(6, **slot), seen(606, **slot)).hurt_by == "xmin"
    moved = {"holders": (Holder("slot s1", None, "734"),)}
    assert after(calm(), seen(6, **slot), seen(606, **moved)).open


def test_a_mishap_counts_once_and_not_for_those_that_were_there_before() -> None:
    old = Counts(7, 7, 7)
    assert after(Gate(), seen(0, counts=old), seen(1, counts=old)).open
    once = after(Gate(), seen(0, counts=old), seen(1, counts=replace(old, deadlocks=8)))
    assert once.hurt_by == "deadlocks"
    same = replace(old, deadlocks=8)
    assert after(once, *(seen(float(at), counts=same) for at in range(2, 13))).open


def test_counters_that_were_reset_are_no_mishap() -> None:
    assert after(Gate(), seen(0, counts=Counts(7, 7, 7)), seen(1, counts=COUNTS)).open


def test_a_slot_that_was_lost_before_we_came_is_not_our_concern() -> None:
    lost = {"slots": (Slot("old", "lost", None, None),)}
    assert after(Gate(), seen(0, **lost), seen(1, **lost)).open
    assert "slot old is lost" in after(calm(), seen(6, **lost)).closed_because


@pytest.mark.parametrize(
    ("parts", "name", "words"),
    [
        (table(updated=100_000, hot=49_000), "hot", "49 % of the updates of public.users are HOT"),
        (table(vacuum="scanning heap, 34 %"), "vacuum", "a vacuum is at work on public.users: scanning heap, 34 %"),
    ],
)
def test_what_only_warns_never_pauses(parts: dict[str, Any], name: str, words: str) -> None:
    gate = after(calm(), seen(6, **parts))
    assert gate.open
    assert gate.load == 0
    assert gate.warnings[name].startswith(words)


def test_twice_far_beyond_a_threshold_the_batch_under_way_is_to_end() -> None:
    once = after(calm(), seen(6, replicas=(Replica("r1", 10.0, 0),)))
    assert not once.cancels
    assert not once.see(seen(6, replicas=(Replica("r1", 10.0, 0),)), 6.5).cancels  # the same reading again
    assert after(once, seen(7, replicas=(Replica("r1", 10.1, 0),))).cancels
    assert not after(
        once, seen(7, replicas=(Replica("r1", 9.9, 0),)), seen(8, replicas=(Replica("r1", 10, 0),))
    ).cancels


def test_what_is_read_less_often_is_named_where_it_is_not_seen() -> None:
    gate = after(calm(), seen(6, slow={"calls": 6.0}), seen(20.9, slow={"calls": 6.0}))
    assert gate.open
    blind = after(gate, seen(22, slow={"calls": 6.0}))
    assert blind.closed_because == "no reading of latency for 16 s: what is not seen is not healthy"
    assert after(replace(gate, thresholds=Thresholds().without(["latency"])), seen(22, slow={"calls": 6.0})).open


# A person's override.


def test_an_override_opens_the_gate_at_once_and_ends_by_itself() -> None:
    control = Control()
    behind = {"replicas": (Replica("r1", 6.0, 0),)}
    gate = after(calm(), seen(6, **behind))
    control.override("lag", 60)
    assert gate.see(seen(7, **behind), 7, control.overridden(7)).open
    assert control.overridden(60) == {"lag": pytest.approx(7)}
    assert control.overridden(67.1) == {}
    assert not gate.see(seen(67.1, **behind), 67.1, control.overridden(67.1)).open


def test_an_override_of_one_signal_opens_nothing_for_another() -> None:
    both = {"replicas": (Replica("r1", 6.0, 0),), "waiters": (Waiter(47, "app", 1.0),)}
    assert after(calm(), seen(6, **both)).see(seen(7, **both), 7, {"lag": 60.0}).hurt_by == "blocked"


def test_an_override_can_be_taken_back_and_wants_a_signal_and_a_time() -> None:
    control = Control()
    control.override("lag", 60)
    assert "lag" in control.overridden(0)
    control.override("lag", 0)
    assert control.overridden(1) == {}
    with pytest.raises(UsageError, match="there is no health signal 'leg'"):
        control.override("leg", 60)
    with pytest.raises(UsageError, match="choose up to 24 h"):
        control.override("lag", 1e9)


# What the application feels, from pg_stat_statements.


def test_each_statement_is_held_against_itself() -> None:
    """A report that is run more often makes no statement slower."""
    ledger, _ = Ledger().after({1: (0, 0.0), 2: (0, 0.0)}, learning=True)
    ledger, found = ledger.after({1: (1000, 1000.0), 2: (10, 5000.0)}, learning=True)
    assert found is None
    _, found = ledger.after({1: (1100, 1100.0), 2: (110, 55_000.0)}, learning=False)
    assert found == Latency(200, pytest.approx(250.5), pytest.approx(250.5))
    _, slower = ledger.after({1: (1100, 1200.0), 2: (20, 15_000.0)}, learning=False)
    assert slower is not None
    assert slower.ms == pytest.approx(10_200 / 110)
    assert slower.usual_ms == pytest.approx(5_100 / 110)


def test_too_few_calls_say_nothing_and_what_is_usual_is_learnt_until_there_are_some() -> None:
    ledger, _ = Ledger().after({1: (0, 0.0)}, learning=True)
    ledger, _ = ledger.after({1: (5, 5.0)}, learning=True)
    assert ledger.usual_ms is None
    ledger, found = ledger.after({1: (25, 25.0)}, learning=False)
    assert (found, ledger.usual_ms) == (None, 1.0)
    assert ledger.after({1: (44, 200.0)}, learning=False)[1] is None
    assert ledger.after({1: (45, 200.0)}, learning=False)[1] is not None


def test_counters_of_statements_that_were_reset_are_no_calls() -> None:
    ledger, _ = Ledger().after({1: (0, 0.0)}, learning=True)
    ledger, _ = ledger.after({1: (100, 100.0)}, learning=True)
    assert ledger.after({1: (90, 90.0)}, learning=False)[1] is None


# What privileges hide.

SIGHT = Sight("app", 1, True, "public", True, True, True, replicas=1, slots=1, max_wal_size=2**30)


def test_what_privileges_hide_is_refused_with_the_grant_and_the_names() -> None:
    blind = replace(SIGHT, sees_all=False)
    assert list(blind.missing([])) == ["active", "latency", "lag", "xmin"]
    with pytest.raises(Refused, match="GRANT pg_read_all_stats TO app, or ignore them: --without active --without lat"):
        require_seen("the backfill of t", blind.missing([]))
    require_seen("the backfill of t", blind.missing(["active", "latency", "lag", "xmin"]))
    assert any("GRANT pg_read_all_stats TO app" in note for note in blind.notes([]))


def test_what_cannot_be_there_is_told_and_refuses_nothing() -> None:
    bare = replace(SIGHT, sees_all=False, statements_schema=None, replicas=0, slots=0)
    assert list(bare.missing([])) == ["active", "xmin"]
    told = " ".join(bare.notes([]))
    assert "latency (pg_stat_statements is not installed in this database)" in told
    assert "lag (no replica)" in told
    assert "slots (no replication slot)" in told
    assert bare.statements is None


def test_a_schema_that_our_role_may_not_use_hides_the_latency_alone() -> None:
    assert replace(SIGHT, statements_usable=False).missing([]) == {"latency": "GRANT USAGE ON SCHEMA public TO app"}


# What the journal gets to know.

BEHIND = BackfillProgress("t", State.THROTTLED, "replica r1 is 4.8 s behind", was="replica r1 was 4.8 s behind")
GOES = BackfillProgress("t", State.RUNNING, rows_done=4000)


def notes(*told: tuple[float, BackfillProgress]) -> list[str]:
    heard, found = Heard(), []
    for now, progress in told:
        heard, new = heard.after(progress, now)
        found += new
    return found


def test_a_pause_is_one_note_and_its_end_another_with_its_length() -> None:
    assert notes((0, BEHIND), (1, BEHIND), (3, BEHIND), (9, BEHIND), (14, GOES), (15, GOES)) == [
        "pauses: replica r1 is 4.8 s behind",
        "paused 14 s: replica r1 was 4.8 s behind",
    ]


def test_a_pause_of_two_seconds_is_not_worth_a_note() -> None:
    assert notes((0, BEHIND), (1, BEHIND), (2, GOES), (3, BEHIND), (4, GOES)) == []


def test_a_pause_by_hand_is_in_the_journal_already_and_only_its_end_is_noted() -> None:
    assert notes((0, replace(GOES, state=State.PAUSED)), (60, GOES)) == ["goes on at 4,000 rows"]


def test_the_end_of_an_override_is_noted_and_who_began_it_the_driver_notes() -> None:
    assert notes(
        (0, replace(GOES, overridden=(("lag", 300.0),))), (1, replace(GOES, overridden=(("lag", 299.0),))), (301, GOES)
    ) == ["lag counts again"]


def test_what_is_usual_and_each_warning_are_noted_once() -> None:
    told = replace(GOES, usual="3 active sessions", warnings=(("hot", "3 % of the updates of t are HOT"),))
    again = replace(told, warnings=(("hot", "4 % of the updates of t are HOT"),))
    assert notes((0, told), (1, again)) == ["usual here: 3 active sessions", "note: 3 % of the updates of t are HOT"]
