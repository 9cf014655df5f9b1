"""The server beside Node-RED, n8n, DBOS, LangGraph and bare floors: `python benchmarks/server.py` prints the tables.

Run it from the repository's root, in an environment that holds the packages and `benchmarks/requirements.txt`. What is not
installed, or does not start, is reported as not available, and the rest runs. The peers from npm are installed into
`build/peers` the first time, which takes some minutes.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import durable
import serving
import steps
from figures import Part, Series, number
from report import as_markdown, as_text, machine
from serving import Missing, Served
from serving_node import N8n, NodeRed, OnNode

HERE = Path(__file__).resolve().parent
CONNECTIONS = (32, 1)
CLIENTS = (1, 32)
STEP_PEERS = (("peer_dbos", "DBOS"), ("peer_langgraph_durable", "LangGraph"))
PARTS = ("webhooks", "steps", "start")
KINDS: tuple[type[Served], ...] = (
    serving.Ours,
    NodeRed,
    N8n,
    serving.Hello,
    serving.HelloFast,
    serving.Inline,
)
OURS, HELLO = serving.Ours.name, serving.Hello.name
README = ("<!-- figures: server -->", "<!-- /figures: server -->")
ORDER = "webhook → set → if → code → set → response"


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The server beside peers and bare floors.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds whose medians are told (default: 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load for each figure of a round (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one short round: does everything still run?")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--without", default="", help="names of peers that are left out, with commas")
    parser.add_argument("--folder", type=Path, help="where databases are made: on the disk that is to be measured")
    parser.add_argument("--peers", type=Path, default=HERE.parent / "build" / "peers", help="where npm installs peers")
    parser.add_argument("--markdown", "--write", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the figures of ours into its table")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal that was measured is missed")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, min(chosen.seconds, 1.0)
    chosen.rounds = max(chosen.rounds, 1)
    chosen.parts = [part for part in PARTS if part in chosen.parts.split(",")]
    chosen.without = {name.strip().lower() for name in chosen.without.split(",") if name.strip()}
    return chosen


def answer_of(command: list[str], limit: float) -> dict[str, Any]:
    """What a process answers behind `ANSWER`. Raises `Missing` with the last that it said otherwise."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"more than {limit:g} s") from None
    for line in done.stdout.splitlines():
        if line.startswith(steps.ANSWER):
            answer: dict[str, Any] = json.loads(line.removeprefix(steps.ANSWER))
            return answer
    told = [line for line in done.stderr.splitlines() if line.strip()]
    raise Missing(told[-1].strip()[:120] if told else f"ended with code {done.returncode}")


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- webhooks -------------------------------------------------------------------------------------------------------


def load(served: Served, connections: int, seconds: float) -> dict[str, float]:
    """Rate, latency in milliseconds, and milliseconds of processor time a request."""
    order = {
        "port": served.port,
        "path": served.path,
        "bodies": list(served.bodies),
        "answers": list(served.answers),
        "connections": connections,
        "seconds": seconds,
    }
    used = served.processor()
    told = answer_of([sys.executable, str(HERE / "load.py"), json.dumps(order)], seconds + 60)
    used = served.processor() - used
    return {
        "rate": told["requests"] / told["seconds"],
        "p50": told["p50"] * 1000,
        "p99": told["p99"] * 1000,
        "cpu": used / told["requests"] * 1000,
        "again": told["again"],
    }


def webhooks(folder: Path, chosen: argparse.Namespace, versions: dict[str, str]) -> dict[int, list[Series]]:
    """All contestants run side by side; a round asks each of them in turn."""
    found = {count: [Series(kind.name) for kind in KINDS] for count in CONNECTIONS}
    with contextlib.ExitStack() as stack:
        field: list[Served | None] = []
        for place, kind in enumerate(KINDS):
            progress(f"starting {kind.name}")
            if kind.name.lower() in chosen.without:
                field.append(None)
                for series in found.values():
                    series[place].reason = "left out"
                continue
            try:
                served = stack.enter_context(serving.running(kind(folder)))
                versions.update(served.versions())
                load(served, CONNECTIONS[0], min(2.0, chosen.seconds))
                field.append(served)
            except Missing as missing:
                field.append(None)
                for series in found.values():
                    series[place].reason = str(missing)
        for turn in range(1, chosen.rounds + 1):
            for count, series in found.items():
                for one, served in zip(series, field, strict=True):
                    if served is None or one.reason:
                        continue
                    progress(f"round {turn} of {chosen.rounds}: {one.name}, {count} connection(s)")
                    try:
                        one.add(**load(served, count, chosen.seconds))
                    except Missing as missing:
                        one.reason = str(missing)
    return found


