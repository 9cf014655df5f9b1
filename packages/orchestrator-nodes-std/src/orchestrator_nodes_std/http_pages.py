"""How the node type ``http`` walks through the pages of a list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import attrs
import httpx

from orchestrator_core import NodeError, setting
from orchestrator_nodes_std.addresses import read_url
from orchestrator_nodes_std.shapes import (
    MISSING,
    Json,
    at_least,
    between,
    check,
    get_path,
    kind,
    path_problem,
    split_path,
)

__all__ = ["HttpPagination", "Pages"]


@attrs.frozen
class HttpPagination:
    """How to ask for the next page of a list."""

    mode: Literal["link", "cursor", "page", "offset"] = setting(
        description=(
            "`link`: the header `Link` with `rel=next`; `cursor`: a value in the body, sent along with the next request; "
            "`page`: a number that counts up; `offset`: the number of items so far."
        ),
    )
    items: str = setting(
        default="",
        description="Where the list stands in a page's body (`data.items`); left out: the body is the list.",
        validator=check(lambda value: path_problem(value) if value else None),
    )
    parameter: str | None = setting(
        default=None,
        description="The query parameter: `page` or `offset` by default. For `cursor`: left out, the cursor is a URL.",
    )
    cursor: str = setting(
        default="next",
        description="`cursor`: where the next cursor stands in a page's body; missing, null, false or empty: no more.",
        examples=["meta.next_cursor"],
        validator=check(path_problem),
    )
    start: int | None = setting(
        default=None, description="`page`, `offset`: the first number; 1 and 0 by default.", validator=at_least(0)
    )
    size: int | None = setting(
        default=None,
        description="`page`, `offset`: items in a full page; a page with fewer is the last.",
        validator=at_least(1),
    )
    size_parameter: str | None = setting(
        default=None, description="The query parameter that asks for this `size`.", examples=["per_page", "limit"]
    )
    max_pages: int = setting(
        default=100,
        description="The most pages to read; where there are more, the output says `more: true`.",
        validator=between(1, 10_000),
    )


def _links(header: str) -> Iterator[tuple[str, str]]:
    """The targets of a ``Link`` header with their parameters (RFC 8288), in one pass over the text."""
    position = 0
    while (start := header.find("<", position)) >= 0 and (end := header.find(">", start)) >= 0:
        stop, quoted = end + 1, False
        while stop < len(header) and (quoted or header[stop] != ","):
            quoted ^= header[stop] == '"'
            stop += 1
        yield header[start + 1 : end].strip(), header[end + 1 : stop]
        position = stop


def _next_link(response: httpx.Response) -> str | None:
    for target, parameters in _links(response.headers.get("link", "")):
        match = re.search(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s;,\"]+))", parameters, re.IGNORECASE)
        if match is not None and "next" in (match[1] or match[2] or "").lower().split():
            return target
    return None


@attrs.define
class Pages:
    """Walks through the pages of a list, which all stand on the origin of ``url``.

    ``secret_parameter`` is a query parameter that every request gets, and that no URL here may hold.
    """

    settings: HttpPagination
    url: str
    secret_parameter: str | None = None
    number: int = 0
    seen: set[str] = attrs.field(factory=set)

    def first(self) -> str:
        """The URL of the first page."""
        settings, url = self.settings, httpx.URL(self.url)
        if settings.mode in {"page", "offset"}:
            default = 1 if settings.mode == "page" else 0
            self.number = default if settings.start is None else settings.start
            url = url.copy_set_param(settings.parameter or settings.mode, self.number)
        if settings.size_parameter is not None and settings.size is not None:
            url = url.copy_set_param(settings.size_parameter, settings.size)
        self.seen.add(str(url))
        return str(url)

    def items(self, body: Json) -> list[Json]:
        """The items of a page.

        Raises:
            NodeError: There is no list where one should be.
        """
        settings = self.settings
        found = get_path(body, split_path(settings.items)) if settings.items else body
        if isinstance(found, list):
            return found
        what = "nothing" if found is MISSING else kind(found)
        where = f"`{settings.items}`" if settings.items else "the body itself (`pagination.items` says where else)"
        raise NodeError(f"a page has no list at {where}, but {what}", code="bad_response", retryable=False)

    def following(self, response: httpx.Response, body: Json, items: list[Json], url: str) -> str | None:
        """The URL of the page after this one, or ``None`` after the last.

        Raises:
            NodeError: It is on another origin, or was read before.
        """
        settings = self.settings
        if settings.mode == "link":
            found: Json = _next_link(response)
        elif settings.mode == "cursor":
            found = get_path(body, split_path(settings.cursor))
        elif not items or (settings.size is not None and len(items) < settings.size):
            return None
        else:
            self.number += 1 if settings.mode == "page" else len(items)
            found = self.number
        if found is MISSING or found is None or found is False or found == "":
            return None
        if not isinstance(found, str | int | float):
            raise NodeError(f"a page's next cursor is {kind(found)}", code="bad_response", retryable=False)
        if settings.mode == "link" or (settings.mode == "cursor" and settings.parameter is None):
            following = self._joined(response, str(found))
        else:
            following = str(httpx.URL(url).copy_set_param(settings.parameter or settings.mode, found))
        if following in self.seen:
            raise NodeError(
                "the pages go round in a circle: one names itself, or an earlier one, as the next", code="bad_response"
            )
        self.seen.add(following)
        return following

    def _joined(self, response: httpx.Response, link: str) -> str:
        if "\\" in link or not link.isprintable():
            raise NodeError("the next page's URL holds a backslash or a control character", code="bad_url")
        try:
            following = str(response.url.join(link))
        except httpx.InvalidURL:
            raise NodeError("the next page's URL cannot be used", code="bad_url", retryable=False) from None
        if self.secret_parameter is not None:
            following = str(httpx.URL(following).copy_remove_param(self.secret_parameter))
        if read_url(following) != read_url(str(httpx.URL(self.url))):
            raise NodeError(
                f"the next page is on another origin ({read_url(following).host}), which would get this one's credentials",
                code="bad_response",
                retryable=False,
            )
        return following
