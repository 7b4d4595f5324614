"""Certificates for servers of these tests, and clients that trust them."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

from angos.runtime.server.tls import ServerTls, TlsOptions, load_tls
from tests.conformance.certificates import Authority, Issued

HOST = "127.0.0.1"


class TlsMaterial:
    """One authority for servers, one for clients."""

    def __init__(self, folder: Path) -> None:
        self.servers = Authority(folder, "Servers")
        self.clients = Authority(folder, "Clients")

    def options(self, **changes: Any) -> TlsOptions:
        """Of a server with a new certificate, which asks clients for nothing unless it is told to."""
        issued = self.servers.issue(HOST, common_names=("server",))
        return replace(TlsOptions(issued.certificate, issued.key), **changes)

    def server(self, **changes: Any) -> ServerTls:
        """The same, loaded."""
        return load_tls(self.options(**changes))

    def client(self, issued: Issued | None = None) -> ssl.SSLContext:
        """A client, with a certificate if it has one."""
        context = ssl.create_default_context(cafile=str(self.servers.bundle))
        if issued is not None:
            context.load_cert_chain(issued.certificate, issued.key)
        return context
