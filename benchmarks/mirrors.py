"""Rows `mirror`: a large blob through a cache, cold and warm, for one client and for sixteen, and from TLS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.client import Connection, close_upload, open_upload
from benchmarks.content import Content, ContentMaker
from benchmarks.memory import largest_while
from benchmarks.result import Result, Target
from benchmarks.servers import Server, angos, nginx
from benchmarks.settings import Settings

ROWS = ("mirror",)
PROGRAMS = {"nginx", "taskset"}

_CLIENTS = 16
_CONFIGURATION = """\
[repository.pushed]
[repository.hub]
[[repository.hub.upstream]]
url = "http://127.0.0.1:{port}"
[repository.encrypted]
[[repository.encrypted.upstream]]
url = "https://127.0.0.1:{tls_port}"
server_ca_bundle = "{certificate}"
"""


def measure(settings: Settings) -> list[Result]:
    """The upstream is nginx, on the core of the load: it costs least, and its log says what it has sent."""
    maker = ContentMaker(settings.size_mib << 20)
    with ExitStack() as stack:
        files = settings.folder / "origin"
        origin = stack.enter_context(_origin(settings, files))
        folder = settings.folder / "encrypted-nginx"
        encrypted = stack.enter_context(nginx(settings.cores, files, folder, core=settings.cores.load, tls=True))
        configuration = settings.folder / "mirror.toml"
        configuration.write_text(
            _CONFIGURATION.format(port=origin.port, tls_port=encrypted.port, certificate=folder / "certificate.pem")
        )
        mirror = stack.enter_context(angos(settings.cores, settings.folder / "mirror", "-c", str(configuration)))
        return [
            _first_byte(settings, maker, origin, mirror, files),
            *_many(settings, maker, origin, mirror, files),
            _encrypted(settings, maker, mirror, files),
            _warm(settings, maker, mirror, files),
        ]


@contextmanager
def _origin(settings: Settings, files: Path) -> Iterator[Server]:
    files.mkdir()
    with nginx(settings.cores, files, settings.folder / "origin-nginx", core=settings.cores.load, log=True) as server:
        yield server


def _publish(files: Path, content: Content) -> str:
    """Put it where the upstream has it; gives its path there."""
    path = f"v2/image/blobs/{content.digest}"
    file = files / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb", buffering=0) as written:
        for piece in content.pieces():
            written.write(piece)
    return path


def _first_byte(settings: Settings, maker: ContentMaker, origin: Server, mirror: Server, files: Path) -> Result:
    cold: list[float] = []
    direct: list[float] = []
    for _ in range(max(settings.rounds, 5)):
        path = _publish(files, maker.make())
        direct.append(_milliseconds_to_first_byte(origin, f"/{path}"))
        target = f"/v2/hub/{path.removeprefix('v2/')}"
        cold.append(_milliseconds_to_first_byte(mirror, target))
        _download(mirror, target)  # until it is stored
        _clear(files, mirror)
    later = tuple(ours - theirs for ours, theirs in zip(cold, direct, strict=True))
    work = f"first byte of a cold {settings.size_mib} MiB blob through a mirror, later than from upstream"
    return Result("mirror", work, "ms", later, target=Target("figure", "at most", 20))


def _milliseconds_to_first_byte(server: Server, target: str) -> float:
    with Connection(server.port) as connection:
        start = time.perf_counter()
        connection.download(target, size_max=1)
        return (time.perf_counter() - start) * 1000


def _many(settings: Settings, maker: ContentMaker, origin: Server, mirror: Server, files: Path) -> list[Result]:
    ratios, seconds, alone, memory = [], [], [], []
    for _ in range(settings.rounds):
        content = maker.make()
        path = _publish(files, content)
        target = f"/v2/hub/{path.removeprefix('v2/')}"
        before = _sent(settings)
        start = time.perf_counter()
        memory.append(largest_while(mirror, [partial(_download, mirror, target)] * _CLIENTS))
        seconds.append(_CLIENTS * content.size / 1e6 / (time.perf_counter() - start))
        ratios.append((_sent(settings) - before) / content.size)
        _clear(files, mirror)
        alone.append(_cold(maker, mirror, files, "hub"))
    blob = f"cold {settings.size_mib} MiB blob through a mirror"
    return [
        Result("mirror", f"{blob}, one client", "MB/s", tuple(alone)),
        Result("mirror", f"{blob}, {_CLIENTS} clients together", "MB/s", tuple(seconds)),
        Result(
            "mirror",
            f"{blob}, {_CLIENTS} clients: bytes from upstream for each byte of it",
            "",
            tuple(ratios),
            target=Target("figure", "at most", 1.0),
        ),
        Result(
            "mirror",
            f"{blob}, {_CLIENTS} clients: resident memory",
            "MiB",
            tuple(memory),
            target=Target("figure", "at most", 120),
        ),
    ]


def _cold(maker: ContentMaker, mirror: Server, files: Path, repository: str) -> float:
    """One client, a blob that nobody has asked for: MB/s."""
    content = maker.make()
    path = _publish(files, content)
    start = time.perf_counter()
    _download(mirror, f"/v2/{repository}/{path.removeprefix('v2/')}")
    figure = content.size / 1e6 / (time.perf_counter() - start)
    _clear(files, mirror)
    return figure


def _encrypted(settings: Settings, maker: ContentMaker, mirror: Server, files: Path) -> Result:
    figures = [_cold(maker, mirror, files, "encrypted") for _ in range(settings.rounds)]
    work = f"cold {settings.size_mib} MiB blob through a mirror whose upstream speaks TLS, one client"
    return Result("mirror", work, "MB/s", tuple(figures))


def _download(server: Server, target: str) -> None:
    with Connection(server.port) as connection:
        connection.download(target)


def _sent(settings: Settings) -> int:
    """Bytes of bodies that the upstream has sent so far."""
    time.sleep(0.2)  # nginx logs when the last byte has been handed over
    lines = (settings.folder / "origin-nginx" / "access.log").read_text().split()
    return sum(map(int, lines))


def _warm(settings: Settings, maker: ContentMaker, mirror: Server, files: Path) -> Result:
    path = _publish(files, content := maker.make())
    cached = f"/v2/hub/{path.removeprefix('v2/')}"
    _download(mirror, cached)
    other = maker.make()
    with Connection(mirror.port) as connection:
        close_upload(connection, open_upload(connection, "pushed/image"), other, with_body=True)
    pushed = f"/v2/pushed/image/blobs/{other.digest}"
    figures: dict[str, list[float]] = {cached: [], pushed: []}
    for target in (cached, pushed):
        _download(mirror, target)
    for number in range(settings.rounds):
        for target in (cached, pushed) if number % 2 == 0 else (pushed, cached):
            start = time.perf_counter()
            _download(mirror, target)
            figures[target].append(content.size / 1e6 / (time.perf_counter() - start))
    work = f"warm {settings.size_mib} MiB blob from a mirror"
    ours, theirs = tuple(figures[cached]), tuple(figures[pushed])
    return Result("mirror", work, "MB/s", ours, "one that was pushed", theirs, Target("ratio", "at least", 0.9))


def _clear(files: Path, mirror: Server) -> None:
    """Give the disk back what large blobs took."""
    mirror.remove_large_files()
    for file in files.rglob("sha256:*"):
        file.unlink()
