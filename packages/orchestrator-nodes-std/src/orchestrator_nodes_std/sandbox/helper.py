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

import attrs

from orchestrator_nodes_std.sandbox.javascript import Answer, Job
from orchestrator_nodes_std.sandbox.process import FRAME, Gone, packed, take, unpacked

__all__ = ["Gone", "Helper"]

_MOST = 64  # calls that wait for their answers
_LARGE = 1024 * 1024  # bytes of a job, or of jobs that were not sent yet: more is called where it is
_BESIDE = 1024 * 1024  # bytes that an answer may have beside its value and its logs
_ESCAPED = 6  # bytes of JSON that a byte of a log may take
_START = 10.0  # seconds until it is ready
_PATIENCE = 2.0  # seconds for which a call waits, until the process is given up
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


@attrs.define
class _Asked:
    """A call that was sent: where its answer goes, how large that may be, and since when it waits."""

    answer: "asyncio.Future[bytes]"
    most: int
    since: float


class Helper(asyncio.Protocol):
    """The process, seen from the event loop that began it (`start`), which is asyncio's."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        """Speak with `process`."""
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._asked: dict[int, _Asked] = {0: _Asked(self._loop.create_future(), 0, self._loop.time())}
        self._input = bytearray()
        self._number = 0
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
        helper = cls(process)
        ready = helper._asked[0].answer
        try:
            ours.setblocking(False)
            await loop.create_connection(lambda: helper, sock=ours)
            await asyncio.wait_for(asyncio.shield(ready), _START)
        except BaseException:
            ours.close()
            await helper.aclose()
            raise
        return helper

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._transport is None

    @property
    def full(self) -> bool:
        """Whether it would not take another call."""
        return self._transport is None or len(self._asked) >= _MOST or self._transport.get_write_buffer_size() > _LARGE

    async def perform(self, job: Job) -> Answer:
        """As `JavaScript.perform`.

        Raises:
            Gone: Have it done elsewhere.
            SandboxError: see there for its codes.
        """
        if self.full or self._transport is None or len(job.head) + len(job.body) > _LARGE:
            raise Gone
        self._number = number = self._number % 0xFFFFFFFF + 1
        limits, now = job.limits, self._loop.time()
        answer = self._loop.create_future()
        # It stays until it is answered: who is cancelled does not take the call back.
        self._asked[number] = _Asked(answer, limits.output + _ESCAPED * limits.logs + _BESIDE, now)
        self._transport.write(packed(number, job))
        if self._watch is None:
            self._watch = self._loop.call_later(_PATIENCE, self._look)
        return unpacked(await answer)

    async def aclose(self) -> None:
        """End it. Who waits for an answer is told that it is gone."""
        self._end()
        await self._loop.run_in_executor(None, _reap, self._process)

    def kill(self) -> None:
        """End it where its event loop does not run any more."""
        self._process.kill()
        self._process.wait()

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(Gone())
                asked.answer.exception()  # nobody need be there to see it
        self._asked.clear()

    def _give_up(self) -> None:
        self._process.kill()
        self._end()

    def _look(self) -> None:
        """Give it up where a call has waited too long."""
        self._watch = None
        first = next(iter(self._asked.values()), None)
        if first is None:
            return
        left = first.since + _PATIENCE - self._loop.time()
        if left <= 0:
            self._give_up()
        else:
            self._watch = self._loop.call_later(left, self._look)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not derived from it

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._input += data
        while len(self._input) >= FRAME.size:
            size, number = FRAME.unpack_from(self._input)
            asked = self._asked.get(number)
            if asked is None or size > asked.most:
                self._give_up()  # nobody has asked for that
                return
            frame = take(self._input)
            if frame is None:
                return
            del self._asked[number]
            if not asked.answer.done():
                asked.answer.set_result(frame[1])

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
