"""What is told of an execution: a line for everything that happens, and the summary at its end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from orchestrator_core.cli.live import Icons
from orchestrator_core.cli.progress import Happened, Progress
from orchestrator_core.cli.text import complain, one_line, plural, pretty, say, say_json
from orchestrator_core.codec import format_duration
from orchestrator_core.types import ExecutionStatus, Json, NodeStatus, Result

__all__ = ["STATUS_STYLES", "error_lines", "happened_line", "hint_for", "output_text", "summarise"]

# As click.style takes them; the words beside say the same.
STATUS_STYLES: Mapping[str, dict[str, Any]] = {
    "succeeded": {"fg": "green"},
    "failed": {"fg": "red", "bold": True},
    "cancelled": {"fg": "magenta"},
    "skipped": {"dim": True},
    "waiting": {"fg": "yellow"},
    "wait": {"fg": "yellow"},
    "again": {"fg": "yellow"},
    "log": {"dim": True},
}
_ICON = {
    "start": NodeStatus.RUNNING,
    "again": NodeStatus.RUNNING,
    "wait": NodeStatus.WAITING,
}
# What may help against a failure, by its code; the message itself says what was wrong.
_HINTS = {
    "timeout": "raise the `timeout`, or look at why it takes so long",
    "expression": "try the expression's parts: `orchestrator run … --json` shows what came in as `input`",
    "address_refused": "if it may be reached: --allow-address HOST",
    "loop_exhausted": "raise `max_iterations`, or look at why `until` does not become true",
    "unknown_callable": "on the command line: --callable NAME=module:function",
    "expired": "send the signal in time (here: --signal PATH:NAME=JSON), raise `expires`, or use `on_expiry: port`",
    "memory_limit": "the code needs more memory than it may use: work on smaller parts",
    "bad_output": "a node function returns JSON: dicts, lists, texts, numbers, booleans or None",
}
_MAX_OUTPUT_LINES = 40


def happened_line(happened: Happened, progress: Progress, icons: Icons, names: int) -> str:
    """One line: when (seconds since the start), what, which node, in words."""
    offset = max(happened.at - progress.started_at, 0.0)
    kind = happened.kind
    icon = icons[kind] if isinstance(kind, NodeStatus) else icons[_ICON[kind]] if kind in _ICON else " "
    path = happened.path or progress.workflow
    return f"{offset:9.3f} s  {icon} {path:<{names}}  {one_line(happened.text)}".rstrip()


def hint_for(code: str) -> str:
    """What may help against a failure with this code; empty where nothing general does."""
    return _HINTS.get(code, "")


def output_text(value: Json, *, lines: int | None) -> list[str]:
    """A value as indented JSON, of at most so many lines."""
    text = pretty(value)
    if lines is None or len(text) <= lines:
        return text
    return [*text[:lines], f"… ({plural(len(text) - lines, 'more line')}: --quiet or --json writes them all)"]


def error_lines(result: Result) -> list[str]:
    """Why it failed: node and message, how often it was tried, and what may help."""
    error = result.error
    if error is None:
        return []
    where = f"node {error.node!r}" if error.node else "the execution"
    path = error.data.get("path") if isinstance(error.data, dict) else None
    if isinstance(path, str) and path != error.node:
        where += f" (in {path})"
    attempts = f" after {error.attempt} attempts" if error.attempt > 1 else ""
    lines = [f"error: {where} failed{attempts}: {error.code}: {one_line(error.message, 2000)}"]
    if isinstance(error.data, dict) and isinstance(error.data.get("line"), int):
        snippet = error.data.get("snippet")
        lines.append(f"       line {error.data['line']}" + (f": {one_line(snippet, 200)}" if snippet else ""))
    if hint := hint_for(error.code):
        lines.append(f"hint:  {hint}")
    return lines


def summarise(result: Result, *, stream: TextIO | None = None, all_output: bool = False) -> None:
    """The end of a run for people: status, output, error, and the time it took."""
    stream = stream or sys.stdout
    took = "" if result.finished_at is None else f" in {format_duration(result.finished_at - result.started_at)}"
    counts: dict[str, int] = {}
    for record in result.nodes:
        if "/" not in record.path:
            counts[record.status.value] = counts.get(record.status.value, 0) + 1
    counted = ", ".join(f"{number:,} {status}" for status, number in counts.items())
    style = STATUS_STYLES.get(result.status.value)
    say(
        f"{result.workflow} {result.status.value}{took}: {plural(sum(counts.values()), 'node')} ({counted})",
        style=style,
    )
    for line in error_lines(result):
        say(line, style=STATUS_STYLES["failed"] if line.startswith("error") else None)
    if result.status is ExecutionStatus.SUCCEEDED:
        text = output_text(result.output, lines=None if all_output else _MAX_OUTPUT_LINES)
        if len(text) == 1:
            say(f"output: {text[0]}")
        else:
            say("output:")
            for line in text:
                say(line)


def summarise_quietly(result: Result) -> None:
    """With ``--quiet``: the output and nothing else; what went wrong goes to standard error."""
    if result.status is ExecutionStatus.SUCCEEDED:
        say_json(result.output)
        return
    complain(f"{result.workflow} {result.status.value}")
    for line in error_lines(result):
        complain(line)
