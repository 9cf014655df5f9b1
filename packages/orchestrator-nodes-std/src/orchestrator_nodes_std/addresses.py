"""Which addresses HTTP out may reach: the guard that judges URLs, hosts and the addresses that names resolve to.

An address is refused unless it is public. Public is what is left of the unicast space when everything that a registry
gives a special purpose is taken away; addresses that carry another one inside (IPv4-mapped, NAT64, 6to4, ...) are judged
by what they carry. Hosts are judged as they are written: an address in any other spelling than the usual one is refused,
because the next program on the way may read it differently.

Nothing here opens a connection. :mod:`orchestrator_nodes_std.http_client` asks this guard before it does, and
connects to the very addresses that were judged, so that a name server cannot change its answer in between.
"""

from __future__ import annotations

import re
import socket
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NoReturn

import anyio
import attrs

from orchestrator_core import NodeError

__all__ = [
    "Address",
    "AddressGuard",
    "AddressRefused",
    "Lookup",
    "Target",
    "is_public",
    "lookup",
    "read_url",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# From a name and a port to the addresses of that name, as text. Raises OSError where there are none.
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


class AddressRefused(NodeError):  # noqa: N818 - named after the fact
    """The request would go, or might go, where it must not. Nothing has left; no connection was made.

    The text names the host and nothing else: neither what it resolves to, nor whether anybody listens there.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, code="address_refused", retryable=False)


# --- the networks ------------------------------------------------------------------------------------------------------

# Unicast space as the registries hand it out. What is not in here is not public.
_UNICAST: Final[tuple[Network, ...]] = (
    IPv4Network("0.0.0.0/1"),
    IPv4Network("128.0.0.0/2"),
    IPv4Network("192.0.0.0/3"),  # 224.0.0.0/4 and up: multicast and reserved
    IPv6Network("2000::/3"),  # RFC 4291: global unicast; all else is special, reserved or unassigned
)

# Special purposes inside of it: the IANA registries (RFC 6890, RFC 8190) and what experience adds.
_SPECIAL: Final[tuple[Network, ...]] = (
    IPv4Network("0.0.0.0/8"),  # RFC 791: this network; 0.0.0.0 reaches the own host
    IPv4Network("10.0.0.0/8"),  # RFC 1918: private
    IPv4Network("100.64.0.0/10"),  # RFC 6598: carriers' NAT; a cloud's metadata at 100.100.100.200
    IPv4Network("127.0.0.0/8"),  # RFC 1122: loopback
    IPv4Network("168.63.129.16/32"),  # a cloud's host agent, on an address of the public space
    IPv4Network("169.254.0.0/16"),  # RFC 3927: link-local; clouds' metadata at 169.254.169.254
    IPv4Network("172.16.0.0/12"),  # RFC 1918: private
    IPv4Network("192.0.0.0/24"),  # RFC 6890: protocol assignments; a cloud's metadata at 192.0.0.192
    IPv4Network("192.0.2.0/24"),  # RFC 5737: documentation
    IPv4Network("192.88.99.0/24"),  # RFC 7526: the 6to4 relay anycast that was
    IPv4Network("192.168.0.0/16"),  # RFC 1918: private
    IPv4Network("198.18.0.0/15"),  # RFC 2544: benchmarking
    IPv4Network("198.51.100.0/24"),  # RFC 5737: documentation
    IPv4Network("203.0.113.0/24"),  # RFC 5737: documentation
    IPv4Network("224.0.0.0/4"),  # RFC 5771: multicast
    IPv4Network("240.0.0.0/4"),  # RFC 1112: reserved; 255.255.255.255 is broadcast
    IPv6Network("2001::/23"),  # RFC 2928: protocol assignments (benchmarking, ORCHID, ...)
    IPv6Network("2001:db8::/32"),  # RFC 3849: documentation
    IPv6Network("3ffe::/16"),  # RFC 3701: the 6bone that was
    IPv6Network("3fff::/20"),  # RFC 9637: documentation
)


@attrs.frozen
class _Carrier:
    """IPv6 addresses that hold IPv4 addresses: at which bits from the right, and xored with what."""

    network: IPv6Network
    places: tuple[tuple[int, int], ...]

    def carried(self, address: IPv6Address) -> tuple[IPv4Address, ...]:
        return tuple(IPv4Address((int(address) >> bits & 0xFFFFFFFF) ^ mask) for bits, mask in self.places)


_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_CARRIERS: Final[tuple[_Carrier, ...]] = (
    _Carrier(_MAPPED, ((0, 0),)),  # RFC 4291: IPv4-mapped
    _Carrier(IPv6Network("::/96"), ((0, 0),)),  # RFC 4291: IPv4-compatible; ::1 and :: land in 0.0.0.0/8
    _Carrier(IPv6Network("::ffff:0:0:0/96"), ((0, 0),)),  # RFC 2765: IPv4-translated
    _Carrier(IPv6Network("64:ff9b::/96"), ((0, 0),)),  # RFC 6052: NAT64; 64:ff9b:1::/48 (RFC 8215) is a site's own
    _Carrier(IPv6Network("2002::/16"), ((80, 0),)),  # RFC 3056: 6to4
    _Carrier(IPv6Network("2001::/32"), ((64, 0), (0, 0xFFFFFFFF))),  # RFC 4380: Teredo, its server and its client
)
# RFC 5214: ISATAP is told by the interface's half of the address, behind any prefix.
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


def _carried(address: Address) -> tuple[bool, tuple[IPv4Address, ...]]:
    """Whether the address is judged by what it carries alone, and what it carries."""
    if isinstance(address, IPv4Address):
        return False, ()
    inner: list[IPv4Address] = []
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    for carrier in _CARRIERS:
        if address in carrier.network:
            return True, (*inner, *carrier.carried(address))
    return False, tuple(inner)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def is_public(address: Address) -> bool:
    """Whether this is an address of the public internet, and so is every address that it carries."""
    carrier, inner = _carried(address)
    if not all(is_public(one) for one in inner):
        return False
    return carrier or (_within(address, _UNICAST) and not _within(address, _SPECIAL))


# --- URLs and hosts as they are written ----------------------------------------------------------------------------------

_MAX_URL: Final = 16_384
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?:[/?#].*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?P<port>:[0-9]*)?")
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\\]")
# A last label that is a number makes the whole host one, for getaddrinfo and for browsers alike.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)", re.DOTALL)
_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)


@attrs.frozen
class Target:
    """Where a URL leads: ``host`` in lower case without brackets, ``port`` with the scheme's default filled in."""

    scheme: str
    host: str
    port: int


def _bad_url(message: str) -> NoReturn:
    raise NodeError(message, code="bad_url", retryable=False)


def read_url(text: str) -> Target:
    """Where a URL leads, for URLs that everybody reads the same way.

    The texts of the errors never repeat the URL, which may hold a secret.

    Raises:
        NodeError: ``bad_url``: another scheme than http and https, user information, a backslash, a control
            character, a bad host or port.
        AddressRefused: The host is an address in an unusual spelling.
    """
    if len(text) > _MAX_URL:
        _bad_url(f"the URL has {len(text)} characters: at most {_MAX_URL} are allowed")
    if found := _UNFIT.search(text):
        what = "a backslash" if found.group() == "\\" else "a control character"
        _bad_url(f"the URL has {what} at position {found.start()}: write it percent-encoded, or remove it")
    match = _URL.fullmatch(text)
    if match is None:
        _bad_url("the URL must begin with http:// or https://")
    authority = match["authority"]
    if "@" in authority:
        _bad_url("the URL has a user name or password before its host: use the setting `auth` instead")
    if "%" in authority or any(character.isspace() for character in authority):
        _bad_url("the URL's host has a space or a percent sign: write the host's plain name")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        _bad_url("the URL has no usable host: write https://host/path, IPv6 addresses in brackets")
    scheme = match["scheme"].lower()
    host = parts["host"].lower()
    if host.startswith("["):
        host = str(_ipv6(host[1:-1]))
    else:
        _check_spelling(host)
    port = (parts["port"] or ":")[1:]
    if port and (len(port) > 5 or not 1 <= int(port) <= 65535):
        _bad_url("the URL's port must be 1 to 65535")
    return Target(scheme, host, int(port) if port else {"http": 80, "https": 443}[scheme])


def _ipv6(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError:
        _bad_url("the URL's host in brackets is no IPv6 address")


def _check_spelling(host: str) -> None:
    """Refuse what some program on the way may take for an address, or for the own host, although it looks different."""
    # Compatibility forms (full-width digits, one-dot leaders) become the plain ones; U+3002 is a dot in names.
    plain = unicodedata.normalize("NFKC", host).replace("\u3002", ".").lower()
    bare = plain.rstrip(".")
    unusual = plain != host or bare != plain
    if _NUMERIC.fullmatch(bare):
        try:
            IPv4Address(plain)
        except ValueError:
            unusual = True
        if unusual:
            raise AddressRefused(
                f"{_shown(host)} is refused: it is an address in an unusual spelling; write four decimal numbers (93.184.216.34)"
            )
        return
    if plain != host and plain.isascii():
        if _is_localhost(bare):
            raise AddressRefused(_refusal(host))
        _bad_url(f"the URL's host {_shown(host)} is a name in an unusual spelling: write {_shown(bare)}")
    if host.isascii() and not _NAME.fullmatch(host.removesuffix(".")):
        _bad_url(
            f"the URL's host {_shown(host)} is no name: labels of letters, digits and hyphens, with dots between them"
        )


def _shown(host: str) -> str:
    return repr(host if len(host) <= 80 else f"{host[:80]}...")


def _refusal(host: str) -> str:
    return (
        f"{_shown(host)} is refused: it is not on the public internet, or not only there; "
        "the operator can allow it by name or network"
    )


def _is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


# --- the guard ------------------------------------------------------------------------------------------------------------


async def lookup(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver.

    Raises:
        OSError: The name has no address, or the resolver cannot be reached.
    """
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class AddressGuard:
    """Judges hosts and addresses by what an operator allows beside the public internet.

    Args:
        allow: Host names (exactly these), addresses and networks (``127.0.0.1``, ``10.1.0.0/16``, ``intranet.example``).

    Raises:
        ValueError: An entry is none of these.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        names: set[str] = set()
        networks: list[Network] = []
        for entry in allow:
            text = entry.strip().lower().removeprefix("[").removesuffix("]")
            name = text.removesuffix(".")
            if "/" in text or ":" in text or _NUMERIC.fullmatch(name):
                try:
                    networks.append(ip_network(text))
                except ValueError as error:
                    raise ValueError(f"allow: {entry!r} is no address and no network: {error}") from None
            elif _NAME.fullmatch(name):
                names.add(name)
            else:
                raise ValueError(f"allow: {entry!r} is no host name, no address and no network (10.1.0.0/16)")
        self._names = frozenset(names)
        self._networks = tuple(networks)

    def permits(self, address: Address) -> bool:
        """Whether a connection to this address may be made."""
        if _within(address, self._networks):
            return True
        carrier, inner = _carried(address)
        if inner:
            return all(self.permits(one) for one in inner) and (carrier or is_public(address))
        return is_public(address)

    def check_host(self, host: str) -> Address | None:
        """The address that a host (ASCII, without brackets) is, or ``None`` for a name that must be looked up.

        Raises:
            AddressRefused: It is an address that must not be reached, one in an unusual spelling, or a name of the own host.
            NodeError: ``bad_url``: it is no host.
        """
        if ":" in host:
            address: Address = _ipv6(host)
        else:
            _check_spelling(host.lower())
            name = host.lower().removesuffix(".")
            if not _NUMERIC.fullmatch(name):
                if _is_localhost(name) and not self._loopbacks(name):
                    raise AddressRefused(_refusal(host))
                return None
            address = IPv4Address(name)
        if not self.permits(address):
            raise AddressRefused(_refusal(host))
        return address

    async def addresses(self, host: str, port: int, ask: Lookup = lookup) -> tuple[str, ...]:
        """Every address of a host, all of them judged; one that must not be reached refuses the lot.

        Connect to what is returned and to nothing else: asking again may give another answer.

        Raises:
            AddressRefused: As :meth:`check_host`, or the name resolves to such an address.
            OSError: The name has no address.
        """
        literal = self.check_host(host)
        if literal is not None:
            return (_plain(literal),)
        name = host.lower().removesuffix(".")
        if _is_localhost(name):
            # RFC 6761: names of the own host are never looked up; a name server could say anything.
            return self._loopbacks(name)
        found = list(await ask(host, port))
        if not found:
            raise OSError(f"{host} has no address")
        judged: list[str] = []
        for text in found:
            try:
                address = ip_address(text)
            except ValueError:
                raise AddressRefused(_refusal(host)) from None
            if name not in self._names and not self.permits(address):
                raise AddressRefused(_refusal(host))
            judged.append(_plain(address))
        return tuple(dict.fromkeys(judged))

    def _loopbacks(self, name: str) -> tuple[str, ...]:
        own = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
        return tuple(str(address) for address in own if name in self._names or self.permits(address))


def _plain(address: Address) -> str:
    """The address as text, IPv4 where IPv6 only wraps it."""
    if isinstance(address, IPv6Address) and address in _MAPPED:
        return str(IPv4Address(int(address) & 0xFFFFFFFF))
    return str(address)
