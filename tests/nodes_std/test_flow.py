from __future__ import annotations

import copy

import pytest
from helpers import Each, refused, run

from orchestrator_core import NodeError
from orchestrator_core.testing import make_context, run_node
from orchestrator_nodes_std.flow import (
    Case,
    FailConfig,
    FilterConfig,
    LimitConfig,
    LogConfig,
    MergeConfig,
    SplitConfig,
    fail,
    filter_,
    if_,
    limit,
    log,
    merge,
    split,
    switch,
)

pytestmark = pytest.mark.anyio


# --- if and switch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "port"),
    [
        (True, "true"),
        (False, "false"),
        (0, "false"),
        (-0.0, "false"),
        (0.1, "true"),
        ("", "false"),
        ("false", "true"),
        (None, "false"),
        ([], "true"),
        ({}, "true"),
    ],
)
async def test_if_sends_the_input_where_javascript_would_go(condition, port):
    assert await run_node(if_, {"condition": condition}, {"n": 1}) == {port: {"n": 1}}


@pytest.mark.parametrize(
    ("mode", "whens", "ports"),
    [
        ("first", [False, True, True], ["b"]),
        ("all", [True, False, True], ["a", "c"]),
        ("first", [False, 0, ""], ["other"]),
        ("all", [None, False, 0], ["other"]),
    ],
)
async def test_switch_takes_the_cases_that_hold_or_the_default(mode, whens, ports):
    cases = [{"when": when, "port": port} for when, port in zip(whens, "abc", strict=True)]
    assert await run_node(switch, {"cases": cases, "default": "other", "mode": mode}, 5) == dict.fromkeys(ports, 5)


async def test_switch_delivers_once_on_a_port_that_two_cases_share():
    cases = [{"when": True, "port": "a"}, {"when": True, "port": "a"}]
    assert await run_node(switch, {"cases": cases, "mode": "all"}, 5) == {"a": 5}


def test_the_ports_of_a_switch_are_those_its_config_names():
    cases = [{"when": "{{ input.x }}", "port": "a"}, {"when": True, "port": "b"}, {"when": True, "port": "a"}]
    assert switch.ports_for({"cases": cases}) == ("a", "b", "default")
    assert switch.ports_for({"cases": cases, "default": "b"}) == ("a", "b")


@pytest.mark.parametrize(
    "config",
    [
        {"cases": "{{ vars.cases }}"},
        {"cases": [{"when": True, "port": "{{ vars.port }}"}]},
        {"cases": [{"when": True, "port": "a"}], "default": "{{ vars.port }}"},
        {"cases": ["nonsense"]},
        {},
    ],
)
def test_the_ports_of_a_switch_are_open_where_a_template_decides(config):
    assert switch.ports_for(config) is None


def test_a_port_without_a_name_is_refused():
    with pytest.raises(ValueError, match="`port` must not be empty"):
        Case(True, "")


# --- filter ----------------------------------------------------------------------------------------------------------


async def test_filter_keeps_and_rejects_in_the_old_order():
    config = {"where": Each(lambda item, index: item > 2 or index == 0)}
    assert await run_node(filter_, config, [1, 2, 3, 4, 0]) == {"main": [1, 3, 4], "rejected": [2, 0]}


async def test_filter_works_on_the_list_it_is_given_rather_than_its_input():
    config = {"where": Each(lambda item, _: item), "items": [1, 0]}
    assert await run_node(filter_, config, {"not": "a list"}) == {"main": [1], "rejected": [0]}


async def test_filter_says_what_it_misses():
    with pytest.raises(NodeError, match=r"its input is an object: set `items`") as failure:
        await filter_(make_context(), FilterConfig(where=Each(lambda item, _: item)), {"rows": []})
    assert (failure.value.code, failure.value.retryable) == ("bad_input", False)
    # null from a template is a mistake to be told, not a reason to take the input
    with pytest.raises(NodeError, match="`items` gave null") as failure:
        await filter_(make_context(), FilterConfig(where=Each(lambda item, _: item), items=None), [1])
    assert failure.value.code == "bad_config"


