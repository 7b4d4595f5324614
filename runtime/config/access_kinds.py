"""What the values of keys about access may be: names, addresses, networks, rules, hashes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from angos.runtime.config.kinds import Flawed, Kind, NotAllowed, Unusable
from angos.sansio.errors import Invalid
from angos.sansio.oci.reference import parse_namespace

if TYPE_CHECKING:
    from angos.sansio.access.expression import Expression

NAME_LENGTH_MAX = 128
PATTERN_LENGTH_MAX = 1000


def _is_name(value: object) -> bool:
    # A user name of the Basic scheme cannot have a colon (RFC 7617 section 2), and a provider's name is used as one.
    return (
        isinstance(value, str)
        and 0 < len(value) <= NAME_LENGTH_MAX
        and value.isprintable()
        and value == value.strip()
        and ":" not in value
    )


_NAME_ALLOWED = f"a name of 1 to {NAME_LENGTH_MAX} characters, without colons and without blanks at its ends"


def _name(value: str, _folder: Path) -> str:
    if _is_name(value):
        return value
    raise NotAllowed(_NAME_ALLOWED)


def _name_or_nothing(value: str, _folder: Path) -> str:
    if value == "" or _is_name(value):
        return value
    raise NotAllowed(f'"" for none, or {_NAME_ALLOWED}')


def _namespace(value: str, _folder: Path) -> str:
    try:
        return parse_namespace(value)
    except Invalid as error:
        raise Flawed(str(error)) from None


_NAME_JSON = {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX, "pattern": "^[^:]*$"}
NAME = Kind("name", _name, _NAME_JSON)
NAME_OR_NOTHING = Kind("name", _name_or_nothing, {"type": "string", "maxLength": NAME_LENGTH_MAX, "pattern": "^[^:]*$"})
NAMESPACE = Kind("namespace", _namespace, {"type": "string", "pattern": "^[a-z0-9]+([._/-]+[a-z0-9]+)*$"})


# --- addresses --------------------------------------------------------------------------------------------------------


def _masked_url(text: str) -> str:
    """Without what could be a password or a token: what stands before an ``@``, and the query."""
    before, at, after = text.rpartition("@")
    scheme = before.partition("//")[0]
    shown = f"{scheme if len(scheme) < len(before) else ''}//***@{after}" if at else text
    address, mark, _ = shown.partition("?")
    return f"{address}?***" if mark else address


def _url(value: object, _folder: Path) -> str:
    from angos.runtime.client.url import UrlInvalid, parse_url

    if not isinstance(value, str):
        raise NotAllowed('an address such as "https://example.org/path"')
    try:
        parse_url(value)
    except UrlInvalid as error:
        raise Flawed(str(error)) from None
    return value


def _issuer(value: object, folder: Path) -> str:
    url = _url(value, folder)
    if "?" in url:
        raise Flawed("an issuer has no query (OpenID Connect Discovery 1.0 section 3)")
    return url


def _realm(value: object, folder: Path) -> str:
    url = _url(value, folder)
    if "?" in url or not urlsplit(url).path.endswith("/token"):
        raise Flawed("clients ask for tokens at /token: the path of the address must end with it, without a query")
    return url


_URL_JSON = {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^@#]+$"}
URL = Kind("address", _url, _URL_JSON, masked=_masked_url)
ISSUER = Kind("address", _issuer, _URL_JSON, masked=_masked_url)
REALM = Kind(
    "address", _realm, {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^@#?]+/token$"}, masked=_masked_url
)


def _network(value: object, _folder: Path) -> str:
    from ipaddress import ip_network

    if isinstance(value, str):
        try:
            return str(ip_network(value, strict=False))
        except ValueError:
            pass
    raise NotAllowed('an IP address or a network, such as "10.0.0.0/8" or "2001:db8::/32"')


NETWORK = Kind("network", _network, {"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9.]+)?$"})


def _listen(value: object, _folder: Path) -> str:
    from angos.runtime.observability.settings import parse_listen

    try:
        if isinstance(value, str):
            parse_listen(value)
            return value
    except ValueError:
        pass
    raise NotAllowed('an address and a port, such as "127.0.0.1:9090" or "[::1]:9090"')


LISTEN = Kind("address and port", _listen, {"type": "string", "pattern": ":[0-9]{1,5}$"})


# --- HTTP -------------------------------------------------------------------------------------------------------------

_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_TOLD_ANYHOW = re.compile(r"x-registry-.*|x-forwarded-(?:method|proto|host|uri|for)")


def _forwarded_field(value: object, _folder: Path) -> str:
    from angos.runtime.access.webhooks import NOT_FORWARDED

    if not isinstance(value, str) or not _FIELD.fullmatch(value):
        raise NotAllowed('the name of a header field, such as "X-Request-ID"')
    name = value.lower()
    if name in NOT_FORWARDED:
        raise Flawed("it is about one connection and cannot be passed on")
    if _TOLD_ANYHOW.fullmatch(name):
        raise Flawed("the registry fills it itself, and a client's own must not look like that")
    return name


FORWARDED_FIELD = Kind("header name", _forwarded_field, {"type": "string", "pattern": f"^{_FIELD.pattern}$"})

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1


def _bearer(value: object, _folder: Path) -> str:
    if isinstance(value, str) and _BEARER.fullmatch(value):
        return value
    raise NotAllowed("a token of letters, digits and -._~+/ with = at its end only (RFC 6750)")


BEARER = Kind("text", _bearer, {"type": "string", "pattern": f"^{_BEARER.pattern}$"}, secret=True)


# --- secrets ----------------------------------------------------------------------------------------------------------


def _phc(value: object, _folder: Path) -> str:
    from angos.runtime.access.phc import check_phc

    if not isinstance(value, str):
        raise NotAllowed("an Argon2 hash, as angos argon makes it")
    problem = check_phc(value)
    if problem is not None:
        raise Flawed(problem)
    return value


PHC = Kind("Argon2 hash", _phc, {"type": "string", "pattern": "^\\$argon2(id|i|d)\\$"}, secret=True)


def _token_secret(value: object, _folder: Path) -> str:
    from angos.runtime.access.tokens import check_token_secret

    if not isinstance(value, str):
        raise NotAllowed("base64 of at least 32 bytes, as openssl rand -base64 32 makes it")
    problem = check_token_secret(value)
    if problem is not None:
        raise Flawed(problem)
    return value


TOKEN_SECRET = Kind("base64", _token_secret, {"type": "string", "minLength": 43}, secret=True)


# --- expressions ------------------------------------------------------------------------------------------------------

VARIABLES = {
    "identity": {
        "id": None,
        "username": None,
        "certificate": {"organizations": None, "common_names": None},
        "oidc": {"provider_name": None, "claims": None},
        "client_ip": None,
    },
    "request": (
        "action",
        "namespace",
        "digest",
        "reference",
        "tags",
        "session_id",
        "from",
        "n",
        "last",
        "artifact_type",
        "digest_algorithm",
    ),
}
"""What rules may name: `Identity.variables` and `Action.variables` of the core."""


def _rule(value: object, _folder: Path) -> tuple[str, Expression]:
    if not isinstance(value, str):
        raise NotAllowed("""a rule such as 'identity.username == "alice"'""")
    from angos.runtime.config.cel import BadRule, parse_rule

    try:
        return value, parse_rule(value, variables=VARIABLES, functions={"has_repository_policy": 0})
    except BadRule as error:
        raise Unusable(str(error)) from None


RULE = Kind("rule", _rule, {"type": "string", "minLength": 1})


def _pattern(value: object, _folder: Path) -> str:
    if not isinstance(value, str) or not value:
        raise NotAllowed('a regular expression, such as "^latest$"')
    if len(value) > PATTERN_LENGTH_MAX:
        raise Flawed(f"it has {len(value)} characters, {PATTERN_LENGTH_MAX} are allowed")
    from angos.runtime.config.cel_patterns import problem_of_pattern

    if (problem := problem_of_pattern(value)) is not None:
        raise Flawed(f"it is no regular expression in RE2 syntax: {problem}")
    return value


PATTERN = Kind("regular expression", _pattern, {"type": "string", "minLength": 1, "maxLength": PATTERN_LENGTH_MAX})
