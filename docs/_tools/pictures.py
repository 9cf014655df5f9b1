"""Pictures of the workflows on the pages: a YAML block that is followed by an image in ``pictures/`` is drawn there.

A case of the law is run first, on the machine, and drawn with the status of every node at its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator_core import Workflow
from orchestrator_core.picture import svg
from orchestrator_core.testing.cases import load_case, run_on_machine
from orchestrator_core.yaml_text import parse_yaml

__all__ = ["draw", "pictures"]

_DRAWN = re.compile(
    r"^```yaml\n(?P<source>.*?)^```\n+!\[[^\]]*\]\((?P<file>[\w./-]*pictures/[\w-]+\.svg)\)", re.MULTILINE | re.DOTALL
)


def pictures(page: Path) -> Iterator[tuple[Path, str]]:
    """The pictures of a page: where each belongs, and its text."""
    for match in _DRAWN.finditer(page.read_text(encoding="utf-8")):
        # A block may not reach over the end of another: what lies between would be in `source`.
        source = match["source"].rpartition("```yaml\n")[2]
        yield (page.parent / match["file"]).resolve(), draw(parse_yaml(source)[0])


def draw(value: Any) -> str:
    """A workflow, or a case with the statuses in which it ends, as SVG."""
    if "expect" not in value:
        workflow = Workflow.from_dict({"schema": 1, "id": "example", **value})
        return svg(workflow.nodes, workflow.edges)
    case = load_case(value)
    result = run_on_machine(case).result
    return svg(
        case.workflow.nodes,
        case.workflow.edges,
        status={io.path: io.status for io in result.nodes},
        ports={io.path: io.outputs.keys() for io in result.nodes},
    )
