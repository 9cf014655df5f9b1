"""The engine as an embedder meets it, on asyncio and trio."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from orchestrator_core import (
    DocumentError,
    Duration,
    Engine,
    Execution,
    IllegalEvent,
    MemoryJournal,
    NodeContext,
    NodeError,
    OrchestratorError,
    Workflow,
    hookimpl,
    node_type,
    setting,
)
from orchestrator_core.driver import Driver
from orchestrator_core.events import AttemptStarted, Event, ExecutionEnded, ExecutionStarted, NodeEnded
from orchestrator_core.journal import event_from_json, event_to_json
from orchestrator_core.results import result_to_json

pytestmark = pytest.mark.anyio


@attrs.frozen
class Nothing:
    pass


@attrs.frozen
class SleepConfig:
    seconds: float = 0.0
    ignore: bool = False


@attrs.frozen
class SayConfig:
    text: Any = None
    secret: str = setting(default="", secret=True)


seen: list[Any] = []


@node_type("sleep")
async def sleep(ctx: NodeContext, config: SleepConfig, input: Any) -> Any:
    try:
        await anyio.sleep(config.seconds)
    except anyio.get_cancelled_exc_class():
        seen.append(("cancelled", ctx.path))
        raise
    return input


@node_type("say", ports=None, inputs=None)
async def say(ctx: NodeContext, config: SayConfig, input: Any) -> Any:
    ctx.log.info(f"saying {config.text} with {config.secret}")
    return config.text


@node_type("approve")
async def approve(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    if ctx.resumed is None:
        ctx.wait_for_signal("answer", expires=30)
    return ctx.resumed.payload


@node_type("nap", pure=True)
async def nap(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    if ctx.resumed is None:
        ctx.wait_for(0.02)
    return [ctx.resumed.kind, ctx.resumed.count]


@node_type("flaky")
async def flaky(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    if ctx.attempt < 3:
        raise NodeError("not yet", code="busy", retryable=True)
    return [ctx.attempt, ctx.idempotency_key]


@node_type("boom")
async def boom(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    raise ValueError("no good")


@node_type("spoil")
async def spoil(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    input["spoilt"] = True
    return input


@node_type("odd")
async def odd(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    return {"when": {1, 2}}


@node_type("both", ports=("main", "left"))
async def both(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    ctx.emit("left", 1)
    return 2


TYPES = [sleep, say, approve, nap, flaky, boom, spoil, odd, both]


def engine(**given: Any) -> Engine:
    return Engine(node_types=TYPES, discover=False, **given)


def workflow(*nodes: dict[str, Any], edges: list[dict[str, Any]] | None = None, **rest: Any) -> Workflow:
    return Workflow.from_dict({"schema": 1, "id": "w", "nodes": list(nodes), "edges": edges or [], **rest})


async def test_run_gives_the_result_and_the_records() -> None:
    w = workflow(
        {"id": "a", "type": "say", "config": {"text": "{{ input.n }}"}},
        {"id": "b", "type": "say", "config": {"text": "n was {{ nodes.a.output }} of {{ payload }}"}},
        edges=[{"source": "a", "target": "b"}],
    )
    async with engine() as e:
        result = await e.run(w, {"n": 3})
    assert result.status == "succeeded"
    assert result.output == 'n was 3 of {"n":3}'
    assert result.node("a").output == 3
    assert result.execution_id.startswith("exe_")
    record = result.node("b")
    assert [attempt.number for attempt in record.attempts] == [1]
    assert [line.message for line in record.logs] == ['saying n was 3 of {"n":3} with ']
    assert record.started_at is not None
    assert record.finished_at is not None
    with pytest.raises(KeyError):
        result.node("nobody")


async def test_a_failure_is_a_result_that_can_be_raised() -> None:
    async with engine() as e:
        result = await e.run(workflow({"id": "a", "type": "boom"}))
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.code, result.error.node) == ("exception", "a")
    assert "ValueError: no good" in result.error.message
    with pytest.raises(RuntimeError, match="no good"):
        result.raise_for_status()


@pytest.mark.parametrize("pure", [True, False])
async def test_whatever_suspends_somebody_else_goes_on(pure: bool) -> None:
    """Each node waits for all others to have begun: twice, since who has suspended once may do so again."""
    begun: dict[int, set[str]] = {1: set(), 2: set()}
    all_there = {1: anyio.Event(), 2: anyio.Event()}

    @node_type("meet", pure=pure)
    async def meet(ctx: NodeContext, config: Nothing, input: Any) -> Any:
        for stage in (1, 2):
            begun[stage].add(ctx.node_id)
            if len(begun[stage]) == 10:
                all_there[stage].set()
            await all_there[stage].wait()

    async with Engine(node_types=[meet], discover=False) as e:
        with anyio.fail_after(5):
            result = await e.run(workflow(*({"id": f"n{number}", "type": "meet"} for number in range(10))))
    assert result.status == "succeeded"


async def test_many_slow_nodes_run_side_by_side_and_no_more_than_allowed() -> None:
    nodes = [{"id": f"n{i}", "type": "sleep", "config": {"seconds": 0.1}} for i in range(40)]
    async with engine() as e:
        begin = time.monotonic()
        await e.run(workflow(*nodes, settings={"max_parallel": None}))
        wide = time.monotonic() - begin
        begin = time.monotonic()
        await e.run(workflow(*nodes[:6], settings={"max_parallel": 2}))
        narrow = time.monotonic() - begin
    assert wide < 2
    assert narrow >= 0.3


async def test_retries_keep_the_idempotency_key() -> None:
    async with engine() as e:
        result = await e.run(workflow({"id": "a", "type": "flaky", "retry": {"attempts": 3, "delay": 0.01}}))
    record = result.node("a")
    assert record.output[0] == 3
    assert len(record.output[1]) == 32
    assert [attempt.error.code if attempt.error else None for attempt in record.attempts] == ["busy", "busy", None]


async def test_a_timeout_cancels_the_attempt_through_its_scope() -> None:
    seen.clear()
    async with engine() as e:
        begin = time.monotonic()
        result = await e.run(workflow({"id": "a", "type": "sleep", "config": {"seconds": 60}, "timeout": 0.05}))
    assert time.monotonic() - begin < 5
    assert result.error is not None
    assert result.error.code == "timeout"
    assert seen == [("cancelled", "a")]


async def test_waits_hold_nothing_and_wake() -> None:
    async with engine() as e:
        result = await e.run(workflow({"id": "a", "type": "nap", "timeout": 5}, settings={"max_parallel": 1}))
    assert result.output == ["time", 1]
    assert len(result.node("a").attempts) == 1


async def test_signals_reach_those_who_wait_once() -> None:
    async with engine() as e:
        execution = await e.start(workflow({"id": "a", "type": "approve"}))
        with pytest.raises(IllegalEvent, match="nobody"):
            await execution.signal("nobody", "answer")
        while execution.status != "waiting":
            await anyio.sleep(0.001)
        await execution.signal("a", "question", 0, id="s0")
        await execution.signal("a", "answer", {"yes": True}, id="s1")
        await execution.signal("a", "answer", {"yes": False}, id="s1")
        result = await execution.result()
    assert result.output == {"yes": True}


async def test_cancelling_ends_what_runs() -> None:
    seen.clear()
    async with engine() as e:
        execution = await e.start(
            workflow({"id": "a", "type": "sleep", "config": {"seconds": 60}}, {"id": "b", "type": "approve"})
        )
        while execution.status == "running" and len((await execution.snapshot()).nodes) < 2:
            await anyio.sleep(0.001)
        await anyio.sleep(0.01)
        await execution.cancel()
        result = await execution.result()
    assert result.status == "cancelled"
    assert {io.status for io in result.nodes} == {"cancelled"}
    assert seen == [("cancelled", "a")]


async def test_the_events_can_be_followed_to_the_end() -> None:
    events = []
    async with engine() as e:
        execution = await e.start(workflow({"id": "a", "type": "say"}, {"id": "b", "type": "approve"}))
        async for event in execution.events():
            events.append(event)
            if isinstance(event, AttemptStarted) and event.path == "b" and len(events) < 20:
                await execution.signal("b", "answer", 1, id="only")
        result = await execution.result()
    assert isinstance(events[0], ExecutionStarted)
    assert isinstance(events[-1], ExecutionEnded)
    assert events[-1].status == result.status == "succeeded"


async def test_observers_see_committed_events() -> None:
    class Observer:
        def __init__(self) -> None:
            self.seen: list[tuple[str, str]] = []

        @hookimpl
        def observe_event(self, execution_id: str, event: Any) -> None:
            self.seen.append((execution_id, type(event).__name__))

    observer = Observer()
    async with Engine(node_types=TYPES, discover=False, plugins=[observer]) as e:
        result = await e.run(workflow({"id": "a", "type": "say"}))
    assert {execution_id for execution_id, _ in observer.seen} == {result.execution_id}
    assert [name for _, name in observer.seen] == [
        "ExecutionStarted",
        "AttemptStarted",
        "AttemptSucceeded",
        "ExecutionEnded",
    ]


async def test_attempts_run_inside_what_plugins_put_around_them() -> None:
    class Around:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        @hookimpl
        def around_attempt(self, ctx: NodeContext, node_type: str) -> Any:
            return self.note(ctx, node_type)

        @contextlib.contextmanager
        def note(self, ctx: NodeContext, node_type: str) -> Iterator[None]:
            try:
                yield
            except BaseException as error:
                self.seen.append((ctx.path, node_type, ctx.attempt, type(error).__name__))
                raise
            self.seen.append((ctx.path, node_type, ctx.attempt, ""))

    around = Around()
    nodes = (
        {"id": "a", "type": "say", "config": {"text": "hello"}},
        {"id": "bad", "type": "say", "config": {"text": "{{ input.x.y }}"}, "on_error": "continue"},
        {"id": "wait", "type": "approve"},
    )
    async with Engine(node_types=TYPES, discover=False, plugins=[around]) as e:
        execution = await e.start(workflow(*nodes))
        while (await execution.snapshot()).node("wait").status != "waiting":
            await anyio.sleep(0.001)
        await execution.cancel()
        result = await execution.result()
    assert sorted(around.seen) == [
        ("a", "say", 1, ""),
        ("bad", "say", 1, "ExpressionError"),
        ("wait", "approve", 1, "WaitRequested"),
    ]
    assert result.node("a").output == "hello"
    assert result.node("bad").error is not None


async def test_resuming_from_the_journal_does_again_what_was_outstanding() -> None:
    journal = MemoryJournal()
    w = workflow(
        {"id": "a", "type": "say", "config": {"text": 1}},
        {"id": "b", "type": "sleep", "config": {"seconds": 60}, "on_error": "continue"},
        {"id": "c", "type": "approve"},
        edges=[{"source": "a", "target": "b"}, {"source": "a", "target": "c"}],
    )
    async with engine(journal=journal) as first:
        execution = await first.start(w, "p")
        while execution.status != "running" or (await execution.snapshot()).node("c").status != "waiting":
            await anyio.sleep(0.001)
    with pytest.raises(OrchestratorError, match="closed"):
        await execution.result()
    quick = attrs.evolve(w, nodes=tuple(attrs.evolve(n, config={}) if n.id == "b" else n for n in w.nodes))
    async with engine(journal=journal) as second:
        with pytest.raises(OrchestratorError, match="no execution"):
            await second.resume(quick, "exe_unknown")
        resumed = await second.resume(quick, execution.id)
        await resumed.signal("c", "answer", "ok")
        result = await resumed.result()
    assert result.status == "succeeded"
    assert result.output == {"b": 1, "c": "ok"}
    assert len(result.node("b").attempts) == 1


async def test_on_lost_fail_does_not_run_it_again() -> None:
    journal = MemoryJournal()
    w = workflow({"id": "a", "type": "sleep", "config": {"seconds": 60}, "on_lost": "fail"})
    async with engine(journal=journal) as first:
        execution = await first.start(w)
        await anyio.sleep(0.01)
    async with engine(journal=journal) as second:
        result = await (await second.resume(w, execution.id)).result()
    assert result.error is not None
    assert result.error.code == "lost"


async def test_pins_stand_for_what_did_not_run() -> None:
    w = workflow(
        {"id": "a", "type": "boom"},
        {"id": "b", "type": "say", "config": {"text": "{{ input }}"}},
        edges=[{"source": "a", "target": "b"}],
    )
    async with engine() as e:
        result = await e.run(w, pins={"a": {"main": "pinned"}})
    assert result.output == "pinned"
    assert result.node("a").attempts == ()


async def test_what_a_function_does_to_its_input_stays_with_it() -> None:
    w = workflow(
        {"id": "a", "type": "spoil"},
        {"id": "b", "type": "say", "config": {"text": "{{ payload }}"}},
        edges=[{"source": "a", "target": "b"}],
    )
    payload = {"n": 1}
    async with engine() as e:
        result = await e.run(w, payload)
    assert payload == {"n": 1}
    assert result.node("a").input == {"n": 1}
    assert result.node("a").output == {"n": 1, "spoilt": True}
    assert result.output == {"n": 1}


async def test_outputs_that_are_no_json_fail_the_node() -> None:
    async with engine() as e:
        result = await e.run(workflow({"id": "a", "type": "odd"}))
        twice = await e.run(workflow({"id": "a", "type": "both"}))
    assert result.error is not None
    assert result.error.code == "bad_output"
    assert "$.when" in result.error.message
    assert "set" in result.error.message
    assert twice.error is not None
    assert "one or the other" in twice.error.message


async def test_a_secret_that_is_not_there_fails_its_node() -> None:
    node = {"id": "a", "type": "say", "config": {"text": "x", "secret": "key {{ secrets.token }}"}}
    async with engine(secrets={"other": "hunter2hunter2"}) as e:
        result = await e.run(workflow(node))
    assert result.error is not None
    assert (result.error.code, result.error.node) == ("expression", "a")
    assert "there is no secret 'token' here" in result.error.message


async def test_secrets_are_put_in_and_masked() -> None:
    w = workflow(
        {"id": "a", "type": "say", "config": {"text": "x", "secret": "key {{ secrets.token }}"}},
        {"id": "b", "type": "say", "config": {"text": "{{ nodes.a.output }}"}},
        edges=[{"source": "a", "target": "b"}],
    )
    async with engine(secrets={"token": "hunter2hunter2"}) as e:
        result = await e.run(w)
        assert [line.message for line in result.node("a").logs] == ["saying x with key ***"]
        with pytest.raises(DocumentError, match=r"\$\.nodes\[0\]\.config\.text: secrets may only stand"):
            await e.run(workflow({"id": "a", "type": "say", "config": {"text": "{{ secrets.token }}"}}))
        with pytest.raises(DocumentError, match=r"\$\.nodes\[0\]\.when: secrets"):
            await e.run(workflow({"id": "a", "type": "say", "when": "{{ secrets.token }}"}))


async def test_callables_are_found_only_among_those_given() -> None:
    async def double(input: int, *, plus: int = 0) -> int:
        return input * 2 + plus

    def triple(input: int, ctx: NodeContext) -> list[Any]:
        return [input * 3, ctx.path]

    w = workflow(
        {"id": "a", "type": "call", "config": {"function": "double", "arguments": {"plus": "{{ payload }}"}}},
        {"id": "b", "type": "call", "config": {"function": "triple"}},
        {"id": "c", "type": "call", "config": {"function": "os.system"}, "on_error": "continue"},
        edges=[{"source": "a", "target": "b"}],
    )
    async with engine(callables={"double": double, "triple": triple}) as e:
        result = await e.run(w, 2)
    assert result.node("b").output == [18, "b"]
    assert result.node("c").output["code"] == "unknown_callable"
    assert "double, triple" in result.node("c").output["message"]


async def test_stored_workflows_are_child_executions() -> None:
    child = Workflow.from_dict(
        {
            "schema": 1,
            "id": "child",
            "nodes": [{"id": "x", "type": "say", "config": {"text": "{{ input.n }}"}}],
            "edges": [],
        }
    )
    failing = Workflow.from_dict({"schema": 1, "id": "failing", "nodes": [{"id": "x", "type": "boom"}]})
    w = workflow(
        {"id": "good", "type": "workflow", "config": {"workflow": "child"}},
        {"id": "bad", "type": "workflow", "config": {"workflow": "failing"}, "on_error": "continue"},
    )
    async with engine(workflows=[child, failing]) as e:
        result = await e.run(w, {"n": 5})
        with pytest.raises(DocumentError, match="there is no workflow 'nobody'"):
            await e.run(workflow({"id": "a", "type": "workflow", "config": {"workflow": "nobody"}}))
    assert result.node("good").output == 5
    assert result.node("bad").output["code"] == "exception"
    assert result.node("bad").output["node"] == "bad"


async def with_a_child_at_rest(e: Engine, execution: Execution) -> Driver:
    """The driver of an execution, once it has a child and both only wait."""
    driver = e.driver(execution.id)
    assert driver is not None
    while not driver.children or not driver.is_still():
        await anyio.sleep(0.01)
    return driver


@pytest.mark.parametrize("known", [False, True])
async def test_a_child_that_is_cancelled_before_it_is_there_is_cancelled(known: bool) -> None:
    """Its journal is being read when the cancel comes: before it begins, or before it is gone on with."""
    child = Workflow.from_dict({"schema": 1, "id": "child", "nodes": [{"id": "x", "type": "approve"}]})
    parent = workflow({"id": "a", "type": "workflow", "config": {"workflow": "child"}})

    class Slow(MemoryJournal):
        reading: anyio.Event | None = None

        async def read(self, tenant: str, execution_id: str, after: int = 0) -> Sequence[Event]:
            if self.reading is not None:
                self.reading.set()
                await anyio.sleep(0.05)
            return await super().read(tenant, execution_id, after)

    journal = Slow()
    with anyio.fail_after(10):
        async with engine(workflows=[child], journal=journal) as e:
            execution = await e.start(parent)
            if known:
                await with_a_child_at_rest(e, execution)
                execution.park()
                execution = await e.resume(parent, execution.id)
            journal.reading = anyio.Event()
            await journal.reading.wait()
            await execution.cancel()
            assert (await execution.result()).status == "cancelled"


@pytest.mark.parametrize("path", ["", "a"])
async def test_a_child_that_was_not_told_before_a_crash_is_cancelled_after_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent's journal says that it was cancelled; the process died before the child's did."""
    child = Workflow.from_dict({"schema": 1, "id": "child", "nodes": [{"id": "x", "type": "approve"}]})
    parent = workflow({"id": "a", "type": "workflow", "config": {"workflow": "child"}})

    async def not_told(*_: Any) -> None:
        pass

    with anyio.fail_after(10):
        async with engine(workflows=[child]) as e:
            execution = await e.start(parent)
            await with_a_child_at_rest(e, execution)
            with monkeypatch.context() as patched:
                patched.setattr(e, "cancel_child", not_told)
                await execution.cancel(path)
                execution.park()
            execution = await e.resume(parent, execution.id)
            result = await execution.result()
    assert result.status == ("failed" if path else "cancelled")
    assert result.node("a").status == ("failed" if path else "cancelled")


