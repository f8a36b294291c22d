"""Frames made by hand, a feed that plays them, and a desk that remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from textual.app import App

from dbwatch.backfill.progress import BackfillProgress, State, Worker
from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.journal.chain import Event
from dbwatch.journal.fold import fold
from dbwatch.monitor.samples import Activity, IndexUse, Lock, Snapshot, Status, View, Vitals
from dbwatch.postgres.facts import ServerFacts
from dbwatch.runbook.model import Runbook
from dbwatch.window import intents
from dbwatch.window.abort import AbortPlan, Action, ActionKind, Blocker
from dbwatch.window.feed import Aside, AsideRow, Foretold, Frame, MigrationProgress, Rollback, WindowView
from dbwatch.window.prediction import Prediction

T0 = datetime(2026, 3, 14, 21, 4, 10, tzinfo=UTC)
"""When the window opened."""

RUNBOOK = Runbook.model_validate(
    {
        "title": "users.phone replaces legacy_phone_field",
        "alembic": "alembic.ini",
        "budget": "60min",
        "rollback_budget": "5min",
        "phase": [
            {
                "name": "expand",
                "step": [
                    {
                        "id": "preview", "kind": "manual", "text": "SQL preview read by a second person",
                        "planned": "2min",
                    },
                    {"id": "add", "kind": "migrate", "to": "3f1c", "planned": "30s"},
                ],
            },
            {
                "name": "code",
                "step": [
                    {
                        "id": "deploy", "kind": "manual", "text": "deploy v0.8.0",
                        "rollback": "git checkout v0.7.0; docker compose up -d",
                    },
                    {
                        "id": "fill", "kind": "backfill", "table": "users", "set": "phone = legacy_phone_field",
                        "where": "phone IS NULL AND legacy_phone_field IS NOT NULL", "planned": "10min",
                    },
                    {
                        "id": "complete", "kind": "check", "expect": 0,
                        "sql": "SELECT count(*) FROM users WHERE phone IS NULL",
                    },
                ],
            },
            {"name": "contract", "step": [{"id": "drop", "kind": "migrate", "to": "head"}]},
        ],
    }
)  # fmt: skip

FACTS = ServerFacts(
    version=160004, database="shop", database_oid=16384, user="dba", host="prod-db1",
    started_at=T0 - timedelta(days=40), system_identifier="7301",
    at=T0, in_recovery=False, read_only=False, superuser=False, sees_all=True,
    may_signal=True, may_create=True, max_connections=100, reserved_connections=3, statements_schema="public",
    pooled=False,
)  # fmt: skip


def session(pid: int, application: str, query: str, *, at: datetime, age: float = 1.0, **changes: object) -> Activity:
    """A row of pg_stat_activity whose transaction and query are *age* seconds old at *at*."""
    begun = at - timedelta(seconds=age)
    row = Activity(
        pid=pid, backend_start=T0 - timedelta(hours=1), leader_pid=None, datname="shop", usename="app",
        application_name=application, client="10.0.0.7", backend_type="client backend", state="active",
        wait_event_type="", wait_event="", xact_start=begun, query_start=begun, state_change=begun, xmin_age=12,
        query=query,
    )  # fmt: skip
    return replace(row, **changes)  # type: ignore[arg-type]  # fields by name, as replace takes them


def blocked(at: datetime) -> tuple[tuple[Activity, ...], tuple[Lock, ...]]:
    """Our DDL waits behind a report, two application sessions wait behind our DDL."""
    lock = {"wait_event_type": "Lock", "wait_event": "relation"}
    rows = (
        session(47110, "reports", "SELECT u.id, sum(o.total) FROM users u JOIN orders o ON o.user_id = u.id",
                at=at, age=31, state="idle in transaction", wait_event_type="Client", wait_event="ClientRead"),
        session(48213, "dbwatch migrate 7/3", "ALTER TABLE users ADD COLUMN phone varchar(20)", at=at, age=12.4,
                **lock),
        session(47311, "app-7", "UPDATE users SET email = $1 WHERE id = $2", at=at, age=11.9, **lock),
        session(47312, "app-2", "SELECT * FROM users WHERE id = $1", at=at, age=11.0, **lock),
        session(47400, "app-1", "", at=at, age=0.2, state="idle", xact_start=None),
    )  # fmt: skip

    def on_users(pid: int, mode: str, granted: bool, age: float) -> Lock:
        since = None if granted else at - timedelta(seconds=age)
        return Lock(pid, "relation", "users", "relation 16384 16401", mode, granted, since)

    locks = (
        on_users(47110, "AccessShareLock", True, 31),
        on_users(48213, "AccessExclusiveLock", False, 12.4),
        on_users(47311, "RowExclusiveLock", False, 11.9),
        on_users(47312, "AccessShareLock", False, 11.0),
    )
    return rows, locks


def snapshot(seconds: float = 0.0, *, taken: float = 100.0, waiting: bool = False) -> Snapshot:
    """A good poll *seconds* after the opening, read at *taken* on the monotonic clock."""
    at = T0 + timedelta(seconds=seconds)
    rows, locks = blocked(at)
    if not waiting:
        rows, locks = (rows[0], rows[4]), locks[:1]
    vitals = Vitals(
        connections=61, connections_usable=97, active=len(rows), waiting=3 if waiting else 0,
        xact_commit=int(1_000_000 + 1200 * seconds), xact_rollback=0, wal_bytes=int(14_000_000 * seconds),
        deadlocks=0, temp_bytes=0, oldest_xmin_s=38.0, oldest_xact_s=31.0, database_bytes=10_000_000_000,
    )  # fmt: skip
    index = IndexUse(1, "public", "users", "users_email_key", 1234, None, 21_000_000, True, True, True, False)

    def view(*found: object) -> View[object]:
        return View(Status.OK, "", at, taken, found)

    return Snapshot(
        number=int(seconds * 10) + 1, taken=taken, at=at, connected=True, facts=FACTS, own_pids=frozenset({48213}),
        vitals=view(vitals), activity=view(*rows), locks=view(*locks), statements=view(), indexes=view(index),
        tables=view(), progress=view(), replication=view(), blockers=view(), statements_before=view(),
    )  # type: ignore[arg-type]  # fmt: skip  # one view per kind of row


WEI, LIN = "wei@bastion", "lin@laptop"
BY_LIN = (ev.ConfirmationGiven, ev.ConfirmationRefused, ev.Requested, ev.Marked)
"""What the navigator writes."""


def journal(*facts: ev.Fact, every: float = 30.0) -> tuple[Event, ...]:
    """The facts as a chained journal, one every so many seconds, after the opening."""
    opened = ev.WindowOpened(RUNBOOK.title, "shop", ["9a20"], "sha", "fingerprint")
    events: list[Event] = []
    for number, fact in enumerate((opened, *facts)):
        at = T0 + timedelta(seconds=every * number)
        previous = events[-1].hash if events else ""
        actor = LIN if isinstance(fact, BY_LIN) else WEI
        events.append(chain.make(fact, seq=number + 1, at=at, actor=actor, epoch=3, prev_hash=previous))
    return tuple(events)


def window(*facts: ev.Fact, elapsed: float = 761.0, **changes: object) -> WindowView:
    """A window in which *facts* happened."""
    events = journal(*facts)
    rollback = Rollback(reversible=True, estimate_s=38.0, no_return="drop", reason="drops users.legacy_phone_field")
    view = WindowView(
        runbook=RUNBOOK, state=fold(events), events=events, actor="wei@bastion", driving=True, elapsed_s=elapsed,
        rollback=rollback,
    )  # fmt: skip
    return replace(view, **changes)  # type: ignore[arg-type]  # fields by name, as replace takes them


PREVIEWED = (ev.StepDone("preview", 1, "read by lin", 62.0),)
ADDING = (*PREVIEWED, ev.StepStarted("add", 1, ["9a20"]))
ADDED = (
    *ADDING,
    ev.DdlSeen("add", 1, 1, "3f1c", "ALTER TABLE users ADD COLUMN phone varchar(20)", False, True, True, []),
    ev.StepDone("add", 1, "at 3f1c", 12.0, ["3f1c"]),
)
DEPLOYED = (*ADDED, ev.StepDone("deploy", 1, "v0.8.0 is out, lin watched", 240.0))
FILLING = (*DEPLOYED, ev.StepStarted("fill", 1))

SENT = ev.DdlSeen(
    "add", 1, 1, "3f1c", "CREATE INDEX CONCURRENTLY idx_users_phone ON users (phone)", True, False, True,
    [{"action": "create", "kind": "index", "schema": "public", "name": "idx_users_phone", "parent": "users",
      "oid": 16431}],
)  # fmt: skip
"""A statement that commits by itself, and whose end nobody saw."""
EDIT = """--- runbook.toml, as this window goes by it
+++ runbook.toml, now
@@ -12,3 +12,3 @@
 id = "fill"
