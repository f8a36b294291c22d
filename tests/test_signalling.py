"""A signal whose answer does not come back: it was sent, and that is what a person is told and what is journalled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from proxy import FaultProxy
from servers import Database
from windows import driven, small_shop

from dbwatch.clock import SystemClock
from dbwatch.journal import events as ev
from dbwatch.journal.words import sentence
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.session import Connector, Role
from dbwatch.window.intents import Signal
from dbwatch.window.watching import Watch

LOST, SILENT = "the control connection was lost", "no answer on the control connection within 3 s"
FAULTS = {LOST: FaultProxy.drop_answer_to, SILENT: FaultProxy.stall_at}


async def terminate(victim: psycopg.AsyncConnection[Any]) -> Signal:
    """The wish to end the session of *victim*, as it was shown."""
    asked = await victim.execute("SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    [(start,)] = await asked.fetchall()
    return Signal(victim.info.backend_pid, start, None, "reports", "SELECT 1", terminate=True)


def told(signal: Signal, why: str) -> str:
    asked = f"the terminate of session {signal.pid} was sent, its outcome is not known"
    return f"{asked} ({why}): look at the sessions"


@pytest.mark.parametrize("why", FAULTS)
async def test_a_signal_whose_answer_is_lost_is_told_as_sent_and_journalled(
    db18: Database, tmp_path: Path, proxy_to: FaultProxy.Factory, why: str
) -> None:
    shop, proxy = await small_shop(db18, tmp_path), await proxy_to(db18.dsn)
    wish = await terminate(await db18.foreign("reports"))
    async with driven(shop) as conductor:
        await conductor.ground.control.close()
        conductor.ground.control = Kept(Connector(proxy.dsn), Role.CONTROL)
        FAULTS[why](proxy, b"pg_terminate_backend")
        answer = await conductor.submit(wish)
        assert (answer.taken, answer.text) == (False, told(wish, why))
        [fact] = [e.fact for e in conductor.events if isinstance(e.fact, ev.SessionSignalled)]
        assert (fact.act, fact.pid, fact.result) == ("terminate", wish.pid, answer.text)
        assert sentence(fact) == f"terminate {wish.pid} (reports): {answer.text}; it ran SELECT 1"


async def test_without_a_window_a_signal_whose_answer_is_lost_is_told_as_sent(
    db18: Database, proxy_to: FaultProxy.Factory
) -> None:
    proxy, victim = await proxy_to(db18.dsn), await db18.foreign("reports")
    wish = await terminate(victim)
    watch = await Watch.begin(Connector(proxy.dsn), SystemClock())
    proxy.drop_answer_to(b"pg_terminate_backend")
    answer = await watch.submit(wish)
    await watch.close()
    assert (answer.taken, answer.text) == (False, told(wish, LOST))
    with pytest.raises(psycopg.OperationalError):
        await victim.execute("SELECT 1")


async def test_where_no_signal_was_sent_a_lost_answer_is_told_as_not_done(
    db18: Database, proxy_to: FaultProxy.Factory
) -> None:
    proxy, victim = await proxy_to(db18.dsn), await db18.foreign("reports")
    watch = await Watch.begin(Connector(proxy.dsn), SystemClock())
    proxy.drop_next_answer()
    answer = await watch.submit(Signal(victim.info.backend_pid, None, None, "reports", "", terminate=True))
    await watch.close()
    assert answer.text.startswith(f"not done: {LOST}")
    await victim.execute("SELECT 1")
