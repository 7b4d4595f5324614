"""Every key of a configuration: that it is read, that its default is the one in the code, and that pages tell of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from angos.runtime.__main__ import main
from angos.runtime.client.url import Url
from angos.runtime.config.reference import PAGES, json_schema
from angos.runtime.config.schema import Configuration, DirectoryConfig, load_configuration
from angos.runtime.config.server_keys import FIELDS
from angos.runtime.redis.address import RedisAddress
from angos.runtime.server.limits import ServerOptions
from angos.runtime.stores.s3.options import Credentials, S3Options
from angos.sansio.access.config import AccessConfig, TokenService
from angos.sansio.access.policy import Policy
from angos.sansio.config import RepositoryConfig
from angos.sansio.oci.reference import Namespace
from angos.sansio.secret import Secret
from tests.conformance.runtime.example_configuration import (
    STORES,
    example_document,
    file_with,
    keys,
    load,
    uncommented,
    whole_example_document,
    with_value,
    write_files,
    written,
)

ROOT = Path(__file__).parents[3]
Read = Callable[[Configuration], object]


def access(configuration: Configuration) -> AccessConfig:
    assert configuration.registry.access is not None
    return configuration.registry.access


def repository(configuration: Configuration) -> RepositoryConfig:
    (found,) = (each for each in configuration.registry.repositories if not each.upstreams)
    return found


def mirror(configuration: Configuration) -> RepositoryConfig:
    (found,) = (each for each in configuration.registry.repositories if each.upstreams)
    return found


def cached(name: str) -> Read:
    """How content of upstreams is kept."""
    return lambda configuration: getattr(mirror(configuration).cache, name)


def upstream(name: str) -> Read:
    """As the runtime knows it."""
    return lambda configuration: getattr(configuration.upstreams[0], name)


def bucket(name: str, field: str) -> Callable[[Configuration], object]:
    """Of a store in a bucket."""

    def read(configuration: Configuration) -> object:
        found = getattr(configuration, name)
        assert isinstance(found, S3Options)
        return getattr(found, field)

    return read


def folder_of(store: object) -> DirectoryConfig:
    assert isinstance(store, DirectoryConfig)
    return store


def token_service(configuration: Configuration) -> TokenService:
    found = access(configuration).token_service
    assert found is not None
    return found


def own_policy(configuration: Configuration) -> Policy:
    policy = repository(configuration).policy
    assert policy is not None
    return policy


def rules(policy: Policy) -> list[tuple[str, str]]:
    return [(rule.text, rule.where) for rule in policy.rules]


def kept_by(configuration: Configuration, namespace: str) -> list[tuple[str, str]]:
    assert configuration.retention is not None
    return [(rule.text, rule.where) for rule in configuration.retention.rules_for(Namespace(namespace))]


OTHER_HASH = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5a25vd3NpdA$BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA"
OTHER_KEY = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"

SERVER: dict[str, tuple[object, object]] = {
    "bind_address": ("::1", "::1"),
    "port": (0, 0),
    "workers": (3, 3),
    "backlog": (7, 7),
    "head_parser": ("httptools", "httptools"),
    "access_log": (True, True),
    "max_connections_per_client": (9, 9),
    "max_requests_per_second_per_client": (9, 9),
    "max_request_burst_per_client": (9, 9),
    "queue_timeout": (0.25, 0.25),
    "query_timeout": (5, 5.0),
    "query_timeout_grace_period": (5, 5.0),
    "head_timeout": (5, 5.0),
    "idle_timeout": (5, 5.0),
    "body_stall_timeout": (5, 5.0),
    "send_stall_timeout": (5, 5.0),
    "drain_seconds": (5, 5.0),
    "head_size_max": ("5KiB", 5120),
    "request_line_size_max": ("5KiB", 5120),
    "fields_max": (5, 5),
    "unread_size_max": (5, 5),
    "linger_seconds": (2, 2.0),
    "linger_size_max": ("5kB", 5000),
    "sweep_seconds": (0.5, 0.5),
    "connections_max": (5, 5),
    "transfer_threads": (5, 5),
}


def option(key: str) -> Read:
    return lambda configuration: getattr(configuration.server, FIELDS.get(key, key))


def tls(name: str) -> Read:
    return lambda configuration: getattr(configuration.tls, name)


def provider(name: str) -> Read:
    return lambda configuration: getattr(access(configuration).providers[0], name)


def endpoint(name: str) -> Read:
    return lambda configuration: getattr(configuration.access.providers[0], name)


def asked(name: str, position: int = 1) -> Read:
    """Of a webhook, as the runtime knows it: 0 is ``audit``, 1 is ``gate``."""
    return lambda configuration: getattr(configuration.access.webhooks[position], name)


def client_tls(of: Read, name: str) -> Read:
    return lambda configuration: getattr(of(configuration), name)


def known(name: str) -> Read:
    """Of the webhook ``gate``, as the core knows it."""
    return lambda configuration: getattr(access(configuration).webhooks[1], name)


def shared_address(name: str) -> Read:
    return lambda configuration: getattr(configuration, name).address


def shared_prefix(name: str) -> Read:
    return lambda configuration: getattr(configuration, name).key_prefix


CASES: dict[str, tuple[object, Read, object]] = {
    **{f"server.{key}": (value, option(key), expected) for key, (value, expected) in SERVER.items()},
    "server.handshake_timeout": (3, tls("handshake_timeout"), 3.0),
    "server.tls.server_certificate_bundle": (
        "tls/server-copy.pem",
        tls("server_certificate_bundle"),
        Path("tls/server-copy.pem"),
    ),
    "server.tls.server_private_key": ("tls/server-copy.key", tls("server_private_key"), Path("tls/server-copy.key")),
    "server.tls.client_ca_bundle": ("tls/clients-copy.pem", tls("client_ca_bundle"), Path("tls/clients-copy.pem")),
    "server.tls.client_auth": ("required", tls("client_auth"), "required"),
    "global.max_manifest_size": ("1MB", lambda found: found.registry.manifest_size_max, 1_000_000),
    "global.max_blob_size": (77, lambda found: found.registry.blob_size_max, 77),
    "global.max_concurrent_requests": (3, option("max_concurrent_requests"), 3),
    "global.max_concurrent_cache_jobs": (3, lambda found: found.registry.fills_max, 3),
    "global.gc_grace_secs": (7200, lambda found: found.registry.collection_grace_seconds, 7200.0),
    "global.gc_interval_secs": (600, lambda found: found.collection_interval_seconds, 600.0),
    "global.eviction_interval_secs": (60, lambda found: found.eviction_interval_seconds, 60.0),
    "global.upload_expiry_secs": (600, lambda found: found.registry.upload_expiry_seconds, 600.0),
    "global.tag_history_secs": (3600, lambda found: found.registry.tag_history_seconds, 3600.0),
    "global.update_pull_time": (True, lambda found: found.registry.update_pull_time, True),
    "global.pull_time_granularity_secs": (
        60,
        lambda found: found.registry.pull_time_granularity_seconds,
        60.0,
    ),
    "global.allow_missing_manifest_references": (
        False,
        lambda found: found.registry.allow_missing_manifest_references,
        False,
    ),
    "global.enable_blob_redirect": (False, lambda found: found.registry.redirect_blobs, False),
    "global.enable_manifest_redirect": (False, lambda found: found.registry.redirect_manifests, False),
    "global.immutable_tags": (True, lambda found: found.registry.immutable_tags, True),
    "global.immutable_tags_exclusions": (["a+"], lambda found: found.registry.immutable_tags_exclusions, ("a+",)),
    "global.trusted_proxies": (
        ["192.0.2.1", "10.1.2.3/8"],
        lambda found: access(found).trusted_proxies,
        ("192.0.2.1/32", "10.0.0.0/8"),
    ),
    "global.authorization_webhook": ("audit", lambda found: access(found).webhook, "audit"),
    "global.access_policy.default": ("allow", lambda found: access(found).policy.default, "allow"),
    "global.access_policy.rules": (
        ["false", "true"],
        lambda found: rules(access(found).policy),
        [("false", "global.access_policy.rules[0]"), ("true", "global.access_policy.rules[1]")],
    ),
    "global.retention_policy.rules": (
        ["false", "true"],
        lambda found: kept_by(found, "elsewhere"),
        [("false", "global.retention_policy.rules[0]"), ("true", "global.retention_policy.rules[1]")],
    ),
    "global.retention_policy.min_age": (60, lambda found: found.retention and found.retention.min_age_seconds, 60.0),
    "global.retention_policy.interval": (60, lambda found: found.retention_seconds, 60.0),
    "blob_store.fs.root_dir": ("blobs", lambda found: folder_of(found.blob_store).root_dir, Path("blobs")),
    "blob_store.fs.sync_to_disk": (False, lambda found: folder_of(found.blob_store).sync_to_disk, False),
    "metadata_store.fs.root_dir": ("names", lambda found: folder_of(found.metadata_store).root_dir, Path("names")),
    "metadata_store.fs.sync_to_disk": (False, lambda found: folder_of(found.metadata_store).sync_to_disk, False),
    "cache.redis.url": ("redis://127.0.0.1", shared_address("cache"), RedisAddress("127.0.0.1")),
    "cache.redis.key_prefix": ("team:", shared_prefix("cache"), "team:"),
    "leases.redis.url": (
        "rediss://me:p%40ss@[::1]:7000/3",
        shared_address("leases"),
        RedisAddress("::1", 7000, 3, tls=True, username="me", password=Secret("p@ss")),
    ),
    "leases.redis.key_prefix": ("", shared_prefix("leases"), ""),
    "auth.invalid_credentials": ("reject", lambda found: access(found).invalid_credentials, "reject"),
    "auth.identity.*.username": (
        "bob",
        lambda found: (access(found).users[0].id, access(found).users[0].username, *found.access.passwords),
        ("alice", "bob", "bob"),
    ),
    "auth.identity.*.password": (OTHER_HASH, lambda found: found.access.passwords["alice"], Secret(OTHER_HASH)),
    "auth.oidc.*.issuer": (
        "https://example.org",
        lambda found: (provider("issuer")(found), endpoint("issuer")(found)),
        ("https://example.org", "https://example.org"),
    ),
    "auth.oidc.*.jwks_uri": ("https://example.org/keys", provider("jwks_uri"), "https://example.org/keys"),
    "auth.oidc.*.jwks_refresh_interval": (9, provider("jwks_refresh_seconds"), 9.0),
    "auth.oidc.*.required_audience": ("angos", provider("required_audience"), "angos"),
    "auth.oidc.*.clock_skew_tolerance": (0, provider("clock_skew_seconds"), 0.0),
    "auth.oidc.*.allowed_algorithms": (["EdDSA", "ES256"], provider("allowed_algorithms"), ("EdDSA", "ES256")),
    "auth.oidc.*.required_claims": (["sub"], provider("required_claims"), ("sub",)),
    "auth.oidc.*.http_request_timeout_secs": (3, endpoint("request_seconds"), 3.0),
    "auth.oidc.*.bearer_token_file": ("tokens/issuer-copy", endpoint("bearer_token_file"), Path("tokens/issuer-copy")),
    "auth.token_service.enabled": (False, lambda found: access(found).token_service, None),
    "auth.token_service.secret_key": (OTHER_KEY, lambda found: found.access.token_secret, Secret(OTHER_KEY)),
    "auth.token_service.realm": (
        "https://r.example/a/token",
        lambda found: token_service(found).realm,
        "https://r.example/a/token",
    ),
    "auth.token_service.ttl_secs": (9, lambda found: token_service(found).ttl_seconds, 9),
    "auth.webhook.*.url": ("https://w.example", asked("url", 0), "https://w.example"),
    "auth.webhook.*.timeout_ms": (250, asked("timeout_seconds", 0), 0.25),
    "auth.webhook.*.cache_ttl": (0, known("cache_seconds"), 0.0),
    "auth.webhook.*.forward_headers": (["X-A", "Cookie"], known("forward_headers"), ("x-a", "cookie")),
    "auth.webhook.*.bearer_token": ("abc", asked("authorization"), Secret("Bearer abc")),
    "auth.webhook.*.basic_auth.username": ("me", asked("authorization", 0), Secret("Basic bWU6Y2hhbmdlLW1l")),
    "auth.webhook.*.basic_auth.password": ("päss", asked("authorization", 0), Secret("Basic cmVnaXN0cnk6cMOkc3M=")),
    "repository.*.immutable_tags": (True, lambda found: repository(found).immutable_tags, True),
    "repository.*.immutable_tags_exclusions": (
        ["x"],
        lambda found: repository(found).immutable_tags_exclusions,
        ("x",),
    ),
    "repository.*.authorization_webhook": ("", lambda found: repository(found).webhook, ""),
    "repository.*.access_policy.default": ("allow", lambda found: own_policy(found).default, "allow"),
    "repository.*.access_policy.rules": (
        ["has_repository_policy()"],
        lambda found: rules(own_policy(found)),
        [("has_repository_policy()", 'repository."team/app".access_policy.rules[0]')],
    ),
    "repository.*.retention_policy.rules": (
        ["false"],
        lambda found: kept_by(found, "team/app")[1:],
        [("false", 'repository."team/app".retention_policy.rules[0]')],
    ),
    "observability.metrics.enabled": (True, lambda found: found.observability.metrics.enabled, True),
    "observability.metrics.listen": ("[::1]:0", lambda found: found.observability.metrics.listen, "[::1]:0"),
    "observability.log.level": ("error", lambda found: found.observability.log.level, "error"),
    "observability.log.format": ("json", lambda found: found.observability.log.format, "json"),
    "observability.log.modules.*": ("error", lambda found: found.observability.log.modules, {"angos.access": "error"}),
}
for _kind, _of in (("oidc", endpoint("tls")), ("webhook", asked("tls"))):
    for _key, _name in (
        ("server_ca_bundle", "internal-ca-copy.pem"),
        ("client_certificate_bundle", "registry-copy.pem"),
        ("client_private_key", "registry-copy.key"),
    ):
        CASES[f"auth.{_kind}.*.{_key}"] = (f"tls/{_name}", client_tls(_of, _key), Path("tls", _name))

for _store in STORES:
    _bucket = f"{_store}.s3"
    CASES |= {
        f"{_bucket}.endpoint": (
            "http://[::1]:9000/s3/",
            bucket(_store, "endpoint"),
            Url("http", "::1", 9000, "/s3/"),
        ),
        f"{_bucket}.bucket": ("other.bucket", bucket(_store, "bucket"), "other.bucket"),
        f"{_bucket}.region": ("us-east-1", bucket(_store, "region"), "us-east-1"),
        f"{_bucket}.key_prefix": ("/a/b/", bucket(_store, "key_prefix"), "a/b/"),
        f"{_bucket}.server_ca_bundle": (
            "tls/internal-ca-copy.pem",
            client_tls(bucket(_store, "tls"), "server_ca_bundle"),
            Path("tls/internal-ca-copy.pem"),
        ),
        f"{_bucket}.access_key_id": (
            "AKIDOTHER",
            bucket(_store, "credentials"),
            Credentials("AKIDOTHER", Secret("change-me")),
        ),
        f"{_bucket}.secret_key": (
            "canary",
            bucket(_store, "credentials"),
            Credentials("AKIAIOSFODNN7EXAMPLE", Secret("canary")),
        ),
    }

    for _key, _name, _value in (
        ("max_attempts", "attempts", 7),
        ("operation_attempt_timeout_secs", "attempt_seconds", 7.0),
        ("operation_timeout_secs", "operation_seconds", 7.0),
        ("circuit_breaker_threshold", "breaker_threshold", 7),
        ("circuit_breaker_cooldown_secs", "breaker_cooldown_seconds", 7.0),
    ):
        CASES[f"{_bucket}.{_key}"] = (7, bucket(_store, _name), _value)

for _key, _given, _name, _expected in (
    ("multipart_part_size", "6MiB", "part_bytes", 6 << 20),
    ("multipart_uniform_parts", True, "uniform_parts", True),
    ("multipart_copy_threshold", "1GB", "copy_threshold_bytes", 1_000_000_000),
    ("multipart_copy_chunk_size", "6MiB", "copy_piece_bytes", 6 << 20),
    ("multipart_copy_jobs", 7, "copy_jobs", 7),
    ("presign_ttl_secs", 60, "presign_seconds", 60),
):
    CASES[f"blob_store.s3.{_key}"] = (_given, bucket("blob_store", _name), _expected)

MIRROR: list[tuple[str, object, Read, object]] = [
    ("namespace", "Quay.IO", lambda found: mirror(found).mirror_of, "quay.io"),
    ("cache.fresh_secs", 7, cached("fresh_seconds"), 7.0),
    ("cache.stale_secs", 0, cached("stale_seconds"), 0.0),
    ("cache.missing_secs", 7, cached("missing_seconds"), 7.0),
    ("cache.max_size", "1GB", cached("size_max"), 1_000_000_000),
    ("cache.keep_percent", 50, cached("kept_percent"), 50),
    ("upstream.url", "https://quay.io/team/", lambda found: mirror(found).upstreams[0].path, "team"),
    ("upstream.username", "bob", lambda found: mirror(found).upstreams[0].username, "bob"),
    ("upstream.password", "canary", upstream("password"), Secret("canary")),
    (
        "upstream.token_realms",
        ["HTTPS://Elsewhere.example/"],
        lambda found: mirror(found).upstreams[0].token_realms,
        ("https://elsewhere.example", "https://auth.docker.io"),
    ),
    ("upstream.private_networks", ["127.0.0.1"], upstream("private_networks"), (ip_network("127.0.0.1"),)),
    ("upstream.max_redirect", 0, upstream("redirects_max"), 0),
    ("upstream.connect_timeout_secs", 7, upstream("connect_seconds"), 7.0),
    ("upstream.read_timeout_secs", 7, upstream("read_seconds"), 7.0),
    (
        "upstream.server_ca_bundle",
        "tls/internal-ca-copy.pem",
        client_tls(upstream("tls"), "server_ca_bundle"),
        Path("tls/internal-ca-copy.pem"),
    ),
    (
        "upstream.client_certificate",
        "tls/registry-copy.pem",
        client_tls(upstream("tls"), "client_certificate_bundle"),
        Path("tls/registry-copy.pem"),
    ),
    (
        "upstream.client_private_key",
        "tls/registry-copy.key",
        client_tls(upstream("tls"), "client_private_key"),
        Path("tls/registry-copy.key"),
    ),
]
CASES |= {f"repository.*.{row[0]}": row[1:] for row in MIRROR}

PATTERNS = [".".join(pattern) for pattern, _ in keys()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configuration")
    write_files(folder)
    return folder


def test_there_is_a_case_for_each_key() -> None:
    assert set(CASES) == set(PATTERNS)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_key_is_read(pattern: str, folder: Path) -> None:
    value, read, expected = CASES[pattern]
    if isinstance(expected, Path):
        expected = folder / expected
    document = example_document("s3" if ".s3." in pattern or "redirect" in pattern else "fs")
    before = load(folder, document)
    after = load(folder, with_value(document, tuple(pattern.split(".")), value))
    assert read(after) == expected
    assert after != before
    assert read(before) != expected


def test_every_option_of_the_server_has_a_key() -> None:
    names = {pattern[-1] for pattern, _ in keys() if len(pattern) == 2}
    assert {option.name for option in fields(ServerOptions)} <= {FIELDS.get(name, name) for name in names}


def test_defaults_that_are_written_down_change_nothing(tmp_path: Path) -> None:
    document: dict[str, Any] = {}
    for pattern, key in keys():
        # The presence of a policy counts, and so does that of `[auth]`.
        if key.default is not None and not {"*", "tls", "fs", "s3", "redis", "auth", "access_policy"} & set(pattern):
            document = with_value(document, pattern, key.default)
    assert load(tmp_path, document) == load(tmp_path, {}) == Configuration()


@pytest.mark.parametrize("store", ["fs", "s3"])
def test_defaults_of_tables_that_count_by_their_presence_are_those_of_the_code(folder: Path, store: str) -> None:
    document = {
        table: example_document(store)[table]
        for table in ("server", "global", "auth", "repository", *STORES, "cache", "leases")
    }
    bare = document
    for pattern, key in keys():
        other = pattern[0] in STORES and pattern[1] != store
        if key.default is not None and pattern[0] in document and not other and "observability" not in pattern:
            document = with_value(document, pattern, key.default)
            bare = without(bare, pattern)
    assert load(folder, document) == load(folder, bare)


def without(document: dict[str, Any], pattern: tuple[str, ...]) -> dict[str, Any]:
    """A copy without this key, under whatever names."""
    key, *rest = pattern
    if not rest:
        return {name: value for name, value in document.items() if name != key}
    return {name: _without_below(value, rest) if key in (name, "*") else value for name, value in document.items()}


def _without_below(value: Any, rest: list[str]) -> Any:
    if isinstance(value, list):
        return [_without_below(one, rest) for one in value]
    return without(value, tuple(rest)) if isinstance(value, dict) else value


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_what_the_schema_generates_now(page: str) -> None:
    again = "run: python -m angos.runtime.config.reference docs/reference"
    assert (ROOT / "docs/reference" / page).read_text() == PAGES[page](), again


def test_the_example_has_every_key_that_can_be_made_public() -> None:
    document = whole_example_document()
    for pattern, key in keys():
        tables: list[Any] = [document]
        for part in pattern:
            tables = [
                table[name]
                for table in (one for each in tables for one in (each if isinstance(each, list) else [each]))
                if isinstance(table, dict)
                for name in (table if part == "*" else [part])
                if name in table
            ]
        # A key that signs tokens would be copied, and everybody would know it.
        assert bool(tables) is (pattern != ("auth", "token_service", "secret_key")), pattern
        assert all(value == (key.default if key.example is None else key.example) for value in tables)


def test_the_example_is_valid_as_it_is_and_with_every_option_in_use(folder: Path) -> None:
    text = (ROOT / "docs/reference/configuration.example.toml").read_text()
    assert load_configuration([file_with(folder, text, "commented.toml")]) == Configuration()
    assert tomllib.loads(uncommented(text)) == whole_example_document()
    for store in ("fs", "s3"):
        assert load(folder, example_document(store)).warnings == ()


def test_what_the_reference_shows_happening_is_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/reference/configuration.md").read_text()
    (shown,) = re.findall(r"\$ cat bad.toml\n(.*?)\$ .venv/bin/angos (.*?)\n(.*?)```", text, re.DOTALL)
    content, command, output = shown
    file_with(tmp_path, content, "bad.toml")
    assert main(command.split()) == 1
    assert capsys.readouterr().err == output


# --- JSON Schema ------------------------------------------------------------------------------------------------------


def violations(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Where a value breaks the schema: as much of JSON Schema as ours uses."""
    if "anyOf" in schema:
        return [] if any(not violations(one, value, path) for one in schema["anyOf"]) else [path]
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
    }
    kind = schema["type"]
    if not isinstance(value, types[kind]) or (kind in ("integer", "number") and isinstance(value, bool)):
        return [path]
    broken = [
        "enum" in schema and value not in schema["enum"],
        "pattern" in schema and re.search(schema["pattern"], value) is None,
        "minimum" in schema and value < schema["minimum"],
        "maximum" in schema and value > schema["maximum"],
        "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"],
        "minLength" in schema and len(value) < schema["minLength"],
        "maxLength" in schema and len(value) > schema["maxLength"],
        "minItems" in schema and len(value) < schema["minItems"],
    ]
    found = [path] if any(broken) else []
    if kind == "array":
        found += [one for item in value for one in violations(schema["items"], item, f"{path}[]")]
    if kind == "object":
        found += [f"{path}.{key}" for key in schema.get("required", ()) if key not in value]
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key, schema["additionalProperties"])
            if "propertyNames" in schema:
                found += violations(schema["propertyNames"], key, f"{path}.{key}")
            found += [f"{path}.{key}"] if inner is False else violations(inner, item, f"{path}.{key}")
    return found


