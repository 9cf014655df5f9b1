"""The expressions that cases use, for the reference interpreter: a tiny JavaScript over JSON.

Paths, literals, `===`, `!==`, comparisons, `!`, `&&`, `||`, `??`, `?.` and parentheses, with JavaScript's truth. The
product reads expressions natively or in its sandbox; nothing of that is used here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any


class ExpressionError(Exception):
    """An evaluation error, such as a property of undefined."""


class Undefined:
    """The type of JavaScript's `undefined`."""


UNDEFINED = Undefined()
TOKEN = re.compile(
    r"""\s*(?: (?P<number>\d+(?:\.\d+)?) | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*') | (?P<name>[A-Za-z_$][\w$]*)
    | (?P<sign>===|!==|>=|<=|&&|\|\||\?\?|\?\.|\}\}|[><!.\[\]()-]) )""",
    re.VERBOSE,
)
WORDS = {"true": True, "false": False, "null": None, "undefined": UNDEFINED}
LEVELS = (("??",), ("||",), ("&&",), ("===", "!=="), (">", "<", ">=", "<="))
Evaluate = Callable[[dict[str, Any]], Any]


def render(template: Any, names: dict[str, Any]) -> Any:
    """The value of a template (section 3); what it is made of is data and never looked at for braces again."""
    if isinstance(template, dict):
        return {key: render(value, names) for key, value in template.items()}
    if isinstance(template, list):
        return [render(value, names) for value in template]
    if not isinstance(template, str) or "{{" not in template:
        return template
    pieces: list[Any] = []
    rest = template
    while "{{" in rest:
        text, _, rest = rest.partition("{{")
        parser = Parser(rest)
        value = parser.level(0)(names)
        parser.expect("}}")
        rest = rest[parser.at :]
        pieces += [text, value] if text else [value]
    if len(pieces) == 1 and not rest:  # exactly one expression keeps the value's type; undefined is null
        return None if pieces[0] is UNDEFINED else pieces[0]
    return "".join(text_of(piece) for piece in pieces) + rest


def text_of(value: Any) -> str:
    if value is UNDEFINED:
        raise ExpressionError("undefined inside a text")
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Parser:
    """A parser of expressions by precedence; what it gives is a function of the names."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def take(self, *signs: str) -> str | None:
        """The next sign, if it is one of these."""
        token = TOKEN.match(self.text, self.at)
        if token is None or token["sign"] not in signs:
            return None
        self.at = token.end()
        return str(token["sign"])

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise ExpressionError(f"expected {sign} in {self.text[self.at :]!r}")

    def level(self, number: int) -> Evaluate:
        if number == len(LEVELS):
            return self.unary()
        left = self.level(number + 1)
        while sign := self.take(*LEVELS[number]):
            left = partial(binary, sign, left, self.level(number + 1))
        return left

    def unary(self) -> Evaluate:
        if self.take("!"):
            operand = self.unary()
            return lambda names: not truthy(operand(names))
        if self.take("-"):
            operand = self.unary()
            return lambda names: -number_of(operand(names))
        return self.path()

    def path(self) -> Evaluate:
        value = self.primary()
        while sign := self.take(".", "?.", "["):
            if sign == "[":
                key = self.level(0)
                self.expect("]")
            else:
                key = partial(constant, self.word())
            value = partial(step_into, value, key, sign == "?.")
        return lambda names: plain(value(names))

    def word(self) -> str:
        token = TOKEN.match(self.text, self.at)
        if token is None or token["name"] is None:
            raise ExpressionError(f"expected a name in {self.text[self.at :]!r}")
        self.at = token.end()
        return str(token["name"])

    def primary(self) -> Evaluate:
        if self.take("("):
            inner = self.level(0)
            self.expect(")")
            return inner
        token = TOKEN.match(self.text, self.at)
        if token is None or token["sign"]:
            raise ExpressionError(f"cannot read {self.text[self.at :]!r}")
        self.at = token.end()
        if token["number"]:
            return partial(constant, json.loads(token["number"]))
        if token["string"]:
            return partial(constant, re.sub(r"\\(.)", r"\1", token["string"][1:-1]))
        word = str(token["name"])
        if word in WORDS:
            return partial(constant, WORDS[word])
        return lambda names: names.get(word, UNDEFINED)


def constant(value: Any, _names: dict[str, Any]) -> Any:
    return value


CUT = object()  # where `?.` met nothing: the rest of its path is undefined


def plain(value: Any) -> Any:
    return UNDEFINED if value is CUT else value


def step_into(value: Evaluate, key: Evaluate, optional: bool, names: dict[str, Any]) -> Any:
    """A property: own ones and `length`, nothing else."""
    of = value(names)
    if of is CUT or (optional and (of is UNDEFINED or of is None)):
        return CUT
    name = key(names)
    if of is UNDEFINED or of is None:
        raise ExpressionError(f"property {name!r} of {'null' if of is None else 'undefined'}")
    if isinstance(of, dict):
        return of.get(str(name), UNDEFINED)
    if isinstance(of, (list, str)):
        if name == "length":
            return len(of) if isinstance(of, list) else len(of.encode("utf-16-le")) // 2
        if str(name).isdigit() and int(name) < len(of):
            return of[int(name)]
    return UNDEFINED


def binary(sign: str, left: Evaluate, right: Evaluate, names: dict[str, Any]) -> Any:
    a = left(names)
    if sign == "&&":
        return right(names) if truthy(a) else a
    if sign == "||":
        return a if truthy(a) else right(names)
    if sign == "??":
        return right(names) if a is None or a is UNDEFINED else a
    b = right(names)
    if sign in ("===", "!=="):
        scalars = not isinstance(a, (dict, list)) and not isinstance(b, (dict, list))
        equal = a is b or (scalars and isinstance(a, bool) == isinstance(b, bool) and a == b)
        return equal == (sign == "===")
    if not (isinstance(a, str) and isinstance(b, str)):
        a, b = number_of(a), number_of(b)
    return {">": a > b, "<": a < b, ">=": a >= b, "<=": a <= b}[sign]


def truthy(value: Any) -> bool:
    """JavaScript's truth: `undefined`, `null`, `false`, 0, NaN and the empty text are false; `[]` and `{}` are true."""
    if value is UNDEFINED or value is None or value == "" or value != value:  # noqa: PLR0124 - NaN
        return False
    return isinstance(value, (list, dict)) or bool(value)


def number_of(value: Any) -> float:
    """JavaScript's ToNumber, for values that JSON has."""
    if value is None or value is UNDEFINED:
        return 0 if value is None else math.nan
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, list):
        value = ",".join("" if item is None else text_of(item) for item in value)
    text = value.strip() if isinstance(value, str) else "object"
    return float(text or 0) if re.fullmatch(r"([+-]?\d+(\.\d*)?(e[+-]?\d+)?)?", text, re.IGNORECASE) else math.nan
