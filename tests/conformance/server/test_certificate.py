"""Whom a client certificate names, however odd it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from angos.runtime.server.certificate import NAME_SIZE_MAX, read_subject
from angos.sansio.http.message import Certificate

KEY = ec.generate_private_key(ec.SECP256R1())
CN, O = "550403", "55040a"  # noqa: E741
UTF8, PRINTABLE, T61, BMP, UNIVERSAL, OCTETS = 0x0C, 0x13, 0x14, 0x1E, 0x1C, 0x04


def certificate_of(subject: x509.Name) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the issuer")]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def element(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def with_subject(*parts: list[tuple[str, int, bytes]]) -> bytes:
    """What no sane program writes: each part is one relative name of several (object identifier, tag, content)."""
    subject = element(
        0x30,
        b"".join(
            element(0x31, b"".join(element(0x30, element(6, bytes.fromhex(o)) + element(t, c)) for o, t, c in part))
            for part in parts
        ),
    )
    before = element(0xA0, element(2, b"\2")) + element(2, b"\1") + 3 * element(0x30, b"\5\0")
    return element(0x30, element(0x30, before + subject + element(0x30, b"\5\0")))


def test_names_come_in_their_order_and_the_issuer_s_do_not() -> None:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "First"),
            x509.NameAttribute(NameOID.COMMON_NAME, "müller"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Second"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "neither"),
            x509.NameAttribute(NameOID.COMMON_NAME, "other"),
        ]
    )
    assert read_subject(certificate_of(subject)) == Certificate(("First", "Second"), ("müller", "other"))


def test_a_part_of_several_values_gives_all_of_them() -> None:
    value = with_subject([(CN, UTF8, b"a"), (O, UTF8, b"b"), (CN, PRINTABLE, b"c")], [(O, UTF8, b"d")])
    assert read_subject(value) == Certificate(("b", "d"), ("a", "c"))


def test_an_empty_subject_names_nobody() -> None:
    assert read_subject(certificate_of(x509.Name([]))) == Certificate()
    assert read_subject(with_subject()) == Certificate()


@pytest.mark.parametrize(
    ("tag", "content", "name"),
    [
        (UTF8, "Jürgen 🔑".encode(), "Jürgen 🔑"),
        (T61, b"J\xfcrgen", "Jürgen"),
        (BMP, "Jürgen".encode("utf-16-be"), "Jürgen"),
        (UNIVERSAL, "Jürgen 🔑".encode("utf-32-be"), "Jürgen 🔑"),
        (UTF8, b"a" * NAME_SIZE_MAX, "a" * NAME_SIZE_MAX),
    ],
)
def test_every_kind_of_text_is_read(tag: int, content: bytes, name: str) -> None:
    assert read_subject(with_subject([(CN, tag, content)])) == Certificate((), (name,))


@pytest.mark.parametrize(
    ("tag", "content"),
    [
        (UTF8, b""),
        (UTF8, b"  "),
        (UTF8, b"\xff\xfe"),
        (UTF8, b"admin\0.example.org"),
        (UTF8, b"two\nlines"),
        (PRINTABLE, b"J\xfcrgen"),
        (BMP, b"odd"),
        (BMP, b"\xd8\x00"),
        (UNIVERSAL, b"\x00\x11\x00\x00"),
        (OCTETS, b"octets"),
        (UTF8, b"a" * (NAME_SIZE_MAX + 1)),
        (UTF8, b"a" * 70_000),
    ],
)
def test_what_is_no_name_is_left_out_and_the_others_stay(tag: int, content: bytes) -> None:
    value = with_subject([(CN, tag, content)], [(CN, UTF8, b"good")], [(O, tag, content)], [(O, UTF8, b"too")])
    assert read_subject(value) == Certificate(("too",), ("good",))


GOOD = with_subject([(O, UTF8, b"organisation"), (CN, UTF8, b"name")])


@given(st.binary(max_size=80))
@example(b"")
@example(b"\x30\x84\xff\xff\xff\xff")
@example(b"\x30\x80")
@example(b"\x1f\x1f\x1f")
def test_what_is_no_certificate_names_nobody(value: bytes) -> None:
    assert read_subject(value) == Certificate()


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_damaged_certificate_is_read_without_a_failure(position: int, byte: int) -> None:
    read_subject(GOOD[:position] + bytes((byte,)) + GOOD[position + 1 :])
    assert read_subject(GOOD[:position]) == Certificate()


NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=16).filter(str.strip)


@given(st.lists(st.tuples(st.sampled_from([NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME]), NAMES), max_size=4))
def test_another_reader_finds_the_same(attributes: list[tuple[x509.ObjectIdentifier, str]]) -> None:
    subject = x509.Name([x509.NameAttribute(kind, text) for kind, text in attributes])
    value = certificate_of(subject)
    again = x509.load_der_x509_certificate(value).subject
    expected = Certificate(
        tuple(str(found.value) for found in again.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
        tuple(str(found.value) for found in again.get_attributes_for_oid(NameOID.COMMON_NAME)),
    )
    assert read_subject(value) == expected
