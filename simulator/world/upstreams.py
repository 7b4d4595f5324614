"""Upstream registries that misbehave: what they answer, and who was shown what.

One upstream has one repository with one image. Each answer may be spoiled by a fault of the closed list below. Whoever
is shown a credential that is not meant for it is remembered; so is every body that crosses the link.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from angos.sansio.oci.digest import Digest
from angos.sansio.oci.media_type import OCI_MANIFEST
from angos.sansio.secret import Secret
from angos.sansio.upstream.config import Upstream
from angos.sansio.upstream.effects import (
    AskForToken,
    AskUpstream,
    Opened,
    OpenUpstream,
    TokenAnswer,
    UpstreamAnswer,
    UpstreamForbidden,
    UpstreamSilent,
    UpstreamStream,
    UpstreamUnavailable,
)
from angos.sansio.upstream.origin import keeps_credentials, may_show_password
from angos.simulator.choices import Choices
from angos.simulator.world.bodies import synthetic

UPSTREAM_FAULTS = {
    "down": "nobody can connect",
    "silent": "no answer in time",
    "forbidden": "a redirect leads to where the egress rule lets nobody go",
    "error": "status 500",
    "limited": "status 429 with Retry-After",
    "html": "a web page of status 200",
    "evil realm": "a challenge that names somebody else's token server",
    "loop": "status 401 whatever is shown",
    "lying": "other bytes than those of the digest",
    "short": "the body breaks off in the middle",
    "long": "the body goes on after its end",
}
"""Each with what it is like. None of them may become a 404, a wrong byte or a credential that somebody else sees."""


def layer(number: int) -> bytes:
    """A blob of the world."""
    return synthetic(f"layer of upstream {number}", 24 + number)


def manifest(number: int) -> bytes:
    """A manifest, of which a tag names one at a time."""
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(Digest.of(b"{}")), "size": 2}
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config,
            "layers": [],
            "annotations": {"n": str(number)},
        }
    ).encode()


@dataclass
class SimulatedUpstream:
    """One registry."""

    upstream: Upstream
    blobs: tuple[bytes, ...] = ()
    tagged: int | None = None
    """The number of the manifest that the tag names; None: there is no such repository."""
    asks_for_token: bool = False
    steady: str = ""
    """A fault that strikes each time."""
    images: dict[str, bytes] = field(default_factory=dict)
    """Further manifests, by their tags."""


@dataclass
class SimulatedUpstreams:
    """All of them."""

    registries: dict[str, SimulatedUpstream]
    faults: tuple[str, ...] = ()
    faults_left: int = 0
    fired: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    """Credentials that went astray."""
    opened: list[tuple[str, str]] = field(default_factory=list)
    """Who asked for which body, as replica and URL."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Every other request, as method and URL."""
    tokens: int = 0
    streams: list[tuple[bytes, bool]] = field(default_factory=list)
    """For each opened answer what comes, and whether that is all that was promised."""

    def ask(self, effect: AskUpstream, choices: Choices) -> UpstreamAnswer:
        """The answer to a small question."""
        self.asked.append((effect.method, effect.url))
        registry, fault = self._begin(effect, choices)
        refused = self._refused(registry, effect.token, fault, effect.url)
        if refused is not None:
            return refused
        if fault == "html":
            return UpstreamAnswer(200, (("content-type", "text/html"),), b"<html>log in</html>")
        kind, _, reference = effect.url.rpartition("/v2/")[2].partition("/")[2].partition("/")
        body = None
        if kind == "manifests" and registry.tagged is not None:
            known = {str(Digest.of(manifest(number))): manifest(number) for number in range(registry.tagged + 1)}
            known |= {str(Digest.of(body)): body for body in registry.images.values()} | registry.images
            body = manifest(registry.tagged) if reference == "latest" else known.get(reference)
        elif kind == "blobs":
            body = next((blob for blob in registry.blobs if str(Digest.of(blob)) == reference), None)
        if body is None:
            return UpstreamAnswer(404, ())
        said = (("content-length", str(len(body))), ("docker-content-digest", str(Digest.of(body))))
        if effect.method == "HEAD":
            return UpstreamAnswer(200, said)
        sent = body.replace(b"n", b"N", 1) if fault == "lying" else body
        media_type = json.loads(body)["mediaType"] if kind == "manifests" else "application/octet-stream"
        return UpstreamAnswer(200, (("content-type", media_type), *said), sent)

    def open(self, effect: OpenUpstream, choices: Choices, replica: str) -> Opened:
        """The beginning of a large answer."""
        registry, fault = self._begin(effect, choices)
        refused = self._refused(registry, effect.token, fault, effect.url)
        if refused is not None:
            return Opened(refused.status, refused.headers, None, None)
        digest = effect.url.rpartition("/")[2]
        blob = next((blob for blob in registry.blobs if str(Digest.of(blob)) == digest), None)
        if blob is None:
            return Opened(404, (), None, None)
        self.opened.append((replica, effect.url))
        rest = blob[effect.start :]
        headers: tuple[tuple[str, str], ...] = (("content-type", "application/octet-stream"),)
        if effect.start:
            headers += (("content-range", f"bytes {effect.start}-{len(blob) - 1}/{len(blob)}"),)
        sent, whole = rest, True
        if fault == "html":
            headers, rest = (("content-type", "text/html"),), b"<html>log in</html>"
            sent = rest
        elif fault == "lying":
            sent = bytes(byte ^ 1 for byte in rest)
        elif fault == "short":
            sent, whole = rest[: len(rest) // 2], False
        elif fault == "long":
            sent = rest + b"more"
        self.streams.append((sent, whole))
        stream = UpstreamStream(len(self.streams) - 1)
        return Opened(206 if effect.start else 200, headers, stream, len(rest))

    def token(self, effect: AskForToken) -> TokenAnswer:
        """The answer of a token server."""
        registry = self.registries[effect.upstream]
        upstream = registry.upstream
        if effect.password and not may_show_password(effect.url, upstream.url, upstream.token_realms):
            self.leaks.append(f"the password of {effect.upstream} was shown to {effect.url}")
        self.tokens += 1
        return TokenAnswer(200, Secret(f"token-of-{effect.upstream}"), 300.0)

    def _begin(self, effect: AskUpstream | OpenUpstream, choices: Choices) -> tuple[SimulatedUpstream, str]:
        registry = self.registries[effect.upstream]
        own = keeps_credentials(registry.upstream.url, effect.url)
        foreign = effect.token is not None and effect.token.value != f"token-of-{effect.upstream}"
        if (effect.token is not None or effect.password) and (not own or foreign):
            self.leaks.append(f"a credential of {effect.upstream} was shown to {effect.url}")
        fault = registry.steady
        if not fault and self.faults and self.faults_left:
            number = choices.pick("fault:upstream", len(self.faults) + 1)
            if number:
                fault = self.faults[number - 1]
                self.faults_left -= 1
        if fault:
            self.fired.append(fault)
        if fault == "down":
            raise UpstreamUnavailable("no connection")
        if fault == "silent":
            raise UpstreamSilent("no answer in time")
        if fault == "forbidden":
            raise UpstreamForbidden("the egress rule forbids it")
        return registry, fault

    def _refused(
        self, registry: SimulatedUpstream, token: Secret | None, fault: str, url: str
    ) -> UpstreamAnswer | None:
        if fault == "error":
            return UpstreamAnswer(500, ())
        if fault == "limited":
            return UpstreamAnswer(429, (("retry-after", "2"),))
        if fault == "evil realm":
            return UpstreamAnswer(401, (("www-authenticate", 'Bearer realm="https://evil.example/token",service="x"'),))
        if fault == "loop" or (registry.asks_for_token and token is None):
            realm = f'Bearer realm="{registry.upstream.url}/token",service="here",scope="repository:x:pull"'
            return UpstreamAnswer(401, (("www-authenticate", realm),))
        return None
