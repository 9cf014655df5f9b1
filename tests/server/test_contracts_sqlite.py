"""The public contract over SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator_server.sql import SqlStorage
from orchestrator_server.testing import CONTRACTS, Contract, Harness


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("isolation", ["shared", "schema", "database"])
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
async def test_sqlite_keeps_the_contract(contract: Contract, isolation: str, tmp_path: Path):
    storage = await SqlStorage.open(f"sqlite:///{tmp_path}/a.db", isolation=isolation)
    try:
        await contract(Harness(storage))
    finally:
        await storage.aclose()
