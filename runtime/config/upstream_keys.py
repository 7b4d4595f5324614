"""``[[repository."<namespace>".upstream]]`` and what belongs to it: how a repository is a cache of other registries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from angos.runtime.config.access_kinds import NAME, NETWORK, URL
from angos.runtime.config.keys import Key, Section, Tables
from angos.runtime.config.kinds import (
    FILE,
    SECONDS,
    SECONDS_OR_ZERO,
    SIZE,
    SOME_TEXT,
    Flawed,
    Kind,
    NotAllowed,
    list_of,
    secret,
    whole,
)
from angos.sansio.errors import Invalid
from angos.sansio.oci.reference import parse_namespace
from angos.sansio.upstream.config import CacheConfig

if TYPE_CHECKING:
    from angos.runtime.client.url import Url
    from angos.runtime.config.file import Problem
    from angos.runtime.config.reading import Values

DOCKER_HUB = "registry-1.docker.io"
DOCKER_HUB_REALM = "https://auth.docker.io"
_HUB_IS_NOT_AT = frozenset({"docker.io", "hub.docker.com", "index.docker.io", "registry.hub.docker.com"})

_DEFAULTS = CacheConfig()

# --- values -----------------------------------------------------------------------------------------------------------


def _upstream_url(value: object, folder: Path) -> Url:
    from angos.runtime.client.url import parse_url

    text = URL.read(value, folder)
    url = parse_url(text)
    if "?" in text:
        raise Flawed("the address of a registry has no query")
    if url.host in _HUB_IS_NOT_AT:
        raise Flawed(f'the registry of Docker Hub is at "https://{DOCKER_HUB}"')
    path = url.target.strip("/")
    if path == "v2" or path.startswith("v2/"):
        raise Flawed("leave out /v2: what follows the host is where names begin at the upstream")
    if path:
        try:
            parse_namespace(path)
        except Invalid:
            raise Flawed("what follows the host is where names begin at the upstream, such as /library") from None
    return url


def _origin(value: object, folder: Path) -> str:
    from angos.runtime.client.url import parse_url

    url = parse_url(URL.read(value, folder))
    if url.target != "/":
        raise Flawed("it is a scheme and a host, such as https://auth.example.org, without a path")
    return url.origin


_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[0-9]{1,5})?")


def _host(value: object, _folder: Path) -> str:
    if isinstance(value, str) and _HOST.fullmatch(value.lower()):
        return value.lower()
    raise NotAllowed('a host as clients name it, such as "docker.io" or "registry.example.org:5000"')


UPSTREAM_URL = Kind(
    "address", _upstream_url, {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^@#?]+$"}, masked=URL.masked
)
ORIGIN = Kind("address", _origin, {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^@#?/]+/?$"})
HOST = Kind("host", _host, {"type": "string", "pattern": "^[A-Za-z0-9.-]+(:[0-9]{1,5})?$"})

# --- keys -------------------------------------------------------------------------------------------------------------

UPSTREAM = Tables(
    Section(
        "A registry that content comes from which is not here; see [mirror Docker Hub](../how-to/mirror-docker-hub.md)."
        " When there are several they are asked in this order, and one that fails is left alone for a while. Nothing"
        " can be pushed into such a repository.",
        {
            "url": Key(
                UPSTREAM_URL,
                "scheme and host; a path is where names begin there: `https://registry.example.org/team` makes"
                " `<namespace>/app` the upstream's `team/app`",
                required=True,
                example="https://registry-1.docker.io",
            ),
            "username": Key(
                NAME,
                "with `password`: who asks. It is shown to the upstream and to its token server only",
                unset="it is asked anonymously",
                example="mirror",
            ),
            "password": Key(
                secret(SOME_TEXT), "or a token made for this purpose", unset="as above", example="change-me"
            ),
            "token_realms": Key(
                list_of(ORIGIN, "addresses"),
                "token servers that may be shown the password, beside the upstream itself and, for Docker Hub,"
                f" `{DOCKER_HUB_REALM}`",
                [],
                example=["https://auth.example.org"],
            ),
            "private_networks": Key(
                list_of(NETWORK, "networks"),
                "networks and addresses, not of the Internet, where the upstream, its token server and what it"
                " redirects to may be. An IP address or `localhost` in `url` is allowed without being listed",
                [],
                example=["10.0.0.0/8"],
            ),
            "max_redirect": Key(whole(0, 20), "redirects that are followed for one request", 5),
            "connect_timeout_secs": Key(SECONDS, "until there is a connection, TLS included", 10),
            "read_timeout_secs": Key(
                SECONDS,
                "the longest silence while a blob comes, and the time for every other answer as a whole",
                60,
            ),
            "server_ca_bundle": Key(
                FILE,
                "PEM: who is trusted to sign its certificate",
                unset="what the system trusts",
                example="tls/internal-ca.pem",
            ),
            "client_certificate": Key(
                FILE,
                "PEM: the certificate that is shown to the upstream, and to nobody else; with `client_private_key`",
                unset="none is shown",
                example="tls/registry.pem",
            ),
            "client_private_key": Key(FILE, "PEM, not encrypted", unset="as above", example="tls/registry.key"),
        },
    )
)

CACHE_OF_UPSTREAMS = Section(
    "How content of upstreams is kept. What is named by a digest, or by an immutable tag, never changes and is not"
    " asked for again.",
    {
        "fresh_secs": Key(
            SECONDS_OR_ZERO,
            "a tag is compared with the upstream's no more often",
            int(_DEFAULTS.fresh_seconds),
        ),
        "stale_secs": Key(
            SECONDS_OR_ZERO,
            "for so long after the last comparison a tag is served, with a `Warning`, when no upstream can be asked;"
            " 0: never",
            int(_DEFAULTS.stale_seconds),
        ),
        "missing_secs": Key(
            SECONDS_OR_ZERO, "what no upstream has is not asked for again for so long", int(_DEFAULTS.missing_seconds)
        ),
        "max_size": Key(
            SIZE,
            "when the repository holds more, what was not pulled for longest is"
            " [evicted](../how-to/mirror-docker-hub.md#keep-it-small)",
            unset="there is no limit",
            example="200GiB",
        ),
        "keep_percent": Key(
            whole(1, 100),
            "so much of `max_size` is left after that, so that it does not happen all the time",
            _DEFAULTS.kept_percent,
        ),
    },
    "these defaults hold",
)

MIRROR_OF = Key(
    HOST,
    "the host that this is a mirror of: pulls with `?ns=<host>`, as containerd sends them, are meant for this"
    " repository",
    unset="such pulls are for the name that they ask for",
    example="docker.io",
)

# --- what must be right between them ----------------------------------------------------------------------------------


def check_upstreams(repositories: Iterable[Values]) -> Iterator[Problem]:
    """Problems of repositories with upstreams, and of mirrors."""
    hosts: dict[str, Values] = {}
    for repository in repositories:
        host = repository.get("namespace")
        if host is not None and host in hosts:
            yield repository.problem("namespace", f"{host} is mirrored by {hosts[host].path('namespace')} already")
        hosts.setdefault(host, repository)
        if repository.has("cache") and not repository.has("upstream"):
            yield repository.problem("cache", "counts with [[upstream]] tables only; leave it out")
        if (cache := repository.table("cache")).has("keep_percent") and not cache.has("max_size"):
            yield cache.problem("keep_percent", "needs max_size beside it")
        if repository.has("upstream") and "upstream" in repository.entries and not repository.several("upstream"):
            yield repository.problem("upstream", "is an empty list; leave it out, or name a registry")
        for upstream in repository.several("upstream"):
            yield from _check_upstream(upstream)


def _check_upstream(upstream: Values) -> Iterator[Problem]:
    for first, second in (("username", "password"), ("client_certificate", "client_private_key")):
        for key, mate in ((first, second), (second, first)):
            if upstream.has(key) and not upstream.has(mate):
                yield upstream.problem(key, f"needs {mate} beside it")
                return
    if upstream.get("token_realms") and not upstream.has("username"):
        message = "there is no password to show; leave it out, or give username and password"
        yield upstream.problem("token_realms", message)
    files = {key: upstream.get(key) for key in ("server_ca_bundle", "client_certificate", "client_private_key")}
    if not any(files.values()) or any(path is None and upstream.has(key) for key, path in files.items()):
        return
    from angos.runtime.access.settings import ClientTls
    from angos.runtime.client.trust import ClientTlsUnusable, client_context

    try:
        client_context(ClientTls(*files.values()))
    except ClientTlsUnusable as error:
        yield upstream.problem_of_table(str(error).replace("client_certificate_bundle", "client_certificate"))
