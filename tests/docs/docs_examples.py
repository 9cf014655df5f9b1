"""Runs the examples of a document: what the code blocks of README.md, docs/ and the docstrings say is done, and compared.

A document has one namespace and one working directory. What a fenced block means goes by its language:

* ``python``: executed (``await`` may stand at the top level). What it prints must stand in an ``output`` block below it.
  A block whose first line is ``# name.py`` is saved under that name instead, and must be used by a later block.
* ``output``: what the block above printed; ``...`` stands for anything.
* ``console``: each line that begins with ``$ `` is a command, the lines below it are what it prints. ``orchestrator``
  runs in this process, ``python``, ``pytest``, ``curl``, ``cat`` and ``ls`` in another. A command that fails must be
  followed by ``$ echo $?``. Commands that install or set up something are not run. ``orchestrator serve`` is another
  process, on a free port instead of 8080, and stays until a block begins with ``^C``, or the page ends. What is set with
  ``export`` holds until then too, and may stand in commands as ``$NAME``.
* ``yaml``: a workflow, a list of nodes, or a case of the law: checked with the node types at hand; a case is also run, on
  the machine and through the engine, and what it expects compared. ``# name.yaml`` on the first line saves it.
* ``javascript`` and ``toml``: parsed.
* ``text``, ``json`` and ``sh``: shown, not executed; a shell block may hold only commands that install or set up something.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import attrs
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser
from sybil.parsers.rest import DocTestParser

from orchestrator_core import Engine, Workflow
from orchestrator_core.cli import main as orchestrator
from orchestrator_core.codec import parse_json
from orchestrator_core.configs import prepare_config
from orchestrator_core.testing.cases import compare, load_case, run_on_engine, run_on_machine
from orchestrator_core.yaml_text import parse_yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
PAGES = [page for page in PAGES if "_build" not in page.parts]
MODULES = sorted((ROOT / "packages").glob("*/src/**/*.py"))
# Fences that hold nothing to execute.
SHOWN = frozenset({"text", "json", "sh"})
EXECUTED = ("python", "output", "console", "yaml", "javascript", "toml")
# Commands that need the network or a fresh machine.
_NOT_RUN = re.compile(
    r"(python3? go\.py|python3? -m (venv|pip)|(uv )?pip |nox|git |source |\. |sphinx-build|cd |python benchmarks/)"
)
_RUN = frozenset({"python", "python3", "pytest", "curl", "cat", "ls"})
_NAME = re.compile(r"# ([\w./-]+\.(?:py|yaml|yml|toml|js))(?::.*)?$", re.MULTILINE)
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
_ELLIPSIS = doctest.ELLIPSIS
PATIENCE = 120  # seconds for one page


class Wrong(AssertionError):
    """An example does not do what its page says."""


@attrs.define
class State:
    """What the blocks of one document share beside their names."""

    directory: Path
    printed: str = ""
    at: str = ""  # where the block stands that printed
    saved: dict[str, int] = attrs.field(factory=dict)
    found: int = 0  # examples that were come across
    left_out: int = 0  # those of them with nothing but commands that are not run
    server: subprocess.Popen[str] | None = None
    port: int = 0  # the server's, instead of 8080


@attrs.frozen
class Fence:
    """A fenced block of a page, found without Sybil, to check what Sybil finds."""

    language: str
    body: str
    line: int


def fences(text: str) -> Iterator[Fence]:
    """The fenced blocks of a page, those of directives left out."""
    for match in _FENCE.finditer(text):
        language = match["info"].strip().split(" ")[0]
        if not language.startswith("{"):
            yield Fence(language, match["body"], text.count("\n", 0, match.start()) + 1)


def run_page(page: Path, directory: Path) -> State:
    """Run every example of a page in a directory, and return what there was.

    Raises:
        AssertionError: One does not do what the page says.
    """
    sybil = Sybil([CodeBlockParser(language, _evaluator(language)) for language in EXECUTED], path=str(page.parent))
    document = sybil.parse(page)
    state = State(directory)
    document.namespace.update({"__name__": "example", "$state": state})
    if re.search(r"^\$ .* examples/", page.read_text(encoding="utf-8"), re.MULTILINE):
        (directory / "examples").symlink_to(ROOT / "examples")
    with _inside(directory), _with_server(state):
        for example in document.examples():
            example.evaluate()
        _nothing_left(state)
    for name in state.saved:
        if state.saved[name] == 0:
            raise Wrong(f"{page}: nothing uses the file {name}")
    return state


def run_module(module: Path, directory: Path) -> int:
    """Run the doctests in a module's docstrings; returns their number."""
    sybil = Sybil([DocTestParser(optionflags=_ELLIPSIS)], path=str(module.parent))
    document = sybil.parse(module)
    count = 0
    with _inside(directory):
        for example in document.examples():
            example.evaluate()
            count += 1
    return count


