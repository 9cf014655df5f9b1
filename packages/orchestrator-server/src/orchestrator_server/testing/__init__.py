"""The contract of storage, for whoever writes one: every property as a function that raises ``AssertionError``.

Run each of :data:`CONTRACTS` over an empty storage::

    for contract in CONTRACTS:
        await contract(Harness(storage))
"""

from orchestrator_server.testing.contracts import CONTRACTS, Contract
from orchestrator_server.testing.harness import Harness

__all__ = ["CONTRACTS", "Contract", "Harness"]
