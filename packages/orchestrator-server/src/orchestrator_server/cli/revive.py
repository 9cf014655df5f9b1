"""``orchestrator revive``: take an execution out of quarantine."""

from __future__ import annotations

from typing import Any

import click

from orchestrator_core.cli.text import say, say_json
from orchestrator_server.cli.client import Client, check_execution, of_server, with_client
from orchestrator_server.cli.output import as_json_option

__all__ = ["revive"]

_COMMAND = "orchestrator revive"


@click.command()
@click.argument("execution")
@of_server
@as_json_option
def revive(*, execution: str, **options: Any) -> int:
    """Take an execution out of quarantine: it goes on from where it was.

    It failed with code `poisoned`, as five workers took it and none came to a result. See to the cause first: `logs` shows at
    which node it stands. Exit codes: 0 it is due again, 2 bad usage, or the server has refused it or is not there.
    """
    check_execution(_COMMAND, execution)

    async def work(client: Client) -> int:
        revived = await client.call("POST", f"/executions/{execution}/revive")
        if options["as_json"]:
            say_json(revived)
        else:
            say(f"{execution} goes on: orchestrator logs {execution} --follow")
        return 0

    return with_client(_COMMAND, options, work)