@contextlib.contextmanager
def _inside(directory: Path) -> Iterator[None]:
    before, path, modules = Path.cwd(), list(sys.path), dict(sys.modules)
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
        for name, module in list(sys.modules.items()):
            source = getattr(module, "__file__", None)
            if source and Path(source).is_relative_to(directory):
                del sys.modules[name]
        sys.modules.update({name: module for name, module in modules.items() if name not in sys.modules})


@contextlib.contextmanager
def _with_server(state: State) -> Iterator[None]:
    """What a page sets in the environment, and the server that it starts, end with it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        if state.server is not None:
            state.server.kill()
            state.server.communicate()


def _evaluator(language: str) -> Callable[[Example], None]:
    run = _RUNNERS[language]

    def evaluate(example: Example) -> None:
        state: State = example.namespace["$state"]
        where = f"{example.path}:{example.line}"
        if language != "output":
            _nothing_left(state)
        for name in state.saved:
            # `test_x.py` is used by `pytest test_x.py`, `x.py` also by `import x`.
            if re.search(rf"\b{re.escape(name)}|(?:import|from) {re.escape(Path(name).stem)}\b", str(example.parsed)):
                state.saved[name] += 1
        try:
            run(str(example.parsed), example.namespace, state, where)
        except Wrong:
            raise
        except Exception as error:
            raise Wrong(f"{where}: {type(error).__name__}: {error}") from error
        state.found += 1

    return evaluate


def _nothing_left(state: State) -> None:
    if state.printed:
        raise Wrong(f"{state.at}: this prints what no `output` block below it shows:\n{state.printed}")


def _save(source: str, state: State) -> str | None:
    """Save a block that names a file on its first line."""
    match = _NAME.match(source)
    if match is None:
        return None
    file = state.directory / match[1]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")
    # The page's own module comes before one of the same name that is installed, and loaded already.
    sys.modules.pop(file.stem, None)
    state.saved.setdefault(match[1], 0)
    return match[1]


def _same(wanted: str, got: str, where: str) -> None:
    wanted, got = (re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip("\n") + "\n" for text in (wanted, got))
    if not doctest.OutputChecker().check_output(wanted, got, _ELLIPSIS):
        raise Wrong(f"{where}: the page shows\n{wanted}but there is\n{got}")


# --- one for each language ------------------------------------------------------------------------------------------


def _python(source: str, names: dict[str, Any], state: State, where: str) -> None:
    if _save(source, state):
        compile(source, where, "exec", dont_inherit=True)
        return
    code = compile(source, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if code.co_flags & inspect.CO_COROUTINE:

            async def main() -> None:
                await eval(code, names)

            anyio.run(main)
        else:
            exec(code, names)
    state.printed, state.at = out.getvalue(), where


def _output(source: str, names: dict[str, Any], state: State, where: str) -> None:
    printed, state.printed = state.printed, ""
    _same(source, printed, where)


def _console(source: str, names: dict[str, Any], state: State, where: str) -> None:
    parts = re.split(r"^\$ ", source, flags=re.MULTILINE)
    if parts[0].startswith("^C\n") and state.server is not None:
        _same(parts[0][3:], _interrupt(state.server), where)
        state.server = None
    elif parts[0].strip():
        raise Wrong(f"{where}: a console block begins with `$ ` and a command")
    status, ran = 0, 0
    for number, part in enumerate(parts[1:]):
        command, shown = _split(part)
        if command == "echo $?":
            _same(shown, f"{status}\n", where)
            continue
        if _NOT_RUN.match(command):
            continue
        status, printed = _run(command, state)
        ran += 1
        following = parts[number + 2] if number + 2 < len(parts) else ""
        if status and not following.startswith("echo $?"):
            raise Wrong(f"{where}: `{command}` ends with the exit code {status}:\n{printed}")
        if shown.strip():
            _same(shown, printed, where)
    state.left_out += not ran


def _split(part: str) -> tuple[str, str]:
    """A command, which goes on behind a backslash, and what is shown below it."""
    lines = part.splitlines(keepends=True)
    command = lines.pop(0).rstrip("\n")
    while command.endswith("\\") and lines:
        command = command[:-1] + lines.pop(0).strip()
    return command.split("  #")[0].strip(), "".join(lines)


def _serve(words: list[str], state: State) -> tuple[int, str]:
    """Start a server, and give what it prints until it answers."""
    if not state.port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            state.port = probe.getsockname()[1]
    os.environ |= {"ORCHESTRATOR_PORT": str(state.port), "ORCHESTRATOR_URL": f"http://127.0.0.1:{state.port}"}
    program = "import sys; from orchestrator_core.cli import main; sys.exit(main())"
    state.server = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    assert state.server.stdout is not None
    printed = ""
    for line in state.server.stdout:
        printed += line
        if "Ctrl-C stops it" in line:
            return 0, printed
    return state.server.wait(), printed


def _interrupt(server: subprocess.Popen[str]) -> str:
    server.send_signal(signal.SIGINT)
    printed, _ = server.communicate(timeout=PATIENCE)
    if server.returncode:
        raise Wrong(f"the server ends with the exit code {server.returncode}: {printed}")
    return printed


def _export(command: str, state: State) -> tuple[int, str]:
    """``export A=b C=$(orchestrator …)``."""
    words = _words(re.sub(r"\$\((.*?)\)", lambda match: _run(match[1], state)[1].strip(), command))
    os.environ |= dict(word.split("=", 1) for word in words[1:])
    return 0, ""


def _words(command: str) -> list[str]:
    """The words of a command, with the variables that stand in them."""
    return [os.path.expandvars(word) for word in shlex.split(command)]


def _run(command: str, state: State) -> tuple[int, str]:
    if state.port:
        status, printed = _run_here(command.replace(":8080", f":{state.port}"), state)
    else:
        status, printed = _run_here(command, state)
    return status, printed.replace(f":{state.port}", ":8080") if state.port else printed


def _run_here(command: str, state: State) -> tuple[int, str]:
    if command.startswith("export "):
        return _export(command, state)
    words = _words(command)
    if words[:2] == ["orchestrator", "serve"]:
        return _serve(words[1:], state)
    if words[0] == "orchestrator":
        # With an encoding, unlike StringIO: what the command line writes depends on it.
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status = orchestrator(words[1:])
        return status, out.buffer.getvalue().decode()  # type: ignore[attr-defined]  # a BytesIO
    if words[0] not in _RUN:
        raise Wrong(f"a page may not run {words[0]!r}: it is neither executed nor known to be left out")
    if words[0] in {"python", "python3"}:
        words[0] = sys.executable
    elif words[0] == "pytest":
        words[:1] = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    # As in CI, Hypothesis draws the same examples each time: whether a page is right does not depend on chance.
    surroundings = {**os.environ, "CI": "true", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        words,
        cwd=state.directory,
        env=surroundings,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _yaml(source: str, names: dict[str, Any], state: State, where: str) -> None:
    _save(source, state)
    value = parse_yaml(source)[0]
    engine = Engine(plugins=[value for value in names.values() if hasattr(value, "register_node_types")])
    try:
        _check_yaml(value, engine, names)
    finally:
        asyncio.run(_close(engine))


def _check_yaml(value: Any, engine: Engine, names: dict[str, Any]) -> None:
    if isinstance(value, Mapping) and "expect" in value:
        _check_case(value)
    elif isinstance(value, Mapping) and "nodes" in value:
        workflow = Workflow.from_dict({"schema": 1, "id": "example", **value})
        engine.workflows.update({w.id: w for w in names.values() if isinstance(w, Workflow)})
        if faults := engine.validate(workflow):
            raise Wrong("\n".join(map(str, faults)))
    elif isinstance(value, list) and all(isinstance(node, Mapping) and "type" in node for node in value):
        Workflow.from_dict({"schema": 1, "id": "example", "nodes": [_with_settings(node) for node in value]})
        for node in value:
            kind = engine.registry.node_types[node["type"]]
            if kind.group is None:
                prepare_config(kind, node.get("config", {}))
    elif isinstance(value, list) and all(isinstance(edge, Mapping) and "source" in edge for edge in value):
        nodes = [
            {"id": name, "type": "set"} for name in sorted({e["source"] for e in value} | {e["target"] for e in value})
        ]
        Workflow.from_dict({"schema": 1, "id": "example", "nodes": nodes, "edges": value})
    else:
        raise Wrong("a yaml block is a workflow, a list of nodes or edges, or a case of the law")


def _with_settings(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A join of a number of edges cannot stand alone."""
    return {name: value for name, value in node.items() if name not in {"join", "cancel_rest"}}


