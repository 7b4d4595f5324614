"""What only a store in a bucket can get wrong: signatures, lost answers, refusals, listings that are cut off."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.runtime.stores.s3.breaker import Breaker
from angos.runtime.stores.s3.options import PART_BYTES_MAX, PART_BYTES_MIN, Credentials
from angos.runtime.stores.s3.remembered_stats import RememberedStats
from angos.runtime.stores.s3.signing import presigned_query, query_text, signed_fields
from angos.runtime.stores.s3.staging import piece_bytes
from angos.sansio.bucket.joining import PIECES_MAX, pieces_of
from angos.sansio.bucket.requests import Terms
from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    DiscardPart,
    HashParts,
    Key,
    ListFolders,
    ListKeys,
    Page,
    Part,
    Prefix,
    ReadKey,
    Stat,
    StatKey,
    StorageCorrupt,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from angos.sansio.secret import Secret
from tests.conformance.contracts.s3_faults import CANARY, TOKEN, ask, listing, refused
from tests.conformance.scripted_server import SILENT, Asked, Said, ScriptedServer, said

KEY = Key("v2/cat/n!")
PREFIX = Prefix("v2/cat/")

# --- signatures -------------------------------------------------------------------------------------------------------
#
# The examples of the Amazon S3 API Reference, "Signature Calculations: Transferring a Payload in a Single Chunk".

EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))
NOTHING = hashlib.sha256().hexdigest()
AT_SECONDS = 1369353600  # 2013-05-24T00:00:00Z


@pytest.mark.parametrize(
    ("method", "path", "query", "fields", "payload", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {},
            {"range": "bytes=0-9"},
            NOTHING,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            {},
            {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            hashlib.sha256(b"Welcome to Amazon S3.").hexdigest(),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/",
            {"lifecycle": ""},
            {},
            NOTHING,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/",
            {"prefix": "J", "max-keys": "2"},
            {},
            NOTHING,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_signatures_are_those_of_the_published_examples(
    method: str, path: str, query: dict[str, str], fields: dict[str, str], payload: str, signature: str
) -> None:
    signed = signed_fields(
        method,
        path,
        query_text(query),
        {"host": "examplebucket.s3.amazonaws.com", **fields},
        payload,
        credentials=EXAMPLE,
        region="us-east-1",
        at_seconds=AT_SECONDS,
    )
    assert signed["authorization"].endswith(f"Signature={signature}")


def test_a_signed_url_is_that_of_the_published_example() -> None:
    """Amazon S3 API Reference, "Authenticating Requests: Using Query Parameters"."""
    query = presigned_query(
        "/test.txt",
        "examplebucket.s3.amazonaws.com",
        credentials=EXAMPLE,
        region="us-east-1",
        at_seconds=AT_SECONDS,
        lifetime_seconds=86400,
    )
    assert query == (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


# --- limits of multipart uploads --------------------------------------------------------------------------------------

SIZES = st.one_of(st.integers(0, 100), st.integers(PART_BYTES_MIN - 2, PART_BYTES_MIN + 2), st.integers(0, 1 << 37))


def terms(copy_piece_bytes: int, uniform: int | None = None) -> Terms:
    """Those of Amazon's store."""
    return Terms(
        "bucket",
        PART_BYTES_MIN,
        PART_BYTES_MAX,
        PART_BYTES_MAX,
        copy_piece_bytes,
        4,
        3,
        uniform_piece_bytes=uniform,
    )


