"""The reference interpreter gives what every hand-worked case of the law expects, and keeps the law on random cases."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from reference import ENDED, check, interpret

from orchestrator_core.testing.strategies import ORDER_INDEPENDENT, cases, reorder, workflows
from orchestrator_core.yaml_text import parse_yaml

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "data" / "law"  # beside the repository, on machines that have it
OWN_CASES = sorted(HERE.glob("*.yaml"))
SHARED_CASES = sorted(SHARED.glob("*.yaml"))

some = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def load(path):
    return parse_yaml(path.read_bytes())[0]


# --- cases worked by hand


@pytest.mark.parametrize("path", OWN_CASES, ids=lambda path: path.stem)
def test_the_projects_own_cases_come_out_as_worked_by_hand(path):
    case = load(path)
    assert check(case, interpret(case)) == []


@pytest.mark.skipif(not SHARED_CASES, reason="the law's examples (../shared/data/law) are not on this machine")
@pytest.mark.parametrize("path", SHARED_CASES, ids=lambda path: path.stem)
def test_the_laws_examples_come_out_as_worked_by_hand(path):
    case = load(path)
    assert check(case, interpret(case)) == []


FAILING = {
    "workflow": {"nodes": [{"id": "a", "type": "script"}, {"id": "b", "type": "script"}], "edges": []},
    "payload": 1,
    "script": {"a": [{"fail": {"code": "boom", "message": "x"}, "after": 2}], "b": [{"emit": {"main": True}}]},
}
FAILING["workflow"]["edges"] = [{"source": "a", "target": "b", "input": "side"}]


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"status": "succeeded"}, "status: expected 'succeeded', got 'failed'"),
        ({"error": {"code": "other"}}, "error: expected {'code': 'other'}, got {'code': 'boom'"),
        ({"error": None}, "error: expected None, got {'code': 'boom'"),
        ({"nodes": {"a": {"attempts": 2}}}, "node a, attempts: expected 2, got 1"),
        ({"nodes": {"a": {"input": True}}}, "node a, input: expected True, got 1"),
        ({"nodes": {"c": {"status": "skipped"}}}, "node c, status: expected 'skipped', and there is none"),
        ({"edges": {"a->b:side": "delivered"}}, "edge a->b:side: expected 'delivered', got 'skipped'"),
        ({"edges": {"a->b": "skipped"}}, "edge a->b: expected 'skipped', and there is none"),
        ({"order": ["b"]}, "order: expected ['b'], got ['a']"),
        ({"finished_at": 3}, "finished_at: expected 3, got 2"),
    ],
)
def test_a_difference_is_told_in_words(expect, said):
    (difference,) = check({**FAILING, "expect": expect}, interpret(FAILING))
    assert difference.startswith(said)


def test_what_is_as_expected_is_no_difference():
    nodes = {"a": {"status": "failed", "attempts": 1.0, "error": {"node": "a"}}, "b": {"attempts": 0}}
    expect = {"status": "failed", "error": {"code": "boom"}, "nodes": nodes, "edges": {"a->b:side": "skipped"}}
    assert check({**FAILING, "expect": expect}, interpret(FAILING)) == []


def test_a_wait_that_nothing_ends_leaves_the_execution_running():
    workflow = {"nodes": [{"id": "w", "type": "script"}], "edges": []}
    outcome = interpret({"workflow": workflow, "script": {"w": [{"wait": {"signal": "go"}}]}})
    assert (outcome["status"], outcome["finished_at"]) == ("running", None)
    assert outcome["nodes"]["w"]["status"] == "waiting"


# --- sentences that the hand-worked cases leave aside; where the law leaves a choice, the test's name says which


def nodes(*rows):
    return [{"id": name, "type": "script", **more} for name, more in rows]


def edges(*rows):
    return [dict(zip(("source", "target", "port"), row.split(), strict=False)) for row in rows]


def run(workflow, **case):
    return interpret({"workflow": workflow, "payload": 0, **case})


def emit(after, **ports):
    return [{"emit": ports, "after": after}]


def test_completions_at_one_time_come_in_document_order_whenever_they_began():
    graph = nodes(("late", {}), ("b", {}), ("s", {}), ("j", {"join": "first"}))
    workflow = {"nodes": graph, "edges": edges("s late", "late j", "b j")}
    outcome = run(workflow, script={"s": emit(1, main=0), "late": emit(2, main=1), "b": emit(3, main=2)})
    assert outcome["nodes"]["j"]["input"] == {"late": 1}


def test_what_passes_through_disabled_nodes_is_of_the_same_event():
    graph = nodes(("s", {}), ("d", {"disabled": True}), ("j", {"join": "first"}))
    outcome = run({"nodes": graph, "edges": edges("d j", "s d", "s j")})
    assert outcome["nodes"]["j"]["input"] == {"d": 0}


def test_what_passes_through_a_group_that_does_nothing_is_of_the_same_event():
    body = {"nodes": nodes(("d", {"disabled": True})), "edges": []}
    graph = nodes(("s", {}), ("g", {"type": "workflow", "config": {"body": body}}), ("j", {"join": "first"}))
    outcome = run({"nodes": graph, "edges": edges("g j", "s g", "s j")})
    assert outcome["nodes"]["j"]["input"] == {"g": 0}


def test_the_answer_to_a_when_is_an_event_of_its_own():
    graph = nodes(("s", {}), ("d", {"disabled": True, "when": "{{ true }}"}), ("j", {"join": "first"}))
    outcome = run({"nodes": graph, "edges": edges("d j", "s d", "s j")})
    assert outcome["nodes"]["j"]["input"] == {"s": 0}
    assert outcome["edges"]["d->j"] == "delivered"


def test_a_slot_is_given_before_a_when_of_the_same_event_is_answered():
    graph = nodes(("a", {"when": "{{ true }}"}), ("b", {}), ("c", {}))
    outcome = run({"nodes": graph, "edges": [], "settings": {"max_parallel": 1}})
    assert outcome["order"] == ["b", "a", "c"]  # and it keeps its place in the queue


def test_cancel_rest_takes_a_loser_that_still_queues_for_its_first_slot():
    graph = nodes(("a", {}), ("b", {}), ("j", {"join": "first", "cancel_rest": True}))
    outcome = run({"nodes": graph, "edges": edges("a j", "b j"), "settings": {"max_parallel": 1}})
    assert outcome["nodes"]["b"] == outcome["nodes"]["b"] | {"status": "cancelled", "attempts": 0}


def test_what_items_emit_on_port_error_is_not_delivered():
    graph = nodes(("n", {"for_each": "{{ payload }}"}), ("z", {}))
    workflow = {"nodes": graph, "edges": edges("n z error")}
    outcome = run(workflow, payload=[1, 2], script={"n/0": emit(0, main=1, error=2)})
    assert outcome["edges"] == {"n.error->z": "skipped"}
    assert outcome["nodes"]["n"]["outputs"] == {"main": [1, 2]}


def test_the_entries_of_a_script_go_on_over_waits_and_retries():
    graph = nodes(("a", {"retry": {"attempts": 2}}))
    script = {"a": [{"wait": {"for": 2}}, {"fail": {"code": "x", "retryable": True}}, *emit(3, main="third")]}
    outcome = run({"nodes": graph, "edges": []}, script=script)
    assert (outcome["output"], outcome["nodes"]["a"]["attempts"], outcome["finished_at"]) == ("third", 2, 5)


def test_a_for_each_group_cancelled_alone_keeps_what_its_items_gave():
    body = {"nodes": nodes(("a", {})), "edges": []}
    graph = nodes(("g", {"type": "workflow", "for_each": "{{ payload }}", "config": {"body": body}}))
    happens = [{"at": 2, "cancel": True, "path": "g"}]
    outcome = run({"nodes": graph, "edges": []}, payload=[1, 2], script={"g/1/a": emit(5, main=3)}, happens=happens)
    error = {"code": "cancelled", "node": "g", "data": {"items": [1, None]}}
    assert check({"expect": {"status": "failed", "error": error, "finished_at": 2}}, outcome) == []
    assert outcome["nodes"]["g/1/a"]["status"] == "cancelled"


def test_a_body_that_times_out_says_where():
    body = {"nodes": nodes(("a", {})), "edges": [], "settings": {"timeout": 3}}
    graph = nodes(("l", {"type": "loop", "config": {"body": body, "max_iterations": 2}}))
    outcome = run({"nodes": graph, "edges": []}, script={"l/1/a": emit(5, main=3)})
    error = {"code": "timeout", "node": "l", "data": {"path": "l/1"}}
    assert check({"expect": {"error": error, "finished_at": 3}}, outcome) == []


def test_several_triggers_need_a_name_and_a_cycle_is_refused():
    triggers = nodes(("a", {"type": "script-trigger"}), ("b", {"type": "script-trigger"}))
    with pytest.raises(ValueError, match="name one of the triggers"):
        run({"nodes": triggers, "edges": []})
    with pytest.raises(ValueError, match="a cycle among"):
        run({"nodes": nodes(("r", {}), ("a", {}), ("b", {})), "edges": edges("r a", "a b", "b a")})


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ input.list.length }}", 2),
        ("{{ input.list[1] }}", "b"),
        ('{{ input["n"] > 1 && !input.nothing }}', True),
        ("{{ input.n === true }}", False),
        ("{{ input.none ?? input.n }}", 2),
        ("{{ input.none?.x.y }}", None),
        ('{{ "{{" }}', "{{"),
        ("n is {{ input.n }}, list {{ input.list }}", 'n is 2, list ["a","b"]'),
        ("{{ input.text }}", "{{ input.n }}"),
    ],
)
def test_expressions_are_read_as_javascript_reads_them(template, value):
    workflow = {"nodes": nodes(("a", {})), "edges": [], "output": template}
    assert run(workflow, payload={"n": 2, "list": ["a", "b"], "none": None, "text": "{{ input.n }}"})["output"] == value


@pytest.mark.parametrize("template", ["{{ input.x.y }}", "{{ nodes.a.output.x.y }}", "a {{ input.x }}", "{{ input +"])
def test_an_expression_that_cannot_be_evaluated_is_an_error(template):
    outcome = run({"nodes": nodes(("a", {})), "edges": [], "output": template}, payload={})
    assert check({"expect": {"status": "failed", "error": {"code": "expression", "node": None}}}, outcome) == []


# --- the law on random cases


@some
@given(cases())
def test_everything_ends_and_every_edge_is_settled(case):
    outcome = interpret(case)
    assert outcome["status"] in {"succeeded", "failed", "cancelled"}
    assert {record["status"] for record in outcome["nodes"].values()} <= ENDED
    assert set(outcome["edges"].values()) <= {"delivered", "skipped"}
    assert outcome["max_running"] <= case["workflow"].get("settings", {}).get("max_parallel", 32)
    assert (outcome["error"] is not None) == (outcome["status"] == "failed")


@some
@given(cases())
def test_each_record_says_one_thing(case):
    for path, record in interpret(case)["nodes"].items():
        assert (record["error"] is not None) == (record["status"] == "failed"), path
        if record["status"] in {"skipped", "cancelled"}:
            assert record["outputs"] == {}
        if record["status"] == "skipped":
            assert record["attempts"] == 0


@some
@given(cases(pins=False, disabled=False, groups=False, loops=False, for_each=False))
def test_an_edge_is_delivered_exactly_where_its_source_emitted_on_its_port(case):
    outcome = interpret(case)
    for edge in case["workflow"]["edges"]:
        port = edge.get("port", "main")
        side = ":side" if "input" in edge else ""
        name = f"{edge['source']}{'' if port == 'main' else '.' + port}->{edge['target']}{side}"
        if name in outcome["edges"]:  # else it is outside the plan
            emitted = port in outcome["nodes"][edge["source"]]["outputs"]
            assert outcome["edges"][name] == ("delivered" if emitted else "skipped"), name


@some
@given(cases(**ORDER_INDEPENDENT), st.integers(0, 2**16))
def test_any_order_of_the_same_results_gives_the_same_outcome(case, seed):
    about = ("status", "output", "error", "nodes", "edges")
    one, other = interpret(case), interpret(reorder(case, seed))
    assert {key: one[key] for key in about} == {key: other[key] for key in about}


@some
@given(cases())
def test_the_same_case_gives_the_same_outcome_and_is_left_as_it_was(case):
    before = copy.deepcopy(case)
    assert interpret(case) == interpret(case)
    assert case == before


# --- what the strategies draw


def graphs(document):
    yield document
    for node in document["nodes"]:
        if "body" in node.get("config", {}):
            yield from graphs(node["config"]["body"])


def assert_valid(document):
    ids = [node["id"] for node in document["nodes"]]
    edges = document["edges"]
    assert len(set(ids)) == len(ids)
    named = [(e["source"], e.get("port", "main"), e["target"], e.get("input", "main")) for e in edges]
    assert len(set(named)) == len(named)
    upstream = {i: set() for i in ids}
    for _ in ids:
        for edge in edges:
            upstream[edge["target"]] |= {edge["source"]} | upstream[edge["source"]]
    for node in document["nodes"]:
        assert node["id"] not in upstream[node["id"]]
        incoming = sum(edge["target"] == node["id"] for edge in edges)
        assert isinstance(node.get("join", "all"), str) or 1 <= node["join"] <= incoming
        assert node["type"] != "script-trigger" or not incoming
        if node["type"] in {"loop", "workflow"}:
            assert node.keys().isdisjoint({"retry", "timeout"})
            assert node["type"] == "workflow" or node["config"]["max_iterations"] >= 1
        for template in (str(node.get("when")), str(node.get("for_each"))):
            assert set(re.findall(r"nodes\.(\w+)", template)) <= upstream[node["id"]]


@some
@given(st.one_of(cases().map(lambda case: case["workflow"]), workflows()))
def test_drawn_documents_are_valid(document):
    assert json.loads(json.dumps(document)) == document
    for graph in graphs(document):
        assert_valid(graph)


@some
@given(workflows(), st.sampled_from([None, 1, {"n": 1}]))
def test_a_workflow_needs_nothing_beside_it(document, payload):
    assert interpret({"workflow": document, "payload": payload})["status"] in {"succeeded", "failed"}


@some
@given(cases(failures=False, timeouts=False, signals=False, cancels=False))
def test_without_failures_everything_succeeds(case):
    outcome = interpret(case)
    assert outcome["status"] == "succeeded"
    assert all(record["error"] is None for record in outcome["nodes"].values())


FEATURES = {
    "when": '"when":',
    "disabled": '"disabled":',
    "for_each": '"for_each":',
    "first": '"join": ("first"|[0-9])',
    "error_ports": '"error":',
    "on_error": '"on_error":',
    "retries": '"retry":',
    "timeouts": '"timeout":',
    "loops": '"loop"',
    "groups": '"type": "workflow"',
    "waits": '"for":',
    "signals": '"signal":',
    "cancels": '"cancel":',
    "pins": '"pins":',
    "triggers": '"script-trigger"',
    "slots": '"settings": {"max_parallel":',
    "keys": '"key":',
    "inputs": '"input":',
    "failures": '"fail":',
    "drain": '"failure": "drain"',
}


@pytest.mark.parametrize("feature", FEATURES)
def test_a_switch_takes_its_feature_away(feature):
    @settings(max_examples=15, deadline=None, database=None)
    @given(cases(**{feature: False}))
    def without(case):
        assert not re.search(FEATURES[feature], json.dumps(case))

    without()


def test_every_feature_comes_up():
    seen = set()

    @settings(max_examples=250, deadline=None, database=None, derandomize=True)
    @given(cases())
    def collect(case):
        text = json.dumps(case)
        seen.update(feature for feature, sign in FEATURES.items() if re.search(sign, text))

    collect()
    assert seen == set(FEATURES)


def test_an_unknown_switch_and_a_wrong_size_are_refused():
    with pytest.raises(TypeError, match="loop"):
        cases(loop=False)
    with pytest.raises(ValueError, match="max_nodes"):
        workflows(max_nodes=0)


@some
@given(cases(), st.integers(0, 9))
def test_reordering_changes_times_alone(case, seed):
    def timeless(value):
        if isinstance(value, dict):
            return {key: timeless(item) for key, item in value.items() if key not in {"after", "for"}}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    assert timeless(reorder(case, seed)) == timeless(case)
    assert reorder(case, seed) == reorder(case, seed)


def test_examples_shrink_to_few_plain_nodes():
    phases = (Phase.generate, Phase.shrink)
    quiet = settings(max_examples=300, database=None, derandomize=True, phases=phases)
    assert find(cases(), lambda _: True, settings=quiet)["workflow"] == {
        "nodes": [{"id": "a", "type": "script"}],
        "edges": [],
    }
    failed = find(cases(), lambda case: interpret(case)["status"] == "failed", settings=quiet)
    assert len(failed["workflow"]["nodes"]) <= 3
    assert len(failed["script"]) <= 2