def test_an_editor_accepts_the_example() -> None:
    assert violations(json_schema(), whole_example_document()) == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_editor_accepts_what_is_read(pattern: str) -> None:
    document = with_value(whole_example_document(), tuple(pattern.split(".")), CASES[pattern][0])
    assert violations(json_schema(), document) == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_editor_and_the_registry_refuse_a_value_of_another_type(pattern: str, folder: Path) -> None:
    document = with_value(whole_example_document(), tuple(pattern.split(".")), [[1]])
    assert violations(json_schema(), document) != []
    assert main(["check", "-c", str(file_with(folder, written(document), "refused.toml"))]) == 1


@pytest.mark.parametrize(
    "document",
    [
        {"server": {"prt": 1}},
        {"server": {"port": 65536}},
        {"server": {"tls": {}}},
        {"server": {"idle_timeout": 0}},
        {"server": {"head_parser": "apache"}},
        {"global": {"max_blob_size": "5 apples"}},
        {"auth": {"identity": {"a:b": {"username": "a", "password": OTHER_HASH}}}},
        {"auth": {"identity": {"a": {"username": "a"}}}},
        {"auth": {"oidc": {"a": {"issuer": "https://example.org", "allowed_algorithms": []}}}},
        {"auth": {"oidc": {"a": {"issuer": "https://me:pass@example.org"}}}},
        {"repository": {"Team": {}}},
        {"ui": {"enabled": True}},
    ],
    ids=str,
)
def test_an_editor_and_the_registry_refuse_the_same(document: dict[str, Any], tmp_path: Path) -> None:
    assert violations(json_schema(), document) != []
    assert main(["check", "-c", str(file_with(tmp_path, written(document)))]) == 1