@given(
    sizes=st.lists(SIZES, max_size=30),
    piece=st.integers(PART_BYTES_MIN, PART_BYTES_MAX),
    uniform=st.none() | st.just(1 << 30),
)
def test_pieces_are_all_the_bytes_in_order_within_the_limits(sizes: list[int], piece: int, uniform: int | None) -> None:
    pieces = pieces_of(sizes, terms(piece, uniform))
    where = [(each.part, each.start, each.length) for one in pieces for each in one]
    expected = iter([(part, 0) for part, size in enumerate(sizes) if size])
    part, end = -1, 0
    for index, start, length in where:
        if index != part:
            assert part == -1 or end == sizes[part]
            assert (index, start) == next(expected)
        else:
            assert start == end
        part, end = index, start + length
    assert sum(length for _, _, length in where) == sum(sizes)
    lengths = [sum(each.length for each in one) for one in pieces]
    assert all(PART_BYTES_MIN <= length <= PART_BYTES_MAX for length in lengths[:-1])
    assert len(pieces) <= PIECES_MAX
    if uniform is None:
        copied = max((one[0].length for one in pieces if len(one) == 1), default=0)
        assert copied <= max(piece, 2 * PART_BYTES_MIN, 2 * sum(sizes) // (PIECES_MAX - 1) + 2)
    else:
        assert all(length == max(uniform, -(-sum(sizes) // PIECES_MAX)) for length in lengths[:-1])


def test_more_parts_than_pieces_are_allowed_become_one_object() -> None:
    pieces = pieces_of([PART_BYTES_MIN + 1] * 12_000, terms(100_000_000))
    assert len(pieces) <= PIECES_MAX
    assert sum(each.length for one in pieces for each in one) == 12_000 * (PART_BYTES_MIN + 1)


def test_ten_thousand_growing_pieces_hold_half_a_terabyte() -> None:
    size = 0
    for _ in range(PIECES_MAX):
        size += piece_bytes(size, PART_BYTES_MIN)
    assert size > 500_000_000_000
    assert piece_bytes(0, PART_BYTES_MIN) == PART_BYTES_MIN


# --- the breaker ------------------------------------------------------------------------------------------------------


def test_an_open_breaker_lets_one_probe_through_after_a_while() -> None:
    now = 0.0
    breaker = Breaker(3, 10.0, lambda: now)
    for _ in range(3):
        assert breaker.admit() is None
        breaker.failed()
    assert breaker.admit() == 10.0
    now = 10.0
    assert breaker.admit() is None
    assert breaker.admit() is not None, "one probe at a time"
    breaker.abandoned()
    assert breaker.admit() is None, "a probe that was given up makes room for another one"
    breaker.failed()
    assert breaker.admit() == 10.0
    now = 20.0
    assert breaker.admit() is None
    breaker.succeeded()
    assert breaker.admit() is None


def test_a_success_in_between_keeps_the_breaker_closed() -> None:
    breaker = Breaker(2, 10.0, lambda: 0.0)
    for _ in range(5):
        breaker.failed()
        breaker.succeeded()
    assert breaker.admit() is None


def test_a_store_that_fails_is_spared_by_every_kind_of_call() -> None:
    effects = [ReadKey(KEY), StatKey(KEY), ListKeys(PREFIX), CreateKeys(((KEY, b""),)), DeleteKeys((KEY,))]
    with ScriptedServer(lambda _: refused("503 Slow Down", "SlowDown")) as server:
        replies = ask(server, *effects, attempts=2, breaker_threshold=4, breaker_cooldown_seconds=1000.0)
    assert len(server.asked) == 4
    assert all(isinstance(reply, StorageUnavailable) for reply in replies)
    assert all("not asked" in str(reply) for reply in replies[2:])


# --- answers that are lost, late or cut short -------------------------------------------------------------------------


def script(*answers: Said) -> Iterator[Said]:
    """These answers in turn, the last one for ever."""
    yield from answers
    while True:
        yield answers[-1]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "failure",
    [
        Said((), "close"),
        Said((b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",), "close"),
        refused("503 Slow Down", "SlowDown"),
        refused("500 Internal Server Error", "InternalError"),
        said(status="502 Bad Gateway"),
        Said((b"nonsense\r\n\r\n",), "close"),
    ],
    ids=["closed", "cut", "slow down", "error", "gateway", "nonsense"],
)
def test_a_call_that_failed_is_made_again(failure: Said, backend: str) -> None:
    answers = script(failure, failure, said(b"value"))
    with ScriptedServer(lambda _: next(answers)) as server:
        assert ask(server, ReadKey(KEY), backend=backend) == [b"value"]


def test_a_silent_store_is_given_up_and_named() -> None:
    with ScriptedServer(lambda _: SILENT) as server:
        (reply,) = ask(server, ReadKey(KEY), attempts=2, attempt_seconds=0.2)
    assert isinstance(reply, StorageUnavailable)
    assert "reading v2/cat/n!" in str(reply)
    assert "bucket images" in str(reply)
    assert "silent" in str(reply)


def test_a_store_that_is_not_there_is_unavailable_and_never_absent() -> None:
    with ScriptedServer(lambda _: SILENT) as server:
        pass
    for reply in ask(server, ReadKey(KEY), StatKey(KEY), ListKeys(PREFIX), CreateKeys(((KEY, b""),)), attempts=1):
        assert isinstance(reply, StorageUnavailable)


@pytest.mark.parametrize("used", [False, True], ids=["new connection", "used connection"])
def test_a_creation_whose_answer_was_lost_is_known_by_its_writer(*, used: bool) -> None:
    """On a connection that was used before, an end without an answer is as a rule that of an idle connection, and the
    request is sent again at once. But the store may have carried it out and ended then: a replica that took the name
    for somebody else's threw the bytes away that it stands for, and told the client that they are there."""
    writers: list[str] = []

    def serve(asked: Asked) -> Said:
        if asked.line.startswith("GET"):
            date = "Last-Modified: Fri, 24 May 2013 00:00:00 GMT"
            return said(b"value", "200 OK", date, f"x-amz-meta-angos-writer: {writers[0] if writers else 'nobody'}")
        writers.extend(asked.values("x-amz-meta-angos-writer"))
        assert asked.values("if-none-match") == ["*"]
        return Said((), "close") if len(writers) == 1 else refused("412 Precondition Failed", "PreconditionFailed")

    before = [ReadKey(KEY)] if used else []
    with ScriptedServer(serve) as server:
        assert ask(server, *before, CreateKeys(((KEY, b""),)))[-1] == (True,)
        assert len(writers) == 2
        assert len(set(writers)) == 1
        writers[0] = "somebody-else"
        writers.append("so that the first attempt is answered")
        assert ask(server, *before, CreateKeys(((KEY, b""),)))[-1] == (False,)


def test_a_creation_that_something_on_the_way_sends_twice_is_known_by_its_writer() -> None:
    """A proxy that gets no answer in time sends a PUT again by itself, and tells of the second one."""
    writers: list[str] = []

    def serve(asked: Asked) -> Said:
        if asked.line.startswith("GET"):
            date = "Last-Modified: Fri, 24 May 2013 00:00:00 GMT"
            return said(b"", "200 OK", date, f"x-amz-meta-angos-writer: {writers[0]}")
        writers.extend(asked.values("x-amz-meta-angos-writer"))
        return refused("412 Precondition Failed", "PreconditionFailed")

    with ScriptedServer(serve) as server:
        assert ask(server, CreateKeys(((KEY, b""),))) == [(True,)]
        assert ask(server, CreateKeys(((KEY, b""),))) == [(False,)], "it was made by the one before"


def test_a_conflict_with_another_request_settles_nothing_and_is_tried_again() -> None:
    answers = script(refused("409 Conflict", "ConditionalRequestConflict"), said())
    with ScriptedServer(lambda _: next(answers)) as server:
        assert ask(server, CreateKeys(((KEY, b""),))) == [(True,)]


@pytest.mark.parametrize("used", [False, True], ids=["new connection", "used connection"])
def test_a_refusal_after_a_lost_answer_is_not_definite(*, used: bool) -> None:
    before = [said(b"value")] if used else []
    answers = script(*before, Said((), "close"), refused("403 Forbidden", "AccessDenied"))
    with ScriptedServer(lambda _: next(answers)) as server:
        reply = ask(server, *([ReadKey(KEY)] * used), CreateKeys(((KEY, b""),)))[-1]
    assert isinstance(reply, StorageUnavailable)


def test_a_download_goes_on_where_it_broke_off() -> None:
    content = bytes(range(200))

    def serve(asked: Asked) -> Said:
        if "list-type" in asked.target or asked.line.startswith("HEAD"):
            return said(b"", "200 OK", "Last-Modified: Fri, 24 May 2013 00:00:00 GMT", length=len(content))
        start = int(asked.values("range")[0].partition("=")[2].partition("-")[0])
        rest = content[start:]
        field = f"Content-Range: bytes {start}-199/200"
        return said(rest[:70], "206 Partial Content", field, length=len(rest), then="close")

    with ScriptedServer(serve) as server:
        effect = HashParts(Prefix("v2/repositories/n/_uploads/u/u."), (Part("p", 200),), "sha256")
        assert ask(server, effect, attempts=2) == [hashlib.sha256(content).hexdigest()]


def test_a_stored_part_that_is_too_short_is_corrupt() -> None:
    def serve(asked: Asked) -> Said:
        if asked.line.startswith("HEAD"):
            return said(b"", "200 OK", "Last-Modified: Fri, 24 May 2013 00:00:00 GMT", length=200)
        return said(b"x" * 100, "206 Partial Content", "Content-Range: bytes 0-99/100")

    with ScriptedServer(serve) as server:
        (reply,) = ask(server, HashParts(Prefix("v2/repositories/n/_uploads/u/u."), (Part("p", 200),), "sha256"))
    assert isinstance(reply, StorageCorrupt)


# --- listings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        listing("v2/cat/a!", truncated="true"),
        listing("v2/cat/a!", truncated=""),
        listing("v2/cat/b!", "v2/cat/a!"),
        listing("v2/cat/a!", "v2/cat/a!"),
        listing("elsewhere"),
        said(b"<ListBucketResult><IsTruncated>false"),
        said(b"<html/>"),
        said(b""),
    ],
    ids=["no token", "no end", "out of order", "twice", "not asked for", "cut", "another document", "empty"],
)
def test_a_listing_that_may_lack_something_fails(answer: Said) -> None:
    with ScriptedServer(lambda _: answer) as server:
        (reply,) = ask(server, ListKeys(PREFIX))
    assert isinstance(reply, StorageUnavailable)
    assert "listing v2/cat/ in bucket images" in str(reply)


def test_pages_of_a_store_are_joined_by_its_tokens() -> None:
    answers = script(listing("v2/cat/a!", truncated="true", token="next+/="), listing("v2/cat/b!"))
    with ScriptedServer(lambda _: next(answers)) as server:
        assert ask(server, ListKeys(PREFIX)) == [Page(("a!", "b!"), False)]
    assert "continuation-token=next%2B%2F%3D" in server.asked[1].target


def test_what_consoles_show_as_empty_folders_is_no_key() -> None:
    with ScriptedServer(lambda _: listing("v2/cat/", "v2/cat/a!", "v2/cat/b/")) as server:
        assert ask(server, ListKeys(PREFIX)) == [Page(("a!",), False)]


def test_a_shorter_folder_of_a_later_answer_comes_first() -> None:
    def page(*folders: str, token: str = "") -> Said:
        found = "".join(f"<CommonPrefixes><Prefix>{PREFIX}{each}/</Prefix></CommonPrefixes>" for each in folders)
        rest = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        rest = rest if token else "<IsTruncated>false</IsTruncated>"
        return said(f"<ListBucketResult>{rest}{found}</ListBucketResult>".encode())

    answers = script(page("a-1", "a-2", token="t"), page("a", "b"))
    with ScriptedServer(lambda _: next(answers)) as server:
        assert ask(server, ListFolders(PREFIX, limit=1)) == [Page(("a",), True)]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind", "advice"),
    [
        ("403 Forbidden", "InvalidAccessKeyId", StorageRefused, "access key id"),
        ("403 Forbidden", "SignatureDoesNotMatch", StorageRefused, "secret key"),
        ("403 Forbidden", "AccessDenied", StorageRefused, "policies"),
        ("403 Forbidden", "RequestTimeTooSkewed", StorageRefused, "clock"),
        ("404 Not Found", "NoSuchBucket", StorageRefused, "no such bucket"),
        ("301 Moved Permanently", "PermanentRedirect", StorageRefused, "region"),
        ("501 Not Implemented", "NotImplemented", StorageRefused, "cannot do this"),
        ("507 Insufficient Storage", "XMinioStorageFull", StorageFull, "507"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_repeated(
    status: str, code: str, kind: type[Exception], advice: str
) -> None:
    with ScriptedServer(lambda _: refused(status, code)) as server:
        replies = ask(server, CreateKeys(((KEY, b""),)), ReadKey(KEY), ListKeys(PREFIX))
    assert len(server.asked) == 3
    for reply in replies:
        assert type(reply) is kind
        assert advice in str(reply)
        assert "bucket images" in str(reply)
        assert CANARY not in str(reply) + repr(reply)
        assert TOKEN not in str(reply) + repr(reply)


def test_looking_for_a_key_tells_a_missing_bucket_from_a_missing_key() -> None:
    blob = Key("v2/blobs/sha256/ab/abc/data")
    with ScriptedServer(lambda _: said(b"", "404 Not Found")) as server:
        (reply,) = ask(server, StatKey(blob))
    assert isinstance(reply, StorageUnavailable)
    assert "no such bucket" in str(reply)
    with ScriptedServer(lambda asked: said(b"", "200 OK" if asked.target == "/images" else "404 Not Found")) as server:
        assert ask(server, StatKey(blob), StatKey(blob)) == [None, None]
    assert [asked.target for asked in server.asked].count("/images") == 2, "a bucket that was there may have gone"
    with ScriptedServer(lambda _: refused("404 Not Found", "NoSuchKey")) as server:
        assert ask(server, StatKey(KEY), StatKey(KEY)) == [None, None]
    assert len(server.asked) == 2, "an answer to GET says what it is that is absent"


@pytest.mark.parametrize(
    "answer",
    [said(b"", "404 Not Found"), said(b"<html/>", "404 Not Found"), refused("404 Not Found", "NoSuchBucket")],
    ids=["nothing", "page", "no bucket"],
)
def test_only_the_bucket_can_say_that_something_is_absent(answer: Said) -> None:
    """A proxy that has lost its way to it says 404 as well."""
    upload = Prefix("v2/repositories/n/_uploads/u/u.")
    with ScriptedServer(lambda _: answer) as server:
        replies = ask(server, ReadKey(KEY), StatKey(KEY), DeleteKeys((KEY,)), DiscardPart(upload, "p"))
    assert [type(reply) for reply in replies] == [StorageRefused] * 4


def test_a_blob_that_was_found_is_not_looked_for_again_by_those_who_do_not_need_it() -> None:
    blob = Key("v2/blobs/sha256/ab/abc/data")
    there = said(b"", "200 OK", "Last-Modified: Fri, 24 May 2013 00:00:00 GMT", length=5)
    found = Stat(5, AT_SECONDS * 1000)
    with ScriptedServer(lambda asked: said(then="close") if asked.line.startswith("DELETE") else there) as server:
        lately = StatKey(blob, lately=True)
        assert ask(server, lately, lately, lately) == [found] * 3
        assert len(server.asked) == 1
        assert ask(server, lately, StatKey(blob), lately) == [found] * 3
        assert len(server.asked) == 3
        assert ask(server, lately, DeleteKeys((blob,)), lately) == [found, None, found]
        assert len(server.asked) == 6
    with ScriptedServer(lambda asked: said(b"", "200 OK" if asked.target == "/images" else "404 Not Found")) as server:
        assert ask(server, lately, lately) == [None, None], "what is absent may come at any moment"
        assert len(server.asked) == 4
    answers = [there, said(b"", "404 Not Found"), said(b"", "200 OK"), there]
    with ScriptedServer(lambda _: answers.pop(0)) as server:
        assert ask(server, lately, StatKey(blob), lately) == [found, None, found], "it is gone for everybody"


def test_what_was_found_is_remembered_for_a_minute_and_not_without_bounds() -> None:
    now = 0.0
    remembered, stat = RememberedStats(lambda: now, entries_max=2), Stat(1, 2)
    for name in "abc":
        remembered.keep(Key(name), stat)
    assert [remembered.get(Key(name)) for name in "abc"] == [None, stat, stat]
    now = 59.9
    remembered.keep(Key("c"), stat)
    now = 60.0
    assert [remembered.get(Key(name)) for name in "bc"] == [None, stat]


def test_keys_that_could_not_be_deleted_are_a_failure() -> None:
    document = b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    with ScriptedServer(lambda asked: said(document, then="close")) as server:
        (reply,) = ask(server, DeleteKeys((KEY, Key("v2/cat/m!"))))
    assert isinstance(reply, StorageUnavailable)
    assert "deleting v2/cat/n!" in str(reply)


def test_without_any_keys_the_registry_says_where_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with ScriptedServer(lambda _: said()) as server:
        (reply,) = ask(server, ReadKey(KEY), credentials=None)
    assert isinstance(reply, StorageRefused)
    assert "access_key_id" in str(reply)
    assert not server.asked
