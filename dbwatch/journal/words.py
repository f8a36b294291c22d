"""What an event says, in one plain sentence. Pure."""

from __future__ import annotations

from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.text import clock

REQUESTS = {
    "pause": "pause {step}", "resume": "let {step} go on", "stop": "stop our own work", "abort": "take it all back",
    "backfill": "pause the backfill, or let it go on",
}  # fmt: skip
"""What a navigator may ask of the driver; the last one only older versions do."""


def sentence(fact: ev.Fact) -> str:
    """What *fact* says, in one plain sentence."""
    match fact:
        case ev.WindowOpened():
            heads = ", ".join(fact.heads) or "no revision"
            return f"window opened on {fact.database} at {heads}: {fact.title}"
        case ev.DriverTook():
            return f"{fact.driver} took the wheel: {fact.reason}"
        case ev.RunbookAmended():
            return f"the runbook was changed: {fact.difference}"
        case ev.StepStarted():
            return f"{fact.step} started" + (f", attempt {fact.attempt}" if fact.attempt > 1 else "")
        case ev.StepDone():
            return f"{fact.step} done in {clock(fact.seconds)}" + (f": {fact.result}" if fact.result else "")
        case ev.StepFailed():
            verb = "was stopped" if fact.stopped else "failed"
            again = "" if fact.again else "; running it again is not safe"
            return f"{fact.step} {verb} after {clock(fact.seconds)}: {fact.error}{again}"
        case ev.StepUnknown():
            return f"{fact.step}: nobody knows how it ended: {fact.reason}"
        case ev.StepNoted():
            return f"{fact.step}: {fact.text}"
        case ev.BackfillCertified():
            return f"{fact.step} certified: {fact.says}"
        case ev.DdlSeen():
            where = f"{fact.step} {fact.revision}".strip()
            return f"{where}: {'done' if fact.done else 'sent'}{', commits by itself' * fact.autocommit}: {fact.sql}"
        case ev.Noted():
            return fact.text
        case ev.SentAlone():
            return f"{fact.step} sends what commits by itself: {fact.sql}"
        case ev.Marked():
            return f"mark: {fact.text}"
        case ev.ConfirmationAsked():
            return f"{fact.step} waits for a second person's word: {fact.why}"
        case ev.ConfirmationGiven():
            return f"{fact.step} confirmed"
        case ev.ConfirmationRefused():
            return f"{fact.step} not confirmed: {fact.why}"
        case ev.Requested():
            asked = REQUESTS[fact.act].format(step=fact.step) if fact.act in REQUESTS else fact.act
            return f"asks the driver: {asked}"
        case ev.RequestAnswered():
            return f"{'done' if fact.taken else 'not done'}: {fact.text}"
        case ev.SessionSignalled():
            return f"{fact.act} {fact.pid} ({fact.who}): {fact.result}; it ran {fact.query}"
        case ev.WorkStopped():
            return f"our work was stopped: {fact.what}"
        case ev.AbortConfirmed():
            by = f" by {fact.asked_by}" if fact.asked_by else ""
            return f"abort confirmed{by}: {len(fact.actions)} actions, about {clock(fact.estimate_s)}"
        case ev.AbortActionStarted():
            return f"abort {fact.number} started"
        case ev.AbortActionNoted():
            return f"abort {fact.number}: {fact.text}"
        case ev.AbortActionDone():
            return f"abort {fact.number} done in {clock(fact.seconds)}" + (f": {fact.result}" if fact.result else "")
        case ev.AbortActionFailed():
            return f"abort {fact.number} failed after {clock(fact.seconds)}: {fact.error}"
        case ev.AbortFinished():
            wrong = f"; the plan was wrong: {'; '.join(fact.missed)}" if fact.missed else ""
            if fact.equal:
                return f"back in {clock(fact.seconds)}: the schema equals the one at the opening{wrong}"
            return f"abort over after {clock(fact.seconds)}, the schema differs: {'; '.join(fact.differences)}{wrong}"
        case ev.JournalRewound():
            return f"the journal was rewound: the mirror knows {fact.mirror_seq} events, the database {fact.table_seq}"
        case ev.JournalBroken():
            return f"the journal was edited: event {fact.seq} does not follow from the one before it"
        case ev.WindowClosed():
            return f"window closed: {fact.outcome}"
        case ev.Foreign():
            return f"{fact.name}: {fact.body} (written by another version)"
        case _:
            return chain.encode(fact)
