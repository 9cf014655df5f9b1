"""The other commands: `nodes`, `graph`, `new-plugin`, `doctor`, `version`, and what plugins add."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from orchestrator_core import Workflow
from orchestrator_core.cli import app, main
from orchestrator_core.cli.text import clean, one_line, plural, pretty, table

pytest.importorskip("orchestrator_nodes_std")


@pytest.fixture
def said(capsys):
    def said(*arguments, code=0):
        assert main(list(arguments)) == code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return out if code == 0 else err

    return said


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Put a package with an entry point where Python finds it, as pip would."""

    def plugin(name, source):
        site = tmp_path / "site"
        module = f"plugin_for_test_{name}"
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[orchestrator.plugins]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return plugin


# --- nodes ----------------------------------------------------------------------------------------------------------


def test_the_types_are_listed_by_plugin(said):
    out = said("nodes")
    core, std = out.index("\ncore (") if "\ncore (" in out else out.index("core ("), out.index("std (")
    assert core < out.index("  loop ") < std < out.index("  http ")
    assert "pluggable-orchestrator-nodes-std" in out


def test_one_type_is_described(said):
    out = said("nodes", "if")
    for part in ("if: ", "ports", "true, false, error", "condition", "required", "Example", "type: if"):
        assert part in out
    out = said("nodes", "loop")
    assert "max_iterations  (whole number, required)" in out
    assert "duration, default 0" in out
    out = said("nodes", "http")
    assert "may hold {{ secrets" in out
    assert "capabilities  network" in out


def test_every_type_can_be_described_and_its_example_is_a_workflow(said):
    for kind in json.loads(said("nodes", "--json")):
        out = said("nodes", kind["type"])
        assert kind["title"] in out
        assert kind["schema"]["type"] == "object"
        assert set(kind["example"]) <= set(kind["schema"]["properties"]) or not kind["schema"]["properties"]


def test_a_type_that_is_not_there(said):
    assert "did you mean 'http'?" in said("nodes", "httpp", code=2)
    assert "did you mean 'aggregate'?" in said("nodes", "agregate", code=2)
    for name in ("nope", "x", "database"):
        err = said("nodes", name, code=2)
        assert "did you mean" not in err
        assert "`orchestrator nodes` lists those that are installed" in err
    assert "the package whose plugin is called 'nowhere'" in said("nodes", "nowhere.slugify", code=2)


# --- graph ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.json"
    nodes = [{"id": "first", "type": "set"}, {"id": "second", "type": "set"}]
    Workflow.from_dict(
        {"schema": 1, "id": "w", "nodes": nodes, "edges": [{"source": "first", "target": "second"}]}
    ).dump(path)
    return path


def test_a_graph_is_drawn_in_each_format(said, file, tmp_path):
    assert "first --> second" in said("graph", str(file))
    assert said("graph", str(file), "--format", "dot").startswith("digraph")
    assert ET.fromstring(said("graph", str(file), "--format", "svg")).tag.endswith("svg")
    for name, begins in (("g.svg", "<svg"), ("g.dot", "digraph"), ("g.md", "```mermaid\n"), ("g.mmd", "---")):
        said("graph", str(file), "-o", str(tmp_path / name))
        assert (tmp_path / name).read_text().startswith(begins)


def test_a_picture_that_cannot_be_written(said, file, tmp_path):
    assert "there is no folder /no/such/folder" in said("graph", str(file), "-o", "/no/such/folder/g.svg", code=2)
    (tmp_path / "here.svg").mkdir()
    assert "it is a directory" in said("graph", str(file), "-o", str(tmp_path / "here.svg"), code=2)
    assert "is no directory" in said("graph", str(file), "-o", f"{file}/g.svg", code=2)


@pytest.mark.parametrize(("name", "part"), [("g.png", "as .png"), ("g", "does not say"), ("g.pdf", "as .pdf")])
def test_a_name_that_does_not_say_what_to_write_is_refused(said, file, tmp_path, name, part):
    target = tmp_path / name
    err = said("graph", str(file), "-o", str(target), code=2)
    for known in (part, ".svg", ".dot", ".mmd", "--format"):
        assert known in err
    assert not target.exists()
    said("graph", str(file), "-o", str(target), "--format", "dot")
    assert target.read_text().startswith("digraph")


