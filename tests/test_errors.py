"""What a person is told where a command cannot do what it was asked: one sentence, with the way out, and an exit code.

Real commands in processes of their own, on real servers. Each says on standard error what, why and what to try next;
never a traceback, and never a password.
"""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from weakref import WeakKeyDictionary

import pytest
import pytest_asyncio
from pooler import pgbouncer
from servers import Database, Fleet, OwnServers
from story import Ended, dbwatch
from terminal import terminal

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "correct-horse"
WRONG = "battery-staple"
_AT_ONCE: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
"""How many commands may run side by side, in each loop."""


# The place


@dataclass(frozen=True, slots=True)
class Place:
    """A server with roles that may little, what leads to it, and a folder to work in."""

    db: Database
    standby: str
    pooled: str
    folder: Path

    def fill(self, text: str) -> str:
        """*text* with what stands here in place of its braces."""
        return text.format(
            db=self.db.name,
            dsn=self.db.dsn,
            standby=self.standby,
            pooled=self.pooled,
            folder=self.folder,
            port=self.db.server.port,
            at=f"host=127.0.0.1 port={self.db.server.port}",
            **{f"as_{role}": self.db.dsn_as(role) for role in ("guarded", "poor", "careful", "nobody_here")},
        )


RUNBOOK = """\
title = "a window"

[target]
dsn = "${TARGET}"

[[phase]]
name = "expand"

[[phase.step]]
id = "look"
kind = "check"
sql = "SELECT 1"
expect = 1
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    servers = OwnServers(fleet)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(servers.close)
        server = await servers(18)
        db = await servers.database(server)
        hba = server.data / "pg_hba.conf"
        hba.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        await db.sql(
            f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}'",
            "CREATE ROLE poor LOGIN",
            "CREATE ROLE careful LOGIN",
            "ALTER ROLE careful SET default_transaction_read_only = on",
            "SELECT pg_reload_conf()",
        )
        standby = (await servers.standby(server)).dsn_of(db.name)
        pooled = await stack.enter_async_context(pgbouncer(db.dsn))
        folder = tmp_path_factory.mktemp("errors")
        wrong = RUNBOOK.replace("title", "titel").replace('"expand"', '"expand"\nowner = "wei"')
        wrong = wrong.replace("check", "chekc")
        lost = RUNBOOK.replace('window"\n', 'window"\nalembic = "db/alembic.ini"\n')
        for name, text in (("window", RUNBOOK), ("wrong", wrong), ("lost", lost)):
            (folder / f"{name}.toml").write_text(text)
        yield Place(db, standby, pooled, folder)


async def told(place: Place, *words: str, target: str = "") -> Ended:
    """`dbwatch ...` to its end, in the folder, with no terminal."""
    own = {"TARGET": target or place.db.dsn, "XDG_STATE_HOME": str(place.folder / "state")}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    async with _AT_ONCE.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(3)):
        process = await asyncio.create_subprocess_exec(
            *dbwatch(*words), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env={**clean, **own}, cwd=place.folder
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


# One sentence and an exit code


@dataclass(frozen=True, slots=True)
class Case:
    """A command that cannot be carried out. In all its texts braces are filled in; `*` in *said* is any text."""

    words: str
    """The command's words, `|` between them; TARGET leads where *target* says."""
    code: int
    said: str
    target: str = ""


