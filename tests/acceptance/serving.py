"""`orchestrator serve` in a process of its own, for tests that see it as its users do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

PROGRAM = "import sys; from orchestrator_core.cli import main; sys.exit(main())"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def surroundings(port: int) -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    return {**kept, "ORCHESTRATOR_PORT": str(port), "ORCHESTRATOR_URL": f"http://127.0.0.1:{port}"}


class Served:
    """A server in a folder, from its first line to its end."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.words = words
        self.printed = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-c", PROGRAM, "serve", *self.words]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=surroundings(self.port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if "Ctrl-C stops it" in line:
                return self
        raise AssertionError(f"the server did not begin: {self.printed}")

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def interrupt(self) -> str:
        """Ctrl-C; gives what it prints, and sees that it ends well."""
        self.process.send_signal(signal.SIGINT)
        printed, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, printed
        return printed

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    def first_key(self) -> str:
        """The operator's key that it printed."""
        return next(line.strip() for line in self.printed.splitlines() if line.startswith("  key_"))

    def command(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command typed in the same folder."""
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            cwd=self.folder,
            env={**surroundings(self.port), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
