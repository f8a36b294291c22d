"""Doors to the backfills that the journal knows: `backfill status`, `retry`, `pause` and `resume`."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import asdict

from dbwatch.backfill import giving, known, quarantine, retrying
from dbwatch.backfill.known import Known
from dbwatch.backfill.orders import Act
from dbwatch.backfill.quarantine import Held
from dbwatch.backfill.retrying import Retried
from dbwatch.cli import actor
from dbwatch.cli.output import say
from dbwatch.clock import SystemClock
from dbwatch.errors import Exit
from dbwatch.postgres.session import Connector, Role


def status(dsn: str, *, as_json: bool, with_quarantine: bool) -> int:
    """Prints every backfill, the newest first. Raises CannotConnect, and Refused where the role may not read them."""
    found, held = asyncio.run(_look(Connector(dsn), with_quarantine))
    by_id: dict[int, list[Held]] = defaultdict(list)
    for one in held:
        by_id[one.id].append(one)
    if as_json:
        told = [
            {**one.to_json(), **({"quarantine": [asdict(h.poison) for h in by_id[one.id]]} if with_quarantine else {})}
            for one in found
        ]
        say(json.dumps({"backfills": told}))  # as ASCII: a key in it is the row's own, and not harmless
    elif found:
        say("\n".join(known.lines(found, {id: quarantine.lines(rows) for id, rows in by_id.items()})))
    else:
        say("no backfill was ever run here")
    return Exit.OK


async def _look(connector: Connector, with_quarantine: bool) -> tuple[tuple[Known, ...], tuple[Held, ...]]:
    session = await connector.open(Role.JOURNAL)
    try:
        found = await known.backfills(session)
        return found, await quarantine.listed(session) if found and with_quarantine else ()
    finally:
        await session.close()


def retry(dsn: str, *, id: int, key: str, as_json: bool) -> int:
    """Tries rows in quarantine again; FAILED where one is still there.

    Raises DbwatchError where nothing can be tried.
    """
    result = asyncio.run(retrying.retry(Connector(dsn), id, quarantine.canonical(key) if key else None))
    say(json.dumps(asdict(result)) if as_json else "\n".join(retried_lines(result)))
    return Exit.FAILED if result.left else Exit.OK


def order(dsn: str, act: Act, *, id: int | None, named: str, why: str) -> int:
    """Has a backfill that runs elsewhere pause or go on. Raises DbwatchError where none does."""
    given = giving.give(Connector(dsn), SystemClock(), act, id=id, by=actor.who(named), why=why)
    say(asyncio.run(given))
    return Exit.OK


def retried_lines(result: Retried) -> list[str]:
    """What became of them, for a person. Pure."""
    back = f"{result.handed_back:,} changed since and left to the backfill, which is not done, "
    return [
        f"{quarantine.told(result.filled)} filled, {result.healed:,} needed nothing any more, "
        f"{back if result.handed_back else ''}{len(result.left):,} still in quarantine",
        *quarantine.lines(Held(0, poison) for poison in result.left),
    ]
