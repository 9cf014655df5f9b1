"""Results as JSON: the one shape of executions and node records in files, answers, logs and the command line's ``--json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator_core.codec import format_time, parse_time
from orchestrator_core.types import Attempt, ExecutionStatus, Failure, Json, LogLine, NodeIO, NodeStatus, Result

__all__ = [
    "attempt_to_json",
    "failure_to_json",
    "log_line_to_json",
    "node_io_to_json",
    "result_from_json",
    "result_to_json",
]


def result_to_json(result: Result) -> dict[str, Json]:
    """An execution with its node records, in document order; times are ISO 8601, UTC, with microseconds.

    Values of the workflow (inputs, outputs, error data) are passed on as they are, not copied.
    """
    return {
        "execution_id": result.execution_id,
        "workflow": result.workflow,
        "version": result.version,
        "status": result.status.value,
        "output": result.output,
        "error": failure_to_json(result.error),
        "nodes": [node_io_to_json(record) for record in result.nodes],
        "started_at": format_time(result.started_at),
        "finished_at": format_time(result.finished_at),
    }


def node_io_to_json(record: NodeIO) -> dict[str, Json]:
    """The record of one node (or item, or inner node); see :func:`result_to_json`."""
    return {
        "path": record.path,
        "node": record.node,
        "type": record.type,
        "status": record.status.value,
        "input": record.input,
        "output": record.output,
        "outputs": dict(record.outputs),
        "error": failure_to_json(record.error),
        "attempts": [attempt_to_json(attempt) for attempt in record.attempts],
        "logs": [log_line_to_json(line) for line in record.logs],
        "started_at": format_time(record.started_at),
        "finished_at": format_time(record.finished_at),
    }


def attempt_to_json(attempt: Attempt) -> dict[str, Json]:
    """One attempt: ``number``, ``started_at``, ``finished_at``, ``error``."""
    return {
        "number": attempt.number,
        "started_at": format_time(attempt.started_at),
        "finished_at": format_time(attempt.finished_at),
        "error": failure_to_json(attempt.error),
    }


def log_line_to_json(line: LogLine) -> dict[str, Json]:
    """One line that a node wrote: ``at``, ``level``, ``message``."""
    return {"at": format_time(line.at), "level": line.level, "message": line.message}


def failure_to_json(failure: Failure | None) -> dict[str, Json] | None:
    """The object that error edges deliver: ``{code, message, node, attempt, data}``; ``None`` where there is no failure."""
    return None if failure is None else failure.to_json()


def result_from_json(data: Mapping[str, Any]) -> Result:
    """The execution of a JSON object that :func:`result_to_json` made, here or on a server.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    return Result(
        execution_id=data["execution_id"],
        workflow=data["workflow"],
        version=data["version"],
        status=ExecutionStatus(data["status"]),
        output=data["output"],
        error=_failure(data["error"]),
        nodes=tuple(_node_io(record) for record in data["nodes"]),
        started_at=parse_time(data["started_at"]),
        finished_at=_time(data["finished_at"]),
    )


def _node_io(data: Mapping[str, Any]) -> NodeIO:
    return NodeIO(
        path=data["path"],
        node=data["node"],
        type=data["type"],
        status=NodeStatus(data["status"]),
        input=data["input"],
        output=data["output"],
        outputs=dict(data["outputs"]),
        error=_failure(data["error"]),
        attempts=tuple(_attempt(attempt) for attempt in data["attempts"]),
        logs=tuple(LogLine(parse_time(line["at"]), line["level"], line["message"]) for line in data["logs"]),
        started_at=_time(data["started_at"]),
        finished_at=_time(data["finished_at"]),
    )


def _attempt(data: Mapping[str, Any]) -> Attempt:
    started, finished = parse_time(data["started_at"]), _time(data["finished_at"])
    return Attempt(data["number"], started, finished, _failure(data["error"]))


def _failure(data: Mapping[str, Any] | None) -> Failure | None:
    if data is None:
        return None
    return Failure(data["code"], data["message"], data["node"], data["attempt"], data["data"])


def _time(text: str | None) -> float | None:
    return None if text is None else parse_time(text)