async def test_a_parent_that_was_given_up_gets_no_child_any_more() -> None:
    """Its journal was read when the parent was stopped: nobody would stop it any more."""
    child = Workflow.from_dict({"schema": 1, "id": "child", "nodes": [{"id": "x", "type": "approve"}]})
    parent = workflow({"id": "a", "type": "workflow", "config": {"workflow": "child"}})
    async with engine(workflows=[child]) as e:
        execution = await e.start(parent)
        driver = await with_a_child_at_rest(e, execution)
        (child_id,) = driver.children
        execution.park()
        events = await e.journal.read(e.tenant, child_id)
        for late in (e._start(child, None, parent=(driver, "a")), e._resume(child, child_id, events, 0, (driver, "a"))):
            with pytest.raises(OrchestratorError, match="given up"):
                await late
        assert e.driver(child_id) is None
        assert not e._drivers


async def test_a_cancelled_parent_ends_after_its_children() -> None:
    seen.clear()
    child = Workflow.from_dict(
        {"schema": 1, "id": "child", "nodes": [{"id": "x", "type": "sleep", "config": {"seconds": 60}}]}
    )
    async with engine(workflows=[child]) as e:
        execution = await e.start(workflow({"id": "a", "type": "workflow", "config": {"workflow": "child"}}))
        await anyio.sleep(0.02)
        await execution.cancel()
        result = await execution.result()
    assert result.status == "cancelled"
    assert seen == [("cancelled", "x")]


