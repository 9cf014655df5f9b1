"""What a store can answer beside a result. Each is an :class:`~orchestrator_core.OrchestratorError` with a stable code."""

from __future__ import annotations

from typing import ClassVar

from orchestrator_core.errors import Conflict, OrchestratorError, Unavailable

__all__ = [
    "Conflict",
    "Exists",
    "ForeignTenant",
    "Invalid",
    "NotFound",
    "SchemaVersion",
    "StorageFull",
    "TooMany",
    "Unavailable",
]


class NotFound(OrchestratorError):  # noqa: N818 - named after the fact, as Conflict is
    """There is no such thing for this tenant, whoever else may have one."""

    code: ClassVar[str] = "not_found"


class Exists(OrchestratorError):  # noqa: N818 - as above
    """There is one already: an id, a name, or a webhook's method and path is taken."""

    code: ClassVar[str] = "exists"


class Invalid(OrchestratorError):  # noqa: N818 - as above
    """An id, a name or a cursor of a shape that no store takes; nothing was looked up."""

    code: ClassVar[str] = "invalid"


class ForeignTenant(OrchestratorError):  # noqa: N818 - as above
    """A store that is bound to one tenant was asked for another."""

    code: ClassVar[str] = "foreign_tenant"


class TooMany(OrchestratorError):  # noqa: N818 - as above
    """The tenant has as many executions that have not ended as it may; nothing was created. Ask again in a moment."""

    code: ClassVar[str] = "too_many"


class StorageFull(OrchestratorError):  # noqa: N818 - as above
    """The tenant keeps as many bytes as it may; nothing was stored. What runs goes on."""

    code: ClassVar[str] = "storage_full"


class SchemaVersion(OrchestratorError):  # noqa: N818 - as above
    """The database was made by another version of this package; the text says what to run."""

    code: ClassVar[str] = "schema_version"
