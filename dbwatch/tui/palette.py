"""The command palette: the commands of the registry that can be given now."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from dbwatch.tui.keys import Command, available

if TYPE_CHECKING:
    from dbwatch.tui.app import DbwatchApp


def entries(app: DbwatchApp) -> list[Command]:
    """What the palette offers."""
    return [command for command in available(app.situation()) if command.name != "palette"]


class RegistryCommands(Provider):
    """The palette's source."""

    async def discover(self) -> Hits:
        """All of them, before anything is typed."""
        app = cast("DbwatchApp", self.app)
        for command in entries(app):
            run = partial(app.action_command, command.name)
            name = f"{command.word} ({command.key})"
            yield DiscoveryHit(Content(name), run, text=name, help=command.about)

    async def search(self, query: str) -> Hits:
        """Those whose name or description fits."""
        app, matcher = cast("DbwatchApp", self.app), self.matcher(query)
        for command in entries(app):
            name = f"{command.word} ({command.key}): {command.about}"
            if (score := matcher.match(name)) > 0:
                yield Hit(score, matcher.highlight(name), partial(app.action_command, command.name), text=name)
