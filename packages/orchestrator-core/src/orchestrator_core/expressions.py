"""Expressions: templates in documents, what they refer to, and reading plain paths without leaving Python.

A string that holds ``{{ … }}`` is a template; the language inside is JavaScript expressions. Plain paths
(``input.rows[0].name``, ``nodes.price.output?.total``) and literals are read here, with the result JavaScript would
give; all others go to the sandbox, those of one node in one call. Nothing here evaluates code.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import attrs

from orchestrator_core.codec import MAX_DEPTH, child_place, dump_json
from orchestrator_core.javascript_names import INHERITED, LANGUAGE
from orchestrator_core.state import ABSENT, Scope
from orchestrator_core.types import Json

__all__ = [
    "ABSENT",
    "ROOTS",
    "Code",
    "ExpressionError",
    "Names",
    "NotNative",
    "Template",
    "compile_template",
    "is_template",
    "read",
    "text_of",
    "truthy",
]

# Every name that an expression may begin with.
ROOTS = ("input", "inputs", "payload", "nodes", "item", "index", "vars", "execution", "secrets")

# After one of these an expression has names of its own, which are not looked for.
_DECLARING = frozenset(["let", "const", "var", "function", "class", "catch"])
_NODE_FIELDS = ("output", "outputs", "status", "error")
_EXECUTION_FIELDS = ("id", "workflow")

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*|/\*.*?\*/)
  | (?P<name>[A-Za-z_$\u0080-\uffff][\w$]*)
  | (?P<number>0[xX][0-9a-fA-F_]+n?|0[oO][0-7_]+n?|0[bB][01_]+n?|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?n?)
  | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<mark>\?\.(?!\d)|\.\.\.|=>|[{}()\[\].,;:?~]|[-+*/%&|^!<>=]+)
    """,
    re.VERBOSE | re.DOTALL,
)
# How to write braces that are no template.
_BRACES = '{{ "{{" }}'
_INT = re.compile(r"0|[1-9]\d{0,14}")
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "null": None, "undefined": ABSENT}
# After one of these names a slash begins a regular expression, not a division.
_BEFORE_REGEX = frozenset(["return", "typeof", "in", "of", "instanceof", "new", "delete", "void", "case"])


class ExpressionError(Exception):
    """An expression gave an error; the node that holds it fails with the code ``expression``."""


class NotNative(Exception):  # noqa: N818 - a signal between two ways, not an error
    """The path turned out not to be plain: the sandbox has to evaluate it."""


Path = tuple[str, tuple[tuple[str | int, bool], ...]]

