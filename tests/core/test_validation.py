"""What is refused when a workflow is saved, beyond the table of bad documents."""

from __future__ import annotations

import time
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_core import Engine, NodeContext, Workflow, hookimpl, node_type
from orchestrator_core.testing.mini import MiniScript
from orchestrator_core.validation import _Upstream, validate_document


@attrs.frozen
class Loose:
    value: Any = None


@node_type("loose", ports=None, inputs=None)
async def loose(ctx: NodeContext, config: Loose, input: Any) -> Any:
    return config.value


class Plugin:
    @hookimpl
    def register_languages(self) -> Any:
        return [MiniScript()]


def faults(document: dict[str, Any]) -> list[str]:
    workflow = Workflow.from_dict({"schema": 1, "id": "w", **document})
    return [str(fault) for fault in Engine(node_types=[loose], plugins=[Plugin()], discover=False).validate(workflow)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_upstream_is_what_a_walk_over_the_edges_finds(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 9))
    pairs = data.draw(
        st.sets(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(lambda p: p[0] < p[1]))
    )
    names = data.draw(st.permutations([f"n{i}" for i in range(size)]))
    workflow = Workflow.from_dict(
        {
            "schema": 1,
            "id": "w",
            "nodes": [{"id": name, "type": "loose"} for name in sorted(names)],
            "edges": [{"source": names[a], "target": names[b]} for a, b in pairs],
        }
    )
    upstream = _Upstream(workflow)
    upstream.BLOCK = 3  # so that several blocks are needed
    reach = {(names[a], names[b]) for a, b in pairs}
    while more := {(a, d) for a, b in reach for c, d in reach if b == c} - reach:
        reach |= more
    for source in names:
        for target in names:
            assert upstream.reaches(source, target) == ((source, target) in reach)


def test_a_large_graph_is_judged_quickly() -> None:
    size = 5000
    nodes = [
        {"id": f"n{i}", "type": "loose", "config": {"value": f"{{{{ nodes.n{max(i - 7, 0)}.output }}}}"}}
        for i in range(1, size)
    ]
    document = {
        "nodes": [{"id": "n0", "type": "loose"}, *nodes],
        "edges": [{"source": f"n{i}", "target": f"n{j}"} for i in range(size) for j in range(i + 1, min(i + 6, size))],
    }
    begin = time.process_time()
    assert faults(document) == []
    assert time.process_time() - begin < 10, "this takes a tenth of it; a quadratic walk takes far longer"


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("{{ item.x }}", "`item` exists only where there is a for_each"),
        ("{{ nodes.b.output }}", "node 'b' is not upstream of 'a'"),
        ("{{ nodes.c.output }}", "there is no node 'c' to refer to"),
        ("{{ nodes.a.output }}", "node 'a' is not upstream of 'a'"),
        ("{{ foo }}", "'foo' is not known"),
        ("{{ inptu.x }}", "'inptu' is not known: did you mean 'input'?"),
        ("{{ b.output }}", "'b' is not known: values are found under input, inputs"),
        ("{{ input.x | upper }}", "'upper' is not known"),
        ("{{ [1].map(x => y) }}", "'y' is not known"),
        ("{{ `${ nope }` }}", "'nope' is not known"),
        ("{{ execution.foo }}", "an execution has no 'foo': it has id and workflow"),
        ("{{ }}", "an expression is empty"),
        ("{{ secrets.x }}", "secrets may only stand in fields"),
    ],
)
def test_references_are_judged_with_their_place(expression: str, fault: str) -> None:
    found = faults(
        {"nodes": [{"id": "a", "type": "loose", "config": {"value": expression}}, {"id": "b", "type": "loose"}]}
    )
    assert len(found) == 1
    assert found[0].startswith("$.nodes[0].config.value: ")
    assert fault in found[0]


def test_parameters_of_functions_are_no_references() -> None:
    node = {"id": "a", "type": "loose", "config": {"value": "{{ input.map(item => item.x) }}"}}
    assert faults({"nodes": [node]}) == []


