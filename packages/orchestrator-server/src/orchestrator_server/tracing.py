"""What the server tells of requests and executions where they are traced.

Who makes spans of it is :mod:`orchestrator_server.otel`, which is imported only when tracing is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from orchestrator_core.events import ExecutionStarted

__all__ = ["RequestSpan", "Tracing"]


class RequestSpan(Protocol):
    """A request that is being answered. What it accepts until it is over belongs to it."""

    def over(self, status: int, tags: Mapping[str, str]) -> None:
        """It was answered. ``tags`` are those of its line in the log."""
        ...


class Tracing(Protocol):
    """Where requests and executions are traced."""

    def request(self, method: str, route: str, scope: Mapping[str, Any]) -> RequestSpan:
        """A request has come; called in its task. ``scope`` is that of ASGI."""
        ...

    def accepted(self, tenant: str, workflow: str) -> str | None:
        """An execution is about to be accepted. Returns what to keep in its start event."""
        ...

    def begun(self, tenant: str, start: ExecutionStarted) -> None:
        """An execution is driven here from now on."""
        ...

    def left(self, execution_id: str) -> None:
        """It is not any more: it waits, or was given up. That it has ended is seen from its events."""
        ...
