"""``orchestrator cancel``: end an execution on a server."""

from __future__ import annotations

import sys
from typing import Any

import click

from orchestrator_core.cli.text import complain, say, say_json
from orchestrator_server.cli.client import Client, Refused, check_execution, of_server, with_client
from orchestrator_server.cli.output import as_json_option, fresh_line
from orchestrator_server.cli.watching import watch

__all__ = ["cancel"]

_COMMAND = "orchestrator cancel"


@click.command()
@click.argument("execution")
@click.option("--path", default="", metavar="GROUP", help="One group in it. [default: the whole execution]")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Whether to stay until the execution has ended."
)
@of_server
@as_json_option
def cancel(*, execution: str, path: str, **options: Any) -> int:
    """Cancel an execution, or a group in it, on a server.

    What its nodes are doing is stopped; what they have done stays done. Of a group it is only asked: the rest of the execution goes
    on. Exit codes: 0 it was cancelled (with --no-wait, or of a group: asked for), 1 it had ended before, 2 bad usage, or the
    server has refused it or is not there, 130 interrupted.
    """
    check_execution(_COMMAND, execution)

    async def work(client: Client) -> int:
        try:
            asked = await client.call("POST", f"/executions/{execution}/cancel", {"path": path})
        except Refused as error:
            if error.word != "ended":
                raise
            return _had_ended(await client.get(f"/executions/{execution}"), options)
        if path or not options["wait"]:
            if options["as_json"]:
                say_json(asked)
            else:
                say(f"{execution} is asked to cancel {path or 'everything'}: orchestrator logs {execution} --follow")
            return 0
        await watch(client, "", execution, mode="silent")
        body = await client.get(f"/executions/{execution}")
        if body["status"] != "cancelled":
            return _had_ended(body, options)
        if options["as_json"]:
            say_json(body)
        else:
            say(f"{execution} was cancelled")
        return 0

    try:
        return with_client(_COMMAND, options, work)
    except KeyboardInterrupt:
        fresh_line(sys.stderr)
        complain(f"{_COMMAND}: interrupted: `orchestrator logs {execution}` shows whether it has ended")
        return 130


def _had_ended(body: dict[str, Any], options: dict[str, Any]) -> int:
    """There was nothing to cancel any more: say how it had ended."""
    if options["as_json"]:
        say_json(body)
    else:
        how = "was cancelled" if body["status"] == "cancelled" else f"had {body['status']}"
        complain(f"{_COMMAND}: {body['execution_id']} {how} before")
    return 1
