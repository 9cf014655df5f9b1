"""``orchestrator deploy``: a workflow file becomes a version on a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from orchestrator_core import Workflow
from orchestrator_core.cli.documents import load_for
from orchestrator_core.cli.text import say, say_json
from orchestrator_server.cli.client import Client, Refused, of_server, with_client
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
    loaded, workflow = load_for(file)
    query = {"activate": "false"} if draft else {}

    async def work(client: Client) -> tuple[dict[str, Any], str]:
        hooks = f"{client.access.url}/hooks/{client.access.tenant}"
        try:
            return await client.call("PUT", f"/workflows/{workflow.id}", loaded.value, query=query), hooks
        except Refused as error:
            if error.status != 404:
                raise
        return await client.call("POST", "/workflows", loaded.value, query=query), hooks

    try:
        saved, hooks = with_client(_COMMAND, options, work)
    except Refused as error:
        raise (loaded.problem(error.faults) if error.faults else error) from None
    if as_json:
        say_json(saved)
        return
    state = "is active" if saved["active"] == saved["version"] else "is saved as a draft"
    say(f"{workflow.id}: version {saved['version']} {state}")
    if not draft:
        for line in _triggers(workflow, hooks):
            say(f"  {line}")


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
