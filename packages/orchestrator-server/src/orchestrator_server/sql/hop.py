"""Between the event loop and threads: one hop there, one back, on asyncio and on trio.

A hop of ``anyio.to_thread.run_sync`` costs three times as much as a queue and a future (docs/decisions), and a store makes one
for every operation.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from orchestrator_server.errors import Unavailable

__all__ = ["Reply", "Threads", "answer"]

Value = TypeVar("Value")


class Reply:
    """Where a thread leaves an answer for a coroutine."""

    __slots__ = ("_error", "_event", "_future", "_value", "post")

    def __init__(self) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._future: asyncio.Future[Any] | None = None
        self._event: Any = None
        self.post: Callable[..., Any]
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            import trio  # noqa: PLC0415 - only where it runs already

            self._event = trio.Event()
            self.post = trio.lowlevel.current_trio_token().run_sync_soon
        else:
            self._future = loop.create_future()
            self.post = loop.call_soon_threadsafe

    async def wait(self) -> Any:
        """The answer. Cancelled, nobody listens; what was asked for happens or does not."""
        if self._future is not None:
            return await self._future
        await self._event.wait()
        if self._error is not None:
            raise self._error
        return self._value

    def set(self, value: Any, error: BaseException | None) -> None:
        """Give the answer, in the event loop."""
        if self._future is None:
            self._value, self._error = value, error
            self._event.set()
        elif not self._future.done():
            if error is None:
                self._future.set_result(value)
            else:
                self._future.set_exception(error)


def answer(answers: Iterable[tuple[Reply, Any, BaseException | None]]) -> None:
    """Answer from a thread: one wake-up for each event loop."""
    loops: dict[Callable[..., Any], list[tuple[Reply, Any, BaseException | None]]] = {}
    for item in answers:
        loops.setdefault(item[0].post, []).append(item)
    for post, items in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens any more
            post(_set_all, items)


def _set_all(answers: Iterable[tuple[Reply, Any, BaseException | None]]) -> None:
    for reply, value, error in answers:
        reply.set(value, error)


class Threads:
    """A few threads for work that blocks. They are started as they are needed, and end when they have been idle."""

    def __init__(self, size: int, *, name: str, idle: float = 20.0) -> None:
        self._size = size
        self._name = name
        self._idle = idle
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Reply | None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running: set[threading.Thread] = set()
        self._free = 0
        self._closed = False

    async def run(self, work: Callable[[], Value]) -> Value:
        """What ``work`` returns, done in a thread."""
        reply = Reply()
        self._put(work, reply)
        result: Value = await reply.wait()
        return result

    def start(self, work: Callable[[], None]) -> None:
        """Do something in a thread that nobody waits for."""
        with contextlib.suppress(Unavailable):
            self._put(work, None)

    def _put(self, work: Callable[[], Any], reply: Reply | None) -> None:
        with self._lock:
            if self._closed:
                raise Unavailable("this storage is closed")
            self._queue.put((work, reply))
            if self._free < self._queue.qsize() and len(self._running) < self._size:
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._running.add(thread)
                thread.start()

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._free += 1
            try:
                item = self._queue.get(timeout=self._idle)
            except queue.Empty:
                with self._lock:
                    self._free -= 1
                    if self._queue.empty():
                        self._running.discard(threading.current_thread())
                        return
                continue
            with self._lock:
                self._free -= 1
            if item is None:
                with self._lock:
                    self._running.discard(threading.current_thread())
                return
            work, reply = item
            value, error = None, None
            try:
                value = work()
            except BaseException as raised:  # noqa: BLE001 - it is the caller's
                error = raised
            if reply is not None:
                answer([(reply, value, error)])
            del value, error
            del item, work, reply

    def close(self) -> None:
        """End the threads when they have done what was asked for. Blocks until then."""
        with self._lock:
            self._closed = True
            running = [*self._running]
            for _ in running:
                self._queue.put(None)
        for thread in running:
            thread.join()
