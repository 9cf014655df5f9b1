"""What each contestant of the durable steps does: chains of 50 nodes that do nothing, one after the other, for some seconds.

A contestant is a module with `NAME`, `HOW`, `PACKAGES` and a coroutine function `measure(url, clients, seconds)` that gives
:class:`Spent`. `python benchmarks/steps.py '{"module": …, "url": …, "clients": …, "seconds": …}'` carries out one order in a
process of its own, and answers with one line of JSON behind `ANSWER`.
"""

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

ANSWER = "benchmark-answer: "
LENGTH = 50
MODULES = ("durable", "peer_dbos", "peer_langgraph_durable")


@dataclass
class Spent:
    """What was done, in how many seconds by the wall clock and of processor time."""

    steps: int
    wall: float
    cpu: float


async def drive(once: Callable[[], Awaitable[int]], clients: int, seconds: float) -> Spent:
    """Let clients do one thing again and again; `once` gives how many steps it was. The first time is a warm-up."""
    await once()
    steps = 0
    began, used = time.perf_counter(), time.process_time()
    until = began + seconds

    async def client() -> None:
        nonlocal steps
        while time.perf_counter() < until:
            done = await once()
            steps += done

    await asyncio.gather(*(client() for _ in range(clients)))
    return Spent(steps, time.perf_counter() - began, time.process_time() - used)


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    measure = importlib.import_module(order["module"]).measure
    spent = asyncio.run(measure(order["url"], order["clients"], order["seconds"]))
    print(ANSWER + json.dumps(asdict(spent)), flush=True)
