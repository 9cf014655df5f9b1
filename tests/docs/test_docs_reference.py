"""The reference is complete and fresh: what exists is documented, and the pages are what the code says now."""

from __future__ import annotations

import ast
import inspect
import re
import sys

import attrs
import click
import pytest
from docs_examples import MODULES, ROOT

import orchestrator_core
from orchestrator_core import OrchestratorError, errors
from orchestrator_core.codec import wire_name
from orchestrator_core.expressions import ROOTS
from orchestrator_core.machine import TRANSITIONS
from orchestrator_core.state import Stage
from orchestrator_core.types import Edge, Node, Retry, Settings
from orchestrator_server import errors as server_errors
from orchestrator_server import sealing

sys.path.insert(0, str(ROOT))
from docs._tools import machine_page, reference
from docs._tools.codes import find_codes

from docs import generate

DOCS = ROOT / "docs"
NODE_TYPES = {kind.name: kind for kind in reference.node_types()}
SOURCES = [path for path in MODULES if "testing" not in path.parts]
SOURCES += sorted((ROOT / "packages").glob("*/src/**/*.js"))
WORDS = [
    "workflow",
    "version",
    "node",
    "node-type",
    "config",
    "edge",
    "port",
    "input",
    "trigger",
    "payload",
    "execution",
    "attempt",
    "NodeIO",
    "event",
    "command",
    "journal",
    "signal",
    "lease",
    "tenant",
    "principal",
    "secret",
    "variable",
    "schedule",
    "slot",
    "blob",
]


def text(name):
    return (DOCS / name).read_text(encoding="utf-8")


# --- fresh ----------------------------------------------------------------------------------------------------------


def test_what_is_generated_is_fresh():
    assert generate.stale(generate.files()) == [], "run: python -m docs.generate"


def test_a_stale_page_and_a_left_over_one_are_found(tmp_path, monkeypatch):
    for name in ("ROOT", "DOCS"):
        monkeypatch.setattr(generate, name, tmp_path)
    page, left = tmp_path / "page.md", tmp_path / "reference" / "nodes" / "gone.md"
    left.parent.mkdir(parents=True)
    left.write_text("")
    assert generate.stale({page: "a"}) == ["page.md", "reference/nodes/gone.md"]
    page.write_text("b")
    assert "page.md" in generate.stale({page: "a"})
    page.write_text("a")
    assert generate.stale({page: "a", left: ""}) == []


# --- the machine ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arrows():
    return machine_page.observe(sorted((ROOT / "tests" / "law").glob("*.yaml")))


def test_the_cases_of_the_law_take_every_way_that_the_table_allows_to_attempts(arrows):
    seen = {(before, name) for (before, _), names in arrows.items() for name in names}
    for fact in ("Evaluated", "AttemptSucceeded", "AttemptFailed", "AttemptWaited"):
        [kind] = [kind for kind in TRANSITIONS if kind.__name__ == fact]
        for stage in TRANSITIONS[kind]:
            assert (stage, fact) in seen, f"no case shows {fact} in {stage.name}"


def test_every_stage_is_drawn_and_left_again(arrows):
    assert {after for _, after in arrows} == set(Stage)
    assert {before for before, _ in arrows} == {None, *Stage} - {Stage.ENDED}


def test_a_way_that_the_table_forbids_cannot_be_drawn(arrows):
    wrong = {**arrows, (Stage.WAITING, Stage.ENDED): frozenset({"AttemptSucceeded"})}
    with pytest.raises(ValueError, match="AttemptSucceeded moved a record"):
        machine_page.picture(wrong)


def test_a_way_that_is_not_drawn_is_missed(arrows):
    with pytest.raises(ValueError, match="the drawing lacks"):
        machine_page.picture({**arrows, (Stage.ENDED, Stage.QUEUED): frozenset({"NodeDue"})})


# --- complete -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(NODE_TYPES))
def test_a_node_type_is_documented(name):
    kind = NODE_TYPES[name]
    assert kind.title, f"{name} has no title"
    assert kind.description, f"{name} has no description"
    assert kind.example or not reference.needs_settings(kind), f"{name} has no example"
    page = text(f"reference/nodes/{name}.md")
    assert kind.description.splitlines()[0].rstrip(".") in page
    for port in kind.ports_for(kind.example) or ():
        assert f"`{port}`" in page, f"{name}: the port {port} is not on its page"


@pytest.mark.parametrize("name", list(NODE_TYPES))
def test_every_setting_is_documented(name):
    page = text(f"reference/nodes/{name}.md")
    for config in (NODE_TYPES[name].config, *reference.inner_classes(NODE_TYPES[name].config)):
        for field in attrs.fields(config):
            where = f"{name}: {config.__name__}.{wire_name(field.name)}"
            assert field.metadata.get("description"), f"{where} has no description"
            assert f"| `{wire_name(field.name)}` |" in page, f"{where} is not on its page"


@pytest.mark.parametrize("name", list(reference.hooks()))
def test_a_hook_is_documented_and_used_somewhere_in_the_tests(name):
    documentation = inspect.getdoc(reference.hooks()[name]) or ""
    assert len(documentation) > 40, f"the hook {name} has no docstring that tells what it is for"
    assert f"## `{name}`" in text("reference/hooks.md")
    guide = text("how-to/plugin.md")
    assert name in guide, f"how-to/plugin.md does not tell of {name}"
    # The guide's examples are executed, too.
    sources = [guide, *(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))]
    assert any(re.search(rf"def {name}\b|hook\.{name}\b", source) for source in sources), (
        f"no test implements the hook {name}"
    )


