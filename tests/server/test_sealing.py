"""Secrets at rest: what is bound, what a swapped row shows, and rotation."""

from __future__ import annotations

import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_server.errors import Invalid
from orchestrator_server.memory import MemoryStorage
from orchestrator_server.records import Secret, Tenant
from orchestrator_server.sealing import Sealer, SealError, UnknownKey, load_keys, new_key, rotate

A, B = b"a" * 32, b"b" * 32
SEALER = Sealer({"old": A}, "old")


@given(st.text(), st.integers(1, 10**6))
def test_what_was_sealed_opens(text: str, version: int) -> None:
    secret = SEALER.seal("ann", "key", version, text)
    assert SEALER.open("ann", secret) == text
    assert (secret.name, secret.version, secret.key_id) == ("key", version, "old")


def test_the_ciphertext_shows_nothing_and_is_never_the_same() -> None:
    first, second = (SEALER.seal("ann", "key", 1, "hunter2") for _ in range(2))
    assert first.ciphertext != second.ciphertext
    assert b"hunter2" not in first.ciphertext
    assert "hunter2" not in repr(first)


SECRET = SEALER.seal("ann", "key", 1, "hunter2")


@pytest.mark.parametrize(
    "swapped",
    [
        attrs.evolve(SECRET, name="kez"),
        attrs.evolve(SECRET, version=2),
        attrs.evolve(SECRET, ciphertext=SEALER.seal("bob", "key", 1, "hunter3").ciphertext),
        attrs.evolve(SECRET, ciphertext=SEALER.seal("ann", "other", 1, "hunter3").ciphertext),
        attrs.evolve(SECRET, ciphertext=SECRET.ciphertext[:-1]),
        attrs.evolve(SECRET, ciphertext=SECRET.ciphertext + b"x"),
        attrs.evolve(SECRET, ciphertext=b"\x02" + SECRET.ciphertext[1:]),
        attrs.evolve(SECRET, ciphertext=b""),
    ],
)
def test_a_swapped_or_changed_row_does_not_open(swapped: Secret) -> None:
    with pytest.raises(SealError) as raised:
        SEALER.open("ann", swapped)
    assert "hunter" not in str(raised.value)
    assert raised.value.__context__ is None


def test_another_tenant_cannot_open_it() -> None:
    with pytest.raises(SealError):
        SEALER.open("bob", SECRET)


def test_names_and_tenants_do_not_run_into_each_other() -> None:
    secret = SEALER.seal("ann", "akey", 1, "x")
    with pytest.raises(SealError):
        SEALER.open("anna", attrs.evolve(secret, name="key"))


@given(st.integers(0), st.integers(1, 255))
def test_no_changed_byte_goes_unseen(place: int, change: int) -> None:
    data = bytearray(SECRET.ciphertext)
    data[place % len(data)] ^= change
    with pytest.raises(SealError):
        SEALER.open("ann", attrs.evolve(SECRET, ciphertext=bytes(data)))


def test_a_key_that_is_not_here_is_named() -> None:
    with pytest.raises(UnknownKey, match="'old'"):
        Sealer({"new": B}, "new").open("ann", SECRET)


@pytest.mark.anyio
async def test_rotation_can_be_stopped_at_any_row_and_begun_again() -> None:
    storage = MemoryStorage()
    await storage.tenants.create(Tenant("ann"))
    secrets = (await storage.store("ann")).secrets
    for number in range(5):
        await secrets.put(SEALER.seal("ann", f"s{number}", 1, f"text {number}"))
    both = Sealer({"old": A, "new": B}, "new")

    class Killed(Exception):
        pass

    real, left = secrets.replace, 2

    async def replace(secret: Secret) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        await real(secret)

    patched = pytest.MonkeyPatch()
    patched.setattr(type(secrets), "replace", lambda _, secret: replace(secret))
    with pytest.raises(Killed):
        await rotate(both, "ann", secrets)
    patched.undo()
    assert [both.open("ann", secret) for secret in await secrets.list()] == [f"text {n}" for n in range(5)]
    assert {secret.key_id for secret in await secrets.list()} == {"old", "new"}
    assert await rotate(both, "ann", secrets) == 3
    assert await rotate(both, "ann", secrets) == 0
    alone = Sealer({"new": B}, "new")
    assert [alone.open("ann", secret) for secret in await secrets.list()] == [f"text {n}" for n in range(5)]


def test_keys_are_read_from_text() -> None:
    text = f"# the new one\n{new_key('k2')}\n{new_key('k1')} , {new_key('k0')}\n"
    ring = load_keys(text)
    assert ring.current == "k2"
    assert list(ring.keys) == ["k2", "k1", "k0"]
    sealer = Sealer(ring.keys, ring.current)
    assert sealer.open("t", sealer.seal("t", "n", 1, "x")) == "x"
    assert str(ring.keys["k2"]) not in repr(ring)


def test_a_key_that_is_given_no_id_has_one_of_its_own() -> None:
    ids = [new_key().partition(":")[0] for _ in range(50)]
    assert len({*ids}) == 50
    assert re.fullmatch(r"k[0-9a-f]{8}", ids[0])


TWICE = "k:" + "A" * 43 + "="


@pytest.mark.parametrize("text", ["", "# none", "nothing", "k:", "k:!!!", "k:YWJj", f"{TWICE},{TWICE}", "ä:YWJj"])
def test_bad_keys_are_refused_without_showing_them(text: str) -> None:
    with pytest.raises(Invalid) as raised:
        load_keys(text)
    assert "YWJj" not in str(raised.value)


def test_a_sealer_needs_its_key() -> None:
    with pytest.raises(Invalid):
        Sealer({"k": A}, "other")
    with pytest.raises(Invalid):
        Sealer({"k": b"short"}, "k")
