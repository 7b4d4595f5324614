"""The servers that are measured, each a process of its own, pinned to the server core."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.client import Unexpected, wait_until_answering, wait_until_listening
from benchmarks.machine import Cores, find_program

DOCKER_REGISTRY = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""

IN_BUCKET = """\
[blob_store.s3]
endpoint = "http://127.0.0.1:{port}"
bucket = "registry"
region = "us-east-1"
access_key_id = "benchmark"
secret_key = "not-really-a-secret"
"""

NGINX = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections 256; }}
http {{
    log_format sent '$body_bytes_sent';
    access_log {log};
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port}{tls};
        location = /v2/ {{ return 200; }}
        location / {{ root {root}; }}
    }}
}}
"""

TLS = (
    " ssl; ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;"
    " error_page 497 =200 /v2/"  # whoever waits for it to start asks without TLS
)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    name: str
    port: int
    root: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def resident_mib(self) -> float:
        """Resident memory, summed over the process and its descendants."""
        return sum(_resident_kib(pid) for pid in _with_descendants(self.process.pid)) / 1024

    def processor_seconds(self) -> float:
        """Time of processors that the process and its descendants have used so far."""
        return sum(_processor_ticks(pid) for pid in _with_descendants(self.process.pid)) / os.sysconf("SC_CLK_TCK")

    def remove_large_files(self) -> None:
        """Give the disk back what pushes of large blobs took. Only for servers that are not asked for them again."""
        for path in self.root.rglob("*"):
            if path.is_file() and path.stat().st_size >= 16 << 20:
                path.unlink()


@contextmanager
def angos(cores: Cores, root: Path, *arguments: str) -> Iterator[Server]:
    """This project's server, as `make run` starts it."""
    port = free_port()
    with _running("angos", cores, port, root, angos_command(root, port, *arguments)) as server:
        yield server


def angos_command(root: Path, port: int, *arguments: str) -> list[str]:
    """The command line behind `make run`."""
    options = ["--host", "127.0.0.1", "--port", str(port), "--root", str(root)]
    return [sys.executable, "-m", "angos.runtime", "server", *options, *arguments]


@contextmanager
def angos_in_bucket(cores: Cores, root: Path, sink_port: int, *lines: str) -> Iterator[Server]:
    """This project's server, blobs and metadata in a bucket; `lines` are more of its configuration."""
    port, configuration = free_port(), root.with_suffix(".toml")
    configuration.write_text("\n".join([IN_BUCKET.format(port=sink_port), *lines]))
    options = ["-c", str(configuration), "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "angos.runtime", "server", *options]
    with _running("angos", cores, port, root, command) as server:
        yield server


@contextmanager
def s3_sink(cores: Cores, *folder: Path) -> Iterator[int]:
    """A server of S3 that forgets large bodies, on the core of the load. Its port. `folder`: what it begins with."""
    port = free_port()
    process = subprocess.Popen(
        pinned(cores.load, [sys.executable, "-m", "benchmarks.sink", str(port), *map(str, folder)]),
        cwd=Path(__file__).parents[1],
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    try:
        wait_until_listening(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def docker_registry(cores: Cores, root: Path) -> Iterator[Server]:
    """Debian's docker-registry, with its package's settings except for logging, which is off."""
    port = free_port()
    with _running("docker-registry", cores, port, root, docker_registry_command(root, port)) as server:
        yield server


def docker_registry_command(root: Path, port: int) -> list[str]:
    """Writes its configuration beside its root."""
    configuration = root.with_name(f"{root.name}.yml")
    configuration.write_text(DOCKER_REGISTRY.format(root=root, port=port))
    return ["docker-registry", "serve", str(configuration)]


@contextmanager
def nginx(
    cores: Cores, root: Path, folder: Path, *, core: int | None = None, log: bool = False, tls: bool = False
) -> Iterator[Server]:
    """Debian's nginx serving the files below `root`; `folder` is for its own files.

    `core`: another one than that of servers. `log`: ``access.log`` has the bytes of each body. `tls`: it speaks TLS,
    with the self-signed certificate ``certificate.pem`` of its folder.
    """
    port = free_port()
    folder.mkdir()
    if tls:
        _certify(folder)
    encrypted = TLS.format(folder=folder) if tls else ""
    configuration = folder / "nginx.conf"
    logged = f"{folder}/access.log sent" if log else "off"
    configuration.write_text(NGINX.format(root=root, port=port, folder=folder, log=logged, tls=encrypted))
    command = [find_program("nginx") or "nginx", "-e", "stderr", "-p", str(folder), "-c", str(configuration)]
    where = cores if core is None else replace(cores, server=core)
    with _running("nginx", where, port, root, command) as server:
        yield server


def _certify(folder: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True)


def environment() -> dict[str, str]:
    """Ours without what would change how Python runs: a machine that keeps no bytecode compiles at every start."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def pinned(core: int, command: list[str]) -> list[str]:
    """The command that runs `command` on one core."""
    return ["taskset", "-c", str(core), *command]


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(name: str, cores: Cores, port: int, root: Path, command: list[str]) -> Iterator[Server]:
    log_path = root.with_name(f"{root.name}-{name}.log")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            pinned(cores.server, command),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        wait_until_answering(port, process)
        yield Server(name, port, root, process)
    except (Unexpected, OSError) as error:
        error.add_note(f"{name} logged: {log_path.read_text(errors='replace')[-2000:] or 'nothing'}")
        raise
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _with_descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            with suppress(FileNotFoundError):  # threads come and go
                found.extend(int(child) for child in (task / "children").read_text().split())
    return found


def _processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # utime and stime: proc(5)


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