def webhook_goals(found: dict[int, list[Series]]) -> None:
    for count, series in found.items():
        by_name = {one.name: one for one in series}
        ours = by_name[OURS]
        if count > 1:
            ours.judge("at least 1,000 a second", ours.median("rate"), lambda rate: rate >= 1000)
        share = ours.ratio("rate", by_name[HELLO])
        if count > 1:
            ours.judge("at least 0.1 x hello", share, lambda ratio: ratio >= 0.1)


def webhook_table(series: list[Series]) -> list[list[str]]:
    hello = next(one for one in series if one.name == HELLO)
    head = [
        "what",
        "requests/s",
        "least … most",
        "x hello",
        "p50 ms",
        "p99 ms",
        "processor ms a request",
        "goals of ours",
    ]
    table = [head]
    for one in sorted(series, key=lambda one: -(one.median("rate") or 0)):
        ratio = one.ratio("rate", hello)
        shown = [one.shown("rate"), one.span("rate"), "-" if ratio is None else f"{ratio:.3f}"]
        table.append([one.name, *shown, one.shown("p50"), one.shown("p99"), one.shown("cpu"), one.note])
    return table


# ---- durable steps --------------------------------------------------------------------------------------------------


def contestants(chosen: argparse.Namespace) -> list[tuple[str, str | ModuleType]]:
    """Names of modules, each with the module, or why there is none."""
    found: list[tuple[str, str | ModuleType]] = []
    for name in steps.MODULES:
        try:
            module = importlib.import_module(name)
            left_out = module.NAME.lower() in chosen.without
            found.append((name, "left out" if left_out else module))
        except ImportError as error:
            found.append((name, f"{error.name or error} is not installed"))
    return found


def floor(url: str, folder: Path) -> float:
    """Steps a second, one commit for each."""
    if url.startswith("postgresql"):
        return 1 / durable.postgresql_floor(url, 500)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        return 1 / durable.floor(Path(own), 1000)


def durable_steps(
    url: str, folder: Path, chosen: argparse.Namespace, versions: dict[str, str]
) -> dict[tuple[str, int], Series]:
    """Rounds of the floor and of each contestant with each number of clients, each in a process of its own."""
    bare = Series("the floor: one row, one commit, one after the other")
    found = {("floor", 1): bare}
    for module, told in contestants(chosen):
        for clients in CLIENTS:
            name = told.NAME if isinstance(told, ModuleType) else module
            found[module, clients] = Series(name, reason=None if isinstance(told, ModuleType) else told)
        if isinstance(told, ModuleType):
            versions.update({package: importlib.metadata.version(package) for package in told.PACKAGES})
    for turn in range(1, chosen.rounds + 1):
        for (module, clients), series in found.items():
            if series.reason:
                continue
            progress(f"round {turn} of {chosen.rounds}: {series.name}, {clients} client(s), {url.partition(':')[0]}")
            if module == "floor":
                series.add(rate=floor(url, folder))
                continue
            file = folder / f"{module}-{clients}.db"
            place = f"sqlite:///{file}" if url.startswith("sqlite") else url
            order = {"module": module, "url": place, "clients": clients, "seconds": chosen.seconds}
            try:
                spent = answer_of([sys.executable, str(HERE / "steps.py"), json.dumps(order)], chosen.seconds + 120)
            except Missing as missing:
                series.reason = str(missing)
                continue
            series.add(rate=spent["steps"] / spent["wall"], cpu=spent["cpu"] / spent["steps"] * 1e6)
    return found


def step_goals(found: dict[tuple[str, int], Series], *, least: float, share: float | None) -> None:
    if share is not None:
        one = found["durable", 1]
        ratio = one.ratio("rate", found["floor", 1])
        one.judge(f"at least {share:g} of the floor", ratio, lambda value: value >= share)
    many = found["durable", 32]
    many.judge(f"at least {least:,.0f} a second", many.median("rate"), lambda rate: rate >= least)


def step_table(found: dict[tuple[str, int], Series]) -> list[list[str]]:
    table = [["what", "clients", "steps/s", "least … most", "x the floor", "processor µs a step", "goals of ours"]]
    for (_, clients), series in sorted(found.items(), key=lambda item: (item[0][1], -(item[1].median("rate") or 0))):
        ratio = series.ratio("rate", found["floor", 1])
        shown = [series.shown("rate"), series.span("rate"), "-" if ratio is None else f"{ratio:.2f}"]
        table.append([series.name, str(clients), *shown, series.shown("cpu"), series.note])
    return table


