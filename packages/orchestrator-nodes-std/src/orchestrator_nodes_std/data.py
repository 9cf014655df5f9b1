"""Node types that shape values: fields, lists, groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs

from orchestrator_core import Expression, NodeContext, node_type, setting
from orchestrator_nodes_std.shapes import (
    MISSING,
    Json,
    check,
    get_path,
    has_template,
    json_text,
    kind,
    list_of,
    misuse,
    object_of,
    order_key,
    path_of,
    path_problem,
    paths_problem,
    remove_path,
    set_path,
    split_path,
    unset,
)

__all__ = ["aggregate", "dedupe", "map_", "set_", "sort", "summarize"]

_ITEMS = "The list to work on. Left out: the input."


# --- set -------------------------------------------------------------------------------------------------------------


def _remove_needs_keep(config: SetConfig, _attribute: Any, value: Any) -> None:
    if not value or has_template(value):
        return
    if config.keep is False:
        raise ValueError("`remove` needs `keep: true`: without it nothing of the input is kept anyway")
    problem = paths_problem(value)
    if problem:
        raise ValueError(f"`remove` {problem}")


@attrs.frozen
class SetConfig:
    """The settings of `set`."""

    values: dict[str, Any] = setting(
        factory=dict,
        description="Names and their values. A dotted name sets a place inside (`customer.name`); a dot that belongs "
        r"to a name is written `\.`.",
        examples=[{"total": "{{ input.qty * input.price }}", "customer.vip": True}],
        validator=check(paths_problem),
    )
    keep: bool = setting(
        default=False,
        description="Start from the input object and change it, instead of delivering the values only.",
    )
    remove: list[str] = setting(
        factory=list,
        description="With `keep`: dotted paths to leave out, before the values are set. What is not there is no error.",
        examples=[["password", "customer.notes"]],
        validator=_remove_needs_keep,
    )


@node_type(
    "set",
    title="Set",
    pure=True,
    example={"keep": True, "values": {"total": "{{ input.qty * input.price }}"}, "remove": ["draft"]},
)
async def set_(ctx: NodeContext, config: SetConfig, input: Json) -> dict[str, Json]:
    """Make an object: from given values alone, or from the input with values set and removed.

    With `keep` the input must be an object; null counts as an empty one. Names are set in the order in which they
    are written.
    """
    made: Json = {}
    if config.keep and input is not None:
        made = object_of(input, what="the input of a `set` node with `keep`")
    for path in config.remove:
        made = remove_path(made, path_of(path))
    for path, value in config.values.items():
        made = set_path(made, path_of(path), value, path=path)
    return dict(made)


# --- map -------------------------------------------------------------------------------------------------------------


@attrs.frozen
class MapConfig:
    """The settings of `map`."""

    value: Expression = setting(
        description="What becomes of an element, which is `item`; its place is `index`, from 0.",
        examples=["{{ item.price * 1.19 }}", {"id": "{{ item.id }}", "place": "{{ index }}"}],
    )
    items: Any = setting(factory=unset, description=_ITEMS, examples=["{{ input.rows }}"])


@node_type("map", title="Map", pure=True, example={"items": "{{ input.rows }}", "value": "{{ item.price * 1.19 }}"})
async def map_(ctx: NodeContext, config: MapConfig, input: Json) -> list[Json]:
    """Make a new list by evaluating an expression for every element of a list."""
    return list(await config.value.each(list_of(config.items, input, node="map")))


# --- sort ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class SortBy:
    """One field to sort by."""

    field: str = setting(
        description="The dotted path of the field.", examples=["customer.name"], validator=check(path_problem)
    )
    order: Literal["asc", "desc"] = setting(default="asc", description="Small ones first, or large ones first.")
    nulls: Literal["first", "last"] = setting(
        default="last", description="Where elements go whose field is null or missing, whatever the order."
    )


def _by_or_key(config: SortConfig, _attribute: Any, value: Any) -> None:
    if value is not None and config.by:
        raise ValueError("`by` and `key` exclude each other: give the fields, or one expression")


@attrs.frozen
class SortConfig:
    """The settings of `sort`."""

    by: list[SortBy] = setting(
        factory=list,
        description="The fields to sort by, the most important first.",
        examples=[[{"field": "country"}, {"field": "total", "order": "desc"}]],
    )
    key: Expression | None = setting(
        default=None,
        description="Instead of fields: an expression over `item` and `index` that gives what to compare.",
        examples=["{{ item.name.toLowerCase() }}"],
        validator=_by_or_key,
    )
    order: Literal["asc", "desc"] = setting(
        default="asc", description="The order where `by` is not given: small ones first, or large ones first."
    )
    nulls: Literal["first", "last"] = setting(
        default="last", description="Where `by` is not given: where null goes, whatever the order."
    )
    items: Any = setting(factory=unset, description=_ITEMS, examples=["{{ input.rows }}"])


@node_type(
    "sort",
    title="Sort",
    pure=True,
    example={"by": [{"field": "country"}, {"field": "total", "order": "desc", "nulls": "last"}]},
)
async def sort(ctx: NodeContext, config: SortConfig, input: Json) -> list[Json]:
    """Sort a list by fields, by an expression, or by the elements themselves.

    Elements that compare equal keep their order. Values of different kinds have a fixed order: booleans, numbers,
    texts (by code point), lists, objects.
    """
    items = list_of(config.items, input, node="sort")
    if not config.by:
        values = items if config.key is None else await config.key.each(items)
        places = _sorted(range(len(items)), values, config.order, config.nulls)
        return [items[place] for place in places]
    places = list(range(len(items)))
    # A stable sort by the least important field first leaves the most important one in charge.
    for by in reversed(config.by):
        path = path_of(by.field)
        places = _sorted(places, [get_path(item, path) for item in items], by.order, by.nulls)
    return [items[place] for place in places]


def _sorted(places: Sequence[int], values: Sequence[Json], order: str, nulls: str) -> list[int]:
    """Places in the order of their values; ``reverse`` keeps equal ones in their old order too."""
    empty = [place for place in places if values[place] is None or values[place] is MISSING]
    rest = [place for place in places if not (values[place] is None or values[place] is MISSING)]
    rest.sort(key=lambda place: order_key(values[place]), reverse=order == "desc")
    return [*empty, *rest] if nulls == "first" else [*rest, *empty]


# --- dedupe ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class DedupeConfig:
    """The settings of `dedupe`."""

    fields: list[str] = setting(
        factory=list,
        description="Dotted paths of the fields that make two elements the same. Left out: the whole element.",
        examples=[["email"]],
        validator=check(paths_problem),
    )
    keep: Literal["first", "last"] = setting(default="first", description="Which of several equal ones is kept.")
    items: Any = setting(factory=unset, description=_ITEMS, examples=["{{ input.rows }}"])


@node_type("dedupe", title="Remove duplicates", pure=True, example={"fields": ["email"], "keep": "last"})
async def dedupe(ctx: NodeContext, config: DedupeConfig, input: Json) -> list[Json]:
    """Keep one of several equal elements of a list. What is kept stays in its old order.

    1 and 1.0 are equal, 1 and "1" are not; the order of an object's names does not count; a missing field is equal
    to null.
    """
    items = list_of(config.items, input, node="dedupe")
    paths = [path_of(field) for field in config.fields]
    places: dict[Any, int] = {}
    for place, item in enumerate(items):
        key = tuple(order_key(get_path(item, path)) for path in paths) if paths else order_key(item)
        if config.keep == "last":
            places[key] = place
        else:
            places.setdefault(key, place)
    return [items[place] for place in sorted(places.values())]


# --- aggregate and summarize -----------------------------------------------------------------------------------------

How = Literal["list", "sum", "avg", "min", "max", "count", "first", "last", "unique", "join"]


@attrs.frozen
class Aggregation:
    """What becomes of one field of many elements."""

    how: How = setting(
        description="`list`: all values, null where one is missing; `first`, `last`: that element's value; `count`: "
        "how many elements, with `of` how many that have a value there; `sum`, `avg`: of numbers; `min`, `max`: in the "
        "order of `sort`; `unique`: the different values; `join`: one text. From `sum` on, null and missing values are "
        "left out; without any value `sum` gives 0, and `avg`, `min` and `max` give null.",
        examples=["sum"],
    )
    of: str | None = setting(
        default=None,
        description="The dotted path of the field. Left out: the element itself.",
        examples=["total"],
        validator=check(path_problem),
    )
    separator: str = setting(default=",", description="For `join`: what stands between two texts.")


def _some(fields: Mapping[str, Any]) -> str | None:
    return paths_problem(fields) if fields else "must name at least one field to make"


_FIELDS = "What to make: each name is a field of the result (dotted names go inside), with what it is made of."


@attrs.frozen
class AggregateConfig:
    """The settings of `aggregate`."""

    fields: dict[str, Aggregation] = setting(
        description=_FIELDS,
        examples=[{"total": {"of": "price", "how": "sum"}, "orders": {"how": "count"}}],
        validator=check(_some),
    )
    items: Any = setting(factory=unset, description=_ITEMS, examples=["{{ input.rows }}"])


@node_type(
    "aggregate",
    title="Aggregate",
    pure=True,
    example={"fields": {"total": {"of": "price", "how": "sum"}, "names": {"of": "name", "how": "list"}}},
)
async def aggregate(ctx: NodeContext, config: AggregateConfig, input: Json) -> dict[str, Json]:
    """Make one object of a list: sums, averages, counts, lists of its elements' fields."""
    items = list_of(config.items, input, node="aggregate")
    return _aggregated({}, items, config.fields)


