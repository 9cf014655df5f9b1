"""Showing an execution while its events come in: a picture that is drawn again and again, or a line for whatever happens.

Where the events come from is all the same: an engine in this process, or a server's stream.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import anyio
from rich.console import Console
from rich.live import Live

from orchestrator_core.cli import live
from orchestrator_core.cli.progress import Progress
from orchestrator_core.cli.report import STATUS_STYLES, happened_line
from orchestrator_core.cli.text import say
from orchestrator_core.events import Event

__all__ = ["Display", "Mode"]

Mode = Literal["live", "plain", "silent"]
_FRAME = 0.1  # seconds between two frames


async def _at_once() -> None:
    """Nothing more is waited for."""


class Display:
    """Takes in the events of an execution and shows it meanwhile.

    Args:
        progress: Where the execution stands; the events are folded into it.
        mode: A picture (``live``), lines (``plain``) or nothing (``silent``).
        now: The time in seconds since 1970, on the clock that the events' times are of.
    """

    def __init__(self, progress: Progress, *, mode: Mode, now: Callable[[], float]) -> None:
        self.progress = progress
        self.mode = mode
        self._now = now
        self._names = min(max((len(row.place) for row in progress.rows), default=8), 28)
        self._icons = live.icons_for(getattr(sys.stdout, "encoding", None) or "ascii")

    async def show(self, events: AsyncIterator[Event], *, leave: Callable[[], Awaitable[None]] = _at_once) -> None:
        """Return when all events have come, and ``leave`` has returned: until then the picture stays alive."""
        if self.mode == "live":
            await self._draw(events, leave)
            return
        async for event in events:
            self.progress.apply(event)
            if self.mode == "plain":
                self._tell()
            self.progress.happened.clear()
        await leave()

    def _tell(self) -> None:
        for happened in self.progress.happened:
            line = happened_line(happened, self.progress, self._icons, self._names)
            say(line, style=STATUS_STYLES.get(str(happened.kind)))

    async def _draw(self, events: AsyncIterator[Event], leave: Callable[[], Awaitable[None]]) -> None:
        console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as picture:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._frames, console, picture)
                    async for event in events:
                        self.progress.apply(event)
                        self.progress.happened.clear()
                    await leave()
                    group.cancel_scope.cancel()
            finally:
                self._update(console, picture)

    async def _frames(self, console: Console, picture: Live) -> None:
        """Draw whenever something happened, and as long as times go on; ten times a second at most."""
        progress, shown, size = self.progress, (-1, ""), console.size
        while True:
            state = (progress.serial, progress.note)
            if state != shown or progress.active or progress.note or console.size != size:
                shown, size = state, console.size
                self._update(console, picture)
            await anyio.sleep(_FRAME)

    def _update(self, console: Console, picture: Live) -> None:
        size = console.size
        frame = live.frame(self.progress, now=self._now(), width=size.width, height=size.height, icons=self._icons)
        picture.update(frame, refresh=True)
