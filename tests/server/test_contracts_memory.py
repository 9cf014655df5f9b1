"""The public contract over the reference implementation."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from orchestrator_server.memory import MemoryStorage
from orchestrator_server.testing import CONTRACTS, Contract, Harness


@pytest.mark.anyio
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
async def test_memory_keeps_the_contract(contract: Contract):
    now = [1_000_000.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        await anyio.lowlevel.checkpoint()

    await contract(Harness(MemoryStorage(now=lambda: now[0]), sleep))
