"""Every error code that the packages can give, found in their source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

__all__ = ["Found", "constants", "find_answers", "find_codes"]

# What carries a code as its first argument, and not as the keyword `code`.
_FIRST = frozenset({"Failure", "SandboxError"})
# The sandbox's driver is written in JavaScript.
_JAVASCRIPT = re.compile(r"""(?:Refused\(|failed\(error, |\{ code: )"(\w+)\"""")


@attrs.frozen
class Found:
    """A code and where it is given; ``*`` in a code stands for a part that is computed."""

    code: str
    module: str
    line: int


def find_codes(files: Iterable[Path]) -> list[Found]:
    """Every literal error code in these modules: of raised errors, of defaults, of error classes."""
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    trees = {file: ast.parse(text) for file, text in texts.items() if file.suffix == ".py"}
    known = constants(trees.values())
    codes = [found for file, tree in trees.items() for found in _codes_in(tree, file.stem, known)]
    for file in texts.keys() - trees.keys():
        codes += [
            Found(match[1], file.stem, texts[file].count("\n", 0, match.start()) + 1)
            for match in _JAVASCRIPT.finditer(texts[file])
        ]
    return codes


def find_answers(files: Iterable[Path]) -> Mapping[str, set[int]]:
    """Every literal code that these modules of the API answer with, and the statuses that it has."""
    found: dict[str, set[int]] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                match node.args:
                    case [ast.Constant(value=int() as status), ast.Constant(value=str() as code), *_]:
                        found.setdefault(code, set()).add(status)
    return found


def constants(trees: Iterable[ast.Module]) -> Mapping[str, str]:
    """The modules' constants that hold a text, by name."""
    found: dict[str, str] = {}
    for tree in trees:
        for statement in tree.body:
            if isinstance(statement, ast.Assign):
                targets: list[Any] = statement.targets
            elif isinstance(statement, ast.AnnAssign):
                targets = [statement.target]
            else:
                continue
            if isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str):
                found.update({target.id: statement.value.value for target in targets if isinstance(target, ast.Name)})
    return found


def _codes_in(tree: ast.Module, module: str, known: Mapping[str, str]) -> Iterator[Found]:
    for node in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call):
            values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in _FIRST and node.args:
                values.append(node.args[0])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [argument.arg for argument in node.args.kwonlyargs]
            values = [d for n, d in zip(names, node.args.kw_defaults, strict=True) if n == "code" and d is not None]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "code":
            # A class attribute, or the setting `code` of a node type with its default.
            value = node.value
            if isinstance(value, ast.Call):
                values = [keyword.value for keyword in value.keywords if keyword.arg == "default"]
            elif value is not None:
                values = [value]
        for value in values:
            code = _text(value, known)
            if code is not None:
                yield Found(code, module, value.lineno)


def _text(value: ast.expr, known: Mapping[str, str]) -> str | None:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.Name):
        return known.get(value.id)
    if isinstance(value, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "*" for part in value.values]
        return "".join(str(part) for part in parts)
    return None
