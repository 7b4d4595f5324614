"""A bucket of a real server in which processes were killed: what they had begun to send is aborted, nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from angos.runtime.clock import SystemClock
from angos.runtime.driver import drive
from angos.runtime.entropy import SystemEntropy
from angos.runtime.leases.local import LocalLeases
from angos.runtime.performer import RequestPerformer, Services
from angos.runtime.stores.s3 import multipart, objects
from angos.runtime.stores.s3.bucket import Bucket
from angos.runtime.stores.s3.options import S3Options
from angos.runtime.stores.s3.store import S3Store
from angos.sansio import layout
from angos.sansio.bucket.requests import BeginPieces, Put, PutPiece
from angos.sansio.collection.expiry import Expired, discard_abandoned
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace
from angos.sansio.operation import Operation
from tests.conformance.runtime.example_configuration import written
from tests.conformance.s3_process import S3Process, StoredBucket

BLOB = layout.blob_key(Digest.of(b"promoted out of many parts"))
LIVE, GONE = (layout.upload_prefix(Namespace("a"), f"{each}0000000-0000-4000-8000-000000000000") for each in (1, 2))
ABANDONED = (BLOB, f"{GONE}part.p")
KEPT = (f"{LIVE}part.p", "v2/repositories/a/_uploads/0c3b6f0e-d3f2-4b1e-9d11-6a3d52a1f2ff/data", "backup/of/others")


def gc(bucket: StoredBucket, folder: Path) -> dict[str, int]:
    """What ``angos gc`` came to."""
    file = folder / "angos.toml"
    file.write_text(written({"blob_store": {"s3": bucket.table()}}))
    command = [sys.executable, "-m", "angos.runtime", "gc", "--json", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


async def begin(options: S3Options) -> None:
    """Each gets its first piece, and its process is killed then. One of the uploads goes on."""
    bucket = Bucket(options)
    for key in (*ABANDONED, *KEPT):
        upload_id = await multipart.begin(bucket, BeginPieces(key))
        await multipart.put(bucket, PutPiece(key, upload_id, 1, (b"piece",)))
    await objects.put(bucket, Put(f"{LIVE}session", (b"{}",)))
    await bucket.close()


async def discard_two_hours_later(options: S3Options) -> Expired:
    """What is found by a collector with an expiry of an hour."""
    store = S3Store(options)
    services = Services(store, store, LocalLeases(), SystemClock(), SystemEntropy())
    now_ms = int((time.time() + 7200) * 1000)
    try:
        return await drive(Operation(discard_abandoned(now_ms, 3600.0)), RequestPerformer(services, {}))
    finally:
        await store.close()


def test_multipart_uploads_of_killed_processes_are_aborted_and_no_others() -> None:
    """Below a key prefix, as in a bucket that others use too. As long as they are young all of them stay."""
    with TemporaryDirectory() as name, S3Process(Path(name), keeps=False) as server:
        bucket = server.bucket("shared", "some/where/")
        bucket.make()
        anyio.run(begin, bucket.options)
        done = gc(bucket, Path(name))
        assert (done["unfinished"], done["uploads"], done["passed_over"]) == (0, 0, 0)
        assert len(bucket.open_uploads()) == 5
        assert anyio.run(discard_two_hours_later, bucket.options) == Expired(2)
        assert sorted(key for key, _ in bucket.open_uploads()) == sorted(KEPT)
