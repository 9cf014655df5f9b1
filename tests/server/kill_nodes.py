"""A plugin with effects outside: what a server's processes load through an entry point when they are about to be killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import attrs

from orchestrator_core import NodeContext, hookimpl, node_type


@attrs.frozen
class NoteConfig:
    file: str
    seconds: float = 0.0


@node_type("kills.note", version=1)
async def note(ctx: NodeContext, config: NoteConfig, input: Any) -> Any:
    """Notes that it ran, and under which key; then it takes its time."""
    line = json.dumps([ctx.execution_id, ctx.path, ctx.idempotency_key]).encode() + b"\n"
    handle = os.open(config.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)
    await anyio.sleep(config.seconds)
    return input


@attrs.frozen
class DieConfig:
    unless: str  # the file that saves it
    after: float = 0.0


@node_type("kills.die", version=1)
async def die(ctx: NodeContext, config: DieConfig, input: Any) -> Any:
    """Takes its process with it."""
    await anyio.sleep(config.after)
    if not Path(config.unless).exists():  # noqa: ASYNC240 - one look, and nobody waits
        os.kill(os.getpid(), signal.SIGKILL)
    return input


@hookimpl
def register_node_types() -> list[Any]:
    return [note, die]
