"""All keys that there are, and what is said about those that there are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from angos.runtime.config.access_keys import AUTH, GLOBAL, REPOSITORY
from angos.runtime.config.keys import Entry, Named, Section, Tables
from angos.runtime.config.redis_keys import CACHE, LEASES
from angos.runtime.config.server_keys import OBSERVABILITY, SERVER
from angos.runtime.config.store_keys import BLOB_STORE, METADATA_STORE
from angos.runtime.config.toml_text import toml_key, toml_path

SCHEMA = Section(
    "",
    {
        "server": SERVER,
        "global": GLOBAL,
        "blob_store": BLOB_STORE,
        "metadata_store": METADATA_STORE,
        "cache": CACHE,
        "leases": LEASES,
        "auth": AUTH,
        "repository": REPOSITORY,
        "observability": OBSERVABILITY,
    },
)

Pattern = tuple[str, ...]
"""The path of a key, with ``*`` for each name that the operator chooses."""

UNSUPPORTED: frozenset[str] = frozenset(
    {
        "auth.oidc.*.jwks_refresh_timeout_secs",
        "event_webhook",
        "global.atime_audit_window_secs",
        "global.event_webhooks",
        "global.job_queue",
        "global.max_concurrent_replication_jobs",
        "global.namespace_walk_concurrency",
        "metadata_store.s3.link_cache_ttl",
        "observability.tracing",
        "repository.*.downstream",
        "repository.*.event_webhooks",
        "ui",
    }
)
"""Keys of Angos that this version accepts no value for, rather than to ignore what somebody relies on."""

_POLICY = 'it is called default here: default = "allow" or "deny"'
_LOCKS = "leave it out: nothing depends on locks; [leases.redis] lets replicas wait for each other"
OTHER_NAMES: dict[str, str] = {
    "auth.oidc.*.provider": "leave it out: the issuer and required_claims say all that it said",
    "blob_store.fs.lock_strategy": _LOCKS,
    "blob_store.s3.children_scan_concurrency": "leave it out: no listing needs it",
    "blob_store.s3.lock_strategy": _LOCKS,
    "blob_store.fs.root": "did you mean blob_store.fs.root_dir?",
    "cache_store": "did you mean cache?",
    "global.access_policy.default_allow": _POLICY,
    "global.enable_redirect": "it was replaced by enable_blob_redirect and enable_manifest_redirect",
    "global.shutdown_drain_secs": "did you mean server.drain_seconds?",
    "metadata_store.fs.lock_strategy": _LOCKS,
    "metadata_store.s3.access_time_debounce_secs": "did you mean global.pull_time_granularity_secs?",
    "metadata_store.s3.capabilities": "leave it out: what the bucket can is tried at the start",
    "metadata_store.s3.lock_strategy": _LOCKS,
    "repository.*.access_policy.default_allow": _POLICY,
    "server.address": "did you mean server.bind_address?",
    "server.bind_port": "did you mean server.port?",
    "server.host": "did you mean server.bind_address?",
    "storage": "did you mean blob_store?",
}
"""What to write instead of names that other versions, samples and habit suggest."""


def advice(keys: Sequence[str], pattern: Pattern, section: Section) -> str:
    """What to do about a key that there is not. `keys` is its path, `pattern` the same without chosen names, `section`
    where it stands."""
    spelled = ".".join(pattern)
    if spelled in UNSUPPORTED:
        return "not supported by this version yet; leave it out"
    if spelled in OTHER_NAMES:
        return f"unknown key; {OTHER_NAMES[spelled]}"
    return f"unknown key; {_suggestion(keys, pattern, section)}"


def _suggestion(keys: Sequence[str], pattern: Pattern, section: Section) -> str:
    from difflib import get_close_matches  # only needed for a person who has to wait anyway

    *tables, key = keys
    if elsewhere := [path for path in paths(SCHEMA) if path[-1] == key]:
        nearest = max(elsewhere, key=lambda path: _shared(path, pattern))
        shared = _shared(nearest, pattern)
        return f"did you mean {'.'.join([*map(toml_key, keys[:shared]), *nearest[shared:]])}?"
    if near := get_close_matches(key[:100], section.entries, n=1):
        return f"did you mean {toml_path([*tables, near[0]])}?"
    where = f"in [{toml_path(tables)}]" if tables else "at the top"
    return f"known {where}: {', '.join(sorted(section.entries))}"


def _shared(path: Pattern, other: Pattern) -> int:
    """How many tables they have in common, from the top."""
    pairs = zip(path, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def paths(entry: Entry, path: Pattern = ()) -> Iterator[Pattern]:
    """The patterns of everything below an entry that is not itself a chosen name, tables before what is in them."""
    match entry:
        case Section(_, entries):
            for key, below in entries.items():
                yield (*path, key)
                yield from paths(below, (*path, key))
        case Named():
            yield from paths(entry.entry, (*path, "*"))
        case Tables():
            yield from paths(entry.entry, path)
        case _:
            return
