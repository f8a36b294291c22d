"""Every command by its name. Each imports what it needs when it is called."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from dbwatch import __version__
from dbwatch.cli.edge import carried_out
from dbwatch.errors import UsageError

app = App(
    name="dbwatch",
    help="Mission control for PostgreSQL migration windows, in a terminal."
    " With --debug an error comes with its traceback.",
    version=__version__,
    suppress_keyboard_interrupt=False,  # the edge turns it into its exit code
)

Dsn = Annotated[
    str,
    Parameter(help="Conninfo or URI, as for psql; without it PG* variables, service and password files."),
]
As = Annotated[str, Parameter(name="--as", help="Who you are, for the journal; else DBWATCH_ACTOR, else the login.")]
Journal = Annotated[
    Path | None, Parameter(name="--state-dir", help="Where the journal's mirror lies; else the XDG state folder.")
]


@app.default
def watch(dsn: Dsn = "", /) -> int:
    """Watches a server: activity, locks, statements, indexes. Needs no schema, writes nothing; only C and K act."""
    from dbwatch.cli import watch as door

    return door.main(dsn)


app.command(watch, name="watch")


@app.command
def run(
    runbook: Path,
    /,
    *,
    headless: bool = False,
    sign: Annotated[list[str] | None, Parameter(help="With --headless: sign a person's step off, STEP=NOTE.")] = None,
    confirm: Annotated[str, Parameter(help="With --headless: the database's name, for a step that asks for it.")] = "",
    amend: bool = False,
    take_over: Annotated[str, Parameter(help="Take the wheel from a driver that is alive, for this reason.")] = "",
    actor: As = "",
    state_dir: Journal = None,
) -> int:
    """Opens the window of a runbook, or rejoins it where it stands.

    Parameters
    ----------
    runbook
        The TOML file.
    headless
        Run the automatic steps without a screen; ends at the first step that a person has to do.
    amend
        The runbook was edited since its window opened: take it as it is now.
    """
    if headless:
        from dbwatch.cli import headless as without

        return without.main(
            runbook,
            signatures=sign or [],
            confirm=confirm,
            amend=amend,
            take_over=take_over,
            actor=actor,
            folder=state_dir,
        )
    if sign or confirm:
        raise UsageError("--sign and --confirm need --headless", next="on the screen, sign off and confirm by its keys")
    from dbwatch.cli import run as door

    return door.main(runbook, amend=amend, take_over=take_over, actor=actor, folder=state_dir)


@app.command
def attach(
    dsn: Dsn = "",
    /,
    *,
    runbook: Annotated[
        Path | None, Parameter(help="The runbook on this machine: needed only to take the wheel for Alembic's steps.")
    ] = None,
    actor: As = "",
    state_dir: Journal = None,
) -> int:
    """Joins the open window as navigator: looks on, confirms, pauses, stops, aborts, or takes the wheel."""
    from dbwatch.cli import attach as door

    return door.main(dsn, runbook=runbook, actor=actor, folder=state_dir)


backfills = App(
    name="backfill",
    usage="Usage: dbwatch backfill [DSN] --table STR --set STR --where STR [OPTIONS]\n       dbwatch backfill COMMAND",
)
app.command(backfills)


@backfills.default
def backfill(
    dsn: Dsn = "",
    /,
    *,
    table: str,
    assignments: Annotated[str, Parameter(name="--set", help="As after SET in an UPDATE.")],
    where: Annotated[str, Parameter(help="As after WHERE: which rows are still to be done.")],
    key: Annotated[
        str | None, Parameter(help="Columns of the unique index that names a row; else the primary key.")
    ] = None,
    mode: Annotated[
        Literal["pending", "once"],
        Parameter(help="pending: SET makes WHERE untrue. once: it stays true, and only the cursor tells what is done."),
    ] = "pending",
    batch_time: Annotated[
        str,
        Parameter(help="What a batch should take; a third of it among others, a quarter while those hardly ever idle."),
    ] = "100ms",
    rows_per_second: Annotated[int | None, Parameter(help="Fill no more than so many.")] = None,
    json: Annotated[bool, Parameter(help="JSON lines though standard error is a terminal.")] = False,
    dry_run: Annotated[bool, Parameter(help="Only show the plan.")] = False,
    try_one: Annotated[
        bool,
        Parameter(
            name="--try",
            help="With --dry-run: carry one batch out and roll it back. Triggers do fire, and sequences do advance.",
        ),
    ] = False,
    again: Annotated[
        bool, Parameter(help="Do it again though it was finished before; in mode once, every row.")
    ] = False,
    workers: Annotated[
        int | None,
        Parameter(
            help="Connections that fill side by side, in mode pending; left out: one, and in stripes a second one while"
            " nobody else works on the server."
        ),
    ] = None,
    walk: Annotated[
        Literal["auto", "keyset", "pages", "stripes"],
        Parameter(help="How to walk the table: plainly by keys or by pages, or in stripes; auto times what can pay."),
    ] = "auto",
    undo: Annotated[bool, Parameter(help="Keep what is overwritten, for --restore.")] = False,
    restore: Annotated[bool, Parameter(help="Bring back what it overwrote with --undo.")] = False,
    quarantine: Annotated[
        int, Parameter(help="How many rows that cannot take their value may be set aside before it ends.")
    ] = 100,
    without: Annotated[
        list[str] | None,
        Parameter(
            help="A health signal not to look at, once for each: blocked, active, latency, lag, slots, wal,"
            " checkpoints, dead, xmin, freeze, deadlocks, conflicts, connections, identity, vacuum, hot.",
            negative=(),
        ),
    ] = None,
    same: Annotated[
        str | None,
        Parameter(help="While old and new are both written: what has to hold for each row that is done, as in WHERE."),
    ] = None,
) -> int:
    """Fills a table in small batches; called again after whatever ended it, it goes on where it stood."""
    _step_back()
    from dbwatch.backfill.spec import Spec
    from dbwatch.backfill.walk import Walk
    from dbwatch.cli import backfill as door
    from dbwatch.text import seconds

    if try_one and not dry_run:
        raise UsageError("--try belongs to --dry-run", next="give both, or leave it out")
    try:
        batch_ms = round(seconds(batch_time) * 1000)
    except ValueError as error:
        raise UsageError("the batch time cannot be read", why=str(error)) from None
    spec = Spec(
        table, assignments, where, key, mode,
        batch_time_ms=batch_ms, rows_per_second=rows_per_second, workers=workers, walk=Walk(walk),
        undo=undo, quarantine=quarantine, without=tuple(without or ()),
        same=same,
    )  # fmt: skip
    return door.main(dsn, spec, as_json=json, dry_run=dry_run, try_one=try_one, again=again, restore=restore)


@backfills.command(name="status")
def backfill_status(
    dsn: Dsn = "",
    /,
    *,
    json: bool = False,
    quarantine: Annotated[bool, Parameter(help="List the rows that each could not fill, and why.")] = False,
) -> int:
    """Every backfill that was run here, the newest first: how far it is, and whether its owner is alive."""
    from dbwatch.cli import backfills as door

    return door.status(dsn, as_json=json, with_quarantine=quarantine)


@backfills.command(name="retry")
def backfill_retry(
    dsn: Dsn = "",
    /,
    *,
    id: Annotated[int, Parameter(help="The backfill's number, as its status tells it.")],
    key: Annotated[str, Parameter(help="One row only, its key as it is listed: '[\"42\"]'.")] = "",
    json: bool = False,
) -> int:
    """Tries the rows again that a backfill holds in quarantine, each in a transaction of its own."""
    from dbwatch.cli import backfills as door

    return door.retry(dsn, id=id, key=key, as_json=json)


Which = Annotated[int | None, Parameter(name="--id", help="The backfill's number, as its status tells it.")]
Why = Annotated[str, Parameter(help="A word for whoever looks on.")]


@backfills.command(name="pause")
def backfill_pause(dsn: Dsn = "", /, *, which: Which = None, why: Why = "", actor: As = "") -> int:
    """Pauses a backfill that runs in another terminal, or as a step of a window, until it is resumed."""
    from dbwatch.cli import backfills as door

    return door.order(dsn, "pause", id=which, named=actor, why=why)


@backfills.command(name="resume")
def backfill_resume(dsn: Dsn = "", /, *, which: Which = None, why: Why = "", actor: As = "") -> int:
    """Lets a backfill go on that was paused from another terminal."""
    from dbwatch.cli import backfills as door

    return door.order(dsn, "resume", id=which, named=actor, why=why)


@app.command
def demo(
    *,
    pg_bin: Annotated[Path | None, Parameter(help="A folder with initdb and postgres.")] = None,
) -> int:
    """An embedded server, a shop with load on it, and a migration ready to drive; removes it all on exit."""
    from dbwatch.cli import demo as door

    return door.main(pg_bin)


@app.command
def snapshot(dsn: Dsn = "", /, *, json: bool = False) -> int:
    """One poll of a server."""
    from dbwatch.cli import look

    return look.snapshot(dsn, as_json=json)


@app.command
def status(dsn: Dsn = "", /, *, json: bool = False) -> int:
    """Where the window stands: its steps, its driver, its abort."""
    from dbwatch.cli import look

    return look.status(dsn, as_json=json)


@app.command
def abort(
    runbook: Path,
    /,
    *,
    dry_run: bool = False,
    confirm: Annotated[str, Parameter(help="The database's name: carries the plan out without asking.")] = "",
    done: Annotated[list[str] | None, Parameter(help="A person's step that has been undone by hand already.")] = None,
    actor: As = "",
    state_dir: Journal = None,
) -> int:
    """The way back: shows the abort plan, asks for the database's name, and carries it out.

    A runbook that was edited meanwhile is taken as it is now, and a driver who is alive is fenced out.

    Parameters
    ----------
    runbook
        The TOML file of the open window.
    dry_run
        Only show the plan.
    """
    from dbwatch.cli import abort as door

    return door.main(runbook, dry_run=dry_run, confirm=confirm, undone=done or [], actor=actor, folder=state_dir)


BEHIND = 10
"""By so much a backfill without a screen is nicer than who started it. Measured where the server and an application at
half of what it can do run on the same two cores: until its first batch we need 0.7 s of CPU, and what queued up behind
that meanwhile waited for 0.2 s, for a twentieth of the whole run; so it is 0.05 s, and the run takes no longer."""


def _step_back() -> None:
    """Where the server runs on the same machine, it and its other clients come first."""
    with contextlib.suppress(OSError, AttributeError):  # no such thing here
        os.nice(BEHIND)


def main() -> None:
    """The entry point: runs one command and leaves with its exit code."""
    gc.set_threshold(20_000, 10, 10)  # what is imported stays: to look through it again and again takes a sixth of that
    debug = "--debug" in sys.argv[1:]
    words = [word for word in sys.argv[1:] if word != "--debug"]
    asked = partial(app, words, result_action="return_value", exit_on_error=False, print_error=False)
    code = carried_out(asked, debug=debug)
    gc.freeze()  # it all goes with the process: to look through it first would take a tenth of a second
    sys.exit(code)
