"""A journal that went back under its driver, as after a failover to a standby that had not everything."""

from __future__ import annotations

from pathlib import Path

from servers import Database
from windows import abort, driven, rewind, small_shop, step, steps_before, until

from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus
from dbwatch.window.conductor import Conductor


def last(conductor: Conductor, kind: type[ev.Fact]) -> int:
    """The seq of the last event of that kind."""
    return next(e.seq for e in reversed(conductor.events) if isinstance(e.fact, kind))


async def test_a_migration_whose_end_was_lost_is_asked_after_and_the_window_goes_on(
    db18: Database, tmp_path: Path
) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as conductor:
        await steps_before(conductor, "deploy")
        await rewind(shop.db, last(conductor, ev.StepDone) - 1)
        await until(conductor, lambda c: c.state.rewound and c.state.running is None)
        assert conductor.state.step("add").status is StepStatus.DONE
        await step(conductor, "deploy")
        await abort(conductor)
        assert conductor.state.abort.equal


async def test_a_backfill_whose_end_was_lost_goes_on_where_it_ended(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as conductor:
        await steps_before(conductor, "complete")
        filled = await shop.db.sql("SELECT id, phone, xmin FROM users ORDER BY id")
        await rewind(shop.db, last(conductor, ev.StepDone) - 1)
        await until(conductor, lambda c: c.state.rewound and c.state.running is None)
        assert conductor.state.step("fill").text == "it was cut off while it ran; it goes on from its cursor"
        await step(conductor, "fill")
        assert await shop.db.sql("SELECT id, phone, xmin FROM users ORDER BY id") == filled, "nothing is done twice"


async def test_an_abort_whose_end_was_lost_comes_to_it_again(db18: Database, tmp_path: Path) -> None:
    shop = await small_shop(db18, tmp_path)
    async with driven(shop) as conductor:
        await steps_before(conductor, "deploy")
        await abort(conductor)
        assert not conductor.state.open
        await shop.db.sql("UPDATE dbwatch.window SET closed_at = NULL")
        await rewind(shop.db, last(conductor, ev.AbortFinished) - 1)
        await until(conductor, lambda c: c.state.rewound and not c.state.open)
        assert conductor.state.abort.equal
        assert await shop.heads() == ["9a20"]