async def test_workflows_that_call_each_other_in_a_circle_are_refused() -> None:
    def calls(name: str, other: str) -> Workflow:
        node = {"id": "x", "type": "workflow", "config": {"workflow": other}}
        return Workflow.from_dict({"schema": 1, "id": name, "nodes": [node]})

    a = calls("a", "b")
    async with engine(workflows=[a, calls("b", "a")]) as e:
        with pytest.raises(DocumentError, match="circle: b -> a -> b"):
            await e.run(a)


async def test_leaving_run_from_outside_stops_the_execution() -> None:
    seen.clear()
    async with engine() as e:
        with anyio.move_on_after(0.05):
            await e.run(workflow({"id": "a", "type": "sleep", "config": {"seconds": 60}}))
        await anyio.sleep(0.01)
        assert seen == [("cancelled", "a")]
        assert (await e.run(workflow({"id": "a", "type": "say", "config": {"text": 1}}))).output == 1


async def test_an_engine_that_is_not_open_says_so() -> None:
    with pytest.raises(OrchestratorError, match="async with"):
        await engine().run(workflow({"id": "a", "type": "say"}))


async def test_a_long_chain_lets_others_run() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await anyio.lowlevel.checkpoint()

    nodes = [{"id": f"n{i}", "type": "say"} for i in range(1000)]
    edges = [{"source": f"n{i}", "target": f"n{i + 1}"} for i in range(999)]
    async with engine() as e, anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        await e.run(workflow(*nodes, edges=edges))
        tasks.cancel_scope.cancel()
    assert ticks >= 5