def _no_clash(config: SummarizeConfig, _attribute: Any, value: Any) -> None:
    if not value or has_template(value):
        return
    problem = paths_problem(value)
    if problem:
        raise ValueError(f"`group_by` {problem}")
    fields = [] if has_template(config.fields) else config.fields
    places = [(path, split_path(path)) for path in [*value, *fields] if not has_template(path)]
    for number, (path, parts) in enumerate(places):
        for other, others in places[:number]:
            shorter = min(len(parts), len(others))
            if parts[:shorter] == others[:shorter]:
                raise ValueError(f"{other!r} and {path!r} would take the same place in the result: rename the field")


@attrs.frozen
class SummarizeConfig:
    """The settings of `summarize`."""

    fields: dict[str, Aggregation] = setting(
        description=_FIELDS,
        examples=[{"total": {"of": "price", "how": "sum"}, "orders": {"how": "count"}}],
        validator=check(_some),
    )
    group_by: list[str] = setting(
        description="Dotted paths of the fields that elements of one group share. They stand in the result at the "
        "same place.",
        examples=[["customer.country"]],
        validator=_no_clash,
    )
    items: Any = setting(factory=unset, description=_ITEMS, examples=["{{ input.rows }}"])


@node_type(
    "summarize",
    title="Summarize",
    pure=True,
    example={"group_by": ["country"], "fields": {"total": {"of": "price", "how": "sum"}, "orders": {"how": "count"}}},
)
async def summarize(ctx: NodeContext, config: SummarizeConfig, input: Json) -> list[Json]:
    """Group a list by fields and make one object of each group, as GROUP BY does.

    Groups stand in the order in which their first elements do; a missing field is equal to null.
    """
    items = list_of(config.items, input, node="summarize")
    paths = [path_of(path) for path in config.group_by]
    groups: dict[Any, list[Json]] = {}
    for item in items:
        groups.setdefault(tuple(order_key(get_path(item, path)) for path in paths), []).append(item)
    summaries: list[Json] = []
    for members in groups.values():
        base: Json = {}
        for path, parts in zip(config.group_by, paths, strict=True):
            value = get_path(members[0], parts)
            base = set_path(base, parts, None if value is MISSING else value, path=path)
        summaries.append(_aggregated(base, members, config.fields))
    return summaries


