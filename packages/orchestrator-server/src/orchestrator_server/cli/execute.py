"""``orchestrator execute``: one execution on a server, with its progress before one's eyes."""

from __future__ import annotations

import sys
from typing import Any

import attrs
import click

from orchestrator_core.cli.options import parse_input
from orchestrator_core.cli.report import summarise_quietly
from orchestrator_core.cli.text import Problem, complain, is_terminal, say, say_json
from orchestrator_core.results import result_from_json
from orchestrator_core.types import ExecutionStatus
from orchestrator_server.cli.client import Client, check_id, of_server, with_client
from orchestrator_server.cli.output import as_json_option, fresh_line
from orchestrator_server.cli.watching import hints_of, report, watch

__all__ = ["execute"]

_COMMAND = "orchestrator execute"


@attrs.define
class _Running:
    """What is known of the execution when somebody interrupts."""

    id: str = ""


@click.command()
@click.argument("workflow")
@click.option(
    "--input", "-i", "input_", metavar="JSON", help="The payload: JSON, @FILE (JSON or YAML) or @- (standard input)."
)
@click.option("--version", type=click.IntRange(min=1), help="Which version. [default: the active one]")
@click.option("--start", metavar="TRIGGER", help="The trigger that starts it, where there are several.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Whether to stay until it has ended.")
@click.option("--idempotency-key", metavar="TEXT", help="The same request with the same key starts one execution.")
@click.option("--quiet", "-q", is_flag=True, help="Write the output, and nothing else; with --no-wait the id.")
@click.option("--plain", is_flag=True, help="Lines instead of the live picture, in a terminal too.")
@of_server
@as_json_option
def execute(*, workflow: str, **options: Any) -> int:
    """Run a workflow that a server has (see `orchestrator deploy`) and show its progress.

    Ctrl-C ends the looking on, not the execution. Exit codes: 0 it succeeded (with --no-wait: it was accepted), 1 it failed or
    was cancelled, 2 bad usage, or the server has refused it or is not there, 130 interrupted.
    """
    check_id(_COMMAND, "WORKFLOW", workflow)
    payload = parse_input(options["input_"])
    request = {"payload": payload, "start": options["start"], "version": options["version"]}
    headers = {"Prefer": "respond-async"}
    key = options["idempotency_key"]
    if key is not None:
        if not key.strip() or not all(" " <= character <= "~" for character in key):
            raise Problem(f"{_COMMAND}: --idempotency-key: use letters, digits and signs of ASCII")
        headers["Idempotency-Key"] = key
    running = _Running()

    async def work(client: Client) -> int:
        started = await client.call("POST", f"/executions/{workflow}/execute", request, headers=headers)
        running.id = started["execution_id"]
        if not options["wait"]:
            return _accepted(started, options)
        silent = options["as_json"] or options["quiet"]
        live = is_terminal(sys.stdout) and not options["plain"]
        await watch(client, workflow, running.id, mode="silent" if silent else "live" if live else "plain")
        return _end(await client.get(f"/executions/{running.id}"), options)

    try:
        return with_client(_COMMAND, options, work)
    except Problem as error:
        if not running.id:
            raise
        # Exit code 2 would say that nothing was started.
        raise Problem(
            *error.lines,
            f"{_COMMAND}: how it ends is not known here: orchestrator logs {running.id} --follow",
            exit_code=1,
        ) from None
    except KeyboardInterrupt:
        fresh_line(sys.stderr)
        if running.id:
            complain(f"{_COMMAND}: {running.id} goes on: orchestrator logs {running.id} --follow")
        else:
            complain(
                f"{_COMMAND}: interrupted while asking for it: `orchestrator logs {workflow}` shows whether it began"
            )
        return 130


def _accepted(started: dict[str, Any], options: dict[str, Any]) -> int:
    if options["as_json"]:
        say_json(started)
    elif options["quiet"]:
        say(started["execution_id"])
    else:
        say(f"{started['execution_id']} is {started['status']}: orchestrator logs {started['execution_id']} --follow")
    return 0


def _end(body: dict[str, Any], options: dict[str, Any]) -> int:
    result = result_from_json(body)
    if options["as_json"]:
        say_json(body)
    elif options["quiet"]:
        summarise_quietly(result, hints=hints_of(result))
    else:
        report(body, all_output=not is_terminal(sys.stdout))
    return 0 if result.status is ExecutionStatus.SUCCEEDED else 1
