#!/usr/bin/env python3
# ruff: noqa: T201, S603 - it prints for people, and runs programs that it names itself
"""Try the project without installing anything by hand: it needs Python 3.11 or newer and nothing else.

python3 go.py demo    a workflow over real data, with a live picture
python3 go.py test    everything that is tested: lint, types, tests, documentation

What is written stays in this folder: a virtual environment in `.venv`, with pip's caches beside it, results in `build`.
Only the compiled sandbox (a few MiB) is kept in your cache folder, where every later `orchestrator` finds it.
"""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# Above all annotations: an old Python must come to this line, and can read no further.
if sys.version_info < (3, 11):  # noqa: UP036 - the one file that may be started with an old Python
    newer = [name for name in ("python3.14", "python3.13", "python3.12", "python3.11") if shutil.which(name)]
    newer = [name for name in newer if subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL) == 0]
    print("This needs Python 3.11 or newer, and %s is %s." % (sys.executable, sys.version.split()[0]))  # noqa: UP031 - as above
    print("Try: %s go.py %s" % (newer[0] if newer else "a newer python3", " ".join(sys.argv[1:])))  # noqa: UP031 - as above
    sys.exit(2)

VENV = ROOT / ".venv"
CACHE = VENV / "cache"
PLAIN = VENV / "packages"  # only where no virtual environment can be made: packages without one
LOG = VENV / "install.log"
PACKAGES = ("packages/orchestrator-core", "packages/orchestrator-nodes-std")
DEMO = ("hvsampledata>=0.1.5,<0.2",)  # carries the earthquake records; read as data, never imported
TEST = ("nox>=2024.10",)
NEEDED_BY = {"demo": "the demo needs", "test": "the tests need"}
# Told the folder of the packages, ends well if they are imported from there: a `pip install` may have put copies in `.venv`.
FROM_HERE = """
import importlib.util, os, sys
found = [importlib.util.find_spec(name) for name in ("orchestrator_core", "orchestrator_nodes_std")]
sys.exit(not all(one and os.path.realpath(one.origin).startswith(os.path.join(sys.argv[1], "")) for one in found))
"""


class Failed(Exception):  # noqa: N818 - it ends the program
    """Something that a person must look at; the text says what, and what to do."""


# --- what is said --------------------------------------------------------------------------------------------------------


class Progress:
    """One line that says what is being done and for how long; in a terminal it counts."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> None:
        if sys.stdout.isatty():
            self._thread.start()
        else:
            print(f"{self._what} ...", flush=True)

    def __exit__(self, kind: object, *_: object) -> None:
        self._over.set()
        end = "done" if kind is None else "stopped"
        if self._thread.is_alive():
            self._thread.join()
            print("\r\033[K", end="")
        print(f"{self._what}: {end} in {time.monotonic() - self._began:.0f} s", flush=True)

    def _count(self) -> None:
        while not self._over.wait(0.2):
            print(f"\r\033[K{self._what} ... {time.monotonic() - self._began:.0f} s", end="", flush=True)


def call(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program quietly, with its output in the log and in the result."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment() | more, capture_output=True, text=True, errors="replace", check=False
    )
    VENV.mkdir(exist_ok=True)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}-> {done.returncode}\n\n")
    return done


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a program said that a person should read: its errors, else its last lines, without its warnings."""
    lines = [line.strip(" │╰─>×") for line in (done.stderr + done.stdout).splitlines()]  # noqa: RUF001 - pip's own signs
    lines = [line for line in lines if line and not line.startswith(("WARNING:", "DEPRECATION:", "[notice]"))]
    errors = [line for line in lines if line.lower().startswith(("error:", "error "))]
    # What is about a program inside pip says nothing about why.
    told = [line for line in dict.fromkeys(errors) if "subprocess" not in line] or errors or lines
    return "\n".join(f"    {line}" for line in told[-12:]) or f"    it ended with {done.returncode}"


