"""The config of a node: its JSON, the templates in it, and the instance of its config class."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Protocol, Union, cast, get_args, get_origin, get_type_hints

import attrs

from orchestrator_core import codec
from orchestrator_core.errors import DocumentError, Fault
from orchestrator_core.expressions import (
    Code,
    ExpressionError,
    Names,
    Template,
    compile_template,
    condition_fault,
    is_template,
)
from orchestrator_core.nodes import NodeType
from orchestrator_core.types import Json

__all__ = ["Evaluator", "Expression", "PreparedConfig", "config_schema", "prepare_config", "structure_config"]


class Evaluator(Protocol):
    """Evaluates expressions; each realm has one."""

    async def values(self, codes: Sequence[Code], names: Names) -> list[Any]:
        """The value of each expression, ABSENT for undefined."""
        ...

    async def values_each(self, codes: Sequence[Code], names: Names, items: Sequence[Json]) -> list[list[Any]]:
        """The values of the expressions for each item, with ``item`` and ``index`` set."""
        ...


@attrs.frozen(eq=False)
class Expression:
    """A template that the node function evaluates itself, for many items: annotate a config's field with it."""

    template: Template
    names: Names | None = None
    evaluator: Evaluator | None = None

    async def each(self, items: Sequence[Json]) -> list[Json]:
        """The template's value for each item, with ``item`` and ``index`` set; at most one call of the sandbox.

        Raises:
            ExpressionError: An expression failed for an item.
        """
        if self.template.constant:
            return [self.template.build(()) for _ in items]
        if self.names is None or self.evaluator is None:
            raise ExpressionError("an expression can only be evaluated inside an attempt")
        rows = await self.evaluator.values_each(self.template.codes, self.names, items)
        return [self.template.build(row) for row in rows]


def _passed_on(converter: Any) -> Any:
    converter.register_structure_hook_func(lambda kind: kind is Expression, lambda value, _: value)
    return converter


_strict = _passed_on(codec.make_converter())
# A draft is checked before it runs: where a template stands, its value is not known yet.
_draft = _passed_on(codec.make_converter(accept=is_template))


@attrs.frozen(eq=False)
class PreparedConfig:
    """A node's config, ready to be made for each attempt.

    Attributes:
        ready: The instance, where nothing in the config depends on the attempt.
        template: Otherwise the raw config with its expressions.
        each: The fields of type :class:`Expression`.
        secret: It refers to secrets.
    """

    kind: type[Any]
    ready: Any
    template: Template
    each: Mapping[str, Template]
    secret: bool

    async def make(self, names: Names, evaluator: Evaluator) -> Any:
        """A new instance for an attempt, which shares nothing with the document or with what others gave.

        Raises:
            ExpressionError: An expression failed.
            DocumentError: What came of the expressions does not fit the config class.
        """
        values = await evaluator.values(self.template.codes, names) if self.template.codes else []
        raw = codec.copy_json(dict(self.template.build(values)))
        for name, template in self.each.items():
            raw[name] = Expression(template, attrs.evolve(names, place=f"{names.place}.{name}"), evaluator)
        return structure_config(raw, self.kind, "$.config")


def structure_config(raw: Mapping[str, Json], kind: type[Any], place: str, *, converter: Any = _strict) -> Any:
    """An instance of a config class.

    Raises:
        DocumentError: With every fault and its place.
    """
    try:
        return converter.structure(dict(raw), kind)
    except Exception as error:  # noqa: BLE001 - validators of plugins raise what they like
        raise DocumentError(codec.faults_of(error, place)) from None


def prepare_config(kind: NodeType, raw: Mapping[str, Json], place: str = "$.config") -> PreparedConfig:
    """Find the templates of a config and check what can be checked without running it.

    Raises:
        DocumentError: With every fault and its place.
    """
    fields = _special_fields(cast(Hashable, kind.config))
    each: dict[str, Template] = {}
    rest: dict[str, Json] = {}
    try:
        for name, value in raw.items():
            at = codec.child_place(place, name)
            if fields.get(at[len(place) :]) == "each":
                each[name] = compile_template(value, place=at)
            else:
                rest[name] = value
        template = compile_template(rest, place=place, literal=lambda at: fields.get(at[len(place) :]) == "literal")
    except ExpressionError as error:
        raise DocumentError([_fault(str(error), place)]) from None
    if untrue := list(_untrue_conditions(raw, kind.config, place)):
        raise DocumentError(untrue)
    secrets = list(_misplaced_secrets(template, each, kind.config, place))
    if secrets:
        raise DocumentError(secrets)
    secret = any("secrets" in code.roots for code in template.codes)
    if template.codes:
        draft: dict[str, Any] = dict(rest) | {name: Expression(t) for name, t in each.items()}
        structure_config(draft, kind.config, place, converter=_draft)
        return PreparedConfig(kind.config, None, template, each, secret)
    full = dict(rest) | {name: Expression(t) for name, t in each.items()}
    ready = structure_config(full, kind.config, place)
    return PreparedConfig(kind.config, None if each else ready, template, each, secret)


