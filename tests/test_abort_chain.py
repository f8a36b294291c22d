"""A chain of which a part cannot go back: down to just above it and no further, foretold and found."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic_projects import USERS, AlembicProject, column, table
from servers import Database
from windows import PATIENCE_S, Shop, abort, begin_abort, driven, end_of_abort, step

from dbwatch.window.abort import ActionKind
from dbwatch.window.intents import RunStep

BARRIERS = {"missing": None, "raises": "raise RuntimeError('one way only')", "noop": "pass"}
COUNTS = 'with op.get_context().autocommit_block():\n    op.execute("UPDATE counter SET n = n + 1")\n'
COLUMN, DROPPED = "op.add_column('users', sa.Column('phone', sa.Text))", "op.drop_column('users', 'phone')"
NOT_NAMED = "op.drop_constraint('named', 'users')"


async def window(db: Database, folder: Path, project: AlembicProject, *targets: str) -> Shop:
    """A runbook of migrate steps to *targets*, on a database with users in it."""
    await db.sql(USERS, "INSERT INTO users VALUES (1, 'ann')")
    steps = "".join(f'[[phase.step]]\nid = "to_{to}"\nkind = "migrate"\nto = "{to}"\n' for to in targets)
    runbook = folder / "runbook.toml"
    runbook.write_text(
        f'title = "a chain"\nalembic = "{project.project.config}"\n[target]\ndsn = "${{SHOP_DSN}}"\n'
        f'lock_timeout = "500ms"\n[[phase]]\nname = "up"\n{steps}'
    )
    return Shop(db, folder, runbook)


async def counted(db: Database, folder: Path, up: str, down: str) -> Shop:
    """A window of one migration, and a table that counts."""
    project = AlembicProject(folder / "project").revision("r1", up, down)
    await db.sql("CREATE TABLE counter (n int)", "INSERT INTO counter VALUES (0)")
    return await window(db, folder, project, "r1")


def tables(db: Database) -> str:
    return "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"


def flavour(folder: Path, db: Database, name: str) -> AlembicProject:
    own = (
        f"postgresql+psycopg://postgres@{db.server.host}:{db.server.port}/{db.name}" if name == "its own URL" else None
    )
    return AlembicProject(
        folder / "project",
        tpm=name in ("a transaction each", "async and noisy"),
        asynchronous=name == "async and noisy",
        noisy=name == "async and noisy",
        url=own,
    )


@pytest.mark.parametrize(
    ("env", "barrier"),
    [
        ("one transaction", "missing"), ("one transaction", "raises"), ("one transaction", "noop"),
        ("a transaction each", "raises"), ("async and noisy", "noop"), ("its own URL", "missing"),
    ],
)  # fmt: skip
async def test_an_abort_stops_just_above_what_cannot_go_back(
    db18: Database, tmp_path: Path, env: str, barrier: str
) -> None:
    project = flavour(tmp_path, db18, env)
    project.revision("r1", *table("below"))
    project.revision("r2", column("phone")[0], BARRIERS[barrier])
    project.revision("r3", *table("above"))
    project.revision("r4", *table("further"))
    shop = await window(db18, tmp_path, project, "r1", "r3", "r4")
    async with driven(shop) as conductor:
        for each in ("to_r1", "to_r3", "to_r4"):
            await step(conductor, each)
        plan = await abort(conductor)
        assert plan.prediction.heads == ("r2",)
        assert "r2" in plan.prediction.stops
        assert [a.heads for a in plan.actions if a.kind is ActionKind.DOWNGRADE] == [("r3",), ("r2",)]
        assert any("not taken back: r2, r1" in line for line in plan.obstacles)
        assert any("alembic stamp r1" in line for line in plan.obstacles)
        assert conductor.state.abort.equal is False
        assert conductor.state.open
    assert await shop.heads() == ["r2"]
    assert await db18.sql(tables(db18)) == [("alembic_version",), ("below",), ("users",)]
    assert await db18.sql("SELECT 1 FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'phone'")


async def test_a_step_that_failed_half_way_and_was_run_again_goes_back_whole(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "project", tpm=True)
    project.revision("r1", *table("below"))
    project.revision("r2", "op.create_check_constraint('named', 'users', \"name <> 'ann'\")", NOT_NAMED)
    project.revision("r3", *column("phone"))
    shop = await window(db18, tmp_path, project, "r3")
    async with driven(shop) as conductor:
        assert (await conductor.submit(RunStep("to_r3"))).taken
        await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
        assert await shop.heads() == ["r1"]
        await db18.sql("UPDATE users SET name = 'bob'")
        await step(conductor, "to_r3")
        plan = await abort(conductor)
        assert [a.heads for a in plan.actions if a.kind is ActionKind.DOWNGRADE] == [()]
        assert conductor.state.abort.equal, conductor.state.abort.differences
    assert await db18.sql(tables(db18)) == [("users",)]


async def test_a_downgrade_that_would_fail_is_seen_before_it_is_tried(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "project")
    project.revision("r1", *table("firms"))
    project.revision("r2", "op.add_column('users', sa.Column('firm', sa.Integer, sa.ForeignKey('firms.id')))", "pass")
    (project.versions / "r2_.py").write_text(
        (project.versions / "r2_.py").read_text().replace("    pass", "    op.drop_table('firms')")
    )
    shop = await window(db18, tmp_path, project, "r2")
    async with driven(shop) as conductor:
        await step(conductor, "to_r2")
        plan = await abort(conductor)
        assert (
            "would fail: constraint public.users.users_firm_fkey depends on table public.firms" in plan.prediction.stops
        )
        assert not any(action.kind is ActionKind.DOWNGRADE for action in plan.actions)
    assert await shop.heads() == ["r2"]


async def test_doing_nothing_is_right_after_a_merge_and_after_an_upgrade_of_data(
    db18: Database, tmp_path: Path
) -> None:
    project = AlembicProject(tmp_path / "project")
    project.revision("a1", *table("a"), after=())
    project.revision("b1", *table("b"), after=())
    project.revision("m1", "pass", "pass", after=("a1", "b1"))
    project.revision("d1", "op.execute(\"UPDATE users SET name = 'bob'\")", "pass")
    project.revision("c1", *column("phone"))
    shop = await window(db18, tmp_path, project, "c1")
    async with driven(shop) as conductor:
        await step(conductor, "to_c1")
        plan = await abort(conductor)
        assert plan.prediction.heads == ()
        assert plan.prediction.equal
        assert any(lost.startswith("d1: its downgrade does nothing") for lost in plan.lost)
        assert conductor.state.abort.equal, conductor.state.abort.differences
    assert await db18.sql(tables(db18)) == [("users",)]


async def test_several_heads_go_back_to_the_set_that_they_were(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "project", tpm=True)
    project.revision("a1", *table("a"), after=())
    project.revision("b1", *table("b"), after=())
    project.revision("a2", *table("a2"), after="a1")
    project.revision("b2", column("phone")[0], "pass", after="b1")
    project.revision("b3", *table("b3"), after="b2")
    shop = await window(db18, tmp_path, project, "heads")
    async with driven(shop) as conductor:
        await step(conductor, "to_heads")
        plan = await abort(conductor)
        assert "b2" in plan.prediction.heads
        assert "above b2: its downgrade does nothing" in plan.prediction.stops
    assert tuple(await shop.heads()) == plan.prediction.heads


async def test_what_a_downgrade_leaves_behind_is_foretold_and_removed(db18: Database, tmp_path: Path) -> None:
    up = (
        "op.execute(\"CREATE TYPE mood AS ENUM ('good', 'bad')\")\n"
        "op.add_column('users', sa.Column('mood', sa.Enum('good', 'bad', name='mood', create_type=False)))"
    )
    project = AlembicProject(tmp_path / "project").revision("r1", up, column("mood")[1])
    shop = await window(db18, tmp_path, project, "r1")
    async with driven(shop) as conductor:
        await step(conductor, "to_r1")
        plan = await abort(conductor)
        assert 'DROP TYPE "public"."mood"' in plan.actions[-1].sql
        assert conductor.state.abort.equal, conductor.state.abort.differences


async def test_what_a_downgrade_makes_in_another_way_is_foretold(db18: Database, tmp_path: Path) -> None:
    await db18.sql("CREATE TABLE orders (id int, note varchar(20) DEFAULT 'x')", "CREATE UNIQUE INDEX o ON orders (id)")
    up = "op.drop_index('o', 'orders')\nop.alter_column('orders', 'note', type_=sa.Text)"
    down = "op.create_index('o', 'orders', ['id'])\nop.alter_column('orders', 'note', type_=sa.String(30))"
    project = AlembicProject(tmp_path / "project").revision("r1", up, down)
    shop = await window(db18, tmp_path, project, "r1")
    async with driven(shop) as conductor:
        await step(conductor, "to_r1")
        plan = await abort(conductor)
        assert plan.prediction.left == ("column public.orders.note", "index public.o")
        assert not plan.prediction.equal


async def test_rows_that_a_downgrade_committed_by_themselves_are_written_again_only_if_a_person_wants_that(
    db18: Database, tmp_path: Path
) -> None:
    shop = await counted(db18, tmp_path, COLUMN, COUNTS + DROPPED)
    async with driven(shop) as conductor:
        await step(conductor, "to_r1")
        report = await db18.foreign("reports", autocommit=False)
        await report.execute("SELECT FROM users")
        await begin_abort(conductor)
        await end_of_abort(conductor)
        [said] = conductor.state.abort.differences
        assert "UPDATE counter SET n = n + 1 commits by itself, and may have taken effect" in said
        assert await db18.sql("SELECT n FROM counter") == [(1,)]
        await report.rollback()
        await abort(conductor)
        assert conductor.state.abort.equal
    assert await db18.sql("SELECT n FROM counter") == [(2,)]