# --- the environment ------------------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """The variables of every program that is started: its caches stay in this folder, plain packages are found."""
    found = {
        **os.environ,
        "PIP_CACHE_DIR": str(CACHE / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "VIRTUALENV_OVERRIDE_APP_DATA": str(CACHE / "virtualenv"),
        "XDG_CACHE_HOME": str(CACHE),
        "XDG_DATA_HOME": str(CACHE / "data"),
        "PYTHONUTF8": "1",
    }
    for name in ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_REQUIRE_VIRTUALENV"):
        found.pop(name, None)
    if PLAIN.exists():
        sources = [str(ROOT / package / "src") for package in PACKAGES]
        found["PYTHONPATH"] = os.pathsep.join([*sources, str(PLAIN)])
    return found


def python() -> Path:
    """The interpreter that has, or will have, the packages."""
    if PLAIN.exists():
        return Path(sys.executable)
    return VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python"


def _works(*arguments: str) -> bool:
    try:
        return call([str(python()), *arguments]).returncode == 0
    except OSError:
        return False


def _clear() -> None:
    """Remove what an attempt has left; the log and the caches stay."""
    for child in VENV.iterdir() if VENV.exists() else ():
        if child not in (CACHE, LOG):
            shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()


def make_environment() -> None:
    """Make `.venv`, in the first way that works here.

    Distributions leave out parts: Debian's Python has no `ensurepip`, others have no `venv`, and pip refuses to
    install beside the system's own packages.

    Raises:
        Failed: None of the ways works.
    """
    if (PLAIN.exists() and _works("-m", "pip", "--version")) or (
        not PLAIN.exists() and _works("-c", "import encodings")
    ):
        return
    reasons = []
    ways = (
        ("venv", [sys.executable, "-m", "venv", str(VENV)]),
        ("venv without pip", [sys.executable, "-m", "venv", "--without-pip", str(VENV)]),
        ("virtualenv", [sys.executable, "-m", "virtualenv", "--quiet", str(VENV)]),
        ("uv", ["uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(VENV)]),
    )
    for name, command in ways:
        if name == "venv without pip" and not _has("pip"):
            reasons.append("venv without pip: there is no pip outside of it that could fill it")
            continue
        _clear()
        try:
            done = call(command)
        except OSError as error:
            reasons.append(f"{name}: {error.strerror}")
            continue
        if done.returncode == 0 and _works("-c", "import encodings"):
            return
        reasons.append(f"{name}:\n{complaint(done)}")
    _clear()
    if _has("pip"):
        PLAIN.mkdir(parents=True)
        return
    raise Failed(
        "no virtual environment can be made here, and there is no pip either. Install one of them, for example\n"
        "    apt install python3-venv        (Debian, Ubuntu)\n"
        "    dnf install python3-pip         (Fedora)\n"
        "and start again. What was tried:\n  " + "\n  ".join(reasons)
    )


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def pip_command() -> list[str]:
    """How packages are installed into the environment."""
    if PLAIN.exists():
        return [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(PLAIN)]
    if _works("-m", "pip", "--version"):
        return [str(python()), "-m", "pip", "install", "--quiet"]
    if shutil.which("uv"):
        return ["uv", "pip", "install", "--quiet", "--python", str(python())]
    # Since pip 22.3 one pip can serve other environments.
    return [sys.executable, "-m", "pip", "--python", str(python()), "install", "--quiet"]


def is_from_here() -> bool:
    """Whether the environment works, and imports the packages of this folder."""
    return _works("-c", FROM_HERE, str(ROOT / "packages"))


def install(what: str, requirements: tuple[str, ...]) -> bool:
    """Install the packages of this folder and what a command needs beside them; returns whether that was to be done.

    Raises:
        Failed: It does not work; says why.
    """
    own = [f"{ROOT / package}{'[cli]' if package.endswith('core') else ''}" for package in PACKAGES]
    stamp = VENV / f"installed-{what}"
    told = [
        sys.version,
        str(ROOT),
        *requirements,
        *((ROOT / package / "pyproject.toml").read_text() for package in PACKAGES),
    ]
    wanted = hashlib.sha256("\0".join(told).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted and is_from_here():
        return False
    if stamp.exists():
        doing = "Bringing .venv up to date"
    elif any(VENV.glob("installed-*")):
        doing = f"Adding what {NEEDED_BY[what]} to .venv (once)"
    else:
        doing = "Preparing .venv (once)"
    with Progress(doing):
        make_environment()
        editable = [] if PLAIN.exists() else ["--editable"]
        command = pip_command()
        for package in own:
            command += [*editable, package]
        done = call([*command, *requirements])
        if done.returncode != 0:
            raise Failed(
                f"the packages cannot be installed:\n{complaint(done)}\n"
                f"All that pip said is in {LOG.relative_to(ROOT)}. Is there a way to a package index from here?"
            )
    stamp.write_text(wanted)
    return True


# --- the commands -----------------------------------------------------------------------------------------------------------


def run(command: list[str], surroundings: dict[str, str]) -> int:
    """Run a program in this terminal and return its exit code. An interrupt is for it to end on; we wait."""
    with subprocess.Popen(command, cwd=ROOT, env=surroundings) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                    process.wait(timeout=20)
                if process.poll() is None:
                    process.terminate()


def demo(arguments: list[str]) -> int:
    """The earthquakes, from the installation to the answer."""
    began = time.time()
    installed = install("demo", DEMO)
    surroundings = environment()
    # As whoever types `orchestrator` afterwards has it: what the sandbox compiles now is then found again.
    surroundings.pop("XDG_CACHE_HOME")
    if "XDG_CACHE_HOME" in os.environ:
        surroundings["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"]
    if installed:
        surroundings["ORCHESTRATOR_DEMO_BEGAN"] = str(began)
    picture = Path("build") / "earthquakes.svg"
    (ROOT / picture.parent).mkdir(exist_ok=True)
    return run([str(python()), "examples/earthquakes/run.py", "--svg", str(picture), *arguments], surroundings)


def test(arguments: list[str]) -> int:
    """Every session of the noxfile, or those that are named."""
    install("test", TEST)
    sessions = ["--session", *arguments] if arguments else []
    return run([str(python()), "-m", "nox", "--noxfile", "noxfile.py", *sessions], environment())


def main() -> int:
    """Read the command line and do what it says."""
    commands = {"demo": demo, "test": test}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    try:
        return commands[sys.argv[1]](sys.argv[2:])
    except Failed as error:
        print(f"go.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ngo.py: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read this has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
