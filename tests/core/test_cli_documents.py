"""Bad documents: each fault is found, with its line, its place and what to do; and the JSON Schema agrees."""

import json
from pathlib import Path

import attrs
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator_core import Engine, Workflow
from orchestrator_core.cli import main
from orchestrator_core.cli.documents import json_lines, read_value
from orchestrator_core.cli.schema import document_schema, type_schema
from orchestrator_core.codec import child_place
from orchestrator_core.errors import DocumentError
from orchestrator_core.testing.strategies import workflows
from orchestrator_core.yaml_text import parse_yaml

FOLDER = Path(__file__).parent / "bad_documents"
TABLE, _ = parse_yaml((FOLDER / "table.yaml").read_bytes())
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engine():
    return Engine()


@pytest.fixture(scope="module")
def base():
    return jsonschema.Draft202012Validator(document_schema())


@pytest.fixture(scope="module")
def typed(engine):
    return jsonschema.Draft202012Validator(document_schema(engine.registry.node_types.values()))


def expected(name):
    for text in TABLE[name]["faults"]:
        line, place, message = text.split(" ", 2)
        yield line, place.removesuffix(":"), message


# --- the table ------------------------------------------------------------------------------------------------------


def test_every_bad_document_stands_in_the_table():
    assert sorted(TABLE) == sorted(file.name for file in FOLDER.iterdir() if file.name != "table.yaml")
    assert len(TABLE) >= 40


@pytest.mark.parametrize("name", sorted(TABLE))
def test_validate_says_what_is_wrong_and_where(name, capsys):
    file = str(FOLDER / name)
    assert main(["validate", file]) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    lines = said.out.splitlines()
    wanted = list(expected(name))
    assert len(lines) == len(wanted), said.out
    for text, (line, place, message) in zip(lines, wanted, strict=True):
        at = f"{file}:" if line == "-" else f"{file}:{line}:"
        assert text.startswith(f"{at} {place}")
        assert message in text


