from __future__ import annotations

import copy
import itertools

import pytest
from helpers import Each, run
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_core import NodeError
from orchestrator_core.testing import make_context
from orchestrator_nodes_std.data import (
    AggregateConfig,
    Aggregation,
    DedupeConfig,
    MapConfig,
    SetConfig,
    SortBy,
    SortConfig,
    SummarizeConfig,
    aggregate,
    dedupe,
    map_,
    set_,
    sort,
    summarize,
)
from orchestrator_nodes_std.shapes import get_path, order_key, remove_path, set_path, split_path

pytestmark = pytest.mark.anyio


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([-0.0, 0.5, 1.0])
    | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)

# --- set -------------------------------------------------------------------------------------------------------------


async def test_set_makes_an_object_of_its_values_alone():
    assert await set_(make_context(), SetConfig({"a": 1, "b.c": 2}), {"old": True}) == {"a": 1, "b": {"c": 2}}


async def test_set_keeps_removes_and_sets_without_touching_the_input():
    order = {"id": 7, "customer": {"name": "Ada", "notes": "-"}, "lines": [{"n": 1}, {"n": 2}], "draft": True}
    before = copy.deepcopy(order)
    config = SetConfig(
        {"customer.vip": True, "lines.1.n": 5, "customer.address.city": "Kiel"},
        keep=True,
        remove=["draft", "customer.notes", "lines.0", "absent.path"],
    )
    with pytest.raises(NodeError, match="'1' is no place in a list of 1"):
        await set_(make_context(), config, order)
    config = SetConfig({"customer.vip": True, "lines.1.n": 5, "a.b": 1}, keep=True, remove=["draft", "customer.notes"])
    assert await set_(make_context(), config, order) == {
        "id": 7,
        "customer": {"name": "Ada", "vip": True},
        "lines": [{"n": 1}, {"n": 5}],
        "a": {"b": 1},
    }
    assert order == before


async def test_set_reads_an_escaped_dot_as_part_of_the_name():
    assert await set_(make_context(), SetConfig({r"a\.b.c\\d": 1}), None) == {"a.b": {"c\\d": 1}}


async def test_set_starts_from_nothing_when_null_comes_in_and_refuses_a_list():
    assert await set_(make_context(), SetConfig({"a": 1}, keep=True), None) == {"a": 1}
    with pytest.raises(NodeError, match="must be an object, but is a list"):
        await set_(make_context(), SetConfig({"a": 1}, keep=True), [])


async def test_set_does_not_write_into_a_text():
    with pytest.raises(NodeError, match=r"cannot set `a\.b`: on the way to 'b' stands a text"):
        await set_(make_context(), SetConfig({"a.b": 1}, keep=True), {"a": "text"})


async def test_set_holds_names_that_javascript_fears_as_plain_data():
    made = await set_(make_context(), SetConfig({"__proto__.polluted": 1, "constructor": 2}), None)
    assert made == {"__proto__": {"polluted": 1}, "constructor": 2}


def test_set_refuses_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="`remove` needs `keep: true`"):
        SetConfig({}, remove=["a"])
    with pytest.raises(ValueError, match="`values` holds a path '' has an empty part"):
        SetConfig({"": 1})


# --- paths and the order of values -----------------------------------------------------------------------------------


@given(VALUES, st.lists(st.sampled_from(["a", "b", "0", "x.y", "\\"]), min_size=1, max_size=3))
def test_what_is_set_at_a_path_is_found_there_and_the_rest_is_as_it_was(base, parts):
    path = ".".join(part.replace("\\", "\\\\").replace(".", "\\.") for part in parts)
    assert split_path(path) == tuple(parts)
    before = copy.deepcopy(base)
    try:
        changed = set_path(base, tuple(parts), "new", path=path)
    except NodeError:
        changed = None
    else:
        assert get_path(changed, parts) == "new"
        if not isinstance(base, list):
            assert len(changed) - len(base or ()) in (0, 1)
    remove_path(base, tuple(parts))
    assert base == before


@given(st.lists(VALUES, max_size=6))
def test_any_values_can_be_sorted_and_equal_keys_mean_equal_values(values):
    ordered = sorted(values, key=order_key)
    assert sorted(map(order_key, reversed(values))) == list(map(order_key, ordered))
    for one, other in itertools.pairwise(ordered):
        assert order_key(one) <= order_key(other)
        if order_key(one) == order_key(other):
            assert hash(order_key(one)) == hash(order_key(other))
            assert one == other


