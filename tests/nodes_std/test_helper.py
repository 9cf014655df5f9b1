"""The process that brief calls go to when many come: it gives the same, holds nothing, and can be missing at any time."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator_core import LanguageError
from orchestrator_nodes_std import beside
from orchestrator_nodes_std.code import JavaScriptLanguage
from orchestrator_nodes_std.sandbox import JavaScript, Limits, SandboxError, helper, process
from orchestrator_nodes_std.sandbox.helper import Gone, Helper
from orchestrator_nodes_std.sandbox.javascript import answered, completed

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="there is none on Windows"),
]
USUAL = Limits()
PROGRAMS = [
    "return {...context.input, total: context.input.n * 3}",
    "return context",
    "",
    "return [new Date(0), new Map([['a', 1]]), 1e300, 'ü\\u0000']",
    "console.log('one', {two: 2}); console.error('three'); return Math.random()",
    "return new URL('https://example.org/a?b=1').searchParams.get('b')",
    "return new Intl.NumberFormat('de').format(1234.5)",
    "const a = 1;\nthrow new TypeError('no')",
    "return {",
    "return 1n",
    "return '\\ud800'",
    "console.log('before'); while (true) {}",
    "return 'x'.repeat(9000000)",
    "const a = []; while (true) a.push('x'.repeat(100000))",
    "return new Promise(() => {})",
    "const f = () => f(); f()",
    "await new Promise(done => setTimeout(done, 30)); return Date.now()",
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def here() -> Iterator[JavaScript]:
    with JavaScript() as made:
        yield made


@pytest.fixture
async def there(here: JavaScript) -> AsyncIterator[Helper]:
    here.run("", {}, seed=0, now=0.0)  # the image is compiled
    made = await Helper.start(here.cache_dir)
    yield made
    await made.aclose()


def told(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except SandboxError as error:
        return (error.code, error.message, error.line, error.snippet, error.logs)


async def run(there: Helper, here: JavaScript, source: str, context: Any, limits: Limits = USUAL) -> Any:
    return completed(await there.perform(here.program(source, context, limits=limits, seed=7, now=1.5)))


@pytest.mark.parametrize("source", PROGRAMS)
async def test_it_gives_what_the_same_call_gives_here(there: Helper, here: JavaScript, source: str) -> None:
    limits, context = Limits(time=1.0), {"input": {"n": 2, "text": "é\u2028𝄞"}}
    expected = told(lambda: here.run(source, context, limits=limits, seed=7, now=1.5))
    try:
        given = await run(there, here, source, context, limits)
    except SandboxError as error:
        given = (error.code, error.message, error.line, error.snippet, error.logs)
    assert given == expected


async def test_expressions_too(there: Helper, here: JavaScript) -> None:
    expressions = ["input.n + 1", "input.none.x", "undefined", "[1, {a: 'ü'}]", "(", "'\\ud800'"]
    scope = {"input": {"n": 1}}
    expected = here.evaluate(expressions, scope, seed=1, now=0.0)
    job = here.questions(expressions, scope, limits=Limits(), seed=1, now=0.0)
    assert answered(await there.perform(job), len(expressions)) == expected


async def test_many_calls_at_once_each_get_their_own_answer(there: Helper, here: JavaScript) -> None:
    sources = [f"return '{'x' * (number * 50)}' + context.input" for number in range(60)]
    results = await asyncio.gather(*(run(there, here, source, {"input": n}) for n, source in enumerate(sources)))
    assert [result.value for result in results] == [f"{'x' * (number * 50)}{number}" for number in range(60)]


async def test_a_call_that_is_cancelled_does_not_disturb_the_next(there: Helper, here: JavaScript) -> None:
    task = asyncio.ensure_future(run(there, here, "return 'first'", {}))
    await asyncio.sleep(0)
    task.cancel()
    assert (await run(there, here, "return 'second'", {})).value == "second"
    assert task.cancelled()


async def test_who_has_too_much_to_do_says_so_at_once(there: Helper, here: JavaScript) -> None:
    calls = [asyncio.ensure_future(run(there, here, "return 1", {})) for _ in range(helper._MOST + 1)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in results].count(Gone) == 1


# --- when it is missing -----------------------------------------------------------------------------------------------


async def test_whoever_waits_is_told_when_it_dies(there: Helper, here: JavaScript) -> None:
    calls = [asyncio.ensure_future(run(there, here, "while (true) {}", {})) for _ in range(3)]
    await asyncio.sleep(0.1)
    os.kill(there._process.pid, signal.SIGKILL)
    results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    assert [type(one) for one in results] == [Gone] * 3
    assert there.gone
    with pytest.raises(Gone):
        await run(there, here, "return 1", {})


async def test_one_that_answers_nobody_is_given_up(
    there: Helper, here: JavaScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_PATIENCE", 0.2)
    os.kill(there._process.pid, signal.SIGSTOP)
    with pytest.raises(Gone):
        await asyncio.wait_for(run(there, here, "return 1", {}), 5)


async def test_where_none_can_be_begun_that_is_said(here: JavaScript, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "_PROGRAM", "raise SystemExit(1)")
    with pytest.raises(Gone):
        await Helper.start(here.cache_dir)


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"x",
            b"e",
            b"e[]",
            b'e["code"]',
            b"a[[1]]\0v1",
            b'a[["loud","x"]]\0v1',
            b"ajunk\0v1",
            b"e" + b"[" * 100_000,
        ),
        *(b'e["timeout","m",Infinity,null,[]]', b'e["made_up","m",1,null,[]]', b'e["timeout","\\ud800",1,null,[]]'),
        *(
            b'e["timeout","m",true,null,[]]',
            b'e["timeout","m",1,null,[["info","\\ud800"]]]',
            b'e["timeout",{},1,null,[]]',
        ),
    ],
)
async def test_what_it_says_is_not_trusted(content: bytes) -> None:
    with pytest.raises(SandboxError, match="the guest gave no answer"):
        process.unpacked(content)


@pytest.mark.parametrize("number", [1, 2])
async def test_an_answer_that_is_too_large_or_nobodys_ends_it(there: Helper, here: JavaScript, number: int) -> None:
    limits = Limits(output=1000, logs=0)
    call = asyncio.ensure_future(run(there, here, "while (true) {}", {}, limits))
    await asyncio.sleep(0)
    size = 1000 + helper._BESIDE + 1 if number == 1 else 1
    there.data_received(process.FRAME.pack(size, number))
    with pytest.raises(Gone):
        await call
    assert there.gone


async def test_a_call_that_cannot_be_made_there_is_made_here(here: JavaScript, tmp_path: Path) -> None:
    with pytest.raises(Gone):  # it compiles nothing: others would wait for it
        await Helper.start(tmp_path / "empty")
    with pytest.raises(Gone):
        process.unpacked(b"g")


async def test_what_is_large_is_called_here(there: Helper, here: JavaScript) -> None:
    with pytest.raises(Gone):
        await run(there, here, "return 1", {"input": "x" * helper._LARGE})
    assert (await run(there, here, "return 1", {})).value == 1


# --- what it has ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
async def test_it_holds_nothing_but_its_socket(
    here: JavaScript, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_SECRET_KEYS", "k1:secret")
    with (tmp_path / "open").open("w") as _:
        there = await Helper.start(here.cache_dir)
    try:
        place = Path(f"/proc/{there._process.pid}")
        assert b"secret" not in (place / "environ").read_bytes()
        kinds = sorted(str(one.readlink()).partition(":")[0] for one in (place / "fd").iterdir())
        assert kinds.count("socket") == 1
        assert {kind for kind in kinds if kind != "socket"} <= {
            "/dev/null",
            "anon_inode",
            *map(str, here.cache_dir.iterdir()),
        }
        assert os.getsid(there._process.pid) != os.getsid(0), "a Ctrl-C is not for it"
        loaded = (place / "maps").read_text()
        assert "_ssl" not in loaded, "there is no HTTP client in it"
    finally:
        await there.aclose()


def test_it_ends_with_whoever_began_it(tmp_path: Path, here: JavaScript) -> None:
    text = f"""
        import asyncio, pathlib, time
        from orchestrator_nodes_std.sandbox.helper import Helper
        async def main():
            made = await Helper.start(pathlib.Path({str(here.cache_dir)!r}))
            print(made._process.pid, flush=True)
            time.sleep(60)
        asyncio.run(main())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while _lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        "Z"
        not in subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    )


