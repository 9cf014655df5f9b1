"""What the node types share about JSON values: dotted paths, one order over everything, checks and their errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from orchestrator_core import NodeError

__all__ = [
    "BAD_CONFIG",
    "BAD_INPUT",
    "MISSING",
    "UNSET",
    "Json",
    "at_least",
    "between",
    "check",
    "get_path",
    "has_template",
    "json_text",
    "kind",
    "list_of",
    "misuse",
    "object_of",
    "order_key",
    "path_of",
    "path_problem",
    "paths_problem",
    "remove_path",
    "set_path",
    "split_path",
    "unset",
]

Json = Any
T = TypeVar("T")

# The codes of failures that are the workflow's own mistake. Both are permanent.
BAD_INPUT: Final = "bad_input"  # what came in has the wrong shape
BAD_CONFIG: Final = "bad_config"  # a setting, once evaluated, makes no sense


class _Nothing:
    """A value that no JSON document can hold."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


MISSING: Final = _Nothing("MISSING")  # there is nothing at a path, which is not the same as null
UNSET: Final = _Nothing("UNSET")  # a setting was left out, which is not the same as a template that gave null


def unset() -> Any:
    """The factory of settings for which null is a value of its own."""
    return UNSET


def misuse(message: str, *, code: str = BAD_INPUT, data: Json = None) -> NodeError:
    """A failure that trying again cannot help."""
    return NodeError(message, code=code, retryable=False, data=data)


def kind(value: Json) -> str:
    """What a value is, as messages say it: ``a list``. The value itself stays out: it may be large, or secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object"


def list_of(given: Json, input: Json, *, node: str, setting: str = "items") -> list[Json]:
    """The list that a node works on: the setting where it is given, else the input.

    Raises:
        NodeError: It is no list.
    """
    value = input if given is UNSET else given
    if isinstance(value, list | tuple):
        return list(value)
    if given is UNSET:
        raise misuse(
            f"`{node}` works on a list, but its input is {kind(value)}: "
            f'set `{setting}` to the list, for example "{{{{ input.rows }}}}"'
        )
    raise misuse(f"`{node}`: `{setting}` gave {kind(value)}, not a list: check the expression", code=BAD_CONFIG)


def object_of(value: Json, *, what: str) -> dict[str, Json]:
    """The object that ``value`` is.

    Raises:
        NodeError: It is none; ``what`` says which value was meant.
    """
    if isinstance(value, dict):
        return value
    raise misuse(f"{what} must be an object, but is {kind(value)}")


def json_text(value: Json, *, sort: bool = False) -> str:
    """The JSON of a value as JavaScript writes it: no spaces, no escapes that are not needed."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort)


# --- dotted paths ----------------------------------------------------------------------------------------------------


def split_path(path: str) -> tuple[str, ...]:
    r"""``customer.address`` as its parts; ``\.`` is a dot that belongs to a name, ``\\`` a backslash.

    Raises:
        ValueError: The path or one of its parts is empty, or it ends in a lone backslash.
    """
    parts: list[str] = []
    part: list[str] = []
    characters = iter(path)
    for character in characters:
        if character == "\\":
            following = next(characters, None)
            if following is None:
                raise ValueError(f"path {path!r} ends in a lone backslash: write two for a backslash")
            part.append(following if following in ".\\" else "\\" + following)
        elif character == ".":
            parts.append("".join(part))
            part.clear()
        else:
            part.append(character)
    parts.append("".join(part))
    if not all(parts):
        raise ValueError(f"path {path!r} has an empty part: write names with single dots between them (customer.name)")
    return tuple(parts)


def _index(part: str, length: int) -> int | None:
    """The place in a list of ``length`` that a part of a path names, if it names one."""
    if part.isascii() and part.isdigit() and len(part) <= 10:
        index = int(part)
        return index if index < length else None
    return None


def path_of(path: str) -> tuple[str, ...]:
    """As :func:`split_path`, for a node that runs: a setting may have come from a template.

    Raises:
        NodeError: The path is malformed.
    """
    try:
        return split_path(path)
    except ValueError as error:
        raise misuse(str(error), code=BAD_CONFIG) from error


