"""The XML of the S3 protocol (Amazon S3 API Reference): the answers that we read and the requests that we write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element, ParseError, fromstring
from xml.sax.saxutils import escape

from angos.sansio.bucket.requests import Listed, ListedUploads


class DocumentDamaged(Exception):
    """Not the document that it must be. Says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ErrorDocument:
    """What a store says is wrong."""

    code: str
    key: str = ""


def parse_error(body: bytes) -> ErrorDocument | None:
    """The error in an answer; None when there is none. A few answers are errors in spite of their status 200."""
    if b"<Error" not in body:
        return None
    try:
        root = _parse(body)
    except DocumentDamaged:
        return None
    return ErrorDocument(_text(root, "Code") or "unknown") if _local(root) == "Error" else None


def parse_listing(body: bytes) -> Listed:
    """The answer to ListObjectsV2. A listing that cannot be known to be complete is damaged."""
    root = _root(body, "ListBucketResult")
    decode = unquote_plus if _text(root, "EncodingType") == "url" else str
    keys, folders, modified = [], [], []
    for element in root:
        name = _local(element)
        if name == "Contents":
            keys.append((decode(_required(element, "Key")), _number(_required(element, "Size"))))
            modified.append(_milliseconds(_text(element, "LastModified")))
        elif name == "CommonPrefixes":
            folders.append(decode(_required(element, "Prefix")))
    token = None
    truncated = _text(root, "IsTruncated")
    if truncated == "true":
        token = _text(root, "NextContinuationToken")
        if not token:
            raise DocumentDamaged("a listing was cut off without saying where to go on")
    elif truncated != "false":
        raise DocumentDamaged("a listing does not say whether it is complete")
    return Listed(tuple(keys), tuple(folders), token, tuple(modified))


def parse_uploads(body: bytes) -> ListedUploads:
    """The answer to ListMultipartUploads."""
    root = _root(body, "ListMultipartUploadsResult")
    decode = unquote_plus if _text(root, "EncodingType") == "url" else str
    found = [element for element in root if _local(element) == "Upload"]
    uploads = tuple((decode(_required(each, "Key")), _required(each, "UploadId")) for each in found)
    began_ms = tuple(_milliseconds(_text(each, "Initiated")) for each in found)
    if _text(root, "IsTruncated") != "true":
        return ListedUploads(uploads, None, began_ms)
    markers = decode(_text(root, "NextKeyMarker")), _text(root, "NextUploadIdMarker")
    if not all(markers):
        raise DocumentDamaged("a listing of uploads was cut off without saying where to go on")
    return ListedUploads(uploads, markers, began_ms)


def parse_upload_id(body: bytes) -> str:
    """The answer to CreateMultipartUpload."""
    return _required(_root(body, "InitiateMultipartUploadResult"), "UploadId")


def parse_copied_tag(body: bytes) -> str:
    """The ``ETag`` in the answer to UploadPartCopy."""
    return _required(_root(body, "CopyPartResult"), "ETag")


def expect(body: bytes, name: str) -> None:
    """The answer to a request that keeps the store busy begins before its outcome is known: this document is the good
    one. Anything else is damaged."""
    _root(body, name)


def parse_failed_deletions(body: bytes) -> tuple[ErrorDocument, ...]:
    """What the answer to DeleteObjects says was not deleted, and why."""
    root = _root(body, "DeleteResult")
    failed = [element for element in root if _local(element) == "Error"]
    return tuple(ErrorDocument(_text(each, "Code") or "unknown", _text(each, "Key")) for each in failed)


def deletion(keys: Iterable[str]) -> bytes:
    """The request of DeleteObjects, at most 1,000 keys."""
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f"<Delete><Quiet>true</Quiet>{objects}</Delete>".encode()


def completion(tags: Iterable[str]) -> bytes:
    """The request of CompleteMultipartUpload: the ``ETag`` of each part, in order from 1 on."""
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(tag)}</ETag></Part>"
        for number, tag in enumerate(tags, 1)
    )
    return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()


def _parse(body: bytes) -> Element:
    try:
        return fromstring(body.strip())
    except (ParseError, ValueError):
        raise DocumentDamaged("the answer is not XML") from None


def _root(body: bytes, name: str) -> Element:
    root = _parse(body)
    if _local(root) != name:
        raise DocumentDamaged(f"the answer is no {name}")
    return root


def _local(element: Element) -> str:
    """The name without its namespace, which not every store gives."""
    return element.tag.rpartition("}")[2]


def _text(element: Element, name: str) -> str:
    return next((each.text or "" for each in element if _local(each) == name), "")


def _required(element: Element, name: str) -> str:
    if not (text := _text(element, name)):
        raise DocumentDamaged(f"the answer has no {name}")
    return text


def _milliseconds(text: str) -> int | None:
    """A time in the format of ISO 8601, in milliseconds since 1970; None for what is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(found.timestamp() * 1000) if found.tzinfo is not None else None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise DocumentDamaged("the size of an object is not a number")
    return int(text)
