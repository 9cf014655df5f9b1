"""The command line ``orchestrator``. It needs the extra ``[cli]``; everything else of the library does not.

``main`` is all that is public. Plugins add commands through the hook ``register_commands``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

_NEEDED = {"click": "click", "rich": "rich", "yaml": "PyYAML"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What stands after the program's name; ``None``: that of this process.

    Returns:
        0 succeeded, 1 the execution failed, 2 bad usage or a bad document, 130 interrupted.
    """
    try:
        code = _run(arguments)
    except KeyboardInterrupt:  # before there is somebody who explains it
        sys.stderr.write("orchestrator: interrupted\n")
        code = 130
    if code >= 128 and arguments is None:
        # A thread that runs a node's function cannot be stopped; a person who interrupts does not wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(arguments: Sequence[str] | None) -> int:
    missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.stderr.write(
            f"orchestrator: the command line needs {', '.join(missing)}: "
            "pip install 'pluggable-orchestrator-core[cli]'\n"
        )
        return 2
    code: int = importlib.import_module("orchestrator_core.cli.app").main(arguments)
    return code
