"""Node types that decide where values go: branches, filters, joins of branches, lists and their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal

import attrs

from orchestrator_core import Expression, NodeContext, NodeError, node_type, setting, truthy
from orchestrator_nodes_std.shapes import (
    MISSING,
    UNSET,
    Json,
    at_least,
    check,
    get_path,
    has_template,
    json_text,
    kind,
    list_of,
    misuse,
    order_key,
    path_of,
    path_problem,
    set_path,
    unset,
)

__all__ = ["fail", "filter_", "if_", "limit", "log", "merge", "split", "switch"]


# --- if --------------------------------------------------------------------------------------------------------------


@attrs.frozen
class IfConfig:
    """The settings of `if`."""

    condition: Any = setting(
        condition=True,
        description="What is asked, usually one expression. JavaScript's truthiness decides: false, 0, empty text, "
        "null and undefined are false; everything else, empty lists and objects included, is true.",
        examples=["{{ input.total > 100 }}", "{{ input.email }}"],
    )


@node_type(
    "if",
    title="If",
    ports=("true", "false"),
    pure=True,
    example={"condition": "{{ input.total > 100 }}"},
)
async def if_(ctx: NodeContext, config: IfConfig, input: Json) -> None:
    """Send the input on to the port `true` or to the port `false`, as the condition says.

    The other port's edges are skipped. The input itself is passed on unchanged.
    """
    ctx.emit("true" if truthy(config.condition) else "false", input)


# --- switch ----------------------------------------------------------------------------------------------------------


def _port_problem(port: str) -> str | None:
    return None if port else "must not be empty: it is the name that edges use as their `port`"


@attrs.frozen
class Case:
    """One way out of a `switch`."""

    when: Any = setting(
        condition=True,
        description="The condition of this case; JavaScript's truthiness decides.",
        examples=["{{ input.country === 'DE' }}"],
    )
    port: str = setting(
        description="The port on which the input leaves when the condition holds.",
        examples=["germany"],
        validator=check(_port_problem),
    )


@attrs.frozen
class SwitchConfig:
    """The settings of `switch`."""

    cases: list[Case] = setting(
        description="The cases, asked in this order. Several may share a port.",
        examples=[[{"when": "{{ input.country === 'DE' }}", "port": "germany"}]],
    )
    default: str = setting(
        default="default",
        description="The port on which the input leaves when no case holds.",
        validator=check(_port_problem),
    )
    mode: Literal["first", "all"] = setting(
        default="first",
        description="`first`: the first case that holds is the only one; `all`: every case that holds gets the input.",
    )


def _switch_ports(config: Mapping[str, Json]) -> Sequence[str] | None:
    """The ports that a raw config names; None where a template decides."""
    cases = config.get("cases")
    default = config.get("default", "default")
    if not isinstance(cases, list):
        return None
    named = [case.get("port") if isinstance(case, Mapping) else None for case in cases]
    ports = [*named, default]
    if not all(isinstance(port, str) and not has_template(port) for port in ports):
        return None
    return tuple(dict.fromkeys(str(port) for port in ports))


@node_type(
    "switch",
    title="Switch",
    ports=_switch_ports,
    pure=True,
    example={
        "cases": [
            {"when": "{{ input.country === 'DE' }}", "port": "germany"},
            {"when": "{{ ['FR', 'IT'].includes(input.country) }}", "port": "neighbours"},
        ],
        "default": "elsewhere",
    },
)
async def switch(ctx: NodeContext, config: SwitchConfig, input: Json) -> None:
    """Send the input on to the port of the case that holds, or to the default port.

    The ports are the ones that the cases name, and `default`. Edges from the other ports are skipped. With the mode
    `all` the input leaves on the port of every case that holds, once per port.
    """
    ports = [case.port for case in config.cases if truthy(case.when)]
    if config.mode == "first":
        ports = ports[:1]
    for port in dict.fromkeys(ports or [config.default]):
        ctx.emit(port, input)


# --- filter ----------------------------------------------------------------------------------------------------------

_ITEMS = "The list to work on. Left out: the input."


@attrs.frozen
class FilterConfig:
    """The settings of `filter`."""

    where: Expression = setting(
        condition=True,
        description="Asked for every element, which is `item`, and its place `index`; JavaScript's truthiness decides.",
        examples=["{{ item.price > 10 }}"],
    )
    items: Any = setting(factory=unset, description=_ITEMS, examples=["{{ input.rows }}"])


@node_type(
    "filter",
    title="Filter",
    ports=("main", "rejected"),
    pure=True,
    example={"items": "{{ input.rows }}", "where": "{{ item.price > 10 }}"},
)
async def filter_(ctx: NodeContext, config: FilterConfig, input: Json) -> None:
    """Keep the elements of a list for which an expression holds.

    `main` delivers the list of those kept, `rejected` the list of the others, both in their old order. Both ports
    always deliver, with an empty list where nothing went that way.
    """
    items = list_of(config.items, input, node="filter")
    verdicts = await config.where.each(items)
    kept: list[Json] = []
    rejected: list[Json] = []
    for item, verdict in zip(items, verdicts, strict=True):
        (kept if truthy(verdict) else rejected).append(item)
    ctx.emit("main", kept)
    ctx.emit("rejected", rejected)


# --- split and limit -------------------------------------------------------------------------------------------------


def _keep_needs_field(config: SplitConfig, _attribute: Any, value: Any) -> None:
    if value is True and config.field is None:
        raise ValueError("`keep` needs `field`: name the list inside the object that is kept")


@attrs.frozen
class SplitConfig:
    """The settings of `split`."""

    field: str | None = setting(
        default=None,
        description="The dotted path of the list inside the input. Left out: the input itself is the list.",
        examples=["order.lines"],
        validator=check(path_problem),
    )
    size: int | None = setting(
        default=None,
        description="Deliver lists of so many elements (the last may be shorter) instead of single elements.",
        examples=[100],
        validator=at_least(1),
    )
    keep: bool = setting(
        default=False,
        description="Deliver the whole input object each time, with the element (or the short list) in place of the "
        "list. Needs `field`.",
        validator=_keep_needs_field,
    )


@node_type(
    "split",
    title="Split",
    pure=True,
    example={"field": "lines", "keep": True},
)
async def split(ctx: NodeContext, config: SplitConfig, input: Json) -> list[Json]:
    """Take a list out of an object, element by element or in short lists of a given size.

    The output is a list; a node behind it with `for_each: "{{ input }}"` runs once per element.
    """
    if config.field is None:
        items = list_of(UNSET, input, node="split", setting="field")
        return items if config.size is None else _chunks(items, config.size)
    parts = path_of(config.field)
    found = get_path(input, parts)
    if not isinstance(found, list):
        there = "nothing" if found is MISSING else kind(found)
        raise misuse(f"`split` needs a list at `{config.field}` of its input, but there is {there}")
    elements = list(found) if config.size is None else _chunks(found, config.size)
    if not config.keep:
        return elements
    return [set_path(input, parts, element, path=config.field) for element in elements]


def _chunks(items: Sequence[Json], size: int) -> list[Json]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


@attrs.frozen
class LimitConfig:
    """The settings of `limit`."""

    count: int = setting(description="How many elements to keep at most.", examples=[10], validator=at_least(0))
    offset: int = setting(
        default=0, description="How many elements to leave out before counting.", validator=at_least(0)
    )
    from_: Literal["start", "end"] = setting(
        default="start",
        description="Where counting begins. From the end, the last elements are kept; they stay in their old order.",
    )
    items: Any = setting(factory=unset, description=_ITEMS, examples=["{{ input.rows }}"])


@node_type("limit", title="Limit", pure=True, example={"items": "{{ input.rows }}", "count": 10, "offset": 20})
async def limit(ctx: NodeContext, config: LimitConfig, input: Json) -> list[Json]:
    """Keep a given number of a list's elements, from its start or from its end."""
    items = list_of(config.items, input, node="limit")
    if config.from_ == "start":
        return items[config.offset : config.offset + config.count]
    end = max(0, len(items) - config.offset)
    return items[max(0, end - config.count) : end]


