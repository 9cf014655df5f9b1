"""What a node function raised, as the machine knows it."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio

from orchestrator_core.codec import check_json, copy_json
from orchestrator_core.errors import DocumentError, NodeError, OrchestratorError
from orchestrator_core.expressions import ExpressionError
from orchestrator_core.nodes import LanguageError
from orchestrator_core.types import Failure

__all__ = ["failure_of", "is_stray"]

_FAR = 1e9  # seconds


def is_stray(error: BaseException, scope: anyio.CancelScope) -> bool:
    """Whether a node function met a cancellation that nobody asked for: it awaited what somebody else had cancelled."""
    if not isinstance(error, asyncio.CancelledError) or scope.cancel_called:
        return False
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


def _of_node_error(error: NodeError) -> Failure:
    """What a plugin raised, as far as it is usable: it must be JSON, and a time a time."""
    after = error.retry_after
    usable = isinstance(after, int | float) and not isinstance(after, bool) and 0 <= after < _FAR
    fault = check_json(error.data)
    data = copy_json(error.data) if fault is None else {"not_json": str(fault)}
    return Failure(
        _text(error.code),
        _text(error.message),
        data=data,
        retryable=bool(error.retryable),
        retry_after=after if usable else None,
    )


def _text(value: Any) -> str:
    """A text for people that a journal can hold, whatever somebody's ``__str__`` does."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - it is somebody else's
        text = f"an object of {type(value).__name__} that cannot be shown"
    return text.encode("utf-8", "replace").decode()


def failure_of(error: BaseException) -> Failure:
    """What an attempt failed with that ended with this exception."""
    if isinstance(error, NodeError):
        return _of_node_error(error)
    if isinstance(error, ExpressionError):
        return Failure("expression", str(error))
    if isinstance(error, DocumentError):
        return Failure("bad_config", str(error))
    if isinstance(error, LanguageError):
        data = {"line": error.line, "snippet": error.snippet}
        return Failure(error.code, error.message, data=data)
    if isinstance(error, OrchestratorError):
        return Failure(error.code, str(error))
    # An exception that says nothing may be a passing one (the law: it is retryable).
    return Failure("exception", f"{type(error).__name__}: {_text(error)}", retryable=True)