def test_a_number_is_no_boolean_and_a_text_no_number():
    assert len({order_key(value) for value in [1, True, "1", [1], {"1": 1}, None, False, 0]}) == 8
    assert order_key(1) == order_key(1.0)
    assert order_key({"a": 1, "b": 2}) == order_key({"b": 2, "a": 1})


# --- map -------------------------------------------------------------------------------------------------------------


async def test_map_evaluates_once_per_element():
    config = MapConfig(Each(lambda item, index: [item * 2, index]))
    assert await map_(make_context(), config, [5, 6]) == [[10, 0], [12, 1]]
    assert await map_(make_context(), MapConfig(config.value, items=[]), [5]) == []


# --- sort ------------------------------------------------------------------------------------------------------------

ROWS = [
    {"id": 1, "land": "fr", "sum": 5},
    {"id": 2, "land": "de", "sum": None},
    {"id": 3, "land": "de", "sum": 9},
    {"id": 4, "land": "fr"},
    {"id": 5, "land": "de", "sum": 1},
    {"id": 6, "land": "fr", "sum": 5},
]


@pytest.mark.parametrize(
    ("by", "ids"),
    [
        ([SortBy("land"), SortBy("sum", "desc")], [3, 5, 2, 1, 6, 4]),
        ([SortBy("land", "desc"), SortBy("sum", "asc", "first")], [4, 1, 6, 2, 5, 3]),
        ([SortBy("sum", "desc", "first")], [2, 4, 3, 1, 6, 5]),
        ([SortBy("absent")], [1, 2, 3, 4, 5, 6]),
    ],
)
async def test_sort_goes_by_fields_stably_with_nulls_where_asked(by, ids):
    before = copy.deepcopy(ROWS)
    assert [row["id"] for row in await sort(make_context(), SortConfig(by), ROWS)] == ids
    assert before == ROWS


async def test_sort_goes_by_an_expression():
    config = SortConfig(key=Each(lambda item, _: item.lower() if item else None), order="desc", nulls="first")
    assert await sort(make_context(), config, ["b", "A", "", "C", "a"]) == ["", "C", "b", "A", "a"]


async def test_sort_has_an_order_for_values_of_different_kinds():
    mixed = [{}, [2], "b", None, 3, True, "B", 2.5, False, [1, 9], 10**400]
    assert await sort(make_context(), SortConfig(), mixed) == [
        False, True, 2.5, 3, 10**400, "B", "b", [1, 9], [2], {}, None,
    ]  # fmt: skip


def test_sort_refuses_fields_and_an_expression_at_once():
    with pytest.raises(ValueError, match="exclude each other"):
        SortConfig([SortBy("a")], key=Each(lambda item, _: item))


# --- dedupe ----------------------------------------------------------------------------------------------------------


async def test_dedupe_keeps_the_first_or_the_last():
    people = [{"m": "a", "n": 1}, {"m": "b", "n": 2}, {"m": "a", "n": 3}, {"n": 4}, {"m": None, "n": 5}]
    assert [row["n"] for row in await dedupe(make_context(), DedupeConfig(["m"]), people)] == [1, 2, 4]
    assert [row["n"] for row in await dedupe(make_context(), DedupeConfig(["m"], "last"), people)] == [2, 3, 5]


async def test_dedupe_compares_whole_values():
    values = [1, True, 1.0, "1", {"a": 1, "b": [1]}, {"b": [1], "a": 1}, None, None]
    assert await dedupe(make_context(), DedupeConfig(), values) == [1, True, "1", {"a": 1, "b": [1]}, None]


# --- aggregate and summarize -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "made", "of_nothing"),
    [
        ("list", [5, None, 9, None, 1, 5], []),
        ("sum", 20, 0),
        ("avg", 5, None),
        ("min", 1, None),
        ("max", 9, None),
        ("count", 4, 0),
        ("first", 5, None),
        ("last", 5, None),
        ("unique", [5, 9, 1], []),
        ("join", "5,9,1,5", ""),
    ],
)
async def test_aggregate_makes_one_value_of_a_field(how, made, of_nothing):
    config = AggregateConfig({"x": Aggregation(how, "sum")})
    assert await aggregate(make_context(), config, ROWS) == {"x": made}
    assert await aggregate(make_context(), config, []) == {"x": of_nothing}


async def test_aggregate_works_on_plain_elements_and_sets_places_inside():
    config = AggregateConfig(
        {"all.text": Aggregation("join", separator=" + "), "all.sum": Aggregation("sum"), "n": Aggregation("count")}
    )
    assert await aggregate(make_context(), config, [1, 2, None]) == {"all": {"text": "1 + 2", "sum": 3}, "n": 3}


