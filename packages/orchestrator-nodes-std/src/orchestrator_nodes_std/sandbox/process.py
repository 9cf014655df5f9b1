"""The process that makes calls beside an event loop (see `helper`): what is said to it and by it, and what it does.

Both sides send frames: the size of what follows, a number that the answer repeats, and a content. A request's content is
`_REQUEST` and then the head and the body of a `Job`; that of an answer a letter and what it announces: `a` the logs as JSON, a zero byte, what the
driver answered; `e` the error as JSON; `g` nothing, where the call could not be made. What comes from the process is trusted no more than what comes from a guest.
"""

import contextlib
import json
import signal
import socket
import struct
from pathlib import Path
from typing import Any

from orchestrator_nodes_std.sandbox.javascript import Answer, JavaScript, Job
from orchestrator_nodes_std.sandbox.values import ERROR_CODES, LEVELS, Limits, LogLine, SandboxError

FRAME = struct.Struct("<II")
"""What begins a frame: the size of its content, its number. The first frame of the process, number 0, says that it is ready."""
# Of the limits: time, memory, output, logs, stack; then now, extras, whether these are expressions, the size of the head.
_REQUEST = struct.Struct("<dQQIIdBBI")
_READ = 1 << 18  # bytes that are read at once
_ELSEWHERE = b"g"  # the answer where a call could not be made


class Gone(Exception):  # noqa: N818 - whoever asks then makes the call itself
    """The process is not there, has too much to do, did not answer, or could not make the call."""


def packed(number: int, job: Job) -> bytes:
    """The frame that asks for a job."""
    limits = job.limits
    expressions = job.realm == "expressions"
    size = _REQUEST.size + len(job.head) + len(job.body)
    return b"".join(
        [
            FRAME.pack(size, number),
            _REQUEST.pack(
                *(limits.time, limits.memory, limits.output, limits.logs, limits.stack),
                *(job.now, job.extras, expressions, len(job.head)),
            ),
            job.head,
            job.body,
        ]
    )


def unpacked(content: bytes) -> Answer:
    """What a process answered.

    Raises:
        Gone: It could not make the call.
        SandboxError: That is what it says; or it says nothing that can be understood.
    """
    if content == _ELSEWHERE:
        raise Gone
    try:
        if content[:2] == b"a\0":
            return content[2:], ()
        if content[:1] == b"a":
            logs, _, answer = content[1:].partition(b"\0")
            return answer, _lines(json.loads(logs))
        error = _error(*json.loads(content[1:]))
    except (ValueError, TypeError, RecursionError):
        raise SandboxError("crashed", "the guest gave no answer") from None
    raise error


def _error(code: Any, message: Any, line: Any, snippet: Any, logs: Any) -> SandboxError:
    if code not in ERROR_CODES or not (line is None or type(line) is int):
        raise ValueError
    return SandboxError(
        code, _text(message), line=line, snippet=None if snippet is None else _text(snippet), logs=_lines(logs)
    )


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError
    given.encode()  # halves of surrogate pairs are refused as everywhere: it is a ValueError
    return given


def _lines(logs: Any) -> tuple[LogLine, ...]:
    return tuple(LogLine(LEVELS[LEVELS.index(level)], _text(message)) for level, message in logs)


def take(data: bytearray) -> tuple[int, bytes] | None:
    """Take the first frame away, if it is whole: its number and content."""
    if len(data) < FRAME.size:
        return None
    size, number = FRAME.unpack_from(data)
    end = FRAME.size + size
    if len(data) < end:
        return None
    content = bytes(data[FRAME.size : end])
    del data[:end]
    return number, content


def serve(descriptor: int, cache_dir: str) -> None:
    """Make the calls that come through a socket, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError):
        import resource  # noqa: PLC0415 - not everywhere

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what a program was given does not end up in a file
    with (
        socket.socket(fileno=descriptor) as link,
        JavaScript(cache_dir=Path(cache_dir), instances=1, compiles=False) as runtime,
        contextlib.suppress(ConnectionError),
    ):
        runtime.run("", {}, seed=0, now=0.0)  # the image is loaded
        link.sendall(FRAME.pack(0, 0))
        waiting = bytearray()
        while data := link.recv(_READ):
            waiting += data
            while (frame := take(waiting)) is not None:
                number, content = frame
                answer = _made(runtime, content)
                link.sendall(FRAME.pack(len(answer), number) + answer)


def _made(runtime: JavaScript, content: bytes) -> bytes:
    *limits, now, extras, expressions, size = _REQUEST.unpack_from(content)
    head = content[_REQUEST.size : _REQUEST.size + size]
    time_limit, memory, output, logs, stack = limits
    job = Job(
        head,
        content[_REQUEST.size + size :],
        Limits(time_limit, memory, output, logs, stack),
        now,
        None if expressions else json.loads(head)["source"],
        extras,
        "expressions" if expressions else "programs",
    )
    try:
        answer, lines = runtime.perform(job)
    except SandboxError as error:
        told = [
            error.code,
            error.message,
            error.line,
            error.snippet,
            [[line.level, line.message] for line in error.logs],
        ]
        return b"e" + json.dumps(told).encode()
    except Exception:  # noqa: BLE001 - whatever it is, others wait for their answers
        return _ELSEWHERE
    noted = json.dumps([[line.level, line.message] for line in lines]).encode() if lines else b""
    return b"a" + noted + b"\0" + answer
