"""SHA-256 and SHA-512 that can be continued later, by another process, on another machine.

`hashlib` cannot export its state, so an upload that is resumed after a restart would have to be read again. The
functions behind it in libcrypto can: they are called here through ctypes, in the very library that Python has loaded.
The state is exported in a form of our own (below), never as the raw structure, so that it does not depend on the
machine. Where the library has no such functions (a statically linked interpreter, another libcrypto) or does not pass
the check at start, plain `hashlib` is used and the exported state is None.

An exported state, all numbers big-endian::

    1 byte    version, 1
    1 byte    1 for sha256, 2 for sha512
    8 words   the chaining value, 4 or 8 bytes each (FIPS 180-4, section 6)
    8 bytes   how many bytes were hashed
    the rest  those that do not fill a block yet
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
from collections.abc import Callable
from typing import Any

from angos.sansio.effects import HashState

Buffer = bytes | bytearray | memoryview

VERSION = 1
HOLD_GIL_BELOW = 2048  # bytes; giving the GIL away and getting it back takes longer than hashing so little


class _Sha256Context(ctypes.Structure):
    """`SHA256_CTX` of openssl/sha.h."""

    _fields_ = (
        ("h", ctypes.c_uint32 * 8),
        ("bits_low", ctypes.c_uint32),
        ("bits_high", ctypes.c_uint32),
        ("block", ctypes.c_uint8 * 64),
        ("num", ctypes.c_uint),
        ("md_len", ctypes.c_uint),
    )


class _Sha512Context(ctypes.Structure):
    """`SHA512_CTX` of openssl/sha.h."""

    _fields_ = (
        ("h", ctypes.c_uint64 * 8),
        ("bits_low", ctypes.c_uint64),
        ("bits_high", ctypes.c_uint64),
        ("block", ctypes.c_uint8 * 128),
        ("num", ctypes.c_uint),
        ("md_len", ctypes.c_uint),
    )


class _BufferInfo(ctypes.Structure):
    """`Py_buffer` of CPython's stable ABI (3.11)."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


class _Family:
    """One algorithm of libcrypto: its context structure and its three functions."""

    def __init__(self, name: str, library: str) -> None:
        self.name = name
        wide = name == "sha512"
        self.context: type[Any] = _Sha512Context if wide else _Sha256Context
        self.word_bits = 64 if wide else 32
        self.block_size = 128 if wide else 64
        self.digest_size = 64 if wide else 32
        self.prefix = bytes((VERSION, 2 if wide else 1))
        self.chaining = struct.Struct(">8Q" if wide else ">8I")
        self.state_size_min = len(self.prefix) + self.chaining.size + 8
        prefix = name.upper()
        releasing, holding = ctypes.CDLL(library), ctypes.PyDLL(library)
        pointer = ctypes.POINTER(self.context)
        self.init = _function(holding, f"{prefix}_Init", pointer)
        self.update = _function(releasing, f"{prefix}_Update", pointer, ctypes.c_void_p, ctypes.c_size_t)
        self.update_holding = _function(holding, f"{prefix}_Update", pointer, ctypes.c_void_p, ctypes.c_size_t)
        self.final = _function(holding, f"{prefix}_Final", ctypes.c_char_p, pointer)

    def export(self, context: Any) -> bytes:
        """The state of a context in the form described at the top."""
        size = (context.bits_high << self.word_bits | context.bits_low) >> 3
        words = self.chaining.pack(*context.h)
        return b"".join((self.prefix, words, size.to_bytes(8, "big"), bytes(context.block)[: context.num]))

    def restore(self, state: bytes) -> Any | None:
        """A context in this state; None when these bytes are no state of this algorithm."""
        if len(state) < self.state_size_min or not state.startswith(self.prefix):
            return None
        size = int.from_bytes(state[self.state_size_min - 8 : self.state_size_min], "big")
        tail = state[self.state_size_min :]
        if len(tail) != size % self.block_size or size >> 61:
            return None
        context = self.context()
        self.init(context)
        context.h[:] = self.chaining.unpack_from(state, len(self.prefix))
        context.bits_low = (size << 3) & ((1 << self.word_bits) - 1)
        context.bits_high = (size << 3) >> self.word_bits
        context.block[: len(tail)] = tail
        context.num = len(tail)
        return context

    def hex_of(self, context: Any) -> str:
        """The digest of what the context has seen; the context can go on."""
        copy = self.context.from_buffer_copy(context)
        digest = ctypes.create_string_buffer(self.digest_size)
        self.final(digest, copy)
        return digest.raw.hex()


