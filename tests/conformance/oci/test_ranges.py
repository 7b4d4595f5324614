"""Ranges of blobs: one, several, none that fits (RFC 9110 section 14; distribution-spec, Pulling blobs)."""

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.repository import Repository, parts_of

SIZE = 2048


@pytest.fixture
def content(repository: Repository) -> bytes:
    """The bytes of the blob."""
    return repository.fresh_bytes(SIZE)


@pytest.fixture
def target(repository: Repository, content: bytes) -> str:
    """Where the blob is."""
    return repository.blob(repository.push_blob(content))


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("bytes=500-1499", 500, 1499),
        ("bytes=500-", 500, 2047),
        ("bytes=-500", 1548, 2047),
        ("bytes=2000-5000", 2000, 2047),
        ("bytes=0-", 0, 2047),
        ("bytes=0-0", 0, 0),
        ("bytes=2047-", 2047, 2047),
        ("bytes=2047-2047", 2047, 2047),
        ("bytes=0-2047", 0, 2047),
        ("bytes=0-999999999999999999", 0, 2047),
        ("bytes=-1", 2047, 2047),
        ("bytes=-99999", 0, 2047),
        ("Bytes=1-2", 1, 2),
        ("bytes= 1-2", 1, 2),
        ("bytes=1-2,", 1, 2),
    ],
)
def test_one_range_is_answered_exactly(
    client: Client, target: str, content: bytes, value: str, start: int, end: int
) -> None:
    answer = client.get(target, [("Range", value)])
    assert answer.status == 206
    assert answer.body == content[start : end + 1]
    assert answer["content-range"] == f"bytes {start}-{end}/{SIZE}"
    assert answer.size == end - start + 1
    assert answer["docker-content-digest"] in target
    assert answer["etag"] == f'"{answer["docker-content-digest"]}"'
    assert answer["accept-ranges"] == "bytes"
    assert answer["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "value",
    [
        "bytes=5000-10000",
        "bytes=2048-",
        "bytes=2048-2049",
        "bytes=-0",
        "bytes=500-0",
        "bytes=5000-,6000-7000",
        "bytes=999999999999999999-",
    ],
)
def test_ranges_beyond_the_end_are_not_satisfiable(client: Client, target: str, value: str) -> None:
    answer = client.get(target, [("Range", value)])
    refused(answer, 416)
    assert answer["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize("value", ["lines=1-2", "items=0-5", "bytes", "", "0-5", "none=-1"])
def test_unknown_units_are_ignored(client: Client, target: str, content: bytes, value: str) -> None:
    answer = client.get(target, [("Range", value)])
    assert (answer.status, answer.body) == (200, content)
    assert answer.get("content-range") is None


@pytest.mark.parametrize(
    "value",
    [
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1--2",
        "bytes=1-2-3",
        "bytes=--5",
        "bytes=1.5-2",
        "bytes=0x0-1",
        "bytes=\xb2-3",
        "bytes=1 -2",
        "bytes=,,,",
        "bytes=+1-2",
    ],
)
def test_a_malformed_range_is_ignored_or_not_satisfiable(
    client: Client, target: str, content: bytes, value: str
) -> None:
    answer = client.get(target, [("Range", value)])
    if answer.status == 200:
        assert answer.body == content
    else:
        refused(answer, 416)
        assert answer["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-9,20-29", [(0, 9), (20, 29)]),
        ("bytes=0-9, 10-19 ,20-29", [(0, 9), (10, 19), (20, 29)]),
        ("bytes=100-199,0-49", [(100, 199), (0, 49)]),
        ("bytes=0-99,50-149", [(0, 99), (50, 149)]),
        ("bytes=5-5,5-5", [(5, 5), (5, 5)]),
        ("bytes=-10,0-9", [(2038, 2047), (0, 9)]),
        ("bytes=0-9,5000-6000,20-29", [(0, 9), (20, 29)]),
        ("bytes=,0-1,,2-3,", [(0, 1), (2, 3)]),
    ],
)
def test_several_ranges_come_as_parts_in_the_order_asked(
    client: Client, target: str, content: bytes, value: str, expected: list[tuple[int, int]]
) -> None:
    answer = client.get(target, [("Range", value)])
    assert answer.status == 206
    assert answer.get("content-range") is None
    parts = parts_of(answer)
    assert [fields["content-range"] for fields, _ in parts] == [f"bytes {a}-{b}/{SIZE}" for a, b in expected]
    assert [fields["content-type"] for fields, _ in parts] == ["application/octet-stream"] * len(parts)
    assert [part for _, part in parts] == [content[a : b + 1] for a, b in expected]


