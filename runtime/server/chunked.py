"""The chunked transfer coding (RFC 9112 section 7.1), strictly: sizes, terminators, bounds.

Every CR LF that the grammar asks for is compared, not skipped: a decoder that takes any two bytes for a terminator lets
a request hide in a body (CVE-2025-43859).
"""

from __future__ import annotations

import re

from angos.runtime.server.scatter import REPEATS_MIN, SIZE_MIN, Scatter

LINE_SIZE_MAX = 256  # of a chunk's size with its extensions; real clients send none
EXTENSIONS_SIZE_MAX = 16 << 10  # of one body
TRAILERS_SIZE_MAX = 8 << 10  # of one body
DECODED_SIZE_MAX = (1 << 63) - 1

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")

_SIZE, _DATA, _DATA_END, _TRAILERS, _FINISHED = range(5)


class MalformedBody(Exception):
    """The bytes are not a chunked body. Nothing after them can be understood."""


class ChunkedDecoder:
    """Finds the payload in the bytes of one chunked body, however they are cut."""

    __slots__ = (
        "_extensions",
        "_last_line",
        "_last_size",
        "_left",
        "_line",
        "_repeats",
        "_state",
        "_trailers",
        "announced",
    )

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0  # bytes of the chunk, or of its CR LF
        self._line = b""  # the beginning of a line that was cut
        self._last_line: bytes | None = None  # the latest size line without an extension
        self._last_size = 0
        self._repeats = 0  # how often that line came again, one after the other
        self._extensions = 0
        self._trailers = 0
        self.announced = 0
        """Bytes of all chunks whose size has been read, though they may not be here yet."""

    @property
    def finished(self) -> bool:
        """The end of the body was read."""
        return self._state == _FINISHED

    def decode(
        self, data: bytes | bytearray, view: memoryview, start: int, end: int, payload: list[memoryview], runs_max: int
    ) -> int:
        """Read ``data[start:end]``, of which `view` is a view, and add views of the payload to `payload`.

        Gives the position reached: `end`, or the byte behind the body, or less once `payload` has `runs_max` entries.
        Raises `MalformedBody`; what is in `payload` then is good.
        """
        position = start
        while position < end:
            if self._state == _DATA:
                run = min(self._left, end - position)
                payload.append(view[position : position + run])
                position += run
                self._left -= run
                if self._left == 0:
                    if data[position : min(end, position + 2)] == b"\r\n":
                        self._state = _SIZE
                        position += 2
                    else:  # cut, or wrong
                        self._state, self._left = _DATA_END, 2
                if len(payload) >= runs_max:
                    break
            elif self._state == _DATA_END:
                if data[position] != (13 if self._left == 2 else 10):
                    raise MalformedBody("a chunk is not followed by CR LF")
                position += 1
                self._left -= 1
                if self._left == 0:
                    self._state = _SIZE
            elif self._state == _SIZE:
                line, position = self._take_line(data, position, end, LINE_SIZE_MAX)
                if line is not None:
                    self._begin_chunk(line)
            elif self._state == _TRAILERS:
                line, position = self._take_line(data, position, end, TRAILERS_SIZE_MAX)
                if line is not None:
                    self._take_trailer(line)
            else:
                break
        return position

    def scatter(self, room: memoryview, scratch: bytearray, size_max: int | None) -> Scatter | None:
        """How to receive the payload into `room` without its framing; None while the next chunks are uncertain.

        They also are where they could exceed `size_max` bytes in all.
        """
        if self._last_line is None or self._repeats < REPEATS_MIN or self._last_size < SIZE_MIN:
            return None
        if self._state == _DATA:
            left = self._left
        elif self._state == _DATA_END and self._left == 2:  # exactly between a chunk and its CR LF
            left = 0
        else:
            return None
        scatter = Scatter(left, self._last_size, b"\r\n%b\r\n" % self._last_line, room, scratch)
        bound = DECODED_SIZE_MAX if size_max is None else min(size_max, DECODED_SIZE_MAX)
        return scatter if self.announced + scatter.chunks * self._last_size <= bound else None

    def skip(self, chunks: int, left: int) -> None:
        """The payload of this chunk and of `chunks` more like it was received elsewhere, but for `left` bytes."""
        self.announced += chunks * self._last_size
        self._state, self._left = (_DATA, left) if left else (_DATA_END, 2)

    def _take_line(
        self, data: bytes | bytearray, position: int, end: int, size_max: int
    ) -> tuple[bytes | bytearray | None, int]:
        kept = len(self._line)
        if not kept:
            found = data.find(b"\r\n", position, min(end, position + size_max + 2))
            if found >= 0:
                return data[position:found], found + 2
        window = self._line + data[position : min(end, position + size_max + 2 - kept)]
        found = window.find(b"\r\n")
        if found >= 0:
            self._line = b""
            return window[:found], position + found + 2 - kept
        if len(window) >= size_max + 2:
            raise MalformedBody(f"a line of the chunked body is longer than {size_max} bytes")
        # Refused now rather than when the line is complete, which it may never be.
        if b"\n" in window or b"\r" in window[:-1]:
            raise MalformedBody("a line of the chunked body ends without CR LF")
        self._line = window
        return None, end

    def _begin_chunk(self, line: bytes | bytearray) -> None:
        # Most clients send chunks of one size.
        if line == self._last_line:
            size = self._last_size
            self._repeats += 1
        else:
            size = self._parse_size(line)
            self._repeats = 0
        if size == 0:
            self._state = _TRAILERS
            return
        self.announced += size
        if self.announced > DECODED_SIZE_MAX:
            raise MalformedBody("the chunks are larger than any file")
        self._state, self._left = _DATA, size

    def _parse_size(self, line: bytes | bytearray) -> int:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise MalformedBody("the size of a chunk is not a hexadecimal number")
        size = int(match[1], 16)
        if match[2]:
            self._extensions += len(match[2])
            if self._extensions > EXTENSIONS_SIZE_MAX:
                raise MalformedBody(f"the chunk extensions are longer than {EXTENSIONS_SIZE_MAX} bytes")
        else:
            self._last_line, self._last_size = bytes(line), size
        return size

    def _take_trailer(self, line: bytes | bytearray) -> None:
        if not line:
            self._state = _FINISHED
            return
        self._trailers += len(line) + 2
        if self._trailers > TRAILERS_SIZE_MAX:
            raise MalformedBody(f"the trailers are longer than {TRAILERS_SIZE_MAX} bytes")
        if _TRAILER_LINE.fullmatch(line) is None:
            raise MalformedBody("a trailer is not a header field")
