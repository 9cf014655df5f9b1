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
    0.3  # the share of calls that come with others in a pass of the event loop; alone, a call is quicker made here
)
_IDLE: Final = 30.0  # seconds without so many, until the process ends
_NEVER: Final = float("inf")
_AGAIN: Final = 60.0  # seconds between two beginnings, so that one that breaks is not begun again and again


class Beside:
    """The process of one event loop. There is none on trio, on Windows, and where there is one processor.

    Args:
        cache_dir: Where compiled images are kept.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._helper: Helper | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._last = time.monotonic()
        self._calls = self._together = 0
        self._fast = self._in_pass = False
        self._not_before = 0.0 if _possible() else _NEVER

    def wanted(self) -> Helper | None:
        """Count a call; the process, if it is there and calls come fast enough."""
        self._calls += 1
        if self._in_pass:
            self._together += 1
        elif self._not_before != _NEVER:
            self._in_pass = True
            asyncio.get_running_loop().call_soon(self._pass_over)
        now = time.monotonic()
        passed = now - self._since
        if passed >= _WINDOW:
            self._fast = self._calls >= _FAST * passed and self._together >= _TOGETHER * self._calls
            self._since, self._calls, self._together = now, 0, 0
            if self._fast:
                self._last = now
                self._begin(now)
        return self._helper if self._fast else None

    def _pass_over(self) -> None:
        self._in_pass = False

    def _begin(self, now: float) -> None:
        if self._task is not None:
            return
        if self._helper is not None and self._helper.gone:
            _log.warning("the sandbox's process has ended; its calls are made here")
            self._task = asyncio.get_running_loop().create_task(self._end())
        elif self._helper is None and now >= self._not_before:
            self._not_before = now + _AGAIN
            self._task = asyncio.get_running_loop().create_task(self._start())

    async def _start(self) -> None:
        try:
            self._helper = await Helper.start(self._cache_dir)
        except (Gone, OSError, TimeoutError) as error:
            _log.info("the sandbox has no process of its own: %s", error)
        else:
            self._timer = asyncio.get_running_loop().call_later(_IDLE, self._look)
        finally:
            self._task = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if time.monotonic() - self._last < _IDLE:
            self._timer = loop.call_later(_IDLE, self._look)
        elif self._helper is not None:
            self._timer, self._not_before = None, 0.0
            self._task = loop.create_task(self._end())

    async def _end(self) -> None:
        helper, self._helper = self._helper, None
        try:
            if helper is not None:
                await helper.aclose()
        finally:
            self._task = None

    async def aclose(self) -> None:
        """End it."""
        self._not_before = _NEVER
        if self._timer is not None:
            self._timer.cancel()
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._end()


def _possible() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sys.platform != "win32" and free > 1
