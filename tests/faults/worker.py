"""The process that fills: the command as a person calls it, with a broken engine where one is asked for.

python -m faults.worker backfill DSN --table t ...
"""

from __future__ import annotations

import os

from dbwatch.cli.commands import main
from faults import broken

VERSION = "DBWATCH_FAULTS_VERSION"
"""In its environment: a name of `broken.VERSIONS`."""

if __name__ == "__main__":
    broken.become(os.environ.get(VERSION, ""))
    main()
