"""What must be right between keys, and what is hardly meant although each key by itself is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from angos.runtime.config.file import Problem
from angos.runtime.config.reading import Values
from angos.runtime.config.toml_text import toml_path, toml_text
from angos.runtime.config.upstream_keys import check_upstreams

if TYPE_CHECKING:
    from angos.runtime.client.url import Url

_CLIENT_PAIR = ("client_certificate_bundle", "client_private_key")
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


def check_between(values: Values) -> list[Problem]:
    """Everything that takes more than one key to see. Copes with keys that are missing because they have problems."""
    return [
        *_check_server(values),
        *_check_stores(values),
        *_check_users(values),
        *_check_clients(values),
        *_check_webhook_names(values),
        *_check_repositories(values.tables("repository")),
        *_check_rules_about_pulls(values),
        *check_upstreams(tuple(values.tables("repository").values())),
    ]


def is_secured(values: Values) -> bool:
    """Whether something in the configuration says that not everybody may do everything."""
    return (
        bool(values.table("auth").files)
        or values.table("global").has("authorization_webhook")
        or any(
            repository.has("access_policy") or repository.get("authorization_webhook")
            for repository in values.tables("repository").values()
        )
    )


# --- the server -------------------------------------------------------------------------------------------------------


def _check_server(values: Values) -> Iterator[Problem]:
    server = values.table("server")
    tls = server.table("tls")
    if server.has("tls"):
        yield from _check_server_tls(tls)
    if server.get("head_parser") == "httptools":
        from importlib.util import find_spec

        if find_spec("httptools") is None:
            yield server.problem("head_parser", "httptools is not installed; pip install httptools, or choose h11")
    listen = values.table("observability").table("metrics").get("listen")
    if listen is not None:
        from angos.runtime.observability.settings import parse_listen

        address = server.get("bind_address", "127.0.0.1"), server.get("port", 8000)
        if address[1] and parse_listen(listen) == address:  # with port 0, each takes a free one
            metrics = values.table("observability").table("metrics")
            yield metrics.problem(
                "listen", "is the address of the registry itself; choose another port or leave it out"
            )


def _check_server_tls(tls: Values) -> Iterator[Problem]:
    if tls.get("client_auth") == "required" and not tls.has("client_ca_bundle"):
        yield tls.problem("client_auth", '"required" needs client_ca_bundle, which says whose certificates are trusted')
        return
    certificate, key = tls.get("server_certificate_bundle"), tls.get("server_private_key")
    authorities = tls.get("client_ca_bundle")
    if certificate is None or key is None or (authorities is None and tls.has("client_ca_bundle")):
        return
    from angos.runtime.server.tls import TlsOptions, TlsUnusable, load_tls

    try:
        load_tls(TlsOptions(certificate, key, authorities, tls.get("client_auth", "optional")))
    except TlsUnusable as error:
        yield tls.problem_of_table(str(error))


# --- stores -----------------------------------------------------------------------------------------------------------


def _check_stores(values: Values) -> Iterator[Problem]:
    for name in ("blob_store", "metadata_store"):
        store = values.table(name)
        if store.has("fs") and store.has("s3"):
            yield store.problem("s3", f"there is [{store.path('fs')}] too; keep one of them")
        bucket = store.table("s3")
        for key, mate in (("access_key_id", "secret_key"), ("secret_key", "access_key_id")):
            if bucket.has(key) and not bucket.has(mate):
                yield bucket.problem(key, f"needs {mate} beside it")
        yield from _check_client_tls(bucket)


# --- who is who -------------------------------------------------------------------------------------------------------


def _check_users(values: Values) -> Iterator[Problem]:
    auth = values.table("auth")
    providers = auth.table("oidc").files
    seen: dict[str, Values] = {}
    for user in auth.tables("identity").values():
        username = user.get("username")
        if username is None:
            continue
        if username in seen:
            yield user.problem("username", f"{toml_text(username)} is the user of [{toml_path(seen[username].keys)}]")
        elif username in providers:
            other = toml_path(("auth", "oidc", username))
            yield user.problem("username", f"{toml_text(username)} is the name of [{other}]; rename one of them")
        seen.setdefault(username, user)


def _check_clients(values: Values) -> Iterator[Problem]:
    """How identity providers and webhooks are asked."""
    auth = values.table("auth")
    for service in (*auth.tables("oidc").values(), *auth.tables("webhook").values()):
        yield from _check_client_tls(service)
    for webhook in auth.tables("webhook").values():
        both = webhook.has("bearer_token") and webhook.has("basic_auth")
        if both:
            yield webhook.problem("basic_auth", "there is bearer_token too; keep one of them")
        elif "authorization" in webhook.get("forward_headers", ()) and (
            webhook.has("bearer_token") or webhook.has("basic_auth")
        ):
            own = "bearer_token" if webhook.has("bearer_token") else "basic_auth"
            yield webhook.problem("forward_headers", f"authorization is filled by {own} already; keep one of them")


def _check_client_tls(service: Values) -> Iterator[Problem]:
    for key, mate in (_CLIENT_PAIR, _CLIENT_PAIR[::-1]):
        if service.has(key) and not service.has(mate):
            yield service.problem(key, f"needs {mate} beside it")
            return
    files: dict[str, Path | None] = {key: service.get(key) for key in ("server_ca_bundle", *_CLIENT_PAIR)}
    if not any(files.values()) or any(path is None and service.has(key) for key, path in files.items()):
        return
    from angos.runtime.access.settings import ClientTls
    from angos.runtime.client.trust import ClientTlsUnusable, client_context

    try:
        client_context(ClientTls(*files.values()))
    except ClientTlsUnusable as error:
        yield service.problem_of_table(str(error))


# --- who may do what --------------------------------------------------------------------------------------------------


def _check_webhook_names(values: Values) -> Iterator[Problem]:
    known = values.table("auth").table("webhook").files
    for table in (values.table("global"), *values.tables("repository").values()):
        name = table.get("authorization_webhook")
        if name and name not in known:
            advice = f"known: {', '.join(map(toml_text, known))}" if known else "there is no [auth.webhook]"
            yield table.problem("authorization_webhook", f"there is no webhook {toml_text(name)}; {advice}")


def _check_repositories(repositories: Mapping[str, Values]) -> Iterator[Problem]:
    for name, repository in repositories.items():
        parts = name.split("/")
        for count in range(1, len(parts)):
            outer = "/".join(parts[:count])
            if outer in repositories:
                shown = toml_path(("repository", outer))
                yield repository.problem_of_table(f"lies inside [{shown}]; a namespace belongs to one of them only")


def _check_rules_about_pulls(values: Values) -> Iterator[Problem]:
    """Without times of pulls every image would look as if nobody had ever pulled it, and go."""
    found = values.table("global")
    if found.get("update_pull_time"):
        return
    for table in (found, *values.tables("repository").values()):
        policy = table.table("retention_policy")
        for index, (_, expression) in enumerate(policy.get("rules", ())):
            from angos.sansio.retention import about_pulls

            if (name := about_pulls(expression)) is not None:
                where = f"{policy.path('rules')}[{index}]"
                advice = f"it asks for {name}, and pulls are not recorded; set {found.path('update_pull_time')} to true"
                yield Problem(policy.files.get("rules", policy.file), where, advice)


# --- warnings ---------------------------------------------------------------------------------------------------------


def warnings_of(values: Values) -> Iterator[str]:
    """What is allowed, but hardly meant."""
    yield from _warn_about_policy(values)
    yield from _warn_about_transport(values)
    yield from _warn_about_redirects(values)
    yield from _warn_about_retention(values)
    server = values.table("server")
    workers = server.get("workers", 1)
    for key in ("max_connections_per_client", "max_requests_per_second_per_client"):
        if workers > 1 and server.has(key):
            yield (
                f"{server.path(key)}: each of the {workers} workers counts for itself, so a client may reach"
                f" {workers} times as much"
            )
    if {"0.0.0.0/0", "::/0"} & set(values.table("global").get("trusted_proxies", ())):
        yield "global.trusted_proxies: everybody is a trusted proxy and can claim any address"


def _warn_about_policy(values: Values) -> Iterator[str]:
    policy = values.table("global").table("access_policy")
    if not values.table("global").has("access_policy"):
        if is_secured(values):
            yield (
                "global.access_policy: is missing, so nobody may do anything; add rules that allow, or default ="
                ' "allow" to leave it to repositories and webhooks'
            )
    elif policy.get("default", "deny") == "deny" and not policy.get("rules"):
        yield 'global.access_policy: nobody may do anything, since the default is "deny" and there are no rules'


def _warn_about_transport(values: Values) -> Iterator[str]:
    server, auth = values.table("server"), values.table("auth")
    exposed = server.get("bind_address", "127.0.0.1") not in _LOCAL_HOSTS
    if exposed and not server.has("tls") and auth.has("identity") and not values.table("global").get("trusted_proxies"):
        yield (
            "server: passwords can be read on their way, since there is neither [server.tls] nor, in"
            " global.trusted_proxies, a proxy that adds TLS"
        )
    for name in ("blob_store", "metadata_store"):
        bucket = values.table(name).table("s3")
        if _is_open(bucket.get("endpoint")):
            yield f"{bucket.path('endpoint')}: with http:// anybody on the way can change what is stored; use https://"
    cache = values.table("cache").table("redis")
    if (address := cache.get("url")) is not None and not address.tls and address.host not in _LOCAL_HOSTS:
        yield (
            f"{cache.path('url')}: with redis:// anybody on the way can change what identity providers and webhooks are"
            " said to have answered; use rediss://"
        )
    for provider in auth.tables("oidc").values():
        for key in ("issuer", "jwks_uri"):
            if _is_open(provider.get(key)):
                yield f"{provider.path(key)}: with http:// anybody on the way can replace its keys; use https://"
    for webhook in auth.tables("webhook").values():
        if _is_open(webhook.get("url")):
            yield f"{webhook.path('url')}: with http:// anybody on the way can answer for it; use https://"
    for repository in values.tables("repository").values():
        for upstream in repository.several("upstream"):
            if _is_open(upstream.get("url")):
                risk = "read the password and change" if upstream.has("password") else "change"
                yield f"{upstream.path('url')}: with http:// anybody on the way can {risk} what tags name; use https://"


def _warn_about_redirects(values: Values) -> Iterator[str]:
    """Redirects are on unless they are switched off, and a bucket is often where only servers reach it."""
    endpoint, found = values.table("blob_store").table("s3").get("endpoint"), values.table("global")
    unsaid = [key for key in ("enable_blob_redirect", "enable_manifest_redirect") if not found.has(key)]
    if unsaid and endpoint is not None and endpoint.host not in _LOCAL_HOSTS and _is_inside(endpoint.host):
        yield (
            f"{found.path(unsaid[0])}: clients are sent to {endpoint.origin} for content, which looks as if it could be"
            f" reached from inside only; set {' and '.join(unsaid)} to false, or to true if clients reach it"
        )


def _warn_about_retention(values: Values) -> Iterator[str]:
    found = values.table("global").table("retention_policy")
    repositories = values.tables("repository").values()
    policies = (found, *(repository.table("retention_policy") for repository in repositories))
    if found.get("interval") and not any(policy.get("rules") for policy in policies):
        yield f"{found.path('interval')}: means nothing, since no rule says what to keep, and so every tag stays"


def _is_inside(host: str) -> bool:
    """Whether it is a name without a domain, or an address that is not of the Internet."""
    from ipaddress import ip_address

    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host


def _is_open(url: str | Url | None) -> bool:
    if url is None:
        return False
    from angos.runtime.client.url import parse_url

    parsed = parse_url(url) if isinstance(url, str) else url
    return parsed.scheme == "http" and parsed.host not in _LOCAL_HOSTS
