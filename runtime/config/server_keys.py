"""``[server]`` and ``[observability]``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from angos.runtime.config.access_kinds import LISTEN, NAME
from angos.runtime.config.keys import Key, Named, Section
from angos.runtime.config.kinds import FILE, FLAG, SECONDS, SIZE, TEXT, Kind, one_of, whole
from angos.runtime.observability.settings import LEVELS
from angos.runtime.server.limits import RESTART_ONLY, ServerOptions

FIELDS = {"bind_address": "host"}
"""The fields of `ServerOptions` for keys of another name."""

_DEFAULTS: dict[str, Any] = {option.name: option.default for option in fields(ServerOptions)}


def size_text(size: int) -> str:
    """A number of bytes as a person would write it."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("GB", 10**9), ("MB", 10**6)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def server_key(key: str, kind: Kind, meaning: str, unset: str = "", example: object = None) -> Key:
    """A key that fills a field of `ServerOptions`."""
    name = FIELDS.get(key, key)
    default = _DEFAULTS[name]
    if kind is SIZE:
        default = size_text(default)
    elif isinstance(default, float) and default.is_integer():
        default = int(default)
    return Key(kind, meaning, default, unset, restart=name in RESTART_ONLY, example=example)


_TLS = Section(
    "Its presence switches TLS on, for which a restart is needed. Certificates that change are noticed and used for"
    " new connections. What cannot be used ends the start: nothing is ever served without TLS instead.",
    {
        "server_certificate_bundle": Key(
            FILE,
            "PEM: the certificate of the server, then those of its issuers",
            required=True,
            example="tls/server.pem",
        ),
        "server_private_key": Key(FILE, "PEM, not encrypted", required=True, example="tls/server.key"),
        "client_ca_bundle": Key(
            FILE,
            "PEM: who may sign certificates of clients",
            unset="clients are not asked for a certificate",
            example="tls/clients.pem",
        ),
        "client_auth": Key(
            one_of("optional", "required"),
            "whether a client without a certificate is let in; one with a certificate that is not trusted never is."
            " `required` needs `client_ca_bundle`",
            "optional",
        ),
    },
    absent="plain HTTP",
)

SERVER = Section(
    "How to listen, and what bounds clients. Every limit holds for each worker process.",
    {
        "bind_address": server_key(
            "bind_address", TEXT, 'a name or an IPv4 or IPv6 address; `""` listens on every address'
        ),
        "port": server_key("port", whole(0, 65535), "0 takes any free port"),
        "workers": server_key(
            "workers",
            whole(1, 1024),
            "processes that share the port; see [run several workers](../how-to/run-several-workers.md)",
        ),
        "backlog": server_key(
            "backlog", whole(1, 1 << 16), "connections that the system keeps until they are accepted"
        ),
        "head_parser": server_key(
            "head_parser",
            one_of("h11", "httptools"),
            "`httptools` is a parser in C that must be installed (`pip install httptools`)",
        ),
        "access_log": server_key("access_log", FLAG, "one line for each request"),
        "max_connections_per_client": server_key(
            "max_connections_per_client",
            whole(1),
            "of one address; further ones get 429. Trusted proxies are exempt",
            "no limit",
            example=100,
        ),
        "max_requests_per_second_per_client": server_key(
            "max_requests_per_second_per_client",
            whole(1),
            "of one address, in the long run; further ones get 429. Behind a trusted proxy the address that it names"
            " counts",
            "no limit",
            example=50,
        ),
        "max_request_burst_per_client": server_key(
            "max_request_burst_per_client", whole(1), "how many requests a client that was quiet may send at once"
        ),
        "queue_timeout": server_key(
            "queue_timeout",
            SECONDS,
            "how long a request waits when `global.max_concurrent_requests` are being worked on, before it gets 503",
        ),
        "query_timeout": server_key(
            "query_timeout",
            SECONDS,
            "for one request in all, from the end of its head; then it is given up with 503. An answer that is being"
            " sent may go on for `query_timeout_grace_period`",
        ),
        "query_timeout_grace_period": server_key(
            "query_timeout_grace_period", SECONDS, "after `query_timeout`; then the connection is cut"
        ),
        "handshake_timeout": Key(SECONDS, "of TLS, from the connection to the end of the handshake", 10),
        "head_timeout": server_key("head_timeout", SECONDS, "from the first byte of a head to its last"),
        "idle_timeout": server_key("idle_timeout", SECONDS, "between requests"),
        "body_stall_timeout": server_key("body_stall_timeout", SECONDS, "without any byte of a body"),
        "send_stall_timeout": server_key(
            "send_stall_timeout", SECONDS, "without any byte taken by a client that an answer is sent to"
        ),
        "drain_seconds": server_key("drain_seconds", SECONDS, "how long requests in flight may go on after SIGTERM"),
        "head_size_max": server_key(
            "head_size_max", SIZE, "request line and header fields together; a longer head gets 431"
        ),
        "request_line_size_max": server_key("request_line_size_max", SIZE, "a longer request line gets 414"),
        "fields_max": server_key("fields_max", whole(1, 65536), "header fields of one request; more get 431"),
        "unread_size_max": server_key(
            "unread_size_max", SIZE, "how much of a body that was not wanted is skipped to keep the connection"
        ),
        "linger_seconds": server_key(
            "linger_seconds", SECONDS, "how long a client that still sends is listened to after the last answer"
        ),
        "linger_size_max": server_key("linger_size_max", SIZE, "how much it may send in that time"),
        "sweep_seconds": server_key(
            "sweep_seconds", SECONDS, "how often overdue connections are looked for, so how late a timeout may strike"
        ),
        "connections_max": server_key(
            "connections_max",
            whole(1),
            "connections of all clients together; further ones get 503",
            "three quarters of the open files that the system allows",
            example=10000,
        ),
        "transfer_threads": server_key("transfer_threads", whole(1, 1024), "threads that move large bodies"),
        "tls": _TLS,
    },
)

_LEVEL = one_of(*LEVELS)

OBSERVABILITY = Section(
    "",
    {
        "metrics": Section(
            "For Prometheus.",
            {
                "enabled": Key(FLAG, "count, and answer `/metrics`", False, restart=True),
                "listen": Key(
                    LISTEN,
                    "an address for metrics alone",
                    unset="`/metrics` beside the registry, for everybody who reaches it",
                    restart=True,
                    example="127.0.0.1:9090",
                ),
            },
        ),
        "log": Section(
            "On standard error.",
            {
                "level": Key(_LEVEL, "the least urgent lines that are written", "info"),
                "format": Key(one_of("text", "json"), "for people, or one JSON object in each line", "text"),
                "modules": Named(
                    "Other levels for parts of the registry.",
                    NAME,
                    "<logger>",
                    Key(
                        _LEVEL,
                        'the level of one logger, its name in quotes: `"angos.access"`',
                        unset="that of `level`",
                        example="debug",
                    ),
                    {"angos.access": ()},
                ),
            },
        ),
    },
)
