"""Dialogs to read: the detail of a row; all keys, and whom to call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from textual.content import Content

from dbwatch.tui.command import Situation
from dbwatch.tui.dialogs.dialog import Dialog
from dbwatch.tui.keys import offered
from dbwatch.tui.say import FAINT
from dbwatch.window.feed import Frame

SIGNS = (
    "◆ ours   ● live   ◌ stale or held back   ▲ somebody waits   ! over a limit",
    "✓ done   ▶ runs   ○ to do   ◎ to do, with a second person's word",
    "✗ failed   ? nobody knows   ↶ taken back   ┐│┘ past the point of no return",
    "wei*+lin: wei drives, and is you; wei✗: nothing is heard of them",
)


class Detail(Dialog[None]):
    """All about one row, for as long as it is there."""

    def __init__(self, heading: str, lines: Callable[[], Sequence[str]]) -> None:
        self.heading = heading
        super().__init__()
        self._lines = lines
        self._last: Sequence[str] = lines()
        self.offer([("↑ ↓", "scroll"), ("Esc", "back")])
        self._draw(gone=False)

    def view(self, frame: Frame, now: float) -> None:
        lines = self._lines()
        self._last = lines or self._last
        self._draw(gone=not lines)

    def _draw(self, *, gone: bool) -> None:
        text = Content("\n").join([Content(line) for line in self._last])
        self.body.show(Content.assemble(text, ("\n\nIt is no longer there.", "bold")) if gone else text)


class Help(Dialog[None]):
    """All keys that this screen has, with the reason for those that do nothing now."""

    heading = "Keys"

    def __init__(self, situation: Situation) -> None:
        super().__init__()
        self.body.show(help_text(situation))
        self.offer([("↑ ↓", "scroll"), ("Esc", "back")])


def help_text(situation: Situation) -> Content:
    """The registry as a page, the runbook's contacts first."""
    pieces: list[Content | str | tuple[str, str]] = []
    contacts = situation.window.runbook.contact if situation.window is not None else ()
    if contacts:
        pieces.append(("Whom to call\n", "bold underline"))
        widest = max(len(one.role) for one in contacts)
        pieces += [f" {one.role:<{widest}}  {one.name}  {one.phone}".rstrip() + "\n" for one in contacts]
        pieces.append("\n")
    for group, commands in groupby(offered(situation), key=lambda c: c.group):
        pieces.append((f"{group}\n", "bold underline"))
        for command in commands:
            refusal = command.refusal(situation)
            pieces.append((f" {command.key:<6}", FAINT if refusal else "bold $accent"))
            pieces.append((f"{command.word:<11} {command.about}", FAINT if refusal else ""))
            pieces.append((f"\n{'':<19}not now: {refusal}\n" if refusal else "\n", FAINT))
        pieces.append("\n")
    pieces.append(("Moving\n", "bold underline"))
    pieces.append(" ↑ ↓ PgUp PgDn Home End   Tab between the Plan and the pane beside it   Esc back\n\n")
    pieces.append(("Signs\n", "bold underline"))
    pieces += [f" {line}\n" for line in SIGNS]
    return Content.assemble(*pieces)
