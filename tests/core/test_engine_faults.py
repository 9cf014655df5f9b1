"""What goes wrong around an engine: its journal, its workers, its caller, the program's end. Nothing may hang or get lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from orchestrator_core import (
    Engine,
    Event,
    MemoryJournal,
    NodeContext,
    OrchestratorError,
    SystemClock,
    Unavailable,
    Workflow,
    hookimpl,
    node_type,
)
from orchestrator_core.errors import Conflict
from orchestrator_core.events import AttemptStarted, ChildEnded, ExecutionEnded, TimerFired
from orchestrator_core.types import ExecutionStatus

pytestmark = pytest.mark.anyio
LONG = 5.0  # seconds; nothing here takes so long unless it hangs


@attrs.frozen
class Nothing:
    pass


@attrs.frozen
class SleepConfig:
    seconds: float = 0.0


@node_type("sleep")
async def sleep(ctx: NodeContext, config: SleepConfig, input: Any) -> Any:
    await anyio.sleep(config.seconds)
    return input


@node_type("quick", pure=True)
async def quick(ctx: NodeContext, config: Nothing, input: Any) -> int:
    return 1


@node_type("pause", pure=True)
async def pause(ctx: NodeContext, config: SleepConfig, input: Any) -> int:
    await anyio.sleep(config.seconds)
    return 1


@node_type("wait")
async def wait(ctx: NodeContext, config: SleepConfig, input: Any) -> Any:
    if ctx.resumed is None:
        ctx.wait_for(config.seconds)
    return "woken"


@node_type("listen")
async def listen(ctx: NodeContext, config: Nothing, input: Any) -> Any:
    if ctx.resumed is None:
        ctx.wait_for_signal("go")
    return ctx.resumed.payload


def one(type_: str, id_: str = "flow", **config: Any) -> Workflow:
    return Workflow.from_dict({"schema": 1, "id": id_, "nodes": [{"id": "a", "type": type_, "config": config}]})


def chain(type_: str, size: int, **config: Any) -> Workflow:
    nodes = [{"id": f"n{i}", "type": type_, "config": config} for i in range(size)]
    edges = [{"source": f"n{i}", "target": f"n{i + 1}"} for i in range(size - 1)]
    return Workflow.from_dict({"schema": 1, "id": "chain", "nodes": nodes, "edges": edges})


def make_engine(*more: Any, **arguments: Any) -> Engine:
    return Engine(node_types=[sleep, quick, pause, wait, listen, *more], discover=False, **arguments)


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await anyio.sleep(0.01)


class Journal(MemoryJournal):
    """Fails for executions of the workflow `bad` from their second batch on, and counts."""

    def __init__(self, error: BaseException | None = None, delay: float = 0.0) -> None:
        super().__init__()
        self.error = error
        self.delay = delay
        self.bad: set[str] = set()
        self.sizes: list[int] = []

    async def append(
        self, tenant: str, execution_id: str, expected_seq: int, fence: int, batch: Sequence[Event]
    ) -> None:
        if expected_seq == 0 and getattr(batch[0], "workflow", "") == "bad":
            self.bad.add(execution_id)
        elif self.error is not None and execution_id in self.bad:
            raise self.error
        self.sizes.append(len(batch))
        await super().append(tenant, execution_id, expected_seq, fence, batch)
        # Committed, and the reply takes its time.
        await anyio.sleep(self.delay)


# --- the journal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("the disk is full"), OrchestratorError("gone"), OSError(5, "io")])
async def test_a_journal_that_fails_ends_its_execution_and_no_other(error: Exception) -> None:
    with anyio.fail_after(LONG):
        async with make_engine(journal=Journal(error)) as engine:
            bad = await engine.start(one("sleep", "bad", seconds=0.01))
            good = await engine.start(one("sleep", "good", seconds=0.03))
            with pytest.raises(type(error)) as caught:
                await bad.result()
            assert caught.value is error
            assert (await good.result()).status == "succeeded"


class Flaky(MemoryJournal):
    """Some calls fail, by their numbers; what they were to do is done all the same where only the reply is lost."""

    def __init__(self, fail: set[int], *, lost: bool) -> None:
        super().__init__()
        self.fail = fail
        self.lost = lost
        self.calls = 0

    async def _call(self, do: Callable[[], Awaitable[Any]]) -> Any:
        self.calls += 1
        if self.calls not in self.fail:
            return await do()
        if self.lost:
            await do()
        raise OSError("the database is gone")

    async def append(self, *arguments: Any) -> None:
        await self._call(lambda: MemoryJournal.append(self, *arguments))

    async def read(self, *arguments: Any) -> Any:
        return await self._call(lambda: MemoryJournal.read(self, *arguments))


async def through_failures(journal: Flaky) -> tuple[Any, int]:
    """What a workflow gives whose child has a child, and how often it was given up until then."""
    inner = one("sleep", "inner")
    middle = one("workflow", "middle", workflow="inner")
    outer = one("workflow", "outer", workflow="middle")
    failed = 0
    with anyio.fail_after(LONG):
        async with make_engine(journal=journal) as engine:
            realm = engine.realm(tenant="ann", workflows=[inner, middle])
            execution = await realm.start(outer, "p")
            while True:
                try:
                    result = await execution.result()
                except OSError:
                    failed += 1
                    assert not engine._drivers
                else:
                    return (result.status, result.output), failed
                with contextlib.suppress(OSError):
                    execution = await realm.resume(outer, execution.id)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_call_of_the_journal_that_fails_is_no_failure_of_a_node_and_leaves_nobody_behind(lost: bool) -> None:
    """Whichever call it is, of a parent, its child, or the child's child: all are given up, and go on from their journals."""
    calm = Flaky(set(), lost=lost)
    assert await through_failures(calm) == (("succeeded", "p"), 0)
    assert calm.calls > 6
    for first in range(2, calm.calls + 1):  # with the first call it is accepted
        for second in (0, *range(first + 1, first + calm.calls)):
            answer, failed = await through_failures(Flaky({first, second}, lost=lost))
            assert answer == ("succeeded", "p"), f"the calls {first} and {second} failed"
            assert failed >= 1