class Hasher:
    """A digest in the making. Hashes large buffers without holding the GIL and without copying them."""

    __slots__ = ("_context", "_family", "_plain", "algorithm")

    def __init__(self, algorithm: str, context: Any | None = None) -> None:
        self.algorithm = algorithm
        family = self._family = _families().get(algorithm)
        self._context: Any = None
        if family is None:
            self._plain = hashlib.new(algorithm)
        elif context is not None:
            self._context = context
        else:
            self._context = family.context()
            family.init(self._context)

    def update(self, data: Buffer) -> None:
        """Take the next bytes."""
        family = self._family
        if family is None:
            self._plain.update(data)
            return
        info = _BufferInfo()
        _get_buffer(data, info, 0)
        try:
            update = family.update_holding if info.len < HOLD_GIL_BELOW else family.update
            update(self._context, info.buf, info.len)
        finally:
            _release_buffer(info)

    def hex(self) -> str:
        """The digest of the bytes so far, in lower-case hex."""
        return self._plain.hexdigest() if self._family is None else self._family.hex_of(self._context)

    def state(self) -> HashState:
        """Where we are, to be continued by `resume`."""
        exported = None if self._family is None else self._family.export(self._context)
        return HashState(self.algorithm, self.hex(), exported)


def resume(state: HashState) -> Hasher | None:
    """Go on where `state` was exported; None when that cannot be done and the bytes have to be hashed again.

    The state may have come from anywhere: it is accepted only if it leads to the digest that it says it has reached.
    A state of None without any digest, or with that of no bytes, starts afresh.
    """
    if state.state is None:
        return Hasher(state.algorithm) if state.hex in ("", hashlib.new(state.algorithm).hexdigest()) else None
    family = _families().get(state.algorithm)
    context = None if family is None else family.restore(state.state)
    if family is None or context is None or family.hex_of(context) != state.hex:
        return None
    return Hasher(state.algorithm, context)


def hex_of(algorithm: str, value: Buffer) -> str:
    """The digest of a value in memory. Releases the GIL when the value is large."""
    return hashlib.new(algorithm, value, usedforsecurity=False).hexdigest()


def can_export() -> bool:
    """True when hash states survive the process here."""
    return bool(_families())


_loaded: dict[str, _Family] | None = None


def _families() -> dict[str, _Family]:
    """What libcrypto offers, by algorithm. Looked for on first use, to keep the start short."""
    global _loaded
    if _loaded is None:
        _loaded = _load()
    return _loaded


def _load() -> dict[str, _Family]:
    library = _loaded_libcrypto()
    if library is None:
        return {}
    try:
        families = {name: _Family(name, library) for name in ("sha256", "sha512")}
    except (OSError, AttributeError):  # not loadable by this name; the functions are gone
        return {}
    return families if all(_passes_check(family) for family in families.values()) else {}


def _loaded_libcrypto() -> str | None:
    """The file of the libcrypto in this process, so that no second one is loaded."""
    import _hashlib  # noqa: F401 - makes sure that it is

    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                path = line.rstrip("\n").partition("/")
                if path[1] and path[2].rpartition("/")[2].startswith("libcrypto.so"):
                    return f"/{path[2]}"
    except OSError:  # no /proc here
        pass
    return None


def _passes_check(family: _Family) -> bool:
    """Hash a known text in two uneven halves with an export between them, and compare with hashlib."""
    text = bytes(range(256)) * 3
    for split in (0, 1, 200, family.block_size, 5 * family.block_size - 1):
        context: Any = family.context()
        family.init(context)
        family.update(context, text[:split], split)
        restored = family.restore(family.export(context))
        if restored is None:
            return False
        family.update(restored, text[split:], len(text) - split)
        if family.hex_of(restored) != hex_of(family.name, text):
            return False
    return True


def _function(library: ctypes.CDLL, name: str, *arguments: Any) -> Callable[..., Any]:
    function = library[name]
    function.argtypes = arguments
    function.restype = ctypes.c_int
    return function


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_BufferInfo), ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_BufferInfo),)
_release_buffer.restype = None