def test_the_types_of_triggers_and_groups_are_minded() -> None:
    body = {"nodes": [{"id": "x", "type": "nobody"}]}
    found = faults({"nodes": [{"id": "g", "type": "workflow", "config": {"body": body}, "timeout": 3}]})
    assert [fault.split(":")[0] for fault in found] == ["$.nodes[0].timeout", "$.nodes[0].config.body.nodes[0].type"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    """Wrong types, a broken graph, unknown node types and bad settings: one look shows them, and nothing that follows."""
    document = {
        "schema": 1,
        "settings": {"timeout": "soon"},
        "nodes": [
            {"id": "a", "type": "set", "config": {"values": {"x": 1}}, "retries": 3},
            {"id": "b", "type": "iff"},
            {"id": "c", "type": "if", "config": {"condition": "{{ nodes.zz.output }}"}, "join": "lots"},
            {"id": "c", "type": "set", "config": {"velues": {}}},
            {"id": "d", "type": "code", "config": {"source": "return (", "bogus": 1}},
            {
                "id": "l",
                "type": "loop",
                "config": {"max_iterations": "x", "body": {"nodes": [{"id": "q", "type": "nope", "whenn": 1}]}},
            },
        ],
        "edges": [
            {"source": "a", "target": "b"},
            {"source": "b", "target": "q"},
            {"source": "d", "port": "nono", "target": "a", "bla": 1},
        ],
    }
    places = {
        "$.id",
        "$.settings.timeout",
        "$.nodes[0].retries",
        "$.nodes[1].type",
        "$.nodes[2].join",
        "$.nodes[2].config.condition",
        "$.nodes[3].id",
        "$.nodes[3].config.velues",
        "$.nodes[4].config.bogus",
        "$.nodes[4].config.source",
        "$.nodes[5].config.max_iterations",
        "$.nodes[5].config.body.nodes[0].whenn",
        "$.nodes[5].config.body.nodes[0].type",
        "$.edges[1].target",
        "$.edges[2].bla",
        "$.edges[2].port",
    }
    found = validate_document(document, Engine().registry)
    assert {fault.place for fault in found} == places
    assert len(found) == len(places)


def test_what_follows_a_node_is_one_of_its_fields() -> None:
    nodes = [{"id": "a", "type": "loose"}, {"id": "b", "type": "loose", "config": {"value": "{{ nodes.a.x }}"}}]
    found = faults({"nodes": nodes, "edges": [{"source": "a", "target": "b"}]})
    assert found == ["$.nodes[1].config.value: a node has no 'x': write nodes.a.output, .outputs, .status or .error"]


@pytest.mark.parametrize(
    "expression",
    [
        "{{ Math.max(1, 2) }}",
        "{{ {a: 1, b: input}.a }}",
        "{{ input ? inputs : payload }}",
        "{{ [1].map((x, i) => x + i) }}",
        "{{ [{n: 1}].map(({n}) => n) }}",
        "{{ (() => { const y = 1; return y; })() }}",
        "{{ input?.a?.b ?? 'x' }}",
        "{{ `a ${ input.x } b` }}",
        "{{ ({twice(x) { return x; }}).twice(2) }}",
        "{{ new Date(0).toISOString() }}",
        "{{ /a(b)c/.test(input) }}",
        "{{ input instanceof Array || undefined === null }}",
    ],
)
def test_names_of_the_language_are_known(expression: str) -> None:
    assert (
        faults({"nodes": [{"id": "a", "type": "loose", "config": {"value": expression}}]}) == []
        or "fetch" in expression
    )


@pytest.mark.parametrize("condition", ["input.x > 3", "{{ input.x }} > 3", "false", " {{ input.x }}", ""])
def test_a_condition_that_is_always_true_is_refused(condition: str) -> None:
    """The most frequent mistake of all: braces forgotten, and a branch taken whatever comes."""
    nodes: list[dict[str, Any]] = [
        {"id": "a", "type": "set", "when": condition},
        {"id": "b", "type": "if", "config": {"condition": condition}},
        {"id": "c", "type": "filter", "config": {"where": condition}},
        {"id": "d", "type": "switch", "config": {"cases": [{"when": condition, "port": "p"}]}},
        {"id": "e", "type": "loop", "config": {"body": {"nodes": [{"id": "x", "type": "set"}]}, "until": condition}},
    ]
    nodes[4]["config"]["max_iterations"] = 3
    document = {"schema": 1, "id": "w", "nodes": nodes}
    places = ["when", "config.condition", "config.where", "config.cases[0].when", "config.until"]
    found = validate_document(document, Engine().registry)
    assert [fault.place for fault in found] == [f"$.nodes[{i}].{place}" for i, place in enumerate(places)]
    assert all("always true" in fault.message for fault in found)


@pytest.mark.parametrize("condition", [True, False, 0, None, "{{ input.x > 3 }}", "{{ '}}' }}"])
def test_other_conditions_are_taken(condition: Any) -> None:
    nodes = [{"id": "b", "type": "if", "config": {"condition": condition}}]
    assert validate_document({"schema": 1, "id": "w", "nodes": nodes}, Engine().registry) == []


@pytest.mark.parametrize("items", ["input.rows", "{{ input.rows }} ", 3, {"a": 1}])
def test_for_each_over_what_can_be_no_list_is_refused(items: Any) -> None:
    nodes = [{"id": "b", "type": "set", "for_each": items}]
    found = validate_document({"schema": 1, "id": "w", "nodes": nodes}, Engine().registry)
    assert [fault.place for fault in found] == ["$.nodes[0].for_each"]
