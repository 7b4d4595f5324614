"""A registry that guards something, an issuer that signs whatever it is told to, and what an attacker knows of both."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from angos.runtime.maintenance.argon import hash_password
from tests.conformance.certificates import Authority
from tests.conformance.http_client import Answer, Client
from tests.conformance.scripted_server import Asked, Said, ScriptedServer, said

PASSWORD = "open sesame canary-5d1c"
REGISTRY_SECRET = base64.b64encode(b"canary-9e07 of the token service".ljust(48, b"!")).decode()
AUDIENCE = "registry"

CONFIGURATION = '''
[observability.log]
level = "debug"

[auth.identity.alice]
username = "alice"
password = "{hash}"

[auth.oidc.ci]
issuer = "{issuer}"
jwks_uri = "{issuer}/keys"
required_audience = "registry"
required_claims = ["sub"]
server_ca_bundle = "{authority}"
allowed_algorithms = ["RS256"]

[auth.oidc.away]
issuer = "https://127.0.0.1:1"
server_ca_bundle = "{authority}"

[auth.token_service]
secret_key = "{secret}"

[global]
trusted_proxies = ["127.0.0.1/32", "10.0.0.0/8"]

[global.access_policy]
rules = [
    'request.namespace == "only/office" && identity.client_ip == "192.0.2.7"',
    'request.namespace == "only/pages" && (!has(request.n) || request.n <= 5)',
    'request.namespace == "only/sboms" && request.artifact_type == "application/spdx+json"',
    'identity.id == "alice"',
    'identity.oidc != null && request.namespace.startsWith("ci/")',
    'request.namespace.startsWith("public/") && request.action in ["get-manifest", "get-blob", "list-tags"]',
    """request.namespace == "open/tags"
       && (request.action != "put-manifest" || request.tags.all(tag, tag.startsWith("dev-")))""",
    """request.namespace == "open/target"
       && request.action in ["mount-blob", "start-upload", "update-upload", "complete-upload"]""",
]
'''


def encode(value: bytes | object) -> str:
    """A segment of a token: bytes as they are, anything else as JSON."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


class Issuer:
    """An identity provider, with all its keys in the open."""

    def __init__(self, authority: Authority) -> None:
        self.rsa_key = rsa.generate_private_key(65537, 2048)
        self.ec_key = ec.generate_private_key(ec.SECP256R1())
        self.server = ScriptedServer(self._answer, authority.server_context("127.0.0.1"))

    @property
    def url(self) -> str:
        """The issuer."""
        return self.server.origin

    @property
    def public_pem(self) -> bytes:
        """What everybody can work out from the published keys."""
        return self.rsa_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def claims(self, **more: object) -> dict[str, Any]:
        """Good ones, for five minutes."""
        now = int(time.time())
        return {"iss": self.url, "aud": AUDIENCE, "sub": "job", "iat": now, "exp": now + 300, **more}

    def sign(self, header: bytes | object, claims: bytes | object) -> str:
        """By the RSA key, whatever the header says."""
        signed = f"{encode(header)}.{encode(claims)}"
        return f"{signed}.{encode(self.rsa_key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def sign_with_curve(self, header: object, claims: object) -> str:
        """By the elliptic curve key (RFC 7518 section 3.4)."""
        signed = f"{encode(header)}.{encode(claims)}"
        r, s = decode_dss_signature(self.ec_key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def token(self, **claims: object) -> str:
        """A good one, unless the claims say otherwise."""
        return self.sign({"alg": "RS256", "kid": "rsa"}, self.claims(**claims))

    def _answer(self, asked: Asked) -> Said:
        keys = [
            {**RSAAlgorithm.to_jwk(self.rsa_key.public_key(), as_dict=True), "kid": "rsa"},
            {**ECAlgorithm.to_jwk(self.ec_key.public_key(), as_dict=True), "kid": "ec"},
        ]
        return said(json.dumps({"keys": keys}).encode())


def write_configuration(folder: Path, issuer: Issuer, authority: Authority, more: str = "") -> Path:
    """The file of a guarded registry."""
    path = folder / "angos.toml"
    text = CONFIGURATION.format(
        hash=hash_password(PASSWORD), issuer=issuer.url, authority=authority.bundle, secret=REGISTRY_SECRET
    )
    path.write_text(text + more)
    return path


def basic(username: str, password: str) -> tuple[str, str]:
    """The field for a name and a password."""
    return ("Authorization", "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())


def bearer(token: str) -> tuple[str, str]:
    """The field for a token."""
    return ("Authorization", f"Bearer {token}")


ALICE = basic("alice", PASSWORD)


def is_nobody(client: Client, *fields: tuple[str, str]) -> bool:
    """Whether whoever shows this is not known to the registry, and is told so in the way that clients understand."""
    check, listing = client.get("/v2/", fields), client.get("/v2/private/app/tags/list", fields)
    return all(_is_challenge(answer) for answer in (check, listing))


def _is_challenge(answer: Answer) -> bool:
    return answer.status == 401 and answer["www-authenticate"].startswith(("Bearer realm=", "Basic realm="))
