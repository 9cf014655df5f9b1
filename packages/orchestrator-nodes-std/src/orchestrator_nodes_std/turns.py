"""Slots that tenants take in turns: who asks for many does not keep out who asks for one."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

__all__ = ["Turns"]


class Turns:
    """A number of slots, of one event loop.

    Tenants that wait get them round robin, the calls of one in the order in which they came. The last free slot goes only to a
    tenant that holds none: so one that fills all it may have leaves the next one a slot at once.

    Args:
        slots: How many there are; two or more.
    """

    def __init__(self, slots: int) -> None:
        if slots < 2:
            raise ValueError("there must be two slots or more")
        self.slots: Final = slots
        self._free = slots
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[anyio.Event]] = {}  # whose turn it is stands first

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a slot, and hold it."""
        if self._may(tenant):  # whoever waits may not, or would not wait
            self._take(tenant)
        else:
            await self._wait(tenant)
        try:
            yield
        finally:
            self._give_back(tenant)

    def _may(self, tenant: str) -> bool:
        return self._free > 1 or (self._free == 1 and not self._held[tenant])

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._held[tenant] += 1

    async def _wait(self, tenant: str) -> None:
        turn = anyio.Event()
        queue = self._waiting.setdefault(tenant, deque())
        queue.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():  # cancelled after the slot was given
                self._give_back(tenant)
            else:
                queue.remove(turn)
                if not queue:
                    del self._waiting[tenant]
            raise

    def _give_back(self, tenant: str) -> None:
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        while (following := next(filter(self._may, self._waiting), None)) is not None:
            queue = self._waiting.pop(following)
            self._take(following)
            queue.popleft().set()
            if queue:
                self._waiting[following] = queue  # at the end
