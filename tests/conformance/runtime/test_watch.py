"""Which changes of files are noticed, when, and what is read then."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.runtime.config.watch import SIZE_MAX, Sighting, Unreadable, Watch, read_content

OLD, NEW = b"a = 1\n", b"a = 2\n"


def write_in_place(folder: Path) -> Path:
    (folder / "angos.toml").write_bytes(OLD)
    return folder / "angos.toml"


def swapped_by_kubernetes(folder: Path) -> Path:
    """A mounted ConfigMap: ``angos.toml -> ..data/angos.toml``, ``..data -> ..1``."""
    for name, content in (("..1", OLD), ("..2", NEW)):
        (folder / name).mkdir()
        (folder / name / "angos.toml").write_bytes(content)
    (folder / "..data").symlink_to("..1")
    (folder / "angos.toml").symlink_to("..data/angos.toml")
    return folder / "angos.toml"


def in_linked_folder(folder: Path) -> Path:
    for name, content in (("1", OLD), ("2", NEW)):
        (folder / name).mkdir()
        (folder / name / "angos.toml").write_bytes(content)
    (folder / "current").symlink_to("1")
    return folder / "current" / "angos.toml"


def relative(folder: Path) -> Path:
    return Path(os.path.relpath(write_in_place(folder)))


def overwrite(folder: Path) -> None:
    (folder / "angos.toml").write_bytes(NEW)


def rename_over(folder: Path) -> None:
    (folder / "angos.toml.new").write_bytes(NEW)
    (folder / "angos.toml.new").rename(folder / "angos.toml")


def swap_data(folder: Path) -> None:
    (folder / "..data_tmp").symlink_to("..2")
    (folder / "..data_tmp").rename(folder / "..data")


def swap_folder(folder: Path) -> None:
    (folder / "next").symlink_to("2")
    (folder / "next").rename(folder / "current")


WAYS = [
    pytest.param(write_in_place, overwrite, id="in place"),
    pytest.param(write_in_place, rename_over, id="renamed over"),
    pytest.param(swapped_by_kubernetes, swap_data, id="Kubernetes"),
    pytest.param(in_linked_folder, swap_folder, id="linked folder"),
    pytest.param(relative, overwrite, id="relative path"),
    pytest.param(relative, rename_over, id="relative path, renamed over"),
]


@pytest.mark.parametrize(("lay_out", "change"), WAYS)
def test_a_change_is_told_once_however_it_is_made(
    lay_out: Callable[[Path], Path], change: Callable[[Path], None], tmp_path: Path
) -> None:
    path = lay_out(tmp_path)
    watch = Watch([path], [OLD])
    assert [watch.look() for _ in range(3)] == [None] * 3
    change(tmp_path)
    assert [watch.look() for _ in range(4)] == [None, Sighting((path,), (NEW,)), None, None]


def test_two_files_are_read_together(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(OLD)
    second.write_bytes(OLD)
    watch = Watch([first, second], [OLD, OLD])
    first.write_bytes(NEW)
    assert watch.look() is None
    second.write_bytes(NEW)
    assert watch.look() is None, "the second file has only just changed"
    assert watch.look() == Sighting((first, second), (NEW, NEW))


def test_a_file_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    path = write_in_place(tmp_path)
    watch = Watch([path], [OLD])
    with path.open("wb", buffering=0) as opened:
        for byte in NEW:
            opened.write(bytes([byte]))
            assert watch.look() is None
    assert watch.look() == Sighting((path,), (NEW,))


def test_a_change_before_the_first_look_is_told(tmp_path: Path) -> None:
    path = write_in_place(tmp_path)
    path.write_bytes(NEW)
    watch = Watch([path], [OLD])
    assert watch.look() is None
    assert watch.look() == Sighting((path,), (NEW,))


def test_a_change_of_the_same_size_and_time_is_told(tmp_path: Path) -> None:
    path = write_in_place(tmp_path)
    watch = Watch([path], [OLD])
    before = path.stat()
    path.write_bytes(NEW)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert watch.look() is None
    assert watch.look() == Sighting((path,), (NEW,))


def test_the_same_content_written_again_is_no_change(tmp_path: Path) -> None:
    path = write_in_place(tmp_path)
    watch = Watch([path], [OLD])
    path.unlink()
    assert watch.look() is None
    path.write_bytes(OLD)
    assert [watch.look() for _ in range(3)] == [None] * 3


def test_a_file_that_is_gone_is_told_with_the_reason(tmp_path: Path) -> None:
    path = write_in_place(tmp_path)
    watch = Watch([path], [OLD])
    path.unlink()
    watch.look()
    sighting = watch.look()
    assert sighting is not None
    (content,) = sighting.contents
    assert isinstance(content, Unreadable)
    assert str(content) == "cannot be read: No such file or directory"


def test_somebody_who_asks_gets_the_files_as_they_are(tmp_path: Path) -> None:
    path = write_in_place(tmp_path)
    watch = Watch([path], [OLD])
    assert watch.look(at_once=True) == Sighting((), (OLD,))
    path.write_bytes(NEW)
    assert watch.look(at_once=True) == Sighting((path,), (NEW,))
    assert [watch.look() for _ in range(3)] == [None] * 3


def test_files_that_the_configuration_names_are_watched_too(tmp_path: Path) -> None:
    path, certificate, other = write_in_place(tmp_path), tmp_path / "server.pem", tmp_path / "other.pem"
    watch = Watch([path], [OLD])
    watch.follow([certificate])
    assert [watch.look() for _ in range(2)] == [None] * 2
    certificate.write_bytes(b"certificate")
    assert [watch.look() for _ in range(2)] == [None, Sighting((certificate,), (OLD,))]
    watch.follow([other])
    certificate.write_bytes(b"nobody cares any more")
    assert [watch.look() for _ in range(2)] == [None] * 2
    other.write_bytes(b"certificate")
    assert [watch.look() for _ in range(2)] == [None, Sighting((other,), (OLD,))]


def test_following_the_same_files_again_forgets_no_change(tmp_path: Path) -> None:
    path, certificate = write_in_place(tmp_path), tmp_path / "server.pem"
    watch = Watch([path], [OLD])
    watch.follow([certificate])
    certificate.write_bytes(b"certificate")
    watch.follow([certificate])
    assert [watch.look() for _ in range(2)] == [None, Sighting((certificate,), (OLD,))]


def test_what_is_no_file_is_told_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(Unreadable, match="not a regular file"):
            read_content(path)
    with (tmp_path / "huge").open("wb") as opened:
        opened.truncate(SIZE_MAX + 1)
    with pytest.raises(Unreadable, match="larger than"):
        read_content(tmp_path / "huge")


def test_looking_leaves_no_descriptor_open(tmp_path: Path) -> None:
    path = write_in_place(tmp_path)
    watch = Watch([path], [OLD])
    watch.follow([tmp_path, tmp_path / "absent"])
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        watch.look()
    assert os.listdir("/proc/self/fd") == before


@given(st.lists(st.sampled_from(["write 1", "write 2", "remove", "look", "ask"]), max_size=20))
def test_whatever_happens_the_last_sighting_is_what_is_there(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_in_place(Path(folder))
        watch = Watch([path], [OLD])
        known: bytes | None = OLD
        for step in [*steps, "look", "look"]:
            if step.startswith("write"):
                path.write_text(step)
            elif step == "remove":
                path.unlink(missing_ok=True)
            elif (sighting := watch.look(at_once=step == "ask")) is not None:
                content = sighting.contents[0]
                assert sighting.changed or step == "ask"
                known = content if isinstance(content, bytes) else None
        assert known == (path.read_bytes() if path.exists() else None)
