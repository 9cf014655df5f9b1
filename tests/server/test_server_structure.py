"""The rule of imports, and the measure of modules and functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from orchestrator_core.cli import app
from orchestrator_server.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2] / "packages" / "orchestrator-server" / "src" / "orchestrator_server"
FILES = {
    ".".join(["orchestrator_server", *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): file
    for file in ROOT.rglob("*.py")
}


def imports(name: str) -> set[str]:
    """Modules of the package that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            found |= modules or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & FILES.keys()) - {name}


def test_there_are_no_import_cycles():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join([*path, name])}"
        if name not in done:
            for other in sorted(imports(name)):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(FILES):
        visit(name, ())


def test_only_sql_knows_sql():
    for name, file in FILES.items():
        if not name.startswith("orchestrator_server.sql"):
            text = file.read_text()
            assert "import sqlalchemy" not in text
            assert "from sqlalchemy" not in text


@pytest.mark.parametrize("name", sorted(FILES))
def test_modules_and_functions_keep_their_measure(name: str):
    text = FILES[name].read_text()
    assert len(text.splitlines()) <= 700
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno
            assert length <= 60, f"{node.name} has {length} lines"


def test_the_command_line_without_a_server_knows_what_a_server_would_bring():
    assert COMMANDS.keys() == app._SERVER
