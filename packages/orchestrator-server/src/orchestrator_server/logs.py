"""The log of the server's processes: one record a line on standard error, as text for people or as JSON for programs.

Records are tagged with what they are about: :data:`TAGS`, given as ``extra`` by whoever logs. No context is asked for them: a task
serves many tenants. Of libraries only warnings are shown, whatever the level: what they say in detail may hold data.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from orchestrator_server.settings import Settings

__all__ = ["TAGS", "GatheringHandler", "JsonFormatter", "TextFormatter", "configure"]

TAGS: Final = ("tenant", "execution", "request", "principal", "method", "route", "status", "seconds")
"""The tags of records, in the order in which they are shown."""

_OWN: Final = ("orchestrator", "orchestrator_core", "orchestrator_nodes_std", "orchestrator_server")
# What would end a line, or move a terminal's cursor.
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)} | {
    10: "\\n",
    9: "\\t",
}


# One encoder kept: json.dumps with options makes a new one for each call.
_as_json: Final = json.JSONEncoder(default=str).encode


def _tags(record: logging.LogRecord) -> dict[str, Any]:
    given = record.__dict__
    return {name: given[name] for name in TAGS if given.get(name) is not None}


class JsonFormatter(logging.Formatter):
    """One object of JSON a record: ``time``, ``level``, ``logger``, ``message``, the tags, and ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        """See :class:`logging.Formatter`."""
        shown: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_tags(record),
        }
        if record.exc_info:
            shown["exception"] = self.formatException(record.exc_info)
        return _as_json(shown)


class TextFormatter(logging.Formatter):
    """Time, level, logger, message, tags; a traceback follows on indented lines."""

    def format(self, record: logging.LogRecord) -> str:
        """See :class:`logging.Formatter`."""
        parts = [_time(record), f"{record.levelname:<7}", record.name, record.getMessage()]
        parts += [f"{name}={value}" for name, value in _tags(record).items()]
        line = " ".join(parts).translate(_CONTROL)
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *(f"    {part.translate(_CONTROL)}" for part in trace)])
        return line


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Writes what is logged in one pass of an event loop at its end, in one piece; warnings, and what threads log, at once.

    A busy server logs many requests in a pass. Each write costs a system call, and lets other threads take the interpreter.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._due: asyncio.AbstractEventLoop | None = None  # at the end of whose pass they are written

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        try:
            self._lines.append(self.format(record) + self.terminator)
            loop = None if record.levelno >= logging.WARNING else _running_loop()
            if loop is None:
                self.flush()
            elif self._due is not loop:
                self._due = loop
                loop.call_soon(self._flush_quietly)
        except Exception:  # noqa: BLE001 - as every handler of `logging`
            self.handleError(record)

    def flush(self) -> None:
        """Write what there is."""
        with self.lock or contextlib.nullcontext():
            lines, self._lines, self._due = self._lines, [], None
            if lines:
                self._write(lines)
            super().flush()

    def _write(self, lines: list[str]) -> None:
        try:
            self.stream.write("".join(lines))
        except UnicodeEncodeError:  # one of them; nothing is written yet
            for line in lines:
                self.stream.write(line.encode("ascii", "backslashreplace").decode())

    def _flush_quietly(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            self.flush()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # a thread's, or trio's
        return None


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Let this process log as the settings say. What was configured before is replaced.

    Args:
        settings: The settings.
        stream: Where to; standard error unless given.
    """
    # What no line shows need not be found out for each record: see "Optimization" in Python's documentation of `logging`.
    logging._srcfile = None  # noqa: SLF001 - it says so there
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    out = sys.stderr if stream is None else stream
    kind: Literal["auto", "text", "json"] = settings.log_format
    as_text = out.isatty() if kind == "auto" else kind == "text"
    handler = GatheringHandler(out)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    for name in _OWN:
        logging.getLogger(name).setLevel(level)
