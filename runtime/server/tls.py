"""``[server.tls]``: certificates and keys, checked before anything is served with them.

Nothing here imports `ssl` before TLS is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import ssl

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. Those of TLS 1.3 are all of that kind."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How the server shows who it is, and whether clients have to."""

    server_certificate_bundle: Path
    """PEM: the certificate of the server, then those of its issuers."""
    server_private_key: Path
    """PEM, not encrypted."""
    client_ca_bundle: Path | None = None
    """PEM: who may sign certificates of clients. None: clients are not asked for one."""
    client_auth: Literal["optional", "required"] = "optional"
    """Whether a client without a certificate is let in. One with a certificate that is not trusted never is."""
    handshake_timeout: float = 10.0
    """In seconds, from the connection to the end of the handshake."""


class TlsUnusable(Exception):
    """TLS cannot be served as it is configured. The text is for the operator, names the file and holds no key."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Loaded and ready; replaced as a whole when certificates change."""

    options: TlsOptions
    context: ssl.SSLContext
    authorities: bytes | None = None
    """The content of the `client_ca_bundle`."""

    def would_ask_again(self, since: ServerTls, *, certificate: bool) -> bool:
        """Whether a client that `since` has let in, with a certificate or without one, has to show itself anew."""
        if (self.authorities, self.options.client_auth) == (since.authorities, since.options.client_auth):
            return False
        return certificate or (self.authorities is not None and self.options.client_auth == "required")


def load_tls(options: TlsOptions) -> ServerTls:
    """Read and check everything that TLS needs. Raises `TlsUnusable`."""
    import ssl

    if options.client_auth == "required" and options.client_ca_bundle is None:
        raise TlsUnusable("client_auth is required, but no client_ca_bundle says which certificates are trusted")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # The end of a body is known from its framing, so a client that leaves without a goodbye is no attack. Otherwise
    # OpenSSL would take it for one, and could not even say goodbye itself.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_IGNORE_UNEXPECTED_EOF
    context.set_alpn_protocols(["http/1.1"])
    _load_certificate(context, options.server_certificate_bundle, options.server_private_key)
    authorities = None
    if options.client_ca_bundle is not None:
        authorities = _load_authorities(context, options.client_ca_bundle)
        context.verify_mode = ssl.CERT_REQUIRED if options.client_auth == "required" else ssl.CERT_OPTIONAL
        # A session that is taken up again would not look at the client's certificate again. What OpenSSL remembers of
        # TLS 1.2 by itself cannot be switched off from here; it ends with the context, so with a changed bundle.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return ServerTls(options, context, authorities)


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    import ssl

    _read(certificate, "server_certificate_bundle", "-----BEGIN CERTIFICATE-----", "certificate")
    _read(key, "server_private_key", "PRIVATE KEY-----", "private key")

    def refuse() -> str:
        # Without this, OpenSSL would ask on the terminal.
        raise TlsUnusable(f"server_private_key {key} is encrypted; store it without a passphrase")

    try:
        context.load_cert_chain(certificate, key, refuse)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            problem = f"server_private_key {key} does not belong to the first certificate in {certificate}"
        elif error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            problem = f"server_certificate_bundle {certificate} has a certificate that is too weak: {_reason(error)}"
        else:
            problem = f"{_culprit(certificate, key)} cannot be read as PEM: {_reason(error)}"
        raise TlsUnusable(problem) from None
    except (OSError, ValueError) as error:
        raise TlsUnusable(f"server_certificate_bundle {certificate} with {key} cannot be used: {error}") from None


def _load_authorities(context: ssl.SSLContext, bundle: Path) -> bytes:
    import ssl

    content = _read(bundle, "client_ca_bundle", "-----BEGIN CERTIFICATE-----", "certificate")
    try:
        context.load_verify_locations(cafile=bundle)
    except ssl.SSLError as error:
        raise TlsUnusable(f"client_ca_bundle {bundle} cannot be read as PEM: {_reason(error)}") from None
    except OSError as error:
        raise TlsUnusable(f"client_ca_bundle {bundle} cannot be read: {error.strerror}") from None
    return content


def _culprit(certificate: Path, key: Path) -> str:
    """OpenSSL does not say which of the two files it failed at: try the certificates alone."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cafile=certificate)
    except (ssl.SSLError, OSError):
        return f"server_certificate_bundle {certificate}"
    return f"server_private_key {key}"


def _read(path: Path, key: str, mark: str, what: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TlsUnusable(f"{key} {path} cannot be read: {error.strerror}") from None
    if mark.encode() not in content:
        raise TlsUnusable(f"{key} {path} holds no {what} in PEM form ({mark})")
    return content


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "unknown error").lower().replace("_", " ")
