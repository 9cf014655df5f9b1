"""Programs that take less time than a thread would: called in the event loop, and never for long."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from orchestrator_core import LanguageError
from orchestrator_nodes_std import code
from orchestrator_nodes_std.code import JavaScriptLanguage
from orchestrator_nodes_std.sandbox import JavaScript, SandboxError

pytestmark = pytest.mark.anyio
LOOPS = "if (context.input.stop) { while (true) {} } return context.input.n + 1"
WAITS = "await new Promise(done => setTimeout(done, context.input)); return context.input"


@pytest.fixture
async def language() -> AsyncIterator[JavaScriptLanguage]:
    made = JavaScriptLanguage()
    yield made
    await made.aclose()


async def run(language: JavaScriptLanguage, source: str, value: Any, *, timeout: float = 5.0) -> Any:
    ran = await language.run(source, {"input": value}, timeout=timeout, memory=None, seed=1, now=0.0)
    return ran.value


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which programs were run."""
    found: list[int] = []
    before = JavaScript.run

    def noted(self: JavaScript, *arguments: Any, **more: Any) -> Any:
        found.append(threading.get_ident())
        return before(self, *arguments, **more)

    monkeypatch.setattr(JavaScript, "run", noted)
    return found


async def make_brief(language: JavaScriptLanguage, threads: list[int], source: str, value: Any) -> None:
    """Call a program until it is called in the event loop; what is loaded first may take longer."""
    for _ in range(200):
        await run(language, source, value)
        if threads[-1] == threading.get_ident():
            return
    raise AssertionError("it was never called at once")


async def test_what_is_brief_is_called_at_once_and_gives_the_same(
    language: JavaScriptLanguage, threads: list[int]
) -> None:
    first = await run(language, LOOPS, {"n": 1})
    assert threads[-1] != threading.get_ident(), "nobody knows yet how long it takes"
    await make_brief(language, threads, LOOPS, {"n": 1})
    assert await run(language, LOOPS, {"n": 1}) == first == 2
    with pytest.raises(LanguageError, match="null"):
        await run(language, LOOPS, None)
    assert threads[-1] == threading.get_ident()


async def test_what_was_merely_interrupted_stays_brief(
    language: JavaScriptLanguage, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine a moment may go by without the program having had any of it."""
    await make_brief(language, threads, LOOPS, {"n": 1})
    real, interrupted = JavaScript.run, [True]

    def slow(self: JavaScript, *arguments: Any, waits: bool = True, **more: Any) -> Any:
        if not waits and interrupted:
            interrupted.clear()
            raise SandboxError("timeout", "stopped after 0.002 seconds")
        return real(self, *arguments, waits=waits, **more)

    monkeypatch.setattr(JavaScript, "run", slow)
    assert await run(language, LOOPS, {"n": 1}) == 2
    assert threads[-1] != threading.get_ident(), "it was called again"
    assert await run(language, LOOPS, {"n": 1}) == 2
    assert threads[-1] == threading.get_ident()


async def test_what_turns_out_to_be_long_is_stopped_at_its_limit_and_goes_to_threads_for_good(
    language: JavaScriptLanguage, threads: list[int]
) -> None:
    await make_brief(language, threads, LOOPS, {"n": 1})
    gaps: list[float] = []

    async def tick() -> None:
        last = anyio.current_time()
        while True:
            await anyio.sleep(0.005)
            gaps.append(anyio.current_time() - last)
            last = anyio.current_time()

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        with pytest.raises(LanguageError) as caught:
            await run(language, LOOPS, {"stop": True}, timeout=1.0)
        group.cancel_scope.cancel()
    assert (caught.value.code, caught.value.message) == ("timeout", "stopped after 1 seconds")
    assert len(gaps) > 5, "others went on meanwhile"
    for _ in range(50):
        assert await run(language, LOOPS, {"n": 1}) == 2
        assert threads[-1] != threading.get_ident()


async def test_what_was_long_once_is_believed_again_after_many_more_brief_calls(
    language: JavaScriptLanguage, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine can make anything look long."""
    monkeypatch.setattr(code, "_DOUBT", 3)
    await make_brief(language, threads, LOOPS, {"n": 1})
    with pytest.raises(LanguageError):
        await run(language, LOOPS, {"stop": True}, timeout=0.1)
    for _ in range(8 * 3):
        assert await run(language, LOOPS, {"n": 1}) == 2
        assert threads[-1] != threading.get_ident()
    await make_brief(language, threads, LOOPS, {"n": 1})


async def test_a_limit_of_its_own_is_not_taken_for_that_of_the_moment(
    language: JavaScriptLanguage, threads: list[int]
) -> None:
    """Timers run on a clock of their own, which is moved on: a moment's limit must not be seen by them."""
    await make_brief(language, threads, WAITS, 0)
    assert await run(language, WAITS, 3000) == 3000
    with pytest.raises(LanguageError) as caught:
        await run(language, WAITS, 9000)
    assert caught.value.code == "timeout"


async def test_where_every_instance_is_in_use_it_waits_in_a_thread(
    language: JavaScriptLanguage, threads: list[int]
) -> None:
    await make_brief(language, threads, LOOPS, {"n": 1})
    long = "const until = 3e6; let n = 0; for (let i = 0; i < until; i++) n += i; return n"
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(run, language, long, None)
        await anyio.sleep(0.05)
        assert await run(language, LOOPS, {"n": 41}) == 42
