"""What an operator denies is not there, and user code gets no more than it may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pytest

from orchestrator_core import CodePolicy, Engine, Evaluated, NodeContext, Ran, Workflow, hookimpl, node_type

pytestmark = pytest.mark.anyio


@attrs.frozen
class Nothing:
    pass


@node_type("fetches", capabilities=("network",))
async def fetches(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    return "fetched"


@node_type("sneaks")
async def sneaks(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    """Declares nothing, and asks all the same."""
    if input == "secrets":
        return sorted(ctx.secrets)
    if input == "code":
        return await ctx.run_code("x", {})
    return str(getattr(ctx, input))


@node_type("computes", capabilities=("code",))
async def computes(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    return await ctx.run_code("x", {}, timeout=input["timeout"], memory=input["memory"])


class Echo:
    """A language that gives the limits it was given."""

    name = "javascript"

    def check(self, source: str, *, expression: bool) -> None:
        pass

    async def run(self, source: str, context: Mapping[str, Any], **given: Any) -> Ran:
        return Ran({"timeout": given["timeout"], "memory": given["memory"]})

    async def evaluate(self, expressions: Sequence[str], scope: Mapping[str, Any], **_: Any) -> Sequence[Evaluated]:
        return [Evaluated("value", 1) for _ in expressions]

    async def aclose(self) -> None:
        pass


class Plugin:
    @hookimpl
    def register_languages(self) -> Any:
        return [Echo()]


def engine(**options: Any) -> Engine:
    return Engine(node_types=[fetches, sneaks, computes], plugins=[Plugin()], discover=False, **options)


def one(kind: str) -> Workflow:
    return Workflow.from_dict({"schema": 1, "id": "w", "nodes": [{"id": "a", "type": kind}]})


async def test_a_node_type_that_needs_what_is_denied_is_refused_on_saving() -> None:
    assert engine().validate(one("fetches")) == []
    faults = engine(deny=["network"]).validate(one("fetches"))
    assert [(fault.place, fault.message == "fetches needs network, which is denied here") for fault in faults] == [
        ("$.nodes[0].type", True)
    ]


@pytest.mark.parametrize("capability", ["network", "blobs", "code"])
async def test_a_node_that_asks_for_what_is_denied_fails_for_good(capability: str) -> None:
    asked = {"network": "http"}.get(capability, capability)
    async with engine(deny=[capability]) as e:
        result = await e.run(one("sneaks"), asked)
    assert result.error is not None
    assert result.error.code == "denied"


async def test_denied_secrets_are_not_there() -> None:
    async with engine(deny=["secrets"], secrets={"key": "hunter2"}) as e:
        assert (await e.run(one("sneaks"), "secrets")).output == []
    async with engine(secrets={"key": "hunter2"}) as e:
        assert (await e.run(one("sneaks"), "secrets")).output == ["key"]


async def test_expressions_are_evaluated_where_code_is_denied() -> None:
    document = {"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "sneaks"}], "output": "{{ 1 + 1 }}"}
    async with engine(deny=["code"], secrets={}) as e:
        assert (await e.run(Workflow.from_dict(document), "secrets")).output == 1


async def test_a_capability_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no capability 'netwrok': there are blobs, code, network, secrets"):
        engine(deny=["netwrok"])


@pytest.mark.parametrize(
    ("policy", "asked", "given"),
    [
        (CodePolicy(), (3, 4), (3, 4)),
        (CodePolicy(), (None, None), (None, None)),
        (CodePolicy(timeout=2, memory=9), (3, 4), (2, 4)),
        (CodePolicy(timeout=9, memory=2), (3, 4), (3, 2)),
        (CodePolicy(timeout=2, memory=2), (None, None), (2, 2)),
    ],
)
async def test_code_gets_no_more_than_it_may(policy: CodePolicy, asked: Any, given: Any) -> None:
    async with engine(code=policy) as e:
        result = await e.run(one("computes"), dict(zip(("timeout", "memory"), asked, strict=True)))
    assert result.output == dict(zip(("timeout", "memory"), given, strict=True))
