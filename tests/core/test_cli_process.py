"""The command as a process: interrupts, terminals, pipes, missing extras."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from orchestrator_core import cli

pytest.importorskip("orchestrator_nodes_std")
pty = pytest.importorskip("pty")

COMMAND = [sys.executable, "-c", "import sys; from orchestrator_core.cli import main; sys.exit(main())"]

SLOW = """
schema: 1
id: slow
nodes:
  - {id: before, type: set}
  - {id: nap, type: wait, config: {for: 60}}
  - {id: after, type: set}
edges: [{source: before, target: nap}, {source: nap, target: after}]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "slow.yaml"
    path.write_text(SLOW)
    return str(path)


def start(*arguments, **options):
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0, **options
    )


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"it ended without {text!r}: {process.stderr.read()}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_cancels_the_execution_and_says_so(file, number, code):
    process = start("run", file)
    wait_for(process, "waits until")
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert "cancelling the execution; once more exits at once" in err
    assert re.search(r"⊘ nap +cancelled", out)
    assert re.search(r"⊘ after +cancelled", out)
    assert "slow cancelled in" in out
    assert "Traceback" not in out + err


def test_an_interrupt_with_json_still_writes_the_result(file, tmp_path):
    (tmp_path / "telling.py").write_text(
        "import sys\ndef tell(value):\n    print('begun', file=sys.stderr, flush=True)\n"
    )
    (tmp_path / "slow.yaml").write_text(
        SLOW.replace("before, type: set", "before, type: call, config: {function: tell}")
    )
    process = start("run", file, "--json", "--callable", "tell=telling:tell", cwd=tmp_path)
    assert process.stderr.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert json.loads(out)["status"] == "cancelled"
    assert {node["status"] for node in json.loads(out)["nodes"][1:]} == {"cancelled"}


def test_a_function_in_a_thread_does_not_keep_a_cancelled_run_alive(tmp_path):
    (tmp_path / "blocking.py").write_text(
        "import time\ndef block(value):\n    print('begun', flush=True)\n    time.sleep(30)\n"
    )
    (tmp_path / "w.json").write_text(
        '{"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "call", "config": {"function": "block"}}]}'
    )
    process = start("run", "w.json", "--callable", "block=blocking:block", cwd=tmp_path)
    wait_for(process, "begun")
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert time.monotonic() - asked < 5
    assert "w cancelled" in out


def test_the_second_interrupt_exits_at_once(tmp_path):
    (tmp_path / "stubborn.py").write_text(
        "import asyncio, time\n"
        "async def stay(value):\n"
        "    print('begun', flush=True)\n"
        "    try:\n"
        "        await asyncio.sleep(30)\n"
        "    finally:\n"
        "        print('staying', flush=True)\n"
        "        time.sleep(30)\n"
    )
    (tmp_path / "w.json").write_text(
        '{"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "call", "config": {"function": "stay"}}]}'
    )
    process = start("run", "w.json", "--callable", "stay=stubborn:stay", cwd=tmp_path)
    wait_for(process, "begun")
    process.send_signal(signal.SIGINT)
    wait_for(process, "staying")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "exits at once" in err


class Terminal:
    """A process whose output is a terminal."""

    def __init__(self, *arguments, columns=80, rows=24, **environment):
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        # The size that programs ask for.
        subprocess.run(["stty", "rows", str(rows), "cols", str(columns)], stdin=slave, check=True)
        settings = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=settings | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment,
        )
        os.close(slave)
        self.output = ""

    def read_until(self, text, seconds=15.0):
        end = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < end, self.output
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self.master, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        assert text in self.output, self.output

    def end(self):
        end = time.monotonic() + 15
        try:
            while time.monotonic() < end:
                if select.select([self.master], [], [], 0.1)[0]:
                    self.output += os.read(self.master, 65536).decode("utf-8", "replace")
        except OSError:  # nobody writes to it any more
            pass
        os.close(self.master)
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def test_in_a_terminal_the_picture_is_live_and_ctrl_c_leaves_the_terminal_as_it_was(file):
    terminal = Terminal("run", file)
    terminal.read_until("waiting")
    terminal.read_until("1.5 s")
    assert HIDE in terminal.output
    assert SHOW not in terminal.output
    assert "\x1b[1A" in terminal.output, "it is drawn again in its place"
    assert "Ctrl-C cancels" in terminal.output
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert terminal.output.rindex(SHOW) > terminal.output.rindex(HIDE)
    assert "slow cancelled in" in terminal.output