@pytest.mark.parametrize("name", sorted(TABLE))
def test_nothing_bad_is_run(name, capsys):
    assert main(["run", str(FOLDER / name)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == len(TABLE[name]["faults"])


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_schema_refuses_what_is_structurally_wrong(name, base, typed):
    try:
        value, _ = read_value(str(FOLDER / name))
    except DocumentError:
        assert TABLE[name]["schema"] == "text"
        return
    verdict = "refuses" if not base.is_valid(value) else "types" if not typed.is_valid(value) else "accepts"
    assert verdict == TABLE[name]["schema"]


# --- the schema accepts what is valid -------------------------------------------------------------------------------


def test_the_schemas_are_schemas(base, typed, engine):
    jsonschema.Draft202012Validator.check_schema(base.schema)
    jsonschema.Draft202012Validator.check_schema(typed.schema)
    for kind in engine.registry.node_types.values():
        jsonschema.Draft202012Validator.check_schema(type_schema(kind))


def test_the_printed_schema_is_the_one_that_is_tested(capsys, base, typed):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == base.schema
    assert main(["schema", "--types"]) == 0
    assert json.loads(capsys.readouterr().out) == typed.schema


def valid_documents():
    files = [*ROOT.glob("examples/**/*.json"), *ROOT.glob("examples/**/*.y*ml")]
    for file in files:
        value, _ = read_value(str(file))
        if isinstance(value, dict) and "nodes" in value:
            yield pytest.param(value, id=file.name)


@pytest.mark.parametrize("document", [*valid_documents(), pytest.param(None, id="-")])
def test_the_schema_accepts_every_example(document, base, typed):
    if document is not None:
        base.validate(document)
        if not Engine().validate(Workflow.from_dict(document)):
            typed.validate(document)


def test_the_schema_accepts_the_example_of_every_type(engine, typed):
    for kind in engine.registry.node_types.values():
        node = {"id": "one", "type": kind.name, "config": dict(kind.example)}
        document = {"schema": 1, "id": "example", "nodes": [node]}
        assert engine.validate(Workflow.from_dict(document)) == [], kind.name
        typed.validate(document)
        jsonschema.Draft202012Validator(type_schema(kind)).validate(dict(kind.example))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=workflows())
def test_the_schema_accepts_every_workflow_there_can_be(document, base):
    base.validate(document)


@pytest.mark.parametrize(
    "node",
    [
        {"type": "set", "name": None, "when": None, "retry": None, "timeout": None, "position": {"x": 1, "y": -2.5}},
        {"type": "set", "for_each": [1, 2], "max_parallel": 2, "timeout": "1m30s", "on_lost": "fail"},
        {"type": "set", "retry": {"attempts": 3, "delay": "250ms", "factor": 2, "max_delay": None, "jitter": 1}},
        {"type": "limit", "config": {"count": "{{ input.n }}"}},
        {"type": "code", "config": {"source": "return `{{ no template }}`", "timeout": "{{ vars.limit }}"}},
        {"type": "if", "config": {"condition": "{{ input }}"}, "type_version": 1, "disabled": True},
        {"type": "http", "config": {"url": "https://example.com/{{ input.id }}", "fail_on": ["5xx", 429]}},
        {
            "type": "loop",
            "config": {"body": {"nodes": [{"id": "x", "type": "set"}]}, "max_iterations": 2, "delay": "1s"},
        },
        {"type": "workflow", "config": {"body": {"settings": {"timeout": 5}, "nodes": [{"id": "x", "type": "set"}]}}},
        {"type": "workflow", "config": {"workflow": "other"}},
    ],
)
def test_what_validate_accepts_the_schema_accepts(node, base, typed):
    document = {"schema": 1, "id": "valid", "nodes": [{"id": "a", **node}]}
    known = Workflow.from_dict({"schema": 1, "id": "other", "nodes": [{"id": "a", "type": "set"}]})
    assert Engine(workflows=[known]).validate(Workflow.from_dict(document)) == []
    base.validate(document)
    typed.validate(document)


def test_a_config_of_an_older_version_is_left_to_its_migration(engine):
    kinds = dict(engine.registry.node_types)
    schema = jsonschema.Draft202012Validator(document_schema([attrs.evolve(kinds["if"], version=2)]))
    old = {"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "if", "type_version": 1, "config": {"was": "other"}}]}
    assert schema.is_valid(old)
    old["nodes"][0]["type_version"] = 2
    assert not schema.is_valid(old)


# --- lines ----------------------------------------------------------------------------------------------------------


def test_lines_of_json_are_those_of_yaml():
    text = '{\n "a": [\n  1,\n  {"b": 2, "c d": [\n    null, true]},\n  "x, [y"\n ],\n "e": {}, "f": [],\n "g":\n  "h\\"i"\n}\n'
    lines, fault = json_lines(text)
    assert fault is None
    assert lines == dict(parse_yaml(text)[1])


def test_lines_of_a_large_document_are_found_quickly():
    nodes = [{"id": f"n{i}", "type": "set", "config": {"values": {"x": i}}} for i in range(10_000)]
    text = json.dumps({"schema": 1, "id": "large", "nodes": nodes}, indent=1)
    lines, _ = json_lines(text)
    last = text[: text.rindex('"x"')].count("\n") + 1
    assert lines[child_place("$.nodes[9999].config.values", "x")] == last


def test_faults_come_as_json_too(capsys):
    file = str(FOLDER / "cycle.yaml")
    assert main(["validate", "--json", file]) == 2
    (fault,) = json.loads(capsys.readouterr().out)
    assert fault == {
        "file": file,
        "line": 8,
        "place": "$.edges",
        "message": fault["message"],
    }
    assert "cycle" in fault["message"]


def test_many_files_are_judged_together(tmp_path, capsys):
    good, bad = tmp_path / "good.json", tmp_path / "missing.yaml"
    good.write_text('{"schema": 1, "id": "good", "nodes": [{"id": "a", "type": "call", "config": {"function": "f"}}]}')
    assert main(["validate", str(good), str(bad), str(FOLDER / "cycle.yaml")]) == 2
    said = capsys.readouterr()
    first, second, third = said.out.splitlines()
    assert first == f"{good}: ok (1 node, 0 edges)"
    assert second == f"{bad}: $: there is no such file"
    assert "cycle" in third
    assert "2 faults in 2 files of 3" in said.err


def test_workflows_that_call_each_other_in_a_circle_are_found(tmp_path, capsys):
    for name, other in (("one", "two"), ("two", "one")):
        node = {"id": "call", "type": "workflow", "config": {"workflow": other}}
        (tmp_path / f"{name}.json").write_text(json.dumps({"schema": 1, "id": name, "nodes": [node]}))
    one, two = str(tmp_path / "one.json"), str(tmp_path / "two.json")
    assert main(["validate", one]) == 0, "alone, the other may be in a store"
    capsys.readouterr()
    assert main(["validate", one, two]) == 2
    assert "circle" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["workflow.yaml", "workflow.json", "workflow.yml", "workflow"])
def test_a_document_that_was_written_is_read(name, tmp_path, capsys):
    workflow = Workflow.from_dict(
        {"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "call", "config": {"function": "f"}}]}
    )
    workflow.dump(tmp_path / name)
    assert main(["validate", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.endswith("ok (1 node, 0 edges)\n")
