"""JSON in and out, strictly; data classes to JSON, back, and to JSON Schema.

The data classes know nothing of the wire: everything about it stands here. Reading is strict (RFC 8259 as I-JSON,
RFC 7493, has it): duplicate keys, ``NaN``, lone surrogates and nesting deeper than :data:`MAX_DEPTH` are refused.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum, StrEnum
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import cattrs

from orchestrator_core.errors import DocumentError, Fault
from orchestrator_core.spelling import nearest
from orchestrator_core.types import Duration, Json

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "check_json",
    "child_place",
    "copy_json",
    "dump_json",
    "explain_json",
    "faults_of",
    "format_duration",
    "format_time",
    "make_converter",
    "parse_duration",
    "parse_json",
    "parse_time",
    "schema_of",
    "unstructure",
    "wire_name",
]

MAX_DEPTH = 64
MAX_VALUES = 2_000_000


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_SCALARS = (str, int, float, bool, NoneType)
# Nothing can be wrong with these.
_PLAIN = frozenset({bool, NoneType})
_MAX_INT = 10**1000


# --- times and durations ----------------------------------------------------------------------------------------------


def parse_duration(value: Any) -> Duration:
    """Seconds from a number or from text such as ``15m``, ``1h30m``, ``7d``, ``250ms``.

    Raises:
        ValueError: It is neither, or negative.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{value} is no duration: it must be 0 or more seconds")
        return Duration(float(value))
    if isinstance(value, str) and _DURATION.fullmatch(value):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(value))
        if seconds < float("inf"):
            return Duration(seconds)
    shown = json.dumps(value) if isinstance(value, str | bool) or value is None else value
    raise ValueError(f'{shown} is no duration: give seconds as a number, or text such as "15m", "1h30m", "7d"')


def format_duration(seconds: float) -> str:
    """A duration for people: ``850 ms``, ``3.2 s``, ``1 h 5 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


@functools.lru_cache(maxsize=256)  # a node's times are those of its attempts
def format_time(seconds: float | None) -> str | None:
    """ISO 8601, UTC, microseconds, from seconds since 1970."""
    if seconds is None:
        return None
    fraction, whole = math.modf(seconds)
    micros = round(fraction * 1e6)
    if not 0 <= micros < 1_000_000:  # before 1970, or rounded up
        whole, micros = whole + micros // 1_000_000, micros % 1_000_000
    return f"{_second(whole)}.{micros:06d}Z"


@functools.lru_cache(maxsize=64)
def _second(whole: float) -> str:
    return datetime.fromtimestamp(whole, UTC).isoformat(timespec="seconds")[:19]  # without the offset


def parse_time(text: str) -> float:
    """Seconds since 1970 from ISO 8601; without an offset it is UTC.

    Raises:
        ValueError: It is no such time.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# --- JSON ---------------------------------------------------------------------------------------------------------------


