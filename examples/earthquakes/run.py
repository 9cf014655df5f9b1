"""The earthquakes from end to end: starts the service, runs the workflow with a live picture, says where to go next.

python examples/earthquakes/run.py [--strong 5.5] [--felt 4.5] [--svg FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import server

from orchestrator_core.cli import main as orchestrator

HERE = Path(__file__).parent
# As a service far away would: long enough to watch.
LATENCY = 0.15


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
    workflow = (HERE / "earthquakes.yaml").resolve()
    shown = workflow.relative_to(Path.cwd()) if workflow.is_relative_to(Path.cwd()) else workflow
    command = Path(sys.executable).with_name("orchestrator")
    shown_command = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else "orchestrator"
    print(f"\nReal records, 10 nodes, {seconds:.1f} seconds in all. (The service failed once on purpose: see `fetch`.)")
    print("\nWhere to go next")
    print(f"  the workflow, a file of 130 lines:  {shown}")
    if svg:
        print(f"  its picture:                        {svg}")
    print(f"  the same in words for a page:       {shown_command} graph {shown}")
    print(f"  what nodes there are:               {shown_command} nodes")
    print("  twelve small workflows to change:   examples/README.md")


if __name__ == "__main__":
    sys.exit(main())