# --- merge -----------------------------------------------------------------------------------------------------------

_MOST_ROWS = 1_000_000  # a join of two long lists on a key that repeats would otherwise fill the memory


def _on_with_join(config: MergeConfig, _attribute: Any, value: Any) -> None:
    if config.how == "join" and not value:
        raise ValueError("`how: join` needs `on`: the dotted path of the field that both lists share")
    if value and not has_template(value):
        problem = path_problem(value)
        if problem:
            raise ValueError(f"`on` {problem}")


@attrs.frozen
class MergeConfig:
    """The settings of `merge`."""

    how: Literal["append", "object", "pairs", "join"] = setting(
        default="append",
        description="`append`: one list of all elements; `object`: one object with the names of all, the later branch "
        "wins; `pairs`: a list of lists, the elements at the same place; `join`: the rows of two lists that share a "
        "value, as SQL does.",
    )
    on: str | None = setting(
        default=None,
        description="For `join`: the dotted path of the field whose values are compared. Null never matches.",
        examples=["customer.id"],
        validator=_on_with_join,
    )
    right_on: str | None = setting(
        default=None,
        description="For `join`: the path in the second list, where it has another one than in the first.",
        examples=["id"],
        validator=check(path_problem),
    )
    rows: Literal["inner", "left", "full"] = setting(
        default="inner",
        description="For `join`: `inner` keeps rows that found a partner, `left` also the lonely ones of the first "
        "list, `full` those of both.",
    )
    uneven: Literal["error", "cut", "fill"] = setting(
        default="error",
        description="For `pairs` of lists that differ in length: fail, cut at the shortest, or fill with null.",
    )