# --- what loading costs -----------------------------------------------------------------------------------------------

_LIST_MODULES = """
import sys
from pathlib import Path
from angos.runtime.config.schema import load_configuration
load_configuration([Path(name) for name in sys.argv[1:]])
print(*sys.modules)
"""


def modules_after_loading(*files: Path) -> set[str]:
    command = [sys.executable, "-c", _LIST_MODULES, *map(str, files)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_without_files_no_schema_is_loaded() -> None:
    loaded = modules_after_loading()
    assert {"tomllib", "angos.runtime.config.building", "angos.runtime.config.known", "ssl"} & loaded == set()


def test_without_rules_and_tls_nothing_heavy_is_loaded(tmp_path: Path) -> None:
    document = {
        "server": {"port": 0},
        "global": {"trusted_proxies": ["10.0.0.0/8"], "access_policy": {"default": "allow"}},
        "auth": {
            "identity": {"a": {"username": "alice", "password": OTHER_HASH}},
            "oidc": {"ci": {"issuer": "https://example.org"}},
            "token_service": {"secret_key": OTHER_KEY},
            "webhook": {"gate": {"url": "https://example.org", "timeout_ms": 1}},
        },
        "repository": {"team": {"immutable_tags": True}},
        "observability": {"metrics": {"enabled": True}},
    }
    loaded = modules_after_loading(file_with(tmp_path, written(document)))
    assert "angos.runtime.config.building" in loaded
    heavy = {"argon2", "celpy", "cryptography", "jwt", "lark", "prometheus_client", "re2", "ssl"}
    assert heavy & loaded == set()
