"""An identity provider of the test's own: HTTPS, discovery, keys that change, and tokens signed by them."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.conformance.certificates import Authority


class IdentityProvider:
    """Serves from ``with`` to its end, on a free port of the loopback address."""

    def __init__(self, authority: Authority) -> None:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                documents = {
                    "/.well-known/openid-configuration": {
                        "issuer": provider.issuer,
                        "jwks_uri": f"{provider.issuer}/k",
                    },
                    "/k": {"keys": [provider._key_document()]},
                }
                document = documents.get(self.path)
                body = b"" if document is None else json.dumps(document).encode()
                self.send_response(404 if document is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = authority.server_context("localhost", "127.0.0.1")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.issuer = f"https://localhost:{self._server.server_address[1]}"
        self.asked: list[str] = []
        """The paths that were asked for."""
        self._number = 0
        self.rotate()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def rotate(self) -> None:
        """From now on another key signs, and the one before is gone."""
        self._number += 1
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def token(self, **claims: Any) -> str:
        """A token that is good for five minutes."""
        now = int(time.time())
        known = {"iss": self.issuer, "iat": now, "exp": now + 300, "sub": "job", **claims}
        return jwt.encode(known, self._key, algorithm="RS256", headers={"kid": f"key-{self._number}"})

    def _key_document(self) -> dict[str, Any]:
        document: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {**document, "kid": f"key-{self._number}", "use": "sig", "alg": "RS256"}
