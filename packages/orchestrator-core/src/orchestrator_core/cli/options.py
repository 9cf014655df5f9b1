"""What is given to ``run`` on the command line: values as JSON, with errors that say where they are wrong."""

from __future__ import annotations

import importlib
import ipaddress
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from orchestrator_core import codec
from orchestrator_core.cli.documents import places, read_value
from orchestrator_core.cli.text import Problem, fault_line
from orchestrator_core.codec import parse_duration
from orchestrator_core.document import Workflow
from orchestrator_core.errors import DocumentError
from orchestrator_core.spelling import nearest
from orchestrator_core.types import Duration, Json

__all__ = [
    "Signal",
    "parse_address",
    "parse_callables",
    "parse_input",
    "parse_pins",
    "parse_secrets",
    "parse_signals",
    "parse_timeout",
    "parse_vars",
]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Labels of letters, digits and hyphens; underscores too, which names inside of container networks have.
_HOST = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?"
)
# A last label that is a number makes the whole host an address, in a spelling that programs read differently.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")


@attrs.frozen
class Signal:
    """A message given up front, for a node that will wait for it."""

    path: str
    name: str
    payload: Json


def parse_json_option(text: str, option: str, *, hint: str = "") -> Json:
    """The value of a JSON text on the command line.

    Raises:
        Problem: It is no JSON; the line says at which character, and shows it.
    """
    text = _as_utf8(text, option)
    try:
        return codec.parse_json(text)
    except DocumentError as error:
        fault = error.faults[0]
        where = f" at {fault.place}" if fault.place != "$" else ""
        message = f"{option}{where}: {fault.message}"
        try:
            json.loads(text)
        except json.JSONDecodeError as wrong:
            what, position = codec.explain_json(wrong)
            around = text[max(position - 12, 0) : position + 12].replace("\n", " ")
            line = f"line {text.count(chr(10), 0, position) + 1}, " if "\n" in text else ""
            column = position - text.rfind("\n", 0, position)
            message = f"{option}: not JSON: {what} ({line}column {column}, near {around!r})"
        except (ValueError, RecursionError):
            pass
        raise Problem(message + (f"; {hint}" if hint else "")) from None


def _as_utf8(text: str, option: str) -> str:
    """A text of the command line as it was meant: JSON is UTF-8, whatever the locale says.

    Where the locale is not UTF-8 (``LC_ALL=C``), what it cannot read comes as lone surrogates, one for each byte.
    """
    if not any("\udc80" <= character <= "\udcff" for character in text):
        return text
    data = os.fsencode(text)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(
            f"{option}: not UTF-8: byte {data[error.start]:#04x} at position {error.start + 1}; "
            "write other characters as JSON has them (\\u00e9), or give a file"
        ) from None


def parse_input(text: str | None) -> Json:
    """The payload: JSON, ``@file`` (JSON or YAML) or ``@-`` (standard input); ``null`` where it is not given."""
    if text is None:
        return None
    if not text.startswith("@"):
        hint = "a text needs quotes, a file is written @FILE" if text[:1] not in {"{", "["} else ""
        return parse_json_option(text, "--input", hint=hint)
    file = text[1:]
    if not file:
        raise Problem("--input @: name a file, or write @- for standard input")
    try:
        return read_value(file)[0]
    except DocumentError as error:
        raise Problem(*(fault_line(file, fault) for fault in error.faults)) from None


