"""Where a Redis is, as its URL says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from angos.runtime.client.url import UrlInvalid, parse_url
from angos.sansio.secret import Secret

_URL = re.compile(r"(redis|rediss)://(?:([^@/?#]*)@)?([^@/?#]+)(?:/([0-9]{0,5}))?", re.IGNORECASE)
DEFAULT_PORT = 6379


class RedisUrlInvalid(ValueError):
    """Not the address of a Redis. Says why, without the URL: there may be a password in it."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One server, one of its numbered databases, and who is to log in there."""

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    tls: bool = False
    """The certificate must be one that the system trusts, for this host."""
    username: str | None = None
    password: Secret | None = None

    def __str__(self) -> str:
        """Without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"


def parse_redis_url(text: str) -> RedisAddress:
    """``redis://[[user]:password@]host[:port][/database]``, with ``rediss`` for TLS.

    Raises `RedisUrlInvalid`; nothing is guessed, and options in a query are refused rather than ignored.
    """
    found = _URL.fullmatch(text)
    if found is None:
        raise RedisUrlInvalid(
            "an address is redis:// or rediss://, perhaps user:password@, a host, perhaps :port and /database; an @, /"
            " or ? in a password is percent-encoded, and there are no options behind a ?"
        )
    tls, userinfo, place = found[1].lower() == "rediss", found[2], found[3]
    username, colon, password = (userinfo or "").partition(":")
    if username and not colon:
        raise RedisUrlInvalid("what stands before the @ is user:password, or :password for a server without users")
    try:
        # The grammar of hosts is the same; a port that is not given is told by the colon that is not there.
        named = re.search(r":[0-9]+$", place) is not None
        url = parse_url(f"http://{place}{'' if named else f':{DEFAULT_PORT}'}")
    except UrlInvalid as error:
        raise RedisUrlInvalid(str(error)) from None
    return RedisAddress(
        url.host,
        url.port,
        int(found[4] or 0),
        tls,
        unquote(username) or None,
        Secret(unquote(password)) if password else None,
    )
