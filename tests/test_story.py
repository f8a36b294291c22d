"""The whole story, as a person lives through it: in a real terminal, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from servers import Database, eventually
from story import (
    LEAVES_S,
    MARK,
    PATIENCE_S,
    WIDE,
    Seat,
    column,
    dbwatch,
    environment_of,
    given_back,
    journal,
    leave_dialog,
    processes,
    run_next,
    seconds_to_leave,
    sign_off,
)
from terminal import Terminal, terminal
from windows import small_shop

from dbwatch.journal import events as ev

USERS = 100_000


@asynccontextmanager
async def application(db: Database, sessions: int = 3) -> AsyncIterator[None]:
    """The shop's application at work, a few dozen transactions a second."""

    async def work(name: str, first: int) -> None:
        connection = await db.foreign(name)
        for user in itertools.count(first):
            await connection.execute("UPDATE users SET last_seen_at = now() WHERE id = %s", (1 + user % USERS,))
            await connection.execute("SELECT name, city FROM users WHERE id = %s", (1 + user * 7 % USERS,))
            await asyncio.sleep(0.1)

    working = [asyncio.create_task(work(f"app-{n}", n * 1000)) for n in range(1, sessions + 1)]
    try:
        yield
        assert not any(task.done() for task in working), "the application broke"
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


def slow_down(runbook: Path) -> None:
    """Time enough for a person to look at a lock, and at a backfill of no more rows than a test can wait for."""
    text = runbook.read_text().replace('lock_timeout = "2s"', 'lock_timeout = "20s"')
    runbook.write_text(text.replace('kind = "backfill"', 'kind = "backfill"\nbatch_time = "10ms"'))


def seen(pattern: str) -> Callable[[Terminal], bool]:
    """Holds where *pattern* is found on the screen."""
    return lambda screen: re.search(pattern, screen.text) is not None


@pytest.mark.timeout(240)
async def test_a_person_drives_a_window_and_takes_it_all_back(db: Database, tmp_path: Path) -> None:
    shop = await small_shop(db, tmp_path, users=USERS, as_staged=True)
    slow_down(shop.runbook)
    before, heads = await shop.dump(), await shop.heads()
    seat = Seat.at(shop)
    async with application(db), seat.screen(shell=True) as screen:
        await screen.until("driver wei (you)", PATIENCE_S)
        await the_preview_is_signed_off(screen)
        await the_migration_waits_and_its_blocker_is_ended(screen, db)
        await sign_off(screen, "deploy", "v0.8.0 is out")
        await the_backfill_obeys(screen, db)
        await run_next(screen, "complete")
        await run_next(screen, "index")
        screen.press("5")
        await screen.until("idx_users_phone")
        await run_next(screen, "same")
        await sign_off(screen, "nobody", "pane 5 was quiet for a day")
        assert await shop.dump() != before
        await the_window_is_taken_back(screen, db)
        assert await shop.heads() == heads
        assert await shop.dump() == before
        await leave_dialog(screen)
        assert "CLOSED: aborted" in screen.text
        for step in ("add", "deploy", "fill", "index", "same"):
            await screen.until(seen(rf"↶ {step} .*undone"))
        assert len(list((tmp_path / "state").rglob("rollback.sql"))) == 1
        screen.press("q")
        assert await seconds_to_leave(screen, shell=True) < LEAVES_S
        assert given_back(screen)
        assert "terminal: icanon echo" in screen.text
    await seat.nobody_is_left()
    facts = [event.fact for event in await journal(db)]
    assert [f.outcome for f in facts if isinstance(f, ev.WindowClosed)] == ["aborted"]
    assert [f.equal for f in facts if isinstance(f, ev.AbortFinished)] == [True]


async def the_preview_is_signed_off(screen: Terminal) -> None:
    """Nobody gets past a person's step without a note."""
    screen.press("n")
    await screen.until("Sign off preview")
    screen.press("enter")
    await screen.until("a few words are needed")
    screen.press("read by lin", "enter")
    await screen.until("✓ preview")
    screen.press("9")
    await screen.until("preview done in")
    assert "read by lin" in screen.text


async def the_migration_waits_and_its_blocker_is_ended(screen: Terminal, db: Database) -> None:
    """Pane 3 shows the holder, the migration behind it, and the application behind that; K ends the holder."""
    reports = await db.foreign("reports", autocommit=False)
    await reports.execute("SELECT count(*) FROM users WHERE city = 'nowhere'")
    holder = reports.info.backend_pid
    await screen.until("n run add")
    screen.press("n", "3")
    await screen.until(
        seen(
            rf"▼ {holder} .*AccessShare +users +reports .*\n"
            r".* └ \d+ .*wants AccessExclusive +users +migrate ◆.*ALTER TABLE users ADD.*\n"
            r".* [├└] \d+ .*wants .* users +app-\d"
        ),
        PATIENCE_S,
    )
    await screen.until(lambda s: f"held by {holder}" in plan_of(s))
    await screen.until(seen(rf"▶ ▼ {holder}"))
    screen.press("K")
    await screen.until("Terminate this session?")
    await screen.until("SELECT count(*) FROM users WHERE city = 'nowhere'")
    assert f"{holder}, connected since" in screen.text
    screen.press("y")
    await screen.until(f"session {holder} was terminated")
    with pytest.raises(psycopg.OperationalError):
        await reports.execute("SELECT 1")
    await screen.until("✓ add", PATIENCE_S)
    await screen.until("nobody waits for a lock")


