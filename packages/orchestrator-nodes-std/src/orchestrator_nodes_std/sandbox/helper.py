"""A process that makes calls of the sandbox beside an event loop, which goes on meanwhile.

A thread would do for long calls. For many brief ones it does not: whoever enters and leaves a guest gives Python's lock away
and has to get it back, and on the way spoils the processor's caches for all else that a server does. Another process
shares neither, and holds nothing: it has an empty environment, one socket, no files but the compiled images, and of this package only
the sandbox. It is a convenience: wherever it is missing, slow or broken, the same call is made here, and gives the same.
"""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import cast

from orchestrator_nodes_std.sandbox.javascript import Answer, Job
from orchestrator_nodes_std.sandbox.process import FRAME, frames, packed, unpacked

_MOST = 64  # calls that wait for their answers
_LARGEST = 1 << 30  # bytes of a frame
_START = 30.0  # seconds until it is ready
_PATIENCE = 5.0  # seconds without any answer, until it is given up
# The package's own `__init__` is passed over: it brings an HTTP client and much else that is of no use there.
_PROGRAM = """
import sys, types
sys.path[:] = sys.argv[4:]
package = types.ModuleType("orchestrator_nodes_std")
package.__path__ = [sys.argv[3]]
sys.modules[package.__name__] = package
from orchestrator_nodes_std.sandbox.process import serve
serve(int(sys.argv[1]), sys.argv[2])
"""


class Gone(Exception):  # noqa: N818 - whoever asks then makes the call itself
    """The process is not there, has too much to do, or did not answer."""


class Helper(asyncio.Protocol):
    """The process, seen from the event loop that began it (`start`), which is asyncio's."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        """Speak with `process`."""
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._input = b""
        self._number = 0
        self._answers = 0
        self._watch: asyncio.TimerHandle | None = None

    @classmethod
    async def start(cls, cache_dir: Path) -> "Helper":
        """Begin a process; returns when it is ready.

        Raises:
            Gone: There can be none here.
        """
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = _spawn(theirs.fileno(), cache_dir)  # at once: two milliseconds, and nothing to undo
            except OSError as error:
                ours.close()
                raise Gone(str(error)) from error
        ours.setblocking(False)
        _, helper = await loop.create_connection(lambda: cls(process), sock=ours)
        try:
            ready = helper._expect(0)  # noqa: SLF001 - its own
            await asyncio.wait_for(ready, _START)
        except BaseException:
            await helper.aclose()
            raise
        return helper

    async def perform(self, job: Job) -> Answer:
        """As `JavaScript.perform`.

        Raises:
            Gone: Have it done elsewhere.
            SandboxError: see there for its codes.
        """
        if self._transport is None or len(self._waiting) >= _MOST:
            raise Gone
        self._number = number = self._number % 0xFFFFFFFF + 1
        answer = self._expect(number)
        self._transport.write(packed(number, job))
        if self._watch is None:
            self._watch = self._loop.call_later(_PATIENCE, self._look, self._answers)
        try:
            return unpacked(await answer)
        finally:
            self._waiting.pop(number, None)

    def _expect(self, number: int) -> "asyncio.Future[bytes]":
        answer = self._waiting[number] = self._loop.create_future()
        return answer

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._transport is None

    async def aclose(self) -> None:
        """End it. Who waits for an answer is told that it is gone."""
        self._end()
        await self._loop.run_in_executor(None, _reap, self._process)

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Gone())
                answer.exception()  # nobody need be there to see it

    def _look(self, before: int) -> None:
        """Give it up where it has not answered anybody since."""
        self._watch = None
        if self._waiting and self._answers == before:
            self._process.kill()
            self._end()
        elif self._waiting:
            self._watch = self._loop.call_later(_PATIENCE, self._look, self._answers)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not derived from it

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._input += data
        at = 0
        for number, content, end in frames(self._input):
            at = end
            self._answers += 1
            answer = self._waiting.pop(number, None)
            if answer is not None and not answer.done():
                answer.set_result(content)
        self._input = self._input[at:]
        if len(self._input) >= FRAME.size and FRAME.unpack_from(self._input)[0] > _LARGEST:
            self._process.kill()
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base's signature
        """See `asyncio.Protocol`."""
        self._end()


def _spawn(descriptor: int, cache_dir: Path) -> "subprocess.Popen[bytes]":
    from multiprocessing.spawn import get_executable  # noqa: PLC0415 - takes long to import, and is rarely needed

    root = Path(__file__).parent.parent
    arguments = [str(descriptor), str(cache_dir), str(root), *(path for path in sys.path if path)]
    return subprocess.Popen(  # noqa: S603 - Python itself, with a text of this module
        [os.fsdecode(get_executable() or sys.executable), "-I", "-c", _PROGRAM, *arguments],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
        start_new_session=True,  # a Ctrl-C is not for it: it ends when its socket does
    )


def _reap(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