def _check_case(value: Mapping[str, Any]) -> None:
    case = load_case(value)
    for run in (run_on_machine, run_on_engine):
        if wrong := list(compare(case, run(case))):
            raise Wrong(f"{run.__name__}: " + "\n".join(wrong))


async def _close(engine: Engine) -> None:
    async with engine:
        pass


def _javascript(source: str, names: dict[str, Any], state: State, where: str) -> None:
    engine = Engine()
    try:
        engine.language("javascript").check(source, expression=False)
    finally:
        asyncio.run(_close(engine))


def _toml(source: str, names: dict[str, Any], state: State, where: str) -> None:
    _save(source, state)
    tomllib.loads(source)


_RUNNERS: Mapping[str, Callable[[str, dict[str, Any], State, str], None]] = {
    "python": _python,
    "output": _output,
    "console": _console,
    "yaml": _yaml,
    "javascript": _javascript,
    "toml": _toml,
}


def check_shown(fence: Fence) -> None:
    """What is shown and not executed: JSON at least is JSON, and commands are of those that need not be run here."""
    if fence.language == "json":
        parse_json(fence.body)
    if fence.language == "sh":
        wrong = [line for line in fence.body.splitlines() if not _NOT_RUN.match(line)]
        if wrong:
            raise Wrong(f"line {fence.line}: write `console` and `$ {wrong[0]}`, so that it is run")