# ---- starting -------------------------------------------------------------------------------------------------------


def starting(folder: Path, chosen: argparse.Namespace) -> dict[str, Series]:
    """A server with a workflow, started again and again; what compiled code there is was cached by the first start."""
    found = {
        "first": Series("seconds from the command to the first answer, through a `code` node"),
        "ready": Series("seconds from the command to the first answer of `/api/v1/ready`"),
        "idle": Series("MB at rest, two seconds after the start"),
        "answered": Series("MB after the first answer"),
        "worked": Series("MB after 1,000 requests over 32 connections"),
    }
    own = folder / "start"
    own.mkdir()
    server = serving.Ours(own)
    with serving.running(server):
        pass
    for turn in range(1, chosen.rounds + 1):
        progress(f"round {turn} of {chosen.rounds}: starting the server")
        try:
            began = time.perf_counter()
            server.serve()
            server.until_right()
            found["first"].add(figure=time.perf_counter() - began)
            found["answered"].add(figure=server.memory() / 1e6)
            many = {"port": server.port, "path": server.path, "bodies": server.bodies, "answers": server.answers}
            order = json.dumps({**many, "connections": CONNECTIONS[0], "requests": 1000})
            answer_of([sys.executable, str(HERE / "load.py"), order], 120)
            found["worked"].add(figure=server.memory() / 1e6)
            server.stop()
            began = time.perf_counter()
            server.serve()
            server.until("GET", "/api/v1/ready")
            found["ready"].add(figure=time.perf_counter() - began)
            time.sleep(2)
            found["idle"].add(figure=server.memory() / 1e6)
        finally:
            server.stop()
    found["first"].judge("at most 2 s", found["first"].median("figure"), lambda seconds: seconds <= 2)
    found["idle"].judge("at most 120 MB", found["idle"].median("figure"), lambda megabytes: megabytes <= 120)
    return found


# ---- the report -----------------------------------------------------------------------------------------------------


def parts(folder: Path, chosen: argparse.Namespace, versions: dict[str, str]) -> tuple[list[Part], dict[str, str]]:
    """Measure what was chosen. Gives the tables, and the figures of ours by name."""
    made: list[Part] = []
    shown: dict[str, str] = {}
    if "webhooks" in chosen.parts:
        found = webhooks(folder, chosen, versions)
        webhook_goals(found)
        how = "\n".join(f"- {kind.name}: {kind.how}." for kind in KINDS)
        for count, series in found.items():
            title = f"{ORDER}, {count} connection{'s' if count > 1 else ''}"
            made.append(Part(title, how if count == CONNECTIONS[0] else "", webhook_table(series)))
            shown.update(webhook_figures(count, {one.name: one for one in series}))
    if "steps" in chosen.parts:
        kept = [module for _, module in contestants(chosen) if isinstance(module, ModuleType)]
        how = "Chains of 50 nodes that do nothing, committed as they go.\n\n"
        how += "\n".join(f"- {module.NAME}: {module.HOW}." for module in kept)
        sqlite = durable_steps("sqlite", folder, chosen, versions)
        step_goals(sqlite, least=8000, share=0.25)
        made.append(Part("Durable steps on SQLite", how, step_table(sqlite)))
        shown.update(step_figures("sqlite", sqlite))
        try:
            with durable.postgresql("temporary", folder) as url:
                postgresql = durable_steps(url, folder, chosen, versions)
            step_goals(postgresql, least=5000, share=None)
            made.append(Part("Durable steps on PostgreSQL", "", step_table(postgresql)))
            shown.update(step_figures("postgresql", postgresql))
        except ImportError as error:
            text = f"Not available: {error.name or error} is not installed."
            made.append(Part("Durable steps on PostgreSQL", text, []))
    if "start" in chosen.parts:
        started = starting(folder, chosen)
        table = [["what", "median", "least … most", "goals"]]
        table += [[one.name, one.shown("figure"), one.span("figure"), one.note] for one in started.values()]
        made.append(Part("Starting, and memory", "Memory is the proportional set size (PSS).", table))
        shown.update({f"start {name}": one.shown("figure") for name, one in started.items()})
    return made, shown


