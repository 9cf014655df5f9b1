"""What an operator may set: few things, each with a default that is safe.

They come from a TOML file and from the environment (``ORCHESTRATOR_`` and the name in capitals), which counts more. Options of
the command line count most.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_type_hints

import attrs

from orchestrator_core import setting
from orchestrator_core.codec import faults_of, make_converter, parse_duration, parse_json
from orchestrator_core.errors import DocumentError
from orchestrator_core.types import Duration, Json
from orchestrator_server.auth import JwtKey, JwtSettings
from orchestrator_server.errors import Invalid
from orchestrator_server.sealing import KeyRing, load_keys, new_key

__all__ = ["ENVIRONMENT", "Settings", "load_settings", "read_file"]

_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?")

ENVIRONMENT: Final = "ORCHESTRATOR_"
"""What the names of environment variables begin with."""

_LAST_PORT = 65535
_LEAST: Final[Mapping[str, int]] = {
    "port": 0,
    "metrics_port": 0,
    "body_limit": 1,
    "connections": 1,
    "for_each_limit": 1,
    "concurrency": 1,
    "lease": 1,
}


@attrs.frozen
class JwtKeyFile:
    """A key that signs tokens."""

    id: str = setting(description="What `kid` in a token's header says.")
    algorithm: str = setting(description="The one algorithm it is used with.", examples=["RS256", "EdDSA"])
    file: str = setting(description="The public key (PEM), or the shared secret of an `HS` algorithm.")


@attrs.frozen
class JwtSection:
    """Whose JSON Web Tokens are accepted."""

    issuer: str = setting(description="What `iss` must be.")
    audience: str = setting(description="What `aud` must hold.")
    keys: tuple[JwtKeyFile, ...] = setting(description="The keys that sign them.")


@attrs.frozen
class Settings:
    """The settings of the server."""

    database: str = setting(
        default="sqlite:///orchestrator.db",
        description="Where everything is kept.",
        examples=["sqlite:///orchestrator.db", "postgresql+psycopg://user@host/name"],
    )
    isolation: Literal["shared", "schema", "database"] = setting(
        default="shared", description="Whether tenants share tables, or have a schema or a database each."
    )
    host: str = setting(default="127.0.0.1", description="The address that the API listens on.")
    port: int = setting(default=8080, description="Its port.")
    public_url: str = setting(
        default="",
        description="Where the server is seen from outside, for the links it makes; its own address unless given.",
        examples=["https://flows.example.com"],
    )
    secret_keys: str = attrs.field(
        default="",
        repr=False,
        metadata={
            "description": "The keys that encrypt secrets, `id:base64` with commas between; the first one encrypts.",
            "secret": True,
        },
    )
    secret_key_file: str = setting(
        default="",
        description="Or a file with them. Without either, `serve` on SQLite makes one beside the database.",
    )
    jwt: JwtSection | None = setting(default=None, description="Whose JSON Web Tokens are accepted; none unless given.")
    body_limit: int = setting(default=2 * 1024 * 1024, description="Bytes of a request's body, at most.")
    document_limit: int = setting(default=8 * 1024 * 1024, description="Bytes of a workflow's document, at most.")
    for_each_limit: int = setting(default=10_000, description="Items of a `for_each`, at most: they all start at once.")
    body_timeout: Duration = setting(default=Duration(20.0), description="How long a request's body may take to come.")
    header_timeout: Duration = setting(
        default=Duration(10.0), description="How long a request's head may take to come."
    )
    connections: int = setting(default=1000, description="Connections at one time, at most.")
    wait: Duration = setting(
        default=Duration(30.0), description="How long a request waits for an execution's end before it answers 202."
    )
    concurrency: int = setting(default=100, description="Executions that a worker drives at one time.")
    lease: Duration = setting(
        default=Duration(30.0), description="How long a worker's claim holds without a sign of life."
    )
    allow_addresses: tuple[str, ...] = setting(
        default=(), description="Private addresses that nodes may reach all the same.", examples=[["10.1.2.3"]]
    )
    metrics_public: bool = setting(default=False, description="Whether `/metrics` answers without an operator's key.")
    metrics_port: int = setting(
        default=0,
        description="A port where `worker` and `scheduler` answer `/metrics`, `/health` and `/ready`; 0: none.",
    )
    traces: bool = setting(
        default=False,
        description="Whether OpenTelemetry traces are sent; true where the variables `OTEL_…` name a place for them.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(default="info", description="How much is logged.")
    log_format: Literal["auto", "text", "json"] = setting(
        default="auto",
        description="How: lines for people, or an object of JSON a line; `auto`: `text` in a terminal, else `json`.",
    )

    @property
    def address(self) -> str:
        """Where the server is seen from outside, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url.rstrip("/") or f"http://{host}:{self.port}"

    def jwt_settings(self) -> JwtSettings | None:
        """Whose tokens are accepted, with their keys.

        Raises:
            Invalid: A key cannot be read, or does not fit its algorithm.
        """
        if self.jwt is None:
            return None
        if not self.jwt.keys:
            raise Invalid("jwt.keys: give at least one key")
        keys = tuple(map(_jwt_key, self.jwt.keys))
        if len({key.id for key in keys}) < len(keys):
            raise Invalid("jwt.keys: two have the same id")
        return JwtSettings(self.jwt.issuer, self.jwt.audience, keys)

    def key_ring(self, *, make: bool = False) -> KeyRing:
        """The keys that encrypt secrets.

        Args:
            make: Make a file with one beside a SQLite database, where nothing else is said. Whoever says so has seen that the
                database holds nothing that another key has sealed.

        Raises:
            Invalid: There are none, or the file cannot be read.
        """
        if self.secret_keys:
            return _keys_of(self.secret_keys, "secret_keys")
        if self.secret_key_file:
            return _keys_in(self.secret_key_file)
        file = self._own_key_file()
        if file is None:
            raise Invalid(
                "secret_keys: the keys that encrypt secrets are not set: set ORCHESTRATOR_SECRET_KEYS or "
                "ORCHESTRATOR_SECRET_KEY_FILE; `orchestrator secret new-key` makes one"
            )
        if make and not file.exists():
            _write_private(file, new_key() + "\n")
        return _keys_in(str(file))

    def missing_key_file(self) -> Path | None:
        """The file that is to hold the key of an embedded database, where nothing else is said and it is not there."""
        file = None if self.secret_keys or self.secret_key_file else self._own_key_file()
        return None if file is None or file.exists() else file

    def _own_key_file(self) -> Path | None:
        """Where the key of an embedded database is kept: in a file beside it."""
        scheme, _, path = self.database.partition(":///")
        if not scheme.startswith("sqlite") or not path:
            return None
        return Path(f"{path.partition('?')[0]}.key")