-planned = "10min"
+planned = "20min"
"""

MIGRATING = MigrationProgress(
    step="add", revision="3f1c", statement="ALTER TABLE users ADD COLUMN phone varchar(20)", number=2, applied=(),
    committed=(), pid=48213, waits_for="47110 (reports, idle in transaction 31 s)", attempt=2, attempts=6,
    retry_in_s=None,
)  # fmt: skip
BACKFILLING = BackfillProgress(
    table="users", state=State.RUNNING, rows_done=612_340, rows_total_estimate=1_295_000, fraction=0.473,
    rows_per_s=12_400.0, eta_s=55.0, batch_rows=4_100, batch_ms=92.0, target_ms=100.0, duty=0.8, batches=1_204,
    history=tuple(60 + 40 * ((n * 7) % 11) / 11 for n in range(120)), worker=Worker(48300, T0), epoch=3,
)  # fmt: skip
PLAN = AbortPlan(
    database="shop",
    target="shop@prod-db1 (primary, 16.4)",
    seq=7,
    actions=(
        Action(ActionKind.FENCE, "fence epoch 3 → 4", estimate_s=0.5),
        Action(ActionKind.STOP, "stop fill after batch 1,204", step="fill", estimate_s=0.5),
        Action(ActionKind.PERSON, "undo deploy: git checkout v0.7.0; docker compose up -d", step="deploy"),
        Action(
            ActionKind.DOWNGRADE, "downgrade 3f1c → 9a20", step="add", heads=("9a20",), estimate_s=30.0,
            sql=("DROP INDEX CONCURRENTLY idx_users_phone;", "ALTER TABLE users DROP COLUMN phone;"),
            locks=("ACCESS EXCLUSIVE on users (reads and writes wait)",),
            waits_for=(
                Blocker(
                    47110, T0 - timedelta(hours=1), T0, "reports", "idle in transaction", 31.0, "SELECT u.id", "users"
                ),
            ),
        ),
        Action(ActionKind.COMPARE, "compare the schema with the one at 21:04:10", estimate_s=2.0),
    ),
    lost=("612,340 values of users.phone (made by add), copied from users.legacy_phone_field",),
    budget_s=300.0,
    blockers=(47110,),
    prediction=Prediction(("9a20",), equal=True),
)  # fmt: skip

FORETOLD = Foretold(
    "fill",
    (
        ("table", "public.users, about 1,320,000 rows"),
        ("pending", "about 1,295,000 rows (sample)"),
        ("key", "id (users_pkey)"),
        ("walk", "by pages, in stripes in windows of 40,000 rows at most, or plainly: both are timed"),
        ("costs", "about 260 batches, 12 s, 420 MB of WAL, 31 MB of bloat, to a factor of two"),
        ("note", "health signals that are not there: lag (no replica), slots (no replication slot)"),
    ),
    ("UPDATE users", "SET phone = legacy_phone_field", "WHERE id > :lo_1"),
    ("Update on users", "  ->  Index Scan using users_pkey on users"),
)
ASIDE = Aside(
    "fill", 7, 2, "22001: 1, 23514: 1",
    (
        AsideRow('["42"]', '["42"]', "22001", "value too long for type character varying(20)"),
        AsideRow('["4711"]', '["4711"]', "23514", 'violates check constraint "users_phone_same"'),
    ),
)  # fmt: skip

SECOND = RUNBOOK.model_copy(
    update={
        "phase": tuple(
            phase.model_copy(
                update={"step": tuple(s.model_copy(update={"confirm": "navigator"}) if s.id == "drop" else s
                                      for s in phase.step)}
            )
            for phase in RUNBOOK.phase
        )
    }
)  # fmt: skip
"""The same runbook, in which the last step needs a second person's word."""