def child_place(place: str, key: str | int) -> str:
    """The place of a part: ``$.nodes[2].config``; keys that are no identifiers stand in brackets."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    return f"{place}.{key}" if _IDENTIFIER.fullmatch(key) else f"{place}[{json.dumps(key)}]"


def check_json(value: Any, place: str = "$") -> Fault | None:
    """The first thing in a Python value that JSON cannot hold, or ``None``.

    Also refused: nesting deeper than :data:`MAX_DEPTH`, more than :data:`MAX_VALUES` values, and whole numbers too long
    to be written as text.
    """
    fault = _check(value, 0, [MAX_VALUES])
    return None if fault is None else attrs.evolve(fault, place=place + fault.place)


def _check(value: Any, depth: int, left: list[int]) -> Fault | None:
    """A fault's place is made on the way back: there hardly ever is one."""
    kind = type(value)
    if kind is str:
        # Most texts are ASCII, and to see that takes a tenth of the time.
        if value.isascii() or not _SURROGATE.search(value):
            return None
        return Fault("text holds half of a surrogate pair, which is no character", "")
    if kind is bool or value is None:
        return None
    if kind is int:
        return Fault("a whole number this long is not JSON for anybody else", "") if abs(value) >= _MAX_INT else None
    if kind is float:
        return None if value - value == 0 else Fault(f"{value} is not JSON: use null or a text", "")
    if kind is list or kind is tuple or kind is dict:
        if depth >= MAX_DEPTH:
            return Fault(f"nested deeper than {MAX_DEPTH}", "")
        left[0] -= len(value)
        if left[0] < 0:
            return Fault(f"holds more than {MAX_VALUES:,} values: hand large data on as blobs", "")
    if kind is list or kind is tuple:
        for index, item in enumerate(value):
            if type(item) not in _PLAIN and (fault := _check(item, depth + 1, left)):
                return _inside(index, fault)
        return None
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return Fault(f"key {key!r} is a {type(key).__name__}: keys are texts", "")
            if not key.isascii() and _SURROGATE.search(key):
                return Fault("a key holds half of a surrogate pair, which is no character", "")
            if type(item) not in _PLAIN and (fault := _check(item, depth + 1, left)):
                return _inside(key, fault)
        return None
    hint = (
        "use a list" if isinstance(value, set | frozenset) else "return dicts, lists, texts, numbers, booleans or None"
    )
    return Fault(f"a {kind.__name__} is not JSON: {hint}", "")


def _inside(key: str | int, fault: Fault) -> Fault:
    return attrs.evolve(fault, place=child_place("", key) + fault.place)


