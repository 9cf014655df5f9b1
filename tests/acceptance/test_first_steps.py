"""The README's "You operate it", typed as it stands there into two terminals that are really there."""

from __future__ import annotations

import contextlib
import doctest
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import free_port, surroundings

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "(ready) "
PATIENCE = 90
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>][A-Z0-9]?")


def blocks() -> list[str]:
    """The console blocks of the section, up to what needs no server."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("### You operate it\n")[2]
    section = section.partition("Without a server:")[0]
    return re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


class Terminal:
    """A shell in a terminal of 110 columns and 30 lines."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.seen = ""
        self.controller, inner = pty.openpty()
        import fcntl  # noqa: PLC0415 - where there are terminals
        import termios  # noqa: PLC0415 - as above

        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = {**surroundings(port), "PATH": path, "PS1": PROMPT, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "--noediting", "-i"],
            cwd=folder,
            env=environment,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C goes to the terminal's session
        )
        os.close(inner)
        self.until(PROMPT)

    def until(self, text: str) -> str:
        """What comes up to a text, without what steers the terminal."""
        deadline = time.monotonic() + PATIENCE
        while text not in _CONTROL.sub("", self.seen):
            left = deadline - time.monotonic()
            assert left > 0, f"never came: {text!r}; but:\n{self.seen}"
            if select.select([self.controller], [], [], left)[0]:
                self.seen += os.read(self.controller, 65536).decode("utf-8", "replace")
        before, _, self.seen = _CONTROL.sub("", self.seen).partition(text)
        return before.replace("\r", "").replace(f":{self.port}", ":8080") + text

    def type(self, line: str) -> None:
        line = line.replace(":8080", f":{self.port}")
        os.write(self.controller, f"{line}\n".encode())
        self.until(f"{line}\r\n")  # the terminal shows what is typed

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.controller)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@contextlib.contextmanager
def terminals(folder: Path) -> Iterator[tuple[Terminal, Terminal]]:
    port = free_port()
    first, second = Terminal(folder, port), Terminal(folder, port)
    try:
        yield first, second
    finally:
        if first.process.poll() is None:
            os.write(first.controller, b"\x03\x03")
        second.close()
        first.close()


def same(shown: str, got: str, command: str) -> None:
    wanted = "\n".join(line.rstrip() for line in shown.strip("\n").splitlines()) + "\n"
    got = "\n".join(line.rstrip() for line in got.removesuffix(PROMPT).strip("\n").splitlines()) + "\n"
    assert doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS), (
        f"$ {command}\nthe README shows\n{wanted}but there is\n{got}"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of another kind")
@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("curl") is None, reason="needs bash and curl")
def test_what_the_readme_says_happens_in_a_terminal(folder: Path) -> None:
    watched = 0
    with terminals(folder) as (first, second):
        for block in blocks():
            interrupt, *commands = re.split(r"^\$ ", block, flags=re.MULTILINE)
            if interrupt:
                os.write(first.controller, b"\x03")
                # What stands before it are the requests, as they were logged there.
                said = [line.strip() for line in first.until(PROMPT).removesuffix(PROMPT).splitlines() if line.strip()]
                assert said[-1] == interrupt.splitlines()[-1]
                assert not any("Traceback" in line for line in said)
            for part in commands:
                command, _, shown = part.partition("\n")
                if command == "orchestrator serve":
                    first.type(command)
                    same(shown, first.until("Ctrl-C stops it"), command)
                    continue
                second.type(command)
                got = second.until(PROMPT)
                same(shown, got, command)
                if command.startswith("orchestrator execute"):
                    watched += 1
                    assert "(Ctrl-C leaves it running)" in got, "it is watched live"
                    assert re.search(r"… review +wait +waiting .* left", got), "while it waits, that is seen"
                    assert re.search(r"✓ review +wait +succeeded", got)
        os.write(first.controller, b"\x03")
        first.until("orchestrator: stopped")
    assert watched == 1
