"""Uploads in chunks: order, status, resumption, and two writers (distribution-spec, Pushing a blob in chunks)."""

import threading
import time

import pytest

from tests.conformance.http_client import Answer, Client, chunked, refused, request_head
from tests.conformance.oci.content import digest_of
from tests.conformance.oci.repository import Repository, pieces_of

CONTENT_RANGES = [
    "{start}-{end}",
    "bytes {start}-{end}/{size}",
    "bytes={start}-{end}",
    "{start}-{end}/{size}",
    "bytes {start}-{end}/*",
    "bytes {start}-{end}",
]


@pytest.mark.parametrize("spelling", CONTENT_RANGES)
def test_every_spelling_of_content_range_is_understood(repository: Repository, client: Client, spelling: str) -> None:
    content = repository.fresh_bytes(3067)
    location = repository.start_upload()
    sent = 0
    for piece in pieces_of(content, 1024):
        value = spelling.format(start=sent, end=sent + len(piece) - 1, size=len(content))
        answer = client.patch(location, piece, [("Content-Range", value)])
        sent += len(piece)
        assert answer.status == 202
        assert answer["range"] == f"0-{sent - 1}"
        location = answer.location
    assert repository.complete(location, digest_of(content)).status == 201
    assert repository.pull_blob(digest_of(content)) == content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("last_in_put", [False, True])
def test_a_chunk_out_of_order_is_refused_and_changes_nothing(
    repository: Repository, client: Client, algorithm: str, last_in_put: bool
) -> None:
    content = repository.fresh_bytes(3067)
    location = repository.start_upload()
    sent = 0
    pieces = pieces_of(content, 1024)
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1
        for wrong in {sent + 1024, max(sent - 1024, 0), 0, sent + 1} - {sent}:
            if is_last and last_in_put:
                digest = digest_of(content, algorithm)
                headers = [("Content-Range", f"{wrong}-{wrong + len(piece) - 1}")]
                answer = repository.complete(location, digest, piece, headers)
            else:
                answer = repository.append(location, piece, wrong)
            _expect_out_of_order(client, answer, sent)
        if not (is_last and last_in_put):
            answer = repository.append(location, piece, sent)
            assert answer.status == 202
            sent += len(piece)
            assert answer["range"] == f"0-{sent - 1}"
            location = answer.location
    rest, headers = content[sent:], [("Content-Range", f"{sent}-{len(content) - 1}")]
    digest = digest_of(content, algorithm)
    answer = repository.complete(location, digest, rest, headers) if rest else repository.complete(location, digest)
    assert answer.status == 201
    assert repository.pull_blob(digest) == content


def _expect_out_of_order(client: Client, answer: Answer, sent: int) -> None:
    refused(answer, 416, "BLOB_UPLOAD_INVALID")
    shown = f"0-{max(sent - 1, 0)}"
    assert answer["range"] == shown
    status = client.get(answer.location)
    assert status.status == 204
    assert status["range"] == shown
    assert status.location


def test_retrying_a_chunk_that_arrived_is_out_of_order(repository: Repository) -> None:
    content = repository.fresh_bytes()
    location = repository.append(repository.start_upload(), content, 0).location
    refused(repository.append(location, content, 0), 416, "BLOB_UPLOAD_INVALID")
    assert repository.complete(location, digest_of(content)).status == 201


@pytest.mark.parametrize(
    "value",
    [
        "nonsense",
        "5-2",
        "-",
        "0-",
        "-5",
        "a-b",
        "0-511-600",
        "0--1",
        "bytes",
        "chars 0-511/512",
        "0-99999999999999999999999",
        "\u0660-\u0665",
        "+0-511",
        "0x0-511",
    ],
)
def test_a_malformed_content_range_is_refused_and_changes_nothing(
    repository: Repository, client: Client, value: str
) -> None:
    location = repository.start_upload()
    headers = [("Content-Range", value.encode().decode("latin-1"))]
    answer = client.patch(location, repository.fresh_bytes(512), headers)
    refused(answer, (400, 416), {"BLOB_UPLOAD_INVALID", "SIZE_INVALID"})
    assert client.get(location)["range"] == "0-0"


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("end", [510, 512, 1000])
def test_a_content_range_of_another_length_is_refused_and_nothing_kept(
    repository: Repository, client: Client, end: int, is_chunked: bool
) -> None:
    content = repository.fresh_bytes(512)
    location = repository.start_upload()
    answer = client.patch(location, [content] if is_chunked else content, [("Content-Range", f"0-{end}")])
    refused(answer, 400, "SIZE_INVALID")
    assert client.get(location)["range"] == "0-0"
    assert repository.complete(location, digest_of(content), content).status == 201


