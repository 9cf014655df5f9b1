"""What node functions, callers and plugins can do wrong, and what the engine makes of it, on asyncio and trio."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_core import (
    DocumentError,
    Engine,
    NodeContext,
    NodeError,
    OrchestratorError,
    Workflow,
    node_type,
    setting,
)
from orchestrator_core.masking import mask

pytestmark = pytest.mark.anyio


@attrs.frozen
class Loose:
    value: Any = None
    rows: list[Any] = attrs.field(factory=list)
    token: str = setting(default="", secret=True)


@node_type("echo", ports=None, inputs=None)
async def echo(ctx: NodeContext, config: Loose, input: Any) -> Any:
    return config.value


@node_type("greedy")
async def greedy(ctx: NodeContext, config: Loose, input: Any) -> Any:
    """Change everything that can be got hold of."""
    config.rows.append(1)
    for shared in (ctx.payload, ctx.inputs["main"], config.value, input):
        if isinstance(shared, dict):
            shared["spoilt"] = True
    return len(config.rows)


@node_type("wait_badly")
async def wait_badly(ctx: NodeContext, config: Loose, input: Any) -> Any:
    ctx.wait_until({"text": "tomorrow", "nan": float("nan"), "far": 1e300}[config.value])  # type: ignore[arg-type]


@node_type("nap")
async def nap(ctx: NodeContext, config: Loose, input: Any) -> Any:
    if ctx.resumed is None:
        ctx.wait_for(0.05)
    return "woken"


@node_type("grouped_nap")
async def grouped_nap(ctx: NodeContext, config: Loose, input: Any) -> Any:
    if ctx.resumed is None:
        async with anyio.create_task_group():
            ctx.wait_for(0.01)
    return "woken"


class Nameless(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@node_type("nameless")
async def nameless(ctx: NodeContext, config: Loose, input: Any) -> Any:
    raise Nameless


@node_type("odd_error")
async def odd_error(ctx: NodeContext, config: Loose, input: Any) -> Any:
    raise NodeError("x", code="odd", data=object(), retryable=True, retry_after="3")  # type: ignore[arg-type]


@node_type("teller", pure=True)
async def teller(ctx: NodeContext, config: Loose, input: Any) -> Any:
    secret = config.token or ctx.secrets["key"]
    ctx.log.info(repr(secret))
    ctx.log.info(json.dumps({"k": secret}))
    if input == "fail":
        raise NodeError(f"no: {secret}", code=secret, data={"sent": [secret]})
    return {"said": f"<{secret}>", secret: 1}


TYPES = [echo, greedy, wait_badly, nap, grouped_nap, nameless, odd_error, teller]


def engine(**given: Any) -> Engine:
    return Engine(node_types=TYPES, discover=False, **given)


def workflow(*nodes: dict[str, Any], edges: list[dict[str, Any]] | None = None, **rest: Any) -> Workflow:
    return Workflow.from_dict({"schema": 1, "id": "w", "nodes": list(nodes), "edges": edges or [], **rest})


@pytest.mark.parametrize(
    "payload",
    [float("nan"), {"a": {1, 2}}, "\ud800", 10**5000, {1: 2}, [object()]],
    ids=lambda value: type(value).__name__,
)
async def test_a_payload_that_is_no_json_is_refused_with_its_place(payload: Any) -> None:
    async with engine() as e:
        with pytest.raises(DocumentError, match=r"\$\.payload"):
            await e.run(workflow({"id": "a", "type": "echo"}), payload)
        assert (await e.run(workflow({"id": "a", "type": "echo"}), 1)).status == "succeeded"


async def test_deep_and_cyclic_payloads_are_refused() -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    async with engine() as e:
        with pytest.raises(DocumentError, match="nested deeper"):
            await e.run(workflow({"id": "a", "type": "echo"}), cyclic)


@pytest.mark.parametrize("pins", [{"a": 5}, {"a": {"main": {1}}}, {"nobody": {"main": 1}}, 7])
async def test_pins_that_cannot_be_meant_are_refused(pins: Any) -> None:
    async with engine() as e:
        with pytest.raises(DocumentError, match=r"\$\.pins"):
            await e.run(workflow({"id": "a", "type": "echo"}), pins=pins)


async def test_what_the_caller_does_to_its_payload_later_changes_nothing() -> None:
    payload = {"v": 1}
    async with engine() as e:
        execution = await e.start(workflow({"id": "a", "type": "nap"}, output="{{ payload.v }}"), payload)
        payload["v"] = 2
        assert (await execution.result()).output == 1


async def test_what_a_function_gets_hold_of_is_its_own() -> None:
    variables = {"box": {"n": 1}}
    w = workflow(
        {"id": "a", "type": "greedy", "config": {"value": "{{ vars.box }}", "rows": []}},
        {"id": "b", "type": "greedy", "config": {"value": "{{ payload }}", "rows": []}},
        {"id": "c", "type": "echo", "config": {"value": ["{{ vars.box }}", "{{ payload }}"]}},
        edges=[{"source": "a", "target": "b"}, {"source": "b", "target": "c"}],
    )
    async with engine(variables=variables) as e:
        for _ in range(2):
            result = await e.run(w, {"n": 2})
            assert result.status == "succeeded"
            assert result.node("a").output == 1, "a constant of the document does not grow"
            assert result.output == [{"n": 1}, {"n": 2}]
    assert variables == {"box": {"n": 1}}


@pytest.mark.parametrize("value", ["text", "nan", "far"])
async def test_a_time_that_is_none_fails_its_node_and_no_other(value: str) -> None:
    async with engine() as e:
        other = await e.start(workflow({"id": "n", "type": "nap"}))
        bad = await e.run(workflow({"id": "a", "type": "wait_badly", "config": {"value": value}}))
        with anyio.fail_after(5):
            assert (await other.result()).output == "woken"
            assert (await e.run(workflow({"id": "n", "type": "nap"}))).output == "woken"
    assert bad.error is not None
    assert "no number of seconds" in bad.error.message


async def test_a_wait_inside_a_task_group_is_a_wait() -> None:
    async with engine() as e:
        assert (await e.run(workflow({"id": "a", "type": "grouped_nap"}))).output == "woken"


async def test_errors_that_cannot_be_shown_are_failures_all_the_same() -> None:
    async with engine() as e:
        nameless_ = await e.run(workflow({"id": "a", "type": "nameless"}))
        odd = await e.run(workflow({"id": "a", "type": "odd_error", "retry": {"attempts": 2}}))
    assert nameless_.error is not None
    assert "cannot be shown" in nameless_.error.message
    assert odd.error is not None
    assert odd.error.code == "odd"
    assert "not_json" in odd.error.data
    assert len(odd.node("a").attempts) == 2


SECRET = 'p"w\\\n/&éGhj'


@pytest.mark.parametrize("payload", ["ok", "fail"])
@pytest.mark.parametrize("config", [{"token": "{{ secrets.key }}"}, {}], ids=["config", "context"])
async def test_a_secret_leaves_in_no_form(config: dict[str, Any], payload: str) -> None:
    async with engine(secrets={"key": SECRET}) as e:
        execution = await e.start(workflow({"id": "a", "type": "teller", "config": config}), payload)
        result = await execution.result()
        events = [event async for event in execution.events()]
    for text in (
        repr(result),
        repr(events),
        json.dumps(result.output),
        *(line.message for line in result.node("a").logs),
    ):
        assert "Ghj" not in text
        assert 'p"w' not in text
    assert "***" in repr(result)


# `safe` characters of those who quote: one of RFC 3986, and what httpx leaves alone in a path and in a query.
@given(
    st.text(min_size=1, max_size=12),
    st.sampled_from(["", "/", "!$&'()*+,;=:@", "!$%&'()*+,-./:;=@[]_|~", "-._~"]),
    st.sampled_from([str, str.lower]),
)
def test_a_secret_is_found_however_a_url_quotes_it(secret: str, safe: str, cased: Callable[[str], str]) -> None:
    secret = secret.encode("utf-8", "ignore").decode() or "x"
    quoted = re.sub("%[0-9A-F]{2}", lambda found: cased(found.group()), urllib.parse.quote(secret, safe=safe))
    for shown in (quoted, quoted.replace("%20", "+")):
        assert mask({"url": f"http://x/bot{shown}/y"}, [secret])["url"].count("***") >= 1


def test_a_secret_is_found_as_a_number_and_as_a_host() -> None:
    secrets = ["7391846205", "Secret-Token"]
    answer = {"echo": [7391846205, 7391846205.0, 17391846205, True, 1.5], "host": "https://secret-token.example"}
    assert mask(answer, secrets) == {"echo": ["***", "***", 17391846205, True, 1.5], "host": "https://***.example"}


async def test_a_child_that_cannot_run_fails_its_node() -> None:
    child = Workflow.from_dict({"schema": 1, "id": "child", "nodes": [{"id": "x", "type": "nobody.knows"}]})
    w = workflow({"id": "a", "type": "workflow", "config": {"workflow": "child"}, "on_error": "continue"})
    async with engine(workflows=[child]) as e:
        result = await e.run(w)
    assert result.output["code"] == "invalid_document"
    assert "nobody.knows" in result.output["message"]


async def test_leaving_a_parent_stops_its_children() -> None:
    child = Workflow.from_dict(
        {"schema": 1, "id": "child", "nodes": [{"id": "x", "type": "nap"}, {"id": "y", "type": "nap"}]}
    )
    async with engine(workflows=[child]) as e:
        with anyio.move_on_after(0.02):
            await e.run(workflow({"id": "a", "type": "workflow", "config": {"workflow": "child"}}))
        await anyio.sleep(0.01)
        assert not e._drivers


async def test_closing_with_work_in_the_queue_leaves_cleanly() -> None:
    many = workflow(*({"id": f"n{i}", "type": "nap"} for i in range(30)))
    e = engine()
    async with e:
        executions = [await e.start(many) for _ in range(20)]
        await anyio.sleep(0.01)
        executions += [await e.start(many) for _ in range(3)]
    for execution in executions:
        with pytest.raises(OrchestratorError, match="closed"):
            await execution.result()


async def test_an_engine_can_be_opened_again() -> None:
    e = engine()
    for _ in range(2):
        async with e:
            assert (await e.run(workflow({"id": "a", "type": "echo", "config": {"value": 1}}))).output == 1


async def test_a_huge_backoff_is_held_by_its_maximum() -> None:
    retry = {"attempts": 4, "factor": 1e200, "delay": 0.001, "max_delay": 0.002}
    async with engine() as e:
        with anyio.fail_after(5):
            result = await e.run(workflow({"id": "a", "type": "odd_error", "retry": retry}))
    assert len(result.node("a").attempts) == 4


async def test_values_that_double_without_end_are_stopped() -> None:
    nodes = [{"id": f"n{i}", "type": "echo", "config": {"value": ["{{ input }}"] * 50}} for i in range(8)]
    edges = [{"source": f"n{i}", "target": f"n{i + 1}"} for i in range(7)]
    async with engine() as e:
        result = await e.run(workflow(*nodes, edges=edges), 1)
    assert result.error is not None
    assert result.error.code == "bad_output"
    assert "2,000,000 values" in result.error.message


async def test_an_answer_that_comes_too_late_is_stale() -> None:
    body = {"nodes": [{"id": "b", "type": "echo", "disabled": True}], "output": "{{ nodes.b.output }}"}
    w = workflow(
        {"id": "g", "type": "echo", "for_each": "{{ input }}"},
        {"id": "h", "type": "workflow", "config": {"body": body}},
    )
    async with engine() as e:
        result = await e.run(w)
    assert result.error is not None
    assert (result.error.code, result.error.node) == ("expression", "g")
