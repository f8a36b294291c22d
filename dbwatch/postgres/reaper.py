"""A process that owns an embedded server's processes and files, and outlives nobody.

Run as `python -P -m dbwatch.postgres.reaper PARENT [USER]`, in a session of its own. It makes a folder in PARENT,
starts what it is asked to start (as USER, if it is root), and when its standard input ends, for whatever reason
(exit, a signal, a crash, kill -9 of whoever holds the other end), it stops everything it started and removes the
folder. Being the parent of the processes, it is never wrong about a pid. reaped.py is the other side.

The conversation is one JSON value a line. In: `{"spawn": argv, "log": file}`, `{"signal": number, "pid": pid}`,
`{"crash": pid}` (kill -9 of a server, its backends too). Out: `{"folder": path}` or `{"failed": why}` first, then an
answer to each request, in order: `{"spawned": pid}` or `{"refused": why}` to a spawn, `{"done": true}` to the others.
In between, `{"ended": pid, "code": code}` as processes end (a negative code is a signal's number).

Only the standard library is imported: it should start fast and stay small.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STOP_S = 7.0
"""How long an immediate shutdown may take; the postmaster itself kills its children after 5 s."""


class Reaper:
    """The processes started for one client, and the folder that they share."""

    def __init__(self, parent: Path, user: str | None) -> None:
        self._account = pwd.getpwnam(user) if user else None
        self.folder = Path(tempfile.mkdtemp(prefix="dbwatch-", dir=parent))
        self._work = self.folder / "pg"
        self._work.mkdir(mode=0o700)
        if self._account:
            self.folder.chmod(0o711)
            os.chown(self._work, self._account.pw_uid, self._account.pw_gid)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def serve(self) -> None:
        """Answers requests until standard input ends, then cleans up."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        try:
            _say({"folder": str(self.folder)})
            waiting = b""
            while True:
                ready, _, _ = select.select([0, woken], [], [])
                if woken in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(woken, 4096)
                    self._report()
                if 0 in ready:
                    read = os.read(0, 65536)
                    if not read:
                        return
                    *lines, waiting = (waiting + read).split(b"\n")
                    for line in lines:
                        self._obey(json.loads(line))
        finally:
            self._clean_up()

    def _obey(self, request: dict[str, Any]) -> None:
        if "spawn" in request:
            self._spawn(request["spawn"], request["log"])
            return
        if "crash" in request:
            self._crash(request["crash"])
        elif request["pid"] in self._children:
            self._children[request["pid"]].send_signal(request["signal"])
        _say({"done": True})

    def _crash(self, pid: int) -> None:
        if pid in self._children:
            self._children[pid].kill()
            self._children[pid].wait()
            self._kill_orphans(until=time.monotonic() + STOP_S)

    def _spawn(self, argv: list[str], log: str) -> None:
        as_user: dict[str, Any] = {}
        if self._account:
            as_user = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        try:
            with Path(log).open("ab") as output:
                child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._work,
                    env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": str(self._work)},
                    start_new_session=True,
                    umask=0o077,
                    **as_user,
                )
        except (OSError, subprocess.SubprocessError) as error:
            _say({"refused": str(error)})
            return
        self._children[child.pid] = child
        _say({"spawned": child.pid})

    def _report(self) -> None:
        for pid, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                del self._children[pid]
                _say({"ended": pid, "code": code})

    def _clean_up(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGCONT)
            child.send_signal(signal.SIGQUIT)
        deadline = time.monotonic() + STOP_S
        for child in self._children.values():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        deadline = time.monotonic() + STOP_S
        self._kill_orphans(until=deadline)
        while self.folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(self.folder, ignore_errors=True)
            time.sleep(0.01)

    def _kill_orphans(self, *, until: float) -> None:
        while (orphans := self._orphans()) and time.monotonic() < until:
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _orphans(self) -> list[int]:
        """Server processes that outlived their postmaster: a stopped or busy backend does, after its kill -9.

        Known by their executable's name and their working directory, which is the data directory. Linux only;
        elsewhere they end by themselves as soon as they look for their postmaster.
        """
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                program = (entry / "exe").readlink().name.removesuffix(" (deleted)")
                if program in ("postgres", "initdb") and self._work in (
                    (at := (entry / "cwd").readlink()),
                    *at.parents,
                ):
                    found.append(int(entry.name))
        return found


def _say(message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


def main(argv: list[str]) -> None:
    """Serves whoever holds our standard input. Signals are not ours to obey; that input's end is.

    They are handled, not ignored: what is ignored stays so in every program that we start.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, lambda *_: None)
    try:
        reaper = Reaper(Path(argv[0]), argv[1] if len(argv) > 1 else None)
    except (OSError, KeyError) as error:
        _say({"failed": str(error)})
    else:
        reaper.serve()


if __name__ == "__main__":
    main(sys.argv[1:])
