"""The code-first way to write workflows: what is drawn is the document one would have written by hand."""

from __future__ import annotations

import doctest
import inspect
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator_core import DocumentError, Duration, Engine, Retry, Workflow, build
from orchestrator_core.build import Flow, GroupRef
from orchestrator_core.testing.strategies import workflows


def edges(flow: Flow) -> list[str]:
    return [str(edge) + (f"[{edge.key}]" if edge.key else "") for edge in flow.workflow().edges]


def faults(flow: Flow) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        flow.workflow()
    return [str(fault) for fault in caught.value.faults]


def document(**parts: Any) -> Workflow:
    return Workflow.from_dict({"schema": 1, "id": "f", **parts})


def test_the_examples_of_the_documentation_run():
    assert doctest.testmod(build).failed == 0


# --- nodes ---------------------------------------------------------------------------------------------------------------


def test_a_drawn_flow_is_the_document_one_would_write():
    flow = Flow("order-intake", name="Order intake", timeout="5m", failure="drain", output="{{ nodes.notify.output }}")
    hook = flow.node("hook", "webhook", path="orders", respond="last")
    price = flow.node("price", "code", source="return 1", retry=Retry(attempts=3, delay=Duration(1.0)), timeout="10s")
    notify = flow.node("notify", "http", method="POST", url="{{ vars.url }}", json="{{ input }}", on_error="continue")
    hook >> price >> notify
    assert flow.workflow() == Workflow.from_yaml("""
schema: 1
id: order-intake
name: Order intake
settings: {timeout: 300, failure: drain}
nodes:
  - {id: hook, type: webhook, config: {path: orders, respond: last}}
  - {id: price, type: code, config: {source: "return 1"}, retry: {attempts: 3, delay: 1}, timeout: 10}
  - {id: notify, type: http, config: {method: POST, url: "{{ vars.url }}", json: "{{ input }}"}, on_error: continue}
edges:
  - {source: hook, target: price}
  - {source: price, target: notify}
output: "{{ nodes.notify.output }}"
""")


def test_a_keyword_is_a_field_of_the_node_or_else_a_setting_of_its_type():
    flow = Flow("f")
    flow.node("a", "code", name="Code", source="return 1", timeout=10, timeout_=5)
    flow.node("b", "wait", for_="1m", when="{{ payload.slow }}")
    flow.node("c", "acme.x", config={"name": "in the config", "class": 1}, other=2)
    a, b, c = flow.workflow().nodes
    assert (a.name, a.timeout, a.config) == ("Code", 10, {"source": "return 1", "timeout": 5})
    assert (b.when, b.config) == ("{{ payload.slow }}", {"for": "1m"})
    assert (c.name, c.config) == (None, {"name": "in the config", "class": 1, "other": 2})


@pytest.mark.parametrize(
    ("given_as", "meant"),
    [
        (3, Retry(attempts=3)),
        (Retry(attempts=2, jitter=0.5), Retry(attempts=2, jitter=0.5)),
        ({"attempts": 4, "delay": "1m"}, Retry(attempts=4, delay=Duration(60.0))),
    ],
)
def test_a_retry_may_be_a_number_a_dict_or_a_retry(given_as, meant):
    flow = Flow("f")
    flow.node("a", "set", retry=given_as)
    assert flow.workflow().nodes[0].retry == meant


@pytest.mark.parametrize("span", [90, 90.0, "1m30s", timedelta(seconds=90)])
def test_spans_of_time_may_be_numbers_texts_or_timedeltas(span):
    flow = Flow("f", timeout=span)
    flow.node("a", "set", timeout=span, values={"span": timedelta(seconds=1)})
    flow.loop("l", max_iterations=2, delay=span).node("inner", "set")
    workflow = flow.workflow()
    assert workflow.settings.timeout == workflow.nodes[0].timeout == 90
    assert workflow.nodes[0].config == {"values": {"span": 1.0}}


def test_every_field_of_a_node_can_be_said():
    fields = {
        "name": "A",
        "when": "{{ true }}",
        "for_each": [1, 2],
        "max_parallel": 2,
        "join": "first",
        "cancel_rest": True,
        "on_error": "continue",
        "on_lost": "fail",
        "retry": {"attempts": 2},
        "timeout": 3,
        "disabled": True,
        "type_version": 1,
        "position": {"x": 1, "y": 2},
    }
    assert set(fields) == set(build.NodeOptions.__annotations__)
    flow = Flow("f", max_parallel=None)
    flow.node("a", "set", **{**fields, "position": (1, 2)})
    assert flow.workflow() == document(nodes=[{"id": "a", "type": "set", **fields}], settings={"max_parallel": None})