_RUN = "run|window.toml|--headless"
_REACH = 'cannot connect to user=ROLE dbname={db} {at}: connection to server at "127.0.0.1", port {port} failed: '
_GUARDED = _REACH.replace("ROLE", "guarded")
_FORMS = 'write "host=... dbname=..." with quotes around it, or "postgresql://user@host/dbname"'
_CHECK_PASSWORD = "check the password (PGPASSWORD, ~/.pgpass or the service file)"
CASES = {
    "a missing runbook": Case("run|nowhere.toml|--headless", 2, "nowhere.toml: there is no such file; check the path"),
    "a missing Alembic file": Case(
        "run|lost.toml|--headless",
        2,
        'lost.toml:2: "alembic": there is no file {folder}/db/alembic.ini; '
        "the path is relative to the runbook's folder",
    ),
    "several mistakes": Case(
        "run|wrong.toml|--headless",
        2,
        'wrong.toml:1: unknown key "titel"; did you mean "title"?\n'
        'wrong.toml:8: phase "expand": unknown key "owner"; keys here are name, step\n'
        'wrong.toml:12: phase "expand", step "look": unknown kind "chekc"; '
        "kinds are manual, check, migrate, backfill, sql",
    ),
    "an unreachable server": Case(
        _RUN,
        3,
        'cannot connect to host=127.0.0.1 port=1: connection to server at "127.0.0.1", port 1 failed: '
        "Connection refused; check host, port and that the server runs",
        "host=127.0.0.1 port=1",
    ),
    "an unknown host": Case(
        "snapshot|host=nowhere.invalid",
        3,
        "cannot connect to host=nowhere.invalid: the name nowhere.invalid cannot be resolved: *; check the host's name",
    ),
    "a wrong password": Case(
        "snapshot|{as_guarded} password=" + WRONG,
        3,
        _GUARDED + 'FATAL: password authentication failed for user "guarded"; ' + _CHECK_PASSWORD,
    ),
    "a wrong password in a URI": Case(
        "snapshot|postgresql://guarded:" + WRONG + "@127.0.0.1:{port}/{db}",
        3,
        _GUARDED + 'FATAL: password authentication failed for user "guarded"; ' + _CHECK_PASSWORD,
    ),
    "a wrong password in a runbook": Case(
        _RUN,
        3,
        _GUARDED + 'FATAL: password authentication failed for user "guarded"; ' + _CHECK_PASSWORD,
        "{as_guarded} password=" + WRONG,
    ),
    "a missing password": Case(
        "status|{as_guarded}",
        3,
        _GUARDED + "fe_sendauth: no password supplied; " + _CHECK_PASSWORD.replace("check the", "give a"),
    ),
    "an unknown role": Case(
        "snapshot|{as_nobody_here}",
        3,
        _REACH.replace("ROLE", "nobody_here") + 'FATAL: role "nobody_here" does not exist; check the user\'s name',
    ),
    "a standby": Case(
        _RUN,
        4,
        "{db}@127.0.0.1 is a standby: it is read only; give the DSN of the primary, or only watch",
        "{standby}",
    ),
    "a way back on a standby": Case(
        "abort|window.toml|--dry-run",
        4,
        "{db}@127.0.0.1 is a standby: it is read only; give the DSN of the primary, or only watch",
        "{standby}",
    ),
    "a read-only role": Case(
        _RUN,
        4,
        "{db}@127.0.0.1 is read only: default_transaction_read_only is on for this role or database; "
        "turn it off, or only watch",
        "{as_careful}",
    ),
    "no right to create the schema": Case(
        _RUN,
        4,
        "the journal's schema could not be made: permission denied for database {db} (42501); "
        "GRANT CREATE ON DATABASE {db} TO poor, or CREATE SCHEMA dbwatch AUTHORIZATION poor",
        "{as_poor}",
    ),
    "a pooler in between": Case(
        _RUN,
        4,
        "a connection pooler lies between dbwatch and {db}@127.0.0.1: "
        "pids and session settings behind it belong to whoever comes next; "
        "give the server's own address in the DSN, not PgBouncer's",
        "{pooled}",
    ),
    "a way back through a pooler": Case("abort|window.toml|--dry-run", 4, "a connection pooler lies*", "{pooled}"),
    "a password that breaks its URI": Case(
        "snapshot|postgresql://guarded:" + SECRET + "@x@127.0.0.1/{db}",
        2,
        "the connection string cannot be used: there is an @ too many in the URI: "
        "in a name or a password write %40 for @, %2F for /, %25 for %; " + _FORMS,
    ),
    "a password with a space": Case(
        "snapshot|host=127.0.0.1 password=x " + SECRET,
        2,
        "the connection string cannot be used: libpq cannot read it: "
        "each option is key=value, a value with spaces or quotes stands in '...'; " + _FORMS,
    ),
    "a connection string without quotes": Case(
        "snapshot|host=127.0.0.1|password=" + SECRET,
        2,
        "dbwatch snapshot was given more arguments than it takes; "
        "put a connection string in quotes, or see dbwatch snapshot --help",
    ),
    "a screen without a terminal": Case(
        "run|window.toml", 2, "the screen needs a terminal; use --headless, snapshot or status without one"
    ),
}
_ON_THE_WAY = ("dbwatch: connecting", "dbwatch: looking for the journal")
"""What a command says before it finds out."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers(place: Place) -> dict[str, Ended]:
    """What became of each case; a few run at a time."""
    asked = {
        name: told(place, *place.fill(case.words).split("|"), target=place.fill(case.target))
        for name, case in CASES.items()
    }
    return dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))


@pytest.mark.parametrize("name", CASES)
async def test_an_error_is_one_sentence_with_its_exit_code(place: Place, answers: dict[str, Ended], name: str) -> None:
    case, ended = CASES[name], answers[name]
    said = "\n".join(line for line in ended.err.splitlines() if line not in _ON_THE_WAY)
    assert fnmatchcase(said, "dbwatch: " + place.fill(case.said).replace("[", "[[]").replace("?", "[?]")), said
    assert (ended.code, ended.out) == (case.code, "")


async def test_no_error_leaves_a_journal_or_a_word_of_a_password(place: Place, answers: dict[str, Ended]) -> None:
    printed = "".join(ended.out + ended.err for ended in answers.values())
    left = [file for file in place.folder.rglob("*") if file.is_file()]
    assert sorted(file.suffix for file in left) == [".toml"] * 3  # nothing but the runbooks
    assert not [secret for secret in (SECRET, WRONG) if secret in printed]
    assert "Traceback" not in printed
    assert await place.db.sql("SELECT to_regnamespace('dbwatch') IS NULL") == [(True,)]


async def test_a_traceback_comes_when_asked_for_and_without_a_password(place: Place) -> None:
    wrong = place.fill("{as_guarded} password=" + WRONG)
    ended = await told(place, "snapshot", wrong, "--debug")
    assert (ended.code, "Traceback" in ended.err, WRONG in ended.err) == (3, True, False)


# Through a pooler


async def test_a_snapshot_through_a_pooler_says_what_cannot_be_done(place: Place) -> None:
    plain, json_text, status = await asyncio.gather(
        told(place, "snapshot", place.pooled),
        told(place, "snapshot", place.pooled, "--json"),
        told(place, "status", place.pooled),
    )
    assert (plain.code, json_text.code, status.code) == (0, 0, 0), plain.err + json_text.err + status.err
    assert "through a pooler: which sessions are its clients' cannot be told, and no window can be driven" in plain.out
    shot = json.loads(json_text.out)
    assert shot["server"]["pooled"] is True
    assert all(pid > 0 for pid in shot["server"]["own_pids"])  # not the number that the pooler made up
    views = ("activity", "locks", "indexes", "tables", "progress", "replication")
    assert {shot[view]["status"] for view in views} == {"ok"}
    assert status.out == "no window was ever open here\n"


async def test_the_screen_through_a_pooler_is_live_and_offers_no_terminate(place: Place) -> None:
    report = await place.db.foreign("a-report", autocommit=False)
    await report.execute("SELECT 1")
    async with terminal(dbwatch(place.pooled), columns=140, rows=40) as screen:
        await screen.until("▲ through a pooler: no K", 40)
        await screen.until("a-report", 40)
        screen.press("q")
        assert await screen.ended() == 0
    await report.rollback()


async def test_a_backfill_through_a_pooler_is_done_once(place: Place) -> None:
    await place.db.sql(
        "CREATE TABLE filled (id int PRIMARY KEY, a text, b text)",
        "INSERT INTO filled SELECT g, 'a' || g FROM generate_series(1, 2000) AS g",
    )
    words = ("--table", "filled", "--set", "b = a", "--where", "b IS NULL", "--json")
    done = await told(place, "backfill", place.pooled, *words)
    assert done.code == 0, done.err
    last = json.loads(done.out.splitlines()[-1])
    assert (last["rows"], last["pending"], last["outcome"]) == (2000, 0, "done")
    assert await place.db.sql("SELECT count(*) FROM filled WHERE a = b") == [(2000,)]


# A terminal, a pipe


@pytest.mark.parametrize("words", ["{dsn}", "run|window.toml"])
async def test_a_terminal_of_20x5_is_too_small_to_tell_anything(place: Place, words: str) -> None:
    command = dbwatch(*place.fill(words).split("|"))
    environment = {"TARGET": place.db.dsn, "XDG_STATE_HOME": str(place.folder / "state")}
    async with terminal(command, columns=20, rows=5, env=environment, cwd=place.folder) as screen:
        assert await screen.ended() == 2
        said = " ".join(screen.stream.split())
        assert said == "dbwatch: the terminal is 20x5: the screen needs 60x15; make it larger"


@pytest.mark.parametrize("words", ["snapshot|{dsn}", "snapshot|{dsn}|--json", "status|{dsn}", "--help"])
async def test_a_reader_who_has_left_is_no_error(place: Place, words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = await asyncio.create_subprocess_exec(
            *dbwatch(*place.fill(words).split("|")), stdin=DEVNULL, stdout=writer, stderr=PIPE
        )
    finally:
        os.close(writer)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (0, "")