class FakeClock:
    """A clock that stands until it is told to go."""

    def __init__(self, monotonic: float = 100.4) -> None:
        self.at = monotonic

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.at - 100)

    def server_said(self, at: datetime) -> None:
        pass

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


class FakeFeed:
    """Plays frames; `push` adds one."""

    def __init__(self, *frames: Frame) -> None:
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()
        self._frame = frames[0] if frames else Frame()
        self.interval = 1.0
        for frame in frames[1:]:
            self._frames.put_nowait(frame)

    @property
    def frame(self) -> Frame:
        return self._frame

    async def next(self) -> Frame:
        self._frame = await self._frames.get()
        return self._frame

    def push(self, frame: Frame) -> None:
        """The feed's next frame."""
        self._frames.put_nowait(frame)

    def set_interval(self, seconds: float) -> None:
        self.interval = seconds


class FakeDesk:
    """Remembers what it was asked; answers at once, or never."""

    def __init__(
        self, *, answer: intents.Answer | None = None, accepts: frozenset[type] = intents.ALL, silent: bool = False
    ) -> None:
        self.asked: list[intents.Intent] = []
        self.plan = PLAN
        self.foretold = FORETOLD
        self.aside = ASIDE
        self._answer = answer or intents.Answer(True, "taken")
        self._accepts, self._silent = accepts, silent

    @property
    def accepts(self) -> frozenset[type]:
        return self._accepts

    async def submit(self, intent: intents.Intent) -> intents.Answer:
        self.asked.append(intent)
        if self._silent:
            await asyncio.Event().wait()
        return self._answer

    async def plan_abort(self) -> AbortPlan:
        if self._silent:
            await asyncio.Event().wait()
        return self.plan

    async def plan_backfill(self, step: str) -> Foretold:
        if self._silent:
            await asyncio.Event().wait()
        return self.foretold

    async def rows_aside(self, step: str) -> Aside:
        if self._silent:
            await asyncio.Event().wait()
        return self.aside