async def test_sums_do_not_lose_small_numbers_and_whole_ones_stay_whole():
    config = AggregateConfig({"s": Aggregation("sum"), "a": Aggregation("avg")})
    assert await aggregate(make_context(), config, [1e16, 1.0, -1e16]) == {"s": 1.0, "a": 1 / 3}
    assert await aggregate(make_context(), config, [2**60, 1]) == {"s": 2**60 + 1, "a": (2**60 + 1) / 2}


@pytest.mark.parametrize("values", [[1e308, 1e308], [10**400, 0.5]])
async def test_a_sum_that_json_cannot_hold_fails(values):
    with pytest.raises(NodeError) as failure:
        await aggregate(make_context(), AggregateConfig({"s": Aggregation("sum")}), values)
    assert failure.value.code == "overflow"


@pytest.mark.parametrize("wrong", ["5", True, [1]])
async def test_a_sum_of_other_things_than_numbers_fails(wrong):
    with pytest.raises(NodeError, match="`how: sum` needs numbers, but `p` is"):
        await aggregate(make_context(), AggregateConfig({"s": Aggregation("sum", "p")}), [{"p": 1}, {"p": wrong}])


async def test_summarize_groups_as_sql_does():
    rows = [
        {"who": {"land": "fr"}, "n": 1},
        {"who": {"land": "de"}, "n": 2},
        {"who": {"land": "fr"}, "n": 3},
        {"n": 4},
        {"who": {"land": None}, "n": 5},
    ]
    config = SummarizeConfig({"total": Aggregation("sum", "n"), "who.count": Aggregation("count")}, ["who.land"])
    assert await summarize(make_context(), config, rows) == [
        {"who": {"land": "fr", "count": 2}, "total": 4},
        {"who": {"land": "de", "count": 1}, "total": 2},
        {"who": {"land": None, "count": 2}, "total": 9},
    ]


def test_summarize_refuses_two_fields_at_one_place():
    with pytest.raises(ValueError, match="'a' and 'a' would take the same place"):
        SummarizeConfig({"a": Aggregation("count")}, ["a"])
    with pytest.raises(ValueError, match=r"'a\.b' and 'a' would take the same place"):
        SummarizeConfig({"a": Aggregation("count")}, ["a.b"])
    with pytest.raises(ValueError, match="must name at least one field"):
        SummarizeConfig({}, ["a"])


# --- through the engine ----------------------------------------------------------------------------------------------


async def test_rows_become_a_report():
    nodes = [
        {"id": "clean", "type": "dedupe", "config": {"fields": ["id"], "keep": "last"}},
        {
            "id": "priced",
            "type": "map",
            "config": {
                "value": {"land": "{{ item.land }}", "sum": "{{ item.qty * payload[0].price }}", "place": "{{ index }}"}
            },
        },
        {
            "id": "lands",
            "type": "summarize",
            "config": {
                "group_by": ["land"],
                "fields": {"total": {"of": "sum", "how": "sum"}, "places": {"of": "place", "how": "list"}},
            },
        },
        {"id": "ranked", "type": "sort", "config": {"key": "{{ -item.total }}"}},
        {
            "id": "report",
            "type": "set",
            "config": {"values": {"top.land": "{{ input[0].land }}", "rows": "{{ input }}"}},
        },
    ]
    rows = [
        {"id": 1, "land": "fr", "qty": 1, "price": 2},
        {"id": 2, "land": "de", "qty": 2},
        {"id": 3, "land": "de", "qty": 3},
        {"id": 1, "land": "fr", "qty": 4},
    ]
    result = await run(nodes, rows)
    assert result.output == {
        "top": {"land": "de"},
        "rows": [{"land": "de", "total": 10, "places": [0, 1]}, {"land": "fr", "total": 8, "places": [2]}],
    }


async def test_the_input_of_a_node_is_not_changed_by_those_behind_it():
    nodes = [
        {"id": "one", "type": "set", "config": {"values": {"a.b": 1}, "keep": True}},
        {"id": "two", "type": "set", "config": {"values": {"a.b": 2, "a.c": 3}, "remove": ["x"], "keep": True}},
    ]
    result = await run(nodes, {"x": 0, "a": {}})
    assert result.node("one").output == {"x": 0, "a": {"b": 1}}
    assert result.output == {"a": {"b": 2, "c": 3}}


async def test_a_setting_that_turns_out_wrong_fails_the_node_for_good():
    config = {"fields": {"x": {"how": "{{ input[0] }}"}}}
    result = await run([{"id": "a", "type": "aggregate", "config": config, "retry": {"attempts": 3}}], ["median"])
    assert (result.error.code, result.error.attempt) == ("bad_config", 1)
    assert "must be one of list, sum" in result.error.message
