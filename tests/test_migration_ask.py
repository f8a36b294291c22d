"""Asking an Alembic project: its chain and its SQL, and one sentence for each way in which it can be broken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from alembic_projects import INDEX_CONCURRENTLY, AlembicProject, column, table
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from servers import Database
from sqlalchemy import create_engine, make_url

from dbwatch.clock import SystemClock
from dbwatch.errors import Exit
from dbwatch.migration.chain import Body, classify
from dbwatch.migration.events import Cause, Direction
from dbwatch.migration.fingerprint import diff, take
from dbwatch.migration.forked import spawn
from dbwatch.migration.project import url
from dbwatch.migration.request import Project
from dbwatch.migration.runner import MigrationError, inspect, preview
from dbwatch.postgres.session import Connector

CLOCK = SystemClock()
UP, DOWN = Direction.UP, Direction.DOWN


@pytest.mark.parametrize(
    ("source", "body"),
    [
        ("def downgrade():\n    op.drop_table('a')", Body.BODY),
        ("x = 1", Body.MISSING),
        ("def downgrade():\n    pass", Body.NOOP),
        ("def downgrade() -> None:\n    '''Nothing.'''\n    ...\n    return None", Body.NOOP),
        ("def downgrade():\n    import os\n    # only a comment\n    pass", Body.NOOP),
        ("def downgrade():\n    raise NotImplementedError('no way back')", Body.RAISES),
        ("def downgrade():\n    op.drop_table('a')\n    raise Exception", Body.RAISES),
        ("def downgrade():\n    if x:\n        raise Exception", Body.BODY),
        ("from elsewhere import downgrade", Body.UNKNOWN),
        ("downgrade = other", Body.UNKNOWN),
        ("async def downgrade():\n    pass", Body.UNKNOWN),
        ("if True:\n    def downgrade():\n        pass", Body.UNKNOWN),
    ],
)
def test_a_downgrade_is_what_its_source_says(source: str, body: Body) -> None:
    assert classify(source, "downgrade") is body


async def test_no_password_is_in_what_a_revision_renders_nor_in_what_it_stumbles_over(
    db18: Database, tmp_path: Path
) -> None:
    project = AlembicProject(tmp_path / "shop").revision(
        "r1",
        """
        from alembic import context
        password = sa.make_url(context.config.get_main_option("sqlalchemy.url")).password
        op.execute(f"ALTER ROLE app PASSWORD '{password}'")
        raise RuntimeError("with " + password)
        """,
    )
    connector = Connector(make_conninfo(db18.dsn, password="se/cret&ive"))
    [rendered] = await preview(project.project, connector, start=frozenset(), to="heads", direction=UP)
    assert [statement.sql for statement in rendered.statements] == ["ALTER ROLE app PASSWORD '***'"]
    assert "with ***" in rendered.trouble
    assert "cret" not in repr(rendered)


async def test_a_chain_tells_heads_revisions_and_what_their_functions_are(db: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop", tpm=True)
    project.revision("r1", *table("a")).revision("r2", "pass", None).revision("r3", "op.execute('x')", "raise OSError")
    await db.sql("CREATE TABLE alembic_version (version_num varchar(32))", "INSERT INTO alembic_version VALUES ('r1')")
    before = await take(db.connector, CLOCK)
    chain = await inspect(project.project, db.connector)
    assert [(one.id, one.down, one.doc, one.upgrade, one.downgrade) for one in chain.revisions] == [
        ("r1", (), "The revision r1.", Body.BODY, Body.BODY),
        ("r2", ("r1",), "The revision r2.", Body.NOOP, Body.MISSING),
        ("r3", ("r2",), "The revision r3.", Body.BODY, Body.RAISES),
    ]
    assert (chain.heads, chain.current, chain.steps) == (frozenset({"r3"}), frozenset({"r1"}), ("r2", "r3"))
    assert (chain.version_schema, chain.version_table) == ("public", "alembic_version")
    assert chain.transaction_per_migration
    assert not chain.trouble
    assert diff(before, await take(db.connector, CLOCK)) == ()


async def test_asking_leaves_nothing_behind_even_where_env_writes(db: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", *table("a"))
    env = (project.folder / "migrations" / "env.py").read_text()
    project.env = env.replace(
        "        run(connection)\n",
        "        connection.execute(text('CREATE SCHEMA made'))\n        connection.commit(); run(connection)\n",
    )
    project.write_env()
    before = await take(db.connector, CLOCK)
    chain = await inspect(project.project, db.connector)
    assert chain.steps == ("r1",)
    assert diff(before, await take(db.connector, CLOCK)) == ()


async def test_branches_have_a_set_of_heads_and_an_ambiguous_target_says_so(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("a1").revision("a2").revision("b1", after="a1")
    chain = await inspect(project.project, db18.connector, to="head")
    assert chain.heads == frozenset({"a2", "b1"})
    assert chain.steps == ()
    assert "Multiple head" in chain.trouble
    assert set((await inspect(project.project, db18.connector, to="heads")).steps) == {"a1", "a2", "b1"}
    assert (await inspect(project.project, db18.connector, to=frozenset({"b1"}))).steps == ("a1", "b1")


async def test_a_target_that_is_unknown_or_not_on_the_way_says_so(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1").revision("r2", "pass", None)
    assert "nowhere" in (await inspect(project.project, db18.connector, to="nowhere")).trouble
    assert "nowhere" in (await inspect(project.project, db18.connector, to=frozenset({"nowhere"}))).trouble
    down = await inspect(project.project, db18.connector, to=frozenset({"r1"}), direction=DOWN)
    assert "cannot downgrade to r1: the database is not there yet" in down.trouble
    await db18.sql("CREATE TABLE alembic_version (version_num text)", "INSERT INTO alembic_version VALUES ('r2')")
    for to in ("r1", frozenset({"r1"})):
        assert "has no downgrade()" in (await inspect(project.project, db18.connector, to=to, direction=DOWN)).trouble
    await db18.sql("UPDATE alembic_version SET version_num = 'of another branch'")
    assert "of another branch" in (await inspect(project.project, db18.connector)).trouble


async def test_a_preview_shows_each_revision_and_one_that_fails_does_not_hide_the_rest(
    db: Database, tmp_path: Path
) -> None:
    project = AlembicProject(tmp_path / "shop", noisy=True).revision("r0", *table("before"))
    project.revision("r1", *column("a"))
    project.revision(
        "r2",
        """
        op.execute("CREATE TABLE early (a int)")
        print("noise")
        for row in op.get_bind().execute(sa.text("SELECT 1")):
            pass
        """,
        None,
    )
    project.revision("r3", INDEX_CONCURRENTLY).revision("r4", "op.execute('DO $$ BEGIN END $$')")
    project.revision("r5", "op.execute('CREATE GIBBERISH')").revision("r6", "import sys\nsys.exit(3)")
    project.revision("r7", "op.get_bind().execute(sa.text('SELECT a FROM nowhere')).fetchall()", None)
    shown = await preview(project.project, db.connector, start=frozenset({"r0"}), to="heads", direction=UP)
    found = {one.revision: one for one in shown}
    assert list(found) == ["r1", "r2", "r3", "r4", "r5", "r6", "r7"]
    assert [statement.sql for statement in found["r1"].statements] == ["ALTER TABLE users ADD COLUMN a TEXT"]
    assert found["r1"].known
    assert [statement.sql for statement in found["r2"].statements] == ["CREATE TABLE early (a int)"]
    assert found["r2"].known, "what reads before it acts is rendered by asking the database"
    assert "NoneType" in found["r7"].trouble
    assert "r7_.py line" in found["r7"].trouble
    assert not found["r7"].known
    assert [statement.sql for statement in found["r3"].statements] == [
        "ALTER TABLE users ADD COLUMN phone TEXT",
        "CREATE INDEX CONCURRENTLY users_phone ON users (phone)",
    ]
    assert found["r3"].known
    assert not found["r4"].known
    assert not found["r5"].known
    assert "exit()" in found["r6"].trouble
    down = await preview(project.project, db.connector, start=frozenset({"r3"}), to=frozenset({"r0"}), direction=DOWN)
    assert [(one.revision, one.trouble) for one in down] == [
        ("r3", ""),
        ("r2", "revision r2 has no downgrade()"),
        ("r1", ""),
    ]
    assert not await db.sql("SELECT 1 FROM pg_class WHERE relname IN ('alembic_version', 'early')")


async def test_a_preview_keeps_its_lines_and_loses_its_teeth(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop")
    project.revision("r1", 'op.execute("SELECT 1,\\n\\t2 -- \\x1b[2J\\u202e")')
    [shown] = await preview(project.project, db18.connector, start=frozenset(), to="heads", direction=UP)
    assert [statement.sql for statement in shown.statements] == ["SELECT 1,\n    2 -- ␛[2J·"]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("no ini", "there is no"),
        ("no script_location", "No 'script_location' key found"),
        ("no env", "env.py"),
        ("env import", "migrations/env.py line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("env syntax", "env.py line 2: SyntaxError"),
        ("env exit", "exit()"),
        ("env idle", "never called"),
        ("revision syntax", "r1_.py line"),
        ("no parent", "r0"),
        ("cannot connect", "failed"),
    ],
)
async def test_what_is_broken_is_told_in_one_sentence(
    db18: Database, tmp_path: Path, broken: str, sentence: str
) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", *table("a"))
    env, ini = project.folder / "migrations" / "env.py", project.folder / "alembic.ini"
    match broken:
        case "no ini":
            ini.unlink()
        case "no script_location":
            ini.write_text("[alembic]\n")
        case "no env":
            env.unlink()
        case "env import":
            env.write_text("import nowhere\n")
        case "env syntax":
            env.write_text("\ndef\n")
        case "env exit":
            env.write_text("raise SystemExit(3)\n")
        case "env idle":
            env.write_text("\n")
        case "revision syntax":
            (project.versions / "r1_.py").write_text("revision = \n")
        case "no parent":
            project.revision("r2", after="r0")
        case "cannot connect":
            project.url = "postgresql+psycopg://postgres@127.0.0.1:1/postgres"
            project.write_env()
    with pytest.raises(MigrationError) as caught:
        await inspect(project.project, db18.connector)
    said = str(caught.value)
    assert sentence in said
    assert "\n" not in said
    assert "Traceback" not in said
    assert caught.value.exit_code in (Exit.USAGE, Exit.FAILED)
    lost = (Cause.DATABASE, "08001") if broken == "cannot connect" else (Cause.CONFIG, None)
    assert (caught.value.failure.cause, caught.value.failure.sqlstate) == lost


async def test_an_env_that_hangs_is_given_up_and_ended(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop", env="import time\ntime.sleep(600)")
    started: list[int] = []

    async def watched(fd: int) -> object:
        process = await spawn(fd)
        started.append(process.pid)
        return process

    with pytest.raises(MigrationError, match="did not answer within 1 s"):
        await inspect(project.project, db18.connector, within=1.0, spawn=watched)  # type: ignore[arg-type]
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


async def test_a_project_may_be_configured_in_pyproject_and_shadow_the_library(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", *table("a"))
    (project.folder / "pyproject.toml").write_text('[tool.alembic]\nscript_location = "%(here)s/migrations"\n')
    for name in ("alembic", "psycopg"):
        (project.folder / name).mkdir()
        (project.folder / name / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    (project.folder / "logging.py").write_text("raise RuntimeError('the wrong one')")
    chain = await inspect(Project(project.folder / "pyproject.toml"), db18.connector)
    assert chain.steps == ("r1",)


async def test_x_arguments_reach_env(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1")
    env = (project.folder / "migrations" / "env.py").read_text()
    project.env = env.replace(
        "config = context.config",
        "config = context.config\nassert context.get_x_argument(as_dictionary=True)['tenant'] == 'a'",
    )
    project.write_env()
    with pytest.raises(MigrationError, match="KeyError"):
        await inspect(project.project, db18.connector)
    assert await inspect(Project(project.project.config, x=("tenant=a",)), db18.connector)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db port=5433 user=me password='p@ss %25 w:/ord' dbname=shop",
        "service=shop",
        "postgresql://me@h1:1,h2:2/shop?sslmode=require",
        "host=/run/pg port=5433 dbname=shop",
        "postgresql://u:p@[::1]:5433/x",
        "host=db hostaddr=10.0.0.4 options='-c x=y'",
        "",
    ],
)
def test_a_libpq_connection_string_reaches_psycopg_through_alembic_as_it_was(dsn: str) -> None:
    again = make_url(url(dsn).render_as_string(hide_password=False))
    _, arguments = create_engine(again).dialect.create_connect_args(again)
    assert {name: str(value) for name, value in arguments.items() if name != "context"} == conninfo_to_dict(dsn)


def test_one_port_serves_all_hosts() -> None:
    assert url("host=h1,h2 port=5433").query["port"] == "5433,5433"
