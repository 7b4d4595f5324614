"""Which keys a reload leaves as they are: those that the reference says need a restart, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from angos.runtime.access.settings import ClientTls
from angos.runtime.config.keys import Entry, Key, Named, Tables
from angos.runtime.config.known import SCHEMA
from angos.runtime.config.schema import Configuration, load_configuration
from angos.runtime.reload import keep_until_restart
from angos.runtime.stores.s3.options import Credentials, S3Options
from angos.sansio.secret import Secret

STARTED = """
[blob_store.fs]
root_dir = "/blobs"
[metadata_store.fs]
root_dir = "/metadata"
[cache.redis]
url = "redis://one"
[leases.redis]
url = "redis://:canary@one"
"""

ALL_CHANGED = """
[server]
bind_address = "127.0.0.2"
port = 8001
workers = 2
backlog = 7
transfer_threads = 7
idle_timeout = 7
[global]
max_blob_size = 7
[blob_store.fs]
root_dir = "/other-blobs"
sync_to_disk = false
[metadata_store.fs]
root_dir = "/other-metadata"
sync_to_disk = false
[cache.redis]
url = "redis://two"
key_prefix = "other"
[leases.redis]
url = "redis://:canary@two"
key_prefix = "other"
[observability.metrics]
enabled = true
listen = "127.0.0.1:9090"
[observability.log]
level = "debug"
"""


IN_BUCKETS = """
[blob_store.s3]
endpoint = "https://one.example"
bucket = "one"
region = "one"
access_key_id = "one"
secret_key = "canary"
[metadata_store.s3]
endpoint = "https://one.example"
bucket = "names"
region = "one"
access_key_id = "one"
secret_key = "canary"
"""


def load(text: str) -> Configuration:
    return load_configuration([Path("angos.toml")], [text.encode()])


def in_other_buckets(started: Configuration) -> Configuration:
    """With all other values, and trust for an authority, for which a file would be needed."""
    text = IN_BUCKETS.replace("one", "two").replace("names", "others").replace("canary", "other")
    found = load(text.replace("region =", 'key_prefix = "two"\nregion ='))
    assert isinstance(found.blob_store, S3Options)
    assert isinstance(found.metadata_store, S3Options)
    tls = ClientTls(Path("ca.pem"))
    return replace(
        found, blob_store=replace(found.blob_store, tls=tls), metadata_store=replace(found.metadata_store, tls=tls)
    )


def keys_of_a_restart(entry: Entry, path: str = "") -> Iterator[str]:
    if isinstance(entry, Key):
        if entry.restart:
            yield path
    elif isinstance(entry, Named | Tables):
        yield from keys_of_a_restart(entry.entry, f"{path}.*" if isinstance(entry, Named) else path)
    else:
        for name, part in entry.entries.items():
            yield from keys_of_a_restart(part, f"{path}.{name}" if path else name)


def test_the_log_names_the_keys_that_the_reference_marks() -> None:
    _, lines = keep_until_restart(load(STARTED), load(ALL_CHANGED))
    _, more = keep_until_restart(load(IN_BUCKETS), in_other_buckets(load(IN_BUCKETS)))
    assert sorted(line.partition(":")[0] for line in (*lines, *more)) == sorted(keys_of_a_restart(SCHEMA))
    assert "canary" not in "".join(lines)
    assert "server.port: still 8000, since a change to 8001 needs a restart" in lines
    assert "observability.metrics.listen: still none, since a change to 127.0.0.1:9090 needs a restart" in lines


def test_they_keep_their_values_and_everything_else_changes() -> None:
    started, found = load(STARTED), load(ALL_CHANGED)
    kept, _ = keep_until_restart(started, found)
    assert (kept.cache, kept.leases) == (started.cache, started.leases)
    assert (kept.blob_store, kept.metadata_store) == (started.blob_store, started.metadata_store)
    assert kept.observability.metrics == started.observability.metrics
    assert kept.observability.log == found.observability.log
    assert kept.server == replace(started.server, idle_timeout=7.0)
    assert kept.registry == found.registry


def test_a_bucket_stays_and_is_asked_in_the_new_way() -> None:
    started = load(IN_BUCKETS)
    found = in_other_buckets(started)
    kept, lines = keep_until_restart(started, found)
    for name in ("blob_store", "metadata_store"):
        running, now = getattr(started, name), getattr(kept, name)
        assert now.place == running.place
        assert now.credentials == Credentials("two", Secret("other"))
    assert "other" not in "".join(lines).replace("others", "")


def test_nothing_is_said_when_nothing_of_it_changes() -> None:
    started = load(STARTED)
    assert keep_until_restart(started, started) == (started, ())
    assert keep_until_restart(started, load(f"{STARTED}[global]\nmax_blob_size = 7\n"))[1] == ()


def test_a_metadata_store_that_comes_or_goes_is_named() -> None:
    without = load(STARTED.replace('[metadata_store.fs]\nroot_dir = "/metadata"\n', ""))
    assert keep_until_restart(without, load(STARTED))[1] == (
        "metadata_store: still none, since a change to /metadata needs a restart",
    )
    assert keep_until_restart(load(STARTED), without)[1] == (
        "metadata_store: still /metadata, since a change to none needs a restart",
    )


def test_a_redis_that_comes_or_goes_is_named() -> None:
    without = load(STARTED.partition("[leases")[0])
    assert keep_until_restart(without, load(STARTED))[1] == (
        "leases.redis: still none, since a change to redis://one:6379/0 needs a restart",
    )
    assert keep_until_restart(load(STARTED), without)[1] == (
        "leases.redis: still redis://one:6379/0, since a change to none needs a restart",
    )
