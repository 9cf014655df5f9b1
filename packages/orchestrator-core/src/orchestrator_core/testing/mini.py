"""A tiny expression language for cases and simulations: plain paths and literals under ``!``, ``===``, ``>``, ``&&`` ….

It has the name and the meaning of JavaScript as far as it goes, so that graphs can be tested where the sandbox is
not installed. What goes further is an error that says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator_core.expressions import ABSENT, truthy
from orchestrator_core.nodes import Evaluated, LanguageError, Ran
from orchestrator_core.types import Json

__all__ = ["MiniScript", "evaluate"]

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?\d+(?:\.\d+)?)|(?P<text>"[^"\\]*"|'[^'\\]*')|(?P<name>[A-Za-z_$][\w$]*)"""
    r"""|(?P<mark>===|!==|>=|<=|&&|\|\||\?\?|\?\.|[!><().\[\]]))"""
)
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "null": None, "undefined": ABSENT}
_BINARY: Sequence[Sequence[str]] = (("??", "||"), ("&&",), ("===", "!=="), (">", "<", ">=", "<="))


class _Parser:
    def __init__(self, source: str, scope: Mapping[str, Any]) -> None:
        self.scope = scope
        self.tokens: list[tuple[str, str]] = []
        position = 0
        source = source.strip()
        while position < len(source):
            match = _TOKEN.match(source, position)
            if match is None:
                raise ValueError(f"the small test language does not know {source[position:]!r}: install the sandbox")
            self.tokens.append((match.lastgroup or "", match.group(match.lastgroup or 0)))
            position = match.end()
        self.tokens.append(("end", ""))
        self.at = 0

    def take(self, *marks: str) -> str | None:
        if self.tokens[self.at][1] in marks and self.tokens[self.at][0] == "mark":
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def binary(self, level: int = 0) -> Any:
        if level == len(_BINARY):
            return self.unary()
        left = self.binary(level + 1)
        while (mark := self.take(*_BINARY[level])) is not None:
            left = _apply(mark, left, self.binary(level + 1))
        return left

    def unary(self) -> Any:
        if self.take("!"):
            return not truthy(self.unary())
        if self.take("("):
            value = self.binary()
            self.expect(")")
            return self.path(value)
        kind, token = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return float(token) if "." in token else int(token)
        if kind == "text":
            return self.path(token[1:-1])
        if kind == "name":
            return self.path(_WORDS[token] if token in _WORDS else self.scope.get(token, ABSENT))
        raise ValueError(f"{token or 'the end'!r} cannot stand here")

    def expect(self, mark: str) -> None:
        if not self.take(mark):
            raise ValueError(f"{mark!r} is missing")

    def path(self, value: Any) -> Any:
        while (mark := self.take(".", "?.", "[")) is not None:
            if mark == "[":
                key = self.binary()
                self.expect("]")
            else:
                key = self.tokens[self.at][1]
                self.at += 1
            if value is None or value is ABSENT:
                if mark == "?.":
                    value = ABSENT
                    continue
                raise ValueError(f"{'null' if value is None else 'undefined'} has no property {key!r}")
            value = _get(value, key)
        return value


def _get(value: Any, key: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get(str(key), ABSENT)
    if isinstance(value, list | str):
        if key == "length":
            return len(value)
        if isinstance(key, int) and 0 <= key < len(value):
            return value[key]
    return ABSENT


def _apply(mark: str, left: Any, right: Any) -> Any:
    if mark == "&&":
        return right if truthy(left) else left
    if mark == "||":
        return left if truthy(left) else right
    if mark == "??":
        return right if left is None or left is ABSENT else left
    if mark in {"===", "!=="}:
        same = _same(left, right)
        return same if mark == "===" else not same
    if isinstance(left, str) and isinstance(right, str):
        pair: tuple[Any, Any] = (left, right)
    else:
        pair = (_number(left), _number(right))
    return {">": pair[0] > pair[1], "<": pair[0] < pair[1], ">=": pair[0] >= pair[1], "<=": pair[0] <= pair[1]}[mark]


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict | list) or isinstance(right, dict | list):
        return left is right
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _number(value: Any) -> float:
    """JavaScript's ToNumber for what JSON holds."""
    if isinstance(value, bool) or value is None:
        return float(value or 0)
    if isinstance(value, int | float):
        return value
    if isinstance(value, list):
        if not value:
            return 0.0
        return _number("" if value[0] is None else value[0]) if len(value) == 1 else float("nan")
    if isinstance(value, str):
        try:
            return float(value.strip() or 0)
        except ValueError:
            return float("nan")
    return float("nan")


def evaluate(source: str, scope: Mapping[str, Any]) -> Any:
    """The value of an expression, :data:`ABSENT` for undefined.

    Raises:
        ValueError: It cannot be parsed, or reads a property of null or undefined.
    """
    parser = _Parser(source, scope)
    value = parser.binary()
    if parser.tokens[parser.at][0] != "end":
        raise ValueError(f"{parser.tokens[parser.at][1]!r} cannot stand here")
    return value


class MiniScript:
    """The :class:`~orchestrator_core.nodes.Language` of simulations: evaluates expressions, runs no code."""

    name = "javascript"

    def check(self, source: str, *, expression: bool) -> None:
        """Everything is found out when it is evaluated."""

    async def run(
        self,
        source: str,
        context: Mapping[str, Json],
        *,
        timeout: float | None,
        memory: int | None,
        seed: int,
        now: float,
        tenant: str = "",
    ) -> Ran:
        """There is no code in simulations."""
        raise LanguageError("the small test language evaluates expressions only: install the sandbox", code="crashed")

    async def evaluate(
        self, expressions: Sequence[str], scope: Mapping[str, Json], *, seed: int, now: float, tenant: str = ""
    ) -> Sequence[Evaluated]:
        """Each expression by itself."""
        return [self._one(source, scope) for source in expressions]

    @staticmethod
    def _one(source: str, scope: Mapping[str, Json]) -> Evaluated:
        try:
            value = evaluate(source, scope)
        except ValueError as error:
            return Evaluated("error", message=str(error))
        return Evaluated("undefined") if value is ABSENT else Evaluated("value", value)

    async def aclose(self) -> None:
        """It holds nothing."""
