"""When brief calls go to a process of their own: while they come thick and fast, and there is a processor to spare."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import Final

from orchestrator_nodes_std.sandbox.helper import Gone, Helper

__all__ = ["Beside"]

_log: Final = logging.getLogger(__name__)
_WINDOW: Final = 0.1  # seconds over which calls are counted
_FAST: Final = 200  # calls a second from which on it is worth while
_TOGETHER: Final = (
    0.3  # the share of them that come with others in a pass of the event loop: alone it is quicker made here
)
_IDLE: Final = 30.0  # seconds without so many, until the process ends
_NEVER: Final = float("inf")
_AGAIN: Final = 60.0  # seconds between two beginnings, so that one that breaks is not begun again and again


class Beside:
    """The process of the event loop that runs here. There is none on trio, on Windows, and where there is one processor.

    Args:
        cache_dir: Where compiled images are kept.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._loop = _asyncio_loop() if _possible() else None
        self._helper: Helper | None = None
        self._starts: asyncio.Task[None] | None = None
        self._ends: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._last = time.monotonic()
        self._calls = self._together = 0
        self._fast = self._in_pass = False
        self._not_before = 0.0

    @property
    def abandoned(self) -> bool:
        """Whether its event loop has ended without closing it."""
        return self._loop is not None and self._loop.is_closed()

    def wanted(self) -> Helper | None:
        """Count a call; the process, if it is there, has room, and calls come fast enough."""
        if self._loop is None or self._loop is not _asyncio_loop():
            return None
        self._calls += 1
        if self._in_pass:
            self._together += 1
        else:
            self._in_pass = True
            self._loop.call_soon(self._pass_over)
        now = time.monotonic()
        passed = now - self._since
        if passed >= _WINDOW:
            self._fast = self._calls >= _FAST * passed and self._together >= _TOGETHER * self._calls
            self._since, self._calls, self._together = now, 0, 0
            if self._fast:
                self._last = now
                self._begin(self._loop, now)
        helper = self._helper
        return helper if self._fast and helper is not None and not helper.full else None

    def _pass_over(self) -> None:
        self._in_pass = False

    def _begin(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        if self._starts is not None or self._ends is not None:
            return
        if self._helper is not None and self._helper.gone:
            _log.warning("the sandbox's process has ended; its calls are made here")
            self._ends = loop.create_task(self._end())
        elif self._helper is None and now >= self._not_before:
            self._not_before = now + _AGAIN
            self._starts = loop.create_task(self._start(loop))

    async def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._helper = await Helper.start(self._cache_dir)
        except (Gone, OSError, TimeoutError) as error:
            _log.info("the sandbox has no process of its own: %s", error)
        else:
            self._timer = loop.call_later(_IDLE, self._look, loop)
        finally:
            self._starts = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if time.monotonic() - self._last < _IDLE:
            self._timer = loop.call_later(_IDLE, self._look, loop)
        elif self._helper is not None and self._ends is None:
            self._not_before = 0.0
            self._ends = loop.create_task(self._end())

    async def _end(self) -> None:
        helper, self._helper = self._helper, None
        try:
            if helper is not None:
                await helper.aclose()
        finally:
            self._ends = None

    async def aclose(self) -> None:
        """End it. It does not begin again."""
        if self._loop is not _asyncio_loop():
            self.kill()
            return
        self._not_before = _NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._starts is not None:
            self._starts.cancel()
        going = [task for task in (self._starts, self._ends) if task is not None]
        if going:
            await asyncio.wait(going)
        await self._end()

    def kill(self) -> None:
        """End it where its event loop does not run any more."""
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.kill()


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _possible() -> bool:
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sys.platform != "win32" and free > 1
