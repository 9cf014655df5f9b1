"""``orchestrator schema``: the JSON Schema of the workflow document."""

from __future__ import annotations

import click

from orchestrator_core.cli.schema import document_schema
from orchestrator_core.cli.text import say_json
from orchestrator_core.plugins import make_manager, make_registry

__all__ = ["schema"]


@click.command(short_help="Print the JSON Schema of workflow documents.")
@click.option(
    "--types", is_flag=True, help="Describe the configs of the installed node types too, and accept no others."
)
def schema(*, types: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of the workflow document, for editors and checks."""
    kinds = make_registry(make_manager()).node_types.values() if types else None
    say_json(document_schema(kinds))
