"""Documents made to break the reader: each is a DocumentError, soon, and never anything else."""

from __future__ import annotations

import time
from typing import Any

import attrs
import pytest

from orchestrator_core import DocumentError, Edge, Engine, Node, NodeContext, Workflow, node_type
from orchestrator_core.expressions import ExpressionError, compile_template


@attrs.frozen
class Loose:
    value: Any = None


@node_type("loose", ports=None, inputs=None)
async def loose(ctx: NodeContext, config: Loose, input: Any) -> Any:
    return config.value


def nested(depth: int) -> dict[str, Any]:
    outer: dict[str, Any] = {}
    inner = outer
    for _ in range(depth):
        inner["a"] = {}
        inner = inner["a"]
    return outer


def document(**node: Any) -> dict[str, Any]:
    return {"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "loose", **node}], "edges": []}


@pytest.mark.parametrize(
    "read",
    [
        lambda: Workflow.from_yaml("[" * 100_000),
        lambda: Workflow.from_yaml("- " * 100_000 + "a"),
        lambda: Workflow.from_yaml("a: \ud800"),
        lambda: Workflow.from_yaml(b"\xff\xfe\x00"),
        lambda: Workflow.from_yaml("a: 0x" + "f" * 5000),
        lambda: Workflow.from_yaml("a: " + "9" * 5000),
        lambda: Workflow.from_yaml("a: &a [1]\nb: [*a" + ", *a" * 20_000 + "]"),
        lambda: Workflow.from_yaml("a: !!python/object/apply:os.system [ls]"),
        lambda: Workflow.from_json('{"a": "' + '\\"' * 50_000),
        lambda: Workflow.from_json("[" * 100_000),
        lambda: Workflow.from_json('{"a": 1e999}'),
        lambda: Workflow.from_json('{"a": NaN}'),
        lambda: Workflow.from_json('{"a": ' + "9" * 5000 + "}"),
        lambda: Workflow.from_json('{"a": "\\ud800"}'),
        lambda: Workflow.from_json('{"a": 1, "a": 2}'),
        lambda: Workflow.from_json(b"\xff"),
        lambda: Workflow.from_dict(document(config=nested(3000))),
        lambda: Workflow.from_dict({1: object()}),
        lambda: Workflow.from_dict([]),
        lambda: Workflow.from_dict(None),
        lambda: Workflow.from_dict({**document(), "settings": {"timeout": "9" * 400 + "d"}}),
        lambda: Workflow.from_dict({**document(), "name": "\ud800"}),
    ],
)
def test_what_is_no_document_is_refused_at_once(read: Any) -> None:
    begin = time.process_time()
    with pytest.raises(DocumentError):
        read()
    assert time.process_time() - begin < 3


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("a: {{ input.x }}", "a template needs quotes"),
        ("a: [{{ input.x }}]", "a template needs quotes"),
        ("a: {{ input.x }} and more", "a template needs quotes"),
        ("a: 'it is {{ x }}' y", "goes on after its closing quote"),
        ("a: 1\n\tb: 2", "a tab cannot indent"),
        ("a: @home", "begins with @ needs quotes"),
        ("a: * * * * *", "begins with * needs quotes"),
        ("a: *all", "begins with * needs quotes"),
        ("a: b: c", "a text with `: ` in it needs quotes"),
        ("{a: b: c}", "a text with `: ` in it needs quotes"),
        ("a: 1\n  b: 2", "indent it as far as"),
        ('a: "\\d+"', "begins an escape"),
        ('a: "b', "never closed"),
        ("a: - b", "a list begins on a line of its own"),
        ("a: [1,\nb: 2", "the [ of line 1 is not closed"),
        ("a:\n  b: 1\n c: 2", "continues nothing that stands above"),
    ],
)
def test_what_is_no_yaml_comes_with_what_to_do(text: str, advice: str) -> None:
    with pytest.raises(DocumentError) as caught:
        Workflow.from_yaml(text)
    assert advice in str(caught.value)
    with pytest.raises(DocumentError) as caught:
        Workflow.from_yaml(text.encode())
    assert advice in str(caught.value)


def test_objects_for_keys_are_taken_for_templates_only_where_they_look_like_them() -> None:
    with pytest.raises(DocumentError, match="a key must be a text"):
        Workflow.from_yaml("? [a]\n: b")
    with pytest.raises(DocumentError, match="a key must be a text"):
        Workflow.from_yaml("? {a: b}\n: b")


