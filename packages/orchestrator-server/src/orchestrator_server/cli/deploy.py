"""``orchestrator deploy``: a workflow file becomes a version on a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import click

from orchestrator_core import Workflow
from orchestrator_core.cli.documents import Loaded, load
from orchestrator_core.cli.text import Problem, say, say_json
from orchestrator_core.document import with_lines
from orchestrator_server.cli.client import Client, Refused, is_id, of_server, with_client
from orchestrator_server.cli.output import as_json_option

__all__ = ["deploy"]

_COMMAND = "orchestrator deploy"


@click.command()
@click.argument("file")
@click.option("--draft", is_flag=True, help="Only save the version: what is active stays so.")
@of_server
@as_json_option
def deploy(*, file: str, draft: bool, as_json: bool, **options: Any) -> None:
    """Save the workflow in FILE (JSON or YAML; - is standard input) as a new version, and make it active.

    Its webhooks and schedules live from then on; executions that run already go on with their version.
    """
    loaded = load(file)
    document = loaded.value
    if not isinstance(document, dict):
        raise loaded.problem()
    known = str(document.get("id", ""))
    query = {"activate": "false"} if draft else {}

    async def work(client: Client) -> tuple[dict[str, Any], str]:
        hooks = f"{client.access.url}/hooks/{client.access.tenant}"
        if is_id(known):
            try:
                return await client.call("PUT", f"/workflows/{known}", document, query=query), hooks
            except Refused as error:
                if error.status != 404:
                    raise
        return await client.call("POST", "/workflows", document, query=query), hooks

    try:
        saved, hooks = with_client(_COMMAND, options, work)
    except Problem as error:
        raise _told(loaded, error) from None
    if as_json:
        say_json(saved)
        return
    state = "is active" if saved["active"] == saved["version"] else "is saved as a draft"
    say(f"{saved['id']}: version {saved['version']} {state}")
    if not draft and loaded.workflow is not None:
        for line in _triggers(loaded.workflow, hooks):
            say(f"  {line}")


def _told(loaded: Loaded, error: Problem) -> Problem:
    """What the server says of a file; what was found here, where it says nothing of the file: that is wrong in any case."""
    found = error.faults if isinstance(error, Refused) else ()
    if not found:
        return loaded.problem() if loaded.faults else error
    return attrs.evolve(loaded, faults=()).problem(
        sorted(with_lines(found, loaded.lines), key=lambda fault: fault.line or 0)
    )


def _triggers(workflow: Workflow, hooks: str) -> Iterator[str]:
    """How it is started from now on."""
    for node in workflow.nodes:
        if node.disabled:
            continue
        if node.type == "webhook":
            methods = ", ".join(node.config.get("methods") or ["POST"])
            yield f"webhook {node.id}: {methods} {hooks}/{str(node.config.get('path', '')).strip('/')}"
        elif node.type == "schedule":
            yield f"schedule {node.id}"
