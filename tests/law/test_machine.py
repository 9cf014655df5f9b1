"""The machine and the engine against the law: cases worked by hand, a naive reference interpreter, and what always holds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
import reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator_core import IllegalEvent, Machine, OrchestratorError, Workflow, event_from_json, event_to_json
from orchestrator_core.admission import exists
from orchestrator_core.events import (
    DECISIONS,
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    ChildEnded,
    Evaluated,
    Event,
    ExecutionEnded,
    ExecutionStarted,
    NodeDue,
    NodeEnded,
    SignalReceived,
    TimerFired,
)
from orchestrator_core.graph import make_plan
from orchestrator_core.testing import simulate
from orchestrator_core.testing.cases import Ran, compare, load_case, run_on_engine, run_on_machine, same
from orchestrator_core.testing.simulate import describe
from orchestrator_core.testing.strategies import ORDER_INDEPENDENT, cases, reorder
from orchestrator_core.types import ExecutionStatus, Failure, NodeStatus

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "data" / "law"
FILES = sorted(SHARED.glob("*.yaml")) + sorted(HERE.glob("*.yaml"))
SEARCH = settings(
    max_examples=int(os.environ.get("ORCHESTRATOR_EXAMPLES", "700")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
FEWER = settings(SEARCH, max_examples=max(20, SEARCH.max_examples // 5))


def plain(value: Any) -> Any:
    """Without texts for people, which the law leaves open."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "message"}
    return [plain(item) for item in value] if isinstance(value, list) else value


def outcome(ran: Ran, *, order: bool = True) -> dict[str, Any]:
    result = ran.result
    seen: dict[str, Any] = {
        "status": str(result.status),
        "output": result.output,
        "error": None if result.error is None else result.error.to_json(),
        "nodes": {
            io.path: {
                "status": str(io.status),
                "input": io.input,
                "output": io.output,
                "outputs": dict(io.outputs),
                "error": None if io.error is None else io.error.to_json(),
                "attempts": len(io.attempts),
            }
            for io in result.nodes
        },
        "edges": dict(ran.edges),
        "finished_at": result.finished_at,
    }
    if order:
        seen |= {"order": list(ran.order), "max_running": ran.max_running}
    return plain(seen)


def lawful(case: dict[str, Any]) -> dict[str, Any]:
    """Without signals to what does not exist in the plan: whoever sends one is refused, the law says no more."""
    loaded = load_case(case)
    plan = make_plan(loaded.workflow, describe, start=loaded.start)
    kept = [h for h in loaded.happens if "cancel" in h or exists(plan, h["signal"]["path"])]
    return {**case, "happens": kept} if "happens" in case else case


def agrees(case: dict[str, Any], ran: Ran, *, order: bool = True) -> None:
    wanted = plain(reference.interpret(case))
    if wanted["status"] == "running":
        return  # it waits for a signal that never comes
    seen = outcome(ran, order=order)
    differences = [key for key in seen if not same(wanted[key], seen[key])]
    assert not differences, {key: (wanted[key], seen[key]) for key in differences}


def never_ends(case: dict[str, Any]) -> bool:
    return bool(reference.interpret(case)["status"] == "running")


CASES = cases().map(lawful)


# --- cases worked by hand ---------------------------------------------------------------------------------------------


def test_there_are_enough_cases() -> None:
    assert len(list(HERE.glob("*.yaml"))) >= 40


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("where", ["machine", "asyncio", "trio"])
def test_case(file: Path, where: str) -> None:
    case = load_case(file)
    ran = run_on_machine(case) if where == "machine" else run_on_engine(case, backend=where)
    assert list(compare(case, ran)) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_case_survives_crashes(file: Path) -> None:
    case = load_case(file)
    case = attrs.evolve(case, expect={k: v for k, v in case.expect.items() if k not in {"order", "max_running"}})
    for seed in range(3):
        assert list(compare(case, run_on_machine(case, crashes=True, seed=seed))) == []


# --- against the reference interpreter -------------------------------------------------------------------------------


@SEARCH
@given(CASES)
def test_the_machine_agrees_with_the_reference(case: dict[str, Any]) -> None:
    agrees(case, run_on_machine(load_case(case)))


@SEARCH
@given(CASES, st.integers(0, 1000))
def test_crashes_change_nothing(case: dict[str, Any], seed: int) -> None:
    agrees(case, run_on_machine(load_case(case), crashes=True, seed=seed), order=False)


