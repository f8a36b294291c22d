"""A person's step: dbwatch shows its text and takes the signature; there is nothing to run."""

from __future__ import annotations

from dbwatch.runbook.model import Manual
from dbwatch.steps.step import Failed, Kit, Outcome

_WHOSE = "a person's step is signed off, not run"


async def run(spec: Manual, kit: Kit) -> Outcome:
    """Refuses: the conductor takes the signature."""
    del spec, kit
    return Failed(_WHOSE, again=True)


recover = run
