"""The examples: every one is valid, can be drawn, and does what its own comment says."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestrator_core import Engine, HttpPolicy, Workflow
from orchestrator_core.cli import main as orchestrator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
INSTANCES = ROOT.parent / "shared" / "data" / "wfinstances"
ACME = EXAMPLES / "acme-nodes"

DOCUMENTS = sorted([*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("*.json"), *EXAMPLES.glob("*/*.yaml")])
COMMAND = re.compile(r"^#? *((?:[A-Z_]+=\S+ )?orchestrator run .*)\n#? +-> (.*)$", re.MULTILINE)


def load(path: Path) -> ModuleType:
    name = f"example_{path.parent.name}_{path.stem}".replace("-", "_")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # attrs looks annotations up there
    spec.loader.exec_module(module)
    return module


@functools.cache
def server() -> ModuleType:
    return load(EXAMPLES / "earthquakes" / "server.py")


def real_events() -> list[dict[str, Any]]:
    """The records, where the package that carries them is installed: it is no dependency of the project."""
    if importlib.util.find_spec(server().PACKAGE) is None:
        pytest.skip(f"{server().PACKAGE} is not installed")
    events: list[dict[str, Any]] = server().read_events()
    return events


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch):
    """Where the commands of the examples are meant to be typed."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def acme(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ACME / "src"))
    import acme_nodes  # noqa: PLC0415 - it is found only now

    return acme_nodes


# --- every file ------------------------------------------------------------------------------------------------------------


def test_there_are_examples():
    assert len(DOCUMENTS) >= 13


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.stem)
def test_every_document_is_valid_drawn_and_comes_back_from_its_dump(file, acme):
    workflow = Workflow.load(file)
    assert Engine(plugins=[acme], discover=True).validate(workflow) == []
    assert Workflow.from_yaml(workflow.to_yaml()) == Workflow.from_json(workflow.to_json()) == workflow
    mermaid, dot, svg = workflow.to_mermaid(), workflow.to_dot(), workflow.to_svg()
    for node in workflow.nodes:
        assert node.id in mermaid
        assert node.id in dot
        assert f'data-node="{node.id}"' in svg
    assert workflow.name is not None


@pytest.mark.parametrize("file", [file for file in DOCUMENTS if file.parent == EXAMPLES], ids=lambda file: file.stem)
def test_the_command_line_finds_nothing_wrong(file, capsys):
    assert orchestrator(["validate", str(file)]) == 0
    assert "ok" in capsys.readouterr().out


def test_the_readme_lists_every_example():
    text = (EXAMPLES / "README.md").read_text()
    named = {EXAMPLES / name for name in re.findall(r"\]\(([^)]+)\)", text)}
    assert {path for path in named if not path.exists()} == set()
    shown = {file for file in [*DOCUMENTS, *EXAMPLES.glob("*.py")] if file.parent != ACME}
    assert shown - named == set()


def test_the_picture_in_the_readme_of_the_demo_is_fresh():
    drawn = Workflow.load(EXAMPLES / "earthquakes" / "earthquakes.yaml").to_mermaid()
    assert f"```mermaid\n{drawn}```" in (EXAMPLES / "earthquakes" / "README.md").read_text()


# --- what the comments say --------------------------------------------------------------------------------------------------


def commands(file: Path) -> Iterator[tuple[str, Any]]:
    for command, answer in COMMAND.findall(file.read_text()):
        yield command, json.loads(answer)


SAID = [(file, *said) for file in DOCUMENTS if file.parent == EXAMPLES for said in commands(file)]


def test_every_yaml_file_says_how_to_run_it_and_what_comes_out():
    told = {file for file, *_ in SAID}
    assert [file for file in EXAMPLES.glob("*.yaml") if file not in told] == []


