"""A worker in a process of its own, for tests that kill it: ``python run_worker.py URL NAME LEASE``."""

from __future__ import annotations

import sys

import anyio
from engine_room import room

from orchestrator_server.sql import SqlStorage


async def main(url: str, name: str, lease: str) -> None:
    storage = await SqlStorage.open(url)
    async with room(storage, name=name, lease=float(lease)):
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
