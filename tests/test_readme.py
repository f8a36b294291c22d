"""What the README says is so: its keys, its reference, its commands, its pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from runbook_reference import sections

from dbwatch.cli.commands import app
from dbwatch.errors import Exit
from dbwatch.runbook.loader import parse
from dbwatch.tui.keys import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("*.md"))
README = (ROOT / "README.md").read_text()


def part(heading: str) -> str:
    """What stands under *heading*, up to the next one."""
    found = re.search(rf"^#+ {heading}\n(.*?)(?=^#+ |\Z)", README, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


def test_the_table_of_keys_has_the_keys_that_there_are() -> None:
    first_cells = re.findall(r"^\| (`[^|]*) \|", part("Keys"), re.MULTILINE)
    told = [key for cell in first_cells for key in re.findall(r"`([^`]+)`", cell)]
    assert sorted(told) == sorted(command.key for command in COMMANDS)


def test_the_reference_of_runbooks_is_the_one_that_the_model_makes() -> None:
    for section in sections():
        for row in section.rows:
            default = row.default.replace("must be there", "*required*")
            assert f"| `{row.key}` | {row.value} | {default} | {row.meaning} |" in README, section.name


def test_the_runbook_shown_is_one() -> None:
    [shown] = re.findall(r"^```toml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert [step.id for step in parse(shown, "README.md", {}).steps()] == ["add", "deploy", "fill", "complete"]


def test_every_command_and_every_exit_code_is_told() -> None:
    commands = {name for name in app if not name.startswith("-")} - {"watch"}  # which is what no command means
    assert commands == set(re.findall(r"^dbwatch ([a-z]+) ", part("On your own server"), re.MULTILINE))
    told = re.findall(r"^\| (\d+) \|", part("On your own server"), re.MULTILINE)
    assert [int(code) for code in told] == [code.value for code in Exit]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_leads_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target
