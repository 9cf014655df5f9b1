"""``orchestrator validate``: everything that is wrong with workflow files, a line for each fault."""

from __future__ import annotations

import sys

import anyio
import click

from orchestrator_core import validation
from orchestrator_core.cli.documents import Loaded, load
from orchestrator_core.cli.text import Problem, complain, fault_line, plural, say, say_json
from orchestrator_core.document import Workflow, called_workflows, with_lines
from orchestrator_core.engine import Engine
from orchestrator_core.errors import Fault

__all__ = ["validate"]


@click.command(short_help="Say everything that is wrong with workflow files.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--json", "as_json", is_flag=True, help="Write the faults as JSON: a list of {file, line, place, message}."
)
@click.option("--quiet", "-q", is_flag=True, help="Write nothing where nothing is wrong.")
def validate(files: tuple[str, ...], *, as_json: bool, quiet: bool) -> int:
    """Say everything that is wrong with workflow files; run nothing.

    Each fault is a line: FILE:LINE: $.place: what is wrong and what to do. The exit code is 2 where there is one.
    Stored workflows that a file names are looked for among the files given; others are not judged.
    """
    loaded = [_load(file) for file in files]
    faults = anyio.run(_judge, loaded)
    number = sum(map(len, faults))
    if as_json:
        listed = [
            {"file": one.file, "line": fault.line, "place": fault.place, "message": fault.message}
            for one, found in zip(loaded, faults, strict=True)
            for fault in found
        ]
        say_json(listed)
        return 2 if number else 0
    for one, found in zip(loaded, faults, strict=True):
        for fault in found:
            say(fault_line(one.file, fault))
        if not found and one.workflow is not None and not quiet:
            nodes, edges = plural(len(one.workflow.nodes), "node"), plural(len(one.workflow.edges), "edge")
            say(f"{one.file}: ok ({nodes}, {edges})")
    if number:
        sys.stdout.flush()
        complain(f"{plural(number, 'fault')} in {plural(sum(map(bool, faults)), 'file')} of {len(loaded)}")
    return 2 if number else 0


def _load(file: str) -> Loaded:
    """As :func:`load`; a file that cannot be read is a fault among the others."""
    try:
        return load(file)
    except Problem as problem:
        return Loaded(file, None, (Fault(problem.lines[0].removeprefix(f"{file}: ")),), {})


async def _judge(loaded: list[Loaded]) -> list[list[Fault]]:
    async with Engine() as engine:
        known = {one.workflow.id: one.workflow for one in loaded if one.workflow is not None}
        called = {name for workflow in known.values() for name in called_workflows(workflow.nodes)}
        # A store may have what is not among the files: for each of those an empty one stands in.
        stored = {name: Workflow(id=name, nodes=()) for name in called} | known
        faults = []
        for one in loaded:
            if one.workflow is not None:
                found = validation.validate(one.workflow, engine.registry, stored=stored)
            elif one.value is not None:
                found = validation.validate_document(one.value, engine.registry, stored=stored)
            else:
                found = list(one.faults)
            faults.append(sorted(with_lines(found, one.lines), key=lambda fault: fault.line or 0))
            if len(loaded) > 1 and one.workflow is not None:
                for name in dict.fromkeys(called_workflows(one.workflow.nodes)):
                    if name not in known:
                        complain(f"{one.file}: note: calls the workflow {name!r}, which is not among these files")
        return faults
