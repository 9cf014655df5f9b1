"""What commands write: lines that a terminal may safely show, problems in one line, tables that fit."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from orchestrator_core.codec import dump_json
from orchestrator_core.errors import Fault
from orchestrator_core.types import Json

__all__ = [
    "Problem",
    "check_writable",
    "clean",
    "complain",
    "escaped",
    "fault_line",
    "is_terminal",
    "json_text",
    "one_line",
    "plural",
    "pretty",
    "say",
    "say_json",
    "table",
    "width_of",
    "wrap",
]

# What a terminal would obey instead of showing: controls, C1 controls, and marks that turn the direction of text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MAX_PLACE = 120


class Problem(click.ClickException):
    """Something that the person has to put right: printed as its lines, without a traceback. Exit code 2.

    Args:
        lines: One line for each thing that is wrong: what, where, what to do.
        exit_code: 2, or 1 where an execution failed or something is broken.
    """

    def __init__(self, *lines: str, exit_code: int = 2) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.code = exit_code


def check_writable(file: str, what: str) -> None:
    """Find out whether a file can be written before there is anything to write.

    Args:
        file: Its path.
        what: How it was asked for (``--svg FILE``): the line begins with it.

    Raises:
        Problem: Its folder is not there, or the folder or the file may not be written.
    """
    path = Path(file)
    folder = path.parent
    if path.is_dir():
        reason = "it is a directory: name a file"
    elif not folder.is_dir():
        reason = f"{folder} is no directory" if folder.exists() else f"there is no folder {folder}: make it first"
    elif path.exists():
        reason = "" if os.access(path, os.W_OK) else "it may not be written"
    else:
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else f"nothing may be written in {folder}"
    if reason:
        raise Problem(f"{what}: cannot be written: {reason}")


def clean(text: str) -> str:
    """Text in which nothing steers a terminal; line breaks and tabs stay."""
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text.replace("\r\n", "\n"))


def one_line(value: Any, width: int | None = None) -> str:
    """Text, or a value as JSON, on one line of at most ``width`` characters."""
    text = value if isinstance(value, str) else json_text(value, width)
    text = clean(text).replace("\n", "\\n").replace("\t", " ")
    return text if width is None or len(text) <= width else text[: max(width - 1, 0)] + "…"


def json_text(value: Json, width: int | None = None) -> str:
    """JSON on one line; of what is far longer than ``width`` only the beginning is written at all."""
    if width is not None:
        value = _beginning(value, [width + 8])
    return dump_json(value)


def _beginning(value: Json, room: list[int]) -> Json:
    """As much of a value as may be seen in so many characters, never counted as more than it takes."""
    if isinstance(value, dict):
        shown: dict[str, Json] = {}
        for key, item in value.items():
            if room[0] <= 0:
                break
            room[0] -= len(key) + 3
            shown[key] = _beginning(item, room)
        return shown
    if isinstance(value, list):
        items: list[Json] = []
        for item in value:
            if room[0] <= 0:
                break
            room[0] -= 1
            items.append(_beginning(item, room))
        return items
    if isinstance(value, str):
        value = value[: max(room[0], 0) + 1]
        room[0] -= len(value) + 2
        return value
    room[0] -= 4 if value is None or isinstance(value, bool) else len(repr(value))
    return value


def pretty(value: Json, width: int = 88) -> list[str]:
    """JSON on indented lines; a list or object that fits on one line stands on one."""
    return escaped(_pretty(value, 0, width)).split("\n")


def _pretty(value: Json, depth: int, width: int) -> str:
    if not value or not isinstance(value, list | dict):
        return dump_json(value)
    room = width - 2 * depth
    short = json_text(value, room)
    if len(short) <= room and (whole := _spaced(value)) is not None and len(whole) <= room:
        return whole
    before, after, between = "  " * (depth + 1), "  " * depth, ",\n"
    if isinstance(value, dict):
        inner = between.join(
            f"{before}{dump_json(key)}: {_pretty(item, depth + 1, width)}" for key, item in value.items()
        )
        return f"{{\n{inner}\n{after}}}"
    inner = between.join(f"{before}{_pretty(item, depth + 1, width)}" for item in value)
    return f"[\n{inner}\n{after}]"


def _spaced(value: Json) -> str | None:
    """On one line with spaces after commas and colons; ``None`` for objects in objects, which read better on lines."""
    if isinstance(value, dict):
        if any(isinstance(item, dict) and item for item in value.values()):
            return None
        parts = [f"{dump_json(key)}: {_spaced(item)}" for key, item in value.items()]
        return f"{{{', '.join(parts)}}}"
    if isinstance(value, list):
        return f"[{', '.join(_spaced(item) or dump_json(item) for item in value)}]"
    return dump_json(value)


def fault_line(file: str, fault: Fault) -> str:
    """``FILE:LINE: $.place: what and what to do``."""
    line = f":{fault.line}" if fault.line is not None else ""
    place = fault.place if len(fault.place) <= _MAX_PLACE else f"{fault.place[:_MAX_PLACE]}…"
    name = "standard input" if file == "-" else file
    return clean(f"{name}{line}: {place}: {fault.message}").replace("\n", " ")


def say_json(value: Json) -> None:
    """Write a value as JSON that any program reads, and any terminal may show."""
    click.echo(escaped(dump_json(value, indent=2), sys.stdout))


def escaped(text: str, stream: TextIO | None = None) -> str:
    """JSON text in which what would steer a terminal, or what a stream cannot write, is escaped as JSON has it."""
    text = _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
    if stream is not None and (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8":
        text = "".join(character if character.isascii() else json.dumps(character)[1:-1] for character in text)
    return text


def say(text: str = "", *, style: dict[str, Any] | None = None) -> None:
    """Write a line to standard output; ``style`` is what :func:`click.style` takes, for terminals that want colour."""
    _write(sys.stdout, text, style)


def complain(text: str, *, style: dict[str, Any] | None = None) -> None:
    """Write a line to standard error."""
    _write(sys.stderr, text, style)


def _write(stream: TextIO, text: str, style: dict[str, Any] | None) -> None:
    plain = _encodable(clean(text), stream)
    coloured = style is not None and is_terminal(stream) and not os.environ.get("NO_COLOR")
    click.echo(click.style(plain, **style) if coloured and style else plain, file=stream)


def _encodable(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding) if encoding.lower() != "utf-8" else text


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at the stream, in a terminal that knows more than lines."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # it has been closed
        return False


def width_of(stream: TextIO) -> int | None:
    """The columns of the terminal; ``None`` where there is none, and lines may be as long as they are."""
    if not is_terminal(stream):
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def plural(number: int, word: str) -> str:
    """``1 node``, ``3 nodes``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def table(rows: Iterable[Sequence[str]], *, width: int | None, indent: str = "  ") -> list[str]:
    """Rows as aligned columns; the last column is cut where the line is longer than ``width``."""
    listed = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    if not listed:
        return []
    widths = [max(len(row[column]) for row in listed) for column in range(len(listed[0]))]
    lines = []
    for row in listed:
        cells = [cell.ljust(size) for cell, size in zip(row[:-1], widths, strict=False)]
        line = (indent + "  ".join([*cells, row[-1]])).rstrip()
        lines.append(line if width is None or len(line) <= width else line[: width - 1] + "…")
    return lines


def wrap(text: str, *, width: int | None, indent: str = "  ") -> list[str]:
    """Paragraphs broken into lines of at most ``width`` (88 where it does not matter)."""
    room = max(min(width or 88, 100), 30)
    wrapped = click.wrap_text(
        clean(text), room, initial_indent=indent, subsequent_indent=indent, preserve_paragraphs=True
    )
    return wrapped.splitlines()
