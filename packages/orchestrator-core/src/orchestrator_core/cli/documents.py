"""Reading workflow files for commands: every fault with its line, for JSON as well as for YAML."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from orchestrator_core import codec
from orchestrator_core.cli.text import Problem, fault_line
from orchestrator_core.codec import child_place
from orchestrator_core.document import Workflow, with_lines
from orchestrator_core.errors import DocumentError, Fault
from orchestrator_core.types import Json
from orchestrator_core.yaml_text import Lines, parse_yaml

__all__ = ["Loaded", "json_lines", "load", "load_for", "places", "read_bytes", "read_value"]

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[\[\]{},:]|\n|[^\s"\[\]{},:]+')
_NO_VALUES = frozenset({"NaN", "Infinity", "-Infinity"})


@attrs.frozen
class Loaded:
    """A workflow file: the workflow where it can be read, what is wrong otherwise, and the line of every place.

    ``value`` is the JSON value in the file, where it holds one.
    """

    file: str
    workflow: Workflow | None
    faults: tuple[Fault, ...]
    lines: Lines
    value: Json = None

    def problem(self, faults: Iterable[Fault] = ()) -> Problem:
        """The faults, each with its line, as what a command ends with."""
        return Problem(
            *(fault_line(self.file, fault) for fault in (*self.faults, *with_lines(list(faults), self.lines)))
        )


def read_bytes(file: str) -> bytes:
    """The content of a file; ``-`` is standard input.

    Raises:
        Problem: It cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except FileNotFoundError:
        raise Problem(f"{file}: there is no such file") from None
    except IsADirectoryError:
        raise Problem(f"{file}: is a directory: name a file") from None
    except OSError as error:
        raise Problem(f"{file}: cannot be read: {error.strerror or error}") from None


def read_value(file: str) -> tuple[Json, Lines]:
    """The JSON value in a JSON or YAML file, and the line of every place in it.

    Raises:
        Problem: The file cannot be read.
        DocumentError: It is neither JSON nor YAML.
    """
    data = read_bytes(file)
    if not data.strip():
        raise DocumentError([Fault("is empty: write a document", line=1)])
    if not data.startswith((b"\xff\xfe", b"\xfe\xff")):  # YAML may be UTF-16; whatever has no such mark is UTF-8
        _check_utf8(data)
    suffix = Path(file).suffix.lower()
    if suffix in {".yaml", ".yml"} or (suffix != ".json" and data.lstrip()[:1] not in {b"{", b"["}):
        return parse_yaml(data)
    try:
        value = codec.parse_json(data)
    except DocumentError as error:
        raise DocumentError(_placed(error.faults, data)) from None
    return value, json_lines(data.decode("utf-8-sig"))[0]


def _check_utf8(data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8: byte {data[error.start]:#04x}; save the file as UTF-8"
        raise DocumentError([Fault(message, line=line)]) from None


def load(file: str) -> Loaded:
    """Read a workflow, or find everything that is wrong with its text and its graph.

    Raises:
        Problem: The file cannot be read.
    """
    value: Json = None
    lines: Lines = {}
    try:
        value, lines = read_value(file)
        return Loaded(file, Workflow.from_dict(value), (), lines, value)
    except DocumentError as error:
        return Loaded(file, None, tuple(with_lines(error.faults, lines)), lines, value)


def load_for(file: str) -> tuple[Loaded, Workflow]:
    """Read a workflow that a command is about to use.

    Raises:
        Problem: The file cannot be read, or holds no workflow.
    """
    loaded = load(file)
    if loaded.workflow is None:
        raise loaded.problem()
    return loaded, loaded.workflow


def _placed(faults: Sequence[Fault], data: bytes) -> list[Fault]:
    """The strict reader of JSON knows the line of syntax only; what stands twice, or has no value, is looked up here."""
    lines, first = json_lines(data.decode("utf-8-sig"))
    if first is not None and all(fault.line is None and fault.place == "$" for fault in faults):
        return [first]
    return [fault if fault.place == "$" else with_lines([fault], lines)[0] for fault in faults]


def json_lines(text: str) -> tuple[dict[str, int], Fault | None]:
    """The line (from 1) of every place of a JSON text, and the first thing in it that JSON's grammar does not refuse but we do.

    That is a key that stands twice in an object, or ``NaN`` and the like. Of a text that is no JSON the lines are what
    they seem.
    """
    lines: dict[str, int] = {}
    faults: list[Fault] = []
    line = 1
    # What is open: its place, its kind, and the index or key of the value that comes next.
    stack: list[list[Any]] = []
    for match in _TOKEN.finditer(text):
        word = match.group()
        if word == "\n":
            line += 1
        elif word in "]}":
            if stack:
                stack.pop()
        elif word == ",":
            if stack:
                around: list[Any] = stack[-1]
                around[2] = around[2] + 1 if around[1] == "[" else None
        elif word != ":":
            top = stack[-1] if stack else None
            if top is not None and top[1] == "{" and top[2] is None:
                top[2] = key = _key(word)
                if (place := child_place(top[0], key)) in lines:
                    faults.append(Fault(f"key {key!r} stands twice in one object: remove one", place, line))
                continue
            place = "$" if top is None else child_place(top[0], top[2])
            lines[place] = line
            if word in _NO_VALUES:
                faults.append(Fault(f"{word} is not JSON: use null or a text", place, line))
            if word in "[{":
                stack.append([place, word, 0 if word == "[" else None])
    return lines, faults[0] if faults else None


def _key(token: str) -> str:
    try:
        return str(json.loads(token))
    except ValueError:
        return token


# --- what stands inside ---------------------------------------------------------------------------------------------


def places(nodes: Sequence[Any], prefix: str = "") -> Iterator[str]:
    """Every node of a graph and of the bodies in it, as a path without items and iterations: ``poll/fetch``."""
    for node in nodes:
        own = node if isinstance(node, Mapping) else attrs.asdict(node, recurse=False)
        if not isinstance(own.get("id"), str):
            continue
        yield prefix + own["id"]
        config = own.get("config")
        body = config.get("body") if isinstance(config, Mapping) else None
        if (
            isinstance(body, Mapping)
            and isinstance(body.get("nodes"), list)
            and own.get("type") in {"loop", "workflow"}
        ):
            yield from places(body["nodes"], f"{prefix}{own['id']}/")
