"""A server of our own, for the demo and the tests: made in a temporary folder, gone without a trace.

Its processes and files belong to a reaper (see `reaper.py`), so they end with this process however it ends. As
root the server runs as `nobody`; no user is added and no folder of anybody else's is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Self

from psycopg.conninfo import make_conninfo

from dbwatch.errors import DbwatchError
from dbwatch.postgres.binaries import Binaries
from dbwatch.postgres.reaped import Child, Reaped, open_to_all
from dbwatch.text import one_line

Progress = Callable[[str], None]
StopMode = Literal["smart", "fast", "immediate"]

_UNPRIVILEGED = "nobody"
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_IN_USE = ("could not bind", "Address already in use")
_LINGERING = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')

SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "log_line_prefix": "%m [%p] %a ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""What every embedded server starts with. Its commits survive a kill -9 of the server, not of the machine."""


class EmbeddedServer:
    """One server, from `initialize` to its removal. *template* is a data directory to copy, in place of initdb.

    `async with EmbeddedServer(binaries) as server:` initializes and starts it, and removes it on the way out.

    *listen* is "socket", a Unix socket in a folder that only its owner can enter, or "tcp", a free port of the
    loopback where every local user is let in without a password: for tests only.
    """

    def __init__(
        self,
        binaries: Binaries,
        *,
        settings: Mapping[str, str] | None = None,
        template: Path | None = None,
        listen: Literal["socket", "tcp"] = "socket",
        progress: Progress = lambda _: None,
    ) -> None:
        self.binaries = binaries
        self.settings = {**SETTINGS, **(settings or {})}
        """Read at every start; changes take effect with the next one."""
        self.port = 5432
        self._template = template
        self._listen = listen
        self._progress = progress
        self._reaper: Reaped | None = None
        self._postmaster: Child | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.initialize()
            await self.start()
        except BaseException:
            await self.remove()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.remove()

    @property
    def folder(self) -> Path:
        """The temporary folder, removed with the server; what else should go with it may lie here."""
        return self._owner.folder

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "pg" / "data"

    @property
    def log(self) -> Path:
        """What the server has logged, since it was first started."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        """The postmaster's process id, of the last start."""
        if self._postmaster is None:
            raise DbwatchError("the embedded server was not started")
        return self._postmaster.pid

    @property
    def running(self) -> bool:
        """Whether the postmaster's process is there (it may be stopped by SIGSTOP)."""
        return self._postmaster is not None and not self._postmaster.ended.done()

    @property
    def host(self) -> str:
        """The loopback address, or the folder of the Unix socket."""
        return "127.0.0.1" if self._listen == "tcp" else str(self.folder / "pg")

    @property
    def dsn(self) -> str:
        """A connection string of the superuser to database `postgres`."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str, user: str = "postgres") -> str:
        """A connection string to *database* as *user*; no password is needed."""
        return make_conninfo(host=self.host, port=self.port, user=user, dbname=database)

    async def initialize(self) -> None:
        """Makes the folder and the data directory in it: a copy of the template's, or a new one by initdb.

        Raises DbwatchError where that fails.
        """
        user = _UNPRIVILEGED if os.geteuid() == 0 else None
        self._reaper = await Reaped.open(user)
        if user and not open_to_all(self.binaries.bin / "postgres"):
            self._progress("copying the server's binaries to where its user can read them")
            self.binaries = await asyncio.to_thread(_copy_binaries, self.binaries, self.folder)
        if self._template:
            if (self._template / "postmaster.pid").exists():
                raise DbwatchError("the data directory of a running server cannot be copied")
            await asyncio.to_thread(_copy_data, self._template, self.data)
            return
        self._progress(f"creating a PostgreSQL {self.binaries.version_text} server")
        options = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        await self.run("initdb", *options, "-D", str(self.data))

    async def start(self, *, within: float = 60.0) -> None:
        """Starts the server and returns once it lets people in, or once it follows its primary.

        Raises DbwatchError, with the last line of the server's log, where it does not.
        """
        self._progress(f"starting PostgreSQL {self.binaries.version_text}")
        deadline = asyncio.get_running_loop().time() + within
        while True:
            said_before = self.log.stat().st_size if self.log.exists() else 0
            if self._listen == "tcp" and self._postmaster is None:
                self.port = _free_port()
            self._write_conf()
            argv = [str(self.binaries.bin / "postgres"), "-D", str(self.data), "-c", f"config_file={self._conf}"]
            child = await self._owner.spawn(argv, self.log)
            if await self._came_up(child, deadline):
                self._postmaster = child
                return
            with self.log.open(errors="replace") as log:
                log.seek(said_before)
                said = log.read()
            again = any(words in said for words in (_IN_USE if self._postmaster is None else _LINGERING + _IN_USE))
            if not again or asyncio.get_running_loop().time() > deadline:
                await self._owner.signal(child.pid, signal.SIGKILL)
                raise DbwatchError(
                    f"PostgreSQL {self.binaries.version_text} did not start",
                    why=_complaint(said),
                )
            await asyncio.sleep(0.05)

    async def stop(self, mode: StopMode = "fast", *, within: float = 30.0) -> None:
        """Stops the server as `pg_ctl stop -m MODE` does and returns once it is gone; its data stays.

        Raises DbwatchError where it does not end in time.
        """
        if self.running:
            await self._owner.signal(self.pid, _STOP_SIGNALS[mode])
            await self._ended(within)

    async def kill9(self) -> None:
        """Kills the postmaster and its backends with SIGKILL, as a crash would; none is left on return (Linux)."""
        if self.running:
            await self._owner.crash(self.pid)
            await self._ended(10.0)

    async def restart(self, mode: StopMode = "fast") -> None:
        """Stops the server if it runs, and starts it again under the same address."""
        if self.running:
            await self.stop(mode)
        await self.start()

    async def reload(self) -> None:
        """Has the server read `settings` again, those that need no restart."""
        self._write_conf()
        await self._owner.signal(self.pid, signal.SIGHUP)

    async def sigstop(self) -> None:
        """Freezes the postmaster: it accepts nobody; the sessions that exist go on."""
        await self._owner.signal(self.pid, signal.SIGSTOP)

    async def sigcont(self) -> None:
        """Undoes `sigstop`."""
        await self._owner.signal(self.pid, signal.SIGCONT)

    async def run(self, tool: str, *arguments: str, within: float = 120.0) -> str:
        """Runs a program of the server's as the server's user; what it printed.

        Raises DbwatchError, with its last words, where it fails or takes longer than *within* seconds.
        """
        output = self.folder / f"{tool}.log"
        output.unlink(missing_ok=True)
        child = await self._owner.spawn([str(self.binaries.bin / tool), *arguments], output)
        try:
            code = await asyncio.wait_for(asyncio.shield(child.ended), within)
        except TimeoutError as error:
            await self._owner.signal(child.pid, signal.SIGKILL)
            raise DbwatchError(f"{tool} did not end within {within:g} s") from error
        printed = output.read_text(errors="replace")
        if code != 0:
            raise DbwatchError(f"{tool} failed", why=_complaint(printed) or f"exit code {code}")
        return printed

    async def remove(self) -> None:
        """Stops whatever runs (immediate) and removes the folder. May be called at any time, more than once."""
        if self._reaper:
            await self._reaper.close()

    @property
    def _conf(self) -> Path:
        """Not in the data directory, which is its user's: as root we write nothing where somebody else can."""
        return self.folder / "server.conf"

    @property
    def _owner(self) -> Reaped:
        if self._reaper is None:
            raise DbwatchError("the embedded server was not initialized")
        return self._reaper

    def _write_conf(self) -> None:
        tcp = self._listen == "tcp"
        own = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1" if tcp else "",
            "unix_socket_directories": "" if tcp else self.host,
        }
        quoted = {name: value.replace("'", "''") for name, value in {**self.settings, **own}.items()}
        lines = [f"{name} = '{value}'\n" for name, value in quoted.items()]
        self._conf.write_text(f"include '{self.data / 'postgresql.conf'}'\n" + "".join(lines))

    async def _came_up(self, child: Child, deadline: float) -> bool:
        """Whether *child* says in postmaster.pid that it is ready, as pg_ctl looks there; polled, it is a file."""
        file = self.data / "postmaster.pid"
        while not child.ended.done() and asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                lines = file.read_text().splitlines()
                if lines[:1] == [str(child.pid)] and lines[7:] and lines[7].strip() in ("ready", "standby"):
                    return True
            await asyncio.wait({child.ended}, timeout=0.02)
        return False

    async def _ended(self, within: float) -> None:
        assert self._postmaster is not None
        done, _ = await asyncio.wait({self._postmaster.ended}, timeout=within)
        if not done:
            raise DbwatchError(f"the embedded server did not stop within {within:g} s")


