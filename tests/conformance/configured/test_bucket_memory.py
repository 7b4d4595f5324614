"""However long uploads to a bucket are, each takes the memory of a part or two."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.client import Connection, close_upload, open_upload, patch_upload, wait_until_listening
from benchmarks.content import Content, ContentMaker
from tests.conformance.configured.configured_registry import Start

UPLOADS = 8
SIZE = 64 << 20
PARTS_MIB = 2 * 5 * UPLOADS
REST_MIB = 40  # threads with their buffers, hashes, what the allocator keeps


@pytest.fixture
def sink() -> Iterator[int]:
    """The port of a server of S3 that keeps nothing of large bodies."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    root = Path(__file__).parents[3]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.sink", str(port)], cwd=root, stdin=subprocess.DEVNULL)
    try:
        wait_until_listening(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


def test_long_uploads_side_by_side_take_the_memory_of_their_parts(start: Start, sink: int) -> None:
    table = {
        "endpoint": f"http://127.0.0.1:{sink}",
        "bucket": "registry",
        "region": "us-east-1",
        "access_key_id": "AKIDONE",
        "secret_key": "not-really-a-secret",
    }
    registry = start({"blob_store": {"s3": table}})
    _, port = registry.at
    maker = ContentMaker(SIZE)

    def push(content: Content, chunked: bool) -> None:
        with Connection(port) as connection:
            target = patch_upload(connection, open_upload(connection, "some/image"), content, chunked)
            close_upload(connection, target, content)

    push(ContentMaker(6 << 20).make(), True)  # whatever is imported and kept is there from now on
    before = _peak_mib(registry._process.pid)
    with ThreadPoolExecutor(UPLOADS) as pool:
        for pushed in [pool.submit(push, maker.make(), number % 2 == 0) for number in range(UPLOADS)]:
            pushed.result()
    assert _peak_mib(registry._process.pid) - before <= PARTS_MIB + REST_MIB < UPLOADS * SIZE >> 20


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
