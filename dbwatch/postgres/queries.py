"""SQL by name and version: `sql/activity.sql` serves all majors, `sql/statements-17.sql` those from 17 on."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def query(name: str, server_version: int) -> bytes:
    """The text of query *name* for a server of *server_version* (server_version_num, 150018 is 15.18).

    The file `NAME-MAJOR.sql` with the highest major not above the server's is taken, else `NAME.sql`.
    Raises LookupError where no file serves this version.
    """
    folder = files("dbwatch.postgres") / "sql"
    for major in range(server_version // 10_000, 12, -1):
        file = folder / f"{name}-{major}.sql"
        if file.is_file():
            return file.read_bytes()
    file = folder / f"{name}.sql"
    if file.is_file():
        return file.read_bytes()
    raise LookupError(f"no {name}.sql for server version {server_version}")
