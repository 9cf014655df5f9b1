"""Events and records as text: what is written quickly is what would be written with care."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator_core.events import AttemptStarted, AttemptSucceeded, ExecutionEnded
from orchestrator_core.journal import event_to_json
from orchestrator_core.results import node_io_to_json
from orchestrator_core.types import Attempt, ExecutionStatus, Failure, LogLine, NodeIO, NodeStatus
from orchestrator_server import wire

text = st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
times = st.floats(0, 4e9)
failures = st.none() | st.builds(Failure, text, text, st.none() | text, st.none() | st.integers(1, 9), values)
outputs = st.dictionaries(st.sampled_from(["main", "true", 'e"r', "é"]), values, max_size=3)
logs = st.lists(st.builds(LogLine, times, text, text), max_size=2).map(tuple)
attempts = st.lists(st.builds(Attempt, st.integers(1, 99), times, st.none() | times, failures), max_size=2).map(tuple)


@st.composite
def records(draw: st.DrawFn) -> NodeIO:
    began, left = draw(st.none() | times), draw(st.none() | times)
    plain = draw(st.booleans())
    common = (draw(text), draw(text), draw(text), draw(st.sampled_from(NodeStatus)), draw(values))
    ports = draw(outputs)
    if plain and began is not None:
        tried = draw(st.sampled_from([(began, left), (left or 0.0, began)]))
        return NodeIO(*common, ports.get("main"), ports, None, (Attempt(1, *tried),), (), began, left)
    return NodeIO(*common, ports.get("main"), ports, draw(failures), draw(attempts), draw(logs), began, left)


@given(st.lists(records(), max_size=4), values, failures)
def test_records_are_written_as_their_json(nodes: list[NodeIO], output: Any, error: Failure | None) -> None:
    end = ExecutionEnded(3.0, ExecutionStatus.SUCCEEDED, output, error)
    outcome = wire.encode_events([end], nodes).outcome
    assert outcome is not None
    expected = {
        "output": output,
        "error": None if error is None else error.to_json(),
        "nodes": [node_io_to_json(record) for record in nodes],
    }
    assert outcome.data == json.dumps(expected, ensure_ascii=False, separators=(",", ":"))


@given(st.lists(st.builds(AttemptSucceeded, times, text, st.integers(1, 9), outputs, logs), max_size=4), values)
def test_events_are_written_as_their_json(batch: list[AttemptSucceeded], shared: Any) -> None:
    events = [*batch, AttemptStarted(1.5, 'a/"b', 2), AttemptSucceeded(2.0, "a", 1, {"main": shared, "true": shared})]
    expected = json.dumps([event_to_json(event) for event in events], ensure_ascii=False, separators=(",", ":"))
    assert wire.encode_events(events).text.data == expected


def test_the_same_value_is_written_whole_wherever_it_stands() -> None:
    value: dict[str, Any] = {"n": [1, {"two": 2}]}
    twice = {"inner": value["n"], "again": value}
    step = AttemptSucceeded(1.0, "a", 1, {"main": value, "true": twice})
    record = NodeIO("a", "a", "set", NodeStatus.SUCCEEDED, value, twice, {"main": twice}, attempts=(Attempt(1, 1.0),))
    encoded = wire.encode_events([step, ExecutionEnded(2.0, ExecutionStatus.SUCCEEDED, twice)], [record])
    assert json.loads(encoded.text.data)[0]["outputs"] == {"main": value, "true": twice}
    assert encoded.outcome is not None
    outcome = wire.decode_outcome(encoded.outcome.data, None, lambda _: {})
    assert (outcome.output, outcome.nodes) == (twice, (node_io_to_json(record),))


def test_what_is_no_json_is_refused() -> None:
    for odd in (float("nan"), float("inf"), object(), {1, 2}):
        try:
            wire.to_text({"v": odd})
        except (TypeError, ValueError):
            continue
        raise AssertionError(f"{odd} was written")
