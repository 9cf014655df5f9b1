"""The API of a running server, as commands speak to it: who is meant and who is calling, and errors that say what to do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self, TypeVar

import anyio
import attrs
import click
import httpx

from orchestrator_core.cli.text import Problem, one_line
from orchestrator_core.codec import dump_json
from orchestrator_core.errors import Fault
from orchestrator_core.events import Event
from orchestrator_core.journal import event_from_json
from orchestrator_core.types import Json

__all__ = ["Access", "Client", "Refused", "check_id", "is_id", "of_server", "with_client"]

Made = TypeVar("Made")
Command = Callable[..., Any]

_PREFIX: Final = "/api/v1"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OWN_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# A stream says that it is still there every fifteen seconds.
_STREAM_TIMEOUT = httpx.Timeout(45.0, connect=5.0)
_AGAIN = 1.0  # seconds before a stream that broke off is asked for again
_GIVE_UP = 60.0  # seconds without a server after which nobody waits any more
_SKEW = 2.0  # the header Date has whole seconds: less than this is no difference between two clocks

_HINTS: Final[Mapping[str, str]] = {
    "unauthorized": "set ORCHESTRATOR_KEY to a key that holds: `orchestrator key create` makes one where the database is",
    "forbidden": "another tenant (--tenant), or a key with another role, may be what is meant",
}


@attrs.frozen
class Access:
    """Which server is meant, who is calling, and for which tenant."""

    command: str
    url: str
    key: str = attrs.field(repr=False)
    tenant: str


class Refused(Problem):
    """The server has answered with an error.

    Attributes:
        status: The HTTP status.
        word: The error's stable code.
        faults: What is wrong with a document.
    """

    def __init__(self, text: str, status: int, word: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.word = word
        self.faults = faults


def of_server(command: Command) -> Command:
    """The options that say which server is meant, who is calling, and for which tenant."""
    for option in (
        click.option(
            "--tenant", metavar="ID", default="", envvar="ORCHESTRATOR_TENANT", show_envvar=True, help="For whom."
        ),
        click.option(
            "--key",
            metavar="KEY",
            default="",
            envvar="ORCHESTRATOR_KEY",
            show_envvar=True,
            help="An API key or a token. What stands on a command line others can see: the variable is better.",
        ),
        click.option(
            "--url",
            metavar="URL",
            default="http://127.0.0.1:8080",
            show_default=True,
            envvar="ORCHESTRATOR_URL",
            show_envvar=True,
            help="Where the server is.",
        ),
    ):
        command = option(command)
    return command


def access_of(command: str, options: Mapping[str, Any]) -> Access:
    """What the options say, checked as far as it can be here.

    Raises:
        Problem: The address is none, or the key or the tenant is missing.
    """
    url, key, tenant = str(options["url"]).strip(), str(options["key"]).strip(), str(options["tenant"]).strip()
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Problem(f"{command}: --url {one_line(url, 100)}: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise Problem(f"{command}: --url {one_line(url, 100)}: write it as http://HOST:PORT")
    if not key:
        raise Problem(
            f"{command}: no key: set ORCHESTRATOR_KEY; where the database is, "
            "`orchestrator key create --tenant ID --role editor` makes one"
        )
    if not all("!" <= character <= "~" for character in key):
        raise Problem(f"{command}: the key (--key, ORCHESTRATOR_KEY) holds characters that no key has")
    if not tenant:
        raise Problem(f"{command}: no tenant: say --tenant ID, or set ORCHESTRATOR_TENANT")
    check_id(command, "--tenant", tenant)
    return Access(command, url.rstrip("/").removesuffix(_PREFIX), key, tenant)


def is_id(value: str) -> bool:
    """Whether a text has the shape of an id."""
    return _ID.fullmatch(value) is not None


def check_id(command: str, what: str, value: str) -> None:
    """Refuse what is no id before anybody is asked.

    Raises:
        Problem: It is none; of a file it is said what takes files.
    """
    if not is_id(value):
        hint = "" if "." not in value and "/" not in value else ": a file is saved first, by `orchestrator deploy FILE`"
        raise Problem(
            f"{command}: {what}: {one_line(value, 80)!r} is no id (letters, digits, _ and -, 64 at most){hint}"
        )


def check_execution(command: str, value: str) -> None:
    """Refuse what is not the id of an execution before anybody is asked.

    Raises:
        Problem: It is none; of what may be a workflow it is said what lists its executions.
    """
    check_id(command, "EXECUTION", value)
    if not value.startswith("exe_"):
        raise Problem(f"{command}: {value!r} is no execution: orchestrator logs {value} lists those of a workflow")


def with_client(command: str, options: Mapping[str, Any], work: Callable[[Client], Awaitable[Made]]) -> Made:
    """Do something with a server."""
    access = access_of(command, options)

    async def main() -> Made:
        async with Client(access) as client:
            return await work(client)

    return anyio.run(main)


class Client:
    """The API of a server, for one tenant. An async context manager.

    Args:
        access: Which server, who is calling, for which tenant.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self.skew = 0.0  # seconds that the server's clock is ahead
        url = httpx.URL(access.url)
        self._http = httpx.AsyncClient(
            base_url=access.url + _PREFIX,
            headers={"Authorization": f"Bearer {access.key}", "x-tenant-id": access.tenant},
            timeout=_TIMEOUT,
            # A server on this machine is reached without the proxy that the environment names.
            trust_env=url.host not in _OWN_HOSTS,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def now(self) -> float:
        """The time on the server's clock, in seconds since 1970."""
        return time.time() + self.skew

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON of an answer.

        Raises:
            Problem: There is none.
        """
        return await self.call("GET", path, query=query)

    async def call(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask, and give the JSON of the answer.

        Raises:
            Refused: The answer is an error.
            Problem: The server is not there, or is something else.
        """
        sent: dict[str, Any] = {"headers": dict(headers or {})}
        if body is not None:
            sent["content"] = dump_json(body).encode()
            sent["headers"]["Content-Type"] = "application/json"
        try:
            response = await self._http.request(method, path, params=dict(query or {}), **sent)
        except httpx.TransportError as error:
            raise self._not_there(error) from None
        return self._answer(response)

    async def events(
        self, execution_id: str, broken: Callable[[str], None]
    ) -> AsyncGenerator[tuple[dict[str, Json], Event], None]:
        """Every event of an execution until it has ended, as JSON and as it is. A stream that breaks off goes on.

        Args:
            execution_id: Which.
            broken: Told what is waited for when the server is away, and an empty text when it is back.

        Raises:
            Problem: The server does not come back, or has no such execution.
        """
        last = 0
        lost: float | None = None

        def back() -> None:
            nonlocal lost
            if lost is not None:
                lost = None
                broken("")

        while True:
            try:
                async with aclosing(self._stream(execution_id, last, back)) as stream:
                    async for number, data in stream:
                        if number is None:
                            return
                        last = number
                        yield data, event_from_json(data)
            except httpx.TransportError as error:
                if last == 0 and lost is None:
                    raise self._not_there(error) from None
            except Refused as error:
                if error.status != 503:
                    raise
            if lost is None:
                lost = anyio.current_time()
                broken("the server is away: waiting for it")
            if anyio.current_time() - lost > _GIVE_UP:
                raise Problem(
                    f"{self.access.command}: the server has been away for {_GIVE_UP:.0f} seconds; the execution goes on when "
                    "it is back",
                    exit_code=1,
                )
            await anyio.sleep(_AGAIN)

    async def _stream(
        self, execution_id: str, last: int, connected: Callable[[], None]
    ) -> AsyncGenerator[tuple[int | None, dict[str, Json]], None]:
        """One connection's events with their numbers; the last item, without one, says that the execution has ended."""
        headers = {"Last-Event-ID": str(last)} if last else {}
        async with self._http.stream(
            "GET", f"/executions/{execution_id}/events", headers=headers, timeout=_STREAM_TIMEOUT
        ) as response:
            if response.status_code != 200:
                await response.aread()
                self._answer(response)
            connected()
            self._look_at_clock(response)
            fields: dict[str, str] = {}
            rest = b""
            async for chunk in response.aiter_bytes():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    name, _, value = line.decode().partition(":")
                    if line:
                        fields[name] = value.removeprefix(" ")
                        continue
                    if "data" in fields:
                        number = int(fields["id"]) if "id" in fields else None
                        yield number, json.loads(fields["data"])
                    fields = {}

    def _answer(self, response: httpx.Response) -> Any:
        try:
            data = response.json() if response.content else None
        except ValueError:
            data = None
        if response.is_success and (data is not None or response.status_code == 204):
            self._look_at_clock(response)
            return data
        if not isinstance(data, dict) or not isinstance(data.get("message"), str):
            raise Problem(
                f"{self.access.command}: what answers at {self.access.url} is no orchestrator "
                f"({response.status_code} {response.reason_phrase}): see --url"
            )
        hint = _HINTS.get(str(data.get("code")))
        faults = tuple(
            Fault(str(fault.get("message")), str(fault.get("place", "$"))) for fault in data.get("faults") or ()
        )
        text = f"{self.access.command}: {one_line(data['message'])}" + (f"; {hint}" if hint else "")
        raise Refused(text, response.status_code, str(data.get("code")), faults)

    def _look_at_clock(self, response: httpx.Response) -> None:
        try:
            skew = parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()
        except (KeyError, ValueError):
            return
        self.skew = skew if abs(skew) > _SKEW else 0.0

    def _not_there(self, error: httpx.TransportError) -> Problem:
        command, url = self.access.command, self.access.url
        if isinstance(error, httpx.ConnectError):
            return Problem(
                f"{command}: no server answers at {url}: start one with `orchestrator serve`, or say where it is with --url"
            )
        if isinstance(error, httpx.TimeoutException):
            return Problem(f"{command}: the server at {url} does not answer in time: look at its logs, and try again")
        return Problem(f"{command}: the connection to {url} broke off ({type(error).__name__}): see --url")
