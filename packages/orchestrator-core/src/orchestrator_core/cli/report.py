"""What is told of an execution: a line for everything that happens, and the summary at its end."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import attrs

from orchestrator_core.cli.live import Icons
from orchestrator_core.cli.progress import Happened, Progress, place_of
from orchestrator_core.cli.text import complain, one_line, plural, pretty, say, say_json
from orchestrator_core.codec import format_duration
from orchestrator_core.document import Workflow
from orchestrator_core.types import ExecutionStatus, Failure, Json, NodeStatus, Result

__all__ = [
    "STATUS_STYLES",
    "error_lines",
    "happened_line",
    "hint_for",
    "missing_hints",
    "output_text",
    "summarise",
    "summarise_quietly",
]

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
    "expired": "send the signal in time (here: --signal PATH:NAME=JSON), raise `expires`, or use `on_expiry: port`",
    "memory_limit": "the code needs more memory than it may use: work on smaller parts",
    "bad_output": "a node function returns JSON: dicts, lists, texts, numbers, booleans or None",
}
# Failures of expressions that looking at what came in does not explain.
_SAYS_ENOUGH = re.compile(r"ReferenceError|SyntaxError|is not defined|is not known|is no list|no secret|give a default")
_CALLABLE = re.compile(r"there is no callable '([^']*)'")
_MAX_OUTPUT_LINES = 40
_EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_VARIABLE = re.compile(r"\bvars(?:\.|\?\.)([A-Za-z_]\w*)")
# Failures that a value may be to blame for that was never given.
_OF_VALUES = frozenset({"expression", "bad_config", "bad_input", "bad_url", "bad_header", "exception"})
_NOTHING = re.compile(r"\bnull\b|\bundefined\b|\bNoneType\b|\bNone\b")


def happened_line(happened: Happened, progress: Progress, icons: Icons, names: int) -> str:
    """One line: when (seconds since the start), what, which node, in words."""
    offset = max(happened.at - progress.started_at, 0.0)
    kind = happened.kind
    icon = icons[kind] if isinstance(kind, NodeStatus) else icons[_ICON[kind]] if kind in _ICON else " "
    path = happened.path or progress.workflow
    return f"{offset:9.3f} s  {icon} {path:<{names}}  {one_line(happened.text)}".rstrip()


def hint_for(error: Failure) -> str:
    """What may help against a failure of this kind; empty where nothing general does."""
    if error.code == "expression" and _SAYS_ENOUGH.search(error.message):
        return ""
    return _HINTS.get(error.code, "")


def output_text(value: Json, *, lines: int | None) -> list[str]:
    """A value as indented JSON, of at most so many lines."""
    text = pretty(value)
    if lines is None or len(text) <= lines:
        return text
    return [*text[:lines], f"… ({plural(len(text) - lines, 'more line')}: --quiet or --json writes them all)"]


def missing_hints(result: Result, workflow: Workflow, *, payload_given: bool, variables: Collection[str]) -> list[str]:
    """What to give on the command line, where it failed since something needed what was not given."""
    error = result.error
    # Those of nodes whose failure was handled count too: what follows from that may fail for it.
    hints = list(dict.fromkeys(_missing_callables(result))) if error is not None else []
    if error is None or error.code not in _OF_VALUES:
        return hints
    path = error.data.get("path") if isinstance(error.data, dict) else None
    path = path if isinstance(path, str) else error.node
    # The expression that failed stands in the message; of a failure that names none, all of the node may be to blame.
    read = _EXPRESSION.findall(error.message)
    if not read and path:
        read = list(_sources(_definition(workflow.nodes, place_of(path))))
    text = "\n".join(read)
    missing = dict.fromkeys(name for name in _VARIABLE.findall(text) if name not in variables)
    if missing and error.code != "exception":
        values = " ".join(f"--var {name}=JSON" for name in missing)
        hints.append(f"vars.{' and vars.'.join(missing)} {'was' if len(missing) == 1 else 'were'} not given: {values}")
    record = next((record for record in result.nodes if record.path == path), None)
    fed = record is not None and record.input is not None
    named = re.search(r"\bpayload\b" if fed else r"\b(payload|input)\b", text)
    unnamed = not read and not fed and error.code == "exception"
    if not payload_given and _NOTHING.search(error.message) and (named or unnamed):
        hints.append("no payload was given, so `payload` is null: --input JSON, or --input @FILE")
    return hints


def _missing_callables(result: Result) -> Iterator[str]:
    """What to write for each callable that a node named and nobody gave."""
    for error in (result.error, *(record.error for record in result.nodes)):
        if error is not None and error.code == "unknown_callable":
            found = _CALLABLE.search(error.message)
            yield f"on the command line: --callable {found.group(1) if found else 'NAME'}=module:function"


def _definition(nodes: Sequence[Any], place: str) -> Any:
    """The node at a path without items and iterations, as it stands in the document; ``None`` where there is none."""
    first, _, rest = place.partition("/")
    for node in nodes:
        own = node if isinstance(node, Mapping) else attrs.asdict(node, recurse=False)
        if own.get("id") != first:
            continue
        if not rest:
            return own
        config = own.get("config")
        body = config.get("body") if isinstance(config, Mapping) else None
        inner = body.get("nodes") if isinstance(body, Mapping) else None
        return _definition(inner, rest) if isinstance(inner, list) else None
    return None


def _sources(value: Any) -> Iterator[str]:
    """The expressions in a part of a document, and the source of its code."""
    if isinstance(value, str):
        yield from _EXPRESSION.findall(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key == "source" and isinstance(item, str):
                yield item
            elif key != "body":
                yield from _sources(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sources(item)


def error_lines(result: Result, hints: Sequence[str] = ()) -> list[str]:
    """Why it failed: node and message, how often it was tried, and what may help (``hints``, or what always may)."""
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
    lines += [f"hint:  {hint}" for hint in hints or [hint_for(error)] if hint]
    return lines


def summarise(result: Result, *, hints: Sequence[str] = (), all_output: bool = False) -> None:
    """The end of a run for people: status, output, error, and the time it took."""
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
    for line in error_lines(result, hints):
        say(line, style=STATUS_STYLES["failed"] if line.startswith("error") else None)
    if result.status is ExecutionStatus.SUCCEEDED:
        text = output_text(result.output, lines=None if all_output else _MAX_OUTPUT_LINES)
        if len(text) == 1:
            say(f"output: {text[0]}")
        else:
            say("output:")
            for line in text:
                say(line)


def summarise_quietly(result: Result, *, hints: Sequence[str] = ()) -> None:
    """With ``--quiet``: the output and nothing else; what went wrong goes to standard error."""
    if result.status is ExecutionStatus.SUCCEEDED:
        say_json(result.output)
        return
    complain(f"{result.workflow} {result.status.value}")
    for line in error_lines(result, hints):
        complain(line)
