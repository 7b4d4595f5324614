"""A registry that content comes from, in any mood, and the mirrors of it that tests pull through."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.http_client import Answer, Client, Fields
from tests.conformance.oci.content import OCI_MANIFEST, bytes_of, digest_of
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.scripted_server import Asked, Said, ScriptedServer, said

_LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}

Script = Callable[[Asked], Said | None]
"""What happens to a request; None: what a good registry does."""


@dataclass
class Case:
    """One repository of a mirror, and what its upstream has and does. The mirror calls its image ``<name>/image``."""

    name: str
    registry: RegistryProcess
    content: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """What is there: by the rest of its path, its bytes and its media type."""
    script: Script = lambda _: None
    asked: list[Asked] = field(default_factory=list)

    def blob(self, size: int = 1000) -> tuple[bytes, str]:
        """Put one there; gives its bytes and its target."""
        content = bytes_of(f"{self.name} {len(self.content)} {self.registry.url}", size)
        path = f"blobs/{digest_of(content)}"
        self.content[path] = content, "application/octet-stream"
        return content, path

    def image(self, tag: str, size: int) -> tuple[bytes, str]:
        """As `manifest`, with a layer of this size."""
        layer, path = self.blob(size)
        return self.manifest(tag, layers=[{**_LAYER, "digest": path.partition("/")[2], "size": len(layer)}])

    def manifest(self, tag: str, note: str = "", layers: Sequence[dict[str, Any]] = ()) -> tuple[bytes, str]:
        """Let a tag name an image; gives the bytes of its manifest and its digest."""
        config, path = self.blob(10)
        descriptor = {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": path.partition("/")[2],
            "size": len(config),
        }
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor,
            "layers": list(layers),
            "annotations": {"note": note},
        }
        content = json.dumps(document).encode()
        digest = digest_of(content)
        self.content[f"manifests/{tag}"] = self.content[f"manifests/{digest}"] = content, OCI_MANIFEST
        return content, digest

    def answer(self, asked: Asked) -> Said:
        """Of the upstream."""
        self.asked.append(asked)
        return self.script(asked) or self.good(asked)

    def good(self, asked: Asked) -> Said:
        """What a registry answers that does everything right."""
        path = asked.target.partition("?")[0].partition("/image/")[2]
        if path not in self.content:
            return said(b'{"errors": [{"code": "UNKNOWN"}]}', "404 Not Found", "Content-Type: application/json")
        content, media_type = self.content[path]
        fields = [f"Content-Type: {media_type}", f"Docker-Content-Digest: {digest_of(content)}"]
        if asked.line.startswith("HEAD"):
            return said(b"", "200 OK", *fields, length=len(content))
        for value in asked.values("range"):
            start = int(value.removeprefix("bytes=").removesuffix("-"))
            fields.append(f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}")
            return said(content[start:], "206 Partial Content", *fields)
        return said(content, "200 OK", *fields)

    def lines(self) -> list[str]:
        """What the upstream was asked, each as ``GET manifests/v1``."""
        return [f"{each.line.split(' ')[0]} {each.target.partition('/image/')[2]}" for each in self.asked]

    # --- the mirror ---------------------------------------------------------------------------------------------------

    def client(self) -> Client:
        """A new one."""
        return self.registry.client()

    def target(self, path: str) -> str:
        """In the mirror."""
        return f"/v2/{self.name}/image/{path}"

    def get(self, path: str, headers: Fields = ()) -> Answer:
        """On a connection of its own."""
        with self.client() as client:
            return client.get(self.target(path), headers)

    def wait_for_log(self, text: str) -> None:
        """Until the mirror has logged it."""
        ends = time.monotonic() + 10
        while text not in self.registry.log:
            assert time.monotonic() < ends, self.registry.log
            time.sleep(0.01)

    def leaves_nothing(self) -> bool:
        """Neither an upload of this repository nor a temporary file is left, at once or in a moment."""
        ends = time.monotonic() + 5
        while (left := self._left()) and time.monotonic() < ends:
            time.sleep(0.01)
        assert not left, left
        return True

    def _left(self) -> list[str]:
        root = self.registry.root
        files = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        temporary = (".tmp/", ".empty")  # but for the empty file that is kept to be linked
        return [
            name
            for name in files
            if f"/{self.name}/image/_uploads" in name
            or (name.startswith(temporary[0]) and not name.endswith(temporary[1]))
        ]


@dataclass
class Upstream:
    """One server for all cases: the first part of a name says whose it is."""

    server: ScriptedServer
    cases: dict[str, Case]

    @classmethod
    def made(cls) -> Upstream:
        """Not started yet."""
        cases: dict[str, Case] = {}

        def answer(asked: Asked) -> Said:
            name = asked.target.split("/")[2] if asked.target.startswith("/v2/") else asked.target.split("/")[1]
            case = cases.get(name.partition("?")[0])
            return case.answer(asked) if case is not None else said(b"", "404 Not Found")

        return cls(ScriptedServer(answer), cases)


@dataclass
class Held:
    """A body whose rest comes when it is let go."""

    content: bytes
    first: int
    """So many bytes come at once."""
    go: threading.Event = field(default_factory=threading.Event)

    def parts(self, head: bytes) -> Iterator[bytes]:
        yield head + self.content[: self.first]
        self.go.wait(20)
        yield self.content[self.first :]

    def script(self, path: str) -> Script:
        """This body for this path, and what a good registry does for all others."""
        return lambda asked: self.said() if path in asked.target else None

    def said(self, *fields: str) -> Said:
        """The answer."""
        (whole,) = said(b"", "200 OK", *fields, length=len(self.content)).parts
        return Said(self.parts(whole))


def unlike(content: bytes) -> bytes:
    """Other bytes of the same length."""
    return bytes([content[0] ^ 1]) + content[1:]


def mirrors(upstream: str, names: list[str], **more: Any) -> dict[str, Any]:
    """A repository for each name, whose upstream has everything below that name."""
    return {
        "repository": {
            name: {
                "cache": {"fresh_secs": 0, "missing_secs": 0},
                "upstream": [{"url": f"{upstream}/{name}", "connect_timeout_secs": 2, "read_timeout_secs": 1, **more}],
            }
            for name in names
        }
    }
