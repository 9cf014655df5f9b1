"""The earthquakes from end to end: starts the service, runs the workflow with a live picture, says where to go next.

python examples/earthquakes/run.py [--strong 5.5] [--felt 4.5] [--svg FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import server
from orchestrator_core.cli import main as orchestrator

HERE = Path(__file__).resolve().parent
# As a service far away would: long enough to watch.
LATENCY = 0.15
# When whoever installed it for this run began, in seconds since 1970.
BEGAN = "ORCHESTRATOR_DEMO_BEGAN"


def main() -> int:
    """Run it and return the command's exit code."""
    parser = argparse.ArgumentParser(description="Real earthquake records through a workflow.")
    parser.add_argument("--felt", type=float, default=4.5, help="the magnitude from which people feel one")
    parser.add_argument("--strong", type=float, default=6.0, help="the magnitude from which to ask for aftershocks")
    parser.add_argument("--svg", type=Path, help="write the picture of the finished execution here")
    parser.add_argument("--json", action="store_true", help="nothing but the result, as JSON")
    given = parser.parse_args()
    began = time.monotonic()
    with server.serving(latency=LATENCY, failures=1) as url:
        arguments = ["run", str(HERE / "earthquakes.yaml"), "--allow-address", "127.0.0.1"]
        arguments += ["--input", json.dumps({"url": url, "felt": given.felt, "strong": given.strong})]
        arguments += ["--svg", str(given.svg)] if given.svg else []
        arguments += ["--json"] if given.json else []
        code = orchestrator(arguments)
    if not given.json and code == 0:
        _say_what_next(time.monotonic() - began, given.svg)
    return code


def _say_what_next(seconds: float, svg: Path | None) -> None:
    workflow = _shown(HERE / "earthquakes.yaml")
    command = _shown(Path(sys.executable).with_name("orchestrator"))
    lines = len((HERE / "earthquakes.yaml").read_text(encoding="utf-8").splitlines())
    began = os.environ.get(BEGAN)
    total = f" ({time.time() - float(began):.0f} with the installation)" if began else ""
    print(f"\nReal records in {seconds:.1f} seconds{total}. The service failed once on purpose: see `fetch`.")
    print("\nWhere to go next")
    hints = {
        f"the workflow, {lines} lines": workflow,
        "its graph, as Mermaid text": f"{command} graph {workflow}",
        "what nodes there are": f"{command} nodes",
        "small workflows to change": _shown(HERE.parent / "README.md"),
    }
    if svg:
        hints["a picture of this run"] = str(svg)
    for hint, where in hints.items():
        print(f"  {hint + ':':<28}{where}")


def _shown(path: Path) -> str:
    """As short as it can be typed here."""
    # Not resolved: a virtual environment's programs are links to others.
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