def test_colours_are_left_out_where_they_are_not_wanted(file, tmp_path):
    quick = tmp_path / "quick.yaml"
    quick.write_text(SLOW.replace("60", "0.2"))
    coloured = Terminal("run", str(quick))
    assert coloured.end() == 0
    assert re.search(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", coloured.output)
    plain = Terminal("run", str(quick), NO_COLOR="1")
    assert plain.end() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", plain.output)
    assert "succeeded" in plain.output
    dumb = Terminal("run", str(quick), TERM="dumb")
    assert dumb.end() == 0
    assert "\x1b" not in dumb.output
    assert "goes on: the time has come" in dumb.output


def test_a_reader_that_has_seen_enough_is_no_fault():
    process = start("schema")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(15) in {0, 1}
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize(("module", "package"), [("click", "click"), ("rich", "rich"), ("yaml", "PyYAML")])
def test_without_the_extra_one_line_says_which(module, package):
    code = f"import sys; sys.modules[{module!r}] = None; from orchestrator_core.cli import main; sys.exit(main(['version']))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"orchestrator: the command line needs {package}: pip install 'pluggable-orchestrator-core[cli]'\n"
    )


def test_the_library_itself_needs_neither(tmp_path):
    code = (
        "import sys; sys.modules.update(click=None, rich=None, yaml=None)\n"
        "import orchestrator_core, orchestrator_core.results, orchestrator_core.cli"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# --- what cannot be stopped -----------------------------------------------------------------------------------------

SPIN = """
schema: 1
id: spinning
nodes:
  - {id: spin, type: code, config: {source: "while (true) {}", timeout: 4}}
"""


@pytest.fixture
def spinning(tmp_path):
    # So that the sandbox has been compiled, and what follows takes the time that it says.
    quick = tmp_path / "quick.yaml"
    quick.write_text(SPIN.replace("while (true) {}", "return 1"))
    subprocess.run([*COMMAND, "run", str(quick), "--quiet"], check=True, timeout=60, capture_output=True)
    path = tmp_path / "spinning.yaml"
    path.write_text(SPIN)
    return path


def test_an_interrupt_says_at_once_that_code_is_waited_for_and_how_long(spinning):
    process = start("run", spinning)
    wait_for(process, "spin")
    time.sleep(0.5)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.stderr.readline()
    assert time.monotonic() - asked < 2
    assert said == (
        "orchestrator: cancelling: waiting for the code of node 'spin', 4.0 s at most; once more exits at once\n"
    )
    out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "")
    assert "spinning cancelled in" in out


def test_a_second_interrupt_does_not_wait_for_code(spinning):
    process = start("run", spinning)
    wait_for(process, "spin")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert "once more exits at once" in process.stderr.readline()
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - asked < 2
    assert (process.returncode, err) == (130, "orchestrator: exits at once\n")


def test_the_live_picture_shows_what_is_waited_for(spinning):
    terminal = Terminal("run", spinning, columns=100)
    terminal.read_until("running")
    time.sleep(0.5)
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until("waiting for the code of node 'spin', 4.0 s at most", seconds=2)
    assert terminal.end() == 130
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.output)
    assert "cancelling  spinning" in shown
    last = shown[shown.rindex("cancelled  spinning") :]
    assert "waiting for" not in last, "nothing is left of it in the picture that stays"


def test_code_that_outlasts_the_patience_is_left_alone(spinning):
    spinning.write_text(SPIN.replace("timeout: 4", "timeout: 1h"))
    hasty = "import sys; from orchestrator_core.cli import main, watch; watch._PATIENCE = 0.5; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", hasty, "run", spinning], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(process, "spin")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "the code of node 'spin', 500 ms at most" in err
    assert "exits although something still runs" in err
    assert "spinning cancelled in" in out


def test_an_execution_that_failed_says_what_still_runs(spinning):
    nodes = '  - {id: nap, type: wait, config: {for: 0.3}}\n  - {id: bad, type: fail, config: {message: "no"}}\n'
    spinning.write_text(SPIN + nodes + "edges: [{source: nap, target: bad}]\n")
    ran = subprocess.run([*COMMAND, "run", spinning], capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 1
    assert ran.stderr == (
        "orchestrator: waiting for the code of node 'spin', 4.0 s at most; Ctrl-C twice exits at once\n"
    )
    assert "spinning failed in" in ran.stdout


@pytest.mark.parametrize("given", ['{"name": "Zoë"}', '"é'])
def test_a_payload_that_the_locale_cannot_read(tmp_path, given):
    (tmp_path / "echo.json").write_text(
        '{"schema": 1, "id": "echo", "nodes": [{"id": "a", "type": "set"}], "output": "{{ payload }}"}'
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    environment.pop("PYTHONIOENCODING", None)
    ran = subprocess.run(
        [*COMMAND, "run", "echo.json", "--quiet", "--input", given.encode()],
        env=environment | {"LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        cwd=tmp_path,
        timeout=30,
        check=False,
    )
    if given.endswith("}"):
        assert (ran.returncode, json.loads(ran.stdout), ran.stderr) == (0, {"name": "Zoë"}, b"")
    else:
        assert (ran.returncode, ran.stdout) == (2, b"")
        assert ran.stderr.startswith(b"--input: not JSON: Unterminated string")
        assert b"surrogate" not in ran.stderr


def test_an_interrupt_while_the_command_line_is_loaded_is_a_line(monkeypatch, capsys):
    def load(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator_core.cli.importlib.import_module", load)
    assert cli.main(["version"]) == 130
    assert capsys.readouterr().err == "orchestrator: interrupted\n"