def test_what_is_changed_after_it_was_drawn_changes_nothing():
    values = {"list": [1]}
    flow = Flow("f")
    flow.node("a", "set", values=values)
    before = flow.workflow()
    values["list"].append(2)
    flow.node("b", "set")
    assert before.nodes[0].config == {"values": {"list": [1]}}
    assert flow.workflow().nodes[0] == before.nodes[0]
    assert len(before.nodes) == 1


# --- edges ---------------------------------------------------------------------------------------------------------------


def test_every_way_to_wire():
    flow = Flow("f")
    a, b, c, d = (flow.node(name, "t.x") for name in "abcd")
    a >> b >> c
    b["left"] >> d
    a["right"] >> c["far"] >> d
    [a, b["side"]] >> d.input("rest", key="k")
    (b,) >> c.input("other")
    flow.connect(a, d, port="p", input="q", key="r")
    assert edges(flow) == [
        "a->b",
        "b->c",
        "b.left->d",
        "a.right->c",
        "c.far->d",
        "a->d:rest[k]",
        "b.side->d:rest[k]",
        "b->c:other",
        "a.p->d:q[r]",
    ]


def test_a_chain_goes_on_from_several_nodes_and_from_an_input():
    flow = Flow("f")
    a, b, c, d, e = (flow.node(name, "t.x") for name in "abcde")
    a >> [b, c["out"]] >> d.input("in") >> e
    assert edges(flow) == ["a->b", "a->c", "b->d:in", "c.out->d:in", "d->e"]


def test_mistakes_in_wiring_are_refused_at_once():
    flow, other = Flow("one"), Flow("two")
    a, foreign = flow.node("a", "set"), other.node("x", "set")
    with pytest.raises(DocumentError, match="no edge a >> x: 'x' stands in the flow 'two', not in the flow 'one'"):
        a >> foreign
    with flow.loop("poll", max_iterations=2) as poll:
        inner = poll.node("fetch", "set")
    with pytest.raises(DocumentError, match="no edge a >> poll/fetch: 'poll/fetch' stands in the group 'poll'"):
        a >> inner
    for wrong in ("b", None, [], [a, "b"]):
        with pytest.raises(TypeError, match="unsupported operand"):
            a >> wrong
    with pytest.raises(TypeError, match="cannot be iterated"):
        list(a)
    with pytest.raises(TypeError, match="by its name"):
        a[0]


# --- Python functions ------------------------------------------------------------------------------------------------------


def test_python_functions_run_as_nodes():
    flow = Flow("f")

    @flow.call
    def double(input):
        return input * 2

    @flow.call(id="plus", arguments={"number": "{{ payload }}"}, retry=2)
    async def add(input, *, number):
        await anyio.lowlevel.checkpoint()
        return input + number

    @flow.call
    def tell(input, ctx):
        return [ctx.node_id, input]

    double >> add >> tell
    assert flow.run_sync(10, discover=False).output == ["tell", 30]
    assert flow.workflow() == document(
        nodes=[
            {"id": "double", "type": "call", "config": {"function": "double"}},
            {
                "id": "plus",
                "type": "call",
                "config": {"function": "add", "arguments": {"number": "{{ payload }}"}},
                "retry": {"attempts": 2},
            },
            {"id": "tell", "type": "call", "config": {"function": "tell"}},
        ],
        edges=[{"source": "double", "target": "plus"}, {"source": "plus", "target": "tell"}],
    )


def test_a_decorated_function_can_still_be_called_and_read():
    flow = Flow("f")

    @flow.call
    def double(input: int) -> int:
        """Twice as much."""
        return input * 2

    assert double(21) == 42
    assert double.__doc__ == "Twice as much."
    assert str(inspect.signature(double)) == "(input: 'int') -> 'int'"


def test_one_function_may_be_several_nodes_under_one_name():
    flow = Flow("f")

    def double(input):
        return input * 2

    flow.call(double) >> flow.call(double, id="again")
    assert flow.callables == {"double": double}
    assert flow.run_sync(1, discover=False).output == 4


def test_a_bound_method_is_one_function_every_time():
    seen = []
    flow = Flow("f")
    flow.call(seen.append, id="one") >> flow.call(seen.append, id="two")
    flow.run_sync("x", discover=False)
    assert seen == ["x", None]


def test_names_of_functions_are_one_set_for_the_flow_and_its_groups():
    flow = Flow("f")

    @flow.call
    def step(input):
        return input

    with flow.group("inner") as inner, pytest.raises(DocumentError, match="another function is called 'step'"):

        @inner.call
        def step(input):
            return None

    @inner.call(id="step", function_name="inner_step")
    def other(input):
        return None

    assert set(flow.callables) == {"step", "inner_step"}
    assert inner._nodes["step"].path == "inner/step"