@FEWER
@given(CASES, st.sampled_from(["asyncio", "trio"]))
def test_the_engine_agrees_with_the_reference(case: dict[str, Any], backend: str) -> None:
    if not never_ends(case):
        agrees(case, run_on_engine(load_case(case), backend=backend))


@FEWER
@given(cases(**ORDER_INDEPENDENT).map(lawful), st.integers(0, 1000))
def test_any_order_of_the_same_results_gives_the_same_outcome(case: dict[str, Any], seed: int) -> None:
    calm = outcome(run_on_machine(load_case(case)), order=False)
    other = outcome(run_on_machine(load_case(reorder(case, seed))), order=False)
    del calm["finished_at"], other["finished_at"]
    assert same(calm, other)


# --- what always holds ---------------------------------------------------------------------------------------------------


def journal_of(case: dict[str, Any]) -> tuple[Any, list[Event]]:
    loaded = load_case(case)
    run = simulate(
        loaded.workflow,
        payload=loaded.payload,
        start=loaded.start,
        pins=loaded.pins,
        script=loaded.script,
        happens=loaded.happens,
    )
    return make_plan(loaded.workflow, describe, start=loaded.start), list(run.events)


@SEARCH
@given(CASES)
def test_everything_settles(case: dict[str, Any]) -> None:
    ran = run_on_machine(load_case(case))
    if ran.result.finished_at is None:
        assert never_ends(case)
        return
    assert set(ran.edges.values()) <= {"delivered", "skipped"}
    ended = {NodeStatus.SUCCEEDED, NodeStatus.FAILED, NodeStatus.SKIPPED, NodeStatus.CANCELLED}
    assert {io.status for io in ran.result.nodes} <= ended


@SEARCH
@given(CASES, st.data())
def test_replaying_any_prefix_and_going_on_gives_the_same(case: dict[str, Any], data: st.DataObject) -> None:
    plan, events = journal_of(case)
    cut = data.draw(st.integers(1, len(events)))
    machine = Machine(plan)
    made = list(events[:cut]) + machine.replay(events[:cut]).events
    assert made == events[: len(made)], "what a journal lacks of its last step is decided as it was"
    for event in events[len(made) :]:
        if not isinstance(event, DECISIONS):
            made += machine.receive(event).events
    assert made == events
    whole = Machine(plan)
    assert whole.replay(events).events == []
    assert whole.result() == machine.result()
    assert whole.edges() == machine.edges()


@FEWER
@given(CASES, st.data())
def test_a_snapshot_is_the_state(case: dict[str, Any], data: st.DataObject) -> None:
    plan, events = journal_of(case)
    facts = [event for event in events if not isinstance(event, DECISIONS)]
    cut = data.draw(st.integers(1, len(facts)))
    machine = Machine(plan)
    for event in facts[:cut]:
        machine.receive(event)
    kept = json.loads(json.dumps(machine.snapshot()))
    restored = Machine.restore(plan, kept)
    assert restored.result() == machine.result()
    assert sorted(map(repr, restored.outstanding())) == sorted(map(repr, machine.outstanding()))
    for event in facts[cut:]:
        assert restored.receive(event).events == machine.receive(event).events
    assert restored.result() == machine.result()


@FEWER
@given(CASES)
def test_the_same_facts_give_the_same_events_and_commands(case: dict[str, Any]) -> None:
    plan, events = journal_of(case)
    one, other = Machine(plan), Machine(plan)
    for event in events:
        if not isinstance(event, DECISIONS):
            first, second = one.receive(event), other.receive(event)
            assert first.events == second.events
            assert first.commands == second.commands


@FEWER
@given(CASES)
def test_events_survive_json(case: dict[str, Any]) -> None:
    _, events = journal_of(case)
    for event in events:
        read = event_from_json(json.loads(json.dumps(event_to_json(event))))
        assert read == event
        assert repr(read) == repr(event), "a status is one again, not a text that equals it"


def test_a_status_that_is_none_is_refused() -> None:
    data = event_to_json(ExecutionEnded(1.0, ExecutionStatus.FAILED))
    with pytest.raises(OrchestratorError, match="must be one of running, waiting, succeeded"):
        event_from_json({**data, "status": "lost"})