# --- split and limit -------------------------------------------------------------------------------------------------


async def test_split_takes_a_list_out_of_an_object():
    order = {"id": 7, "cart": {"lines": ["a", "b", "c"]}}
    before = copy.deepcopy(order)
    assert await split(make_context(), SplitConfig(field="cart.lines"), order) == ["a", "b", "c"]
    assert await split(make_context(), SplitConfig(field="cart.lines", size=2), order) == [["a", "b"], ["c"]]
    kept = await split(make_context(), SplitConfig(field="cart.lines", keep=True), order)
    assert kept[2] == {"id": 7, "cart": {"lines": "c"}}
    assert len(kept) == 3
    assert order == before


async def test_split_cuts_the_input_itself_into_short_lists():
    assert await split(make_context(), SplitConfig(size=3), [1, 2, 3, 4]) == [[1, 2, 3], [4]]
    assert await split(make_context(), SplitConfig(size=3), []) == []


@pytest.mark.parametrize(("input", "there"), [({}, "nothing"), ({"lines": None}, "null"), ({"lines": "a"}, "a text")])
async def test_split_says_what_stands_where_the_list_should(input, there):
    with pytest.raises(NodeError, match=f"a list at `lines` of its input, but there is {there}"):
        await split(make_context(), SplitConfig(field="lines"), input)


def test_split_refuses_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="`keep` needs `field`"):
        SplitConfig(keep=True)
    with pytest.raises(ValueError, match="`size` must be at least 1"):
        SplitConfig(size=0)
    with pytest.raises(ValueError, match=r"`field` holds a path 'a\.\.b' has an empty part"):
        SplitConfig(field="a..b")


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (LimitConfig(2), [0, 1]),
        (LimitConfig(2, offset=3), [3, 4]),
        (LimitConfig(9, offset=9), []),
        (LimitConfig(0), []),
        (LimitConfig(2, from_="end"), [3, 4]),
        (LimitConfig(2, offset=2, from_="end"), [1, 2]),
        (LimitConfig(9, offset=1, from_="end"), [0, 1, 2, 3]),
        (LimitConfig(3, offset=3, from_="end"), [0, 1]),
        (LimitConfig(2, offset=9, from_="end"), []),
    ],
)
async def test_limit_counts_from_either_end(config, kept):
    assert await limit(make_context(), config, [0, 1, 2, 3, 4]) == kept


# --- merge -----------------------------------------------------------------------------------------------------------


async def test_merge_appends_in_the_order_of_the_branches():
    assert await merge(make_context(), MergeConfig(), {"b": [1, 2], "a": 3, "c": [], "d": None}) == [1, 2, 3, None]


async def test_merge_of_no_branch_that_delivered_is_empty():
    assert await merge(make_context(), MergeConfig(), {}) == []
    assert await merge(make_context(), MergeConfig("object"), {}) == {}


async def test_merge_makes_one_object_in_which_the_later_branch_wins():
    branches = {"a": {"x": 1, "y": 1}, "b": {"y": 2}}
    assert await merge(make_context(), MergeConfig("object"), branches) == {"x": 1, "y": 2}
    assert branches["a"] == {"x": 1, "y": 1}
    with pytest.raises(NodeError, match="'b' gave a list"):
        await merge(make_context(), MergeConfig("object"), {"a": {}, "b": []})


async def test_merge_pairs_by_place():
    assert await merge(make_context(), MergeConfig("pairs"), {"a": [1, 2], "b": ["x", "y"]}) == [[1, "x"], [2, "y"]]
    uneven = {"a": [1, 2], "b": ["x"]}
    assert await merge(make_context(), MergeConfig("pairs", uneven="cut"), uneven) == [[1, "x"]]
    assert await merge(make_context(), MergeConfig("pairs", uneven="fill"), uneven) == [[1, "x"], [2, None]]
    with pytest.raises(NodeError, match="'a' 2, 'b' 1"):
        await merge(make_context(), MergeConfig("pairs"), uneven)


