"""An execution on a server before one's eyes: its events as they come, in the picture that ``orchestrator run`` shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from orchestrator_core import Workflow
from orchestrator_core.cli.display import Display, Mode
from orchestrator_core.cli.progress import Progress
from orchestrator_core.cli.report import summarise
from orchestrator_core.cli.text import complain
from orchestrator_core.errors import DocumentError
from orchestrator_core.events import Event, ExecutionStarted
from orchestrator_core.graph import Traits, make_plan
from orchestrator_core.results import result_from_json
from orchestrator_core.types import Result
from orchestrator_server.cli.client import Client, Refused

__all__ = ["hints_of", "report", "watch"]


async def watch(client: Client, workflow_id: str, execution_id: str, *, mode: Mode) -> None:
    """Show an execution from its beginning, and return when it has ended."""
    progress: Progress | None = None

    def broken(text: str) -> None:
        if mode == "live" and progress is not None:
            progress.note = text
        elif text:
            complain(f"{client.access.command}: {text}")

    async with aclosing(client.events(execution_id, broken)) as stream:
        first = await anext(stream, None)
        if first is None:
            return
        progress = await _progress_of(client, workflow_id, first[1]) if mode != "silent" else None
        if progress is None:
            async for _ in stream:
                pass
            return

        async def events() -> AsyncIterator[Event]:
            yield first[1]
            async for _, event in stream:
                yield event

        await Display(progress, mode=mode, now=client.now).show(events())


async def _progress_of(client: Client, workflow_id: str, first: Event) -> Progress | None:
    """The graph that is shown, as the server knows it; ``None`` where it cannot be had any more."""
    if not isinstance(first, ExecutionStarted):
        return None
    try:
        version = await client.get(f"/workflows/{workflow_id}/versions/{first.version}")
        types = {kind["name"]: kind for kind in (await client.get("/nodes"))["nodes"]}
        plan = make_plan(Workflow.from_dict(version["document"]), lambda name: _traits(types, name), start=first.start)
    except (Refused, DocumentError, KeyError) as error:
        complain(f"{client.access.command}: its graph cannot be shown: {error}")
        return None
    progress = Progress(plan)
    progress.on_interrupt = "leaves it running"
    return progress


def _traits(types: dict[str, Any], name: str) -> Traits:
    kind = types[name]
    return Traits(trigger=kind["trigger"], pure=kind["pure"], group=kind["group"])


def report(body: dict[str, Any], *, all_output: bool) -> Result:
    """The end of an execution for people."""
    result = result_from_json(body)
    summarise(result, hints=hints_of(result), all_output=all_output)
    return result


def hints_of(result: Result) -> list[str]:
    """What may help against a failure on a server."""
    if result.error is None:
        return []
    if result.error.code == "address_refused":
        return ["if it may be reached, the server's operator says so: the setting `allow_addresses`"]
    return [f"orchestrator logs {result.execution_id} --json shows what came into each node and went out"]