async def test_a_store_for_blobs_that_does_not_answer_is_no_failure_of_the_node() -> None:
    keys: list[str] = []

    @node_type("keep")
    async def keep(ctx: NodeContext, config: Nothing, input: Any) -> str:
        keys.append(ctx.idempotency_key)
        return await ctx.blobs.put(b"bytes")

    class Away:
        answers = False

        async def put(self, data: bytes, *, media_type: str = "application/octet-stream") -> str:
            if not self.answers:
                raise Unavailable("the database does not answer")
            return "blob"

        async def get(self, reference: str) -> bytes:
            raise KeyError(reference)

    blobs = Away()
    with anyio.fail_after(LONG):
        async with make_engine(keep, blobs=blobs) as engine:
            document = one("keep")
            execution = await engine.start(document)
            with pytest.raises(Unavailable):
                await execution.result()
            blobs.answers = True
            result = await (await engine.resume(document, execution.id)).result()
    assert (result.status, result.output) == ("succeeded", "blob")
    assert len(result.node("a").attempts) == 1
    assert keys == [keys[0]] * 2, "the same attempt was made again"


async def test_nobody_sees_what_is_not_committed() -> None:
    class Slow(MemoryJournal):
        """Takes its time before it commits."""

        async def append(
            self, tenant: str, execution_id: str, expected_seq: int, fence: int, batch: Sequence[Event]
        ) -> None:
            await anyio.sleep(0.02)
            await super().append(tenant, execution_id, expected_seq, fence, batch)

    journal = Slow()
    with anyio.fail_after(LONG):
        async with make_engine(journal=journal) as engine:
            execution = await engine.start(one("sleep", "good", seconds=0.03))
            ended = False
            while not ended:
                # Looked at in between: an end that is shown stands in the journal.
                status, result = execution.status, await execution.snapshot()
                kept = [type(event).__name__ for event in await journal.read(engine.tenant, execution.id)]
                ended = status == "succeeded"
                assert "ExecutionEnded" in kept or not ended
                assert "ExecutionEnded" in kept or result.status != "succeeded"
                await anyio.sleep(0.001)


async def test_following_the_events_ends_when_the_execution_was_given_up() -> None:
    seen: list[str] = []
    with anyio.fail_after(LONG):
        async with make_engine(journal=Journal(RuntimeError("the disk is full"))) as engine:
            execution = await engine.start(one("sleep", "bad", seconds=0.02))
            seen += [type(event).__name__ async for event in execution.events()]
    assert seen == ["ExecutionStarted", "AttemptStarted"]