def _aggregated(base: dict[str, Json], items: Sequence[Json], fields: Mapping[str, Aggregation]) -> dict[str, Json]:
    """``base`` with what the fields say about ``items``."""
    made: Json = base
    for name, aggregation in fields.items():
        if aggregation.of is None:
            values = list(items)
        else:
            path = path_of(aggregation.of)
            values = [get_path(item, path) for item in items]
        try:
            value = _HOW[aggregation.how](values, aggregation)
        except OverflowError as error:
            raise misuse(
                f"`{name}`: the {aggregation.how} is larger than any number of JSON", code="overflow"
            ) from error
        made = set_path(made, path_of(name), value, path=name)
    return dict(made)


def _present(values: Sequence[Json]) -> list[Json]:
    return [value for value in values if value is not None and value is not MISSING]


def _null(value: Json) -> Json:
    return None if value is MISSING else value


def _numbers(values: Sequence[Json], aggregation: Aggregation) -> list[int | float]:
    numbers = _present(values)
    for value in numbers:
        if isinstance(value, bool) or not isinstance(value, int | float):
            of = f"`{aggregation.of}`" if aggregation.of else "an element"
            raise misuse(
                f"`how: {aggregation.how}` needs numbers, but {of} is {kind(value)} somewhere: "
                "turn it into a number before, for example with a `map` node"
            )
    return numbers


def _sum(values: Sequence[Json], aggregation: Aggregation) -> int | float:
    numbers = _numbers(values, aggregation)
    if all(isinstance(number, int) for number in numbers):
        return sum(numbers)
    return _finite(math.fsum(numbers))  # exact before it rounds, so the order of the elements does not matter


def _avg(values: Sequence[Json], aggregation: Aggregation) -> int | float | None:
    count = len(_numbers(values, aggregation))
    if not count:
        return None
    total = _sum(values, aggregation)
    if isinstance(total, int) and total % count == 0:
        return total // count
    return _finite(total / count)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise OverflowError
    return number


def _unique(values: Sequence[Json]) -> list[Json]:
    different: dict[Any, Json] = {}
    for value in _present(values):
        different.setdefault(order_key(value), value)
    return list(different.values())


def _joined(values: Sequence[Json], aggregation: Aggregation) -> str:
    texts = [value if isinstance(value, str) else json_text(value) for value in _present(values)]
    return aggregation.separator.join(texts)


_HOW: Mapping[str, Callable[[Sequence[Json], Aggregation], Json]] = {
    "list": lambda values, _: [_null(value) for value in values],
    "sum": _sum,
    "avg": _avg,
    "min": lambda values, _: min(_present(values), key=order_key, default=None),
    "max": lambda values, _: max(_present(values), key=order_key, default=None),
    "count": lambda values, aggregation: len(values if aggregation.of is None else _present(values)),
    "first": lambda values, _: _null(values[0]) if values else None,
    "last": lambda values, _: _null(values[-1]) if values else None,
    "unique": lambda values, _: _unique(values),
    "join": _joined,
}