ORDERS = [{"id": 1, "who": {"id": "x"}}, {"id": 2, "who": {"id": None}}, {"id": 3, "who": {"id": "z"}}]
PEOPLE = [{"key": "x", "name": "Xa"}, {"key": "x", "name": "Xb"}, {"key": "y", "name": "Y"}, {"key": None, "name": "?"}]


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ("inner", [(1, "Xa"), (1, "Xb")]),
        ("left", [(1, "Xa"), (1, "Xb"), (2, None), (3, None)]),
        ("full", [(1, "Xa"), (1, "Xb"), (2, None), (3, None), (None, "Y"), (None, "?")]),
    ],
)
async def test_merge_joins_as_sql_does_and_null_meets_nobody(rows, names):
    config = MergeConfig("join", on="who.id", right_on="key", rows=rows)
    joined = await merge(make_context(), config, {"orders": ORDERS, "people": PEOPLE})
    assert [(row.get("id"), row.get("name")) for row in joined] == names


async def test_merge_joins_one_and_true_never_and_one_and_one_point_zero_always():
    left, right = [{"k": 1, "l": 1}, {"k": True, "l": 2}], [{"k": 1.0, "r": 1}]
    assert await merge(make_context(), MergeConfig("join", on="k"), {"a": left, "b": right}) == [
        {"k": 1.0, "l": 1, "r": 1}
    ]


async def test_merge_takes_named_inputs_as_branches():
    ctx = make_context(inputs={"right": [{"k": 1, "r": 1}], "left": [{"k": 1, "l": 1}]})
    assert await merge(ctx, MergeConfig("join", on="k"), None) == [{"k": 1, "l": 1, "r": 1}]
    assert await merge(make_context(inputs={"main": [1], "side": [2]}), MergeConfig(), [1]) == [1, 2]


async def test_merge_says_which_branches_a_join_got():
    with pytest.raises(NodeError, match="exactly two branches, and has 1: 'orders'"):
        await merge(make_context(), MergeConfig("join", on="id"), {"orders": []})
    with pytest.raises(NodeError, match="element 1 of 'b' is a number"):
        await merge(make_context(), MergeConfig("join", on="id"), {"a": [], "b": [{}, 2]})
    with pytest.raises(NodeError, match="its one edge gave a text"):
        await merge(make_context(), MergeConfig(), "alone")


async def test_merge_ends_a_join_that_would_fill_the_memory():
    rows = [{"k": 1}] * 1001
    with pytest.raises(NodeError) as failure:
        await merge(make_context(), MergeConfig("join", on="k"), {"a": rows, "b": rows})
    assert failure.value.code == "too_large"


def test_a_join_without_a_field_is_refused():
    with pytest.raises(ValueError, match="needs `on`"):
        MergeConfig("join")


# --- fail and log ----------------------------------------------------------------------------------------------------


async def test_fail_fails_as_it_is_told():
    config = FailConfig("order 7 is empty", "empty_order", {"id": 7}, retryable=True)
    with pytest.raises(NodeError) as failure:
        await fail(make_context(), config, None)
    error = failure.value
    assert (error.message, error.code, error.data, error.retryable) == (
        "order 7 is empty",
        "empty_order",
        {"id": 7},
        True,
    )


async def test_log_writes_a_line_and_passes_the_input_on():
    ctx = make_context()
    assert await log(ctx, LogConfig("3 rows"), [1, 2, 3]) == [1, 2, 3]
    await log(ctx, LogConfig({"ü": [1, None]}, "warning"), None)
    assert [(line.level, line.message) for line in ctx.log_lines] == [
        ("info", "3 rows"),
        ("warning", '{"ü":[1,null]}'),
    ]


