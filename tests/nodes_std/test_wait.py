from __future__ import annotations

import pytest
from helpers import NOW, run, workflow

from orchestrator_core import Engine, NodeError, Resumed
from orchestrator_core.nodes import WaitRequested
from orchestrator_core.testing import make_context, run_node
from orchestrator_nodes_std.wait import WaitConfig, wait

pytestmark = pytest.mark.anyio


async def waits_for(config):
    with pytest.raises(WaitRequested) as request:
        await wait(make_context(now=NOW), config, "input")
    return request.value.wait


async def test_it_asks_to_be_woken_at_a_time():
    assert (await waits_for(WaitConfig(for_=90.0))).until == NOW + 90
    assert (await waits_for(WaitConfig(until=NOW + 5))).until == NOW + 5
    assert (await waits_for(WaitConfig(until="2027-01-15T09:00:00+01:00"))).until == 1_800_000_000
    assert (await waits_for(WaitConfig(until="2027-01-15T09:00:00", timezone="Europe/Berlin"))).until == 1_800_000_000


async def test_it_asks_to_be_woken_by_a_signal():
    request = await waits_for(WaitConfig(signal="approved", expires=60.0))
    assert (request.signal, request.expires, request.until) == ("approved", NOW + 60, None)
    assert (await waits_for(WaitConfig(signal="approved"))).expires is None


async def test_woken_by_time_it_passes_its_input_on():
    ctx = make_context(now=NOW, resumed=Resumed("time", NOW + 90))
    assert await wait(ctx, WaitConfig(for_=90.0), {"n": 1}) == {"n": 1}


async def test_woken_by_a_signal_it_passes_the_signals_payload_on():
    ctx = make_context(now=NOW, resumed=Resumed("signal", NOW, name="approved", id="s1", payload={"by": "Ada"}))
    assert await wait(ctx, WaitConfig(signal="approved"), {"n": 1}) == {"by": "Ada"}


async def test_a_signal_that_did_not_come_fails_the_node_for_good():
    ctx = make_context(now=NOW, resumed=Resumed("expired", NOW + 60, name="approved"))
    with pytest.raises(NodeError, match="'approved' did not come in time") as failure:
        await wait(ctx, WaitConfig(signal="approved", expires=60.0), {"n": 1})
    assert (failure.value.code, failure.value.retryable) == ("expired", False)


async def test_a_signal_that_did_not_come_can_be_a_way_out():
    ctx = make_context(now=NOW, resumed=Resumed("expired", NOW + 60, name="approved"))
    config = {"signal": "approved", "expires": 60, "on_expiry": "port"}
    assert await run_node(wait, config, {"n": 1}, context=ctx) == {"expired": {"n": 1}}
    assert wait.ports_for(config) == ("main", "expired")
    assert wait.ports_for({"signal": "approved"}) == ("main",)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "there is none"),
        ({"for_": 1.0, "signal": "go"}, "these are for, signal"),
        ({"for_": 1.0, "expires": 5.0}, "`expires` belongs to `signal`"),
        ({"signal": "go", "on_expiry": "port"}, "needs `expires`"),
        ({"signal": ""}, "`signal` must not be empty"),
        ({"until": "soon"}, "`until` must be an ISO 8601 time"),
        ({"until": "2027-01-01", "timezone": "Mars/Base"}, "names no time zone"),
    ],
)
def test_waits_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        WaitConfig(**settings)


@pytest.mark.parametrize("until", ["{{ as data }}", 1e300])
async def test_a_time_that_comes_from_data_and_is_none_fails_the_node(until):
    with pytest.raises(NodeError, match="`until` of a `wait` node is") as failure:
        await wait(make_context(), WaitConfig(until=until), None)
    assert failure.value.code == "bad_config"


# --- through the engine ----------------------------------------------------------------------------------------------


async def test_the_execution_goes_on_after_a_time():
    nodes = [{"id": "w", "type": "wait", "config": {"for": "30ms"}}]
    result = await run(nodes, {"n": 1})
    assert result.output == {"n": 1}
    assert result.finished_at - result.started_at >= 0.03
    assert len(result.node("w").attempts) == 1


async def test_a_time_that_is_over_does_not_hold_up():
    result = await run([{"id": "w", "type": "wait", "config": {"until": "{{ input }}"}}], "2001-01-01")
    assert result.output == "2001-01-01"


async def test_an_approval_goes_one_way_or_the_other():
    approval = workflow(
        [
            {
                "id": "ask",
                "type": "wait",
                "config": {"signal": "ok", "expires": "{{ input.patience }}", "on_expiry": "port"},
            },
            {"id": "yes", "type": "set", "config": {"values": {"by": "{{ input.by }}"}}},
            {"id": "no", "type": "set", "config": {"values": {"late": "{{ input.patience }}"}}},
        ],
        [("ask", "yes"), ("ask", "expired", "no")],
        output="{{ nodes.yes.output ?? nodes.no.output }}",
    )
    async with Engine() as engine:
        execution = await engine.start(approval, {"patience": 30})
        await execution.signal("ask", "ok", {"by": "Ada"})
        assert (await execution.result()).output == {"by": "Ada"}
        assert (await engine.run(approval, {"patience": "20ms"})).output == {"late": "20ms"}


async def test_a_wait_that_expired_is_not_tried_again():
    node = {"id": "w", "type": "wait", "config": {"signal": "ok", "expires": 0.02}, "retry": {"attempts": 3}}
    result = await run([node], None)
    assert (result.error.code, result.error.attempt, result.error.data) == ("expired", 1, {"signal": "ok"})