@pytest.mark.parametrize(
    ("file", "command", "answer"), SAID, ids=[f"{file.stem}-{n}" for n, (file, *_) in enumerate(SAID)]
)
def test_what_the_comment_says_comes_out(file, command, answer, capsys, monkeypatch):
    words = shlex.split(command)
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    assert words[:3] == ["orchestrator", "run", f"examples/{file.name}"]

    def run() -> Any:
        assert orchestrator([*words[1:], "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)["output"]

    if "http://127.0.0.1:8123" not in command:
        assert run() == answer
        return
    with server().serving(real_events(), failures=1) as url:
        words = [word.replace("http://127.0.0.1:8123", url) for word in words]
        assert run() == answer


def test_losers_are_cancelled(capsys):
    assert orchestrator(["run", "examples/first-answer-wins.json", "--input", '{"file": "a.iso"}', "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["output"] == {"quick": "succeeded", "file": "a.iso"}
    status = {node["path"]: node["status"] for node in result["nodes"]}
    assert (status["slow_mirror"], status["stubborn_mirror"]) == ("cancelled", "cancelled")


# --- the demo ----------------------------------------------------------------------------------------------------------------


def season(events: list[dict[str, Any]], *, strong: float, failures: int = 0) -> Any:
    workflow = Workflow.load(EXAMPLES / "earthquakes" / "earthquakes.yaml")
    with server().serving(events, failures=failures) as url:
        engine = Engine(http=HttpPolicy(allow=("127.0.0.1",)))
        return engine.run_sync(workflow, {"url": url, "felt": 4.5, "strong": strong})


def quake(day: int, mag: float, place: str = "near A, Land", lat: float = 0.0, depth: float = 10.0) -> dict[str, Any]:
    return {
        "time": f"2024-04-{day:02}T00:00:00Z",
        "mag": mag,
        "depth_km": depth,
        "lat": lat,
        "lon": 0.0,
        "place": place,
    }


def test_the_demo_counts_what_it_was_given():
    events = [
        quake(1, 4.0),
        quake(2, 6.5, depth=33.4),
        quake(3, 4.6, lat=1.0),
        quake(4, 5.0, "B, Sea", lat=0.5),
        quake(5, 4.9, lat=9.0),  # too far to be an aftershock
        quake(25, 4.7),  # too late
    ]
    result = season(events, strong=6, failures=2)
    joules = {mag: 10 ** (1.5 * mag + 4.8) for mag in (6.5, 4.6, 5.0, 4.9, 4.7)}
    sea = 100 * joules[5.0] / sum(joules.values())
    assert result.output == {
        "period": "2024-04-01 to 2024-04-25",
        "earthquakes": 6,
        "felt": 5,
        "season": "restless",
        "energy_by_region": [
            f"Land: {100 - sea:.1f} %, 4 earthquakes, M 6.5 at most, down to 33 km",
            f"Sea: {sea:.1f} %, 1 earthquake, M 5 at most, down to 10 km",
        ],
        "strong": ["2024-04-02 M 6.5, near A, Land: 2 aftershocks, M 5 at most"],
    }
    assert len(result.node("fetch").attempts) == 3
    assert result.node("quiet").status == "skipped"


def test_the_demo_takes_another_way_in_a_calm_season():
    result = season([quake(1, 4.6)], strong=6)
    assert (result.output["season"], result.output["strong"]) == ("calm", [])
    assert result.node("aftershocks").status == "skipped"
    assert [line.message for line in result.node("quiet").logs] == ["no earthquake of magnitude 6 or more"]


def test_one_of_a_kind_is_not_many():
    output = season([quake(2, 6.5), quake(3, 5.0)], strong=6).output
    assert output["strong"] == ["2024-04-02 M 6.5, near A, Land: 1 aftershock, M 5 at most"]


def test_the_demo_asks_at_most_two_questions_at_a_time_and_reads_all_pages():
    result = season([quake(1, 4.0)] * 230 + [quake(n, 7.0, lat=8.0 * n) for n in range(1, 11)], strong=7)
    assert result.output["earthquakes"] == 240
    assert result.node("fetch").output["pages"] == 3
    spans = [(n.started_at, n.finished_at) for n in result.nodes if n.path.startswith("aftershocks/")]
    assert len(spans) == 10
    moments = sorted((moment, change) for began, ended in spans for moment, change in ((began, 1), (ended, -1)))
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    assert most == 2


def test_the_demo_answers_over_the_real_records(capsys, monkeypatch, tmp_path):
    events = real_events()
    monkeypatch.syspath_prepend(str(EXAMPLES / "earthquakes"))
    run = load(EXAMPLES / "earthquakes" / "run.py")
    monkeypatch.setattr(run, "LATENCY", 0.0)
    picture = tmp_path / "run.svg"
    monkeypatch.setattr(sys, "argv", ["run.py", "--svg", str(picture)])
    assert run.main() == 0
    shown = capsys.readouterr().out
    assert "Where to go next" in shown
    assert str(picture) in shown
    assert "installation" not in shown
    monkeypatch.setenv("ORCHESTRATOR_DEMO_BEGAN", str(time.time() - 100))
    assert run.main() == 0
    assert re.search(r"Real records in \d\.\d seconds \(10\d with the installation\)\.", capsys.readouterr().out)
    assert picture.read_text().startswith("<svg")
    monkeypatch.setattr(sys, "argv", ["run.py", "--json", "--strong", "6"])
    assert run.main() == 0
    output = json.loads(capsys.readouterr().out)["output"]
    assert (output["earthquakes"], output["felt"]) == (len(events), sum(e["mag"] >= 4.5 for e in events))
    assert len(output["strong"]) == sum(event["mag"] >= 6 for event in events)
    assert output["season"] == "violent"


@pytest.mark.parametrize(
    ("query", "status"),
    [("/events?page=0", 400), ("/events?limit=5000", 400), ("/events?near=x", 400), ("/", 404), ("/events", 200)],
)
def test_the_service_refuses_what_it_does_not_understand(query, status):
    workflow = Workflow.from_dict(
        {
            "schema": 1,
            "id": "ask",
            "nodes": [{"id": "ask", "type": "http", "config": {"url": "{{ payload }}", "fail_on": []}}],
        }
    )
    with server().serving([quake(1, 5.0)]) as url:
        result = Engine(http=HttpPolicy(allow=("127.0.0.1",))).run_sync(workflow, url + query)
    assert result.output["status"] == status


# --- programs -----------------------------------------------------------------------------------------------------------------


def test_the_code_first_example_runs_and_saves(capsys, monkeypatch, tmp_path):
    module = load(EXAMPLES / "code_first.py")
    monkeypatch.setattr(sys, "argv", ["code_first.py"])
    module.main()
    first, second = capsys.readouterr().out.splitlines()
    assert first == "succeeded: {'state': 'confirmed', 'total': 310.5}  (attempts of each line: [2, 2])"
    assert second == "succeeded: {'state': 'refused', 'because': 'no lamp left'}  (attempts of each line: [2])"
    monkeypatch.setattr(sys, "argv", ["code_first.py", "--save", str(tmp_path / "shop.json")])
    module.main()
    saved, flow = Workflow.load(tmp_path / "shop.json"), module.build()
    assert saved == flow.workflow()
    result = Engine(callables=flow.callables).run_sync(saved, {"lines": [{"article": "chair", "qty": 1}]})
    assert result.output == {"state": "confirmed", "total": 45}
    assert flow._repr_svg_().count("data-node=") >= len(saved.nodes)


def test_the_application_answers_and_refuses(capsys):
    module = load(EXAMPLES / "asgi_app.py")
    module.asyncio.run(module.main())
    answers = re.findall(r": (\d{3}) (\{.*\})$", capsys.readouterr().out, re.MULTILINE)
    assert [status for status, _ in answers] == ["200", "400", "404"]
    assert json.loads(answers[0][1])["answer"] == "small order"


def test_the_application_hides_what_went_wrong_inside():
    module = load(EXAMPLES / "asgi_app.py")

    async def ask() -> list[tuple[int, Any]]:
        async with module.running(module.app) as request:
            bodies = [b"[NaN]", b"[" * 10_000, b"x" * 70_000, b'{"qty": 1000}']
            return [await request("POST", "/orders", body) for body in bodies]

    answers = module.asyncio.run(ask())
    assert [status for status, _ in answers] == [400, 400, 413, 500]
    assert set(answers[-1][1]) == {"message", "execution_id"}


# --- the plugin ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The plugin, really installed by pip, but beside the environment: gives a runner that finds it."""
    target = tmp_path_factory.mktemp("site")
    isolation = [] if importlib.util.find_spec("hatchling") is None else ["--no-build-isolation"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        *isolation,
        "--target",
        str(target),
        str(ACME),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(target), "NO_COLOR": "1"},
        )

    return run


CLI = ("-c", "import sys; from orchestrator_core.cli import main; sys.exit(main())")


def test_an_installed_plugin_is_found_described_and_run(installed):
    listed = installed(*CLI, "nodes")
    assert listed.returncode == 0, listed.stderr
    assert "acme.slugify" in listed.stdout
    assert "acme.redact" in listed.stdout
    described = installed(*CLI, "nodes", "acme.slugify").stdout
    assert "separator" in described
    assert "What stands between two words." in described
    ((command, answer),) = commands(ACME / "article.yaml")
    done = installed(*CLI, *shlex.split(command)[1:], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == answer


def test_a_bad_config_of_a_plugin_is_refused_with_its_line(installed, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        (ACME / "article.yaml")
        .read_text()
        .replace("type: acme.slugify}", 'type: acme.slugify, config: {separator: "/"}}')
    )
    done = installed(*CLI, "validate", str(bad))
    assert done.returncode == 2
    assert re.search(r"bad\.yaml:11: \$\.nodes\[2\]\.config.*`separator` must be one of", done.stdout + done.stderr)


def test_the_plugin_passes_its_own_tests(installed):
    done = installed(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ACME / "pyproject.toml"), str(ACME / "tests")
    )
    assert done.returncode == 0, done.stdout


def test_the_plugin_uses_the_public_api_only():
    for file in ACME.rglob("*.py"):
        modules = re.findall(r"^(?:from|import) (orchestrator\S*)", file.read_text(), re.MULTILINE)
        assert set(modules) <= {"orchestrator_core", "orchestrator_core.build"}, file


# --- recorded workflows ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wfformat() -> ModuleType:
    return load(EXAMPLES / "wfformat" / "run.py")


def recorded(tmp_path: Path, tasks: dict[str, tuple[float, list[str]]], **changes: Any) -> Path:
    """A file of WfFormat 1.5: id -> (seconds, parents)."""
    children = {id: [other for other, (_, parents) in tasks.items() if id in parents] for id in tasks}
    document: dict[str, Any] = {
        "name": "made up",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {
                "tasks": [
                    {"id": id, "name": id, "parents": parents, "children": children[id]}
                    for id, (_, parents) in tasks.items()
                ]
            },
            "execution": {"tasks": [{"id": id, "runtimeInSeconds": seconds} for id, (seconds, _) in tasks.items()]},
        },
    }
    document["workflow"].update(changes)
    file = tmp_path / "made-up.json"
    file.write_text(json.dumps(document))
    return file


DIAMOND = {"a.1": (1.0, []), "b": (4.0, ["a.1"]), "c#x": (2.0, ["a.1"]), "d": (1.0, ["b", "c#x"]), "a_1": (0, [])}


def test_a_recording_is_replayed_in_its_order(wfformat, tmp_path, capsys):
    file = recorded(tmp_path, DIAMOND)
    assert wfformat.main([str(file), "--critical-path", "0.3"]) == 0
    name, tasks, edges, path, _, makespan, _, ratio = capsys.readouterr().out.splitlines()[1].split()
    assert (name, tasks, edges, float(path)) == ("made-up", "5", "4", 0.3)
    assert float(makespan) >= 0.3
    assert float(ratio) == pytest.approx(float(makespan) / 0.3, abs=0.01)


def test_tasks_that_wait_for_nothing_run_side_by_side(wfformat, tmp_path):
    tasks = wfformat.read(recorded(tmp_path, {f"t{n}": (1.0, []) for n in range(6)}))
    diary = wfformat.Diary()
    workflow = wfformat.build(tasks, name="wide", scale=2.0, parallel=None, diary=diary).workflow()
    done = wfformat.anyio.run(lambda: wfformat.replay(workflow, tasks, scale=2.0, diary=diary))
    assert done.wrong == ()
    assert max(moment for (moment,) in diary.began.values()) < min(moment for (moment,) in diary.ended.values())


def test_fewer_at_a_time_take_longer(wfformat, tmp_path):
    tasks = wfformat.read(recorded(tmp_path, {f"t{n}": (1.0, []) for n in range(6)}))
    diary = wfformat.Diary()
    workflow = wfformat.build(tasks, name="wide", scale=0.05, parallel=2, diary=diary).workflow()
    done = wfformat.anyio.run(lambda: wfformat.replay(workflow, tasks, scale=0.05, diary=diary))
    assert done.wrong == ()
    assert done.critical_path == pytest.approx(0.05)
    assert done.makespan >= 0.15


def test_a_saved_recording_is_a_workflow_like_any_other(wfformat, tmp_path):
    saved = tmp_path / "saved.json"
    assert wfformat.main([str(recorded(tmp_path, DIAMOND)), "--scale", "0.001", "--save", str(saved)]) == 0
    workflow = Workflow.load(saved)
    assert [node.name for node in workflow.nodes] == list(DIAMOND)
    result = Engine(discover=False, callables={"work": wfformat.work}).run_sync(workflow)
    assert (result.status, result.output) == ("succeeded", 5)


def test_what_breaks_the_order_is_noticed(wfformat, tmp_path):
    tasks = wfformat.read(recorded(tmp_path, DIAMOND))
    ids = wfformat.node_ids(tasks)
    assert len(set(ids.values())) == len(tasks)
    diary = wfformat.Diary()
    for task in tasks:
        diary.began[ids[task.id]] = [1.0]
        diary.ended[ids[task.id]] = [2.0]
    assert "d began before b had ended" in wfformat.broken_rules(tasks, diary)
    diary.began[ids["b"]] = [2.0, 3.0]
    assert "b began 2 times and ended 1 times" in wfformat.broken_rules(tasks, diary)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "there is no object `workflow`"),
        ('{"workflow": {}}', "neither `workflow.specification.tasks`"),
        (
            '{"workflow": {"specification": {"tasks": []}, "execution": {}}}',
            "`workflow.specification.tasks` must be a list",
        ),
        ('{"workflow": {"specification": {"tasks": [{"id": "a"}]}}}', "has no `workflow.execution`"),
        ('{"workflow": {"tasks": [{"name": "a"}]}}', "no run time for task 'a'"),
        ('{"workflow": {"tasks": [{"name": "a", "runtime": -1}]}}', "the run time -1 for task 'a'"),
        ('{"workflow": {"tasks": [{"name": "a", "runtime": 1, "parents": ["b"]}]}}', "has no task 'b'"),
        ('{"workflow": {"tasks": [{"name": "a", "runtime": 1}, {"name": "a", "runtime": 1}]}}', "the task 'a' twice"),
        ('{"workflow": {"tasks": [{"runtime": 1}]}}', "a task without an `id`"),
        ('{"workflow": {"tasks": [{"name": "a", "runtime": 1, "parents": "b"}]}}', "no list of ids"),
        (
            '{"workflow": {"tasks": [{"name": "a", "runtime": 1, "parents": ["b"]}, {"name": "b", "runtime": 1, "parents": ["a"]}]}}',
            "in a circle",
        ),
    ],
)
def test_what_is_no_recording_is_refused_with_a_reason(wfformat, tmp_path, capsys, content, complaint):
    file = tmp_path / "bad.json"
    file.write_text(content)
    assert wfformat.main([str(file)]) == 2
    out, error = capsys.readouterr()
    assert out == "", "the error comes alone"
    assert error.startswith(f"{file}: ")
    assert complaint in error


