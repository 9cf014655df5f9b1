"""Commands: what the machine asks its driver to do. Each is answered by an event, sooner or later.

A command may be carried out only after the events that came with it are committed (a pure attempt excepted).
"""

from __future__ import annotations

import attrs

from orchestrator_core.events import Question, TimerKind
from orchestrator_core.state import Record, Scope
from orchestrator_core.types import Json

__all__ = ["CancelAttempt", "CancelChild", "Command", "Evaluate", "RunAttempt", "StartChild", "StartTimer"]


@attrs.frozen
class RunAttempt:
    """Run a node function. Answer: ``AttemptSucceeded``, ``AttemptFailed`` or ``AttemptWaited``.

    ``record`` shows the driver what the attempt may see; it is part of the machine's state and not to be changed.
    """

    path: str
    number: int
    record: Record = attrs.field(eq=False, repr=False)


@attrs.frozen
class CancelAttempt:
    """Stop an attempt; whatever it still answers is stale."""

    path: str
    number: int


@attrs.frozen
class Evaluate:
    """Evaluate a template (``when``, ``for_each``, ``until``, ``output``). Answer: ``Evaluated``."""

    path: str
    question: Question
    template: Json
    scope: Scope = attrs.field(eq=False, repr=False)


@attrs.frozen
class StartTimer:
    """Answer ``TimerFired`` at the time ``due``. A timer that is no longer wanted may fire: it is dropped."""

    path: str
    kind: TimerKind
    due: float


@attrs.frozen
class StartChild:
    """Start a stored workflow as a child execution. Answer: ``ChildEnded``."""

    path: str
    workflow: str
    input: Json


@attrs.frozen
class CancelChild:
    """Cancel a child execution. Answer: ``ChildEnded``; until then the parent does not end."""

    path: str


Command = RunAttempt | CancelAttempt | Evaluate | StartTimer | StartChild | CancelChild