def _split(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Problem(f"{option} {text!r}: write {option} {form}")
    return name, value


def parse_vars(given: Sequence[str]) -> dict[str, Json]:
    """``NAME=JSON``, several times."""
    found: dict[str, Json] = {}
    for text in given:
        name, value = _split(text, "--var", "NAME=JSON")
        if name in found:
            raise Problem(f"--var {name}: is given twice")
        found[name] = parse_json_option(value, f"--var {name}", hint=f"""a text needs quotes: --var '{name}="…"'""")
    return found


def parse_secrets(given: Sequence[str]) -> dict[str, str]:
    """``NAME=@env:VAR`` or ``NAME=@file:PATH``: a secret's value is never written on a command line."""
    found: dict[str, str] = {}
    for text in given:
        name, value = _split(text, "--secret", "NAME=@env:VARIABLE")
        if not _NAME.fullmatch(name):
            raise Problem(f"--secret {name!r}: a secret's name is letters, digits and _")
        kind, _, source = value.partition(":")
        if kind == "@env":
            if source not in os.environ:
                raise Problem(f"--secret {name}: there is no environment variable {source!r}: set it first")
            found[name] = os.environ[source]
        elif kind == "@file":
            try:
                found[name] = Path(source).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise Problem(f"--secret {name}: {source} cannot be read: {reason}") from None
        else:
            raise Problem(
                f"--secret {name}: others can read a command line: write --secret {name}=@env:VARIABLE "
                f"or --secret {name}=@file:PATH"
            )
    return found


def _known_path(workflow: Workflow, path: str, option: str) -> None:
    """Refuse a path that no node of the workflow can have; of stored workflows only the node itself is known."""
    known = list(places(workflow.nodes))
    place = "/".join(part for part in path.split("/") if not part.isdecimal())
    if place not in known:
        meant = nearest(place, known) if len(known) <= 1000 else ""
        hint = (
            f"did you mean {meant!r}?" if meant else f"it has {', '.join(known[:12])}{', …' if len(known) > 12 else ''}"
        )
        raise Problem(f"{option}: {workflow.id} has no node at {path!r}: {hint}")


def parse_pins(given: Sequence[str], workflow: Workflow) -> dict[str, dict[str, Json]]:
    """``PATH=JSON`` (what it gives on ``main``) or ``PATH:PORT=JSON``, several times."""
    pins: dict[str, dict[str, Json]] = {}
    for text in given:
        name, value = _split(text, "--pin", "PATH=JSON or PATH:PORT=JSON")
        path, _, port = name.partition(":")
        _known_path(workflow, path, f"--pin {name}")
        ports = pins.setdefault(path, {})
        if (port or "main") in ports:
            raise Problem(f"--pin {name}: is given twice")
        ports[port or "main"] = parse_json_option(value, f"--pin {name}", hint="a text needs quotes")
    return pins


def parse_signals(given: Sequence[str], workflow: Workflow) -> list[Signal]:
    """``PATH:NAME`` or ``PATH:NAME=JSON``, several times, in the order in which they are sent."""
    signals = []
    for text in given:
        name, equals, value = text.partition("=")
        path, colon, signal = name.partition(":")
        if not (path and colon and signal):
            raise Problem(f"--signal {text!r}: write --signal PATH:NAME=JSON")
        _known_path(workflow, path, f"--signal {name}")
        payload = parse_json_option(value, f"--signal {name}", hint="a text needs quotes") if equals else None
        signals.append(Signal(path, signal, payload))
    return signals


def parse_callables(given: Sequence[str]) -> Mapping[str, Callable[..., Any]]:
    """``NAME=module:function``, several times: what ``call`` nodes may name. Modules beside us can be named, too."""
    found: dict[str, Callable[..., Any]] = {}
    if given and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    for text in given:
        name, value = _split(text, "--callable", "NAME=module:function")
        module_name, colon, attribute = value.partition(":")
        if not colon:
            raise Problem(f"--callable {name}: write --callable {name}=module:function")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # noqa: BLE001 - a module may raise anything when it is imported
            raise Problem(
                f"--callable {name}: {module_name} cannot be imported: {type(error).__name__}: {error}"
            ) from None
        function = getattr(module, attribute, None)
        if not callable(function):
            raise Problem(f"--callable {name}: {module_name} has no function {attribute!r}")
        found[name] = function
    return found


def parse_address(given: Sequence[str]) -> tuple[str, ...]:
    """Hosts and networks that HTTP may reach although they are private."""
    for text in given:
        if not _is_address(text):
            raise Problem(f"--allow-address {text!r}: {_address_hint(text)}")
    return tuple(given)


def _is_address(text: str) -> bool:
    """Whether it is a host name, an IP address or a network: nothing else can be told from a typing error."""
    try:
        ipaddress.ip_network(text.removeprefix("[").removesuffix("]") if ":" in text else text)
    except ValueError:
        return len(text) <= 253 and bool(_HOST.fullmatch(text)) and not _NUMERIC.fullmatch(text)
    return True


def _address_hint(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        pass
    else:
        return f"write the network as {network}, or the address alone"
    if "//" in text or re.fullmatch(r"[^:]+:\d+", text):
        return "write the host alone, without scheme, port or path: it is allowed on every port"
    if not text.isascii():
        return "write the name as it is looked up, in ASCII (xn--…)"
    return "write a host name (intranet.example), an address (127.0.0.1) or a network (10.1.0.0/16)"


def parse_timeout(text: str | None) -> Duration | None:
    """Seconds, or text such as ``15m``."""
    if text is None:
        return None
    try:
        seconds = parse_duration(float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else text)
    except ValueError:
        raise Problem(f"--timeout {text!r}: give seconds as a number, or text such as 15m, 1h30m, 7d") from None
    if seconds <= 0:
        raise Problem("--timeout: must be more than 0 seconds")
    return seconds
