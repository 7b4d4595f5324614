"""Whom the registry trusts as a client, and how it shows who it is: TLS (RFC 8446), with every check on."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from angos.runtime.access.settings import ClientTls


class ClientTlsUnusable(ValueError):
    """A certificate or key for asking a service cannot be used. Names the file and says why."""


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """For all connections to one service. Reads the files now: they are good or this raises `ClientTlsUnusable`."""
    if tls == ClientTls():
        return _system_context()
    context = _new_context()
    if tls.server_ca_bundle is None:
        context.load_default_certs()
    else:
        # What is in the bundle is trusted as it is, an intermediate authority or a single server included.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _check_readable(tls.server_ca_bundle, "server_ca_bundle")
        try:
            context.load_verify_locations(cafile=tls.server_ca_bundle)
        except ssl.SSLError:
            raise ClientTlsUnusable(f"server_ca_bundle {tls.server_ca_bundle} has no certificate in PEM form") from None
    _load_client_certificate(context, tls.client_certificate_bundle, tls.client_private_key)
    return context


@lru_cache(maxsize=1)
def _system_context() -> ssl.SSLContext:
    """Shared by all services without TLS settings: reading what the system trusts takes milliseconds and megabytes."""
    context = _new_context()
    context.load_default_certs()
    return context


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the chain and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # RFC 9525 section 1.4: only subject alternative names count
    # An answer without a length ends with the connection: only TLS can tell that nobody on the way has ended it.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_client_certificate(context: ssl.SSLContext, certificate: Path | None, key: Path | None) -> None:
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        missing = "client_certificate_bundle" if certificate is None else "client_private_key"
        raise ClientTlsUnusable(f"{missing} is missing: a client certificate needs its key, and a key its certificate")
    _check_readable(certificate, "client_certificate_bundle")
    _check_readable(key, "client_private_key")

    def refuse_password() -> NoReturn:  # OpenSSL would ask for one on the terminal
        raise ClientTlsUnusable(f"client_private_key {key} is encrypted; it must be stored without a password")

    try:
        context.load_cert_chain(certificate, key, password=refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ClientTlsUnusable(
                f"client_private_key {key} is not the key of client_certificate_bundle {certificate}"
            ) from None
        raise ClientTlsUnusable(
            f"client_certificate_bundle {certificate} and client_private_key {key} are not a certificate and its key "
            "in PEM form"
        ) from None


def _check_readable(path: Path, name: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ClientTlsUnusable(f"{name} {path} cannot be read: {error.strerror}") from None