@pytest.mark.parametrize("context", list(reference.commands()), ids=lambda context: context.command_path)
def test_a_command_is_documented(context):
    command, path = context.command, context.command_path
    page = text("reference/commands.md")
    assert command.help, f"{path} has no help"
    _, heading, own = page.partition(f"## `{path}`\n")
    assert heading, f"{path} is not on the page"
    own = own.partition("\n## ")[0]
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{path} {parameter.opts[0]} has no help"
            assert parameter.opts[0] in own, f"{path} {parameter.opts[0]} is not on the page"


def test_every_error_code_is_documented_and_no_other():
    found = {code.code: f"{code.module}:{code.line}" for code in find_codes(SOURCES)}
    codes = reference.read_codes()
    written = {*codes["errors"], *codes["failures"]}
    unknown = {code: where for code, where in found.items() if code not in written}
    assert not unknown, f"write about these in docs/_tools/codes.toml: {unknown}"
    assert not written - set(found), f"nothing gives these codes: {written - set(found)}"


def test_every_code_of_an_answer_is_documented_and_no_other():
    given, written = set(reference.answers()), set(reference.read_codes()["answers"])
    assert not given - written, f"write about these in docs/_tools/codes.toml, as answers: {given - written}"
    assert not written - given, f"nothing answers with these codes: {written - given}"
    table = text("reference/errors.md").partition("## Answers of the API")[2]
    for code, statuses in reference.answers().items():
        assert f"| `{code}` | {', '.join(map(str, sorted(statuses)))} |" in table


def test_no_code_of_an_answer_is_computed():
    """Those of the library's errors are, in two places: `reference.answers` asks for them."""
    computed = []
    for file in sorted((ROOT / "packages/orchestrator-server/src/orchestrator_server/api").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name("Problem"), args=[_, code, *_]) if not isinstance(code, ast.Constant):
                    computed.append((file.name, ast.unparse(code)))
    assert set(computed) == {("problems.py", "error.code"), ("system.py", "error.code")}


def test_every_error_class_is_documented():
    named = {**vars(errors), **vars(server_errors), **vars(sealing)}
    classes = [kind for kind in named.values() if inspect.isclass(kind) and issubclass(kind, OrchestratorError)]
    assert {kind.code for kind in classes} == set(reference.read_codes()["errors"])
    assert all(kind.__doc__ for kind in classes)


def test_codes_are_found_where_they_are_given(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        'BAD = "bad_thing"\n'
        'def misuse(text, *, code="by_default"): ...\n'
        'raise NodeError("x", code=BAD)\n'
        'Failure("first", "text")\n'
        'raise NodeError("x", code=f"http_{status}")\n'
        'class E(Exception):\n    code: ClassVar[str] = "of_a_class"\n'
    )
    script = tmp_path / "driver.js"
    script.write_text('throw new Refused("of_javascript", `text`);\n')
    codes = {found.code for found in find_codes([module, script])}
    assert codes == {"bad_thing", "by_default", "first", "http_*", "of_a_class", "of_javascript"}


@pytest.mark.parametrize(
    ("kind", "heading"), [(Settings, "Settings"), (Node, "Nodes"), (Edge, "Edges"), (Retry, "Retry")]
)
def test_every_field_of_a_document_is_documented(kind, heading):
    part = text("reference/document.md").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    for field in attrs.fields(kind):
        assert re.search(rf"^\| `{field.name}` \|.*[\w`]\. \|$", part, re.MULTILINE), (
            f"{kind.__name__}.{field.name} is not described"
        )


@pytest.mark.parametrize(
    "name", [name for name in orchestrator_core.__all__ if name not in {"Json", "Duration", "Event"}]
)
def test_a_public_name_is_documented(name):
    assert inspect.getdoc(getattr(orchestrator_core, name)), f"{name} has no docstring"


def test_public_methods_are_documented():
    for name in orchestrator_core.__all__:
        kind = getattr(orchestrator_core, name)
        if inspect.isclass(kind) and kind.__module__.startswith("orchestrator_core"):
            for member, value in vars(kind).items():
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    assert inspect.getdoc(value), f"{name}.{member} has no docstring"


def test_the_glossary_has_the_words_and_no_others():
    terms = re.findall(r"^([^\n:].*)\n: ", text("concepts/glossary.md"), re.MULTILINE)
    assert [term.strip("`").replace(" ", "-") for term in terms] == WORDS


@pytest.mark.parametrize("name", ROOTS)
def test_what_expressions_can_name_is_documented(name):
    assert re.search(rf"^\|.*`{name}[`.]", text("concepts/expressions.md"), re.MULTILINE)


def test_every_decision_has_its_parts():
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    assert len(records) >= 6
    for record in records:
        content = record.read_text(encoding="utf-8")
        number = int(record.name[:4])
        assert content.startswith(f"# {number}. "), f"{record.name} begins with its number and title"
        for part in ("Context", "Decided", "Consequences"):
            assert f"**{part}.**" in content, f"{record.name} says nothing under {part}"