def _write_private(file: Path, text: str) -> None:
    """Write a file that nobody else may read, or leave it where somebody was quicker."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise Invalid(f"{file}: cannot be written: {error.strerror or error}") from None
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def _keys_in(file: str) -> KeyRing:
    return _keys_of(_text_of(file, "secret_key_file"), f"secret_key_file: {file}")


def _keys_of(text: str, where: str) -> KeyRing:
    try:
        return load_keys(text)
    except Invalid as error:
        raise Invalid(f"{where}: {error}") from None


def _jwt_key(key: JwtKeyFile) -> JwtKey:
    text = _text_of(key.file, "jwt.keys")
    try:
        return JwtKey(key.id, key.algorithm, text)
    except Invalid as error:
        raise Invalid(f"jwt.keys: {key.file}: {str(error).removeprefix('jwt: ')}") from None


def _text_of(file: str, what: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text"
        raise Invalid(f"{what}: {file} cannot be read: {reason}") from None


def load_settings(
    environment: Mapping[str, str], *, file: str | Path | None = None, options: Mapping[str, Json] | None = None
) -> Settings:
    """The settings.

    Args:
        environment: The environment variables.
        file: A TOML file; ``ORCHESTRATOR_SETTINGS`` names one otherwise.
        options: What was said on the command line; ``None`` in it: nothing.

    Raises:
        Invalid: Something is not known or has the wrong type: everything that is wrong, with the place where it was said.
    """
    given: dict[str, Json] = {}
    said: dict[str, str] = {}  # where each was said that did not come from an option
    path = file if file is not None else environment.get(f"{ENVIRONMENT}SETTINGS")
    if path:
        given.update(read_file(Path(path)))
        said.update({name: f"{path}: {name}" for name in given})
    if _wants_traces(environment):
        given.setdefault("traces", True)
    found = _from_environment(environment)
    given.update(found)
    said.update({name: f"{ENVIRONMENT}{name.upper()}" for name in found})
    chosen = {name: value for name, value in (options or {}).items() if value is not None}
    given.update(chosen)
    said.update({name: f"settings: {name}" for name in chosen})
    try:
        settings: Settings = make_converter().structure(given, Settings)
    except Exception as error:  # noqa: BLE001 - all faults are gathered
        raise Invalid(
            "; ".join(f"{_place(fault.place, said)}: {fault.message}" for fault in faults_of(error))
        ) from None
    _check_values(settings, said)
    return settings


def _place(place: str, said: Mapping[str, str]) -> str:
    """Where something was said: in which file, by which variable."""
    within = place.removeprefix("$.")
    name = re.split(r"[.\[]", within, maxsplit=1)[0]
    return said.get(name, f"settings: {name}") + within.removeprefix(name)


def _check_values(settings: Settings, said: Mapping[str, str]) -> None:
    """Refuse what has the right type and cannot be meant.

    Raises:
        Invalid: It does.
    """
    if settings.public_url and not _URL.fullmatch(settings.public_url):
        place = _place("public_url", said)
        raise Invalid(f"{place}: write it like https://flows.example.com, or with a path behind it")
    for name, least in _LEAST.items():
        if getattr(settings, name) < least:
            raise Invalid(f"{_place(name, said)}: must be {least} or more")
    for name in ("port", "metrics_port"):
        if getattr(settings, name) > _LAST_PORT:
            raise Invalid(f"{_place(name, said)}: must be {_LAST_PORT} or less")


def _wants_traces(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables say where traces are to go."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter not in {"", "otlp"}:
        return False
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exporter == "otlp" or any(environment.get(name) for name in places)


def read_file(path: Path) -> dict[str, Json]:
    """What a settings file says, as it stands there.

    Raises:
        Invalid: It cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path}: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Json]:
    """Texts as the types that the settings have."""
    hints = get_type_hints(Settings)
    found: dict[str, Json] = {}
    for field in attrs.fields(Settings):
        name = f"{ENVIRONMENT}{field.name.upper()}"
        text = environment.get(name)
        if text is not None and text != "":
            try:
                found[field.name] = _read(text, hints[field.name])
            except (ValueError, DocumentError) as error:
                raise Invalid(f"{name}: {error}") from None
    return found


def _read(text: str, hint: Any) -> Json:
    if hint is Duration:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
    if hint is int:
        if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text):
            raise ValueError(f"must be a whole number, not {text[:40]!r}")
        return int(text)
    if hint is bool:
        if text.lower() not in {"true", "false", "1", "0"}:
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() in {"true", "1"}
    if hint == tuple[str, ...]:
        return [part.strip() for part in text.split(",") if part.strip()]
    if attrs.has(hint) or any(attrs.has(argument) for argument in get_args(hint)):
        return parse_json(text)
    return text