def test_a_chunked_patch_may_have_a_content_range(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(2000)
    location = repository.start_upload()
    for start in (0, 1000):
        headers = [("Content-Range", f"{start}-{start + 999}")]
        answer = client.patch(location, pieces_of(content[start : start + 1000], 300), headers)
        assert answer.status == 202
        assert answer["range"] == f"0-{start + 999}"
    assert repository.complete(location, digest_of(content)).status == 201


def test_patches_without_content_range_append(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(1000)
    location = repository.start_upload()
    assert client.patch(location, content[:300])["range"] == "0-299"
    assert client.patch(location, [content[300:400], content[400:700]])["range"] == "0-699"
    assert repository.append(location, content[700:], 700)["range"] == "0-999"
    assert repository.complete(location, digest_of(content)).status == 201
    assert repository.pull_blob(digest_of(content)) == content


def test_a_put_without_content_range_appends_its_body(repository: Repository) -> None:
    content = repository.fresh_bytes(1000)
    location = repository.start_upload()
    assert repository.append(location, content[:600], 0).status == 202
    assert repository.complete(location, digest_of(content), [content[600:]]).status == 201
    assert repository.pull_blob(digest_of(content)) == content


def test_the_first_location_answers_for_the_whole_upload(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(1536)
    first = location = repository.start_upload()
    assert client.get(first)["range"] == "0-0"
    for number, piece in enumerate(pieces_of(content, 512), 1):
        location = repository.append(location, piece, (number - 1) * 512).location
        status = client.get(first)
        assert status.status == 204
        assert status["range"] == f"0-{number * 512 - 1}"
        assert client.get(status.location).status == 204
    assert repository.complete(location, digest_of(content)).status == 201


def test_stray_parameters_on_an_upload_are_ignored(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(100)
    location = repository.start_upload()
    assert client.patch(f"{location}?digest=sha256:stray&_state=1&ns=x", content).status == 202
    status = client.get(f"{location}?digest={digest_of(b'stray')}")
    assert (status.status, status["range"]) == (204, "0-99")
    assert repository.complete(location, digest_of(content)).status == 201


def test_an_upload_is_not_a_blob_before_its_end(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes()
    location = repository.start_upload()
    assert repository.append(location, content, 0).status == 202
    assert not repository.has_blob(digest_of(content))
    refused(client.get(repository.blob(digest_of(content))), 404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("with_length", [True, False])
@pytest.mark.parametrize("with_range", [True, False])
def test_what_arrived_before_a_cut_is_kept_and_can_be_continued(
    repository: Repository, client: Client, with_length: bool, with_range: bool
) -> None:
    content = repository.fresh_bytes(10_000)
    location = repository.start_upload()
    assert repository.append(location, content[:1000], 0).status == 202
    headers = [("Host", client.host)]
    if with_range:
        headers.append(("Content-Range", "1000-9999"))
    connection = client.connect()
    if with_length:
        connection.send(request_head("PATCH", location, [*headers, ("Content-Length", "9000")]))
        connection.send(content[1000:5000])
    else:
        connection.send(request_head("PATCH", location, [*headers, ("Transfer-Encoding", "chunked")]))
        for piece in chunked([content[1000:3000]], end=False):
            connection.send(piece)
        connection.send(b"%x\r\n" % 4000 + content[3000:5000])
    connection.close()
    assert _settled_range(client, location, "0-4999") == "0-4999"
    refused(repository.append(location, content[1000:], 1000), 416, "BLOB_UPLOAD_INVALID")
    assert repository.append(location, content[5000:], 5000).status == 202
    assert repository.complete(location, digest_of(content)).status == 201
    assert repository.pull_blob(digest_of(content)) == content


def test_a_cut_put_stores_nothing_and_can_be_continued(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(10_000)
    digest = digest_of(content)
    location = repository.start_upload()
    connection = client.connect()
    head = request_head("PUT", f"{location}?digest={digest}", [("Host", client.host), ("Content-Length", "10000")])
    connection.send(head + content[:6000])
    connection.close()
    assert _settled_range(client, location, "0-5999") == "0-5999"
    assert not repository.has_blob(digest)
    headers = [("Content-Range", "6000-9999")]
    assert repository.complete(location, digest, content[6000:], headers).status == 201
    assert repository.pull_blob(digest) == content


def _settled_range(client: Client, location: str, expected: str) -> str:
    # The server learns of the cut at its own pace.
    deadline = time.monotonic() + 15
    while (shown := client.get(location)["range"]) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    return shown


def test_starting_again_from_the_first_byte_is_out_of_order(repository: Repository) -> None:
    content = repository.fresh_bytes(1000)
    location = repository.start_upload()
    assert repository.append(location, content[:500], 0).status == 202
    answer = repository.append(location, content, 0)
    refused(answer, 416, "BLOB_UPLOAD_INVALID")
    assert answer["range"] == "0-499"
    assert repository.append(answer.location, content[500:], 500).status == 202
    assert repository.complete(location, digest_of(content)).status == 201


def test_two_writers_of_the_same_chunk_never_mix(repository: Repository, client: Client) -> None:
    contents = [repository.fresh_bytes(200_000) for _ in range(4)]
    location = repository.start_upload()
    answers: list[Answer | None] = [None] * len(contents)

    def write(number: int) -> None:
        with Client(client.host, client.port) as writer:
            answers[number] = Repository(writer, repository.name).append(location, contents[number], 0)

    _side_by_side([threading.Thread(target=write, args=(number,)) for number in range(len(contents))])
    written = [number for number, answer in enumerate(answers) if answer is not None and answer.status == 202]
    assert len(written) == 1
    for answer in answers:
        assert answer is not None
        assert answer.status == 202 or set(answer.codes) <= {"BLOB_UPLOAD_INVALID", "TOOMANYREQUESTS", "UNAVAILABLE"}
        assert answer.status in (202, 409, 416, 429, 503)
    assert client.get(location)["range"] == "0-199999"
    content = contents[written[0]]
    assert repository.complete(location, digest_of(content)).status == 201
    assert repository.pull_blob(digest_of(content)) == content


def test_two_writers_without_ranges_append_one_after_the_other(repository: Repository, client: Client) -> None:
    contents = [repository.fresh_bytes(100_000) for _ in range(2)]
    location = repository.start_upload()
    answers: list[Answer] = []

    def write(content: bytes) -> None:
        with Client(client.host, client.port) as writer:
            answers.append(writer.patch(location, pieces_of(content, 7000)))

    _side_by_side([threading.Thread(target=write, args=(content,)) for content in contents])
    assert sorted(answer["range"] for answer in answers if answer.status == 202) == ["0-199999", "0-99999"]
    first, second = contents
    statuses = {
        order: repository.complete(location, digest_of(order)).status for order in (first + second, second + first)
    }
    assert 201 in statuses.values()
    whole = next(order for order, status in statuses.items() if status == 201)
    assert repository.pull_blob(digest_of(whole)) == whole


def test_two_puts_of_one_upload_both_succeed(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(50_000)
    location = repository.start_upload()
    assert repository.append(location, content, 0).status == 202
    answers: list[Answer] = []

    def close() -> None:
        with Client(client.host, client.port) as writer:
            answers.append(Repository(writer, repository.name).complete(location, digest_of(content)))

    _side_by_side([threading.Thread(target=close) for _ in range(3)])
    assert [answer.status for answer in answers] == [201] * 3
    assert repository.pull_blob(digest_of(content)) == content


def _side_by_side(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
