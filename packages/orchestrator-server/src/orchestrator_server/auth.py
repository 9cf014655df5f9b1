"""Who is calling, and what they may do: API keys, JSON Web Tokens, roles, and the tenants of a credential.

A credential decides which tenants a principal may act for. Nothing else of a request does: ``x-tenant-id`` only selects
among them (:func:`select_tenant`). A :class:`Principal` is passed to whoever needs it; there is no current one.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, get_args

import attrs
import jwt

from orchestrator_core.errors import OrchestratorError
from orchestrator_server.errors import Invalid
from orchestrator_server.records import Key, check_id
from orchestrator_server.storage import Keys

__all__ = [
    "ROLES",
    "Authenticator",
    "Forbidden",
    "JwtKey",
    "JwtSettings",
    "Principal",
    "Role",
    "TenantNeeded",
    "Unauthorized",
    "new_key",
    "select_tenant",
]

Role = Literal["viewer", "operator", "editor", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""From the least to the most: a viewer reads; an operator runs, cancels and signals executions; an editor changes workflows,
variables, secrets and schedules; an admin gives out keys."""

_LOG = logging.getLogger(__name__)
_LONGEST_LIFE = 36525 * 86400.0  # seconds; times far beyond it cannot be written
_KEY_PREFIX = "key_"
_LONGEST = 8192  # characters of a credential
_KEPT = 10_000
# What changes how a token is to be read, or says where its key is to be had, is refused. What else a header holds is ignored, as
# RFC 7515 says (4): the key and its algorithm are those of the settings, whatever it is.
_REFUSED_HEADERS = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c", "zip"})
_ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_SYMMETRIC = ("HS256", "HS384", "HS512")
# Compared with the hash of an unknown key, so that unknown and wrong take the same way.
_NOBODY = hashlib.sha256(b"").hexdigest()


class Unauthorized(OrchestratorError):  # noqa: N818 - named after the fact
    """There is no credential, or it does not hold. The text is the same whatever is wrong with it."""

    code = "unauthorized"


class Forbidden(OrchestratorError):  # noqa: N818 - as above
    """The credential holds, and does not allow this."""

    code = "forbidden"


class TenantNeeded(OrchestratorError):  # noqa: N818 - as above
    """The request does not say, or does not say clearly, for which tenant it is."""

    code = "tenant_required"