@node_type(
    "merge",
    title="Merge",
    inputs=None,
    pure=True,
    example={"how": "join", "on": "customer_id", "right_on": "id", "rows": "left"},
)
async def merge(ctx: NodeContext, config: MergeConfig, input: Json) -> Json:
    """Make one value of what several branches gave.

    Lead two or more edges into the node; the branches count in the order of the edges in the document. With edges
    into named inputs each input is one branch; for a join they may be called `left` and `right`. A branch that was
    skipped is left out. (A single edge cannot be told from several: its list is taken as a list of branches, its
    object as an object of branches.)
    """
    branches = _branches(ctx, config, input)
    if config.how == "append":
        return [element for value in branches.values() for element in (value if isinstance(value, list) else [value])]
    if config.how == "object":
        merged: dict[str, Json] = {}
        for name, value in branches.items():
            if not isinstance(value, dict):
                raise misuse(f"`merge` with `how: object` needs an object of every branch; {name!r} gave {kind(value)}")
            merged.update(value)
        return merged
    for name, value in branches.items():
        if not isinstance(value, list):
            raise misuse(f"`merge` with `how: {config.how}` needs a list of every branch; {name!r} gave {kind(value)}")
    if config.how == "pairs":
        return _pairs(branches, config.uneven)
    return _join(branches, config)


def _branches(ctx: NodeContext, config: MergeConfig, input: Json) -> dict[str, Json]:
    """What to merge, by name, in order."""
    if any(name != "main" for name in ctx.inputs):
        if config.how == "join" and {"left", "right"} <= ctx.inputs.keys():
            return {"left": ctx.inputs["left"], "right": ctx.inputs["right"]}
        return dict(ctx.inputs)
    if isinstance(input, dict):
        return dict(input)
    if isinstance(input, list):
        return {str(place): value for place, value in enumerate(input)}
    raise misuse(f"`merge` needs several branches, but its one edge gave {kind(input)}: lead further edges into it")