def copy_json(value: Any) -> Any:
    """A copy that shares no list and no object with the original (tuples become lists)."""
    kind = type(value)
    if kind is dict:
        return {key: item if type(item) in _SCALARS else copy_json(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [item if type(item) in _SCALARS else copy_json(item) for item in value]
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key!r} stands twice in one object: remove one")
            seen.add(key)
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON: use null or a text")


def parse_json(text: str | bytes) -> Json:
    """Read JSON strictly.

    Raises:
        DocumentError: It is not JSON; the fault has the line where that is known.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        _check_nesting(text)
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        what, position = explain_json(error)
        column = position - error.doc.rfind("\n", 0, position)
        line = error.doc.count("\n", 0, position) + 1
        raise DocumentError([Fault(f"not JSON: {what} (column {column})", line=line)]) from None
    except UnicodeDecodeError as error:
        raise DocumentError([Fault(f"not UTF-8: byte {error.start} is {error.object[error.start]:#04x}")]) from None
    except ValueError as error:
        digits = "set_int_max_str_digits" in str(error)  # Python's own words: they help nobody here
        raise DocumentError([Fault("a number has too many digits" if digits else str(error))]) from None
    if fault := check_json(value):
        raise DocumentError([fault])
    return value


_JSON_SPACE = " \t\r\n"
_JSON_FAULTS = {
    "Expecting ',' delimiter": "a comma is missing before this, or what is open is closed wrongly",
    "Expecting ':' delimiter": "a colon is missing before this",
    "Expecting value": "this is no value",
    "Extra data": "something follows the end of the value: remove it",
    "Invalid \\escape": "a \\ begins an escape: write \\\\ for a \\ itself",
}
_JSON_WORD = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


def explain_json(error: json.JSONDecodeError) -> tuple[str, int]:
    """What is wrong with a text that is no JSON, with what to do where that can be told, and at which character."""
    text, at = error.doc, error.pos
    while at < len(text) and text[at] in _JSON_SPACE:
        at += 1
    here = text[at : at + 1]
    before = len(text[:at].rstrip(_JSON_SPACE)) - 1
    # Newer Pythons point at the comma itself, older ones at what follows it.
    after = text[at + 1 :].lstrip(_JSON_SPACE)[:1] if here == "," else here
    comma = at if here == "," else before
    if after in {"}", "]"} and comma >= 0 and text[comma] == ",":
        return f"nothing follows the comma before {after}: remove the comma", comma
    if not here:
        return f"the text ends too soon: {error.msg[:1].lower()}{error.msg[1:]}", at
    if here in "'‘’“”`":  # noqa: RUF001 - quotes that word processors write
        return f'{here} is no quote in JSON: texts and keys need double quotes (")', at
    if here == "#" or text[at : at + 2] in {"//", "/*"}:
        return "JSON has no comments: remove it (YAML has them)", at
    word = _JSON_WORD.match(text, at)
    if word is not None and error.msg.startswith("Expecting"):
        meant = {"True": "true", "False": "false", "None": "null", "undefined": "null"}.get(word.group())
        if not error.msg.endswith("delimiter"):
            quoteless = f"{word.group()[:40]!r} has no quotes: texts and keys need double quotes"
            return f"JSON writes {meant}, not {word.group()}" if meant else quoteless, at
    if error.msg.startswith("Invalid control character"):
        return "a text ends on the line on which it begins: close it, or write \\n for a line break", error.pos
    return _JSON_FAULTS.get(error.msg, error.msg), at


def _check_nesting(text: str) -> None:
    """Refuse deep nesting before the parser recurses: brackets outside strings, counted."""
    depth = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[\[{]|[\]}]', text, re.DOTALL):
        character = match.group()[0]
        if character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} (character {match.start()})")
        elif character in "]}":
            depth -= 1


def dump_json(value: Json, *, indent: int | None = None) -> str:
    """Write JSON: UTF-8 text, never ``NaN``; without ``indent`` on one line."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)


# --- data classes -------------------------------------------------------------------------------------------------------


def _strict(kind: type, words: str) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            hint = _in_quotes(value) if kind is str else ""
            raise ValueError(f"must be {words}, not {_kind_of(value)}{hint}")
        return value

    return structure


def _in_quotes(value: Any) -> str:
    """What to do about a boolean or a number where a text was wanted: YAML reads `true` and `7` as such."""
    if isinstance(value, bool) or (isinstance(value, int | float) and abs(value) < _MAX_INT):
        return f': write "{json.dumps(value)}" in quotes'
    return ""


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a list" if isinstance(value, list | tuple) else "an object"


def _pass(value: Any) -> bool:  # noqa: ARG001 - the default of `make_converter`'s parameter
    return False


def wire_name(name: str) -> str:
    """`from_` and `for_` are written `from` and `for`: Python keeps those words for itself."""
    return name.removesuffix("_")


def make_converter(*, accept: Callable[[Any], bool] = _pass) -> cattrs.Converter:
    """A converter between JSON and attrs classes that is strict about types and keys and gathers every fault.

    Args:
        accept: Values for which no type is asked (templates, when a document is checked before it runs).
    """
    converter = (_Accepting if accept is not _pass else cattrs.Converter)(
        forbid_extra_keys=True, detailed_validation=True
    )
    if isinstance(converter, _Accepting):
        converter.accept = accept
    for kind, words in ((str, "a text"), (int, "a whole number"), (float, "a number"), (bool, "true or false")):
        converter.register_structure_hook(kind, _strict(kind, words))
    # A hook of a class is one of its subclasses, too, and counts more than a question: `str` would take these.
    converter.register_structure_hook(StrEnum, _structure_enum)
    converter.register_structure_hook_func(lambda t: t is Duration, lambda value, _: parse_duration(value))
    converter.register_structure_hook_func(_is_any, lambda value, _: value)
    converter.register_structure_hook_func(_is_literal, _structure_literal)
    converter.register_structure_hook_func(_is_enum, _structure_enum)
    converter.register_structure_hook_factory(_is_union, lambda t: _union_hook(t, converter))
    converter.register_structure_hook_factory(_is_sequence, lambda t: _sequence_hook(t, converter))
    converter.register_structure_hook_factory(_is_mapping, lambda t: _mapping_hook(t, converter))
    converter.register_structure_hook_factory(attrs.has, lambda t: _class_hook(t, converter))
    return converter


class _Accepting(cattrs.Converter):
    """A converter that takes some values as they are, wherever they stand. Our hooks all ask it for those inside."""

    __slots__ = ("accept",)

    accept: Callable[[Any], bool]

    def get_structure_hook(self, type: Any, cache_result: bool = True) -> Any:
        hook = super().get_structure_hook(type, cache_result)
        return lambda value, kind: value if self.accept(value) else hook(value, kind)

    def holds_accepted(self, value: Any) -> bool:
        """Whether such a value is this one, or stands in it."""
        if isinstance(value, Mapping):
            return any(map(self.holds_accepted, value.values()))
        return any(map(self.holds_accepted, value)) if isinstance(value, list | tuple) else self.accept(value)


_ANY: object = Any
_LITERAL: object = Literal


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is _LITERAL


def _is_any(kind: object) -> bool:
    return kind is _ANY


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in {Union, UnionType}


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) in {list, tuple, Sequence, frozenset, set} or kind in {list, tuple}


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) in {dict, Mapping} or kind in {dict, Mapping}


