"""What is done with the repository: ``nox -s lint types tests docs``, ``nox -s bench`` for the figures, ``nox -s soak``."""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests", "docs"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True
nox.needs_version = ">=2024.10"

CORE = "packages/orchestrator-core"
STD = "packages/orchestrator-nodes-std"
SERVER = "packages/orchestrator-server"
PROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *groups: str) -> None:
    """The packages as they are here, and what the groups of pyproject.toml name."""
    wanted = [name for group in groups for name in nox.project.dependency_groups(PROJECT, group)]
    session.install(
        "-q", "-e", f"{CORE}[cli,testing]", "-e", f"{STD}[python]", "-e", f"{SERVER}[otel,postgresql]", *wanted
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, formatter and rules."""
    session.install("-q", *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy strict and pyright, on the packages and on what the public API promises; calls in tests."""
    install(session, "types", "tests")
    session.run("mypy", f"{CORE}/src", f"{STD}/src", f"{SERVER}/src", "tests")
    # Told its interpreter: it would take a .venv in this folder for it.
    session.run("basedpyright", "--pythonpath", str(Path(session.bin) / "python"))


@nox.session
def tests(session: nox.Session) -> None:
    """Everything that pytest runs, a process for each processor and up to four. Arguments go to pytest: ``-n 0`` for one process."""
    install(session, "tests", "docs")
    session.install("-q", "--no-deps", "examples/acme-nodes")
    # A module's tests stay together: they share servers.
    session.run("pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The site in docs/_build/html; a warning is an error."""
    install(session, "docs")
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-n", "-b", "html", "docs", "docs/_build/html")


BENCHMARKS = {
    "engine": ("benchmarks/engine.py", "--markdown", "docs/benchmarks.md"),
    "sandbox": ("benchmarks/sandbox.py", "--markdown", "docs/benchmarks-sandbox.md"),
    "server": ("benchmarks/server.py", "--markdown", "docs/benchmarks-server.md", "--readme", "README.md"),
}


@nox.session
def bench(session: nox.Session) -> None:
    """Figures beside peers and bare floors, written to docs/. Takes about three quarters of an hour.

    ``-- engine``, ``-- sandbox`` or ``-- server`` measures one of them, the last into the README too. What follows goes to its
    script, and nothing is written then.
    """
    install(session)
    session.install("-q", "-r", "benchmarks/requirements.txt")
    chosen, arguments = session.posargs[:1], session.posargs[1:]
    if chosen and chosen[0] not in BENCHMARKS:
        session.error(f"the first argument is one of {', '.join(BENCHMARKS)}, not {chosen[0]}")
    for name in chosen or BENCHMARKS:
        script, *report = BENCHMARKS[name]
        session.run("python", script, *(arguments or report))


SOAKED = (
    "scheduler_slots",
    "schemathesis",
    "kills",
    "outages",
    "durability",
    "lists",
    "retention",
    "fairness",
)


@nox.session
def soak(session: nox.Session) -> None:
    """The long versions: attacks on the sandbox (20,000 programs at random, 64,000 calls), 200 kills, lists of a million. Takes an hour.

    Arguments go to pytest. ``SANDBOX_FUZZ_SEED=7 nox -s soak -- tests/nodes_std/test_sandbox_fuzz.py`` makes other programs.
    """
    install(session, "tests")
    session.env["SANDBOX_SOAK"] = session.env["ORCHESTRATOR_SOAK"] = "1"
    session.env.setdefault("SANDBOX_FUZZ_SCRIPTS", "20000")
    session.env.setdefault("ORCHESTRATOR_KILLS", "200")
    names = (
        "attacks",
        "attacks_engine",
        "attacks_limits",
        "attacks_python",
        "sandbox_many",
        "sandbox_fuzz",
        "expression_agreement",
    )
    files = [f"tests/nodes_std/test_{name}.py" for name in names]
    files += [f"tests/server/test_{name}.py" for name in SOAKED]
    session.run("pytest", *(session.posargs or files))