# What a plain path may be compared by with a literal; the first two are told apart by their name.
_COMPARING = {
    "===": operator.eq,
    "!==": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SAFE = 2**53 - 1  # the largest integer that JavaScript holds exactly


@attrs.frozen
class Code:
    """One expression.

    Attributes:
        source: The text between the braces.
        path: Root and steps of a plain path; a step is (key, optional).
        literal: The value where the expression is a literal, in a tuple of one.
        test: Path, operator and literal where it compares a plain path with one.
        roots: The names of :data:`ROOTS` that it may read.
        nodes: The ids after ``nodes``; ``None`` in it: one that is computed.
        own: Names that are parameters of functions inside it, and may hide a root.
        unknown: Names that nothing stands behind, unless a plugin brings a function of that name.
    """

    source: str
    path: Path | None
    literal: tuple[Any, ...] | None
    roots: frozenset[str]
    nodes: frozenset[str | None]
    place: str = "$"
    own: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    test: tuple[Path, str, Any] | None = None


@attrs.frozen(eq=False)
class Template:
    """A JSON value with expressions in it.

    Attributes:
        source: As it stands in the document.
        codes: Its expressions, in order.
        build: Makes the value of the results of the expressions (:data:`ABSENT` for undefined).
    """

    source: Json
    codes: tuple[Code, ...]
    build: Callable[[Sequence[Any]], Any]

    @property
    def constant(self) -> bool:
        """It holds no expressions."""
        return not self.codes


def is_template(value: Any) -> bool:
    """Whether a value is a text with braces."""
    return isinstance(value, str) and "{{" in value


def truthy(value: Any) -> bool:
    """JavaScript's truth: ``""``, 0, null and undefined are false, empty lists and objects true."""
    return not (
        value is None or value is ABSENT or value is False or value == "" or (value == 0 and value is not True)
    ) or (isinstance(value, list | dict))


# --- compiling --------------------------------------------------------------------------------------------------------


def compile_template(value: Json, *, place: str = "$", literal: Callable[[str], bool] = lambda _: False) -> Template:
    """Find the expressions in a JSON value.

    Args:
        value: Any JSON value; texts in it may be templates, keys never are.
        place: Where it stands, for errors.
        literal: Tells places whose texts are no templates.

    Raises:
        ExpressionError: Braces that do not close, or an empty expression; the text says where.
    """
    codes: list[Code] = []
    build = _compile(value, place, literal, codes)
    if build is None:
        return Template(value, (), lambda _: value)
    return Template(value, tuple(codes), lambda results: _null(build(results)))


def _null(value: Any) -> Any:
    return None if value is ABSENT else value


Build = Callable[[Sequence[Any]], Any]


def _compile(value: Json, place: str, literal: Callable[[str], bool], codes: list[Code]) -> Build | None:
    """A function that builds the value, or ``None`` where it is constant."""
    if literal(place):
        return None
    if isinstance(value, str):
        return _compile_text(value, place, codes) if "{{" in value else None
    if isinstance(value, list | tuple):
        parts = [_compile(item, child_place(place, number), literal, codes) for number, item in enumerate(value)]
        if not any(parts):
            return None
        return lambda results: [
            item if part is None else _null(part(results)) for part, item in zip(parts, value, strict=True)
        ]
    if isinstance(value, Mapping):
        entries = {key: _compile(item, child_place(place, key), literal, codes) for key, item in value.items()}
        if not any(entries.values()):
            return None
        return lambda results: {
            key: value[key] if part is None else _null(part(results)) for key, part in entries.items()
        }
    return None


def _compile_text(text: str, place: str, codes: list[Code]) -> Build:
    pieces: list[str | int] = []
    position = 0
    while True:
        begin = text.find("{{", position)
        if begin < 0:
            pieces.append(text[position:])
            break
        pieces.append(text[position:begin])
        tokens, position = _scan(text, begin + 2, place)
        source = text[begin + 2 : position - 2].strip()
        if not source:
            raise ExpressionError(f"{place}: an expression is empty: write something between {{{{ and }}}}")
        pieces.append(len(codes))
        codes.append(_analyse(source, tokens, place))
    kept = [piece for piece in pieces if piece != ""]
    if len(kept) == 1 and isinstance(kept[0], int):
        number = kept[0]
        return lambda results: results[number]
    return lambda results: "".join(
        piece if isinstance(piece, str) else text_of(results[piece], codes[piece].source) for piece in kept
    )


Token = tuple[str, str]


def _scan(text: str, position: int, place: str) -> tuple[list[Token], int]:
    """The tokens up to the closing braces, and the position after them."""
    tokens: list[Token] = []
    depth = 0
    while position < len(text):
        if depth == 0 and text.startswith("}}", position):
            return tokens, position + 2
        character = text[position]
        if character == "`":
            end, inner = _scan_backticks(text, position, place)
            tokens += [("text", text[position:end]), *inner]
            position = end
            continue
        if character == "/" and text[position : position + 2] not in {"//", "/*"} and _regex_may_begin(tokens):
            position = _scan_regex(text, position, place)
            tokens.append(("regex", ""))
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"{place}: {character!r} cannot stand in an expression (character {position + 1})")
        if match.lastgroup == "mark":
            depth += (match.group() in "{[(") - (match.group() in "}])")
            if depth < 0:
                raise ExpressionError(f"{place}: {character!r} closes nothing (character {position + 1})")
        if match.lastgroup != "space":
            tokens.append((match.lastgroup or "", match.group()))
        position = match.end()
    raise ExpressionError(f"{place}: {{{{ is never closed: write }}}}, or {_BRACES} for the braces themselves")


