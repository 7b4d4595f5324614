"""A store that CNCF distribution has filled, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from angos.sansio.distribution import Imported, import_distribution
from angos.sansio.distribution_export import Exported, export_distribution
from angos.sansio.effects import CreateKeys, Effect, Key, ReadKey, Stat, StatKey
from angos.sansio.layout import blob_key
from angos.sansio.oci.digest import Digest
from angos.sansio.operation import Operation
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.scenario import Scenario
from angos.simulator.world.images import blob, image
from angos.simulator.world.replica import World

REFERRER = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"a/b",'
    b'"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:'
    b'44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[],'
    b'"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":1}}'
    % str(image(0).digest).encode()
)
SCHEMA_1 = b'{"schemaVersion": 1, "name": "a", "tag": "old", "fsLayers": []}'


class OldStore:
    """A store that distribution has filled, and the registry that takes it over."""

    def __init__(self, kind: Literal["bucket", "disk"] = "bucket") -> None:
        self.registry = SimulatedRegistry(world=World(Scenario(store=kind)))
        self._step_ms = 1000

    def write(self, key: str, value: bytes) -> None:
        self.registry.run(Operation(_create(Key(key), value)))
        self.registry.world.clock.now_ms += self._step_ms

    @contextmanager
    def in_the_second_of(self, key: str) -> Iterator[None]:
        """Everything that is written meanwhile has the date of this key."""
        clock = self.registry.world.clock
        stat = self.registry.run(Operation(_stat(Key(key))))
        assert stat is not None
        now_ms, clock.now_ms, self._step_ms = clock.now_ms, stat.modified_ms, 0
        try:
            yield
        finally:
            clock.now_ms, self._step_ms = now_ms, 1000

    def link(self, namespace: str, what: str, digest: Digest) -> None:
        self.write(f"v2/repositories/{namespace}/{what}/link", str(digest).encode())

    def push(self, index: int, namespace: str, tag: str = "") -> None:
        wanted = image(index)
        for child in wanted.children:
            self.push(child, namespace)
        for needed in wanted.blobs:
            layer = blob(needed)
            self.write(blob_key(layer.digest), layer.content)
            self.link(namespace, f"_layers/sha256/{layer.digest.hex}", layer.digest)
        self.push_manifest(wanted.content, namespace)
        if tag:
            self.link(namespace, f"_manifests/tags/{tag}/current", wanted.digest)
            self.link(namespace, f"_manifests/tags/{tag}/index/sha256/{wanted.digest.hex}", wanted.digest)

    def push_manifest(self, content: bytes, namespace: str) -> None:
        digest = Digest.of(content, "sha256")
        self.write(blob_key(digest), content)
        self.link(namespace, f"_manifests/revisions/sha256/{digest.hex}", digest)

    def take(self) -> Imported:
        return self.registry.run(Operation(import_distribution(1 << 22)))

    def give_back(self) -> Exported:
        return self.registry.run(Operation(export_distribution()))

    def push_here(self, index: int, namespace: str, reference: str = "") -> None:
        """Push an image with everything it needs to our registry. Without a reference by its digest."""
        wanted = image(index)
        for child in wanted.children:
            self.push_here(child, namespace)
        for needed in wanted.blobs:
            layer = blob(needed)
            self.ask(201, "POST", f"/v2/{namespace}/blobs/uploads/?digest={layer.digest}", layer.content)
        target = f"/v2/{namespace}/manifests/{reference or wanted.digest}"
        self.ask(201, "PUT", target, wanted.content, {"Content-Type": wanted.media_type})

    def ask(
        self, status: int, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        """Ask our registry, a second later, and insist on the status of its answer."""
        self.registry.world.clock.now_ms += 1000
        answer = self.registry.send(method, target, headers, body)
        assert answer.status == status, answer.body

    def links(self) -> dict[str, str]:
        """What the links of distribution say."""
        found = {name: value or b"" for name, value in self.names().items() if name.startswith("v2/repositories/")}
        return {name: value.decode() for name, value in found.items() if name.endswith("/link")}

    def old_tags(self) -> dict[str, str]:
        """What distribution would serve under tags. Fails where a name leads nowhere."""
        names, tags = self.names(), {}
        for key, value in self.links().items():
            repository, _, rest = key.removeprefix("v2/repositories/").partition("/_")
            kind, _, name = rest.rpartition("/link")[0].rpartition("/")
            digest = Digest.parse(value)
            assert blob_key(digest) in names, f"{key} leads nowhere"
            if name == "current":
                assert (
                    f"v2/repositories/{repository}/_manifests/revisions/{digest.algorithm}/{digest.hex}/link" in names
                )
                tags[f"{repository}:{kind.rpartition('/')[2]}"] = value
        return tags

    def names(self) -> dict[str, bytes | None]:
        names = self.registry.world.store.names("v2/")
        return {name: self.registry.run(Operation(_read(Key(name)))) for name in names}

    def digest(self, namespace: str, reference: str) -> str | None:
        answer = self.registry.send("GET", f"/v2/{namespace}/manifests/{reference}")
        return dict(answer.headers)["Docker-Content-Digest"] if answer.status == 200 else None


async def _create(key: Key, value: bytes) -> None:
    await CreateKeys(((key, value),))


async def _read(key: Key) -> bytes | None:
    return await ReadKey(key)


async def _stat(key: Key) -> Stat | None:
    return await StatKey(key)


class _Killed(BaseException):
    pass


def killed_after(registry: SimulatedRegistry, work: Callable[[], object], count: int) -> bool:
    """Perform `count` effects of some work and drop it. False when it was done before."""
    perform = registry.perform
    left = count

    def counting(effect: Effect[Any]) -> Any:
        nonlocal left
        if left == 0:
            raise _Killed
        left -= 1
        return perform(effect)

    registry.perform = counting  # type: ignore[method-assign]
    try:
        work()
    except _Killed:
        return True
    finally:
        registry.perform = perform  # type: ignore[method-assign]
    return False
