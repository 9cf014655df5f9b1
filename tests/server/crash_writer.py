"""Appends as fast as it can and says what was acknowledged; the test kills it in the midst.

``python crash_writer.py URL ROUND`` prints one line for each acknowledged append: execution and number of events.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

from orchestrator_server.errors import Exists
from orchestrator_server.records import Tenant
from orchestrator_server.sql import SqlStorage
from orchestrator_server.testing.harness import new, step

WRITERS = 8


async def main(url: str, turn: str) -> None:
    storage = await SqlStorage.open(url)
    with contextlib.suppress(Exists):
        await storage.tenants.create(Tenant("t"))
    store = await storage.store("t")

    async def write(number: int) -> None:
        name = f"exe_{turn}_{number}"
        await store.executions.create(new(name))
        os.write(1, f"{name} 1\n".encode())
        seq = 1
        while True:
            # Every tenth carries something large, which is stored beside the events.
            value = f"{name}{seq}" * (30_000 if seq % 20 == 9 else 1)
            await store.journal.append("t", name, seq, 0, step(seq, value=value))
            seq += 2
            os.write(1, f"{name} {seq}\n".encode())

    await asyncio.gather(*(write(number) for number in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