def webhook_figures(count: int, by_name: dict[str, Series]) -> dict[str, str]:
    figures = {f"rate {count} {name}": one.shown("rate") for name, one in by_name.items()}
    share = by_name[OURS].ratio("rate", by_name[HELLO])
    figures[f"share {count}"] = "-" if share is None else f"{share:.3f}"
    figures[f"p50 {count}"], figures[f"p99 {count}"] = by_name[OURS].shown("p50"), by_name[OURS].shown("p99")
    return figures


def step_figures(kind: str, found: dict[tuple[str, int], Series]) -> dict[str, str]:
    figures = {f"steps {kind} {module} {clients}": one.shown("rate") for (module, clients), one in found.items()}
    share = found["durable", 1].ratio("rate", found["floor", 1])
    figures[f"share {kind}"] = "-" if share is None else f"{share:.2f}"
    return figures


def readme_table(shown: dict[str, str]) -> str:
    """What the README says of it. Raises `KeyError` where not all was measured."""
    rows = [
        ["what", "figure", "goal"],
        [
            f"{ORDER}, saved, over HTTP, 32 connections",
            f"{shown[f'rate 32 {OURS}']} requests/s, {shown['share 32']} x uvicorn's hello (h11, asyncio); p99 {shown['p99 32']} ms",
            "1,000 requests/s; 0.1 x",
        ],
        ["the same, 1 connection", f"{shown[f'rate 1 {OURS}']} requests/s, p50 {shown['p50 1']} ms", ""],
        [
            "beside it in the same run, 32 connections",
            f"n8n {shown['rate 32 n8n']} requests/s; Node-RED, which saves nothing, {shown['rate 32 Node-RED']}",
            "",
        ],
        [
            "durable steps on SQLite: 1 execution; 32",
            f"{shown['share sqlite']} x one bare commit a step; {shown['steps sqlite durable 32']} steps/s",
            "0.25 x; 8,000 steps/s",
        ],
        ["durable steps on PostgreSQL: 32", f"{shown['steps postgresql durable 32']} steps/s", "5,000 steps/s"],
        [
            "beside them on PostgreSQL, 32 clients",
            " steps/s; ".join(f"{name} {shown[f'steps postgresql {module} 32']}" for module, name in STEP_PEERS),
            "",
        ],
        [
            "`orchestrator serve`: to the first answer through a `code` node; memory at rest",
            f"{shown['start first']} s; {shown['start idle']} MB",
            "2 s; 120 MB",
        ],
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|---|---|", *lines[1:]])


def put_into(readme: Path, table: str) -> None:
    """Between its two marks."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(README[0])
    _, end, after = rest.partition(README[1])
    if not begin or not end:
        raise ValueError(f"{readme}: the marks {README} are missing")
    readme.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    chosen = options(arguments)
    OnNode.peers = chosen.peers
    versions: dict[str, str] = {}
    facts = machine({})[:-1]
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        made, shown = parts(Path(name), chosen, versions)
    facts.append("versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())))
    method = (
        f"Medians of {chosen.rounds} round(s), least and most of them; in a round everything is measured once, in turn, for "
        f"{number(chosen.seconds)} s each. The load comes over loopback and keep-alive connections from a process of its own, which "
        "shares the machine's cores with what it measures and takes some 20 µs of them a request. Every answer is checked. "
        "The processor's time is that of all threads and children of the server."
    )
    print("\n".join(facts), method, *(as_told(part, as_text) for part in made), sep="\n\n")
    if chosen.markdown:
        head = [f"# Server benchmarks\n\nMade by `{command_line(chosen)}`.", method, "\n".join(f"- {f}" for f in facts)]
        text = "\n\n".join([*head, *(as_told(part, as_markdown, "## ") for part in made)])
        chosen.markdown.write_text(text + "\n", encoding="utf-8")
    if chosen.readme:
        put_into(chosen.readme, readme_table(shown))
    missed = any("MISSED" in row[-1] for part in made for row in part.table)
    return 1 if chosen.check and missed else 0


def as_told(part: Part, draw: Any, mark: str = "") -> str:
    return "\n\n".join(filter(None, [f"{mark}{part.title}", part.text, draw(part.table) if part.table else ""]))


def command_line(chosen: argparse.Namespace) -> str:
    """The command that makes the figures again, without the places of this machine."""
    words = ["python benchmarks/server.py"]
    if chosen.quick:
        words.append("--quick")
    elif chosen.rounds != 5 or chosen.seconds != 5:
        words.append(f"--rounds {chosen.rounds} --seconds {chosen.seconds:g}")
    if len(chosen.parts) < len(PARTS):
        words.append(f"--parts {','.join(chosen.parts)}")
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