async def test_a_caller_that_leaves_during_a_commit_loses_no_event() -> None:
    journal = Journal(delay=0.05)
    with anyio.fail_after(LONG):
        async with make_engine(journal=journal) as engine:
            execution = await engine.start(one("listen"))
            await until(lambda: execution.status is ExecutionStatus.WAITING)
            await anyio.sleep(0.1)
            with anyio.move_on_after(0.01) as scope:
                await execution.signal("a", "go", "hello", id="s1")
            assert scope.cancelled_caught, "the reply to the commit is awaited when the caller leaves"
            assert (await execution.result()).output == "hello"
            written = await journal.read("default", execution.id)
    assert [type(event).__name__ for event in written].count("SignalReceived") == 1
    assert isinstance(written[-1], ExecutionEnded)


async def test_events_of_pure_nodes_ride_with_the_next_commit() -> None:
    journal = Journal()
    with anyio.fail_after(LONG):
        async with make_engine(journal=journal) as engine:
            result = await engine.run(chain("quick", 600))
    assert result.status == "succeeded"
    assert sum(journal.sizes) == 1 + 600 * 2 + 1
    # The clock, too, forces a commit: every 50 ms.
    assert len(journal.sizes) < 60
    assert max(journal.sizes) <= 256 + 32 * 2, "those that run side by side may all have ended meanwhile"


async def test_events_of_pure_nodes_do_not_wait_for_a_node_that_suspends() -> None:
    document = {
        "schema": 1,
        "id": "flow",
        "nodes": [{"id": "a", "type": "quick"}, {"id": "b", "type": "pause", "config": {"seconds": 60}}],
        "edges": [{"source": "a", "target": "b"}],
    }
    journal = Journal()
    with anyio.fail_after(LONG):
        async with make_engine(journal=journal) as engine:
            execution = await engine.start(Workflow.from_dict(document))
            await until(lambda: sum(journal.sizes) >= 4)
            await execution.cancel()
            assert (await execution.result()).status == "cancelled"


async def test_a_journal_in_memory_forgets_only_what_has_ended() -> None:
    journal = MemoryJournal(keep=2)
    with anyio.fail_after(LONG):
        async with make_engine(journal=journal) as engine:
            waiting = [await engine.start(one("listen")) for _ in range(4)]
            ended = [(await engine.run(one("quick"))).execution_id for _ in range(4)]
            for execution in waiting:
                await execution.signal("a", "go", 1)
                assert (await execution.result()).status == "succeeded"
    kept = [bool(await journal.read("default", id_)) for id_ in [*ended, *(execution.id for execution in waiting)]]
    assert kept == [False] * 6 + [True] * 2


async def test_what_a_journal_in_memory_gives_back_is_what_it_got() -> None:
    class Both(MemoryJournal):
        def __init__(self) -> None:
            super().__init__()
            self.got: list[Event] = []

        async def append(self, *arguments: Any) -> None:
            self.got += arguments[-1]
            await super().append(*arguments)

    journal = Both()
    async with make_engine(journal=journal) as engine:
        result = await engine.run(chain("quick", 20))
        waited = await engine.run(one("wait", seconds=0.01))
    both = [await journal.read("default", ran.execution_id) for ran in (result, waited)]
    assert [*both[0], *both[1]] == journal.got


# --- workers ----------------------------------------------------------------------------------------------------------


class Broken:
    """A language whose evaluation raises what nobody expects."""

    name = "javascript"

    def check(self, source: str, *, expression: bool) -> None:
        pass

    async def evaluate(self, *arguments: Any, **more: Any) -> Any:
        raise ZeroDivisionError("a bug in a plugin")

    async def aclose(self) -> None:
        pass


class BrokenPlugin:
    @hookimpl
    def register_languages(self) -> list[Any]:
        return [Broken()]


async def test_a_bug_in_a_plugin_ends_the_execution_and_no_worker() -> None:
    node = {"id": "a", "type": "quick", "when": "{{ 1 + 1 }}"}
    with anyio.fail_after(LONG):
        async with make_engine(plugins=[BrokenPlugin()]) as engine:
            bad = await engine.start(Workflow.from_dict({"schema": 1, "id": "bad", "nodes": [node]}))
            good = await engine.start(chain("sleep", 3, seconds=0.01))
            with pytest.raises(ZeroDivisionError):
                await bad.result()
            assert (await good.result()).status == "succeeded"


async def test_an_event_from_inside_that_comes_too_late_is_dropped() -> None:
    with anyio.fail_after(LONG):
        async with make_engine() as engine:
            execution = await engine.start(chain("sleep", 3, seconds=0.01))
            driver = execution._driver
            engine.put(driver, TimerFired(driver.now(), "nobody", "retry"))
            engine.put(driver, ChildEnded(driver.now(), "n0", ExecutionStatus.SUCCEEDED))
            engine.wake()
            assert (await execution.result()).status == "succeeded"


