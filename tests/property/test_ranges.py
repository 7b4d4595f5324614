"""``Range`` (RFC 9110 section 14), ``Content-Range`` of chunks, conditional requests."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from angos.sansio.errors import Invalid
from angos.sansio.http.byte_range import parse_range
from angos.sansio.http.conditional import is_unmodified, range_applies
from angos.sansio.http.message import Headers
from angos.sansio.oci.content_range import ContentRange
from angos.sansio.oci.digest import Digest

DIGEST = Digest.of(b"content")


class TestByteRange:
    """Which bytes of a blob are sent."""

    @given(st.integers(1, 50), st.integers(0, 60), st.integers(0, 60))
    def test_a_range_gives_what_slicing_gives(self, size: int, first: int, last: int) -> None:
        content = bytes(range(size))
        found = parse_range(f"bytes={first}-{last}", size, ranges_max=10)
        expected = content[first : last + 1]
        if expected:
            assert isinstance(found, tuple)
            (one,) = found
            assert content[one.start : one.start + one.length] == expected
            assert one.content_range(size) == f"bytes {first}-{min(last, size - 1)}/{size}"
        else:
            assert found == "unsatisfiable"

    @given(st.integers(1, 50), st.integers(0, 60))
    def test_suffix_and_open_ranges_give_what_slicing_gives(self, size: int, count: int) -> None:
        content = bytes(range(size))
        for text, expected in (
            (f"bytes=-{count}", content[size - min(count, size) :]),
            (f"bytes={count}-", content[count:]),
        ):
            found = parse_range(text, size, ranges_max=10)
            if expected and not text.endswith("=-0"):
                assert isinstance(found, tuple)
                assert content[found[0].start : found[0].start + found[0].length] == expected
            else:
                assert found == "unsatisfiable"

    @given(st.text("bytes=0123456789-, x", max_size=30), st.integers(0, 100))
    @example("bytes=" + "9" * 19 + "-", 10)
    @example("bytes=-", 10)
    @example("bytes=,", 10)
    def test_whatever_is_asked_only_existing_bytes_are_named(self, text: str, size: int) -> None:
        found = parse_range(text, size, ranges_max=5)
        if isinstance(found, tuple):
            assert all(one.length > 0 and one.start >= 0 and one.start + one.length <= size for one in found)
            assert len(found) <= 5
            assert len(found) == 1 or sum(one.length for one in found) <= size

    def test_several_ranges_keep_their_order(self) -> None:
        found = parse_range("bytes=8-9, 0-1,-1", 20, ranges_max=10)
        assert [(one.start, one.length) for one in found if not isinstance(one, str)] == [(8, 2), (0, 2), (19, 1)]

    def test_too_many_ranges_are_said_to_be_too_many(self) -> None:
        assert parse_range("bytes=" + ",".join(["0-0"] * 6), 100, ranges_max=5) == "too many"

    def test_overlapping_ranges_cannot_multiply_the_work(self) -> None:
        assert parse_range("bytes=0-99,0-99", 100, ranges_max=5) == "everything"

    def test_an_empty_blob_is_sent_whole(self) -> None:
        assert parse_range("bytes=0-", 0, ranges_max=5) == "everything"

    @pytest.mark.parametrize("text", ["items=0-1", "bytes 0-1", "bytes=a-b", "bytes=1", "0-1"])
    def test_what_is_not_understood_is_ignored(self, text: str) -> None:
        assert parse_range(text, 10, ranges_max=5) == "everything"


class TestContentRange:
    """Where a chunk belongs, in every spelling seen in the wild."""

    @given(st.integers(0, 2**60), st.integers(1, 2**40))
    def test_all_spellings_mean_the_same(self, start: int, size: int) -> None:
        end = start + size - 1
        expected = ContentRange(start, end)
        for text in (f"{start}-{end}", f"bytes {start}-{end}/{end + 1}", f"bytes={start}-{end}", f"{start}-{end}/*"):
            assert ContentRange.parse(text) == expected
        assert expected.size == size

    @pytest.mark.parametrize(
        "text", ["", "5-", "-5", "a-b", "5-4", "1-2-3", "bytes", "+1-2", "1_0-20", "0x0-1", "\u0660-\u0661"]
    )
    def test_garbage_is_refused(self, text: str) -> None:
        with pytest.raises(Invalid):
            ContentRange.parse(text)


class TestConditional:
    """The entity tag of content is its digest."""

    @pytest.mark.parametrize("value", [f'"{DIGEST}"', str(DIGEST), f'W/"{DIGEST}"', f'"x", "{DIGEST}"', "*"])
    def test_every_way_of_naming_the_content_matches(self, value: str) -> None:
        assert is_unmodified(Headers((("if-none-match", value),)), DIGEST)

    @pytest.mark.parametrize("value", ['"x"', "", f'"{DIGEST.hex}"'])
    def test_other_content_does_not_match(self, value: str) -> None:
        assert not is_unmodified(Headers((("if-none-match", value),)), DIGEST)

    def test_if_range_of_other_content_or_a_date_asks_for_everything(self) -> None:
        assert range_applies(Headers(()), DIGEST)
        assert range_applies(Headers((("if-range", f'"{DIGEST}"'),)), DIGEST)
        assert not range_applies(Headers((("if-range", '"other"'),)), DIGEST)
        assert not range_applies(Headers((("if-range", "Mon, 01 Jan 2024 00:00:00 GMT"),)), DIGEST)
