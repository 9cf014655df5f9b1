"""What an operator allows: limits on user code, and capabilities that are denied.

What is denied is not there: node types that need it are not registered, and a function that asks for it all the same
finds nothing behind its context.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs

from orchestrator_core.errors import NodeError
from orchestrator_core.nodes import Evaluated, Language, LanguageError, Ran
from orchestrator_core.types import Json

__all__ = ["CAPABILITIES", "CodePolicy", "LimitedLanguage", "check_capabilities", "denied"]

CAPABILITIES: Final = ("blobs", "code", "network", "secrets")
"""What node types can need of the engine, and an operator can deny."""


@attrs.frozen
class CodePolicy:
    """The most that user code may ask for.

    Attributes:
        timeout: Seconds for one run; ``None``: whatever the node says.
        memory: Bytes for one run; ``None``: whatever the node says.
    """

    timeout: float | None = None
    memory: int | None = None


def check_capabilities(names: Collection[str]) -> frozenset[str]:
    """The names as a set.

    Raises:
        ValueError: One of them is no capability.
    """
    unknown = sorted(set(names) - set(CAPABILITIES))
    if unknown:
        raise ValueError(f"there is no capability {unknown[0]!r}: there are {', '.join(CAPABILITIES)}")
    return frozenset(names)


def denied(capability: str) -> NodeError:
    """The error of a node that asks for what is denied."""
    return NodeError(f"{capability} is denied here", code="denied", retryable=False)


@attrs.frozen
class LimitedLanguage:
    """A language as a tenant has it: its programs run within a policy, or not at all. Expressions have limits of their own."""

    language: Language
    policy: CodePolicy
    tenant: str
    denied: bool = False

    @property
    def name(self) -> str:
        """The language's name."""
        return self.language.name

    def check(self, source: str, *, expression: bool) -> None:
        """See :class:`Language`."""
        self.language.check(source, expression=expression)

    async def run(
        self,
        source: str,
        context: Mapping[str, Json],
        *,
        timeout: float | None,
        memory: int | None,
        seed: int,
        now: float,
        tenant: str = "",  # noqa: ARG002 - it is this one's
    ) -> Ran:
        """See :class:`Language`."""
        if self.denied:
            raise LanguageError("running code is denied here", code="denied")
        most = self.policy
        return await self.language.run(
            source,
            context,
            timeout=most.timeout if timeout is None else min(timeout, most.timeout or timeout),
            memory=most.memory if memory is None else min(memory, most.memory or memory),
            seed=seed,
            now=now,
            tenant=self.tenant,
        )

    async def evaluate(
        self,
        expressions: Sequence[str],
        scope: Mapping[str, Json],
        *,
        seed: int,
        now: float,
        tenant: str = "",  # noqa: ARG002 - it is this one's
    ) -> Sequence[Evaluated]:
        """See :class:`Language`."""
        return await self.language.evaluate(expressions, scope, seed=seed, now=now, tenant=self.tenant)

    async def aclose(self) -> None:
        """See :class:`Language`."""
        await self.language.aclose()
