"""Every error of the library: one root, stable codes, messages that say what, where and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import attrs

__all__ = [
    "Conflict",
    "DocumentError",
    "Fault",
    "IllegalEvent",
    "NodeError",
    "OrchestratorError",
    "PluginError",
    "Unavailable",
]


class OrchestratorError(Exception):
    """The root of the library's errors. ``code`` is stable: programs may rely on it, texts may change."""

    code: ClassVar[str] = "error"


@attrs.frozen
class Fault:
    """One thing that is wrong with a document.

    ``message`` says what is wrong and what to do, ``place`` where (``$.nodes[2].config.url``), ``line`` the
    line of the YAML or JSON text where it is known (from 1).
    """

    message: str
    place: str = "$"
    line: int | None = None

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line is not None else ""
        return f"{self.place}{line}: {self.message}"


class DocumentError(OrchestratorError):
    """A document cannot be used. ``faults`` holds everything that was found, in document order."""

    code: ClassVar[str] = "invalid_document"

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class IllegalEvent(OrchestratorError):  # noqa: N818 - named after the fact, as h11 names its ProtocolErrors
    """No history can produce this event here. The machine has not changed."""

    code: ClassVar[str] = "illegal_event"


class Conflict(OrchestratorError):  # noqa: N818 - the design's word
    """Somebody else has written to this journal; what was read before is no longer the truth."""

    code: ClassVar[str] = "conflict"


class Unavailable(OrchestratorError):  # noqa: N818 - named after the fact, as Conflict is
    """The database does not answer, or its disk is full. What was asked may or may not have happened; ask again.

    A journal or a store for blobs that raises it fails no node: the execution is given up here, and goes on from its journal
    later.
    """

    code: ClassVar[str] = "unavailable"


class PluginError(OrchestratorError):
    """A plugin cannot be used: a broken entry point, a name that two plugins register, a bad node type."""

    code: ClassVar[str] = "plugin"


class NodeError(Exception):
    """Raised by a node function to fail its attempt.

    Args:
        message: What went wrong, for people.
        code: A stable word for programs (``not_found``, ``http_404``).
        retryable: Whether trying again may help. A ``retry`` only repeats what is retryable.
        data: Any JSON value that says more.
        retry_after: Seconds that the other side asked to wait before the next try, where it did.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "error",
        retryable: bool = False,
        data: Any = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable
        self.data = data
        self.retry_after = retry_after