# --- when it is used --------------------------------------------------------------------------------------------------


@pytest.fixture
async def language(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[JavaScriptLanguage]:
    monkeypatch.setattr(beside, "_WINDOW", 0.01)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    made = JavaScriptLanguage()
    yield made
    await made.aclose()


async def call(language: JavaScriptLanguage, value: Any) -> Any:
    source = "if (context.input === 'stop') { while (true) {} } return context.input + 1"
    ran = await language.run(source, {"input": value}, timeout=0.5, memory=None, seed=1, now=0.0)
    return ran.value


async def begun(language: JavaScriptLanguage) -> Helper:
    """Call as a busy server does, until the process is there and used."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert await asyncio.gather(*(call(language, n) for n in range(8))) == list(range(1, 9))
        made = language._beside()
        if made is not None:
            return made
    raise AssertionError("there was never a process")


async def test_it_is_begun_when_many_come_together_and_gives_the_same(language: JavaScriptLanguage) -> None:
    made = await begun(language)
    before = made._number
    assert await asyncio.gather(*(call(language, n) for n in range(8))) == list(range(1, 9))
    assert made._number > before
    with pytest.raises(LanguageError) as caught:
        await call(language, "stop")
    assert caught.value.message == "stopped after 0.5 seconds", "not after the moment that it had there"


async def test_who_comes_alone_is_served_here(language: JavaScriptLanguage) -> None:
    for number in range(300):
        await call(language, number)
        await asyncio.sleep(0)  # as between any two requests
    assert language._process is not None
    assert language._process._helper is language._process._starts is None


async def test_when_it_dies_its_calls_are_made_here(language: JavaScriptLanguage) -> None:
    made = await begun(language)
    made._process.kill()
    for _ in range(20):
        assert await asyncio.gather(*(call(language, n) for n in range(8))) == list(range(1, 9))
    assert made.gone


async def test_it_ends_when_it_is_not_needed_any_more(
    language: JavaScriptLanguage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "_IDLE", 0.2)
    made = await begun(language)
    deadline = time.monotonic() + 5
    while made._process.poll() is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await begun(language)  # and comes back when it is


async def test_it_ends_with_its_language(language: JavaScriptLanguage) -> None:
    made = await begun(language)
    await language.aclose()
    assert made._process.poll() is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # who does not close is told so
def test_what_an_ended_event_loop_left_is_ended_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_WINDOW", 0.01)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    language = JavaScriptLanguage()
    left = asyncio.run(begun(language))
    next_one = asyncio.run(begun(language))
    assert next_one is not left
    assert left._process.poll() is not None
    asyncio.run(language.aclose())
    assert next_one._process.poll() is not None
    del left, next_one, language
    gc.collect()
