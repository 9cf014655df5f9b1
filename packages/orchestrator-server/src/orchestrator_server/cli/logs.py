"""``orchestrator logs``: past executions on a server, what their nodes did and wrote, and one that runs, as it goes on."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import Any

import click

from orchestrator_core.cli.text import Problem, complain, escaped, is_terminal, one_line, say, say_json, table, width_of
from orchestrator_core.codec import dump_json, format_duration, parse_time
from orchestrator_core.results import result_from_json
from orchestrator_core.types import Failure, Json, NodeIO
from orchestrator_server.cli.client import Client, check_id, of_server, with_client
from orchestrator_server.cli.output import as_json_option, fresh_line, show_rows
from orchestrator_server.cli.watching import report, watch

__all__ = ["logs"]

_COMMAND = "orchestrator logs"
_STATUSES = click.Choice(["running", "waiting", "succeeded", "failed", "cancelled"])


@click.command()
@click.argument("what", metavar="[WORKFLOW|EXECUTION]", required=False)
@click.option(
    "--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many executions to list."
)
@click.option("--status", "statuses", type=_STATUSES, multiple=True, help="Only list these; may be repeated.")
@click.option(
    "--follow", "-f", is_flag=True, help="Stay with an execution until it has ended; of a workflow the newest."
)
@of_server
@as_json_option
def logs(*, what: str | None, **options: Any) -> int:
    """List past executions, newest first, of a workflow or of all; or show one execution with its nodes and what they wrote.

    Ctrl-C ends the looking on, not the execution. With --follow and --json every event is one line.
    """
    if what is not None:
        check_id(_COMMAND, "WORKFLOW|EXECUTION", what)
    follow: bool = options["follow"]
    if follow and what is None:
        raise Problem(f"{_COMMAND}: --follow: say which execution, or the newest of which workflow")

    async def work(client: Client) -> None:
        if what is not None and what.startswith("exe_"):
            execution_id = what
        elif follow:
            execution_id = await _newest(client, str(what))
        else:
            await _list(client, what, options)
            return
        await _one(client, execution_id, follow=follow, as_json=options["as_json"])

    try:
        with_client(_COMMAND, options, work)
    except KeyboardInterrupt:
        fresh_line(sys.stderr)
        complain(f"{_COMMAND}: interrupted; what runs goes on")
        return 130
    return 0


async def _newest(client: Client, workflow: str) -> str:
    found = (await client.get(f"/executions/{workflow}/logs", limit=1))["executions"]
    if not found:
        raise Problem(f"{_COMMAND}: {workflow} has not been executed yet: orchestrator execute {workflow}")
    execution_id: str = found[0]["execution_id"]
    return execution_id


# --- many -------------------------------------------------------------------------------------------------------------


async def _list(client: Client, workflow: str | None, options: dict[str, Any]) -> None:
    path = "/executions" if workflow is None else f"/executions/{workflow}/logs"
    executions = (await client.get(path, limit=options["limit"], status=options["statuses"]))["executions"]
    if options["as_json"]:
        say_json(executions)
        return
    rows = [_row(body) for body in executions]
    left_out = {"workflow"} if workflow is not None else set()
    if not any(row["error"] for row in rows):
        left_out.add("error")
    columns = ("execution", "workflow", "version", "status", "began", "took", "error")
    none = "there are no such executions" if options["statuses"] else "nothing has been executed yet"
    show_rows(rows, tuple(name for name in columns if name not in left_out), as_json=False, none=none)


def _row(body: dict[str, Any]) -> dict[str, Json]:
    """An execution as it is listed; with its node records or without."""
    began, ended = body.get("started_at") or body.get("created_at"), body["finished_at"]
    error = body.get("error")
    return {
        "execution": body["execution_id"],
        "workflow": body["workflow"],
        "version": body["version"],
        "status": body["status"],
        "began": _moment(began),
        "took": "" if ended is None or began is None else format_duration(parse_time(ended) - parse_time(began)),
        "error": body.get("error_code") if error is None else one_line(f"{error['code']}: {error['message']}", 200),
    }


def _moment(text: str | None) -> str:
    return "" if text is None else text[:19].replace("T", " ")


# --- one --------------------------------------------------------------------------------------------------------------


async def _one(client: Client, execution_id: str, *, follow: bool, as_json: bool) -> None:
    body = await client.get(f"/executions/{execution_id}")
    if follow and as_json:
        async with aclosing(client.events(execution_id, lambda _: None)) as stream:
            async for data, _ in stream:
                say(escaped(dump_json(data), sys.stdout))
                sys.stdout.flush()
        return
    if as_json:
        say_json(body)
        return
    everything = not is_terminal(sys.stdout)
    if follow:
        await watch(client, body["workflow"], execution_id, mode="plain")
        report(await client.get(f"/executions/{execution_id}"), all_output=everything)
        return
    result = result_from_json(body)
    say(f"{execution_id} of {result.workflow}, version {result.version}, began {_moment(body['started_at'])} UTC")
    rows = [
        (record.path, record.type, record.status.value, *_times(record, result.started_at)) for record in result.nodes
    ]
    for line in table(rows, width=width_of(sys.stdout)):
        say(line)
    lines = sorted(
        ((line.at, record.path, line) for record in result.nodes for line in record.logs), key=lambda x: x[0]
    )
    for at, path, written in lines:
        say(f"{at - result.started_at:9.3f} s  {path}  {written.level}: {one_line(written.message)}")
    report(body, all_output=everything)


def _times(record: NodeIO, began: float) -> tuple[str, str, str]:
    """When it began, how long it took, and why it failed."""
    if record.started_at is None:
        return "", "", _words(record.error)
    took = "" if record.finished_at is None else format_duration(record.finished_at - record.started_at)
    return f"{record.started_at - began:.3f} s", took, _words(record.error)


def _words(error: Failure | None) -> str:
    return "" if error is None else one_line(f"{error.code}: {error.message}", 200)
