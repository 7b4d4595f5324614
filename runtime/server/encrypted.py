"""Connections that begin with a TLS handshake."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace
from typing import Final

from angos.runtime.server.certificate import read_subject
from angos.runtime.server.connection import Connection
from angos.runtime.server.deadlines import Wait
from angos.runtime.server.framing import HeadRefused
from angos.runtime.server.reminder import Reminder
from angos.runtime.server.response_writer import error_answer, format_head
from angos.runtime.server.surroundings import Surroundings
from angos.runtime.server.tls import ServerTls
from angos.runtime.server.tls_channel import HandshakeFailed, TlsChannel
from angos.sansio.http.message import Inline, Peer

HANDSHAKES_MAX: Final = 512  # at the same time, of 50 KB each; an honest client needs two round trips
REFUSALS_SECONDS: Final = 1.0  # between two lines about certificates that are refused

_log = logging.getLogger("angos.server")
_refusals = Reminder(REFUSALS_SECONDS)


class EncryptedConnection(Connection):
    """The handshake is made in the connection's own task, so a client that stalls in it holds up nobody."""

    __slots__ = ("_tls", "_tls_channel")

    def __init__(
        self, connected: socket.socket, name: str, peer: Peer, surroundings: Surroundings, tls: ServerTls
    ) -> None:
        self._tls = tls
        self._tls_channel = TlsChannel(connected, name)
        super().__init__(self._tls_channel, peer, surroundings)
        # From here on, not from when the task gets its turn: those who wait for that are overdue, too.
        self._deadline.start(Wait.HANDSHAKE, tls.options.handshake_timeout)

    async def _begin(self) -> bool:
        counters = self._surroundings.counters
        try:
            certificate = await self._shake_hands()
        except HandshakeFailed as failed:
            counters.tls_handshakes_failed[failed.kind] += 1
            # Scanners fail all day long, but a certificate that is refused is somebody's deployment that does not work.
            level = logging.INFO if failed.kind == "certificate" and _refusals.is_due() else logging.DEBUG
            _log.log(level, "no TLS with %s: %s", self._channel.peer, failed)
            if failed.kind == "plain_http":
                self._tls_channel.refuse_plain(_plain_answer())
            await self._linger()
            return False
        except ConnectionError:
            if self._deadline.expired:
                counters.tls_handshakes_failed["timeout"] += 1
                _log.debug("no TLS with %s: the handshake took too long", self._channel.peer)
                return False
            raise
        self._deadline.stop()
        counters.tls_handshakes += 1
        if certificate is not None:
            self._peer = replace(self._peer, certificate=read_subject(certificate))
        return True

    def _check_peer(self) -> None:
        # Who the client is was found out when the connection began; a reload may have changed who is believed.
        current = self._surroundings.tls
        if current is None or current is self._tls:
            return
        if current.would_ask_again(self._tls, certificate=self._peer.certificate is not None):
            # RFC 9110 section 15.5.20: whatever the request was, it may be sent again on another connection.
            raise HeadRefused(421, "which client certificates are trusted has changed; connect again")
        self._tls = current

    async def _shake_hands(self) -> bytes | None:
        """The certificate of the client. When very many shake hands, the one that has done so for longest is cut."""
        handshakes = self._surroundings.handshakes
        await self._tls_channel.wait_for_hello()
        if len(handshakes) >= HANDSHAKES_MAX:
            oldest = next(iter(handshakes))
            del handshakes[oldest]
            oldest.expire()
            self._surroundings.counters.connections_evicted += 1
        handshakes[self._deadline] = None
        try:
            return await self._tls_channel.shake_hands(self._tls.context)
        finally:
            handshakes.pop(self._deadline, None)


def _plain_answer() -> bytes:
    answer = error_answer(400, "UNSUPPORTED", "this port speaks HTTPS, the request was plain HTTP: use https://")
    body = answer.body.value if isinstance(answer.body, Inline) else b""
    return format_head(answer, close=True) + body