async def test_node_ended_says_why() -> None:
    w = workflow({"id": "a", "type": "say", "when": "{{ payload }}"})
    async with engine() as e:
        execution = await e.start(w, 0)
        ends = [event async for event in execution.events() if isinstance(event, NodeEnded)]
    assert [(event.path, event.status, event.reason) for event in ends] == [("a", "skipped", "when")]


def test_run_sync_needs_no_event_loop() -> None:
    assert engine().run_sync(workflow({"id": "a", "type": "say", "config": {"text": "{{ payload }}"}}), 7).output == 7


def test_durations_are_read_in_configs() -> None:
    @attrs.frozen
    class Timed:
        span: Duration = setting(default=Duration(1.0), description="How long.")

    @node_type("timed", config=Timed)
    async def timed(ctx: NodeContext, config: Timed, input: Any) -> Any:
        return config.span

    w = workflow({"id": "a", "type": "timed", "config": {"span": "1h30m"}})
    assert Engine(node_types=[timed], discover=False).run_sync(w).output == 5400.0


_CUT: dict[str, dict[str, Any]] = {
    "an output": {"nodes": [{"id": "a", "type": "say", "config": {"text": 1}}], "output": "{{ nodes.a.output }}"},
    "a failure": {"nodes": [{"id": "a", "type": "boom"}, {"id": "b", "type": "say"}]},
    "a failure that is handled": {"nodes": [{"id": "a", "type": "boom", "on_error": "continue"}]},
    "items": {"nodes": [{"id": "a", "type": "say", "for_each": "{{ payload }}", "when": "{{ payload }}"}]},
    "a loop": {
        "nodes": [
            {
                "id": "a",
                "type": "loop",
                "config": {
                    "body": {"nodes": [{"id": "x", "type": "say"}], "output": "{{ payload }}"},
                    "until": "{{ input.length }}",
                    "max_iterations": 3,
                },
            }
        ]
    },
}


@pytest.mark.parametrize("kind", _CUT)
async def test_an_execution_goes_on_wherever_its_journal_ends(kind: str) -> None:
    """As text, as every store that lasts has it."""
    w = Workflow.from_dict({"schema": 1, "id": "w", "edges": [], **_CUT[kind]})
    journal = MemoryJournal()
    async with engine(journal=journal) as first:
        execution = await first.start(w, [1, 2, 3])
        calm = await execution.result()
    texts = [json.dumps(event_to_json(event)) for event in await journal.read("default", execution.id)]
    for count in range(1, len(texts)):
        cut = MemoryJournal()
        await cut.append("default", execution.id, 0, 0, [event_from_json(json.loads(text)) for text in texts[:count]])
        async with engine(journal=cut) as second:
            with anyio.fail_after(10):
                result = await (await second.resume(w, execution.id)).result()
        again = (result.status, result.output, result.error, [(r.path, r.status) for r in result.nodes])
        assert again == (calm.status, calm.output, calm.error, [(r.path, r.status) for r in calm.nodes]), texts[:count]
        assert result_to_json(result)["status"] == calm.status
