"""How the server's commands write lists: for people, or for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TextIO

import click

from orchestrator_core.cli.text import is_terminal, say, say_json, table, width_of
from orchestrator_core.types import Json

__all__ = ["as_json_option", "fresh_line", "show_rows"]

Command = Callable[..., Any]


def as_json_option(command: Command) -> Command:
    """The option ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def fresh_line(stream: TextIO) -> None:
    """Go on below the ``^C`` that a terminal shows where somebody interrupts."""
    if is_terminal(stream):
        click.echo(file=stream)


def show_rows(rows: list[dict[str, Json]], columns: tuple[str, ...], *, as_json: bool, none: str) -> None:
    """A list, for people or for programs."""
    if as_json:
        say_json(rows)
        return
    if not rows:
        say(none)
        return
    lines = [columns, *(tuple("" if row[name] is None else str(row[name]) for name in columns) for row in rows)]
    for line in table(lines, width=width_of(sys.stdout), indent=""):
        say(line)