def get_path(value: Json, parts: Iterable[str]) -> Json:
    """What stands at a path, or :data:`MISSING`. Digits go into lists, from 0."""
    for part in parts:
        if isinstance(value, dict):
            if part not in value:
                return MISSING
            value = value[part]
        elif isinstance(value, list):
            index = _index(part, len(value))
            if index is None:
                return MISSING
            value = value[index]
        else:
            return MISSING
    return value


def set_path(base: Json, parts: tuple[str, ...], value: Json, *, path: str) -> Json:
    """A copy of ``base`` with ``value`` at a path; what is not on the way is shared, nothing is changed in place.

    Raises:
        NodeError: On the way stands something that is neither object, list nor null, or a list without that place.
    """
    if not parts:
        return value
    part, rest = parts[0], parts[1:]
    if base is None or base is MISSING:
        return {part: set_path(MISSING, rest, value, path=path)}
    if isinstance(base, dict):
        return {**base, part: set_path(base.get(part, MISSING), rest, value, path=path)}
    if isinstance(base, list):
        index = _index(part, len(base))
        if index is None:
            raise misuse(f"cannot set `{path}`: {part!r} is no place in a list of {len(base)} (places count from 0)")
        copy = list(base)
        copy[index] = set_path(copy[index], rest, value, path=path)
        return copy
    raise misuse(f"cannot set `{path}`: on the way to {part!r} stands {kind(base)}; set the place above it as a whole")


def remove_path(base: Json, parts: tuple[str, ...]) -> Json:
    """A copy of ``base`` without what stands at a path; ``base`` itself where nothing does."""
    part, rest = parts[0], parts[1:]
    if isinstance(base, dict) and part in base:
        if not rest:
            return {name: value for name, value in base.items() if name != part}
        return {**base, part: remove_path(base[part], rest)}
    if isinstance(base, list) and (index := _index(part, len(base))) is not None:
        if not rest:
            return base[:index] + base[index + 1 :]
        return [*base[:index], remove_path(base[index], rest), *base[index + 1 :]]
    return base


# --- one order over all values ---------------------------------------------------------------------------------------


def order_key(value: Json) -> tuple[Any, ...]:
    """A key that orders and compares any two JSON values: null, booleans, numbers, texts, lists, objects.

    Equal keys mean equal values: 1 and 1.0 are one number, ``true`` is no number, the order of an object's names
    does not count. Keys can be hashed. Texts go by code point.
    """
    if value is None or value is MISSING:
        return (0,)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, int | float):
        return (2, value)
    if isinstance(value, str):
        return (3, value)
    if isinstance(value, list | tuple):
        return (4, tuple(order_key(element) for element in value))
    return (5, tuple(sorted((name, order_key(element)) for name, element in value.items())))


# --- checks of settings ----------------------------------------------------------------------------------------------


def has_template(value: Json) -> bool:
    """Whether a setting still waits for its evaluation, so that nothing can be said about it yet."""
    return isinstance(value, str) and "{{" in value


def check(problem: Callable[[Any], str | None]) -> Callable[[Any, Any, Any], None]:
    """An attrs validator from a function that says what is wrong with a value, or None.

    Settings that were left out, and templates, pass.
    """

    def validate(_instance: Any, attribute: Any, value: Any) -> None:
        if value is None or value is UNSET or has_template(value):
            return
        message = problem(value)
        if message is not None:
            raise ValueError(f"`{attribute.name.removesuffix('_')}` {message}")

    return validate


def at_least(least: float, unit: str = "") -> Callable[[Any, Any, Any], None]:
    """Refuse numbers below ``least``."""
    return check(lambda value: f"must be at least {least:g}{unit}" if value < least else None)


def between(least: float, most: float, unit: str = "") -> Callable[[Any, Any, Any], None]:
    """Refuse numbers outside of ``least`` to ``most``."""
    return check(lambda value: None if least <= value <= most else f"must be {least:g} to {most:g}{unit}")


def path_problem(path: Any) -> str | None:
    """What is wrong with a dotted path, if anything."""
    if has_template(path):
        return None
    try:
        split_path(path)
    except ValueError as error:
        return f"holds a {error}"
    return None


def paths_problem(paths: Iterable[Any]) -> str | None:
    """What is wrong with the first bad one of several dotted paths, if anything."""
    return next((problem for path in paths if (problem := path_problem(path))), None)
