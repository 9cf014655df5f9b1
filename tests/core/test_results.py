"""Events and results as JSON, and back."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator_core import Machine, event_from_json, event_to_json
from orchestrator_core.codec import dump_json, make_converter
from orchestrator_core.results import result_from_json, result_to_json
from orchestrator_core.testing import simulate
from orchestrator_core.testing.cases import load_case
from orchestrator_core.testing.strategies import cases


class Colour(StrEnum):
    RED = "red"


def through_json(value: Any) -> Any:
    return json.loads(dump_json(value))


def kinds(value: Any) -> Any:
    """The types inside an object: a status that is only a text equals one that is a status."""
    return [type(part) for part in attrs.astuple(value, recurse=False)]


@given(case=cases())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_what_is_read_from_json_is_what_was_written(case):
    read = load_case(case)
    done = simulate(
        read.workflow, payload=read.payload, start=read.start, pins=read.pins, script=read.script, happens=read.happens
    )
    events = [event_from_json(through_json(event_to_json(event))) for event in done.events]
    assert events == list(done.events)
    assert [kinds(event) for event in events] == [kinds(event) for event in done.events]
    machine = Machine(done.machine.plan)
    machine.replay(events)
    body = through_json(result_to_json(machine.result()))
    assert body == through_json(result_to_json(done.result)), "a machine that was fed with JSON shows the same"
    result = result_from_json(body)
    assert through_json(result_to_json(result)) == body
    assert kinds(result) == kinds(done.result)
    assert [kinds(record) for record in result.nodes] == [kinds(record) for record in done.result.nodes]


def test_a_choice_of_texts_is_read_as_one_of_them():
    converter = make_converter()
    assert type(converter.structure("red", Colour)) is Colour
    with pytest.raises(ValueError, match="must be one of red"):
        converter.structure("blue", Colour)
