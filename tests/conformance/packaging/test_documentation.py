"""What the README and the pages below docs/ say that can be compared with the program."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest

from angos.runtime.config.schema import load_configuration
from angos.runtime.maintenance.argon import hash_password
from angos.sansio.errors import Code
from angos.sansio.oci.digest import Digest
from tests.conformance.certificates import Authority

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_files_of_the_project_that_a_page_names_are_there(page: Path) -> None:
    paths = re.findall(r"`((?:sansio|runtime|simulator|tests|benchmarks|docs)/[\w./-]+)`", page.read_text())
    written_by_running = {"benchmarks/results/"}
    assert [path for path in paths if not (ROOT / path).exists() and path not in written_by_running] == []


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"(?:`|^|\$ )make ([a-z]+)", page.read_text(), re.MULTILINE)
    assert set(named) <= set(phony.split())


def test_every_error_code_is_in_the_reference() -> None:
    text = (ROOT / "docs/reference/http-api.md").read_text()
    assert [code for code in get_args(Code) if re.search(rf"\b{code}\b", text) is None] == []


def test_options_of_the_server_command_are_those_of_the_reference() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "angos.runtime", "server", "--help"], capture_output=True, text=True, check=True
    ).stdout
    described = (ROOT / "docs/reference/command-line.md").read_text()
    options = set(re.findall(r"--[a-z][a-z-]+", shown))
    assert options
    assert options - set(re.findall(r"--[a-z][a-z-]+", described)) == set()


def test_library_example_of_the_readme_prints_what_it_says() -> None:
    text = (ROOT / "README.md").read_text()
    program, output = re.findall(r"```python\n(.*?)```\n.*?```text\n(.*?)```", text, re.DOTALL)[-1]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "README.md", "exec"), {})
    assert printed.getvalue() == output


def test_asgi_application_of_the_how_to_serves_a_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANGOS_ROOT", str(tmp_path))
    text = (ROOT / "docs/how-to/use-the-core-under-another-transport.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    module: dict[str, Any] = {"__name__": "example"}
    exec(compile(program, "application.py", "exec"), module)

    async def ask(method: str, target: str, body: bytes = b"", *fields: tuple[bytes, bytes]) -> tuple[int, bytes]:
        path, _, query = target.partition("?")
        arriving: list[dict[str, Any]] = [
            {"type": "http.request", "body": body[:3], "more_body": True},
            {"type": "http.request", "body": body[3:]},
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return arriving.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"content-length", str(len(body)).encode()), *fields],
        }
        await module["application"](scope, receive, send)
        answer = b"".join(message["body"] for message in sent[1:])
        lengths = [value for name, value in sent[0]["headers"] if name == b"content-length"]
        assert method == "HEAD" or lengths == [str(len(answer)).encode()]
        return sent[0]["status"], answer

    digest = Digest.of(b"hello, transport")

    async def push_and_pull() -> None:
        blob = f"/v2/library/hello/blobs/{digest}"
        status, _ = await ask("POST", f"/v2/library/hello/blobs/uploads/?digest={digest}", b"hello, transport")
        assert status == 201
        assert await ask("GET", blob) == (200, b"hello, transport")
        assert await ask("HEAD", blob) == (200, b"")
        assert await ask("GET", blob, b"", (b"range", b"bytes=7-")) == (206, b"transport")
        status, several = await ask("GET", blob, b"", (b"range", b"bytes=0-1,7-8"))
        assert (status, several.count(b"Content-Range")) == (206, 2)
        assert (await ask("GET", "/v2/library/hello/tags/list"))[0] == 404

    anyio.run(push_and_pull)


def test_private_registry_of_the_readme_decides_as_it_says(tmp_path: Path) -> None:
    """The configuration that people copy: it is valid without a warning, and explains itself as the page shows."""
    text = (ROOT / "README.md").read_text()
    (configuration,) = re.findall(r"<<END\n(.*?)\nEND\n", text, re.DOTALL)
    configuration = configuration.replace("$hash", hash_password("open sesame"))
    issued = Authority(tmp_path).issue("localhost")
    (tmp_path / "server.pem").write_bytes(issued.certificate.read_bytes())
    (tmp_path / "server.key").write_bytes(issued.key.read_bytes())
    (tmp_path / "angos.toml").write_text(configuration)
    assert load_configuration([tmp_path / "angos.toml"]).warnings == ()
    (shown,) = re.findall(r"angos explain -c angos-private/angos.toml (\S+ \S+)\n(.*?)```", text, re.DOTALL)
    command = [sys.executable, "-m", "angos.runtime", "explain", "-c", str(tmp_path / "angos.toml"), *shown[0].split()]
    printed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (printed.returncode, printed.stdout) == (2, shown[1])
