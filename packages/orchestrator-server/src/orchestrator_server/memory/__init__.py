"""Storage in memory: the reference implementation."""

from orchestrator_server.memory.storage import MemoryStorage, MemoryTenantStore

__all__ = ["MemoryStorage", "MemoryTenantStore"]