def test_older_recordings_are_read_too(wfformat, tmp_path):
    file = tmp_path / "old.json"
    for key in ("runtime", "runtimeInSeconds"):
        tasks = [{"name": "a", key: 1.5, "children": ["b"]}, {"name": "b", key: 2}]
        file.write_text(json.dumps({"schemaVersion": "1.3", "workflow": {"tasks": tasks}}))
        assert wfformat.read(file) == [wfformat.Task("a", 1.5, ()), wfformat.Task("b", 2.0, ("a",))]


@pytest.mark.skipif(not INSTANCES.is_dir(), reason="the recorded workflows are not beside this repository")
def test_real_recordings_keep_their_order(wfformat, capsys):
    files = sorted(INSTANCES.glob("*.json"))
    assert len(files) >= 4
    assert wfformat.main([*map(str, files), "--critical-path", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == len(files)
    for line in lines:
        assert float(line.split()[-1]) >= 1, "nothing is faster than its slowest chain"


# --- the first command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def go(monkeypatch, tmp_path) -> ModuleType:
    module = load(ROOT / "go.py")
    venv = tmp_path / ".venv"
    for name, path in (
        ("VENV", venv),
        ("CACHE", venv / "cache"),
        ("PLAIN", venv / "packages"),
        ("LOG", venv / "install.log"),
    ):
        monkeypatch.setattr(module, name, path)
    return module


def refusing(go: ModuleType, monkeypatch: pytest.MonkeyPatch, *refused: str) -> list[str]:
    """Lets some programs fail as they do where parts are missing; gives what was started."""
    started: list[str] = []

    def call(command: list[str]) -> subprocess.CompletedProcess[str]:
        line = " ".join(command)
        started.append(line)
        if any(part in line for part in refused):
            go.VENV.mkdir(exist_ok=True)
            (go.VENV / "half-made").touch()
            return subprocess.CompletedProcess(command, 1, "ensurepip is not available\n", "")
        if " -m venv" in line:
            go.python().parent.mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0 if " -m pip --version" not in line else 1, "", "")

    monkeypatch.setattr(go, "call", call)
    return started


def test_an_environment_without_pip_is_filled_from_outside(go, monkeypatch):
    started = refusing(go, monkeypatch, f"-m venv {go.VENV}")
    monkeypatch.setattr(go, "_works", lambda *words: words[0] == "-c" and go.python().parent.exists())
    monkeypatch.setattr(go.shutil, "which", lambda name: None)
    go.make_environment()
    assert any("--without-pip" in line for line in started)
    assert not (go.VENV / "half-made").exists()
    assert go.pip_command()[1:4] == ["-m", "pip", "--python"]


def test_packages_go_into_a_folder_where_no_environment_can_be_made(go, monkeypatch):
    refusing(go, monkeypatch, " -m venv", " -m virtualenv", "uv venv")
    monkeypatch.setattr(go, "_works", lambda *_: False)
    go.make_environment()
    assert "--target" in go.pip_command()
    assert go.environment()["PYTHONPATH"].endswith(str(go.PLAIN))
    assert go.python() == Path(sys.executable)


def test_where_nothing_works_it_says_what_to_install(go, monkeypatch):
    refusing(go, monkeypatch, " -m venv", " -m virtualenv", "uv venv")
    monkeypatch.setattr(go, "_works", lambda *_: False)
    monkeypatch.setattr(go, "_has", lambda _: False)
    with pytest.raises(go.Failed, match=r"(?s)apt install python3-venv.*ensurepip is not available"):
        go.make_environment()


def test_pips_warnings_are_kept_from_people_and_its_errors_are_not(go):
    said = "WARNING: Location ignored\n  error: subprocess-exited-with-error\n      ERROR: No matching distribution found for x\n"
    done = subprocess.CompletedProcess([], 1, "", said)
    assert go.complaint(done) == "    ERROR: No matching distribution found for x"


@pytest.mark.parametrize("installed", [True, False])
def test_the_demo_leaves_caches_where_the_command_looks_and_says_when_it_began(go, monkeypatch, installed):
    """What is compiled in the demo is not compiled again by whoever types `orchestrator` afterwards."""
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(go, "ROOT", go.VENV.parent)
    monkeypatch.setattr(go, "install", lambda *_: installed)
    monkeypatch.setattr(go, "run", lambda _, surroundings: seen.append(surroundings) or 0)
    for given in (None, "/elsewhere"):
        if given is None:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert go.demo([]) == 0
        assert seen[-1].get("XDG_CACHE_HOME") == given
        assert ("ORCHESTRATOR_DEMO_BEGAN" in seen[-1]) == installed
    assert go.environment()["XDG_CACHE_HOME"] == str(go.CACHE), "pip's stay in the folder"


def test_it_says_what_it_can_do(go, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["go.py", "dance"])
    assert go.main() == 2
    assert "python3 go.py demo" in capsys.readouterr().out


def test_packages_that_are_copies_are_told_from_the_checkouts(go, monkeypatch, tmp_path):
    own = [tmp_path / package / "src" for package in go.PACKAGES]
    copies = go.VENV / "lib"
    for folder, name in zip((*own, copies, copies), ("orchestrator_core", "orchestrator_nodes_std") * 2, strict=True):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    found = own

    def call(command: list[str]) -> subprocess.CompletedProcess[str]:
        surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, found))}
        without_site = [sys.executable, "-S", *command[1:]]  # what is installed here is not seen
        return subprocess.run(without_site, env=surroundings, capture_output=True, text=True, check=False)

    monkeypatch.setattr(go, "ROOT", tmp_path)
    monkeypatch.setattr(go, "call", call)
    assert go.is_from_here()
    found = [copies]
    assert not go.is_from_here(), "they lie in the checkout's own .venv, and are copies all the same"
    found = own[:1]
    assert not go.is_from_here(), "one of the two is missing"


def test_it_installs_what_is_missing_and_says_what_for(go, monkeypatch, capsys):
    ours = True
    started: list[str] = []

    def call(command: list[str]) -> subprocess.CompletedProcess[str]:
        started.append(" ".join(command))
        return subprocess.CompletedProcess(command, 0 if ours or go.FROM_HERE not in command else 1, "", "")

    def installs(what: str) -> bool:
        started.clear()
        return go.install(what, ()) and any("install --quiet --editable" in line for line in started)

    monkeypatch.setattr(go, "call", call)
    go.VENV.mkdir()
    assert installs("demo")
    assert "Preparing .venv (once) ..." in capsys.readouterr().out
    assert not installs("demo")
    assert installs("test")
    assert "Adding what the tests need to .venv (once) ..." in capsys.readouterr().out
    assert not installs("test")
    ours = False
    assert installs("demo"), "something else has replaced the packages"
    assert "Bringing .venv up to date ..." in capsys.readouterr().out


def test_who_reads_no_further_sees_no_traceback():
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "go.py"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as done:
            assert done.stdout is not None
            assert done.stderr is not None
            done.stdout.close()
            assert done.stderr.read() == b""