def _copy_binaries(binaries: Binaries, folder: Path) -> Binaries:
    target = folder / "binaries"
    root = binaries.root
    for source in (root, root.with_name(f"{root.name}.libs")):
        if source.is_dir():
            shutil.copytree(source, target / source.name, symlinks=True)
    target.chmod(0o711)
    _give_all(target / root.name, folder / "pg")
    if (libraries := target / f"{root.name}.libs").is_dir():
        _give_all(libraries, folder / "pg")
    return Binaries(target / root.name / binaries.bin.relative_to(root), binaries.major, binaries.version_text)


def _copy_data(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)
    _give_all(target, target.parent)


def _give_all(tree: Path, like: Path) -> None:
    _give(tree, like)
    for path in tree.rglob("*"):
        _give(path, like)


def _give(path: Path, like: Path) -> None:
    """Makes *path* belong to the owner of *like*; it does already unless we are root."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _complaint(printed: str) -> str:
    """The words of a program's output that say why: its last error, or else its last line."""
    lines = [line for line in printed.splitlines() if line.strip()]
    errors = [n for n, line in enumerate(lines) if re.search(r"(FATAL|ERROR|error):", line)]
    last = errors[-1] if errors else len(lines) - 1
    if errors and last > 0 and "contains errors" in lines[last]:
        last -= 1  # a configuration's mistake stands in the line before
    return re.sub(r"^.*?(LOG|FATAL|ERROR|error): +", "", one_line(lines[last], 300)) if lines else ""
