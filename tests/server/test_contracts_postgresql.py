"""The public contract over a real PostgreSQL, as a user who is no superuser."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conftest import emptied
from orchestrator_server.sql import SqlStorage
from orchestrator_server.testing import CONTRACTS, Contract, Harness


@pytest.mark.anyio
@pytest.mark.parametrize("isolation", ["shared", "schema", "database"])
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
async def test_postgresql_keeps_the_contract(contract: Contract, isolation: str, postgresql_url: Callable[[str], str]):
    storage = await SqlStorage.open(postgresql_url(f"contract_{isolation}"), isolation=isolation)
    try:
        await contract(Harness(await emptied(storage)))
    finally:
        await storage.aclose()
