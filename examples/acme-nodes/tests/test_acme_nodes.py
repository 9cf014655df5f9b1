# ruff: noqa: D103, S101, ANN001, ANN201 - tests: their names say what they show, and assert is the tool
"""The node types as a user meets them: in a workflow, through an engine."""

from __future__ import annotations

from typing import Any

import acme_nodes
import pytest

from orchestrator_core import Engine, Result, Workflow
from orchestrator_core.build import Flow


def run(node: str, config: dict[str, Any], payload: Any) -> Result:
    flow = Flow("test")
    flow.node("it", f"acme.{node}", config=config)
    return Engine(plugins=[acme_nodes], discover=False).run_sync(flow.workflow(), payload)


def faults(node: str, config: dict[str, Any]) -> list[str]:
    workflow = Workflow.from_dict({"schema": 1, "id": "t", "nodes": [{"id": "it", "type": node, "config": config}]})
    return [str(fault) for fault in Engine(plugins=[acme_nodes], discover=False).validate(workflow)]


@pytest.mark.parametrize("kind", acme_nodes.register_node_types(), ids=lambda kind: kind.name)
def test_the_example_of_every_type_is_valid(kind):
    assert faults(kind.name, dict(kind.example)) == []


@pytest.mark.parametrize(
    ("config", "text", "slug"),
    [
        ({}, "Hello, World", "hello-world"),
        ({}, "  Crème brûlée!  ", "creme-brulee"),
        ({"separator": "_"}, "a b", "a_b"),
        ({"max_length": 9}, "never cut a word", "never-cut"),
    ],
)
def test_slugs(config, text, slug):
    assert run("slugify", config, text).output == slug


@pytest.mark.parametrize(("payload", "code"), [(17, "bad_input"), ("???", "empty_slug"), (None, "bad_input")])
def test_what_cannot_be_a_slug_fails_with_a_code(payload, code):
    result = run("slugify", {}, payload)
    assert (result.status, result.error.code) == ("failed", code)


def test_a_slug_that_lost_much_says_so():
    assert [line.level for line in run("slugify", {"max_length": 4}, "tiny title of a long text").nodes[0].logs] == [
        "warning"
    ]


def test_personal_data_is_taken_out_however_deep_it_lies():
    order = {"note": "call +49 30 1234567 or ada@example.com", "pay": ["4111 1111 1111 1111"], "id": 4111111111111111}
    result = run("redact", {}, order)
    assert result.node("it").outputs["main"] == {
        "note": "call [removed] or [removed]",
        "pay": ["[removed]"],
        "id": 4111111111111111,
    }
    assert result.node("it").outputs["found"] == [
        {"place": "$.note", "kind": "email"},
        {"place": "$.note", "kind": "phone"},
        {"place": "$.pay[0]", "kind": "card"},
    ]


def test_what_only_looks_like_a_card_number_stays():
    result = run("redact", {"kinds": ["card"]}, "order 4111 1111 1111 1112")
    assert dict(result.node("it").outputs) == {"main": "order 4111 1111 1111 1112"}


def test_bad_settings_are_refused_before_anything_runs():
    (fault,) = faults("acme.slugify", {"separator": "/"})
    assert fault.startswith("$.nodes[0].config")
    assert fault.endswith("`separator` must be one of - _ . ~: other characters have a meaning in addresses")
    (fault,) = faults("acme.redact", {"kinds": ["name"]})
    assert fault.startswith("$.nodes[0].config.kinds[0]: ")
    (fault,) = faults("acme.slugify", {"seperator": "-"})
    assert "separator" in fault