def test_one_satisfiable_range_of_several_is_answered(client: Client, target: str, content: bytes) -> None:
    answer = client.get(target, [("Range", "bytes=5000-,10-19")])
    assert answer.status == 206
    if answer.get("content-range"):
        assert answer["content-range"] == f"bytes 10-19/{SIZE}"
        assert answer.body == content[10:20]
    else:
        assert [part for _, part in parts_of(answer)] == [content[10:20]]


def test_hundreds_of_ranges_are_answered(client: Client, target: str, content: bytes) -> None:
    starts = list(range(0, 250 * 8, 8))
    answer = client.get(target, [("Range", "bytes=" + ",".join(f"{start}-{start + 3}" for start in starts))])
    assert answer.status == 206
    assert [part for _, part in parts_of(answer)] == [content[start : start + 4] for start in starts]


def test_too_many_ranges_are_not_a_way_to_multiply_work(client: Client, target: str, content: bytes) -> None:
    # podman splits its request after 400 and copes with 200; anything else it takes for a failure.
    answer = client.get(target, [("Range", "bytes=" + ",".join(["0-2047"] * 700))])
    if answer.status == 200:
        assert answer.body == content
    else:
        refused(answer, 400)


@pytest.mark.parametrize("value", ["bytes=0-,0-", "bytes=2040-,0-", "bytes=" + ",".join(["0-"] * 200)])
def test_ranges_that_ask_for_more_than_there_is_are_not_multiplied(
    client: Client, target: str, content: bytes, value: str
) -> None:
    # RFC 9110 section 14.2 allows to ignore many overlapping ranges.
    answer = client.get(target, [("Range", value)])
    assert answer.status in (200, 206)
    assert answer.status == 206 or answer.body == content
    assert len(answer.body) <= 3 * SIZE


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=0-,5-"])
def test_a_range_of_a_blob_without_bytes_is_the_blob_or_not_satisfiable(
    repository: Repository, client: Client, value: str
) -> None:
    # Some clients send a range with every request; Go's server answers 200 to them as well.
    answer = client.get(repository.blob(repository.push_blob(b"")), [("Range", value)])
    if answer.status == 200:
        assert answer.body == b""
    else:
        refused(answer, 416)
        assert answer["content-range"] == "bytes */0"


@pytest.mark.parametrize("value", ["bytes=0-99999999999999999999999", "bytes=99999999999999999999999-"])
def test_numbers_beyond_all_sizes_are_no_trouble(client: Client, target: str, content: bytes, value: str) -> None:
    answer = client.get(target, [("Range", value)])
    assert answer.status in (200, 206, 416)
    assert answer.status == 416 or answer.body == content


def test_head_ignores_ranges(client: Client, target: str) -> None:
    answer = client.head(target, [("Range", "bytes=0-9")])
    assert (answer.status, answer.size) == (200, SIZE)
    assert answer.get("content-range") is None
    assert client.head(target, [("Range", "bytes=5000-")]).status == 200


def test_a_manifest_is_given_whole_or_in_the_range_asked(repository: Repository, client: Client) -> None:
    manifest, _ = repository.push_image("latest")
    answer = client.get(repository.manifest("latest"), [("Range", "bytes=1-4")])
    assert (answer.status, answer.body) in [(200, manifest), (206, manifest[1:5])]


def test_a_range_of_a_missing_blob_is_404(repository: Repository, client: Client) -> None:
    repository.push_image("latest")
    refused(client.get(repository.blob("sha256:" + "0" * 64), [("Range", "bytes=0-5")]), 404, "BLOB_UNKNOWN")


def test_a_blob_can_be_read_to_the_end_in_pieces(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(1_000_003)
    target = repository.blob(repository.push_blob(content, "stream"))
    found = b""
    while len(found) < len(content):
        answer = client.get(target, [("Range", f"bytes={len(found)}-{len(found) + 99_999}")])
        assert answer.status == 206
        found += answer.body
    assert found == content


def test_a_pull_that_was_cut_continues_where_it_stopped(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(3_000_000)
    target = repository.blob(repository.push_blob(content))
    connection = client.connect()
    connection.send(f"GET {target} HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode())
    assert connection.answer("GET", target, head_only=True).size == len(content)
    start = connection.receive(100_000)
    connection.close()
    answer = client.get(target, [("Range", f"bytes={len(start)}-")])
    assert answer["content-range"] == f"bytes 100000-2999999/{len(content)}"
    assert start + answer.body == content
