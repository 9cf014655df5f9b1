"""The group ``orchestrator``: its commands, those of plugins, and how every error ends as lines and an exit code."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click
import pluggy

from orchestrator_core import hookspecs
from orchestrator_core.cli.text import Problem, complain
from orchestrator_core.errors import DocumentError, OrchestratorError, PluginError
from orchestrator_core.plugins import ENTRY_POINTS
from orchestrator_core.spelling import nearest

__all__ = ["Commands", "add_plugin", "main", "make_cli", "way_out"]

# Each stands in a module of its own, read when it is wanted: `orchestrator version` need not load what `run` needs.
_OWN = {
    "run": "run",
    "validate": "validate",
    "graph": "graph",
    "nodes": "nodes",
    "schema": "schema_command",
    "new-plugin": "scaffold",
    "doctor": "doctor",
    "version": "doctor",
}
_SERVER = frozenset(
    {"serve", "worker", "scheduler", "db", "tenant", "key", "secret", "deploy", "execute", "cancel", "revive", "logs"}
)


class Commands(click.Group):
    """The library's own commands, and what plugins add; those are only loaded where one of them may be meant."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._owners: dict[str, str] = {}
        self._adding = ""
        self._loaded = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The library's own first, in their order, then those of plugins."""
        self._load_plugins()
        return [*_OWN, *sorted(super().list_commands(ctx))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See :meth:`click.Group.get_command`."""
        if cmd_name in _OWN:
            module = importlib.import_module(f"orchestrator_core.cli.{_OWN[cmd_name]}")
            command: click.Command = getattr(
                module, cmd_name.replace("-", "_") + ("_command" if cmd_name == "version" else "")
            )
            return command
        self._load_plugins()
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See :meth:`click.Group.resolve_command`; an unknown command is told what it may have been."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            if name in _SERVER:
                raise Problem(
                    f"orchestrator: {name!r} comes with the server package: pip install pluggable-orchestrator-server"
                )
            meant = nearest(name, self.list_commands(ctx))
            hint = f"did you mean {meant!r}?" if meant else "see orchestrator --help"
            raise Problem(f"orchestrator: there is no command {name!r}: {hint}")
        return super().resolve_command(ctx, args)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a plugin's command.

        Raises:
            ValueError: The name is taken.
        """
        wanted = name or cmd.name or ""
        owner = "the library" if wanted in _OWN else self._owners.get(wanted)
        if owner is not None:
            raise ValueError(f"the command {wanted!r} is taken by {owner}")
        self._owners[wanted] = f"the plugin {self._adding!r}"
        super().add_command(cmd, name)

    def _load_plugins(self) -> None:
        """Let each plugin add its commands; one that cannot gives one line, and the others go on."""
        if self._loaded:
            return
        self._loaded = True
        for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value)):
            self._adding = point.name
            try:
                add_plugin(self, point)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and must not take the others along
                of = f" of package {point.dist.name!r}" if point.dist is not None else ""
                complain(
                    f"orchestrator: plugin {point.name!r}{of} cannot be used: {type(error).__name__}: {error} "
                    f"({way_out(point)})"
                )


def way_out(point: EntryPoint | None) -> str:
    """What to do about a plugin that is broken."""
    remove = "" if point is None or point.dist is None else f"pip uninstall {point.dist.name}, or "
    return f"{remove}look with orchestrator doctor"


def _blamed(error: PluginError) -> EntryPoint | None:
    """The installed plugin that an error is about: its name stands first."""
    points = entry_points(group=ENTRY_POINTS)
    return next((point for point in points if str(error).startswith(f"plugin {point.name!r} ")), None)


def add_plugin(group: click.Group, point: EntryPoint) -> None:
    """Load one plugin and call its ``register_commands``, where it has one."""
    # One manager each: a plugin that is wrong is then known by its name, and takes nobody along.
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(point.load(), name=point.name)
    manager.hook.register_commands(cli=group)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        ctx.invoke(importlib.import_module("orchestrator_core.cli.doctor").version_command)
        ctx.exit()


@click.pass_context
def _start(ctx: click.Context, *, debug: bool) -> None:
    ctx.obj = {"debug": debug}


def make_cli() -> Commands:
    """A new group: plugins add to it, so that each start of the command line has its own."""
    version = click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_version,
        help="Print the versions and exit.",
    )
    return Commands(
        name="orchestrator",
        callback=_start,
        params=[click.Option(["--debug"], is_flag=True, hidden=True), version],
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        help="Run workflows and look at them: graphs of nodes as data.",
        epilog="Exit codes: 0 succeeded, 1 the execution failed, 2 bad usage or a bad document, 130 interrupted.",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; whatever happens ends as lines on standard error and an exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Known before anything is parsed, so that parsing can be debugged too.
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    try:
        code = make_cli().main(["--debug", *given] if debug else given, prog_name="orchestrator", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - the end of the line: people get a sentence, not a traceback
        if debug:
            traceback.print_exc()
        return _explain(_single(error), debug=debug)
    return code if isinstance(code, int) else 0


def _single(error: BaseException) -> BaseException:
    """What is in a group of one: task groups wrap what their tasks raise."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _explain(error: BaseException, *, debug: bool) -> int:
    """Say in lines what is wrong, and return the exit code."""
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has seen enough (`| head`). What is left in the buffer has no reader.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - it lives as long as the process
        return 1
    if isinstance(error, KeyboardInterrupt | click.Abort):
        complain("orchestrator: interrupted")
        return 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, Problem):
        for line in error.lines:
            complain(line)
        return error.code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        complain(error.ctx.get_help() if error.ctx else "see orchestrator --help")
        return 2
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "orchestrator"
        message = " ".join(error.format_message().split()).rstrip(".")
        message = re.sub(r"\.? \(Did you mean (.*)\?\)$", r": did you mean \1?", message)
        complain(f"{command}: {message[:1].lower() + message[1:]} (see {command} --help)")
        return error.exit_code
    if isinstance(error, DocumentError):
        for fault in error.faults:
            complain(str(fault))
        return 2
    if isinstance(error, PluginError):
        complain(f"orchestrator: {error} ({way_out(_blamed(error))})")
        return 2
    if isinstance(error, OrchestratorError):
        complain(f"orchestrator: {error}")
        return 2
    if isinstance(error, OSError) and error.filename is not None:
        complain(f"{error.filename}: {error.strerror or error}")
        return 2
    hint = "" if debug else "; with --debug it shows where: please report it"
    complain(f"orchestrator: {type(error).__name__}: {error} (a fault of the program itself{hint})")
    return 2