def _pairs(branches: Mapping[str, Sequence[Json]], uneven: str) -> list[Json]:
    lengths = {name: len(value) for name, value in branches.items()}
    if uneven == "error" and len(set(lengths.values())) > 1:
        said = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise misuse(f"`merge` cannot pair lists of different lengths ({said}): set `uneven` to cut or fill")
    if uneven == "fill":
        return [list(pair) for pair in zip_longest(*branches.values())]
    return [list(pair) for pair in zip(*branches.values(), strict=False)]


def _join(branches: Mapping[str, Sequence[Json]], config: MergeConfig) -> list[Json]:
    if len(branches) != 2:
        said = ", ".join(map(repr, branches)) or "none"
        raise misuse(
            f"`merge` with `how: join` needs the lists of exactly two branches, and has {len(branches)}: {said}"
        )
    (left_name, left), (right_name, right) = branches.items()
    on = path_of(config.on or "")
    partners: dict[Json, list[int]] = {}
    for place, key in enumerate(_keys(right, path_of(config.right_on or config.on or ""), right_name)):
        partners.setdefault(key, []).append(place)
    rows: list[Json] = []
    met: set[int] = set()
    for row, key in zip(left, _keys(left, on, left_name), strict=True):
        places = partners.get(key, []) if key is not None else []
        if len(rows) + len(places) > _MOST_ROWS:
            raise misuse(
                f"the join gives more than {_MOST_ROWS} rows, because many rows share a value of `{config.on}`: "
                "join on a field that tells rows apart",
                code="too_large",
            )
        rows.extend({**row, **right[place]} for place in places)
        met.update(places)
        if not places and config.rows != "inner":
            rows.append(row)
    if config.rows == "full":
        rows.extend(row for place, row in enumerate(right) if place not in met)
    return rows


def _keys(rows: Sequence[Json], path: tuple[str, ...], name: str) -> list[Any]:
    """What each row is compared by; None where it has nothing to compare."""
    keys: list[Any] = []
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise misuse(f"`merge` joins lists of objects; element {place} of {name!r} is {kind(row)}")
        value = get_path(row, path)
        keys.append(None if value is None or value is MISSING else order_key(value))
    return keys


# --- fail and log ----------------------------------------------------------------------------------------------------


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json_text(value)


@attrs.frozen
class FailConfig:
    """The settings of `fail`."""

    message: Any = setting(
        default="the workflow failed on purpose",
        description="What went wrong, for people.",
        examples=["order {{ input.id }} has no lines"],
    )
    code: str = setting(
        default="failed",
        description="A short word for programs; it becomes the error's `code`.",
        examples=["empty_order"],
        validator=check(lambda code: None if code else "must not be empty"),
    )
    data: Any = setting(default=None, description="Any value that says more; it becomes the error's `data`.")
    retryable: bool = setting(
        default=False, description="Whether the node's `retry` may try again, which evaluates the settings anew."
    )


@node_type(
    "fail",
    title="Fail",
    pure=True,
    example={"message": "order {{ input.id }} has no lines", "code": "empty_order", "data": "{{ input }}"},
)
async def fail(ctx: NodeContext, config: FailConfig, input: Json) -> Json:
    """Fail with a message and a code of your own.

    Put it behind an `if` to refuse what should not go on. As with any failure, the node's `error` edges or
    `on_error: continue` can catch it; otherwise the execution fails with this code.
    """
    raise NodeError(_text(config.message), code=config.code, retryable=config.retryable, data=config.data)


@attrs.frozen
class LogConfig:
    """The settings of `log`."""

    message: Any = setting(
        description="What to write. Anything that is no text is written as JSON.",
        examples=["got {{ input.length }} rows", "{{ input }}"],
    )
    level: Literal["debug", "info", "warning", "error"] = setting(
        default="info", description="How important the line is."
    )


@node_type("log", title="Log", pure=True, example={"message": "got {{ input.length }} rows", "level": "info"})
async def log(ctx: NodeContext, config: LogConfig, input: Json) -> Json:
    """Write a line to the execution's logs and pass the input on."""
    ctx.log.write(config.level, _text(config.message))
    return input
