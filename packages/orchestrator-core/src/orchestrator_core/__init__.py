"""Workflows as data, run anywhere with the same meaning.

The library's public names. What is not listed here is internal; test helpers are in :mod:`orchestrator_core.testing`.
"""

from orchestrator_core.build import Flow
from orchestrator_core.codec import dump_json, parse_duration, parse_json
from orchestrator_core.configs import Expression
from orchestrator_core.document import Workflow
from orchestrator_core.engine import Clock, Engine, Execution, SystemClock
from orchestrator_core.errors import (
    Conflict,
    DocumentError,
    Fault,
    IllegalEvent,
    NodeError,
    OrchestratorError,
    PluginError,
    Unavailable,
)
from orchestrator_core.events import Event
from orchestrator_core.expressions import ExpressionError, truthy
from orchestrator_core.hookspecs import hookimpl
from orchestrator_core.journal import Journal, MemoryJournal, event_from_json, event_to_json
from orchestrator_core.machine import Machine
from orchestrator_core.nodes import (
    Blobs,
    Evaluated,
    HttpClient,
    HttpPolicy,
    HttpResponse,
    Language,
    LanguageError,
    NodeContext,
    NodeType,
    Ran,
    Services,
    node_type,
    setting,
)
from orchestrator_core.policies import CodePolicy
from orchestrator_core.realm import Realm
from orchestrator_core.types import (
    Attempt,
    Duration,
    Edge,
    ExecutionStatus,
    Failure,
    Json,
    LogLine,
    Node,
    NodeIO,
    NodeStatus,
    Result,
    Resumed,
    Retry,
    Settings,
)

__all__ = [
    "Attempt",
    "Blobs",
    "Clock",
    "CodePolicy",
    "Conflict",
    "DocumentError",
    "Duration",
    "Edge",
    "Engine",
    "Evaluated",
    "Event",
    "Execution",
    "ExecutionStatus",
    "Expression",
    "ExpressionError",
    "Failure",
    "Fault",
    "Flow",
    "HttpClient",
    "HttpPolicy",
    "HttpResponse",
    "IllegalEvent",
    "Journal",
    "Json",
    "Language",
    "LanguageError",
    "LogLine",
    "Machine",
    "MemoryJournal",
    "Node",
    "NodeContext",
    "NodeError",
    "NodeIO",
    "NodeStatus",
    "NodeType",
    "OrchestratorError",
    "PluginError",
    "Ran",
    "Realm",
    "Result",
    "Resumed",
    "Retry",
    "Services",
    "Settings",
    "SystemClock",
    "Unavailable",
    "Workflow",
    "dump_json",
    "event_from_json",
    "event_to_json",
    "hookimpl",
    "node_type",
    "parse_duration",
    "parse_json",
    "setting",
    "truthy",
]