def _regex_may_begin(tokens: list[Token]) -> bool:
    if not tokens:
        return True
    kind, token = tokens[-1]
    if kind == "mark":
        return token not in {")", "]", "}"}
    return kind == "name" and token in _BEFORE_REGEX


def _scan_regex(text: str, position: int, place: str) -> int:
    match = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*").match(text, position)
    if match is None:
        raise ExpressionError(f"{place}: a regular expression is never closed (character {position + 1})")
    return match.end()


def _scan_backticks(text: str, position: int, place: str, depth: int = 0) -> tuple[int, list[Token]]:
    tokens: list[Token] = []
    if depth > MAX_DEPTH:
        raise ExpressionError(f"{place}: texts in backticks are nested deeper than {MAX_DEPTH}")
    position += 1
    while position < len(text):
        if text[position] == "\\":
            position += 2
        elif text[position] == "`":
            return position + 1, tokens
        elif text.startswith("${", position):
            inner, position = _scan_until_brace(text, position + 2, place, depth)
            tokens += inner
        else:
            position += 1
    raise ExpressionError(f"{place}: a text in backticks is never closed")


def _scan_until_brace(text: str, position: int, place: str, nested: int) -> tuple[list[Token], int]:
    depth = 0
    tokens: list[Token] = [("mark", "(")]
    while position < len(text):
        if text[position] == "}" and depth == 0:
            return [*tokens, ("mark", ")")], position + 1
        if text[position] == "`":
            end, inner = _scan_backticks(text, position, place, nested + 1)
            tokens += inner
            position = end
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"{place}: {text[position]!r} cannot stand in an expression")
        depth += (match.group() == "{") - (match.group() == "}")
        if match.lastgroup != "space":
            tokens.append((match.lastgroup or "", match.group()))
        position = match.end()
    raise ExpressionError(f"{place}: ${{ is never closed")


def _analyse(source: str, tokens: list[Token], place: str) -> Code:
    if len(tokens) == 1 and (literal := _literal(*tokens[0])) is not None:
        return Code(source, None, literal, frozenset(), frozenset(), place)
    path = _plain_path(tokens)
    roots: set[str] = set()
    nodes: set[str | None] = set()
    for number, (kind, word) in enumerate(tokens):
        if kind != "name" or word not in ROOTS:
            continue
        before = tokens[number - 1][1] if number else ""
        after = tokens[number + 1][1] if number + 1 < len(tokens) else ""
        if before in {".", "?."} or (before in {"{", ","} and after == ":"):
            continue  # a property's name
        roots.add(word)
        if word == "nodes":
            nodes.add(_node_after(tokens[number + 1 : number + 4]))
    if path is not None and path[0] == "nodes" and path[1]:
        nodes = {str(path[1][0][0])}
    own = frozenset(_parameters(tokens))
    unknown = () if path is not None else tuple(dict.fromkeys(_unknown(tokens, own)))
    test = _comparison(tokens)
    return Code(source, path, None, frozenset(roots), frozenset(nodes), place, own, unknown, test)


def _comparison(tokens: list[Token]) -> tuple[Path, str, Any] | None:
    """``input.total > 100`` and the like: a plain path, an operator, a literal."""
    if len(tokens) < 3 or tokens[-2][1] not in _COMPARING:
        return None
    path, literal = _plain_path(tokens[:-2]), _literal(*tokens[-1])
    if path is None or literal is None or path[0] == "secrets":
        return None
    return path, tokens[-2][1], literal[0]