@attrs.frozen
class Principal:
    """Who is calling.

    Attributes:
        name: The key's id, or the token's subject: for logs and ``created_by``.
        role: What it may do, in every tenant that it may act for.
        tenants: The tenants it may act for; ``None``: all of them, and the system itself (an operator's key).
    """

    name: str
    role: Role
    tenants: frozenset[str] | None

    @property
    def system(self) -> bool:
        """Whether it acts for the operator of the server."""
        return self.tenants is None

    def has(self, role: Role) -> bool:
        """Whether its role is this one or more."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def may_act_for(self, tenant: str) -> bool:
        """Whether its credential allows a tenant."""
        return self.tenants is None or tenant in self.tenants


def select_tenant(principal: Principal, headers: Sequence[tuple[bytes, bytes]], *, needed: bool = True) -> str | None:
    """The tenant that a request is for, among those that its principal may act for.

    Args:
        principal: Who is calling.
        headers: All headers of the request, names in lower case, as ASGI has them.
        needed: Whether the request is for a tenant at all.

    Raises:
        TenantNeeded: The header is absent, stands there twice, or is no tenant's id.
        Forbidden: The credential does not allow this tenant, whether there is one of that name or not.
    """
    given = [value for name, value in headers if name == b"x-tenant-id"]
    # Some proxies and frameworks read `_` as `-`: whoever sends both means to confuse one of us.
    alike = [name for name, _ in headers if name != b"x-tenant-id" and name.replace(b"_", b"-") == b"x-tenant-id"]
    if alike or len(given) > 1:
        raise TenantNeeded("x-tenant-id stands in the request more than once: send it once")
    if not given:
        if needed:
            raise TenantNeeded("the header x-tenant-id is missing: say which tenant this is for")
        return None
    try:
        tenant = check_id(given[0].decode("ascii"))
    except (UnicodeDecodeError, Invalid):
        raise TenantNeeded("x-tenant-id is no tenant's id: 1 to 64 of the characters A-Z a-z 0-9 _ -") from None
    if not principal.may_act_for(tenant):
        raise Forbidden("this credential does not allow that tenant")
    return tenant


def _role(word: object) -> Role | None:
    known: Role
    for known in ROLES:
        if known == word:
            return known
    return None


# --- keys -------------------------------------------------------------------------------------------------------------


def expiry(now: float, seconds: float | None) -> float | None:
    """When what holds for so many seconds ends; ``None``: never.

    Raises:
        Invalid: It would hold for no time at all, or longer than a hundred years.
    """
    if seconds is None:
        return None
    if not 0 < seconds <= _LONGEST_LIFE:
        raise Invalid("a key holds for more than nothing, and for 36525 days at most")
    return now + seconds


def new_key(
    tenant: str | None, role: Role, *, name: str = "", now: float, expires_at: float | None = None
) -> tuple[Key, str]:
    """A new API key, and the credential that is shown once: its id, a dot, and a secret of 256 bits."""
    key_id = f"{_KEY_PREFIX}{secrets.token_hex(8)}"
    secret = secrets.token_urlsafe(32)
    key = Key(key_id, tenant, role, _hash(secret), name=name, created_at=now, expires_at=expires_at)
    return key, f"{key_id}.{secret}"


def _hash(secret: str) -> str:
    # The secret is random and 256 bits long: there is nothing that a slow hash would protect.
    return hashlib.sha256(secret.encode()).hexdigest()


# --- JSON Web Tokens ----------------------------------------------------------------------------------------------------


def _algorithm(_key: JwtKey, _attribute: object, algorithm: str) -> None:
    if algorithm not in (*_ASYMMETRIC, *_SYMMETRIC):
        raise Invalid(f"jwt: the algorithm {algorithm!r} is not offered: use one of {', '.join(_ASYMMETRIC)}")


def _key_text(key: JwtKey, _attribute: object, text: str) -> None:
    if key.algorithm in _SYMMETRIC and ("-----BEGIN" in text or len(text.encode()) < 32):
        raise Invalid("jwt: a shared secret is 32 bytes or more, and no public key")
    if key.algorithm in _ASYMMETRIC and "PRIVATE KEY" in text:
        raise Invalid("jwt: give the public key: the server has no use for the private one")


@attrs.frozen
class JwtKey:
    """A key that signs tokens, with the one algorithm it is used with. ``id`` is what their ``kid`` says."""

    id: str
    algorithm: str = attrs.field(validator=_algorithm)
    key: str = attrs.field(repr=False, validator=_key_text)


@attrs.frozen
class JwtSettings:
    """Whose tokens are accepted. They name a tenant (``tenant``: one or a list) and a role (``role``)."""

    issuer: str
    audience: str
    keys: tuple[JwtKey, ...]
    leeway: float = 30.0


def _token_principal(token: str, settings: JwtSettings) -> Principal:
    """The principal of a token.

    Raises:
        Unauthorized: It does not hold.
    """
    try:
        header = jwt.get_unverified_header(token)
        if refused := sorted(_REFUSED_HEADERS & header.keys()):
            raise _refused(f"its header has {', '.join(refused)}")
        key = _signing_key(header, settings.keys)
        claims = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway,
            options={"require": ["exp", "iss", "aud"]},
        )
    except jwt.PyJWTError as error:
        raise _refused(f"{error} ({type(error).__name__})") from None
    except (ValueError, TypeError, OverflowError) as error:
        # Its text may repeat what the token holds.
        raise _refused(f"it cannot be read ({type(error).__name__})") from None
    return _claimed(claims)


def _refused(reason: str) -> Unauthorized:
    """The error for a token. Why is only for the operator, who has to see to the settings or to whoever makes tokens."""
    _LOG.info("a token was refused: %s", reason)
    return Unauthorized(_NOT_VALID)


def _signing_key(header: Mapping[str, object], keys: Sequence[JwtKey]) -> JwtKey:
    """The key that the header names. An id is only ever compared, never part of a path or query."""
    wanted = header.get("kid")
    if wanted is None and len(keys) == 1:
        found = keys[0]
    else:
        matching = [key for key in keys if key.id == wanted]
        if len(matching) != 1:
            raise _refused(
                "its header has no kid" if wanted is None else f"there is no key with its kid {_short(wanted)}"
            )
        found = matching[0]
    if header.get("alg") != found.algorithm:
        raise _refused(f"its alg is {_short(header.get('alg'))}, that of the key {found.id!r} is {found.algorithm}")
    return found


def _short(value: object) -> str:
    return repr(value)[:80]


def _claimed(claims: Mapping[str, object]) -> Principal:
    tenant, role, subject = claims.get("tenant"), claims.get("role"), claims.get("sub", "")
    named: list[object] = tenant if isinstance(tenant, list) else [tenant]
    try:
        tenants = frozenset(check_id(item) for item in named if isinstance(item, str))
    except Invalid:
        raise _refused("its tenant is no id, or a list with something else than ids") from None
    if not tenants or len(tenants) < len(named):
        raise _refused("its tenant is missing, or no id and no list of different ids")
    found = _role(role)
    if found is None:
        raise _refused(f"its role is {_short(role)}, and none of {', '.join(ROLES)}")
    if not isinstance(subject, str):
        raise _refused("its sub is no text")
    return Principal(f"jwt:{subject[:128]}", found, tenants)


# --- both ---------------------------------------------------------------------------------------------------------------

_NOT_VALID = "the credential is missing or not valid: send `Authorization: Bearer` with an API key or a token"


class Authenticator:
    """Tells who a request is from.

    Args:
        keys: The stored keys.
        jwt: Whose tokens are accepted; ``None``: no tokens.
        kept: Seconds for which a key that was found is not looked up again: a revoked one works for so long at most.
        now: The time by which keys expire, in seconds since 1970.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        jwt: JwtSettings | None = None,
        kept: float = 2.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._jwt = jwt
        self._kept_for = kept
        self._now = now
        self._kept: dict[str, tuple[float, Key]] = {}

    async def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Principal:
        """The principal of a request.

        Args:
            headers: All its headers, names in lower case, as ASGI has them.

        Raises:
            Unauthorized: There is no credential, several, or one that does not hold.
            Unavailable: The keys cannot be read.
        """
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1 or len(given[0]) > _LONGEST:
            raise Unauthorized(_NOT_VALID)
        scheme, _, credential = given[0].decode("latin-1").partition(" ")
        credential = credential.strip(" ")
        if scheme.lower() != "bearer" or not credential.isascii():
            raise Unauthorized(_NOT_VALID)
        if credential.startswith(_KEY_PREFIX):
            return await self._key_principal(credential)
        if self._jwt is None:
            raise _refused("no tokens are accepted: `jwt` is not set")
        return _token_principal(credential, self._jwt)

    def forget(self, key_id: str) -> None:
        """A key was revoked here: it does not hold any more, from now on."""
        self._kept.pop(key_id, None)

    async def _key_principal(self, credential: str) -> Principal:
        key_id, _, secret = credential.partition(".")
        try:
            key = await self._find(check_id(key_id))
        except Invalid:
            key = None
        same = hmac.compare_digest(_hash(secret), key.hash if key is not None else _NOBODY)
        if key is None or not same or key.revoked_at is not None:
            raise Unauthorized(_NOT_VALID)
        if key.expires_at is not None and key.expires_at <= self._now():
            raise Unauthorized(_NOT_VALID)
        role = _role(key.role)
        if role is None:
            raise Unauthorized(_NOT_VALID)
        return Principal(key.id, role, None if key.tenant is None else frozenset([key.tenant]))

    async def _find(self, key_id: str) -> Key | None:
        now = time.monotonic()
        kept = self._kept.get(key_id)
        if kept is not None and now < kept[0]:
            return kept[1]
        key = await self._keys.get(key_id)
        if key is None:
            self._kept.pop(key_id, None)
            return None
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[key_id] = (now + self._kept_for, key)
        return key
