"""What only the whole runbook shows: names that stand twice, a migrate step without Alembic, a certificate that no
earlier backfill gives. Pure.

Works on data as it comes from the file, so that these mistakes are told together with those of single keys.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from dbwatch.runbook.locate import Path
from dbwatch.runbook.values import quoted


@dataclass(frozen=True, slots=True)
class Breach:
    """A mistake, where it stands, and where the first of two stands."""

    path: Path
    what: str
    mend: str
    first: Path | None = None


def breaches(data: Mapping[str, object]) -> Iterator[Breach]:
    """Every breach in *data*, in the order of the file; values of a wrong type are passed over."""
    names: dict[object, Path] = {}
    ids: dict[object, Path] = {}
    kinds: dict[object, object] = {}
    everywhere = [step for _, phase in _tables(data, ("phase",)) for _, step in _tables(phase, ("step",))]
    named = [step["id"] for step in everywhere if isinstance(step.get("id"), str)]
    migrates = "alembic" in data and data["alembic"] is not None
    for path, phase in _tables(data, ("phase",)):
        yield from _twice("phase", phase.get("name"), (*path, "name"), names)
        for step_path, step in _tables(phase, (*path, "step")):
            yield from _twice("id", step.get("id"), (*step_path, "id"), ids)
            if step.get("kind") == "migrate" and not migrates:
                migrates = True  # one key is missing, however many steps need it
                what = "a migrate step needs Alembic's configuration"
                yield Breach((*step_path, "kind"), what, 'write alembic = "alembic.ini" at the top of the runbook')
            yield from _uncertified(step, step_path, kinds, named)
            if isinstance(step.get("id"), str):
                kinds.setdefault(step["id"], step.get("kind"))


def _uncertified(
    step: Mapping[str, object], path: Path, before: Mapping[object, object], ids: Container[object]
) -> Iterator[Breach]:
    """*step* requires a certificate that none of the steps *before* it, by their kinds, gives."""
    of = step.get("certificate")
    if not isinstance(of, str) or before.get(of) == "backfill":
        return
    if of == step.get("id"):
        what = f"{quoted(of)} would need its own certificate"
    elif of in before:
        what = f"{quoted(of)} is no backfill, and has no certificate"
    else:
        what = f"the step {quoted(of)} comes later" if of in ids else f"there is no step {quoted(of)}"
    fills = [quoted(id) for id, kind in before.items() if kind == "backfill"]
    mend = f"name a backfill before it: {', '.join(fills)}" if fills else "put it after a backfill, or leave it out"
    yield Breach((*path, "certificate"), what, mend)


def _twice(what: str, value: object, path: Path, seen: dict[object, Path]) -> Iterator[Breach]:
    if not isinstance(value, str):
        return
    if value in seen:
        yield Breach(path, f"the {what} {quoted(value)} stands twice", "give it another", seen[value])
    seen.setdefault(value, path)


def _tables(data: Mapping[str, object], path: Path) -> Iterator[tuple[Path, Mapping[str, object]]]:
    listed = data.get(str(path[-1]))
    if isinstance(listed, list | tuple):
        for index, element in enumerate(listed):
            if isinstance(element, dict):
                yield (*path, index), element
