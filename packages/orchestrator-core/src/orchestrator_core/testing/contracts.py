"""Contracts: what every node type and every journal has to keep, as checks that raise ``AssertionError``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from orchestrator_core.codec import check_json, copy_json, schema_of
from orchestrator_core.configs import prepare_config, structure_config
from orchestrator_core.errors import Conflict, NodeError
from orchestrator_core.events import AttemptStarted, Event, ExecutionStarted, NodeDue
from orchestrator_core.journal import Journal
from orchestrator_core.nodes import ApprovalAnswer, Blobs, HttpClient, Language, NodeContext, NodeType, WaitRequested
from orchestrator_core.types import Json, Resumed

__all__ = ["FakeServices", "check_journal", "check_node_type", "make_context", "run_node"]


class MemoryBlobs:
    """Blobs in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, data: bytes, *, media_type: str = "application/octet-stream") -> str:
        """Keep bytes."""
        reference = f"blob:{len(self.kept)}:{media_type}"
        self.kept[reference] = data
        return reference

    async def get(self, reference: str) -> bytes:
        """Give them back."""
        return self.kept[reference]


@attrs.define
class FakeServices:
    """What stands behind a context in a unit test. What is not given raises when it is asked for."""

    client: HttpClient | None = None
    blobs: Blobs = attrs.field(factory=MemoryBlobs)
    secrets: Mapping[str, str] = attrs.field(factory=dict)
    callables: Mapping[str, Callable[..., Any]] = attrs.field(factory=dict)
    languages: Mapping[str, Language] = attrs.field(factory=dict)

    @property
    def http(self) -> HttpClient:
        """The client that was given."""
        if self.client is None:
            raise AssertionError("this test gave no HTTP client: FakeServices(client=...)")
        return self.client

    def language(self, name: str) -> Language:
        """The language of this name that was given."""
        return self.languages[name]

    def approval_link(
        self, execution_id: str, path: str, signal: str, *, expires_at: float, answer: ApprovalAnswer | None = None
    ) -> str:
        """An address that shows what was asked for."""
        return f"https://server.test/{execution_id}/{path}/{signal}/{answer or 'any'}/{expires_at:.0f}"


def make_context(
    services: FakeServices | None = None,
    *,
    input: Json = None,
    inputs: Mapping[str, Json] | None = None,
    payload: Json = None,
    attempt: int = 1,
    now: float = 1_700_000_000.0,
    seed: int = 1,
    resumed: Resumed | None = None,
) -> NodeContext:
    """A context as an engine makes it, for calling a node function directly."""
    return NodeContext(
        services=services if services is not None else FakeServices(),
        execution_id="exe_test",
        node_id="node",
        path="node",
        attempt=attempt,
        now=now,
        execution_seed=seed,
        inputs=inputs if inputs is not None else {"main": input},
        payload=payload,
        resumed=resumed,
    )


async def run_node(
    kind: NodeType, config: Mapping[str, Json], input: Json = None, *, context: NodeContext | None = None
) -> dict[str, Json]:
    """Call a node function with a config as it would stand in a document (without templates).

    Returns:
        What it delivers, by port.

    Raises:
        DocumentError: The config does not fit.
        NodeError: As the function does.
    """
    ctx = context if context is not None else make_context(input=input)
    result = await kind(ctx, structure_config(config, kind.config, "$.config"), input)
    if ctx.emitted is None:
        return {"main": result}
    assert result is None, "a function that emits returns nothing"
    return dict(ctx.emitted)


async def check_node_type(
    kind: NodeType,
    *,
    config: Mapping[str, Json] | None = None,
    input: Json = None,
    services: FakeServices | None = None,
    run: bool = True,
) -> None:
    """Check what a node type promises: it is described, its example fits, and (where ``run``) it keeps its word.

    Args:
        kind: The node type.
        config: A config that works; its own example unless given.
        input: What to give it. It is not to be changed by a pure function.
        services: What it needs from outside.
        run: Whether to run it. Without, only its description is checked.

    Raises:
        AssertionError: It breaks the contract; the text says how.
    """
    given = dict(kind.example if config is None else config)
    assert kind.title, f"{kind.name}: give it a title"
    assert kind.description, f"{kind.name}: describe it (the function's docstring will do)"
    assert kind.version >= 1, f"{kind.name}: versions count from 1"
    schema = schema_of(kind.config)
    for name, entry in schema["properties"].items():
        assert entry.get("description"), f"{kind.name}: describe the setting {name!r}, as setting(description=...)"
    prepare_config(kind, kind.example)
    if not run or kind.function is None:
        return
    before = copy_json(input)
    first = await _outcome(kind, given, input, services)
    ports = kind.ports_for(given)
    for port, value in first.items():
        assert ports is None or port in {*ports, "error"}, f"{kind.name}: emits on {port!r}, which it does not declare"
        fault = check_json(value)
        assert fault is None, f"{kind.name}: what it gives on {port!r} is not JSON: {fault}"
    if kind.pure:
        second = await _outcome(kind, given, input, services)
        assert input == before, f"{kind.name}: it is declared pure, but changes its input"
        assert first == second, f"{kind.name}: it is declared pure, but gave {second!r} after {first!r}"


async def _outcome(
    kind: NodeType, config: Mapping[str, Json], input: Json, services: FakeServices | None
) -> dict[str, Json]:
    context = make_context(services, input=input)
    try:
        return await run_node(kind, config, input, context=context)
    except WaitRequested:
        return {}
    except NodeError as error:
        assert error.code and error.message, f"{kind.name}: an error needs a code and a message"
        return {}


async def check_journal(journal: Journal) -> None:
    """Check that a journal keeps its contract. It should be empty.

    Raises:
        AssertionError: It breaks the contract; the text says how.
    """
    started: Event = ExecutionStarted(1.0, "exe_a", {"n": 1})
    due: Event = NodeDue(1.0, "x")
    begun: Event = AttemptStarted(1.0, "x", 1)
    assert list(await journal.read("t", "exe_a")) == [], "an unknown execution has no events"
    await journal.append("t", "exe_a", 0, 1, [started, due])
    assert list(await journal.read("t", "exe_a")) == [started, due], "what was appended is read back in order"
    assert list(await journal.read("t", "exe_a", 1)) == [due], "`after` leaves out the first events"
    assert list(await journal.read("u", "exe_a")) == [], "another tenant does not see it"
    await journal.append("t", "exe_a", 0, 1, [started, due])
    assert len(await journal.read("t", "exe_a")) == 2, "the same append again (its reply was lost) changes nothing"
    await _refused(journal, 0, 1, [due, due], "other events at a place that is taken are a conflict")
    await _refused(journal, 3, 1, [begun], "a gap is a conflict")
    await journal.append("t", "exe_a", 2, 2, [begun])
    await journal.append("t", "exe_a", 3, 2, [])
    await _refused(journal, 3, 1, [due], "an older fence is a conflict")
    assert list(await journal.read("t", "exe_a")) == [started, due, begun], "what was refused has left no trace"


async def _refused(journal: Journal, seq: int, fence: int, batch: list[Event], why: str) -> None:
    try:
        await journal.append("t", "exe_a", seq, fence, batch)
    except Conflict:
        return
    raise AssertionError(why)