# --- doctor and version ---------------------------------------------------------------------------------------------


def test_the_doctor_finds_all_well(said):
    checks = {check["name"]: check for check in json.loads(said("doctor", "--json"))}
    assert checks["sandbox javascript"]["status"] == "ok"
    assert "then 0." in checks["sandbox javascript"]["detail"] or " ms" in checks["sandbox javascript"]["detail"]
    assert checks["engine"]["status"] == "ok"
    assert checks["plugin std"]["status"] == "ok"
    out = said("doctor")
    assert "all is well" in out


def test_the_doctor_names_what_is_broken(plugin, capsys):
    plugin("ill", "raise RuntimeError('no such driver')")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "BROKEN   plugin ill" in out
    assert "ill-package 1.0: RuntimeError: no such driver (mend it, or pip uninstall ill-package)" in out
    assert "ok       plugin std" in out


LANGUAGE = """
from orchestrator_core import LanguageError, hookimpl

class Lisp:
    name = "lisp"

    async def run(self, *_, **__):
        raise LanguageError("pip install lisp", code=CODE)

    async def aclose(self):
        pass

@hookimpl
def register_languages():
    return [Lisp()]
"""


@pytest.mark.parametrize(("code", "status", "exit_code"), [("not_installed", "missing", 0), ("crashed", "broken", 1)])
def test_a_language_that_is_not_installed_is_no_fault(plugin, capsys, code, status, exit_code):
    plugin("lisp", LANGUAGE.replace("CODE", repr(code)))
    assert main(["doctor", "--json"]) == exit_code
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["sandbox lisp"]["status"] == status
    assert "pip install lisp" in checks["sandbox lisp"]["detail"]
    assert main(["doctor"]) == exit_code
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == ("1 thing broken" if exit_code else "what is installed is well; 1 optional part missing")


def test_versions(said):
    assert said("version") == said("--version")
    assert "pluggable-orchestrator-core 0." in said("version")


# --- plugins --------------------------------------------------------------------------------------------------------

GREETING = """
import click
from orchestrator_core import hookimpl

@hookimpl
def register_commands(cli):
    @cli.command()
    @click.argument("name")
    def greet(name):
        "Say hello."
        click.echo(f"hello {name}")
"""


def test_a_plugin_adds_a_command(plugin, said):
    plugin("greeting", GREETING)
    assert said("greet", "you") == "hello you\n"
    assert "Say hello." in said("--help")


def test_a_broken_plugin_is_one_line_and_takes_nobody_along(plugin, capsys, tmp_path, file):
    plugin("ill", "raise RuntimeError('no such driver')")
    plugin("greeting", GREETING)
    assert main(["greet", "you"]) == 0
    out, err = capsys.readouterr()
    assert out == "hello you\n"
    assert err == (
        "orchestrator: plugin 'ill' of package 'ill-package' cannot be used: RuntimeError: no such driver "
        "(pip uninstall ill-package, or look with orchestrator doctor)\n"
    )
    for arguments in (["version"], ["graph", str(file)], ["schema"]):
        assert main(arguments) == 0
        assert capsys.readouterr().err == ""
    for arguments in (["run", str(file)], ["validate", str(file)], ["nodes"]):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert err.count("\n") == 1
        assert "plugin 'ill' of package 'ill-package' cannot be imported: RuntimeError: no such driver" in err
        assert "pip uninstall ill-package" in err
        assert "orchestrator doctor" in err


def test_a_command_that_is_taken_names_both(plugin, said, capsys):
    plugin("one", GREETING)
    plugin("two", GREETING)
    plugin("three", GREETING.replace("def greet", "def run"))
    main(["greet", "you"])
    err = capsys.readouterr().err
    assert "'two-package' cannot be used: ValueError: the command 'greet' is taken by the plugin 'one'" in err
    assert "'three-package' cannot be used: ValueError: the command 'run' is taken by the library" in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["runn"], "did you mean 'run'?"),
        (["rnu"], "see orchestrator --help"),
        (["--nonsense"], "--help"),
        (["run", "--inptu", "1", "w.yaml"], "no such option '--inptu': did you mean one of: '--input', '--pin'?"),
        (["graph"], "missing argument 'FILE'"),
        (["nodes", "a", "b"], "unexpected extra argument"),
    ],
)
def test_bad_usage_is_one_line(said, arguments, part):
    err = said(*arguments, code=2)
    assert part in err