TIMEOUT = "canceling statement due to lock timeout: it waited 2 s for users, held by 47110 (reports)"
HIDDEN = "12 sessions hidden: GRANT pg_monitor TO dba"


def frames() -> dict[str, Frame]:
    """One frame for every state that a window can be in."""
    going = tuple(action.body() for action in PLAN.actions)
    begun = (*FILLING, ev.AbortConfirmed([dict(body) for body in going], 33.0), ev.AbortActionStarted(1))
    person = (
        *begun, ev.AbortActionDone(1, "epoch 4", 0.2), ev.AbortActionStarted(2), ev.AbortActionDone(2, "stopped", 0.4),
        ev.AbortActionStarted(3),
    )  # fmt: skip
    downgraded = (*person, ev.AbortActionDone(3, "v0.7.0 is back", 95.0), ev.AbortActionStarted(4))
    back = (
        *downgraded, ev.AbortActionDone(4, "at 9a20", 28.0), ev.AbortActionStarted(5),
        ev.AbortActionDone(5, "equal", 1.0), ev.AbortFinished(True, [], 38.0),
    )  # fmt: skip
    differs = (*downgraded, ev.AbortFinished(False, ["index idx_users_phone is left"], 38.0))
    ready = (*FILLING, ev.StepDone("fill", 1, "1,295,000 rows", 100.0), ev.StepDone("complete", 1, "0", 0.2))
    asked = ev.ConfirmationAsked("drop", "past it there is no whole way back: it drops users.legacy_phone_field")
    everything = (*ready, ev.StepDone("drop", 1, "at head", 4.0, ["77aa"]))
    gone = Rollback(reversible=False, estimate_s=None, reason="legacy values are dropped", no_return="drop")
    quiet, busy = snapshot(761), snapshot(761, waiting=True)
    lost = replace(quiet, connected=False, trouble="reconnecting, try 3: connection refused", taken=114.0)
    return {
        "nothing yet": Frame(),
        "watching": Frame(busy),
        "watching, hidden": Frame(
            replace(quiet, activity=View(Status.HIDDEN, HIDDEN, quiet.at, 100.0, quiet.activity.rows))
        ),
        "watching, stale": Frame(lost),
        "window opened": Frame(quiet, window()),
        "window, server lost": Frame(lost, window()),
        "migrating": Frame(busy, window(*ADDING, migration=MIGRATING, busy="add", elapsed=91.0)),
        "add failed": Frame(quiet, window(*ADDING, ev.StepFailed("add", 1, TIMEOUT, 10.1, again=True))),
        "add unknown": Frame(
            quiet,
            window(
                *ADDING,
                SENT,
                ev.StepNoted("add", "try 2 of 6"),
                ev.StepUnknown("add", 1, "the driver vanished during autocommit"),
            ),
        ),
        "next is a person's": Frame(quiet, window(*ADDED)),
        "next is the backfill": Frame(quiet, window(*DEPLOYED)),
        "filling": Frame(quiet, window(*FILLING, backfill=BACKFILLING, backfill_step="fill", busy="fill")),
        "held back": Frame(
            busy,
            window(
                *FILLING,
                backfill_step="fill",
                busy="fill",
                backfill=replace(BACKFILLING, state=State.THROTTLED, reason="replication lag is 12 s, limit 5 s"),
            ),
        ),
        "paused": Frame(
            quiet,
            window(
                *FILLING,
                backfill_step="fill",
                busy="fill",
                backfill=replace(BACKFILLING, state=State.PAUSED, reason="paused by hand"),
            ),
        ),
        "navigator": Frame(
            quiet,
            window(
                *FILLING,
                actor="lin@laptop",
                driving=False,
                navigators=("lin@laptop",),
                backfill=BACKFILLING,
                backfill_step="fill",
            ),
        ),
        "navigator, driver silent": Frame(
            quiet, window(*ADDING, actor="lin@laptop", driving=False, navigators=("lin@laptop",), silent_s=12.0)
        ),
        "navigator, window taken back": Frame(
            busy, window(*begun, actor="lin@laptop", driving=False, navigators=("lin@laptop",))
        ),
        "wheel lost": Frame(
            quiet,
            window(
                *ADDED,
                ev.DriverTook("lin@laptop", "wei does not answer"),
                driving=False,
                navigators=("wei@bastion",),
                trouble="this dbwatch is no longer the driver",
                elapsed=190.0,
            ),
        ),
        "proposing": Frame(quiet, window(*ready, asked, runbook=SECOND, navigators=("lin@laptop",))),
        "proposed": Frame(
            quiet,
            window(*ready, asked, runbook=SECOND, actor="lin@laptop", driving=False, navigators=("lin@laptop",)),
        ),
        "confirmed": Frame(
            quiet,
            window(*ready, asked, ev.ConfirmationGiven("drop", 10), runbook=SECOND, navigators=("lin@laptop",)),
        ),
        "edited": Frame(quiet, window(*ADDED, edited=EDIT, edited_sha="5ha")),
        "edited, broken": Frame(quiet, window(*ADDED, edited="runbook.toml:7: unknown key 'palnned'")),
        "journal trouble": Frame(quiet, window(*ADDED, journal_trouble="the disk of prod-db1 is full")),
        "aborting": Frame(busy, window(*begun, busy="the abort")),
        "abort waits for a person": Frame(quiet, window(*person, busy="the abort")),
        "abort stuck": Frame(
            busy,
            window(
                *downgraded,
                ev.AbortActionFailed(4, "lock timeout after 5 tries", 12.0),
                ev.AbortFinished(False, ["stopped at action 4: lock timeout after 5 tries"], 50.0),
            ),
        ),
        "back": Frame(quiet, window(*back)),
        "not back": Frame(quiet, window(*differs)),
        "no way back": Frame(quiet, window(*everything, rollback=gone)),
        "closed": Frame(quiet, window(*everything, ev.WindowClosed("done"), rollback=gone)),
    }


ALL_FRAMES: Sequence[str] = tuple(frames())


def shown(app: App[None]) -> str:
    """What the screen on top shows, without colour."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())
