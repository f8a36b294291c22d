"""Lines of text that are painted only when they change. They take Content, never a string: nothing parses markup."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

GOOD, WARN, BAD, FAINT = "$success", "$warning", "$error", "dim"
"""Styles by what they mean; a word or a glyph always says the same."""


class Say(Static):
    """A text of fixed place. With *grows* its height follows the text."""

    DEFAULT_CSS = """
    Say { width: 1fr; height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    Say.grows { height: auto; text-wrap: wrap; }
    """

    def __init__(
        self, content: Content | None = None, *, id: str | None = None, grows: bool = False, focusable: bool = False
    ) -> None:
        super().__init__(content or Content(""), markup=False, id=id, classes="grows" if grows else None)
        self.can_focus = focusable
        self._said = content or Content("")
        self._grows = grows

    @property
    def said(self) -> str:
        """What it says, without its styles."""
        return self._said.plain

    def show(self, content: Content) -> None:
        """Says *content* from now on."""
        if content.is_same(self._said):
            return
        self._said = content
        self.update(content, layout=self._grows)