@pytest.mark.parametrize("arguments", [["serve"], ["worker", "--database", "x"]])
def test_what_the_server_brings_names_its_package(said, arguments, monkeypatch):
    monkeypatch.setattr(app.Commands, "_load_plugins", lambda self: None)  # as where it is not installed
    assert "pip install pluggable-orchestrator-server" in said(*arguments, code=2)


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "new-plugin" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "Exit codes" in capsys.readouterr().out


def test_a_fault_of_ours_is_a_line_and_with_debug_a_traceback(monkeypatch, capsys, file):
    def broken(_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("orchestrator_core.cli.graph.load_for", broken)
    assert main(["graph", str(file)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "ZeroDivisionError: by zero" in err
    assert main(["--debug", "graph", str(file)]) == 2
    assert "Traceback" in capsys.readouterr().err


# --- new-plugin -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sample", "acme-2b_tools"])
def test_a_new_package_passes_its_own_tests(name, said, tmp_path):
    pytest.importorskip("hatchling")
    out = said("new-plugin", name, "--directory", str(tmp_path))
    package = tmp_path / name
    assert str(package / "pyproject.toml") in out
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", str(site), str(package)], check=True, timeout=120)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    ran = subprocess.run(
        tests,
        check=False,
        cwd=package,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed" in ran.stdout
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "src"],
        check=False,
        cwd=package,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "No module named mypy" in checked.stderr or checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", ["Acme", "1st", "a b", "../x", "core", "std", "a" * 41, "-a", "a--b"])
def test_names_that_cannot_be(name, said, tmp_path):
    said("new-plugin", "--directory", str(tmp_path), "--", name, code=2)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(said, tmp_path):
    said("new-plugin", "sample", "--directory", str(tmp_path))
    (tmp_path / "sample" / "README.md").write_text("mine")
    assert "exists already" in said("new-plugin", "sample", "--directory", str(tmp_path), code=2)
    assert (tmp_path / "sample" / "README.md").read_text() == "mine"


def test_a_name_that_an_installed_plugin_has(plugin, said, tmp_path):
    plugin("greeting", GREETING)
    err = said("new-plugin", "greeting", "--directory", str(tmp_path / "new"), code=2)
    assert "greeting-package" in err


# --- texts ----------------------------------------------------------------------------------------------------------


def test_texts_that_terminals_may_show():
    assert clean("a\x1b[31m\r\nb\tc\x9b\u202e") == "a\\x1b[31m\nb\tc\\x9b\\u202e"
    assert one_line({"a": "x\ny"}) == '{"a":"x\\ny"}'
    assert one_line("x" * 50, 10) == "xxxxxxxxx…"
    assert [plural(n, "node") for n in (0, 1, 2, 5000)] == ["0 nodes", "1 node", "2 nodes", "5,000 nodes"]


@pytest.mark.parametrize(
    "value",
    [
        {"rows": list(range(1000))},
        ["é" * 500],
        {"a" * 500: 1},
        [[[[[1] * 50] * 5] * 5] * 5],
        {"x": {"y": "\n" * 300}},
        [None] * 99,
    ],
)
def test_what_is_cut_says_so(value):
    for width in range(1, 120, 7):
        short = one_line(value, width)
        assert len(short) <= width
        assert short.endswith("…")


def test_small_values_stand_on_one_line():
    assert pretty({"a": 1, "b": [1, 2]}) == ['{"a": 1, "b": [1, 2]}']
    assert pretty({"a": {"b": 1}}) == ["{", '  "a": {"b": 1}', "}"]
    value = {"rows": [{"n": i, "text": "x" * 40} for i in range(5)], "empty": {}, "none": None}
    assert json.loads("\n".join(pretty(value))) == value
    assert max(map(len, pretty(value))) <= 88
    assert pretty([]) == ["[]"]


def test_tables_are_aligned_and_cut():
    lines = table([("a", "bb", "c" * 50), ("aaa", "b", "d")], width=20)
    assert lines[0].index("bb") == lines[1].index("b")
    assert all(len(line) <= 20 for line in lines)
