"""A cache with a limit: evictions and the collector run beside pulls.

The properties beside those of `angos.simulator.mirror`: after a run that nothing crossed no more is held than the
limit, or everything that is left is in use; no pull is a 404 because something was evicted; a manifest that is held has
its bytes; what somebody else needs stays.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from angos.sansio import layout
from angos.sansio.collection.collector import collect
from angos.sansio.effects import DeleteKeys, Effect
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import parse_manifest
from angos.sansio.oci.media_type import OCI_INDEX, OCI_MANIFEST
from angos.sansio.operation import Operation
from angos.sansio.pulls import write_pulls
from angos.sansio.upstream.config import CacheConfig
from angos.sansio.upstream.eviction import IN_USE_SECONDS, evict
from angos.simulator.choices import Choices
from angos.simulator.mirror import Mirror
from angos.simulator.mirror_tasks import Pull, Task
from angos.simulator.world.bodies import synthetic
from angos.simulator.world.upstreams import SimulatedUpstreams

GRACE_SECONDS = 1000.0
CONFIG = b"{}"


def large_layer(number: int) -> bytes:
    """So large that manifests hardly count."""
    return synthetic(f"large layer {number}", 10_000 + number)


def image(*layers: bytes) -> bytes:
    """The manifest of an image with these layers."""
    described = [_described("application/vnd.oci.image.layer.v1.tar", layer) for layer in layers]
    config = _described("application/vnd.oci.image.config.v1+json", CONFIG)
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": described}
    return json.dumps(document).encode()


def index(*manifests: bytes) -> bytes:
    """The manifest of an index of these."""
    described = [_described(OCI_MANIFEST, each) for each in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described}).encode()


def _described(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


class Crowded(Mirror):
    """One run."""

    def __init__(
        self, upstreams: SimulatedUpstreams, choices: Choices, size_max: int, *, fresh_seconds: float = 60, **more: Any
    ) -> None:
        cache = CacheConfig(fresh_seconds=fresh_seconds, missing_seconds=0, size_max=size_max)
        super().__init__(upstreams, choices, cache=cache, **more)
        (repository,) = self.config.repositories
        self.config = replace(
            self.config,
            repositories=(replace(repository, records_pulls=True),),
            pull_time_granularity_seconds=0.001,
            collection_grace_seconds=GRACE_SECONDS,
        )
        self.size_max = size_max
        self.crossed = 0
        """Manifests that went while they were pulled."""

    def eviction(self) -> Operation[Any]:
        """What a server does now and then."""
        return Operation(evict(self.config))

    def collection(self) -> Operation[Any]:
        """As well."""
        return Operation(collect(self.config))

    def pull_image(self, tag: str, body: bytes, name: str = "x") -> list[Pull]:
        """As a client pulls it: the manifest, then its blobs. Notes what was pulled."""
        self.run(pulls := [Pull(f"/v2/hub/{name}/manifests/{tag}")])
        assert self.body(pulls[0]) == body
        blobs = [Pull(f"/v2/hub/{name}/blobs/{each.digest}") for each in parse_manifest(body, None).references]
        self.run(blobs)
        self.write_down()
        return pulls + blobs

    def write_down(self) -> None:
        """What was pulled."""
        self.run([], beside=[Operation(write_pulls(book.take(1000))) for book in self.books.values()])

    def evict(self) -> None:
        """With nothing beside it. Raises `AssertionError` when too much is held afterwards, or too much has gone."""
        self.write_down()
        in_use = self._in_use()
        self.run([], beside=[self.eviction()])
        left = {digest for _, digest, _ in self.revisions()}
        assert in_use <= left, "something went that is in use"
        if self.held() > self.size_max:
            assert left <= in_use, f"{self.held()} bytes are held, and some of it is not in use"

    def _in_use(self) -> set[Digest]:
        """What was stored or pulled a short while ago, by its digest."""
        since_ms = self.clock.now_ms - int(IN_USE_SECONDS * 1000)
        found = {digest for _, digest, modified_ms in self.revisions() if modified_ms > since_ms}
        for name in self.store.names("v2/ns/hub"):
            pulled = layout.parse_pull_name(name.partition("!atime/")[2])
            if pulled is not None and isinstance(pulled.what, Digest) and pulled.at_ms > since_ms:
                found.add(pulled.what)
        return found & {digest for _, digest, _ in self.revisions()}

    def collect(self) -> None:
        """Twice, since layers are suspected when their manifests go; with the grace periods before."""
        for _ in range(2):
            self.clock.now_ms += int(GRACE_SECONDS * 1000) + 60_000
            self.run([], beside=[self.collection()])

    def _perform(self, task: Task, effect: Effect[Any]) -> Any:
        if isinstance(effect, DeleteKeys):
            waiting = {pull.target for pull in self._answers.values() if pull.response is None}
            for key in effect.keys:
                hexadecimal = key.rpartition("/")[2]
                names = [tag for tag, body in self.images().items() if Digest.of(body).hex == hexadecimal]
                if "!rev/" in key and any(target.endswith((hexadecimal, *names)) for target in waiting):
                    self.crossed += 1
        return super()._perform(task, effect)

    def revisions(self) -> list[tuple[str, Digest, int]]:
        """Namespace and digest of every manifest that is held, and when it was stored."""
        found = []
        for name in self.store.names("v2/ns/hub"):
            namespace, mark, rest = name.removeprefix("v2/ns/").partition("!rev/")
            digest = layout.parse_revision_name(rest) if mark else None
            if digest is not None:
                found.append((namespace, digest, self.store.modified_ms(name)))
        return found

    def held(self) -> int:
        """Bytes of what manifests of the cache name, each digest once."""
        content: dict[Digest, int] = {}
        for _, digest, _ in self.revisions():
            body = self.store.get(layout.blob_key(digest))
            assert body is not None, f"{digest} is held, and its bytes are not there"
            named = [each.storable for each in parse_manifest(body, None).references]
            for one in (digest, *(each for each in named if each is not None)):
                content[one] = len(self.store.get(layout.blob_key(one)) or b"")
        return sum(content.values())

    def tags(self) -> set[str]:
        """The names of manifests that are held, as tags have them."""
        held = {digest for _, digest, _ in self.revisions()}
        return {tag for tag, body in self.images().items() if Digest.of(body) in held}

    def images(self) -> dict[str, bytes]:
        """What there is upstream."""
        return {tag: body for each in self.upstreams.registries.values() for tag, body in each.images.items()}