def _fault(text: str, place: str) -> Fault:
    at, colon, message = text.partition(": ")
    return Fault(message, at) if colon and at.startswith("$") else Fault(text, place)


@functools.lru_cache(maxsize=1024)
def _special_fields(kind: Hashable) -> Mapping[str, str]:
    """The fields of a config class whose texts are no templates, or templates for the function to evaluate."""
    hints = get_type_hints(kind)
    special: dict[str, str] = {}
    for field in attrs.fields(kind):  # type: ignore[arg-type]  # a config class
        at = codec.child_place("", codec.wire_name(field.name))
        if field.metadata.get("literal"):
            special[at] = "literal"
        elif _is_expression(hints[field.name]):
            special[at] = "each"
    return special


def _is_expression(hint: Any) -> bool:
    if get_origin(hint) in {Union, UnionType}:
        return any(_is_expression(member) for member in get_args(hint))
    return hint is Expression


def _untrue_conditions(raw: Mapping[str, Json], kind: type[Any], place: str) -> Iterator[Fault]:
    patterns = _condition_places(cast(Hashable, kind))
    for at, text in _texts(raw, "") if patterns else ():
        if any(_under(at, pattern, exactly=True) for pattern in patterns) and (fault := condition_fault(text)):
            yield Fault(fault, place + at)


def _texts(value: Json, place: str) -> Iterator[tuple[str, str]]:
    """Every text in a value, with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, codec.child_place(place, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, codec.child_place(place, index))


def _misplaced_secrets(
    template: Template, each: Mapping[str, Template], kind: type[Any], place: str
) -> Iterator[Fault]:
    if not template.codes and not each:
        return
    allowed = _secret_places(cast(Hashable, kind))
    for code in (*template.codes, *(code for t in each.values() for code in t.codes)):
        if "secrets" not in code.roots:
            continue
        if not any(_under(code.place[len(place) :], at) for at in allowed):
            yield Fault("secrets may only stand in fields that are declared secret", code.place)
        elif code.path is None or len(code.path[1]) != 1:
            yield Fault("a secret is written {{ secrets.name }}, without any computing around it", code.place)


def _under(place: str, pattern: Sequence[str], *, exactly: bool = False) -> bool:
    """Whether a place is at or below (or ``exactly`` at) a pattern whose ``*`` stands for any index or key."""
    rest = place
    for part in pattern:
        if part == "*":
            if not rest.startswith((".", "[")):
                return False
            end = min((i for i in (rest.find(".", 1), rest.find("[", 1)) if i > 0), default=len(rest))
            rest = rest[end:]
        elif rest.startswith(part) and (len(rest) == len(part) or rest[len(part)] in ".["):
            rest = rest[len(part) :]
        else:
            return False
    return not (exactly and rest)


@functools.lru_cache(maxsize=1024)
def _condition_places(kind: Hashable) -> Sequence[Sequence[str]]:
    return [place for place, field, _ in _fields(kind, [""]) if field.metadata.get("condition")]


@functools.lru_cache(maxsize=1024)
def _secret_places(kind: Hashable) -> Sequence[Sequence[str]]:
    return [place for place, field, _ in _fields(kind, [""]) if field.metadata.get("secret")]


def _fields(kind: Any, place: list[str], seen: tuple[Any, ...] = ()) -> Iterator[tuple[list[str], Any, Any]]:
    """Every field of a config class and of the classes inside it."""
    if kind in seen:
        return
    hints = get_type_hints(kind)
    for field in attrs.fields(kind):
        step = codec.child_place("", codec.wire_name(field.name))
        at = [*place[:-1], place[-1] + step] if place[-1] != "*" else [*place, step]
        yield at, field, hints[field.name]
        for inner, inner_place in _classes(hints[field.name], at):
            yield from _fields(inner, inner_place, (*seen, kind))


def _classes(hint: Any, place: list[str]) -> Iterator[tuple[Any, list[str]]]:
    if attrs.has(hint) and hint is not Expression:
        yield hint, place
        return
    collection = get_origin(hint) not in {Union, UnionType, None}
    for member in get_args(hint):
        if member not in {NoneType, ...}:
            yield from _classes(member, [*place, "*"] if collection else place)


def config_schema(kind: NodeType) -> dict[str, Json]:
    """The JSON Schema of a node type's config; where a value may be a template it may be a text, too."""
    return {"title": kind.title, "description": kind.description, **codec.schema_of(kind.config)}
