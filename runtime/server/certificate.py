"""Who a client certificate says it is.

`ssl.SSLSocket.getpeercert` would tell, too, but it converts everything in a certificate at once and fails as a whole at
one name that it cannot convert. This reads the subject alone (RFC 5280 section 4.1, in DER: X.690) and leaves out what
cannot be read. TLS has verified the certificate before; nothing here decides whether it is good.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from angos.sansio.http.message import Certificate

NAME_SIZE_MAX: Final = 1024  # characters; RFC 5280 allows 64, and nobody writes a rule for a longer one

_SEQUENCE, _SET, _OBJECT, _VERSION = 0x30, 0x31, 0x06, 0xA0
_COMMON_NAME, _ORGANIZATION = bytes.fromhex("550403"), bytes.fromhex("55040a")  # 2.5.4.3, 2.5.4.10
_CODECS: Final = {
    0x0C: "utf-8",
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # TeletexString, as everybody reads it
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a NUL hides the rest of a name from programs in C

_Element = tuple[int, bytes]
"""Tag and content."""


def read_subject(certificate: bytes) -> Certificate:
    """Organisations and common names in their order. Never fails: names that cannot be read are left out."""
    organizations: list[str] = []
    common_names: list[str] = []
    try:
        for kind, tag, content in _attributes(certificate):
            if kind not in (_COMMON_NAME, _ORGANIZATION):
                continue
            name = _name(tag, content)
            if name is not None:
                (common_names if kind == _COMMON_NAME else organizations).append(name)
    except _NotDer:
        return Certificate()
    return Certificate(tuple(organizations), tuple(common_names))


class _NotDer(Exception):
    """The bytes are no certificate."""


def _attributes(certificate: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """The subject, piece by piece: what kind of name, tag and content."""
    signed = next(_elements(_content(next(_elements(certificate)), _SEQUENCE)))
    fields = [element for element in _elements(_content(signed, _SEQUENCE)) if element[0] != _VERSION]
    if len(fields) < 5:  # serial number, algorithm, issuer, validity, subject
        raise _NotDer
    for part in _elements(_content(fields[4], _SEQUENCE)):
        for attribute in _elements(_content(part, _SET)):
            pair = list(_elements(_content(attribute, _SEQUENCE)))
            if len(pair) != 2:
                raise _NotDer
            yield _content(pair[0], _OBJECT), *pair[1]


def _content(element: _Element, tag: int) -> bytes:
    if element[0] != tag:
        raise _NotDer
    return element[1]


def _elements(value: bytes) -> Iterator[_Element]:
    at = 0
    while True:
        if len(value) - at < 2 or value[at] & 0x1F == 0x1F:
            raise _NotDer
        tag, length = value[at], value[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or len(value) - at < count:
                raise _NotDer
            length = int.from_bytes(value[at : at + count], "big")
            at += count
        if len(value) - at < length:
            raise _NotDer
        yield tag, value[at : at + length]
        at += length
        if at == len(value):
            return


def _name(tag: int, content: bytes) -> str | None:
    codec = _CODECS.get(tag)
    if codec is None or len(content) > 4 * NAME_SIZE_MAX:
        return None
    try:
        name = content.decode(codec)
    except UnicodeDecodeError:
        return None
    if not name.strip() or len(name) > NAME_SIZE_MAX or _CONTROL.search(name) is not None:
        return None
    return name
