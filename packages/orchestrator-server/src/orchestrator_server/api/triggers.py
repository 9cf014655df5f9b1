"""What lives because a version of a workflow is active: its webhooks and schedules, read from its trigger nodes.

The path of a webhook is stored without the names of its parameters (``orders/{}/paid``): two webhooks that differ in nothing
else would both be meant by the same request, and the database refuses the second.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from orchestrator_core import Fault, Workflow
from orchestrator_core.errors import DocumentError
from orchestrator_core.nodes import NodeType
from orchestrator_core.types import Json, Node
from orchestrator_server.records import Schedule, Triggers, Webhook
from orchestrator_server.slots import next_slot

__all__ = ["schedule_id", "stored_path", "triggers_of", "with_type_versions"]

_PARAMETER = re.compile(r"\{[^{}/]*\}")
_LONGEST_ID = 64


def triggers_of(workflow: Workflow, *, now: float) -> Triggers:
    """The triggers of a document that is sound.

    Args:
        workflow: The document.
        now: The time in seconds since 1970; slots before it are not made up for.

    Raises:
        DocumentError: A trigger depends on what is only known when something runs.
    """
    webhooks: list[Webhook] = []
    schedules: list[Schedule] = []
    for index, node in enumerate(workflow.nodes):
        if node.disabled:
            continue
        if node.type == "webhook":
            path = stored_path(node)
            methods = node.config.get("methods", ["POST"])
            if not isinstance(methods, list):
                raise DocumentError([Fault("must be a list of methods here", f"$.nodes[{index}].config.methods")])
            webhooks += [
                Webhook(str(method), path, workflow.id, 0, node.id, dict(node.config))
                for method in dict.fromkeys(methods)
            ]
        elif node.type == "schedule":
            schedules.append(_schedule(workflow, node, index, now))
    return Triggers(tuple(webhooks), tuple(schedules))


def stored_path(node: Node) -> str:
    """The path of a webhook without the names of its parameters."""
    return _PARAMETER.sub("{}", str(node.config.get("path", "")))


def _schedule(workflow: Workflow, node: Node, index: int, now: float) -> Schedule:
    for name, value in node.config.items():
        if isinstance(value, str) and "{{" in value:
            place = f"$.nodes[{index}].config.{name}"
            raise DocumentError([Fault("a schedule is read before anything runs: write the value itself", place)])
    spec = dict(node.config)
    return Schedule(schedule_id(workflow.id, node.id), workflow.id, node.id, spec, next_at=next_slot(spec, now))


def schedule_id(workflow: str, node: str) -> str:
    """The id of a trigger's schedule. Ids of nodes have no hyphen: the last one parts the two."""
    made = f"{workflow}-{node}"
    if len(made) <= _LONGEST_ID:
        return made
    return f"schedule_{hashlib.sha256(made.encode()).hexdigest()[:40]}"


def with_type_versions(document: Mapping[str, Json], types: Mapping[str, NodeType]) -> dict[str, Json]:
    """The document with the version of each node's type, where it does not say one: so it keeps its meaning."""
    nodes = document.get("nodes")
    if not isinstance(nodes, list):
        return dict(document)
    return {**document, "nodes": [_versioned(node, types) for node in nodes]}


def _versioned(node: Any, types: Mapping[str, NodeType]) -> Any:
    kind = types.get(node.get("type", "")) if isinstance(node, dict) else None
    if kind is None:
        return node
    made = {**node}
    if made.get("type_version") is None:
        made["type_version"] = kind.version
    config = node.get("config")
    if kind.group is not None and isinstance(config, dict) and isinstance(config.get("body"), dict):
        made["config"] = {**config, "body": with_type_versions(config["body"], types)}
    return made
