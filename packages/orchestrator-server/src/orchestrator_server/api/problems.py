"""Errors as answers: one shape for every status, and one table from the errors of the library to it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import attrs

from orchestrator_core.codec import unstructure
from orchestrator_core.errors import Conflict, DocumentError, Fault, IllegalEvent, OrchestratorError
from orchestrator_core.types import Json
from orchestrator_server.auth import Forbidden, TenantNeeded, Unauthorized
from orchestrator_server.errors import Exists, ForeignTenant, Invalid, NotFound, StorageFull, Unavailable
from orchestrator_server.sealing import UnknownKey

__all__ = ["ErrorBody", "Problem", "problem_of"]


@attrs.frozen
class ErrorBody:
    """The body of every answer that is an error.

    ``code`` is a stable word for programs, ``message`` says what is wrong and what to do. ``faults`` lists what is wrong with a
    document, ``request_id`` finds the request in the server's logs.
    """

    message: str
    code: str
    request_id: str | None = None
    faults: tuple[Fault, ...] | None = None
    execution_id: str | None = None

    def to_json(self) -> dict[str, Json]:
        """The body, without what is not there."""
        body = {
            "message": self.message,
            "code": self.code,
            "request_id": self.request_id,
            "execution_id": self.execution_id,
        }
        shown: dict[str, Json] = {key: value for key, value in body.items() if value is not None}
        if self.faults is not None:
            shown["faults"] = [unstructure(fault) for fault in self.faults]
        return shown


class Problem(Exception):  # noqa: N818 - the word of RFC 9457 for an error that is an answer
    """An answer that is an error.

    Args:
        status: The HTTP status.
        code: A stable word for programs.
        message: What is wrong, and what to do.
        faults: What is wrong with a document.
        headers: Headers of the answer.
        execution_id: The execution it is about.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        faults: tuple[Fault, ...] | None = None,
        headers: Mapping[str, str] | None = None,
        execution_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = HTTPStatus(status)
        self.code = code
        self.message = message
        self.faults = faults
        self.headers = dict(headers or {})
        self.execution_id = execution_id

    def body(self, request_id: str) -> ErrorBody:
        """What is sent."""
        return ErrorBody(self.message, self.code, request_id, self.faults, self.execution_id)


def problem_of(error: Exception) -> Problem | None:
    """The answer to an error of the library; ``None`` for what nobody foresaw.

    Texts are passed on where they speak of what the caller sent; those of a database or a driver are not.
    """
    if isinstance(error, Problem):
        return error
    text = str(error)
    if isinstance(error, Unauthorized):
        return Problem(401, error.code, text, headers={"WWW-Authenticate": "Bearer"})
    if isinstance(error, TenantNeeded):
        return Problem(400, error.code, text)
    if isinstance(error, Forbidden):
        return Problem(403, error.code, text)
    if isinstance(error, DocumentError):
        return Problem(422, error.code, _first(error), faults=error.faults)
    if isinstance(error, Invalid | IllegalEvent):
        return Problem(400, error.code, text)
    if isinstance(error, NotFound):
        return Problem(404, error.code, text)
    if isinstance(error, ForeignTenant):
        return Problem(404, "not_found", "there is no such thing")
    if isinstance(error, Exists | Conflict):
        return Problem(409, error.code, text)
    if isinstance(error, Unavailable):
        return Problem(
            503, error.code, "the database does not answer: ask again in a moment", headers={"Retry-After": "2"}
        )
    if isinstance(error, UnknownKey):
        return Problem(503, error.code, text, headers={"Retry-After": "60"})
    if isinstance(error, StorageFull):
        return Problem(507, error.code, text)
    if isinstance(error, OrchestratorError) and error.code == "too_many":
        return Problem(429, error.code, text, headers={"Retry-After": "1"})
    return None


def _first(error: DocumentError) -> str:
    faults = list(error.faults)
    if not faults:
        return "the document cannot be used"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{faults[0]}{more}"
