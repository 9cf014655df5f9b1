"""``orchestrator run``: one execution in this process, with its progress before one's eyes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs
import click

from orchestrator_core.cli import options
from orchestrator_core.cli.display import Mode
from orchestrator_core.cli.documents import Loaded, load_for
from orchestrator_core.cli.progress import Progress
from orchestrator_core.cli.report import missing_hints, summarise, summarise_quietly
from orchestrator_core.cli.text import Problem, check_writable, complain, fault_line, is_terminal, say_json
from orchestrator_core.cli.watch import Closing, Interrupts, Watch, catching
from orchestrator_core.codec import format_duration
from orchestrator_core.document import Workflow
from orchestrator_core.engine import Engine
from orchestrator_core.errors import DocumentError, Fault, IllegalEvent
from orchestrator_core.graph import Plan
from orchestrator_core.nodes import HttpPolicy
from orchestrator_core.picture import svg
from orchestrator_core.results import result_to_json
from orchestrator_core.types import ExecutionStatus, Json, Pins, Result

__all__ = ["run"]

# What else a picture's name may end with; whoever writes that wants another kind of picture.
_OTHER_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf", ".dot", ".gv", ".mmd", ".md"})

# Seconds that closing the engine may take after a fault.
_GRACE = 1.0


@attrs.frozen
class Order:
    """What is to be run, and how it is to be shown."""

    loaded: Loaded
    workflow: Workflow
    payload: Json
    start: str | None
    pins: Pins
    seed: int | None
    signals: Sequence[options.Signal]
    mode: Mode
    report: Callable[[Result], None]  # writes what the command ends with


@click.command(short_help="Run a workflow and show its progress.")
@click.argument("file")
@click.option(
    "--input", "-i", "input_", metavar="JSON", help="The payload: JSON, @FILE (JSON or YAML) or @- (standard input)."
)
@click.option("--start", metavar="TRIGGER", help="The trigger that starts it, where there are several.")
@click.option(
    "--pin",
    "pins",
    multiple=True,
    metavar="PATH=JSON",
    help="A node gives this instead of running; PATH:PORT=JSON for another port.",
)
@click.option(
    "--signal", "signals", multiple=True, metavar="PATH:NAME=JSON", help="A message for a node that will wait for it."
)
@click.option("--seed", type=int, help="Makes what is random reproducible.")
@click.option("--var", "variables", multiple=True, metavar="NAME=JSON", help="What {{ vars.NAME }} stands for.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME=@env:VAR",
    help="What {{ secrets.NAME }} stands for; also @file:PATH.",
)
@click.option(
    "--callable", "callables", multiple=True, metavar="NAME=module:function", help="What a `call` node may name."
)
@click.option(
    "--workflow", "stored", multiple=True, metavar="FILE", help="A stored workflow that `workflow` nodes may name."
)
@click.option(
    "--allow-address",
    "addresses",
    multiple=True,
    metavar="HOST|NETWORK",
    help="HTTP may reach it although it is private.",
)
@click.option(
    "--timeout", metavar="DURATION", help="For the whole execution, instead of the document's: 30, 15m, 1h30m."
)
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON, and nothing else.")
@click.option("--quiet", "-q", is_flag=True, help="Write the output, and nothing else.")
@click.option("--plain", is_flag=True, help="Lines instead of the live picture, in a terminal too.")
@click.option("--svg", "picture", metavar="FILE", help="Write a picture of the graph as it ended.")
def run(file: str, **given: Any) -> int:
    """Run the workflow in FILE (JSON or YAML; - is standard input) and show its progress.

    Exit codes: 0 it succeeded, 1 it failed, was cancelled or waits for a signal that nobody can send here,
    2 bad usage or a bad document, 130 interrupted.
    """
    picture = given["picture"]
    if picture:
        _check_picture(picture)
    loaded, workflow = load_for(file)
    if given["input_"] == "@-" and file == "-":
        raise Problem("orchestrator run: standard input cannot be both the workflow and the payload")
    timeout = options.parse_timeout(given["timeout"])
    if timeout is not None:
        workflow = attrs.evolve(workflow, settings=attrs.evolve(workflow.settings, timeout=timeout))
    variables = options.parse_vars(given["variables"])

    def report(result: Result) -> None:
        hints = missing_hints(result, workflow, payload_given=given["input_"] is not None, variables=variables)
        if given["as_json"]:
            say_json(result_to_json(result))
        elif given["quiet"]:
            summarise_quietly(result, hints=hints)
        else:
            summarise(result, hints=hints, all_output=not is_terminal(sys.stdout))
        if picture:
            _draw(picture, workflow, result)

    order = Order(
        loaded=loaded,
        workflow=workflow,
        payload=options.parse_input(given["input_"]),
        start=given["start"],
        pins=options.parse_pins(given["pins"], workflow),
        seed=given["seed"],
        signals=options.parse_signals(given["signals"], workflow),
        mode=_mode(given),
        report=report,
    )
    engine = Engine(
        callables=options.parse_callables(given["callables"]),
        workflows=[load_for(name)[1] for name in given["stored"]],
        secrets=options.parse_secrets(given["secrets"]),
        variables=variables,
        http=HttpPolicy(allow=options.parse_address(given["addresses"])),
    )
    result, code = anyio.run(_run, engine, order)
    report(result)
    return code or (0 if result.status is ExecutionStatus.SUCCEEDED else 1)


def _mode(given: dict[str, Any]) -> Mode:
    if given["as_json"] or given["quiet"]:
        return "silent"
    return "live" if is_terminal(sys.stdout) and not given["plain"] else "plain"


def _check_picture(file: str) -> None:
    suffix = Path(file).suffix.lower()
    if suffix in _OTHER_PICTURES:
        raise Problem(f"--svg {file}: it writes SVG: name the file {Path(file).with_suffix('.svg')}")
    check_writable(file, f"--svg {file}")


def _draw(file: str, workflow: Workflow, result: Result) -> None:
    details = {
        record.path: format_duration(record.finished_at - record.started_at)
        for record in result.nodes
        if record.finished_at is not None and record.started_at is not None
    }
    status = {record.path: record.status for record in result.nodes}
    ports = {record.path: record.outputs.keys() for record in result.nodes}
    title = workflow.name or workflow.id
    text = svg(workflow.nodes, workflow.edges, title=title, status=status, details=details, ports=ports)
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Problem(f"--svg {file}: cannot be written: {error.strerror or error}") from None


# --- the execution --------------------------------------------------------------------------------------------------


async def _run(engine: Engine, order: Order) -> tuple[Result, int]:
    """Run to the end (or to where it can go no further) and return the result and a code for interruption, or 0."""
    await engine.__aenter__()
    closing = Closing(engine)
    interrupts = Interrupts(asyncio.get_running_loop())
    try:
        progress = Progress(_plan(engine, order))
        with catching(interrupts):
            result = await _execute(engine, order, progress, closing, interrupts)
            await asyncio.shield(closing.begin())
    finally:
        # After a fault of the engine itself what it runs may not end: nobody shall wait long to read of it.
        await asyncio.wait({closing.begin()}, timeout=_GRACE)
    return result, interrupts.code


def _plan(engine: Engine, order: Order) -> Plan:
    faults = engine.validate(order.workflow)
    if faults:
        raise order.loaded.problem(faults)
    try:
        return engine.plan(order.workflow, order.start)
    except DocumentError as error:
        raise Problem(*(_plan_line(order, fault) for fault in error.faults)) from None


async def _execute(
    engine: Engine, order: Order, progress: Progress, closing: Closing, interrupts: Interrupts
) -> Result:
    execution = await engine.start(order.workflow, order.payload, start=order.start, pins=order.pins, seed=order.seed)
    for number, message in enumerate(order.signals):
        try:
            await execution.signal(message.path, message.name, message.payload, id=f"cli-{number}")
        except IllegalEvent as error:
            raise Problem(f"--signal {message.path}:{message.name}: {error}") from None
    watch = Watch(
        execution,
        progress,
        interrupts,
        mode=order.mode,
        clock=engine.clock,
        kinds=engine.registry.node_types,
        closing=closing,
    )
    asyncio.get_running_loop().set_exception_handler(watch.on_loop_error)
    await watch.until_the_end()
    if watch.abandoned:
        _abandon(order, await execution.snapshot(), interrupts.code)
    return await execution.snapshot() if watch.stuck else await execution.result()


def _abandon(order: Order, result: Result, code: int) -> None:
    """Report and end the process: what does not end cannot be stopped, and the event loop would wait for it."""
    order.report(result)
    complain("orchestrator: exits although something still runs")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _plan_line(order: Order, fault: Fault) -> str:
    if fault.place == "$.start":
        return f"{order.loaded.file}: {fault.message} (--start)"
    return fault_line(order.loaded.file, fault)
