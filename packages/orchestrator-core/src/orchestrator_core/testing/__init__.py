"""Helpers for tests: simulations in virtual time, strategies for workflows, contracts for nodes and journals.

``workflows`` and ``cases`` need Hypothesis (the extra ``[testing]``); everything else does not.
"""

from typing import Any

from orchestrator_core.document import Workflow
from orchestrator_core.testing.contracts import (
    FakeServices,
    check_journal,
    check_node_type,
    make_context,
    run_node,
)
from orchestrator_core.testing.simulate import Simulated, simulate

try:
    from orchestrator_core.testing import strategies
except ImportError:  # Hypothesis is not installed: only the strategies are missing
    strategies = None  # type: ignore[assignment]  # the module is optional

__all__ = [
    "FakeServices",
    "Simulated",
    "cases",
    "check_journal",
    "check_node_type",
    "make_context",
    "run_node",
    "simulate",
    "workflows",
]


def workflows(**features: Any) -> Any:
    """A Hypothesis strategy of :class:`~orchestrator_core.Workflow` objects whose nodes are scripted, for :func:`simulate`.

    Keywords as of :func:`orchestrator_core.testing.strategies.workflows`.

    Raises:
        ImportError: Hypothesis is not installed.
    """
    return _strategies().workflows(**features).map(Workflow.from_dict)


def cases(**features: Any) -> Any:
    """A Hypothesis strategy of cases as plain dicts, in the format of case files.

    Keywords as of :func:`orchestrator_core.testing.strategies.cases`.

    Raises:
        ImportError: Hypothesis is not installed.
    """
    return _strategies().cases(**features)


def _strategies() -> Any:
    if strategies is None:
        raise ImportError("strategies need Hypothesis: pip install 'pluggable-orchestrator-core[testing]'")
    return strategies