async def test_a_timer_that_waited_in_the_queue_still_fires() -> None:
    document = {
        "schema": 1,
        "id": "flow",
        "nodes": [
            {"id": "a", "type": "sleep", "config": {"seconds": 60}, "timeout": 30},
            {"id": "b", "type": "listen"},
        ],
    }
    with anyio.fail_after(LONG):
        async with make_engine() as engine:
            execution = await engine.start(Workflow.from_dict(document))
            await until(lambda: execution._driver.machine.result().node("b").status == "waiting")
            driver = execution._driver
            due = driver.machine.timers["a", "timeout"]
            driver._time = lambda: due + 2
            driver.timer_fired("a", "timeout", due)
            driver._time = lambda: due + 3
            await execution.signal("b", "go")
            result = await execution.result()
    assert (result.status, result.error.code) == ("failed", "timeout")


async def test_a_clock_that_fails_ends_what_waits_for_it() -> None:
    class Clock(SystemClock):
        async def sleep_until(self, due: float) -> None:
            await anyio.lowlevel.checkpoint()
            raise RuntimeError("no time")

    with anyio.fail_after(LONG):
        async with make_engine(clock=Clock()) as engine:
            execution = await engine.start(one("wait", seconds=0.01))
            with pytest.raises(RuntimeError, match="no time"):
                await execution.result()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_cancelled_from_outside_tells_its_execution_and_leaves_the_others() -> None:
    with anyio.fail_after(LONG):
        async with make_engine() as engine:
            hit = await engine.start(one("sleep", seconds=60))
            await anyio.sleep(0.02)
            (task,) = [task for task in engine._tasks if not task.done()]
            other = await engine.start(chain("sleep", 3, seconds=0.02))
            task.cancel()
            with pytest.raises(OrchestratorError, match="cancelled from outside"):
                await hit.result()
            assert (await other.result()).status == "succeeded"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_cancelled_before_it_began_is_replaced() -> None:
    with anyio.fail_after(LONG):
        async with make_engine() as engine:
            execution = await engine.start(chain("sleep", 3, seconds=0.01))
            for task in engine._tasks:
                task.cancel()
            assert (await execution.result()).status == "succeeded"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_timer_task_cancelled_from_outside_is_replaced() -> None:
    with anyio.fail_after(LONG):
        async with make_engine() as engine:
            execution = await engine.start(one("wait", seconds=0.2))
            await anyio.sleep(0.05)
            for task in engine._tasks:
                task.cancel()
            assert (await execution.result()).output == "woken"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_nobody_asked_for_fails_the_attempt() -> None:
    @node_type("stray")
    async def stray(ctx: NodeContext, config: Nothing, input: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with anyio.fail_after(LONG):
        async with make_engine(stray) as engine:
            result = await engine.run(one("stray"))
    assert (result.status, result.error.code) == ("failed", "exception")
    assert "CancelledError" in result.error.message


async def test_an_attempt_that_outlives_its_cancellation_does_not_harm_the_next() -> None:
    @node_type("stubborn")
    async def stubborn(ctx: NodeContext, config: Nothing, input: Any) -> int:
        if ctx.attempt == 1:
            try:
                await anyio.sleep(60)
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.1)
            return -1  # swallows its cancellation
        await anyio.sleep(0.3)
        return ctx.attempt

    node = {"id": "a", "type": "stubborn", "timeout": 0.5, "retry": {"attempts": 2}}
    workflow = Workflow.from_dict({"schema": 1, "id": "flow", "nodes": [node]})
    with anyio.fail_after(LONG):
        async with make_engine(stubborn) as engine:
            assert (await engine.run(workflow)).output == 2


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["leave", "cancel"])
async def test_leaving_the_engine_waits_for_cancelled_attempts_to_unwind(how: str) -> None:
    unwound: list[str] = []

    @node_type("careful")
    async def careful(ctx: NodeContext, config: Nothing, input: Any) -> None:
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
            unwound.append(ctx.path)

    with anyio.fail_after(LONG):
        async with make_engine(careful) as engine:
            if how == "leave":
                execution = await engine.start(one("careful"))
                await anyio.sleep(0.02)
            else:
                with anyio.move_on_after(0.02):
                    await engine.run(one("careful"))
            assert unwound == []
        assert unwound == ["a"]
        if how == "leave":
            with pytest.raises(OrchestratorError, match="closed"):
                await execution.result()


