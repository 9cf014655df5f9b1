"""The guard: every spelling of an address that must not be reached is refused; what is public is not."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_core import NodeError
from orchestrator_nodes_std.addresses import AddressGuard, AddressRefused, is_public, read_url

# One of each kind, and the edges of the networks.
FORBIDDEN = [
    "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.100.100.200", "100.127.255.255",
    "127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255",
    "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
]  # fmt: skip
FORBIDDEN_6 = [
    "::", "::1", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "ff02::1", "ff0e::1",
    "100::1", "2001:2::1", "2001:10::1", "2001:db8::1", "3ffe::1", "3fff::1", "4000::1", "5f00::1", "64:ff9b:1::808:808",
    "2620:0:2d0:200:0:5efe:10.0.0.1", "2620:0:2d0:200:200:5efe:127.0.0.1", "::5efe:8.8.8.8",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255", "100.128.0.0", "126.255.255.255",
    "128.0.0.0", "168.63.129.15", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.167.255.255",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1", "2620:fe::fe",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2620:0:2d0:200:0:5efe:8.8.8.8",
]  # fmt: skip

forbidden_networks = st.sampled_from(
    ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
     "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
     "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"]
).map(IPv4Network)  # fmt: skip
forbidden = forbidden_networks.flatmap(
    lambda network: st.integers(int(network[0]), int(network[-1])).map(IPv4Address),
)
any_address = st.integers(0, 2**32 - 1).map(IPv4Address)


def refuses(host: str) -> bool:
    """Both halves: the URL as it is written, and the host as a client sees it."""
    guard = AddressGuard()
    try:
        guard.check_host(read_url(f"http://{host}:8080/x").host)
    except NodeError as error:
        return error.code in {"address_refused", "bad_url"} and not error.retryable
    return False


@pytest.mark.parametrize("address", [*FORBIDDEN, *FORBIDDEN_6])
def test_every_special_address_is_refused(address):
    assert not is_public(ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(AddressRefused) as caught:
        AddressGuard().check_host(read_url(f"http://{host}/").host)
    assert caught.value.code == "address_refused"


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address):
    host = f"[{address}]" if ":" in address else address
    assert AddressGuard().check_host(read_url(f"https://{host}/").host) == ip_address(address)


# Look-alikes that Unicode's compatibility forms turn into the plain characters.
FULL_WIDTH = {ord(one): ord(one) + 0xFEE0 for one in "0123456789abcdefx."}
CIRCLED = {ord("1") + n: 0x2460 + n for n in range(9)}
DOTS = [".", ".", "\u3002", "\uff0e", "\uff61", "\u2024"]


@st.composite
def spellings(draw, addresses=forbidden):
    """A way to write an IPv4 address that getaddrinfo, a browser or an IDNA library reads as that address."""
    address = draw(addresses)
    parts = list(address.packed)
    count = draw(st.integers(1, 4))
    numbers = [*parts[: count - 1], int.from_bytes(address.packed[count - 1 :], "big")]
    texts = []
    for number in numbers:
        form = draw(st.sampled_from(["{}", "0{:o}", "000{:o}", "0x{:x}", "0X{:X}", "0x00{:x}"]))
        texts.append(form.format(number))
    dot = draw(st.sampled_from(DOTS))
    text = dot.join(texts)
    if draw(st.booleans()):
        text = text.translate(draw(st.sampled_from([FULL_WIDTH, CIRCLED])))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(text) - 1))
        if text[place].isascii():
            text = f"{text[:place]}%{ord(text[place]):02x}{text[place + 1 :]}"
    text += draw(st.sampled_from(["", "", ".", "\u3002", ".."]))
    return draw(st.sampled_from(["", "", "", "good.example@", "good.example\\@", "u:p@"])) + text


@given(spellings())
def test_no_spelling_of_a_forbidden_address_passes(host):
    assert refuses(host)


@given(spellings(any_address))
def test_addresses_pass_in_the_usual_spelling_only(host):
    """Also public ones: what reads 0250.1 as one address may be followed by what reads it as another."""
    try:
        plain = str(IPv4Address(host)) == host
    except ValueError:
        plain = False
    assert refuses(host) or plain


CARRIERS = [
    lambda a: int(IPv6Address("::ffff:0:0")) | int(a),
    int,
    lambda a: int(IPv6Address("::ffff:0:0:0")) | int(a),
    lambda a: int(IPv6Address("64:ff9b::")) | int(a),
    lambda a: int(IPv6Address("64:ff9b:1::")) | int(a),
    lambda a: int(IPv6Address("2002::1")) | int(a) << 80,
    lambda a: int(IPv6Address("2001:0:808:808::")) | int(a) ^ 0xFFFFFFFF,
    lambda a: int(IPv6Address("2001::f7f7:f7f7")) | int(a) << 64,
    lambda a: int(IPv6Address("2a00:1450::5efe:0:0")) | int(a),
    lambda a: int(IPv6Address("2a00:1450::200:5efe:0:0")) | int(a),
]


@given(forbidden, st.sampled_from(CARRIERS), st.sampled_from(["compressed", "exploded", "tail", "upper"]))
def test_no_ipv6_form_smuggles_a_forbidden_address(address, carrier, form):
    inside = IPv6Address(carrier(address))
    written = {
        "compressed": inside.compressed,
        "exploded": inside.exploded,
        "tail": ":".join(inside.exploded.split(":")[:6]) + ":" + str(IPv4Address(int(inside) & 0xFFFFFFFF)),
        "upper": inside.compressed.upper(),
    }[form]
    assert not is_public(inside)
    assert refuses(f"[{written}]")


# Leaving out ::/16, where the forms that carry IPv4 addresses stand.
@given(st.integers(2**112, 2**128 - 1).filter(lambda n: n >> 112 != 0x64).map(IPv6Address))
def test_nothing_but_global_unicast_is_public(address):
    if is_public(address):
        assert int(address) >> 125 == 1


@pytest.mark.parametrize(
    "url",
    [
        "", "/path", "//host/", "host", "ftp://host/", "file:///etc/passwd", "gopher://host", "http:/host", "http:host",
        "http://", "http:///x", "http://:80/", "http://user@host/", "http://user:pass@host/", "http://@host/",
        "http://good.example\\@127.0.0.1/", "http://good.example\\.evil/", "http://host/a\\b", "http://host:0/",
        "http://host:65536/", "http://host:99999999999/", "http://host:-1/", "http://host:8\uff10/", "http://host:80:80/",
        "http://ho st/", "http://host\t/", "http://host/\r\nX: y", "http://host/\x00", "http://host/\x7f", "http://host/\x85",
        "http://%31%32%37.0.0.1/", "http://[::1/", "http://::1/", "http://[::1%25lo]/", "http://[::1%lo]/", "http://[host]/",
        "http://a..b/", "http://.a/", "http://a../", "http://-a/", "http://a-/", f"http://{'a' * 64}.example/",
        "http://a_b!/", "http://\uff45xample.com/", " http://host/", "http://host/" + "x" * 20_000,
    ],
)  # fmt: skip
def test_urls_that_somebody_might_read_differently_are_refused(url):
    with pytest.raises(NodeError) as caught:
        read_url(url)
    assert caught.value.code == "bad_url"
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://Example.COM", "example.com", 80),
        ("https://example.com/a b?q=ü#f", "example.com", 443),
        ("HTTPS://example.com:8443?x", "example.com", 8443),
        ("http://example.com:/", "example.com", 80),
        ("http://example.com./", "example.com.", 80),
        ("http://a_b.xn--bcher-kva.example/", "a_b.xn--bcher-kva.example", 80),
        ("http://bücher.example/", "bücher.example", 80),
        ("http://[2606:4700:0::1111]:8080/", "2606:4700::1111", 8080),
        ("http://0x7f.example/", "0x7f.example", 80),
    ],
)
def test_plain_urls_pass(url, host, port):
    target = read_url(url)
    assert (target.host, target.port) == (host, port)


@given(st.text(min_size=1, max_size=12))
def test_errors_never_repeat_a_secret_in_a_url(secret):
    for url in (
        f"http://host\\/{secret}9f3c",
        f"ftp://host/{secret}9f3c",
        f"http://u@host/{secret}9f3c",
        "http://9f3c@host/",
        "http://u:9f3c@host/",
    ):
        with pytest.raises(NodeError) as caught:
            read_url(url)
        assert "9f3c" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost.", "a.localhost", "a.b.LocalHost.", "\uff4cocalhost"]
)
def test_names_of_the_own_host_are_refused_without_being_looked_up(host):
    with pytest.raises(AddressRefused):
        AddressGuard().check_host(read_url(f"http://{host}/").host)


def look(guard, host, *answers):
    asked = []

    async def ask(name, port):
        asked.append((name, port))
        return answers[min(len(asked), len(answers)) - 1]

    return anyio.run(guard.addresses, host, 443, ask), asked


def test_all_answers_are_checked_and_one_bad_one_refuses_the_lot():
    assert look(AddressGuard(), "good.example", ["8.8.8.8", "2606:4700::1"]) == (
        ("8.8.8.8", "2606:4700::1"),
        [("good.example", 443)],
    )
    for bad in ["127.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1%2", "not an address", "64:ff9b::a9fe:a9fe"]:
        with pytest.raises(AddressRefused) as caught:
            look(AddressGuard(), "mixed.example", ["8.8.8.8", bad, "2606:4700::1"])
        assert bad not in str(caught.value)


def test_a_name_is_looked_up_once_so_that_a_second_answer_does_not_matter():
    addresses, asked = look(AddressGuard(), "rebind.example", ["8.8.8.8"], ["127.0.0.1"])
    assert addresses == ("8.8.8.8",)
    assert len(asked) == 1


def test_mapped_answers_are_connected_to_as_what_they_are():
    assert look(AddressGuard(), "mapped.example", ["::ffff:8.8.8.8", "8.8.8.8"])[0] == ("8.8.8.8",)


def test_no_answer_is_an_error_of_the_network():
    with pytest.raises(OSError, match="no address"):
        look(AddressGuard(), "nothing.example", [])


def test_an_operator_allows_by_address_network_and_name():
    guard = AddressGuard(["127.0.0.1", "10.1.0.0/16", "fd00::/8", "[::1]", "Intranet.Example."])
    for host in ["127.0.0.1", "10.1.255.1", "fd12::1", "::1", "::ffff:10.1.0.1", "64:ff9b::10.1.0.1"]:
        assert guard.check_host(host) == ip_address(host)
    for host in ["127.0.0.2", "10.2.0.1", "fe80::1", "::ffff:10.2.0.1", "192.168.0.1"]:
        with pytest.raises(AddressRefused):
            guard.check_host(host)
    assert look(guard, "intranet.example", ["192.168.0.1"])[0] == ("192.168.0.1",)
    assert look(guard, "INTRANET.example.", ["192.168.0.1"])[0] == ("192.168.0.1",)
    with pytest.raises(AddressRefused):
        look(guard, "other.intranet.example", ["192.168.0.1"])


def test_the_own_host_by_name_goes_where_the_operator_allows_and_is_never_looked_up():
    assert look(AddressGuard(["127.0.0.1"]), "localhost", ["6.6.6.6"]) == (("127.0.0.1",), [])
    assert look(AddressGuard(["localhost"]), "localhost", ["6.6.6.6"]) == (("127.0.0.1", "::1"), [])


@pytest.mark.parametrize(
    "entry", ["10.0.0.1/8", "010.0.0.1", "2130706433", "300.1.1.1", "::1::", "a b", "", "http://x", "*"]
)
def test_an_operators_slip_is_an_error_and_not_a_rule_that_never_matches(entry):
    with pytest.raises(ValueError, match="allow"):
        AddressGuard([entry])
