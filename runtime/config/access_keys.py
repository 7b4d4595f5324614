"""``[global]``, ``[auth]`` and ``[repository]``."""

from __future__ import annotations

from angos.runtime.access.keys import ALGORITHMS
from angos.runtime.config.access_kinds import (
    BEARER,
    FORWARDED_FIELD,
    ISSUER,
    NAME,
    NAME_OR_NOTHING,
    NAMESPACE,
    NETWORK,
    PATTERN,
    PHC,
    REALM,
    RULE,
    TOKEN_SECRET,
    URL,
)
from angos.runtime.config.keys import Key, Named, Section
from angos.runtime.config.kinds import (
    FILE,
    FLAG,
    SECONDS,
    SECONDS_OR_ZERO,
    SIZE,
    SOME_TEXT,
    list_of,
    one_of,
    secret,
    whole,
)
from angos.runtime.config.retention_keys import GLOBAL_RETENTION, REPOSITORY_RETENTION
from angos.runtime.config.server_keys import server_key, size_text
from angos.runtime.config.upstream_keys import CACHE_OF_UPSTREAMS, MIRROR_OF, UPSTREAM
from angos.sansio.config import RegistryConfig

_DEFAULTS = RegistryConfig()

_EXAMPLE_HASH = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5a25vd3NpdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""No password that anybody knows has it."""


def _policy(meaning: str, rule: str, absent: str) -> Section:
    return Section(
        meaning,
        {
            "default": Key(
                one_of("deny", "allow"),
                "what happens when no rule is true. `deny`: a request is allowed when a rule is true. `allow`: it is"
                " denied when a rule is true or fails",
                "deny",
            ),
            "rules": Key(
                list_of(RULE, "rules"),
                "expressions of CEL over `identity` and `request`; the first that is true decides",
                [],
                example=[rule],
            ),
        },
        absent,
    )


_IMMUTABLE = "a tag, once pushed, keeps its manifest until it is deleted"

GLOBAL = Section(
    "What holds for every repository.",
    {
        "max_manifest_size": Key(SIZE, "a larger manifest gets 413", size_text(_DEFAULTS.manifest_size_max)),
        "max_blob_size": Key(SIZE, "a larger blob gets 413", size_text(_DEFAULTS.blob_size_max)),
        "max_concurrent_requests": server_key(
            "max_concurrent_requests",
            whole(1),
            "requests that each worker works on at the same time, without those that wait for their body, a password "
            "check, a webhook or an identity provider; further ones wait up to `server.queue_timeout`",
        ),
        "max_concurrent_cache_jobs": Key(
            whole(1, 1024),
            "blobs that each worker fetches from upstreams and stores at the same time; further ones are passed on to"
            " clients without being stored when none of these ends soon",
            _DEFAULTS.fills_max,
        ),
        "allow_missing_manifest_references": Key(
            FLAG,
            "accept manifests whose blobs or children are not there yet; `false` answers 400",
            _DEFAULTS.allow_missing_manifest_references,
        ),
        "enable_blob_redirect": Key(
            FLAG,
            "with blobs in a bucket, clients that GET a blob are sent there for it with a signed URL; they must be able"
            " to reach `blob_store.s3.endpoint`",
            True,
        ),
        "enable_manifest_redirect": Key(FLAG, "the same for manifests", True),
        "tag_history_secs": Key(
            SECONDS_OR_ZERO,
            "seconds during which a tag can be set back to a manifest that was deleted; what that takes is not"
            " collected. A manifest that was not deleted can be restored at any time",
            0,
        ),
        "update_pull_time": Key(
            FLAG,
            "record when tags and manifests are pulled, for rules of [retention](retention.md) that ask for it",
            _DEFAULTS.update_pull_time,
        ),
        "pull_time_granularity_secs": Key(
            SECONDS,
            "how exact these times are: a pull is recorded as of the last full multiple of this, and each tag or"
            " manifest is written once in so long by each process at most",
            3600,
        ),
        "gc_grace_secs": Key(
            SECONDS,
            "seconds during which the [collector](../how-to/get-space-back.md) leaves alone what was pushed, looked at"
            " or deleted; a push should take less than a quarter of it. The same for all processes that share a store",
            86_400,
        ),
        "gc_interval_secs": Key(
            SECONDS_OR_ZERO,
            "seconds between two runs of the collector in this server, whose first one begins within ten minutes of its"
            " start; 0: it does not run there, only as `angos gc`",
            3600,
        ),
        "eviction_interval_secs": Key(
            SECONDS_OR_ZERO,
            "seconds between two looks of this server at how large the caches are that have a `max_size`; 0: it does"
            " not look, only `angos evict` does",
            600,
        ),
        "upload_expiry_secs": Key(
            SECONDS,
            "seconds after which the collector removes an upload that nobody continues",
            86_400,
        ),
        "immutable_tags": Key(FLAG, _IMMUTABLE, False),
        "immutable_tags_exclusions": Key(
            list_of(PATTERN, "regular expressions"),
            "tags that can change all the same: regular expressions, found anywhere in a tag",
            [],
            example=["^latest$", "^nightly-"],
        ),
        "trusted_proxies": Key(
            list_of(NETWORK, "networks"),
            "networks whose `X-Forwarded-For`, `X-Real-IP` and `X-Forwarded-Proto` are believed",
            [],
            example=["10.0.0.0/8"],
        ),
        "authorization_webhook": Key(
            NAME,
            "the webhook of `[auth.webhook]` that is asked about each request, unless its repository names another",
            unset="none is asked",
            example="gate",
        ),
        "access_policy": _policy(
            "Every request must be allowed by it; see [policies](policies.md).",
            'request.action.startsWith("get-") || identity.username == "alice"',
            "everything is allowed, unless there is `[auth]`, a webhook or a policy of a repository: then nothing is",
        ),
        "retention_policy": GLOBAL_RETENTION,
    },
)

_IDENTITY = Named(
    "A user with a password. The id is what rules see as `identity.id`.",
    NAME,
    "<id>",
    Section(
        "A user with a password. The id is what rules see as `identity.id`.",
        {
            "username": Key(NAME, "what the user logs in with", required=True, example="alice"),
            "password": Key(PHC, "the hash that `angos argon` prints", required=True, example=_EXAMPLE_HASH),
        },
    ),
    {"alice": ()},
)

_CLIENT_TLS = {
    "server_ca_bundle": Key(
        FILE,
        "PEM: who is trusted to sign its certificate",
        unset="what the system trusts",
        example="tls/internal-ca.pem",
    ),
    "client_certificate_bundle": Key(
        FILE,
        "PEM: the certificate that the registry shows; with `client_private_key`",
        unset="none is shown",
        example="tls/registry.pem",
    ),
    "client_private_key": Key(
        FILE, "PEM, not encrypted; with `client_certificate_bundle`", unset="none", example="tls/registry.key"
    ),
}

_OIDC_MEANING = (
    "An issuer of JSON Web Tokens. A token counts as a Bearer token, or as the password of a user of this name, as"
    " `docker login` passes it on."
)
_OIDC = Named(
    _OIDC_MEANING,
    NAME,
    "<name>",
    Section(
        _OIDC_MEANING,
        {
            "issuer": Key(
                ISSUER,
                "exactly as tokens spell it",
                required=True,
                example="https://token.actions.githubusercontent.com",
            ),
            "jwks_uri": Key(
                URL,
                "where its keys are",
                unset="discovered from the issuer",
                example="https://token.actions.githubusercontent.com/.well-known/jwks",
            ),
            "jwks_refresh_interval": Key(
                SECONDS, "how long keys and discovery documents are used before they are fetched again", 3600
            ),
            "required_audience": Key(
                SOME_TEXT,
                "must be among the audiences of a token",
                unset="every audience is accepted, tokens meant for other services included",
                example="registry.example.org",
            ),
            "clock_skew_tolerance": Key(SECONDS_OR_ZERO, "how far its clock and ours may be apart", 60),
            "allowed_algorithms": Key(
                list_of(one_of(*ALGORITHMS), "algorithms", items_min=1),
                f"what tokens may be signed with: {', '.join(ALGORITHMS)}",
                ["RS256"],
            ),
            "required_claims": Key(
                list_of(SOME_TEXT, "names"),
                "claims that a token must have, and not as null",
                [],
                example=["repository", "actor"],
            ),
            "http_request_timeout_secs": Key(SECONDS, "for one document", 30),
            "bearer_token_file": Key(
                FILE,
                "holds a token that its documents are asked for with; read anew each time, and sent to the host of the"
                " issuer only",
                unset="they are asked for without",
                example="tokens/issuer",
            ),
            **_CLIENT_TLS,
        },
    ),
    {"github": ()},
)

_BASIC_AUTH = Section(
    "What the webhook is asked with, instead of `bearer_token`.",
    {
        "username": Key(NAME, "the name", required=True, example="registry"),
        "password": Key(secret(SOME_TEXT), "the password", required=True, example="change-me"),
    },
    "`bearer_token` is used, if there is one",
)

_WEBHOOK_MEANING = (
    "A service that is asked whether a request is allowed: 2xx allows, all else denies, no answer included."
)
_WEBHOOK = Named(
    _WEBHOOK_MEANING,
    NAME,
    "<name>",
    Section(
        _WEBHOOK_MEANING,
        {
            "url": Key(URL, "asked with GET", required=True, example="https://gate.example.org/angos"),
            "timeout_ms": Key(whole(1, 600_000), "milliseconds for the whole answer", required=True, example=500),
            "cache_ttl": Key(SECONDS_OR_ZERO, "how long an answer of 2xx, 401 or 403 is remembered; 0: not at all", 60),
            "forward_headers": Key(
                list_of(FORWARDED_FIELD, "header names"),
                "fields of the client's request that are passed on",
                [],
                example=["X-Request-ID"],
            ),
            "bearer_token": Key(BEARER, "what it is asked with", unset="nothing", example="change-me"),
            **_CLIENT_TLS,
            "basic_auth": _BASIC_AUTH,
        },
    ),
    {
        "gate": (
            "url",
            "timeout_ms",
            "cache_ttl",
            "forward_headers",
            "bearer_token",
            *_CLIENT_TLS,
        ),
        "audit": ("url", "timeout_ms", "basic_auth"),
    },
)

_TOKEN_SERVICE = Section(
    "Tokens of the registry itself at `/token`, anonymous ones included: so docker and podman can pull without a login"
    " and push with one.",
    {
        "enabled": Key(
            FLAG,
            "whether there is one",
            unset="there is, when this table, a user or an identity provider is configured",
            example=True,
        ),
        "secret_key": Key(
            TOKEN_SECRET,
            "what tokens are signed with: base64 of at least 32 bytes, as `openssl rand -base64 32` makes it. Several"
            " machines that serve one registry need the same one",
            unset="a random one for each start",
        ),
        "realm": Key(
            REALM,
            "the address of `/token` as clients reach it",
            unset="made from the host that a client asks for",
            example="https://registry.example.org/token",
        ),
        "ttl_secs": Key(whole(1, 86_400), "how long a token is good for, in seconds", 3600),
    },
    "there is one when a user or an identity provider is configured",
)

AUTH = Section(
    "Who is who. Client certificates, tokens and passwords are tried in this order, and add up.",
    {
        "invalid_credentials": Key(
            one_of("pass", "reject"),
            "`pass`: credentials that nothing accepts count as none. `reject`: they end the request with 401",
            "pass",
        ),
        "identity": _IDENTITY,
        "oidc": _OIDC,
        "token_service": _TOKEN_SERVICE,
        "webhook": _WEBHOOK,
    },
)

_REPOSITORY_MEANING = "What holds for a namespace and everything below it, besides `[global]`."
REPOSITORY = Named(
    _REPOSITORY_MEANING,
    NAMESPACE,
    '"<namespace>"',
    Section(
        _REPOSITORY_MEANING,
        {
            "immutable_tags": Key(FLAG, f"{_IMMUTABLE}; `false` does not undo `global.immutable_tags`", False),
            "immutable_tags_exclusions": Key(
                list_of(PATTERN, "regular expressions"),
                "when there are any, those of `[global]` do not count here",
                [],
                example=["^latest$"],
            ),
            "authorization_webhook": Key(
                NAME_OR_NOTHING,
                'asked instead of `global.authorization_webhook`; `""`: none is',
                unset="the global one is asked",
                example="audit",
            ),
            "access_policy": _policy(
                "Must allow what the global policy has allowed already. Its presence counts: without rules it denies.",
                'identity.id != null || request.action in ["get-manifest", "get-blob"]',
                "the global policy alone decides",
            ),
            "retention_policy": REPOSITORY_RETENTION,
            "namespace": MIRROR_OF,
            "cache": CACHE_OF_UPSTREAMS,
            "upstream": UPSTREAM,
        },
    ),
    {
        "team/app": (
            "immutable_tags",
            "immutable_tags_exclusions",
            "authorization_webhook",
            "access_policy",
            "retention_policy",
        ),
        "hub": ("namespace", "cache", "upstream"),
    },
)