def _unknown(tokens: list[Token], own: frozenset[str]) -> Iterator[str]:
    """Names that are read and that nothing stands behind. What could be the name of a property is let pass."""
    words = [word for _, word in tokens]
    if not _DECLARING.isdisjoint(words) or (")", "{") in pairwise(words):  # functions with parameters and names inside
        return
    for number, (kind, word) in enumerate(tokens):
        if kind != "name" or word in own or word in ROOTS or word in LANGUAGE:
            continue
        before = tokens[number - 1][1] if number else ""
        after = tokens[number + 1][1] if number + 1 < len(tokens) else ""
        if before in {".", "?."} or after == ":" or (before in {"{", ","} and after == "("):
            continue
        yield word


def _parameters(tokens: list[Token]) -> Iterator[str]:
    """The names before ``=>``: ``x => …`` and ``({a, b}, c) => …``. Linear: what was told once is jumped over."""
    opened: list[int] = []
    begins: dict[int, int] = {}  # a closing parenthesis -> the one it closes
    told: set[int] = set()
    for number, (kind, word) in enumerate(tokens):
        if kind != "mark":
            continue
        if word == "(":
            opened.append(number)
        elif word == ")" and opened:
            begins[number] = opened.pop()
        elif word == "=>" and number:
            last = number - 1
            if last not in begins:
                yield tokens[last][1]
                continue
            at = last
            while at > begins[last]:
                if at in told:
                    at = begins[at]
                elif tokens[at][0] == "name":
                    yield tokens[at][1]
                at -= 1
            told.add(last)


def _node_after(tokens: list[Token]) -> str | None:
    if len(tokens) >= 2 and tokens[0][1] in {".", "?."} and tokens[1][0] == "name":
        return tokens[1][1]
    if len(tokens) == 3 and tokens[0][1] == "[" and tokens[1][0] == "text" and tokens[2][1] == "]":
        value = _literal(*tokens[1])
        return value[0] if value else None
    return None


def _literal(kind: str, token: str) -> tuple[Any] | None:
    if kind == "name" and token in _WORDS:
        return (_WORDS[token],)
    if kind == "number" and (_INT.fullmatch(token) or re.fullmatch(r"(?:0|[1-9]\d{0,14})\.\d+", token)):
        return (int(token) if token.isdecimal() else float(token),)
    if kind == "text" and token[0] != "`":
        return _text_literal(token)
    return None


def _text_literal(token: str) -> tuple[Any] | None:
    body = token[1:-1]
    if "\\" not in body:
        return (body,)
    if token[0] == '"' and re.fullmatch(r'(?:[^\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*', body) and "\\u" not in body:
        return (json.loads(token),)
    return None  # rarer escapes are the sandbox's


def _plain_path(tokens: list[Token]) -> tuple[str, tuple[tuple[str | int, bool], ...]] | None:
    """``root.name["key"][3]?.name``, or ``None``."""
    if not tokens or tokens[0][0] != "name" or tokens[0][1] not in ROOTS:
        return None
    steps: list[tuple[str | int, bool]] = []
    position = 1
    while position < len(tokens):
        optional = tokens[position][1] == "?."
        if optional:
            position += 1
        if position < len(tokens) and tokens[position][1] == "[" and tokens[position][0] == "mark":
            if position + 2 >= len(tokens) or tokens[position + 2][1] != "]":
                return None
            key = _literal(*tokens[position + 1])
            if key is None or isinstance(key[0], bool) or not isinstance(key[0], str | int):
                return None
            steps.append((key[0], optional))
            position += 3
            continue
        if not optional:
            if tokens[position] != ("mark", "."):
                return None
            position += 1
        if position >= len(tokens) or tokens[position][0] != "name":
            return None
        steps.append((tokens[position][1], optional))
        position += 1
    return tokens[0][1], tuple(steps)


