"""The hooks that a plugin may implement. Every one is called once for each engine, when it is made, unless it says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pluggy

from orchestrator_core.events import Event
from orchestrator_core.nodes import HttpClient, HttpPolicy, Language, NodeContext, NodeType

if TYPE_CHECKING:
    import click

__all__ = ["PROJECT", "hookimpl", "hookspec"]

PROJECT = "orchestrator"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_node_types() -> Sequence[NodeType]:
    """Return the node types of this plugin. A name that is taken already is an error that names both plugins."""
    raise AssertionError("a specification is never called")


@hookspec
def register_languages() -> Sequence[Language]:
    """Return new :class:`Language` objects for user code; the engine closes them. ``javascript`` evaluates expressions."""
    raise AssertionError("a specification is never called")


@hookspec
def register_expression_functions() -> Mapping[str, str]:
    """Return functions that expressions may call: name -> JavaScript source of a function expression."""
    raise AssertionError("a specification is never called")


@hookspec(firstresult=True)
def make_http_client(policy: HttpPolicy) -> HttpClient | None:
    """Return the client behind ``ctx.http``, which must refuse what the policy refuses. Called when it is first used."""
    raise AssertionError("a specification is never called")


@hookspec
def observe_event(execution_id: str, event: Event) -> None:
    """Look at an event that has been committed. Called for every event, in order; be quick, raise nothing."""
    raise AssertionError("a specification is never called")


@hookspec
def around_attempt(ctx: NodeContext, node_type: str) -> AbstractContextManager[Any]:
    """Return a context manager in which an attempt runs; it sees what the attempt raises, a wait too. Called for every attempt."""
    raise AssertionError("a specification is never called")


@hookspec
def register_commands(cli: click.Group) -> Any:
    """Add commands to the command line. Called when the command ``orchestrator`` starts, without an engine."""
    raise AssertionError("a specification is never called")
