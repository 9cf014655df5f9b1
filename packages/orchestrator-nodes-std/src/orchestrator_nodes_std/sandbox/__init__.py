"""Untrusted code in WebAssembly. This package knows no workflows; nothing outside of it knows WebAssembly."""

from orchestrator_nodes_std.sandbox.javascript import JavaScript
from orchestrator_nodes_std.sandbox.machine import Busy
from orchestrator_nodes_std.sandbox.python import Python
from orchestrator_nodes_std.sandbox.values import Completed, Evaluated, Limits, LogLine, SandboxError

__all__ = ["Busy", "Completed", "Evaluated", "JavaScript", "Limits", "LogLine", "Python", "SandboxError"]
