"""``[cache]`` and ``[leases]``: what several processes and machines share beside the stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from angos.runtime.config.keys import Key, Section
from angos.runtime.config.kinds import TEXT, Flawed, Kind, NotAllowed

if TYPE_CHECKING:
    from angos.runtime.redis.address import RedisAddress


def _redis_url(value: object, _folder: Path) -> RedisAddress:
    from angos.runtime.redis.address import RedisUrlInvalid, parse_redis_url

    if not isinstance(value, str):
        raise NotAllowed('an address such as "rediss://:password@example.org"')
    try:
        return parse_redis_url(value)
    except RedisUrlInvalid as error:
        raise Flawed(str(error)) from None


REDIS_URL = Kind(
    "Redis address",
    _redis_url,
    {"type": "string", "pattern": "^[Rr][Ee][Dd][Ii][Ss][Ss]?://[^?#]+$"},
    secret=True,  # there may be a password in it
)

_PREFIX = "angos:"


def _redis(meaning: str, absent: str) -> Section:
    return Section(
        "",
        {
            "redis": Section(
                meaning,
                {
                    "url": Key(
                        REDIS_URL,
                        "`redis://[[user]:password@]host[:port][/database]`, with `rediss` for TLS; the system must"
                        " trust the certificate then. Only for servers on asyncio",
                        required=True,
                        restart=True,
                        example="rediss://:change-me@redis.example.org",
                    ),
                    "key_prefix": Key(
                        TEXT, "the beginning of all names in there; replicas share one", _PREFIX, restart=True
                    ),
                },
                absent,
            )
        },
    )


CACHE = _redis(
    "What identity providers and webhooks answered, for all replicas; see [run several"
    " replicas](../how-to/run-several-replicas.md). Who can write to it can let themselves in.",
    "each process remembers by itself",
)
LEASES = _redis(
    "Lets replicas wait for each other where two would do the same work; see [run several"
    " replicas](../how-to/run-several-replicas.md).",
    "requests wait for those of the same server only, which costs work at worst",
)
