"""`DrawId`."""

from __future__ import annotations

import os

from angos.sansio.effects import DrawId


class SystemEntropy:
    """Randomness of the operating system."""

    def draw_id(self, effect: DrawId) -> str:
        """`DrawId`. By hand, because importing `uuid` costs more than this."""
        octets = bytearray(os.urandom(16))
        octets[6] = octets[6] & 0x0F | 0x40  # version 4 (RFC 9562 section 5.4)
        octets[8] = octets[8] & 0x3F | 0x80  # variant (section 4.1)
        text = octets.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
