"""The figures: each line of the issue's table with what is asked of it, and what is measured without a goal."""

from __future__ import annotations

from dataclasses import replace

from bench_backfill.values import Contender, Figure, Goal, Kind, Measure, Table

DBWATCH = Contender("dbwatch", Kind.TOOL)
ONE = Contender("dbwatch, 1 worker", Kind.TOOL, ("--workers", "1"))
KEYSET = Contender("dbwatch, keyset", Kind.TOOL, ("--walk", "keyset"))
FOUR = Contender("dbwatch, 4 workers", Kind.TOOL, ("--workers", "4"))
UNDO = Contender("dbwatch, undo", Kind.TOOL, ("--undo",))
WHOLE = Contender("one UPDATE", Kind.RIVAL, ("whole",))
ALONE = Contender("nobody", Kind.NOBODY)


def loop(name: str, rows: int) -> Contender:
    """One of the loops of rivals.py, in batches of so many rows."""
    return Contender(f"{name} {rows}", Kind.RIVAL, (name, "--batch", str(rows)), family=name)


LOOPS = (loop("published", 1000), loop("pgroll", 1000), loop("gitlab", 1000))
"""In the sizes that they come with; GitLab's own default is a tenth of it, which is slower."""
GENTLER_LOOPS = (loop("published", 200), loop("pgroll", 200), loop("gitlab", 200))
LARGER_LOOPS = (loop("pgroll", 5000), loop("gitlab", 5000))

SEQUENTIAL = Table("sequential")
ON = {"autovacuum": "on", "autovacuum_naptime": "5s"}
"""Else it is off."""


def faster(times: float, against: Contender = WHOLE, of: Contender = DBWATCH) -> Goal:
    """At least so many times as fast."""
    return Goal(Measure.SPEED, at_least=times, against=against.name, of=of.name)


def both(*goals: Goal) -> tuple[Goal, ...]:
    """What is asked of it as it comes, which here is with two workers, and the same of one."""
    return (*goals, *(replace(goal, of=ONE.name) for goal in goals))


def served(p99: float) -> tuple[Goal, ...]:
    """What the application is promised, with its p99 so many times what it is alone."""
    return (Goal(Measure.APP_SERVED, at_least=0.99), Goal(Measure.APP_P99, at_most=p99, against=ALONE.name))


CPU = Goal(Measure.CPU, at_most=0.05)
GENTLE_AND_LEAN = (
    Goal(Measure.BATCH_P99_MS, at_most=100),
    Goal(Measure.BATCH_MAX_MS, at_most=250),
    Goal(Measure.WAL, at_most=0.8, against=WHOLE.name),
    Goal(Measure.HEAP, at_most=1.25),
)
SIDE_BY_SIDE = (DBWATCH, ONE, WHOLE)

PROMISED = (
    Figure(
        "sequential",
        "sequential key, autovacuum off",
        SEQUENTIAL,
        SIDE_BY_SIDE,
        both(faster(1.5), *GENTLE_AND_LEAN, CPU),
    ),
    Figure(
        "sequential-autovacuum",
        "sequential key, autovacuum on",
        SEQUENTIAL,
        SIDE_BY_SIDE,
        both(faster(1.3), *GENTLE_AND_LEAN),
        settings=ON,
    ),
    Figure(
        "fillfactor",
        "fillfactor 85",
        Table("fillfactor", fillfactor=85),
        (DBWATCH, WHOLE),
        (faster(2.0), Goal(Measure.HEAP, at_most=1.06)),
    ),
    Figure("random", "random bigint key", Table("random", key="random"), (DBWATCH, WHOLE), (faster(1.5),)),
    Figure("uuid", "uuid v4 key", Table("uuid", key="uuid"), (DBWATCH, WHOLE), (faster(1.3),)),
    Figure(
        "indexed",
        "SET column indexed",
        Table("indexed", also=("CREATE INDEX users_phone ON users (phone)",)),
        (DBWATCH, WHOLE),
        (faster(0.70),),
    ),
    Figure(
        "xmin",
        "an old xmin held all the while",
        SEQUENTIAL,
        (DBWATCH, KEYSET, WHOLE),
        (faster(0.95, KEYSET),),
        old_xmin=True,
    ),
    Figure(
        "load-12",
        "application at 12 % load",
        SEQUENTIAL,
        (ALONE, DBWATCH, WHOLE),
        (*served(4), Goal(Measure.APP_MAX_MS, at_most=60), faster(1.0)),
        load=0.12,
    ),
    Figure(
        "load-50",
        "application at 50 % load, default throttle",
        SEQUENTIAL,
        (ALONE, DBWATCH, WHOLE),
        (*served(8), faster(0.3)),
        load=0.50,
    ),
    Figure(
        "loops",
        "against the published loop, pgroll's and GitLab's, without their sleeps",
        SEQUENTIAL,
        (DBWATCH, WHOLE, *LOOPS),
        tuple(Goal(Measure.SPEED, above=1.0, against=each.name) for each in LOOPS),
        rivals_s=15,
    ),
    Figure(
        "loops-load",
        "the same at equal application p99, 12 % load",
        SEQUENTIAL,
        (ALONE, DBWATCH, *GENTLER_LOOPS, *LOOPS, *LARGER_LOOPS),
        tuple(Goal(Measure.SPEED_AT_EQUAL_P99, above=1.0, against=each.family) for each in LOOPS),
        load=0.12,
        rivals_s=15,
    ),
    Figure(
        "long",
        "ten times the rows",
        SEQUENTIAL,
        (DBWATCH,),
        (Goal(Measure.TENTHS, at_most=1.1), CPU, Goal(Measure.CPU_FLAT, at_most=1.2)),
        settings={"max_wal_size": "64GB"},  # else it pauses at half of what an hour's checkpoint allows
        scale=10,
    ),
)

_TRIGGER = """
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := NEW.touched + 1; RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION stamp()
"""
_TOAST = (
    "ALTER TABLE users ADD COLUMN body text",
    "ALTER TABLE users ALTER COLUMN body SET STORAGE EXTERNAL",
    "UPDATE users SET body = repeat(md5(email), 96)",
    "VACUUM (FULL) users",
)

MEASURED = (
    Figure("trigger", "a BEFORE UPDATE trigger", Table("trigger", also=(_TRIGGER,)), (DBWATCH, WHOLE)),
    Figure(
        "two-indexes",
        "two indexes on other columns",
        Table(
            "two_indexes",
            also=("CREATE INDEX ON users (legacy_phone)", "CREATE INDEX ON users (created_at)"),
        ),
        (DBWATCH, WHOLE),
    ),
    Figure("toast", "a TOASTed value of 3 kB in each row", Table("toast", also=_TOAST, share=0.2), (DBWATCH, WHOLE)),
    Figure("checkpoint", "a checkpoint in mid-run", SEQUENTIAL, (DBWATCH, WHOLE), checkpoint=True),
    Figure("workers", "four workers side by side", SEQUENTIAL, (DBWATCH, ONE, FOUR, WHOLE)),
    Figure("undo", "with what it overwrites kept", SEQUENTIAL, (DBWATCH, UNDO, WHOLE)),
)

FIGURES = PROMISED + MEASURED
