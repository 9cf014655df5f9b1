"""``orchestrator run``: one execution in this process, with its progress before one's eyes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import attrs
import click
from rich.console import Console
from rich.live import Live

from orchestrator_core.cli import live, options
from orchestrator_core.cli.documents import Loaded, load_for
from orchestrator_core.cli.progress import Progress, wait_text
from orchestrator_core.cli.report import STATUS_STYLES, happened_line, summarise, summarise_quietly
from orchestrator_core.cli.text import Problem, complain, fault_line, is_terminal, say, say_json
from orchestrator_core.codec import format_duration
from orchestrator_core.document import Workflow
from orchestrator_core.engine import Clock, Engine, Execution
from orchestrator_core.errors import DocumentError, Fault, IllegalEvent
from orchestrator_core.nodes import HttpPolicy
from orchestrator_core.picture import svg
from orchestrator_core.results import result_to_json
from orchestrator_core.types import ExecutionStatus, Json, Pins, Result

__all__ = ["run"]

_FRAME = 0.1  # seconds between two frames
# Seconds without an event before an execution whose waits nobody can end is given up.
_QUIET = 0.2
# Seconds after which a cancelled execution is not waited for any longer.
_PATIENCE = 10.0


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
    mode: str  # "live", "plain" or "silent"


@attrs.define
class Interrupts:
    """How often Ctrl-C was pressed; the first time ends the execution, the second time everything."""

    loop: asyncio.AbstractEventLoop
    event: asyncio.Event = attrs.field(factory=asyncio.Event)
    code: int = 0

    def on_signal(self, number: int, _: FrameType | None) -> None:
        if self.code:
            os.write(
                2,
                b"\x1b[?25h\norchestrator: exits at once\n"
                if sys.stderr.isatty()
                else b"orchestrator: exits at once\n",
            )
            os._exit(self.code)
        self.code = 128 + number
        self.loop.call_soon_threadsafe(self.event.set)


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
    loaded, workflow = load_for(file)
    if given["input_"] == "@-" and file == "-":
        raise Problem("orchestrator run: standard input cannot be both the workflow and the payload")
    timeout = options.parse_timeout(given["timeout"])
    if timeout is not None:
        workflow = attrs.evolve(workflow, settings=attrs.evolve(workflow.settings, timeout=timeout))
    order = Order(
        loaded=loaded,
        workflow=workflow,
        payload=options.parse_input(given["input_"]),
        start=given["start"],
        pins=options.parse_pins(given["pins"], workflow),
        seed=given["seed"],
        signals=options.parse_signals(given["signals"], workflow),
        mode=_mode(given),
    )
    engine = Engine(
        callables=options.parse_callables(given["callables"]),
        workflows=[load_for(name)[1] for name in given["stored"]],
        secrets=options.parse_secrets(given["secrets"]),
        variables=options.parse_vars(given["variables"]),
        http=HttpPolicy(allow=options.parse_address(given["addresses"])),
    )
    result, code = anyio.run(_run, engine, order)
    if given["as_json"]:
        say_json(result_to_json(result))
    elif given["quiet"]:
        summarise_quietly(result)
    else:
        summarise(result, all_output=not is_terminal(sys.stdout))
    if given["picture"]:
        _draw(given["picture"], workflow, result)
    return code or (0 if result.status is ExecutionStatus.SUCCEEDED else 1)


def _mode(given: dict[str, Any]) -> str:
    if given["as_json"] or given["quiet"]:
        return "silent"
    return "live" if is_terminal(sys.stdout) and not given["plain"] else "plain"


def _draw(file: str, workflow: Workflow, result: Result) -> None:
    details = {
        record.path: format_duration(record.finished_at - record.started_at)
        for record in result.nodes
        if record.finished_at is not None and record.started_at is not None
    }
    status = {record.path: record.status for record in result.nodes}
    text = svg(workflow.nodes, workflow.edges, title=workflow.name or workflow.id, status=status, details=details)
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Problem(f"--svg {file}: cannot be written: {error.strerror or error}") from None


# --- the execution --------------------------------------------------------------------------------------------------


async def _run(engine: Engine, order: Order) -> tuple[Result, int]:
    """Run to the end (or to where it can go no further) and return the result and a code for interruption, or 0."""
    async with engine:
        faults = engine.validate(order.workflow)
        if faults:
            raise order.loaded.problem(faults)
        try:
            plan = engine.plan(order.workflow, order.start)
        except DocumentError as error:
            raise Problem(*(_plan_line(order, fault) for fault in error.faults)) from None
        progress = Progress(plan)
        interrupts = Interrupts(asyncio.get_running_loop())
        with _catching(interrupts):
            execution = await engine.start(
                order.workflow, order.payload, start=order.start, pins=order.pins, seed=order.seed
            )
            for number, message in enumerate(order.signals):
                try:
                    await execution.signal(message.path, message.name, message.payload, id=f"cli-{number}")
                except IllegalEvent as error:
                    raise Problem(f"--signal {message.path}:{message.name}: {error}") from None
            watch = _Watch(execution, progress, interrupts, order.mode, engine.clock)
            asyncio.get_running_loop().set_exception_handler(watch.on_loop_error)
            await watch.until_the_end()
            return execution.snapshot() if watch.given_up else await execution.result(), interrupts.code


def _plan_line(order: Order, fault: Fault) -> str:
    if fault.place == "$.start":
        return f"{order.loaded.file}: {fault.message} (--start)"
    return fault_line(order.loaded.file, fault)


@contextmanager
def _catching(interrupts: Interrupts) -> Iterator[None]:
    """Ctrl-C (and SIGTERM) come to us while this lasts."""
    kinds = [signal.SIGINT, signal.SIGTERM]
    try:
        before = {kind: signal.signal(kind, interrupts.on_signal) for kind in kinds}
    except ValueError:  # not the main thread: whoever embeds us handles signals
        before = {}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


class _Watch:
    """Follows an execution to its end and shows it meanwhile."""

    def __init__(
        self, execution: Execution, progress: Progress, interrupts: Interrupts, mode: str, clock: Clock
    ) -> None:
        self.execution = execution
        self.progress = progress
        self.interrupts = interrupts
        self.mode = mode
        self.clock = clock
        self.done = anyio.Event()
        self.stuck = False
        self.given_up = False  # it has not ended, and is not waited for any longer
        self.failure: BaseException | None = None
        self._names = min(max((len(row.place) for row in progress.rows), default=8), 28)
        self._icons = live.icons_for(getattr(sys.stdout, "encoding", None) or "ascii")

    async def until_the_end(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._interrupted)
            group.start_soon(self._stalled)
            if self.mode == "live":
                group.start_soon(self._draw)
            else:
                group.start_soon(self._follow)
            await self.done.wait()
            group.cancel_scope.cancel()
        if self.failure is not None:
            raise self.failure
        if self.stuck:
            self._say_what_it_waits_for()

    def on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that no task took: one of the engine's own ends the run, for it would never end otherwise."""
        error = context.get("exception")
        coroutine = getattr(context.get("future"), "get_coro", lambda: None)()
        if error is not None and getattr(coroutine, "__qualname__", "").startswith("Engine."):
            self.failure = self.failure or error
            self.done.set()
        else:
            complain(
                f"orchestrator: {context.get('message')}" + (f": {type(error).__name__}: {error}" if error else "")
            )

    async def _follow(self) -> None:
        progress = self.progress
        async for event in self.execution.events():
            progress.apply(event)
            if self.mode == "plain":
                for happened in progress.happened:
                    line = happened_line(happened, progress, self._icons, self._names)
                    say(line, style=STATUS_STYLES.get(str(happened.kind)))
            progress.happened.clear()
        self.done.set()

    async def _draw(self) -> None:
        console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as picture:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._fold, group.cancel_scope)
                    await self._frames(console, picture)
            finally:
                self._show(console, picture)
        self.done.set()

    async def _fold(self, scope: anyio.CancelScope) -> None:
        async for event in self.execution.events():
            self.progress.apply(event)
            self.progress.happened.clear()
        scope.cancel()

    async def _frames(self, console: Console, picture: Live) -> None:
        """Draw whenever something happened, and as long as times go on; ten times a second at most."""
        progress, shown, size = self.progress, -1, console.size
        while True:
            if progress.serial != shown or progress.active or console.size != size:
                shown, size = progress.serial, console.size
                self._show(console, picture)
            await anyio.sleep(_FRAME)

    def _show(self, console: Console, picture: Live) -> None:
        size = console.size
        now = self.clock.time()
        picture.update(
            live.frame(self.progress, now=now, width=size.width, height=size.height, icons=self._icons), refresh=True
        )

    async def _interrupted(self) -> None:
        await self.interrupts.event.wait()
        if self.mode != "live":
            complain("orchestrator: cancelling the execution; once more exits at once")
        await self.execution.cancel()
        await anyio.sleep(_PATIENCE)
        self.given_up = True
        self.done.set()

    async def _stalled(self) -> None:
        """Nobody outside can send a signal to an execution in this process: where only that is left, say so and end."""
        progress = self.progress
        while True:
            before = progress.serial
            await anyio.sleep(_QUIET)
            waiting = self.execution.status is ExecutionStatus.WAITING
            if waiting and progress.stuck and progress.serial == before and not self.interrupts.code:
                self.stuck = self.given_up = True
                self.done.set()
                return

    def _say_what_it_waits_for(self) -> None:
        now = self.progress.started_at
        for path, wait in sorted(self.progress.waits.items()):
            complain(
                f"{path} waits {wait_text(wait, now)}: run it again with --signal {path}:{wait.signal}=JSON "
                "to send it up front"
            )