def test_a_refused_function_leaves_nothing_behind():
    flow = Flow("f")
    flow.node("double", "set")
    with pytest.raises(DocumentError, match="already"):
        flow.call(lambda given: given, id="double", function_name="mine")
    flow.call(lambda _: None, id="mine")
    assert list(flow.callables) == ["mine"]


def test_a_function_without_a_name_needs_an_id():
    with pytest.raises(DocumentError, match="has no name to make an id of"):
        Flow("f").call(lambda given: given)


# --- groups ----------------------------------------------------------------------------------------------------------------


def test_groups_hold_nodes_nest_and_run():
    flow = Flow("f", output="{{ nodes.down.output }}")
    with flow.loop("down", until="{{ input.n === 0 }}", max_iterations=10, timeout=60) as down:
        with down.group("once", output="{{ nodes.tidy.output }}", for_each="{{ [input] }}") as once:
            less = once.call(lambda given: {"n": given["n"] - 1}, id="less")
            tidy = once.call(lambda given: {**given, "tidy": True}, id="tidy")
            less >> tidy
        first = down.call(lambda given: given[0], id="first")
        once >> first
    start = flow.call(lambda given: {"n": given}, id="begin")
    start >> down
    assert isinstance(down, GroupRef)
    result = flow.run_sync(3)
    assert result.output == {"n": 0, "tidy": True}
    assert result.node("down/2/once/0/less").output == {"n": 0}
    body = flow.workflow().nodes[0].config["body"]
    assert body["settings"] == {"timeout": 60}
    assert body["nodes"][0]["config"]["body"]["output"] == "{{ nodes.tidy.output }}"


def test_a_group_that_failed_to_be_drawn_raises():
    flow = Flow("f")
    with pytest.raises(ZeroDivisionError), flow.loop("l", max_iterations=1):
        1 / 0  # noqa: B018 - the body of the `with` goes wrong


# --- faults ------------------------------------------------------------------------------------------------------------------


def test_faults_name_their_place_and_their_node():
    flow = Flow("f")
    a, b = flow.node("a", "set", join=2), flow.node("b", "set", retry=0)
    a >> b
    with flow.loop("poll", max_iterations=3) as poll:
        poll.group("empty")
        inner = poll.node("inner", "set", max_parallel=2)
        inner >> poll.node("end", "set")
        inner >> poll._nodes["end"]
    assert faults(flow) == [
        "$.nodes[1].retry.attempts: must be 1 or more, the first attempt counts (b)",
        "$.nodes[0].join: waits for 2 deliveries, but has 0 edges (a)",
    ]
    flow._nodes.pop("a")
    flow._nodes.pop("b")
    flow._edges.clear()
    assert faults(flow) == [
        "$.nodes[0].config.body.nodes[1].max_parallel: only counts items: add for_each, or remove it (poll/inner)",
        "$.nodes[0].config.body.edges[1]: is the same edge as edges[0] (inner->end): remove one (poll/inner >> end)",
        "$.nodes[0].config.body.nodes[0].config.body.nodes: has no nodes: add one (poll/empty)",
    ]


def test_a_wrong_type_of_a_field_is_a_fault_with_a_name():
    flow = Flow("f")
    flow.node("a", "set", join="last")  # type: ignore[arg-type]  # what the test is about
    (fault,) = faults(flow)
    assert fault.startswith("$.nodes[0].join: ")
    assert fault.endswith("(a)")


def test_faults_that_only_node_types_know_have_names_when_it_runs():
    flow = Flow("f")
    poll = flow.loop("poll", max_iterations=2)
    poll.node("one", "call", functoin="x") >> poll.node("two", "call", function="y").input("side")
    with pytest.raises(DocumentError) as caught:
        flow.run_sync(discover=False)
    functoin, missing, side = [str(fault) for fault in caught.value.faults]
    assert functoin.endswith("(poll/one)")
    assert missing.endswith("(poll/one)")
    assert side.endswith("call has no input 'side': it has main (poll/one >> two)")


def test_a_cycle_is_refused_with_its_path():
    flow = Flow("f")
    a, b = flow.node("a", "set"), flow.node("b", "set")
    a >> b >> a
    assert "cycle: " in faults(flow)[0]
    assert flow._repr_svg_() is None


def test_taken_ids_and_values_that_are_no_json_are_refused_where_they_are_written():
    flow = Flow("f")
    flow.node("a", "set")
    with pytest.raises(DocumentError, match="there is a node 'a' already"):
        flow.node("a", "set")
    with pytest.raises(DocumentError, match=r"\$\.nodes\[1\]\.config\.values\.x.*a set is not JSON.*\(b\)"):
        flow.node("b", "set", values={"x": {1, 2}})
    with pytest.raises(DocumentError, match="is no node id"):
        Flow("f").node("1st", "set").graph.flow.workflow()
    assert len(flow.workflow().nodes) == 1


