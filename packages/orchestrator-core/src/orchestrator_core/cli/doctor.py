"""``orchestrator doctor`` and ``orchestrator version``: what is installed here, and whether it works."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Literal

import anyio
import attrs
import click

from orchestrator_core.cli.app import add_plugin
from orchestrator_core.cli.text import plural, say, say_json, table
from orchestrator_core.codec import format_duration
from orchestrator_core.document import Workflow
from orchestrator_core.engine import Engine
from orchestrator_core.errors import OrchestratorError
from orchestrator_core.nodes import Language, LanguageError
from orchestrator_core.plugins import ENTRY_POINTS, make_manager, make_registry
from orchestrator_core.types import ExecutionStatus

__all__ = ["doctor", "version_command"]

_PACKAGES = ("pluggable-orchestrator-core", "pluggable-orchestrator-nodes-std")
_LIBRARIES = (
    "anyio",
    "attrs",
    "cattrs",
    "pluggy",
    "click",
    "rich",
    "PyYAML",
    "trio",
    "httpx",
    "wasmtime",
    "SQLAlchemy",
)
# What an extra brings, by the module that shows it; and what it is good for.
_EXTRAS = {
    "yaml": ("yaml", "documents in YAML", "pluggable-orchestrator-core[yaml]"),
    "testing": ("hypothesis", "property tests of graphs", "pluggable-orchestrator-core[testing]"),
    "nodes-std": ("orchestrator_nodes_std", "the standard node types", "pluggable-orchestrator-nodes-std"),
    "server": ("orchestrator_server", "a server: `orchestrator serve`", "pluggable-orchestrator-server"),
}
# Both in JavaScript and in Python this is the body of a function that gives 42.
_PROBE = "return 42"
_PROBE_SECONDS = 120.0  # the first call may have to compile the sandbox


@attrs.frozen
class Check:
    """One thing that was looked at: ``missing`` is no fault, ``broken`` is."""

    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str


@click.command(short_help="Look at what is installed, and whether it works.")
@click.option("--json", "as_json", is_flag=True, help="Write the checks as JSON: a list of {name, status, detail}.")
def doctor(*, as_json: bool) -> int:
    """Look at what is installed and try whether it works: plugins, the sandbox, caches. Exit code 1 if not."""
    checks = anyio.run(_all_checks)
    broken = sum(check.status == "broken" for check in checks)
    if as_json:
        say_json([attrs.asdict(check) for check in checks])
        return 1 if broken else 0
    words = {"ok": "ok     ", "missing": "missing", "broken": "BROKEN "}
    colours = {"ok": "green", "missing": "yellow", "broken": "red"}
    lines = table([(words[check.status], check.name, check.detail) for check in checks], width=None, indent="")
    for check, line in zip(checks, lines, strict=True):
        say(line, style={"fg": colours[check.status], "bold": check.status == "broken"})
    missing = sum(check.status == "missing" for check in checks)
    well = f"what is installed is well; {plural(missing, 'optional part')} missing" if missing else "all is well"
    say(f"{plural(broken, 'thing')} broken" if broken else well)
    return 1 if broken else 0


@click.command("version", short_help="Print the versions.")
def version_command() -> None:
    """Print the versions of the library, of its plugins and of Python."""
    for name in dict.fromkeys([*_PACKAGES, *(point.dist.name for point in _points() if point.dist is not None)]):
        if (installed := _version(name)) is not None:
            say(f"{name} {installed}")
    say(f"Python {platform.python_version()} ({platform.system()} {platform.machine()})")


def _points() -> list[EntryPoint]:
    return sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# --- the checks -----------------------------------------------------------------------------------------------------


async def _all_checks() -> list[Check]:
    checks = [*_versions(), *_plugins()]
    try:
        registry = make_registry(make_manager())
    except OrchestratorError as error:
        return [*checks, Check("registry", "broken", str(error)), *_caches(), *_extras()]
    checks.append(Check("registry", "ok", f"{plural(len(registry.node_types), 'node type')}, no name twice"))
    if not registry.languages:
        checks.append(
            Check("sandbox", "missing", "no language is installed: pip install pluggable-orchestrator-nodes-std")
        )
    for language in registry.languages.values():
        checks += [check async for check in _language(language)]
    checks.append(await _engine())
    return [*checks, *_caches(), *_extras()]


def _versions() -> Iterator[Check]:
    old = sys.version_info < (3, 11)
    yield Check("python", "broken" if old else "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")
    for name in _PACKAGES:
        if (installed := _version(name)) is not None:
            yield Check(name, "ok", installed)
    listed = [f"{name} {installed}" for name in _LIBRARIES if (installed := _version(name)) is not None]
    yield Check("libraries", "ok", ", ".join(listed))


def _plugins() -> Iterator[Check]:
    """Each by itself, so that one that is broken is known by its name."""
    for point in _points():
        name = f"plugin {point.name}"
        package = "an unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
        started = time.perf_counter()
        try:
            add_plugin(click.Group(), point)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            remedy = "" if point.dist is None else f" (mend it, or pip uninstall {point.dist.name})"
            yield Check(name, "broken", f"{package}: {type(error).__name__}: {error}{remedy}")
        else:
            yield Check(name, "ok", f"{package}, loaded in {format_duration(time.perf_counter() - started)}")


async def _language(language: Language) -> AsyncIterator[Check]:
    name = f"sandbox {language.name}"
    try:
        times = []
        for _ in range(3):
            started = time.perf_counter()
            ran = await language.run(
                _PROBE, {"input": None}, timeout=_PROBE_SECONDS, memory=None, seed=0, now=time.time()
            )
            times.append(time.perf_counter() - started)
            if ran.value != 42:
                yield Check(name, "broken", f"a call gave {ran.value!r} instead of 42")
                return
        yield Check(name, "ok", f"first call {format_duration(times[0])}, then {1000 * min(times[1:]):.2f} ms")
    except LanguageError as error:
        # A language may come with an extra of its package: not to have it is no fault.
        missing = error.code == "not_installed"
        yield Check(
            name, "missing" if missing else "broken", error.message if missing else f"{error.code}: {error.message}"
        )
    except Exception as error:  # noqa: BLE001 - what is broken may break in any way
        yield Check(name, "broken", f"{type(error).__name__}: {error}")
    finally:
        await language.aclose()


async def _engine() -> Check:
    nodes = [{"id": "one", "type": "call", "config": {"function": "add"}, "for_each": [1, 2, 3]}]
    workflow = Workflow.from_dict({"schema": 1, "id": "doctor", "nodes": nodes})
    started = time.perf_counter()
    async with Engine(callables={"add": lambda value: value + 1}) as engine:
        result = await engine.run(workflow)
    if result.status is not ExecutionStatus.SUCCEEDED or result.output != [2, 3, 4]:
        return Check("engine", "broken", f"a workflow {result.status}: {result.error or result.output!r}")
    return Check("engine", "ok", f"a workflow ran in {format_duration(time.perf_counter() - started)}")


def _caches() -> Iterator[Check]:
    """Compiled sandboxes are kept in the user's cache folder; without one each process compiles for seconds."""
    if importlib.util.find_spec("platformdirs") is None:
        return
    platformdirs = importlib.import_module("platformdirs")
    folder = Path(platformdirs.user_cache_dir("orchestrator", appauthor=False))
    name = "cache"
    near = folder
    while not near.exists() and near != near.parent:
        near = near.parent
    if not os.access(near, os.W_OK | os.X_OK):
        yield Check(name, "broken", f"{near} cannot be written to: the sandbox is compiled anew by every process")
        return
    if not folder.exists():
        yield Check(name, "missing", f"{folder} is made when it is first needed")
        return
    open_to_others = [
        path
        for path in (folder, folder / "sandbox")
        if path.exists() and hasattr(os, "geteuid") and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ]
    if open_to_others:
        yield Check(name, "broken", f"{open_to_others[0]} may be written by others, so it is not used: chmod go-w")
        return
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    yield Check(name, "ok", f"{folder}: {plural(len(files), 'file')}, {size / 2**20:.1f} MiB")


def _extras() -> Iterator[Check]:
    for extra, (module, purpose, package) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            yield Check(f"extra {extra}", "missing", f"{purpose}: pip install '{package}'")
        else:
            yield Check(f"extra {extra}", "ok", purpose)