# --- reading ------------------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Names:
    """What the names of an expression stand for; chance and time in it, too.

    Attributes:
        scope: What it sees of the graph.
        payload: What started the execution.
        vars: The variables.
        execution: What it is told of the execution.
        secrets: The secrets, where it may see them.
        seed: The seed of the whole execution.
        place: The path and what is evaluated there: together with the seed it decides what is random.
        now: What its clock shows, in seconds since 1970.
    """

    scope: Scope
    payload: Json
    vars: Mapping[str, Json]
    execution: Mapping[str, Json]
    secrets: Mapping[str, str] | None = None
    seed: int = 0
    place: str = ""
    now: float = 0.0

    def root(self, name: str) -> Any:
        """The value of a name of :data:`ROOTS` other than ``nodes``."""
        scope = self.scope
        if name == "input":
            return scope.input
        if name == "payload":
            return self.payload
        if name == "inputs":
            return scope.inputs
        if name == "item":
            return scope.item
        if name == "index":
            return scope.index
        if name == "vars":
            return self.vars
        if name == "execution":
            return self.execution
        if name == "secrets":
            return self.secrets if self.secrets is not None else {}
        raise KeyError(name)

    def node(self, name: str) -> Any:
        """What ``nodes.<name>`` is, as an object without what is undefined."""
        view = self.scope.node(name)
        if view is None:
            return ABSENT
        shown: dict[str, Any] = {"outputs": view.outputs, "status": str(view.status), "error": view.error}
        if view.output is not ABSENT:
            shown["output"] = view.output
        return shown

    def data(self, codes: Sequence[Code]) -> tuple[dict[str, Json], list[str]]:
        """The JSON that some expressions need, and the roots among theirs that are undefined."""
        roots = {root for code in codes for root in code.roots} - {"secrets"}
        result: dict[str, Json] = {}
        undefined: list[str] = []
        for root in sorted(roots - {"nodes"}):
            value = self.root(root)
            if value is ABSENT:
                undefined.append(root)
            else:
                result[root] = value
        if "nodes" in roots:
            wanted = {name for code in codes for name in code.nodes}
            names = self.scope.node_names() if None in wanted else sorted(name for name in wanted if name is not None)
            result["nodes"] = {name: shown for name in names if (shown := self.node(name)) is not ABSENT}
        return result, undefined


def read(code: Code, names: Names) -> Any:
    """The value of a plain path, a literal, or a comparison of the two; :data:`ABSENT` for undefined.

    Raises:
        NotNative: It is none of them, or the path meets something inherited.
        ExpressionError: A property of null or undefined.
    """
    if code.literal is not None:
        return code.literal[0]
    if code.test is not None:
        path, sign, literal = code.test
        return _compared(_follow(path, code.source, names), sign, literal)
    if code.path is None:
        raise NotNative
    return _follow(code.path, code.source, names)


def _follow(path: Path, source: str, names: Names) -> Any:
    root, steps = path
    position = 0
    if root == "nodes":
        if not steps:
            raise NotNative
        value = names.node(str(steps[0][0]))
        position = 1
    else:
        value = names.root(root)
        if root == "secrets" and steps and steps[0][0] not in value:  # what would be sent without it is nobody's wish
            raise ExpressionError(f"{{{{ {source} }}}}: there is no secret {steps[0][0]!r} here")
    for number in range(position, len(steps)):
        key, optional = steps[number]
        if value is None or value is ABSENT:
            if optional:
                return ABSENT
            what = "null" if value is None else "undefined"
            where = root + "".join(child_place("", step) for step, _ in steps[:number])
            raise ExpressionError(
                f"{{{{ {source} }}}}: {where} is {what}: it has no property {key!r} (use ?. if it may be missing)"
            )
        value = _property(value, key)
    return value


