"""The server's commands: a plugin of the command line.

Every engine that looks for plugins loads this module: it names the commands. What a command needs is loaded when it is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

import click

from orchestrator_core import hookimpl

__all__ = ["COMMANDS", "Later", "register_commands"]

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "serve": ("serve", "Serve the API, drive executions and start what is scheduled."),
    "worker": ("serve", "Drive executions, beside a server on the same database."),
    "scheduler": ("serve", "Start what is scheduled, beside a server on the same database."),
    "db": ("db", "Look after the database."),
    "tenant": ("tenant", "Make, list and delete tenants."),
    "key": ("key", "Make, list and revoke API keys."),
    "secret": ("secret", "Set, list and remove secrets."),
    "deploy": ("deploy", "Save a workflow on a server."),
    "execute": ("execute", "Run a workflow on a server and show its progress."),
    "cancel": ("cancel", "Cancel an execution on a server."),
    "revive": ("revive", "Take an execution out of quarantine."),
    "logs": ("logs", "Show past executions on a server, and what their nodes wrote."),
}
"""The commands, each with its module and what the list of all commands says."""


class Later(click.Command):
    """A command that stands in a module of its own, which is loaded when the command is called.

    Args:
        name: Its name, and that of the command in the module.
        module: The module of this package.
        short_help: What the list of all commands says.
    """

    def __init__(self, name: str, module: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self._module = f"{__name__}.{module}"

    def load(self) -> click.Command:
        """The command itself."""
        command: click.Command = getattr(importlib.import_module(self._module), str(self.name))
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """See :meth:`click.Command.make_context`: from here on it is the command itself that goes on."""
        return self.load().make_context(info_name, args, parent, **extra)


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the server's commands."""
    for name, (module, short_help) in COMMANDS.items():
        cli.add_command(Later(name, module, short_help))
