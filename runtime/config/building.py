"""From values that have been read to the configuration."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from angos.runtime.access.settings import AccessSettings, ClientTls, ProviderEndpoint, WebhookEndpoint
from angos.runtime.config.checks import check_between, is_secured, warnings_of
from angos.runtime.config.file import BadConfiguration, Table
from angos.runtime.config.known import SCHEMA
from angos.runtime.config.reading import Values, read_values
from angos.runtime.config.schema import DEFAULT_ROOT, Configuration, DirectoryConfig, RedisConfig
from angos.runtime.config.server_keys import FIELDS
from angos.runtime.config.store_keys import option_of
from angos.runtime.config.upstream_keys import DOCKER_HUB, DOCKER_HUB_REALM
from angos.runtime.observability.settings import LogOptions, MetricsOptions, ObservabilityOptions
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.tls import TlsOptions
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.secret import Secret
from angos.sansio.upstream.config import CacheConfig, Upstream

if TYPE_CHECKING:
    from angos.runtime.stores.s3.options import S3Options
    from angos.runtime.upstream.settings import UpstreamEndpoint
    from angos.sansio.access.config import AccessConfig, TokenService
    from angos.sansio.access.policy import Policy
    from angos.sansio.retention import RetentionConfig, RetentionRule

_REGISTRY_FIELDS = {
    "max_manifest_size": "manifest_size_max",
    "max_concurrent_cache_jobs": "fills_max",
    "max_blob_size": "blob_size_max",
    "allow_missing_manifest_references": "allow_missing_manifest_references",
    "tag_history_secs": "tag_history_seconds",
    "update_pull_time": "update_pull_time",
    "pull_time_granularity_secs": "pull_time_granularity_seconds",
    "gc_grace_secs": "collection_grace_seconds",
    "upload_expiry_secs": "upload_expiry_seconds",
    "immutable_tags": "immutable_tags",
    "immutable_tags_exclusions": "immutable_tags_exclusions",
}


def checked_values(table: Table) -> Values:
    """The files as values. Raises `BadConfiguration` with every problem there is."""
    values, problems = read_values(table, SCHEMA)
    problems += check_between(values)
    if problems:
        raise BadConfiguration(problems)
    return values


def build(table: Table) -> Configuration:
    """The files as a configuration. Raises `BadConfiguration` with every problem there is."""
    values = checked_values(table)
    stores = [_store(values.table(name)) for name in ("blob_store", "metadata_store")]
    return Configuration(
        _server(values),
        _registry(values),
        stores[0] or DirectoryConfig(DEFAULT_ROOT),
        stores[1],
        _redis(values.table("cache").table("redis")),
        _redis(values.table("leases").table("redis")),
        _tls(values.table("server")),
        _access_settings(values.table("auth")),
        _observability(values.table("observability")),
        _retention(values),
        values.table("global").table("retention_policy").get("interval", 0.0),
        tuple(warnings_of(values)),
        _upstream_endpoints(values.tables("repository")),
        values.table("global").get("gc_interval_secs", 3600.0),
        values.table("global").get("eviction_interval_secs", 600.0),
    )


def _server(values: Values) -> ServerOptions:
    server = values.table("server")
    options = {FIELDS.get(key, key): value for key, value in server.entries.items()}
    for key in ("tls", "handshake_timeout"):  # not of every server
        options.pop(key, None)
    if (limit := values.table("global").get("max_concurrent_requests")) is not None:
        options["max_concurrent_requests"] = limit
    return ServerOptions(**options)


def _tls(server: Values) -> TlsOptions | None:
    if not server.has("tls"):
        return None
    options = dict(server.table("tls").entries)
    if (timeout := server.get("handshake_timeout")) is not None:
        options["handshake_timeout"] = timeout
    return TlsOptions(**options)


def _store(values: Values) -> DirectoryConfig | S3Options | None:
    if values.has("s3"):
        return _bucket(values.table("s3"))
    fs = values.table("fs")
    return DirectoryConfig(**fs.entries) if fs.files else None


def _bucket(values: Values) -> S3Options:
    from angos.runtime.client.url import parse_url
    from angos.runtime.stores.s3.options import Credentials, S3Options

    options = {option_of(key): value for key, value in values.entries.items()}
    options.setdefault("endpoint", parse_url(f"https://s3.{values.get('region')}.amazonaws.com"))
    options["tls"] = ClientTls(options.pop("server_ca_bundle", None))
    key_id, secret = options.pop("access_key_id", None), options.pop("secret_key", None)
    return S3Options(credentials=None if key_id is None else Credentials(key_id, Secret(secret)), **options)


def _redis(redis: Values) -> RedisConfig | None:
    options = {"address" if key == "url" else key: value for key, value in redis.entries.items()}
    return RedisConfig(**options) if options else None


def _observability(values: Values) -> ObservabilityOptions:
    log = values.table("log")
    options = {key: log.get(key) for key in ("level", "format") if log.has(key)}
    return ObservabilityOptions(
        MetricsOptions(**values.table("metrics").entries), LogOptions(**options, modules=log.table("modules").entries)
    )


# --- what the core decides with ---------------------------------------------------------------------------------------


def _registry(values: Values) -> RegistryConfig:
    found = values.table("global")
    options = {_REGISTRY_FIELDS[key]: value for key, value in found.entries.items() if key in _REGISTRY_FIELDS}
    repositories = tuple(_repository(name, table) for name, table in sorted(values.tables("repository").items()))
    if found.has("immutable_tags_exclusions") or any(each.immutable_tags_exclusions for each in repositories):
        from angos.runtime.config.cel_patterns import re2_matcher

        options["search"] = cache(re2_matcher())
    in_bucket = values.table("blob_store").has("s3")
    return RegistryConfig(
        **options,
        redirect_blobs=in_bucket and found.get("enable_blob_redirect", True),
        redirect_manifests=in_bucket and found.get("enable_manifest_redirect", True),
        repositories=repositories,
        access=_access(values),
    )


def _repository(namespace: str, values: Values) -> RepositoryConfig:
    return RepositoryConfig(
        namespace,
        _policy(values.table("access_policy")) if values.has("access_policy") else None,
        values.get("authorization_webhook"),
        values.get("immutable_tags", False),
        values.get("immutable_tags_exclusions", ()),
        tuple(_upstream(name, upstream) for name, upstream in _named_upstreams(namespace, values)),
        _cache(values.table("cache")) if values.has("upstream") else None,
        mirror_of=values.get("namespace"),
        records_pulls=values.has("upstream") and values.table("cache").has("max_size"),
    )


def _named_upstreams(namespace: str, repository: Values) -> Iterator[tuple[str, Values]]:
    """Upstreams with their names: for people, and each unlike any other."""
    seen: Counter[str] = Counter()
    for upstream in repository.several("upstream"):
        host = upstream.get("url").authority
        seen[host] += 1
        yield f"{host} ({namespace})" if seen[host] == 1 else f"{host} ({namespace}, {seen[host]})", upstream


def _upstream(name: str, values: Values) -> Upstream:
    url = values.get("url")
    short_names = "library" if url.host == DOCKER_HUB else ""
    return Upstream(name, url.origin, url.target.strip("/"), values.get("username"), _token_realms(values), short_names)


def _token_realms(upstream: Values) -> tuple[str, ...]:
    own = (DOCKER_HUB_REALM,) if upstream.get("url").host == DOCKER_HUB else ()
    realms: tuple[str, ...] = upstream.get("token_realms", ())
    return (*realms, *own) if upstream.has("username") else ()


def _cache(values: Values) -> CacheConfig:
    names = {"max_size": "size_max", "keep_percent": "kept_percent"}
    return CacheConfig(**{names.get(k, k.replace("_secs", "_seconds")): value for k, value in values.entries.items()})


def _access(values: Values) -> AccessConfig | None:
    found, auth = values.table("global"), values.table("auth")
    governed = found.has("access_policy")
    if not (governed or found.get("trusted_proxies") or is_secured(values)):
        return None
    from angos.sansio.access.config import AccessConfig, Provider, User, Webhook
    from angos.sansio.access.policy import OPEN

    names = {
        "jwks_refresh_interval": "jwks_refresh_seconds",
        "clock_skew_tolerance": "clock_skew_seconds",
        "issuer": "issuer",
        "jwks_uri": "jwks_uri",
        "required_audience": "required_audience",
        "allowed_algorithms": "allowed_algorithms",
        "required_claims": "required_claims",
    }
    providers = [
        Provider(name, **{names[key]: value for key, value in provider.entries.items() if key in names})
        for name, provider in sorted(auth.tables("oidc").items())
    ]
    webhooks = [
        Webhook(name, webhook.get("cache_ttl", 60.0), webhook.get("forward_headers", ()))
        for name, webhook in sorted(auth.tables("webhook").items())
    ]
    return AccessConfig(
        _policy(found.table("access_policy")) if governed or is_secured(values) else OPEN,
        tuple(User(id, user.get("username")) for id, user in sorted(auth.tables("identity").items())),
        tuple(providers),
        _token_service(auth),
        tuple(webhooks),
        found.get("authorization_webhook"),
        found.get("trusted_proxies", ()),
        auth.get("invalid_credentials", "pass"),
    )


def _token_service(auth: Values) -> TokenService | None:
    from angos.sansio.access.config import TokenService

    found = auth.table("token_service")
    if not found.get("enabled", any(auth.has(key) for key in ("token_service", "identity", "oidc"))):
        return None
    return TokenService(found.get("ttl_secs", 3600), found.get("realm"))


def _policy(values: Values) -> Policy:
    from angos.sansio.access.policy import Policy

    default, rules = values.get("default", "deny"), values.get("rules", ())
    if not rules:
        return Policy(default)
    from angos.runtime.config.cel_patterns import re2_matcher, zone_offset
    from angos.sansio.access.expression import compile_expression
    from angos.sansio.access.policy import FUNCTIONS, Rule

    matcher, made = re2_matcher(), []
    for index, (text, expression) in enumerate(rules):
        evaluate = compile_expression(expression, functions=FUNCTIONS, matcher=matcher, zones=zone_offset)
        made.append(Rule(text, f"{values.path('rules')}[{index}]", expression, evaluate))
    return Policy(default, tuple(made))


def _retention(values: Values) -> RetentionConfig | None:
    found = values.table("global").table("retention_policy")
    repositories = sorted(values.tables("repository").items())
    own = [(name, _retention_rules(repository.table("retention_policy"))) for name, repository in repositories]
    everywhere, declared = _retention_rules(found), tuple((name, rules) for name, rules in own if rules)
    if not everywhere and not declared:
        return None
    from angos.sansio.retention import MIN_AGE_SECONDS, RetentionConfig

    return RetentionConfig(everywhere, declared, found.get("min_age", MIN_AGE_SECONDS))


def _retention_rules(values: Values) -> tuple[RetentionRule, ...]:
    if not (rules := values.get("rules", ())):
        return ()
    from angos.runtime.config.cel_patterns import re2_matcher, zone_offset
    from angos.sansio.access.expression import compile_expression
    from angos.sansio.retention import FUNCTIONS, RetentionRule

    matcher, made = re2_matcher(), []
    for index, (text, expression) in enumerate(rules):
        evaluate = compile_expression(expression, functions=FUNCTIONS, matcher=matcher, zones=zone_offset)
        made.append(RetentionRule(text, f"{values.path('rules')}[{index}]", expression, evaluate))
    return tuple(made)


# --- what the runtime checks and asks with ----------------------------------------------------------------------------


def _access_settings(auth: Values) -> AccessSettings:
    secret_key = auth.table("token_service").get("secret_key")
    enabled = _token_service(auth) is not None
    return AccessSettings(
        {user.get("username"): Secret(user.get("password")) for user in auth.tables("identity").values()},
        tuple(_provider(name, provider) for name, provider in sorted(auth.tables("oidc").items())),
        tuple(_webhook(name, webhook) for name, webhook in sorted(auth.tables("webhook").items())),
        Secret(secret_key) if enabled and secret_key is not None else None,
    )


def _provider(name: str, values: Values) -> ProviderEndpoint:
    seconds = values.get("http_request_timeout_secs", 30.0)
    return ProviderEndpoint(name, values.get("issuer"), _client_tls(values), values.get("bearer_token_file"), seconds)


def _webhook(name: str, values: Values) -> WebhookEndpoint:
    authorization = None
    if (token := values.get("bearer_token")) is not None:
        authorization = Secret(f"Bearer {token}")
    elif values.has("basic_auth"):
        basic = values.table("basic_auth")
        credentials = f"{basic.get('username')}:{basic.get('password')}".encode()
        authorization = Secret(f"Basic {base64.b64encode(credentials).decode()}")
    timeout = values.get("timeout_ms") / 1000
    return WebhookEndpoint(name, values.get("url"), timeout, authorization, _client_tls(values))


def _upstream_endpoints(repositories: Mapping[str, Values]) -> tuple[UpstreamEndpoint, ...]:
    return tuple(
        _upstream_endpoint(name, upstream)
        for namespace, repository in sorted(repositories.items())
        for name, upstream in _named_upstreams(namespace, repository)
    )


def _upstream_endpoint(name: str, values: Values) -> UpstreamEndpoint:
    from ipaddress import ip_network

    from angos.runtime.upstream.settings import UpstreamEndpoint

    names = {
        "username": "username",
        "max_redirect": "redirects_max",
        "connect_timeout_secs": "connect_seconds",
        "read_timeout_secs": "read_seconds",
    }
    password = values.get("password")
    return UpstreamEndpoint(
        name,
        values.get("url"),
        password=None if password is None else Secret(password),
        token_realms=_token_realms(values),
        private_networks=tuple(map(ip_network, values.get("private_networks", ()))),
        tls=_client_tls(values, "client_certificate"),
        **{names[key]: value for key, value in values.entries.items() if key in names},
    )


def _client_tls(values: Values, certificate: str = "client_certificate_bundle") -> ClientTls:
    keys = ("server_ca_bundle", certificate, "client_private_key")
    return ClientTls(*(values.get(key) for key in keys))