async def test_an_engine_can_be_opened_again() -> None:
    engine = make_engine()
    with anyio.fail_after(LONG):
        async with engine:
            await engine.start(chain("sleep", 3, seconds=0.02))
            await engine.start(one("wait", seconds=60))
        async with engine:
            assert (await engine.run(chain("sleep", 3, seconds=0.01))).status == "succeeded"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the programs inside choose theirs
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("wanted", ["result", "nothing"])
def test_what_ends_the_program_passes_through(
    backend: str, kind: type[BaseException], wanted: str, anyio_backend: str
) -> None:
    @node_type("quit")
    async def quit_(ctx: NodeContext, config: Nothing, input: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise kind

    async def program() -> None:
        with anyio.fail_after(LONG):
            async with make_engine(quit_) as engine:
                other = await engine.start(one("sleep", seconds=60))
                execution = await engine.start(one("quit"))
                if wanted == "result":
                    await execution.result()
                await other.result()

    with pytest.raises(kind):
        anyio.run(program, backend=backend)


async def test_only_an_attempt_that_may_have_begun_is_lost() -> None:
    nodes = [{"id": name, "type": "sleep", "on_lost": "fail"} for name in ("a", "b")]
    edges = [{"source": "a", "target": "b"}]
    document = Workflow.from_dict({"schema": 1, "id": "flow", "nodes": nodes, "edges": edges})
    journal = MemoryJournal()
    with anyio.fail_after(LONG):
        async with make_engine(journal=journal) as engine:
            ran = await engine.run(document)
        events = await journal.read("default", ran.execution_id)
        for size in range(1, len(events)):
            cut = MemoryJournal()
            await cut.append("default", ran.execution_id, 0, 0, events[:size])
            async with make_engine(journal=cut) as engine:
                result = await (await engine.resume(document, ran.execution_id)).result()
            outstanding = isinstance(events[size - 1], AttemptStarted)
            assert (result.error and result.error.code) == ("lost" if outstanding else None), events[:size]


async def test_who_was_fenced_off_from_a_parent_begins_no_child() -> None:
    """It hangs before it begins with the child, another one goes on with the parent, and then it wakes."""

    class Hanging(MemoryJournal):
        def __init__(self, shared: MemoryJournal) -> None:
            super().__init__()
            self.shared, self.woken = shared, anyio.Event()
            self.late = 0  # what it has written since it woke

        async def append(self, *given: Any) -> None:
            await self.shared.append(*given)
            self.late += self.woken.is_set()

        async def read(self, tenant: str, execution_id: str, after: int = 0) -> Sequence[Event]:
            await self.woken.wait()
            return await self.shared.read(tenant, execution_id, after)

    child = one("sleep", "child", seconds=0.2)
    parent = Workflow.from_dict(
        {"schema": 1, "id": "parent", "nodes": [{"id": "c", "type": "workflow", "config": {"workflow": "child"}}]}
    )
    shared = MemoryJournal()
    hanging = Hanging(shared)
    with anyio.fail_after(LONG):
        async with make_engine(journal=hanging, workflows=[child]) as old:
            execution = await old.start(parent)
            await anyio.sleep(0.05)
            async with make_engine(journal=shared, workflows=[child]) as new:
                again = await new.resume(parent, execution.id, fence=1)
                await anyio.sleep(0.05)
                hanging.woken.set()
                assert (await again.result()).status == "succeeded"
            with pytest.raises(Conflict):
                await execution.result()
    assert hanging.late == 0


async def test_events_of_pure_nodes_do_not_wait_for_a_time_that_a_clock_was_set_back_from() -> None:
    class Back(SystemClock):
        behind = 0.0

        def time(self) -> float:  # type: ignore[override]
            return time.time() - self.behind

        async def sleep_until(self, due: float) -> None:
            while self.time() < due:
                await anyio.sleep(0.001)

    document = {
        "schema": 1,
        "id": "flow",
        "nodes": [{"id": "a", "type": "quick"}, {"id": "b", "type": "pause", "config": {"seconds": 60}}],
        "edges": [{"source": "a", "target": "b"}],
    }
    for moment in (0.0, 0.02, 0.04):
        journal, clock = Journal(), Back()
        with anyio.fail_after(LONG):
            async with make_engine(journal=journal, clock=clock) as engine:
                execution = await engine.start(Workflow.from_dict(document))
                await anyio.sleep(moment)
                clock.behind = 3600.0
                await until(lambda: sum(journal.sizes) >= 4)  # noqa: B023 - it is asked at once
                await execution.cancel()
                assert (await execution.result()).status == "cancelled"