@pytest.mark.parametrize(
    ("text", "line", "advice"),
    [
        ('{"a": 1,}', 1, "nothing follows the comma before }: remove the comma (column 8)"),
        ("[1,\n2,\n]", 2, "nothing follows the comma before ]: remove the comma (column 2)"),
        ("{\"a\": 'x'}", 1, 'texts and keys need double quotes (") (column 7)'),
        ("{'a': 1}", 1, 'texts and keys need double quotes (") (column 2)'),
        ("{a: 1}", 1, "'a' has no quotes"),
        ('{"a": None}', 1, "JSON writes null, not None"),
        ('{"a": 1, // b\n}', 1, "JSON has no comments"),
        ('{"a": 1 "b": 2}', 1, "a comma is missing"),
        ('{"a" 1}', 1, "a colon is missing"),
        ('{"a": "x\ny"}', 1, "a text ends on the line on which it begins"),
        ('{"a": "x\\d"}', 1, "a \\ begins an escape"),
        ('{"a": 1', 1, "the text ends too soon"),
        ('{"a": 1} 2', 1, "something follows the end"),
    ],
)
def test_what_is_no_json_comes_with_what_to_do(text: str, line: int, advice: str) -> None:
    with pytest.raises(DocumentError) as caught:
        Workflow.from_json(text)
    (fault,) = caught.value.faults
    assert advice in fault.message
    assert fault.line == line


@pytest.mark.parametrize(
    ("node", "advice"),
    [
        ({"name": True}, 'write "true" in quotes'),
        ({"name": 1.5}, 'write "1.5" in quotes'),
        ({"when": False}, 'write "{{ false }}"'),
        ({"retry": 3}, "write {attempts: 3}"),
        ({"retry": True}, "it has the keys attempts, delay, factor, max_delay, jitter"),
        ({"position": 3}, "it has the keys x, y"),
        ({"values": {}}, "did you mean config.values? Settings of the node type stand under `config`"),
        ({"Timeout": 3}, "did you mean 'timeout'?"),
        ({"retries": 3}, "did you mean 'retry'?"),
    ],
)
def test_a_wrong_form_comes_with_the_right_one(node: dict[str, Any], advice: str) -> None:
    with pytest.raises(DocumentError) as caught:
        Workflow.from_dict(document(**node))
    (fault,) = caught.value.faults
    assert advice in fault.message


@pytest.mark.parametrize(
    "template",
    [
        "{{ " + "`${" * 3000,
        "{{ " + "(" * 8000,
        "{{ " + "`" * 9999,
        "{{ /" + "a" * 50_000,
        "{{ 'x",
        "{{ } }}",
        "{{ \x00 }}",
    ],
)
def test_templates_that_never_close_are_refused_at_once(template: str) -> None:
    begin = time.process_time()
    with pytest.raises(ExpressionError):
        compile_template(template)
    assert time.process_time() - begin < 3


def test_long_parameter_lists_are_read_once() -> None:
    begin = time.process_time()
    compile_template("{{ " + "(" * 8000 + "1" + ")=>1" * 8000 + " }}")
    assert time.process_time() - begin < 3


@pytest.mark.parametrize(
    "workflow",
    [
        Workflow(id="w", nodes=(Node(id="a", type="loose", join="bogus"),)),  # type: ignore[arg-type]  # on purpose
        Workflow(id="w", nodes=(Node(id="a", type="loose", timeout="5x"),)),  # type: ignore[arg-type]  # on purpose
        Workflow(id="exe_w", nodes=(Node(id="a", type="loose"),)),
        attrs.evolve(Workflow.from_dict(document()), edges=[Edge("a", "a")]),
        attrs.evolve(Workflow.from_dict(document()), edges=[Edge("a", "b")]),
    ],
)
def test_what_is_made_in_python_is_judged_like_a_document(workflow: Workflow) -> None:
    engine = Engine(node_types=[loose], discover=False)
    assert engine.validate(workflow)
    with pytest.raises(DocumentError):
        engine.plan(workflow)


@pytest.mark.parametrize(
    "config",
    [{"max_iterations": "{{ 2 }}"}, {"max_iterations": 2, "delay": "{{ 1 }}"}, {"max_iterations": 2, "until": 5}],
)
def test_what_steers_a_group_is_no_template(config: dict[str, Any]) -> None:
    body = {"nodes": [{"id": "x", "type": "loose"}]}
    workflow = Workflow.from_dict(document(type="loop", config={"body": body, **config}))
    assert len(Engine(node_types=[loose], discover=False).validate(workflow)) == 1


def test_circles_through_inline_bodies_are_seen_and_diamonds_are_cheap() -> None:
    inner = {"id": "x", "type": "workflow", "config": {"workflow": "aa"}}
    aa = Workflow.from_dict(
        {"schema": 1, "id": "aa", "nodes": [{"id": "g", "type": "workflow", "config": {"body": {"nodes": [inner]}}}]}
    )
    assert "aa -> aa" in str(Engine(workflows=[aa], discover=False).validate(aa)[0])

    def calls(number: int) -> Workflow:
        node = {"type": "workflow", "config": {"workflow": f"w{number + 1}"}}
        return Workflow.from_dict(
            {"schema": 1, "id": f"w{number}", "nodes": [{"id": "a", **node}, {"id": "b", **node}]}
        )

    last = Workflow.from_dict(
        {"schema": 1, "id": "w30", "nodes": [{"id": "a", "type": "call", "config": {"function": "f"}}]}
    )
    stored = [*(calls(number) for number in range(30)), last]
    begin = time.process_time()
    assert Engine(workflows=stored, discover=False).validate(stored[0]) == []
    assert time.process_time() - begin < 3
