"""What has to hold before a window is opened, or an edited runbook taken: one database, a project that leads on."""

from __future__ import annotations

from pathlib import Path

from dbwatch.errors import DbwatchError, Refused, UsageError
from dbwatch.migration import runner
from dbwatch.migration.chain import Chain
from dbwatch.migration.request import Project
from dbwatch.migration.runner import MigrationError
from dbwatch.postgres.facts import ServerFacts, look, require_direct
from dbwatch.postgres.session import Connector
from dbwatch.runbook.loader import LoadedRunbook
from dbwatch.runbook.locate import outline
from dbwatch.runbook.mistakes import Mistake, RunbookError, at
from dbwatch.runbook.model import Migrate

_NO_PRIVILEGE = "42501"


async def require_one_database(connector: Connector, facts: ServerFacts) -> None:
    """Logs in once by every connection string of the runbook.

    Raises CannotConnect where one leads nowhere, Refused where through a pooler, UsageError where elsewhere.
    """
    for role in connector.apart:
        session = await connector.open(role)
        try:
            seen = await look(session, dsn=connector.dsn(role))
        finally:
            await session.close()
        require_direct(seen)
        if not facts.same_server(seen):
            raise UsageError(
                f"{role}_dsn leads to {seen.name}, and dsn to {facts.name}",
                why="these are two databases",
                next="let both lead to the one that the window is about",
            )


async def project_of(book: LoadedRunbook, connector: Connector) -> Chain | None:
    """The runbook's Alembic project, every target of its steps known to it; None where the runbook names none.

    Raises RunbookError with the line of each target that is not, and DbwatchError with one sentence where the project
    cannot be used at all.
    """
    if book.alembic is None:
        return None
    try:
        chain = await runner.inspect(Project(book.alembic), connector)
        mistakes = [m for m in [await _lost(book, book.alembic, connector, chain, t) for t in _targets(book)] if m]
    except MigrationError as error:
        raise _unusable(error, book.alembic) from error
    if mistakes:
        raise RunbookError(str(book.path), mistakes)
    return chain


def _targets(book: LoadedRunbook) -> list[tuple[int, int, str]]:
    """Where the runbook's migrate steps lead: the phase's number, the step's, the target."""
    return [
        (i, j, step.to)
        for i, phase in enumerate(book.runbook.phase)
        for j, step in enumerate(phase.step)
        if isinstance(step, Migrate)
    ]


async def _lost(
    book: LoadedRunbook, config: Path, connector: Connector, chain: Chain, target: tuple[int, int, str]
) -> Mistake | None:
    """The mistake that a target is which the project does not know. Only Alembic itself can tell, by a child of its
    own, where the target is none of the plain ones."""
    i, j, to = target
    plain = to == "heads" or (to == "head" and len(chain.heads) == 1) or any(r.id == to for r in chain.revisions)
    trouble = "" if plain else (await runner.inspect(Project(config), connector, to=to)).trouble
    if not trouble:
        return None
    place = outline(book.text).find(("phase", i, "step", j, "to"))
    step = book.runbook.phase[i].step[j]
    return at(place, f'step "{step.id}": "to": Alembic says: {trouble}', "name a revision of the project")


def _unusable(error: MigrationError, config: Path) -> DbwatchError:
    what, why = f"the Alembic project of {config.name} cannot be used", error.failure.message
    if error.failure.sqlstate == _NO_PRIVILEGE:
        return Refused(what, why=why, next="grant that to the role that runs Alembic")
    told = DbwatchError(what, why=why, next="mend that, and start again")
    told.exit_code = error.exit_code
    return told
