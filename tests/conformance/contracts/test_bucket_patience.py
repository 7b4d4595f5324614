"""A store that is slow, silent, or fails in the middle of something: what is asked again, when, and when no more."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import anyio
import pytest

from angos.runtime.clock import SystemClock
from angos.runtime.entropy import SystemEntropy
from angos.runtime.leases.local import LocalLeases
from angos.runtime.performer import Services
from angos.runtime.stores.s3 import bucket as bucket_module
from angos.runtime.stores.s3.options import PART_BYTES_MIN
from angos.runtime.stores.s3.store import S3Store
from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DiscardUpload,
    Effect,
    HashParts,
    Key,
    ListFolders,
    Part,
    Prefix,
    PromoteParts,
    ReadKey,
    StageBody,
    StorageUnavailable,
)
from tests.conformance.contracts.s3_faults import ask, listing, options_of, refused
from tests.conformance.contracts.store import BODY, Sent, perform
from tests.conformance.scripted_server import Asked, Said, ScriptedServer, said

UPLOAD = Prefix("v2/repositories/n/_uploads/u/u.")
KEY = Key("v2/cat/n!")
BLOB = Key("v2/blobs/x/data")
CONTENT = bytes(PART_BYTES_MIN + 1)

BEGUN = said(b"<InitiateMultipartUploadResult><UploadId>it</UploadId></InitiateMultipartUploadResult>")
COMPLETED = said(b"<CompleteMultipartUploadResult/>")
NO_UPLOADS = said(b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
PUT = said(b"", "200 OK", 'ETag: "tag"')
ANSWERS = {
    "begin": BEGUN,
    "part": PUT,
    "complete": COMPLETED,
    "abort": said(status="204 No Content"),
    "look": said(status="404 Not Found"),
}
SLOW_DOWN = refused("503 Slow Down", "SlowDown")


def do(server: ScriptedServer, *effects: tuple[Effect[Any], Sent | None], **options: Any) -> list[Any]:
    """What a new store replies to the effects, one after the other; a failure is a reply too."""

    async def all_of_them() -> list[Any]:
        store = S3Store(options_of(server, **options))
        store.tried = True  # scripts are about what the effects ask
        services = Services(store, store, LocalLeases(), SystemClock(), SystemEntropy())
        replies: list[Any] = []
        for effect, sent in effects:
            try:
                replies.append(await perform(effect, services, sent))
            except Exception as error:
                replies.append(error)
        await store.close()
        return replies

    return anyio.run(all_of_them)


class Multipart:
    """Answers the requests of a multipart upload; a test changes some of the answers."""

    def __init__(self, **answers: Callable[[Asked], Said]) -> None:
        self.answers = answers

    def __call__(self, asked: Asked) -> Said:
        kind = self.kind_of(asked)
        if kind in self.answers:
            return self.answers[kind](asked)
        return ANSWERS[kind]

    @staticmethod
    def kind_of(asked: Asked) -> str:
        method = asked.line.split()[0]
        if method == "POST":
            return "begin" if "uploads=" in asked.target else "complete"
        return {"PUT": "part", "DELETE": "abort", "HEAD": "look"}[method]


def kinds(server: ScriptedServer) -> list[str]:
    return [Multipart.kind_of(asked) for asked in server.asked]


class BodyServer(ScriptedServer):
    """Reads bodies too."""

    def _answer(self, connection: Any, number: int) -> None:
        with connection.makefile("rb") as stream:
            while line := stream.readline().decode().strip():
                fields = []
                while text := stream.readline().decode().strip():
                    name, _, value = text.partition(":")
                    fields.append((name, value.strip()))
                asked = Asked(number, line, tuple(fields))
                stream.read(int((asked.values("content-length") or ["0"])[0]))
                self.asked.append(asked)
                for part in self.script(asked).parts:
                    connection.sendall(part)


# --- multipart uploads ------------------------------------------------------------------------------------------------


def test_an_error_in_an_answer_of_success_is_an_error() -> None:
    """Stores begin to answer before they know how putting together or copying ends (Amazon S3 API Reference)."""
    failing = iter([said(b"<Error><Code>InternalError</Code></Error>")] * 2)
    with BodyServer(Multipart(complete=lambda _: next(failing, COMPLETED))) as server:
        (staged,) = do(server, (StageBody(UPLOAD, "p", BODY, ()), Sent(CONTENT)))
    assert staged.part == Part("p", len(CONTENT))
    assert kinds(server) == ["begin", "part", "part", "complete", "complete", "complete"]


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("begin", said(b"<InitiateMultipartUploadResult/>")),
        ("part", said(b"")),
        ("part", SLOW_DOWN),
        ("part", refused("400 Bad Request", "EntityTooLarge")),
        ("complete", refused("400 Bad Request", "EntityTooSmall")),
        ("complete", refused("404 Not Found", "NoSuchUpload")),
        ("complete", SLOW_DOWN),
    ],
    ids=["no upload id", "no ETag", "part slow down", "too large", "too small", "forgotten", "slow down"],
)
def test_pieces_that_become_nothing_are_thrown_away(kind: str, answer: Said) -> None:
    with BodyServer(Multipart(**{kind: lambda _: answer})) as server:
        (failure,) = do(server, (StageBody(UPLOAD, "p", BODY, ()), Sent(CONTENT)), attempts=2)
    assert isinstance(failure, Exception)
    assert "creating v2/repositories/n/_uploads/u/u.part.p in bucket images" in str(failure)
    assert kinds(server)[-1] == ("begin" if kind == "begin" else "abort")


@pytest.mark.parametrize(
    "document", [b"", b"<html/>", b"<CopyObjec", b"<Error/>", b"<Error><Code>SlowDown</Code></Error>"]
)
@pytest.mark.parametrize("sizes", [(1,), (PART_BYTES_MIN, 1)], ids=["copied", "copied in pieces"])
def test_only_the_document_of_success_is_success(document: bytes, sizes: tuple[int, ...]) -> None:
    """A blob that was not copied, and whose upload is discarded then, would be lost."""
    parts = tuple(Part(f"p{number}", size) for number, size in enumerate(sizes))
    keys = "".join(
        f"<Contents><Key>{UPLOAD}part.{part.name}</Key><Size>{part.size}</Size></Contents>" for part in parts
    )

    def serve(asked: Asked) -> Said:
        if asked.values("x-amz-copy-source"):
            return said(document)
        method = asked.line.split()[0]
        if method == "HEAD":
            return said(b"", "200 OK", "Last-Modified: Fri, 24 May 2013 00:00:00 GMT", length=sizes[0])
        if method == "GET" and "list-type" in asked.target:
            return said(f"<ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>".encode())
        if method == "GET":
            return said(b"x", "206 Partial Content", "Content-Range: bytes 0-0/1")
        return ANSWERS[Multipart.kind_of(asked)]

    with BodyServer(serve) as server:
        (failure,) = do(server, (PromoteParts(UPLOAD, parts, BLOB), None), attempts=1)
    assert isinstance(failure, StorageUnavailable)
    assert str(failure).startswith("creating v2/blobs/x/data in bucket images: ")


@pytest.mark.parametrize(("code", "outcome"), [("NoSuchKey", "False"), ("NoSuchUpload", "StorageRefused")])
def test_pieces_that_a_store_has_forgotten_make_no_part_absent(code: str, outcome: str) -> None:
    """Copying a piece is answered with 404 when its source is gone, and when the multipart upload is, because the store
    was restarted in between perhaps. An upload whose parts are gone is discarded, with all that was acknowledged."""
    sizes = (PART_BYTES_MIN, 1)
    contents = "".join(
        f"<Contents><Key>{UPLOAD}part.{name}</Key><Size>{size}</Size></Contents>" for name, size in enumerate(sizes)
    )

    def serve(asked: Asked) -> Said:
        if asked.values("x-amz-copy-source"):
            return refused("404 Not Found", code)
        if "list-type" in asked.target:
            return said(f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode())
        if asked.line.startswith("GET"):
            return said(b"x", "206 Partial Content", "Content-Range: bytes 0-0/1")
        return ANSWERS[Multipart.kind_of(asked)]

    with BodyServer(serve) as server:
        parts = tuple(Part(str(name), size) for name, size in enumerate(sizes))
        (reply,) = do(server, (PromoteParts(UPLOAD, parts, BLOB), None), attempts=1)
    assert outcome in (str(reply), type(reply).__name__)


@pytest.mark.parametrize("failing", ["uploads=", "list-type=2"])
def test_nothing_of_an_upload_is_removed_while_it_is_not_known_what_there_is(failing: str) -> None:
    """A transient error proves nothing about what is still in use, or whose it is."""

    def serve(asked: Asked) -> Said:
        if failing in asked.target:
            return SLOW_DOWN
        return NO_UPLOADS if "uploads=" in asked.target else listing("x")

    with BodyServer(serve) as server:
        (failure,) = do(server, (DiscardUpload(UPLOAD), None), attempts=2)
    assert isinstance(failure, StorageUnavailable)
    assert all(asked.line.startswith("GET") for asked in server.asked)


# --- the breaker ------------------------------------------------------------------------------------------------------


def test_a_store_that_fails_is_spared_by_uploads_copies_and_listings_too() -> None:
    effects: list[tuple[Effect[Any], Sent | None]] = [
        (ReadKey(KEY), None),
        (StageBody(UPLOAD, "p", BODY, ()), Sent(CONTENT)),
        (PromoteParts(UPLOAD, (Part("p", 1), Part("q", 1)), BLOB), None),
        (HashParts(UPLOAD, (Part("p", 1),), "sha256"), None),
        (ListFolders(Prefix("v2/ns/")), None),
        (DiscardUpload(UPLOAD), None),
    ]
    with BodyServer(lambda _: SLOW_DOWN) as server:
        replies = do(server, *effects, attempts=2, breaker_threshold=2, breaker_cooldown_seconds=1000.0)
    assert len(server.asked) == 2
    assert all(isinstance(reply, StorageUnavailable) for reply in replies)
    assert all("not asked" in str(reply) for reply in replies[1:])


def test_when_a_store_is_asked_again_one_finds_out_and_the_others_do_not_wait_for_it() -> None:
    others_are_told = Event()

    def serve(_: Asked) -> Said:
        if len(server.asked) == 1:
            return SLOW_DOWN
        others_are_told.wait(30)
        return said(b"value")

    async def crowd() -> list[Any]:
        store = S3Store(options_of(server, attempts=1, breaker_threshold=1, breaker_cooldown_seconds=1e-6))
        replies: list[Any] = []

        async def read() -> None:
            try:
                replies.append(await store.read_key(ReadKey(KEY)))
            except StorageUnavailable as error:
                replies.append(error)
            if len(replies) == 10:
                others_are_told.set()

        await read()
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(read)
        await read()
        await store.close()
        return replies

    with ScriptedServer(serve) as server:
        replies = anyio.run(crowd)
    assert [isinstance(reply, StorageUnavailable) for reply in replies] == [True] * 10 + [False] * 2
    assert len(server.asked) == 3


# --- time -------------------------------------------------------------------------------------------------------------


def test_pauses_between_attempts_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(bucket_module, "sleep", sleep)
    with ScriptedServer(lambda _: SLOW_DOWN) as server:
        for _ in range(20):
            ask(server, ReadKey(KEY), attempts=6, breaker_threshold=1000)
    rounds = [pauses[start : start + 5] for start in range(0, len(pauses), 5)]
    assert len(rounds) == 20
    for number, longest in enumerate((0.2, 0.8, 1.0, 1.0, 1.0)):
        drawn = [each[number] for each in rounds]
        assert all(0.05 <= pause <= longest for pause in drawn)
        assert len(set(drawn)) == 20, "those who failed together would come back together"


def test_a_value_that_keeps_coming_may_take_any_time() -> None:
    """Ten times as long as a whole request may take, and silent nearly as long as it may be."""
    content = bytes(range(30))

    def trickle() -> Iterator[bytes]:
        yield b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-29/30\r\nContent-Length: 30\r\n\r\n"
        for index in range(30):
            time.sleep(0.02)
            yield content[index : index + 1]

    def serve(asked: Asked) -> Said:
        if asked.line.startswith("HEAD"):
            return said(b"", "200 OK", "Last-Modified: Fri, 24 May 2013 00:00:00 GMT", length=30)
        return Said(trickle())

    with ScriptedServer(serve) as server:
        effect = HashParts(UPLOAD, (Part("p", 30),), "sha256")
        replies = ask(server, effect, attempts=1, operation_seconds=0.06, attempt_seconds=5.0)
    assert replies == [hashlib.sha256(content).hexdigest()]


def test_a_value_that_never_comes_is_given_up_after_the_time_of_a_whole_request() -> None:
    def serve(asked: Asked) -> Said:
        if asked.line.startswith("HEAD"):
            return said(b"", "200 OK", "Last-Modified: Fri, 24 May 2013 00:00:00 GMT", length=30)
        return Said((), "close")

    with ScriptedServer(serve) as server:
        effect = HashParts(UPLOAD, (Part("p", 30),), "sha256")
        (reply,) = ask(server, effect, attempts=20, operation_seconds=0.3, breaker_threshold=1000)
    assert isinstance(reply, StorageUnavailable)
    assert 2 < len(server.asked) < 15


# --- what must not happen later ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [(KEY,), (KEY, BLOB)], ids=["one", "several"])
@pytest.mark.parametrize("definite", [False, True])
def test_an_answer_to_a_request_that_was_sent_again_says_nothing_about_the_first_one(
    keys: tuple[Key, ...], definite: bool
) -> None:
    """A proxy may hold it, and carry it out when the key is there again. Whoever must know is told so."""
    answers = [Said((), "close"), said(b"<DeleteResult></DeleteResult>"), Said((), "close"), said()]
    with BodyServer(lambda _: answers.pop(0)) as server:
        delete = DeleteKeysWithin(keys, 60.0) if definite else DeleteKeys(keys)
        removed, created = do(server, (delete, None), (CreateKeys(((KEY, b"v"),), definite=definite), None))
    assert len(server.asked) == 4
    for reply, calm in ((removed, None), (created, (True,))):
        if definite:
            assert isinstance(reply, StorageUnavailable)
            assert "may be carried out yet" in str(reply)
        else:
            assert reply == calm
