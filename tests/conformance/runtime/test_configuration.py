"""Configuration files: merging, checking, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from angos.runtime.config.file import BadConfiguration
from angos.runtime.config.schema import Configuration, DirectoryConfig, load_configuration
from angos.runtime.server.limits import ServerOptions
from angos.sansio.config import RegistryConfig


def write(folder: Path, *texts: str) -> list[Path]:
    files = []
    for number, text in enumerate(texts):
        files.append(folder / f"{number}.toml")
        files[-1].write_text(text)
    return files


def problems(folder: Path, *texts: str) -> list[str]:
    with pytest.raises(BadConfiguration) as raised:
        load_configuration(write(folder, *texts))
    return [str(problem).replace(f"{folder}/", "") for problem in raised.value.problems]


def test_nothing_configured_is_the_defaults() -> None:
    assert load_configuration([]) == Configuration()
    assert Configuration().blob_store == DirectoryConfig(Path("angos-data"), sync_to_disk=True)


def test_every_key_arrives_where_it_belongs(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        """
        [server]
        bind_address = "0.0.0.0"
        port = 5000
        workers = 4
        head_size_max = "64KiB"
        drain_seconds = 5
        [global]
        max_manifest_size = "4MB"
        max_blob_size = 1000
        allow_missing_manifest_references = false
        [blob_store.fs]
        root_dir = "blobs"
        sync_to_disk = false
        [metadata_store.fs]
        root_dir = "metadata"
        """,
    )
    assert load_configuration(files) == Configuration(
        ServerOptions("0.0.0.0", 5000, 4, head_size_max=65536, drain_seconds=5.0),
        RegistryConfig(4_000_000, 1000, False),
        DirectoryConfig(tmp_path / "blobs", False),
        DirectoryConfig(tmp_path / "metadata", True),
    )


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    first = "[server]\nport = 1\nworkers = 2\n[blob_store.fs]\nroot_dir = 'one'"
    second = "[server]\nport = 3\n[blob_store.fs]\nsync_to_disk = false"
    found = load_configuration(write(tmp_path, first, second))
    assert (found.server.port, found.server.workers) == (3, 2)
    assert found.blob_store == DirectoryConfig(tmp_path / "one", False)


def test_all_problems_are_told_at_once_each_with_its_file_and_key(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        "[server]\nprt = 5\nport = 70000\n[blob_store.fs]\n[use]\nenabled = true",
        "[global]\nmax_manifest_size = '5 apples'\nallow_missing_manifest_references = 1\n[server]\nworkers = true",
    ) == [
        "0.toml: server.prt: unknown key; did you mean server.port?",
        "0.toml: server.port: found 70000; allowed is a number from 0 to 65535",
        "1.toml: server.workers: found true; allowed is a number from 1 to 1024",
        "0.toml: blob_store.fs.root_dir: is missing",
        "0.toml: use: unknown key; known at the top: auth, blob_store, cache, global, leases, metadata_store,"
        " observability, repository, server",
        '1.toml: global.max_manifest_size: found "5 apples"; '
        'allowed is a size of at least one byte, such as "5MiB" or "100GiB"',
        "1.toml: global.allow_missing_manifest_references: found 1; allowed is true or false",
    ]


def test_tables_and_values_are_not_mixed_up(tmp_path: Path) -> None:
    assert problems(tmp_path, "server = 1\n[global.max_blob_size]\nx = 1\n[metadata_store]\nfs = 'here'") == [
        "0.toml: server: found 1; a table [server] is needed",
        "0.toml: global.max_blob_size: found a table, a value is needed",
        '0.toml: metadata_store.fs: found "here"; a table [metadata_store.fs] is needed',
    ]


def test_files_that_are_no_configuration_are_told_by_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[server\n")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfiguration) as raised:
        load_configuration([broken, tmp_path / "missing.toml", tmp_path, binary])
    told = str(raised.value).replace(f"{tmp_path}/", "").splitlines()
    assert told[0].startswith("broken.toml: is not TOML: ")
    assert "line 1" in told[0]
    assert told[1] == "missing.toml: cannot be read: No such file or directory"
    assert told[2].endswith("cannot be read: Is a directory")
    assert told[3] == "binary.toml: is not TOML: it is not UTF-8"


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("5MiB", 5 << 20),
        ("5 MiB", 5 << 20),
        ("1.5KiB", 1536),
        ("2GB", 2_000_000_000),
        ("7", 7),
        ("7B", 7),
        ("1kB", 1000),
    ],
)
def test_sizes_have_units(tmp_path: Path, written: str, size: int) -> None:
    (file,) = write(tmp_path, f"[global]\nmax_blob_size = '{written}'")
    assert load_configuration([file]).registry.blob_size_max == size


@pytest.mark.parametrize("written", ["0", "-1", "'0.1B'", "'MiB'", "'5mib'", "'1e3'", "1.5", "true", "[]", "nan", "''"])
def test_what_is_no_size_is_refused(tmp_path: Path, written: str) -> None:
    (problem,) = problems(tmp_path, f"[global]\nmax_blob_size = {written}")
    assert "allowed is a size" in problem


@pytest.mark.parametrize("written", ["0", "-1", "nan", "inf", "'5'", "true"])
def test_what_is_no_time_is_refused(tmp_path: Path, written: str) -> None:
    (problem,) = problems(tmp_path, f"[server]\nidle_timeout = {written}")
    assert "allowed is a number of seconds above 0" in problem


def test_an_empty_root_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "[blob_store.fs]\nroot_dir = ''")
    assert problem.endswith('root_dir: found ""; allowed is the path of a folder')


def test_long_values_are_shown_shortened(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, f"[server]\nhead_parser = '{'x' * 500}'")
    assert len(problem) < 200