def _compared(value: Any, sign: str, literal: Any) -> bool:
    """A comparison, where JavaScript's rules need no conversion of either side.

    Raises:
        NotNative: They do, or a number is one that JavaScript cannot hold.
    """
    numbers = _is_number(value) and _is_number(literal)
    if numbers and isinstance(value, int) and abs(value) > _SAFE:
        raise NotNative
    if sign in {"===", "!=="}:
        same = value == literal if numbers or type(value) is type(literal) else False
        return same is (sign == "===")
    if not numbers:
        raise NotNative
    return bool(_COMPARING[sign](value, literal))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _property(value: Any, key: str | int) -> Any:
    if isinstance(value, Mapping):
        name = str(key)
        if name in value:
            return value[name]
    elif isinstance(value, list | tuple | str):
        if key == "length":
            return len(value) if not isinstance(value, str) else len(value.encode("utf-16-le", "surrogatepass")) // 2
        number = key if isinstance(key, int) else int(key) if _INT.fullmatch(key) else -1
        if isinstance(value, str) and number >= 0:
            return _unit(value, number)
        if 0 <= number < len(value):
            return value[number]
    if key in INHERITED:
        raise NotNative
    return ABSENT


def _unit(value: str, number: int) -> Any:
    """One UTF-16 code unit of a text, as JavaScript counts."""
    if value.isascii():
        return value[number] if number < len(value) else ABSENT
    units = value.encode("utf-16-le", "surrogatepass")
    unit = units[2 * number : 2 * number + 2]
    character = unit.decode("utf-16-le", "surrogatepass") if unit else ABSENT
    if isinstance(character, str) and "\ud800" <= character <= "\udfff":
        raise NotNative  # half of a pair: what it is good for depends on what is done with it
    return character


def text_of(value: Any, source: str = "") -> str:
    """A value inside a text: as JavaScript writes it, lists and objects as JSON.

    Raises:
        ExpressionError: It is undefined.
    """
    if isinstance(value, str):
        return value
    if value is ABSENT:
        raise ExpressionError(f"{{{{ {source} }}}} is undefined inside a text: give a default with ?? ''")
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return number_text(value)
    return dump_json(value)


def number_text(value: float) -> str:
    """A number as JavaScript writes it (ECMA-262, Number::toString)."""
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    mantissa, _, exponent = repr(value).partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len((whole + fraction).lstrip("0")))
    digits = digits.rstrip("0") or "0"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if 0 < point <= 21:
        return (
            f"{sign}{digits[:point]}.{digits[point:]}" if len(digits) > point else f"{sign}{digits.ljust(point, '0')}"
        )
    power = point - 1
    shown = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{sign}{shown}e{'+' if power >= 0 else '-'}{abs(power)}"


def field_fault(code: Code) -> str | None:
    """What is wrong with the names after ``nodes.<id>`` or ``execution`` in a plain path, where only a few stand."""
    root, steps = code.path if code.path is not None else ("", ())
    if root == "nodes" and len(steps) > 1 and steps[1][0] not in _NODE_FIELDS:
        return f"a node has no {steps[1][0]!r}: write nodes.{steps[0][0]}.output, .outputs, .status or .error"
    if root == "execution" and steps and steps[0][0] not in _EXECUTION_FIELDS:
        return f"an execution has no {steps[0][0]!r}: it has {' and '.join(_EXECUTION_FIELDS)}"
    return None


def condition_fault(value: Json) -> str | None:
    """What is wrong with a value as a condition: a text that is not one expression is true, whatever it says."""
    if isinstance(value, str) and not is_expression(value):
        return "is a text, and so always true: write {{ … }} around the whole condition"
    return None


def is_expression(text: str) -> bool:
    """Whether a text is exactly one expression, whose value keeps its type."""
    stripped = text.strip()
    if stripped != text or not text.startswith("{{"):
        return False
    try:
        return _scan(text, 2, "$")[1] == len(text)
    except ExpressionError:
        return True  # its own fault says more


def references(template: Template) -> Iterator[tuple[Code, str, str | None]]:
    """Every root (and node id) that a template refers to."""
    for code in template.codes:
        for root in sorted(code.roots):
            if root == "nodes":
                for name in code.nodes:
                    yield code, root, name
            else:
                yield code, root, None