def test_a_trace_is_kept_and_an_event_without_one_looks_as_it_always_has() -> None:
    start = ExecutionStarted(1.0, "exe_a", trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert event_from_json(event_to_json(start)) == start
    assert "trace" not in event_to_json(ExecutionStarted(1.0, "exe_a"))


def impossible(machine: Machine, at: float) -> list[Event]:
    """Events that no history can produce, whatever the machine has seen."""
    failure = Failure("x", "x")
    running = [io for io in machine.result().nodes if io.status is NodeStatus.RUNNING and io.attempts]
    more = [AttemptSucceeded(at, io.path, len(io.attempts) + 7, {"main": 1}) for io in running]
    return [
        ExecutionStarted(at, "exe_again"),
        AttemptSucceeded(at, "nobody", 1, {"main": 1}),
        AttemptFailed(at, "nobody/3", 1, failure),
        Evaluated(at, "nobody", "when", value=True),
        Evaluated(at, "nobody", "until", value=True),
        TimerFired(at, "nobody", "retry"),
        SignalReceived(at, "nobody", "go", "id"),
        CancelRequested(at, "nobody"),
        ChildEnded(at, "nobody", ExecutionStatus.SUCCEEDED),
        AttemptSucceeded(at - 1000, "a", 1, {}),
        NodeDue(at, "a"),
        AttemptStarted(at, "a", 1),
        NodeEnded(at, "a", NodeStatus.SKIPPED, "join"),
        ExecutionEnded(at, ExecutionStatus.SUCCEEDED),
        *more,
    ]


@FEWER
@given(CASES, st.data())
def test_an_illegal_event_raises_and_changes_nothing(case: dict[str, Any], data: st.DataObject) -> None:
    plan, events = journal_of(case)
    facts = [event for event in events if not isinstance(event, DECISIONS)]
    machine = Machine(plan)
    with pytest.raises(IllegalEvent):
        machine.receive(AttemptSucceeded(0.0, "a", 1, {}))
    for event in facts[: data.draw(st.integers(1, len(facts)))]:
        machine.receive(event)
    before = json.dumps(machine.snapshot())
    for event in impossible(machine, machine.now):
        with pytest.raises(IllegalEvent):
            machine.receive(event)
        assert json.dumps(machine.snapshot()) == before


@pytest.mark.parametrize("how", ["cancelled", "failed", "timeout"])
def test_how_an_execution_ends_is_decided_once_while_its_children_end(how: str) -> None:
    nodes = [{"id": "call", "type": "workflow", "config": {"workflow": "inner"}}, {"id": "a", "type": "echo"}]
    document = {"schema": 1, "id": "w", "settings": {"timeout": 5}, "nodes": nodes}
    machine = Machine(make_plan(Workflow.from_dict(document), describe))
    machine.receive(ExecutionStarted(0.0, "exe_a"))
    if how == "cancelled":
        machine.receive(CancelRequested(1.0, ""))
    elif how == "failed":
        machine.receive(AttemptFailed(1.0, "a", 1, Failure("broken", "it is broken")))
    else:
        machine.receive(TimerFired(5.0, "", "timeout"))
    assert machine.ended is None, "its child has not ended"
    assert not machine.timers, "it waits for no time any more"
    assert machine.receive(TimerFired(5.0, "", "timeout")).events == []
    assert machine.receive(CancelRequested(6.0, "")).events == []
    machine.receive(ChildEnded(7.0, "call", ExecutionStatus.CANCELLED))
    ended = machine.ended
    assert ended is not None
    assert (ended.status, ended.error and ended.error.code) == {
        "cancelled": (ExecutionStatus.CANCELLED, None),
        "failed": (ExecutionStatus.FAILED, "broken"),
        "timeout": (ExecutionStatus.FAILED, "timeout"),
    }[how]


@FEWER
@given(CASES, st.data())
def test_stale_completions_leave_no_event(case: dict[str, Any], data: st.DataObject) -> None:
    plan, events = journal_of(case)
    facts = [event for event in events if not isinstance(event, DECISIONS)]
    machine = Machine(plan)
    for event in facts[: data.draw(st.integers(1, len(facts)))]:
        machine.receive(event)
    before = json.dumps(machine.snapshot())
    for io in machine.result().nodes:
        for attempt in io.attempts:
            if io.status is not NodeStatus.RUNNING:
                stale = AttemptSucceeded(machine.now, io.path, attempt.number, {"main": "late"})
                assert machine.receive(stale).events == []
    assert json.dumps(machine.snapshot()) == before
