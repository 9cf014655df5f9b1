"""The contracts that the library ships, kept by what it ships itself, and strict enough to catch what breaks them."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator_core import Engine, MemoryJournal, NodeContext, PluginError, hookimpl, hookspecs, node_type, setting
from orchestrator_core.events import ExecutionEnded, NodeDue
from orchestrator_core.plugins import make_manager
from orchestrator_core.testing import check_journal, check_node_type, simulate
from orchestrator_core.testing import workflows as drawn_workflows
from orchestrator_core.types import ExecutionStatus

pytestmark = pytest.mark.anyio


@attrs.frozen
class Described:
    amount: int = setting(default=1, description="How much.")


@attrs.frozen
class Undescribed:
    amount: int = 1


@node_type("acme.good", pure=True)
async def good(ctx: NodeContext, config: Described, input: Any) -> Any:
    """Add an amount."""
    return config.amount


@node_type("acme.mute")
async def mute(ctx: NodeContext, config: Described, input: Any) -> Any:
    return None


@node_type("acme.vague", description="Something.")
async def vague(ctx: NodeContext, config: Undescribed, input: Any) -> Any:
    return None


@node_type("acme.spoils", pure=True)
async def spoils(ctx: NodeContext, config: Described, input: Any) -> Any:
    """Change the input."""
    input["x"] = 1
    return None


counter = iter(range(1000))


@node_type("acme.moody", pure=True)
async def moody(ctx: NodeContext, config: Described, input: Any) -> Any:
    """Give something else every time."""
    return next(counter)


@node_type("acme.off_port", ports=("left",))
async def off_port(ctx: NodeContext, config: Described, input: Any) -> Any:
    """Emit where there is no port."""
    ctx.emit("right", 1)


@node_type("acme.no_json")
async def no_json(ctx: NodeContext, config: Described, input: Any) -> Any:
    """Give what JSON does not have."""
    return {1, 2}


async def test_a_good_node_type_passes() -> None:
    await check_node_type(good)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (mute, "describe it"),
        (vague, "describe the setting 'amount'"),
        (spoils, "changes its input"),
        (moody, "declared pure, but gave"),
        (off_port, "does not declare"),
        (no_json, "not JSON"),
    ],
)
async def test_the_contract_catches_what_breaks_it(kind: Any, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        await check_node_type(kind, input={})


async def test_every_installed_type_is_described_and_has_an_example() -> None:
    async with Engine() as engine:
        for kind in engine.registry.node_types.values():
            await check_node_type(kind, run=False)


async def test_the_memory_journal_keeps_the_contract() -> None:
    await check_journal(MemoryJournal())


class Forgetful(MemoryJournal):
    async def append(self, tenant: str, execution_id: str, expected_seq: int, fence: int, batch: Any) -> None:
        await super().append(tenant, execution_id, len(await self.read(tenant, execution_id)), 10**9, batch)


async def test_the_journal_contract_catches_one_that_never_conflicts() -> None:
    with pytest.raises(AssertionError):
        await check_journal(Forgetful())


async def test_the_memory_journal_forgets_the_oldest() -> None:
    journal = MemoryJournal(keep=2)
    for name in ("a", "b", "c"):
        await journal.append("t", name, 0, 0, [NodeDue(0.0, "x"), ExecutionEnded(0.0, ExecutionStatus.SUCCEEDED)])
    await journal.append("t", "running", 0, 0, [NodeDue(0.0, "x")])
    for name in ("d", "e"):
        await journal.append("t", name, 0, 0, [ExecutionEnded(0.0, ExecutionStatus.SUCCEEDED)])
    kept = [len(await journal.read("t", name)) for name in ("a", "b", "c", "running", "d", "e")]
    assert kept == [0, 0, 0, 1, 1, 1], "what has not ended is kept"


# --- plugins ------------------------------------------------------------------------------------------------------------


def plugin(name: str, *kinds: Any) -> Any:
    class Plugin:
        @hookimpl
        def register_node_types(self) -> Any:
            return list(kinds)

    Plugin.__name__ = name
    return Plugin()


def test_a_duplicate_name_names_both_plugins() -> None:
    with pytest.raises(PluginError, match=r"'acme.good' is registered by the plugins 'engine:one' and 'engine:two'"):
        Engine(plugins=[plugin("one", good), plugin("two", good)], discover=False)


def test_what_is_no_node_type_is_refused() -> None:
    with pytest.raises(PluginError, match="@node_type"):
        Engine(plugins=[plugin("one", print)], discover=False)


def test_a_hook_that_does_not_exist_is_refused_by_its_parameters() -> None:
    class Wrong:
        @hookimpl
        def observe_event(self, nobody_gives_this: Any) -> None: ...

    with pytest.raises(PluginError, match="nobody_gives_this"):
        Engine(plugins=[Wrong()], discover=False)


def test_one_manager_for_each_engine() -> None:
    one, other = Engine(plugins=[plugin("one", good)], discover=False), Engine(discover=False)
    assert "acme.good" in one.registry.node_types
    assert "acme.good" not in other.registry.node_types


@pytest.mark.parametrize(
    ("decorate", "why"),
    [
        (lambda: node_type("Acme.Good")(good.function), "lower case"),
        (lambda: node_type("acme.x")(lambda ctx, config, value: None), "async def"),
        (lambda: node_type("acme.x")(_no_config), "attrs class"),
    ],
)
def test_malformed_node_types_say_what_to_do(decorate: Any, why: str) -> None:
    with pytest.raises(PluginError, match=why):
        decorate()


async def _no_config(ctx: Any, config: int, input: Any) -> None: ...


def test_the_installed_standard_plugin_is_found() -> None:
    assert make_manager().get_plugin("std") is not None


def test_every_hook_is_documented() -> None:
    hooks = [value for value in vars(hookspecs).values() if hasattr(value, "orchestrator_spec")]
    assert len(hooks) >= 6
    assert all(hook.__doc__ for hook in hooks)


# --- the graph tester's story -----------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn_workflows())
def test_a_crash_anywhere_changes_nothing(workflow: Any) -> None:
    calm = simulate(workflow, seed=1)
    assert simulate(workflow, seed=1, crashes=True).outcome == calm.outcome
