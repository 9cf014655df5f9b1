"""``orchestrator graph``: the picture of a workflow."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator_core.cli.documents import load_for
from orchestrator_core.cli.text import Problem, check_writable

__all__ = ["graph"]

_FORMATS = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid", ".md": "mermaid"}


@click.command(short_help="Draw a workflow: Mermaid, Graphviz, SVG.")
@click.argument("file")
@click.option(
    "--format",
    "-f",
    "form",
    type=click.Choice(["mermaid", "dot", "svg"]),
    help="What to write; else by OUT's name (.mmd, .mermaid, .md, .dot, .gv, .svg), or mermaid.",
)
@click.option("--output", "-o", metavar="OUT", help="The file to write; standard output where there is none.")
def graph(file: str, *, form: str | None, output: str | None) -> None:
    """Draw the workflow in FILE: Mermaid or Graphviz text, or an SVG picture."""
    if output is None or output == "-":
        suffix = ".mmd"
    else:
        suffix = Path(output).suffix.lower()
        if form is None and suffix not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise Problem(f"{output}: {_unknown(suffix)}: name the file with one of {known}, or give --format")
        check_writable(output, output)
    _, workflow = load_for(file)
    wanted = form or _FORMATS[suffix]
    text = {"mermaid": workflow.to_mermaid, "dot": workflow.to_dot, "svg": workflow.to_svg}[wanted]()
    if output is None or output == "-":
        click.echo(text, nl=not text.endswith("\n"))
        return
    if suffix == ".md" and wanted == "mermaid":
        text = f"```mermaid\n{text.rstrip()}\n```\n"
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Problem(f"{output}: cannot be written: {error.strerror or error}") from None


def _unknown(suffix: str) -> str:
    return f"no graph can be written as {suffix}" if suffix else "its name does not say what to write"