# --- through the engine ----------------------------------------------------------------------------------------------


async def test_branches_part_and_meet_again():
    nodes = [
        {"id": "size", "type": "if", "config": {"condition": "{{ input.n > 10 }}"}},
        {"id": "big", "type": "set", "config": {"values": {"size": "big"}}},
        {"id": "small", "type": "set", "config": {"values": {"size": "small"}}},
        {"id": "always", "type": "set", "config": {"values": {"n": "{{ input.n }}", "size": "?"}}},
        {"id": "all", "type": "merge", "config": {"how": "object"}},
    ]
    edges = [
        ("size", "true", "big"),
        ("size", "false", "small"),
        ("size", "true", "always"),
        ("size", "false", "always"),
        ("always", "all"),
        ("big", "all"),
        ("small", "all"),
    ]
    # the order of the edges decides who wins, not who ends first
    assert (await run(nodes, {"n": 11}, edges)).output["size"] == "big"
    result = await run(nodes, {"n": 1}, edges)
    assert result.output["size"] == "small"
    assert result.node("big").status == "skipped"


async def test_expressions_about_elements_see_item_index_and_everything_else():
    nodes = [
        {"id": "rows", "type": "split", "config": {"field": "rows"}},
        {"id": "dear", "type": "filter", "config": {"where": "{{ item.price > payload.least && index < 3 }}"}},
        {"id": "two", "type": "limit", "config": {"count": "{{ payload.count }}", "from": "end"}},
    ]
    rows = [{"price": price} for price in (5, 1, 7, 9)]
    result = await run(nodes, {"rows": rows, "least": 2, "count": 1})
    assert result.output == [{"price": 7}]
    assert result.node("dear").outputs["rejected"] == [{"price": 1}, {"price": 9}]


async def test_an_element_that_the_expression_cannot_read_fails_the_node():
    result = await run([{"id": "f", "type": "filter", "config": {"where": "{{ item.a.b }}"}}], [{"a": {}}, {}])
    assert (result.status, result.error.code, result.error.node) == ("failed", "expression", "f")


async def test_a_failure_on_purpose_can_be_caught():
    nodes = [
        {
            "id": "no",
            "type": "fail",
            "config": {"message": "no {{ input.id }}", "code": "refused", "data": "{{ input }}"},
        },
        {"id": "note", "type": "log", "config": {"message": "{{ input.message }}", "level": "warning"}},
    ]
    result = await run(nodes, {"id": 7}, [("no", "error", "note")])
    assert result.status == "succeeded"
    assert result.output == {"code": "refused", "message": "no 7", "node": "no", "attempt": 1, "data": {"id": 7}}
    assert [(line.level, line.message) for line in result.node("note").logs] == [("warning", "no 7")]


async def test_data_that_looks_like_a_template_stays_data():
    nodes = [
        {"id": "keep", "type": "filter", "config": {"where": True}},
        {"id": "note", "type": "log", "config": {"message": "{{ input[0] }}"}},
    ]
    result = await run(nodes, ["{{ 7 * 7 }}"])
    assert result.output == ["{{ 7 * 7 }}"]
    assert result.node("note").logs[0].message == "{{ 7 * 7 }}"


def test_what_can_be_told_on_saving_is_refused_with_its_place():
    wrong = [{"id": "way", "type": "switch", "config": {"cases": [{"when": True, "prot": "a"}]}}]
    assert set(refused(wrong)) == {"$.nodes[0].config.cases[0].port", "$.nodes[0].config.cases[0].prot"}
    nodes = [
        {"id": "way", "type": "if", "config": {"condition": 1}},
        {"id": "end", "type": "log", "config": {"message": ""}},
    ]
    assert "it has true, false" in refused(nodes, [("way", "maybe", "end")])["$.edges[0].port"]
    assert refused(nodes, [("way", "true", "end")]) == {}
