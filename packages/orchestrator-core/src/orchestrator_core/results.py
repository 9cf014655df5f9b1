"""Results as JSON: the one shape of executions and node records in files, answers, logs and the command line's ``--json``."""

from __future__ import annotations

from orchestrator_core.codec import format_time
from orchestrator_core.types import Attempt, Failure, Json, LogLine, NodeIO, Result

__all__ = ["attempt_to_json", "failure_to_json", "log_line_to_json", "node_io_to_json", "result_to_json"]


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