def _structure_literal(value: Any, kind: Any) -> Any:
    for choice in get_args(kind):
        if type(choice) is type(value) and choice == value:
            return value
    choices = ", ".join(map(str, get_args(kind)))
    hint = _in_quotes(value) if _kind_of(value) in get_args(kind) or str(value) in get_args(kind) else ""
    raise ValueError(f"must be one of {choices}, not {_kind_of(value)}{hint}")


def _structure_enum(value: Any, kind: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(str(e.value) for e in kind)}, not {_kind_of(value)}") from None


def _union_hook(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """The first member that fits; the fault is that of the only class where the value is an object."""
    members = [member for member in get_args(kind) if member is not NoneType]
    optional = len(members) != len(get_args(kind))

    def structure(value: Any, _: Any) -> Any:
        if value is None and optional:
            return None
        failures: list[Exception] = []
        for member in members:
            try:
                return converter.get_structure_hook(member)(value, member)
            except Exception as error:  # noqa: BLE001 - the hooks of plugins' types raise what they like
                failures.append(error)
        objects = [f for m, f in zip(members, failures, strict=True) if attrs.has(m) and isinstance(value, dict)]
        if len(objects) == 1 or len(failures) == 1:
            raise (objects or failures)[0]
        wanted = [_plain_text(f) for f in failures if not isinstance(f, ExceptionGroup)]
        given = f", not {_kind_of(value)}"
        parts = [text.partition(given) for text in wanted]
        texts = " or ".join(dict.fromkeys(before for before, _, _ in parts))
        said = given + next((hint for _, _, hint in parts if hint), "") if all(found for _, found, _ in parts) else ""
        raise ValueError(f"must be {texts}{said}" if texts else f"fits none of {len(members)} forms")

    return structure


def _plain_text(error: Exception) -> str:
    return str(error).removeprefix("must be ") if len(str(error)) < 200 else type(error).__name__


def _sequence_hook(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    arguments = [a for a in get_args(kind) if a is not ...]
    member = arguments[0] if arguments else Any
    make: Any = {list: list, set: set, frozenset: frozenset}.get(get_origin(kind) or kind, tuple)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be a list, not {_kind_of(value)}")  # noqa: TRY004 - all faults of a value are ValueErrors
        hook = converter.get_structure_hook(member)
        return make(_each(((index, index, item) for index, item in enumerate(value)), hook, member))

    return structure


def _mapping_hook(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    arguments = get_args(kind)
    member = arguments[1] if arguments else Any

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, not {_kind_of(value)}")  # noqa: TRY004 - as above
        hook = converter.get_structure_hook(member)
        values = _each(((key, key, item) for key, item in value.items()), hook, member)
        return dict(zip(value, values, strict=True))

    return structure


@attrs.frozen
class _At:
    """The note that says at which key of its parent an error stands."""

    key: str | int


def _each(items: Any, hook: Any, member: Any) -> list[Any]:
    results, errors = [], []
    for key, _, item in items:
        try:
            results.append(hook(item, member))
        except Exception as error:  # noqa: BLE001 - gathered, with its place
            errors.append(_noted(error, key))
    if errors:
        raise ExceptionGroup("", errors)
    return results


def _noted(error: Exception, key: str | int) -> Exception:
    # A fresh wrapper: one exception object may stand at several places (cached validators raise the same one).
    wrapped = _Placed(error, _At(key))
    wrapped.__cause__ = error
    return wrapped


class _Placed(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, error: Exception, at: _At) -> None:
        super().__init__(str(error))
        self.error = error
        self.at = at


def _of_condition(error: Exception, value: Any) -> Exception:
    """A condition in quotes alone would be a text, which is always true."""
    quoted = _in_quotes(value)
    template = f': write "{{{{ {json.dumps(value)} }}}}"'
    return ValueError(str(error).replace(quoted, template)) if quoted else error


# The key of an object, for reading: (argument, hook, type, required).
_Field = tuple[str, Any, Any, bool]


def _fields_of(kind: Any, converter: cattrs.Converter) -> dict[str, _Field]:
    hints = get_type_hints(kind)
    fields: dict[str, _Field] = {}
    for own in attrs.fields(kind):
        if own.init and not own.name.startswith("_"):
            hint = hints[own.name]
            required = own.default is attrs.NOTHING
            fields[wire_name(own.name)] = (own.alias or own.name, converter.get_structure_hook(hint), hint, required)
    return fields


def _as_object(value: Any, fields: Mapping[str, _Field]) -> str:
    """How a value can be written that stands where an object should; for a number, in the first field that takes it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        for name, (_argument, hook, hint, _required) in fields.items():
            if not any(required for other, (_, _, _, required) in fields.items() if other != name):
                with contextlib.suppress(Exception):
                    hook(value, hint)
                    return f": write {{{name}: {dump_json(value)}}}"
    return f": it has the keys {', '.join(fields)}" if 0 < len(fields) <= _MAX_SHOWN else ""


def _class_hook(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    # Worked out late: a class may name another that stands after it.
    fields: dict[str, _Field] = {}

    def structure(value: Any, _: Any) -> Any:
        if not fields:
            fields.update(_fields_of(kind, converter))
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, not {_kind_of(value)}{_as_object(value, fields)}")  # noqa: TRY004 - as above
        arguments: dict[str, Any] = {}
        errors: list[Exception] = []
        meant: set[str] = set()
        for name, item in value.items():
            field = fields.get(name)
            if field is None:
                errors.append(_noted(ValueError(_unknown(name, list(fields))), name))
                meant.add(_MEANT.get(name, ""))
                continue
            try:
                arguments[field[0]] = field[1](item, field[2])
            except Exception as error:  # noqa: BLE001 - gathered, with its place
                errors.append(_noted(_of_condition(error, item) if name == "when" else error, name))
        for name, (_argument, _hook, _hint, required) in fields.items():
            if required and name not in value and name not in meant:
                errors.append(_noted(ValueError("is missing"), name))
        if not errors and isinstance(converter, _Accepting) and converter.holds_accepted(value):
            # What the object will be is not known yet. What is known of it can be judged all the same.
            known = {name: item for name, item in arguments.items() if not converter.holds_accepted(item)}
            errors = list(_invalid(kind, known, frozenset(arguments.keys() - known.keys())))
            if not errors:
                return value
        if errors:
            raise ExceptionGroup("", errors)
        try:
            return kind(**arguments)
        except Exception:
            placed = list(_invalid(kind, arguments))
            if placed:
                raise ExceptionGroup("", placed) from None
            raise

    return structure


def _invalid(kind: Any, arguments: Mapping[str, Any], unknown: frozenset[str] = frozenset()) -> Iterator[Exception]:
    """Which fields' validators refuse their values: attrs stops at the first and does not say where.

    Args:
        unknown: Fields whose values are not known. A validator that looks at one of those says nothing.
    """
    made = SimpleNamespace()
    for field in attrs.fields(kind):
        alias = field.alias or field.name
        if alias in arguments:
            setattr(made, field.name, arguments[alias])
        elif alias not in unknown:
            default: Any = field.default
            setattr(made, field.name, default.factory() if isinstance(default, attrs.Factory) else default)  # type: ignore[arg-type]  # attrs types the class Factory as a function
    for field in attrs.fields(kind):
        alias = field.alias or field.name
        if field.validator is not None and alias in arguments:
            try:
                field.validator(made, field, arguments[alias])
            except Exception as error:  # noqa: BLE001 - validators raise what they like
                if not (unknown and isinstance(error, AttributeError)):
                    yield _noted(error, wire_name(field.name))


# What other programs call the keys of edges and nodes.
_MEANT = {"from": "source", "to": "target", "retries": "retry"}
_MAX_SHOWN = 8


def _unknown(key: str, known: list[str]) -> str:
    near = _MEANT[key] if _MEANT.get(key) in known else nearest(key, known)
    if near:
        return f"is not known here: did you mean {near!r}?"
    rest = ", ".join(sorted(known))
    hint = f"known are {rest}"
    if {"type", "config"} <= {*known}:
        hint = f"did you mean {child_place('config', key)}? Settings of the node type stand under `config`. A node has {rest}"
    return f"is not known here: {hint}" if known else "is not known here: there are no settings"


def unstructure(value: Any) -> Json:
    """Data classes as JSON objects, enums as their values; payloads inside are passed on as they are."""
    kind: Any = type(value)
    if kind in _SCALARS or kind is dict or kind is list:
        return value
    if (fields := _written(kind)) is not None:
        return {wire: unstructure(getattr(value, name)) for name, wire in fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [unstructure(item) for item in value]
    return value


@functools.cache
def _written(kind: type[Any]) -> tuple[tuple[str, str], ...] | None:
    """The fields of a data class and what they are called in JSON; ``None``: it is none."""
    return tuple((field.name, wire_name(field.name)) for field in attrs.fields(kind)) if attrs.has(kind) else None


def faults_of(error: Exception, place: str = "$") -> list[Fault]:
    """Every fault in an exception of a converter, with its place, in document order."""
    if isinstance(error, _Placed):
        return faults_of(error.error, child_place(place, error.at.key))
    if isinstance(error, ExceptionGroup):
        return [fault for inner in error.exceptions for fault in faults_of(inner, place)]
    if isinstance(error, DocumentError):
        return [attrs.evolve(fault, place=place + fault.place.removeprefix("$")) for fault in error.faults]
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return [Fault(text.splitlines()[0] if text else type(error).__name__, place)]


# --- JSON Schema ----------------------------------------------------------------------------------------------------------


def schema_of(kind: Any) -> dict[str, Json]:
    """The JSON Schema (2020-12) of a type that :func:`make_converter` can structure."""
    if attrs.has(kind):
        return _class_schema(kind)
    if kind is Duration:
        return {"type": ["number", "string"], "description": 'Seconds, or text such as "15m", "1h30m", "7d".'}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if _is_enum(kind):
        return {"enum": [member.value for member in kind]}
    if _is_union(kind):
        members = [m for m in get_args(kind) if m is not NoneType]
        schemas = [schema_of(m) for m in members]
        if len(members) != len(get_args(kind)):
            schemas.append({"type": "null"})
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    if _is_sequence(kind):
        arguments = [a for a in get_args(kind) if a is not ...]
        return {"type": "array", "items": schema_of(arguments[0])} if arguments else {"type": "array"}
    if _is_mapping(kind):
        arguments = list(get_args(kind))
        return {"type": "object", "additionalProperties": schema_of(arguments[1])} if arguments else {"type": "object"}
    simple = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
    return {"type": simple[kind]} if kind in simple else {}


def _class_schema(kind: Any) -> dict[str, Json]:
    hints = get_type_hints(kind)
    properties: dict[str, Json] = {}
    required: list[str] = []
    for field in attrs.fields(kind):
        if not field.init:
            continue
        name = wire_name(field.name)
        entry = schema_of(hints[field.name])
        if field.metadata.get("description"):
            entry["description"] = field.metadata["description"]
        if field.metadata.get("examples"):
            entry["examples"] = list(field.metadata["examples"])
        if field.metadata.get("secret"):
            entry["writeOnly"] = True
        if field.default is attrs.NOTHING:
            required.append(name)
        elif isinstance(field.default, _SCALARS) and field.default is not None:
            entry["default"] = field.default
        properties[name] = entry
    schema: dict[str, Json] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return schema