# --- running and showing -----------------------------------------------------------------------------------------------------


def test_the_engine_of_a_flow_takes_the_engines_options():
    flow = Flow("f")
    mine, theirs = flow.call(lambda _: 1, id="mine"), flow.node("theirs", "call", function="given")
    mine >> theirs
    result = flow.run_sync(discover=False, callables={"given": lambda given: given + 1}, variables={"x": 1})
    assert result.output == 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_run_awaits_in_a_running_loop_with_pins_and_start(backend):
    flow = Flow("f")
    one = flow.call(lambda given: given + 1, id="one")
    one >> flow.call(lambda given: given + 1, id="two")

    async def main() -> Any:
        return await flow.run(1, pins={"one": {"main": 40}}, seed=7, discover=False)

    assert anyio.run(main, backend=backend).output == 41


def test_a_notebook_shows_the_picture_of_an_unfinished_flow():
    flow = Flow("f", name="Half done")
    with flow.loop("poll", max_iterations=3, name="Poll it") as poll:
        poll.node("fetch", "http")
    flow.node("a", "set", join=7) >> poll
    picture = flow._repr_svg_()
    assert picture is not None
    assert picture.startswith("<svg")
    for text in ("Half done", "Poll it", 'data-node="poll/fetch"', 'data-edge="'):
        assert text in picture


def test_the_parts_say_what_they_are():
    flow = Flow("f")
    a = flow.group("g").node("a", "set")
    assert repr(flow) == "<flow f: 1 nodes, 0 edges>"
    assert repr([a, a["true"], a.input("side"), a >> [a.graph.node("b", "set")]]) == (
        "[<node g/a (set)>, <port true of g/a>, <input side of g/a>, <several: <node g/b (set)>>]"
    )


# --- properties ------------------------------------------------------------------------------------------------------------


def redraw(graph: Any, drawn: dict[str, Any]) -> None:
    """Draw a document with the builder."""
    nodes = {}
    for node in drawn["nodes"]:
        options = {name: value for name, value in node.items() if name not in {"id", "type", "config"}}
        config = dict(node.get("config", {}))
        if node["type"] in {"loop", "workflow"}:
            body = config.pop("body")
            options |= body.get("settings", {})
            make = graph.loop if node["type"] == "loop" else graph.group
            nodes[node["id"]] = make(node["id"], output=body.get("output"), **config, **options)
            redraw(nodes[node["id"]], body)
        else:
            nodes[node["id"]] = graph.node(node["id"], node["type"], config=config, **options)
    for edge in drawn["edges"]:
        source, target = nodes[edge["source"]], nodes[edge["target"]]
        source[edge.get("port", "main")] >> target.input(edge.get("input", "main"), key=edge.get("key"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workflows())
def test_whatever_a_document_can_say_can_be_drawn_and_comes_back_equal(drawn):
    flow = Flow("w", **drawn.get("settings", {}), output=drawn.get("output"))
    redraw(flow, drawn)
    workflow = flow.workflow()
    assert _tidy(workflow) == _tidy(Workflow.from_dict({"schema": 1, **drawn, "id": "w"}))
    assert Workflow.from_dict(workflow.to_dict()) == workflow
    assert Workflow.from_json(workflow.to_json()) == workflow


def _tidy(workflow: Workflow) -> Any:
    """The document, in bodies too without what stands at its default: there it is kept as it was written."""

    def tidy(graph: dict[str, Any]) -> dict[str, Any]:
        defaults = {("port", "main"), ("input", "main"), ("key", None)}
        edges = [{k: v for k, v in edge.items() if (k, v) not in defaults} for edge in graph["edges"]]
        return {**graph, "edges": edges, "nodes": [node | inner(node.get("config", {})) for node in graph["nodes"]]}

    def inner(config: dict[str, Any]) -> dict[str, Any]:
        return {"config": {**config, "body": tidy(config["body"])}} if "body" in config else {}

    return tidy(workflow.to_dict())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), json_values, max_size=4))
def test_any_json_config_survives_the_trip_through_text(config):
    flow = Flow("f")
    flow.node("a", "x.y", config=config)
    workflow = flow.workflow()
    assert workflow.nodes[0].config == config
    assert Workflow.from_json(workflow.to_json()) == workflow


def test_the_functions_go_to_any_engine_by_name():
    flow = Flow("f")
    flow.call(lambda given: given["a"], id="pick")
    stored = flow.workflow().to_json()
    result = Engine(discover=False, callables=flow.callables).run_sync(Workflow.from_json(stored), {"a": 5})
    assert result.output == 5
