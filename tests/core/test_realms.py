"""Realms: many tenants on one engine, and executions that are put away while they wait."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import attrs
import pytest

from orchestrator_core import Engine, Execution, MemoryJournal, NodeContext, Workflow, node_type

pytestmark = pytest.mark.anyio

LONG = 20


@attrs.frozen
class SayConfig:
    text: Any = None
    key: str = attrs.field(default="", metadata={"secret": True})


@node_type("say", pure=True)
async def say(ctx: NodeContext, config: SayConfig, input: Any) -> Any:
    return config.text


@node_type("shows")
async def shows(ctx: NodeContext, config: SayConfig, input: Any) -> Any:
    return [sorted(ctx.secrets), len(config.key)]


@attrs.frozen
class WaitConfig:
    seconds: float | None = None
    signal: str | None = None


@node_type("waits")
async def waits(ctx: NodeContext, config: WaitConfig, input: Any) -> Any:
    if ctx.resumed is None:
        if config.signal is not None:
            ctx.wait_for_signal(config.signal)
        ctx.wait_for(config.seconds or 0)
    return ctx.resumed.payload if config.signal else "woken"


def make(**options: Any) -> Engine:
    return Engine(node_types=[say, shows, waits], discover=False, **options)


def workflow(*nodes: dict[str, Any], name: str = "w") -> Workflow:
    edges = [{"source": a["id"], "target": b["id"]} for a, b in pairwise(nodes)]
    return Workflow.from_dict({"schema": 1, "id": name, "nodes": list(nodes), "edges": edges})


async def test_each_realm_has_its_own_secrets_variables_and_journal() -> None:
    show = workflow({"id": "a", "type": "shows"})
    tell = workflow({"id": "a", "type": "say", "config": {"text": "{{ vars.city }}"}})
    async with make(secrets={"own": "x"}, variables={"city": "Ulm"}) as engine:
        ann = engine.realm(tenant="ann", secrets={"anns": "xxxxxxxx"}, variables={"city": "Bonn"})
        bob = engine.realm(tenant="bob", journal=MemoryJournal())
        assert (await engine.run(show)).output == [["own"], 0]
        assert (await ann.run(show)).output == [["anns"], 0]
        assert (await bob.run(show)).output == [[], 0]
        result = await ann.run(tell)
        assert (result.output, (await engine.run(tell)).output) == ("Bonn", "Ulm")
        assert (await bob.run(tell)).output is None
        assert await engine.journal.read("ann", result.execution_id)
        assert not await engine.journal.read("bob", result.execution_id)


async def test_a_realms_secrets_are_masked_with_its_own() -> None:
    @node_type("leak")
    async def leak(ctx: NodeContext, config: SayConfig, input: Any) -> Any:
        return ctx.secrets["key"]

    async with Engine(node_types=[leak], discover=False, secrets={"key": "engine-secret"}) as engine:
        ann = engine.realm(tenant="ann", secrets={"key": "anns-secret"})
        assert (await ann.run(workflow({"id": "a", "type": "leak"}))).output == "***"


async def test_what_one_realm_may_not_do_another_may() -> None:
    @node_type("net", capabilities=("network",))
    async def net(ctx: NodeContext, config: SayConfig, input: Any) -> Any:
        return "sent"

    async with Engine(node_types=[net], discover=False) as engine:
        bound = engine.realm(tenant="bound", deny=["network"])
        document = workflow({"id": "a", "type": "net"})
        assert [fault.place for fault in bound.validate(document)] == ["$.nodes[0].type"]
        assert (await engine.run(document)).output == "sent"


async def test_an_execution_that_only_waits_can_be_parked_and_resumed() -> None:
    parked: list[tuple[str, float | None]] = []

    def park(execution: Execution, due: float | None) -> None:
        parked.append((execution.id, due))
        execution.park()

    document = workflow(
        {"id": "a", "type": "say", "config": {"text": 1}},
        {"id": "b", "type": "waits", "config": {"signal": "go"}},
        {"id": "c", "type": "say", "config": {"text": "{{ input }}"}},
    )
    journal = MemoryJournal()
    with anyio.fail_after(LONG):
        async with make(journal=journal) as engine:
            realm = engine.realm(tenant="ann", on_still=park)
            execution = await realm.start(document)
            with pytest.raises(Exception, match="parked"):
                await execution.result()
            assert parked == [(execution.id, None)]
            assert engine.driver(execution.id) is None
        async with make(journal=journal) as engine:
            again = await engine.realm(tenant="ann").resume(document, execution.id)
            await again.signal("b", "go", {"yes": True})
            assert (await again.result()).output == {"yes": True}


async def test_a_parked_execution_says_when_it_is_due() -> None:
    parked: list[float | None] = []

    def park(execution: Execution, due: float | None) -> None:
        parked.append(due)
        execution.park()

    document = workflow({"id": "b", "type": "waits", "config": {"seconds": 0.2}})
    with anyio.fail_after(LONG):
        async with make() as engine:
            realm = engine.realm(tenant="ann", on_still=park)
            before = engine.clock.time()
            execution = await realm.start(document)
            with pytest.raises(Exception, match="parked"):
                await execution.result()
            assert parked[0] is not None
            assert 0.1 < parked[0] - before < 0.2 + 5
            await anyio.sleep(0.25)
            again = await engine.realm(tenant="ann").resume(document, execution.id)
            assert (await again.result()).output == "woken"


async def test_an_execution_whose_child_waits_is_parked_as_a_whole() -> None:
    parked: list[str] = []

    def park(execution: Execution, due: float | None) -> None:
        parked.append(execution.id)
        execution.park()

    inner = workflow({"id": "b", "type": "waits", "config": {"seconds": 0.1}}, name="inner")
    outer = workflow({"id": "call", "type": "workflow", "config": {"workflow": "inner"}}, name="outer")
    with anyio.fail_after(LONG):
        async with make() as engine:
            execution = await engine.realm(tenant="ann", workflows=[inner], on_still=park).start(outer)
            with pytest.raises(Exception, match="parked"):
                await execution.result()
            assert parked == [execution.id]
            assert not engine._drivers
            again = await engine.realm(tenant="ann", workflows=[inner]).resume(outer, execution.id)
            assert (await again.result()).output == "woken"


async def test_an_execution_whose_output_is_being_evaluated_is_not_still() -> None:
    told: list[str] = []
    document = workflow({"id": "a", "type": "say", "config": {"text": 1}})
    document = attrs.evolve(document, output="{{ nodes.a.output }}")
    with anyio.fail_after(LONG):
        async with make() as engine:
            realm = engine.realm(tenant="ann", on_still=lambda *_: told.append("still"))
            assert (await realm.run(document)).output == 1
    assert not told


async def test_an_execution_in_which_something_runs_is_not_still() -> None:
    told: list[str] = []

    @node_type("sleeps")
    async def sleeps(ctx: NodeContext, config: SayConfig, input: Any) -> Any:
        await anyio.sleep(0.1)
        told.append("done")

    nodes = [{"id": "s", "type": "sleeps"}, {"id": "w", "type": "waits", "config": {"seconds": 0.3}}]
    document = Workflow.from_dict({"schema": 1, "id": "w", "nodes": nodes})
    with anyio.fail_after(LONG):
        async with Engine(node_types=[sleeps, waits], discover=False) as engine:
            realm = engine.realm(tenant="ann", on_still=lambda *_: told.append("still"))
            assert (await realm.run(document)).status == "succeeded"
    assert told == ["done", "still"]