def plan_of(screen: Terminal) -> str:
    """What the Plan beside the other pane says, in one line."""
    return " ".join(re.findall(r"^│(.{34})│", screen.text, re.MULTILINE)).replace("  ", "")


async def the_backfill_obeys(screen: Terminal, db: Database) -> None:
    """It starts and pauses by b, goes gentler and faster, tells how far it is, and comes to its end."""
    pending = "SELECT count(*) FROM users WHERE phone IS NULL AND legacy_phone_field IS NOT NULL"
    screen.press("7")
    await screen.until("b starts it")
    screen.press("b")
    await screen.until("▶ running")
    screen.press(*"[[[[")
    await screen.until("fill goes gentler (level -4)")
    screen.press("b")
    await screen.until("‖ PAUSED")
    await screen.until("paused by wei@bastion; b goes on")
    [left] = await column(db, pending)
    assert 0 < int(str(left)) < USERS * 49 // 50
    await screen.until(seen(r"\d+\.\d %"))
    assert "-4 gentler" in screen.text
    await asyncio.sleep(1.0)
    assert await column(db, pending) == [left]
    screen.press("b")
    await screen.until("fill goes on")
    screen.press(*"]]]]]]")
    await screen.until(lambda s: "fill goes faster (level +2)" in s.text or "✓ fill" in s.text)
    await screen.until("✓ fill", PATIENCE_S)
    await screen.until("✓ done")
    await screen.until("100 %")
    assert await column(db, pending) == [0]


async def the_window_is_taken_back(screen: Terminal, db: Database) -> None:
    """A shows the way back; the name begins it; it waits for the person's part; the proof is shown."""
    screen.press("A")
    await screen.until("Type the database's name to begin")
    for action in (
        "fence: epoch 1 → 2",
        "undo same",
        "downgrade 5e07 → 3f1c",
        "DROP INDEX CONCURRENTLY idx_users_phone",
        "undo deploy: git checkout v0.7.0; docker compose up -d (a person)",
        "downgrade 3f1c → 9a20",
        "ALTER TABLE users DROP COLUMN phone",
        "compare the schema with the one at",
        "of 5:00",
    ):
        await screen.until(action)
    screen.press("production", "enter")
    await screen.until("that is not the name of this database")
    screen.press(db.name, "enter")
    await screen.until("▲ Waits for a person: undo deploy")
    screen.press("f3")
    await screen.until("Sign off deploy")
    screen.press("v0.7.0 is back", "enter")
    await screen.until("✓ back: the schema equals the one of", PATIENCE_S)
    assert "NOT back" not in screen.text


# The demo


@dataclass(frozen=True, slots=True)
class Stall:
    """Where a demo is played: all it leaves behind would lie in this folder, or run in it."""

    folder: Path
    mark: str

    async def is_empty(self, within: float = 15.0) -> None:
        """Waits until no process that was begun here runs, and no file lies here."""

        async def gone() -> bool:
            return not self.left()

        try:
            await eventually(gone, within=within)
        except AssertionError:
            raise AssertionError(f"left: {self.left()}") from None

    def left(self) -> list[str]:
        """Processes and files."""
        running = [line for pid, line in processes() if self.mark in environment_of(pid) or self.holds(pid)]
        return [*running, *(str(path) for path in self.folder.iterdir())]

    def holds(self, pid: int) -> bool:
        """Whether the process is at home in the folder: a server works in its data directory."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(self.folder)
        return False


@pytest.fixture
def stall() -> Iterator[Stall]:
    folder = Path(tempfile.mkdtemp(prefix="dbw-", dir="/tmp"))
    folder.chmod(0o755)  # started by root, the server is somebody else's
    yield Stall(folder, f"{MARK}={uuid4().hex}")
    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def demo(stall: Stall) -> AsyncIterator[Terminal]:
    name, _, value = stall.mark.partition("=")
    env = {name: value, "TMPDIR": str(stall.folder), "DBWATCH_ACTOR": "wei@bastion"}
    async with terminal(dbwatch("demo"), columns=WIDE[0], rows=WIDE[1], env=env, cwd=stall.folder) as screen:
        yield screen


WAYS_TO_GO = {
    "q": lambda screen: screen.press("q"),
    "SIGTERM": lambda screen: screen.signal(signal.SIGTERM),
    "the line drops": lambda screen: screen.hang_up(),
    "kill -9": lambda screen: screen.signal(signal.SIGKILL),
}


@pytest.mark.timeout(150)
@pytest.mark.parametrize("way", WAYS_TO_GO)
async def test_the_demo_comes_up_by_itself_and_leaves_nothing(stall: Stall, way: str) -> None:
    began = time.monotonic()
    async with demo(stall) as screen:
        await screen.until("n sign off preview", 60.0)
        assert time.monotonic() - began < 20.0 * 3
        await screen.until("shop@")
        await screen.until(seen(r"reports|app-\d"))
        assert any("postgres" in line for line in stall.left())
        WAYS_TO_GO[way](screen)
        code = await screen.ended(LEAVES_S)
        assert code == {"kill -9": -signal.SIGKILL}.get(way, 0)
        if way in ("q", "SIGTERM"):
            assert given_back(screen)
    await stall.is_empty()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
async def test_a_demo_that_is_ended_while_it_is_set_up_leaves_nothing(
    stall: Stall, number: signal.Signals, code: int
) -> None:
    async with demo(stall) as screen:
        await screen.until("loading users", 60.0)
        screen.signal(number)
        assert await screen.ended(LEAVES_S * 2) == code
    await stall.is_empty()
