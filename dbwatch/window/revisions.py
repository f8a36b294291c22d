"""What the window's migrate steps run, and what takes each of their revisions back, with the version table. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from psycopg import sql

from dbwatch.migration import grammar, way
from dbwatch.migration.chain import Body, Chain
from dbwatch.migration.request import RevisionSql
from dbwatch.window.descent import WHY_NOT, body_of

Rendered = tuple[RevisionSql, ...]


@dataclass(frozen=True, slots=True)
class Revisions:
    """The whole way up from where the window opened, and the way back, rendered."""

    chain: Chain
    start: frozenset[str]
    """The heads where the window opened."""
    up: Mapping[str, Rendered]
    """By step, in the order of running."""
    down: Mapping[str, Rendered]
    """The same revisions, taken back; in the order of running, too."""

    @property
    def version_table(self) -> sql.Identifier:
        """Alembic's."""
        parts = (self.chain.version_schema, self.chain.version_table)
        return sql.Identifier(*(part for part in parts if part))

    def why_not(self, revision: RevisionSql) -> str:
        """Why *revision*, of `down`, cannot be taken back by SQL; empty where it can."""
        body = body_of(self.chain, revision.revision)
        if body is Body.NOOP and self._harmless(revision.revision):
            return ""
        return revision.trouble or WHY_NOT.get(body, "")

    def _harmless(self, revision: str) -> bool:
        """Whether its upgrade changes no schema, so that a downgrade that does nothing is right."""
        ups = [r for rendered in self.up.values() for r in rendered if r.revision == revision]
        readings = [grammar.read(statement.sql) for up in ups for statement in up.statements]
        return not any(up.trouble for up in ups) and all(r.known and not r.named for r in readings)

    def around(self) -> Iterator[tuple[str, frozenset[str], frozenset[str]]]:
        """Each revision on the way back, and the heads before and after it is taken back."""
        applied = set(way.closure(self.chain, self.start))
        applied |= {r.revision for rendered in self.up.values() for r in rendered}
        for revision in [r.revision for rendered in reversed(list(self.down.values())) for r in rendered]:
            before = way.heads_of(self.chain, applied)
            applied.discard(revision)
            yield revision, before, way.heads_of(self.chain, applied)

    def moves(self, revision: str) -> list[str]:
        """The statements that take *revision* out of the version table, as Alembic's do."""
        [(before, after)] = [(before, after) for one, before, after in self.around() if one == revision]
        gone, new = sorted(before - after), sorted(after - before)
        table = self.version_table
        update = sql.SQL("UPDATE {} SET version_num = {} WHERE version_num = {}")
        insert = sql.SQL("INSERT INTO {} (version_num) VALUES ({})")
        delete = sql.SQL("DELETE FROM {} WHERE version_num = {}")
        moved = [update.format(table, one, other) for other, one in zip(gone, new, strict=False)]
        more = [insert.format(table, one) for one in new[len(gone) :]]
        less = [delete.format(table, one) for one in gone[len(new) :]]
        return [statement.as_string() for statement in (*moved, *more, *less)]

    def above(self, revision: str) -> list[str]:
        """*revision* and all that rest on it: one of them is in the version table where it is applied."""
        return [r.id for r in self.chain.revisions if revision in way.closure(self.chain, [r.id])]

    def commands(self, start: frozenset[str], to: frozenset[str]) -> list[str]:
        """What `alembic downgrade` has to be told, once or more, to come from the heads *start* to *to*.

        Alembic takes one target: it takes back what rests on that, and nothing beside it. Where that does not lead
        from one set of heads to the other, each revision is named by the branch it is on and what it rests on.
        """
        have, want = way.closure(self.chain, start), way.closure(self.chain, to)
        plain = sorted(to) or ["base"]
        reached = have - {r for r in have if any(self._rests_on(r, target) for target in sorted(to) or [""])}
        if reached == want:
            return plain
        parents = {revision.id: revision.down for revision in self.chain.revisions}
        return [f"{one}@{next(iter(parents[one]), 'base')}" for one in way.down(self.chain, start, to)]

    def _rests_on(self, revision: str, target: str) -> bool:
        """Whether `alembic downgrade TARGET` (empty: base) takes *revision* back."""
        return revision != target and (not target or target in way.closure(self.chain, [revision]))
