"""Whether the certificate that a step requires stands in the moment in which the step is to begin."""

from __future__ import annotations

from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Session
from dbwatch.runbook.model import Step
from dbwatch.text import one_line
from dbwatch.window import gates
from dbwatch.window.ground import Ground


async def shortfall(ground: Ground, step: Step) -> str:
    """Why *step* may not begin for want of the certificate that it requires; empty where it has it, or requires none.

    The event tells how the backfill ended. What it holds in quarantine is asked anew: `dbwatch backfill retry` may have
    filled it since. Raises as `Store.ask` does.
    """
    if step.certificate is None:
        return ""
    state = ground.store.state
    certificate = state.step(step.certificate).certificate
    if certificate is None:
        return gates.uncertified(state, step)
    id = certificate.backfill

    async def stands(session: Session) -> list[tuple[str, int]]:
        rows = await session.values(query("backfill-certified", session.server_version), {"id": id})
        return [(one_line(status, 20), held) for status, held in rows]

    [(status, held)] = await ground.store.ask(stands) or [("gone", 0)]
    return gates.uncertified(state, step, status, held)
