"""What all commands that maintain a store have in common."""

from __future__ import annotations

import argparse
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from angos.runtime.maintenance import frame
from angos.runtime.observability.progress_events import estimate, summary
from angos.sansio.effects import ListKeys, Prefix, StorageFull, StorageUnavailable, Tell
from angos.sansio.operation import Operation
from angos.sansio.progress import Passed, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    frame.add_store_arguments(parser)
    return parser.parse_args(given)


@pytest.fixture(autouse=True)
def _logging_stays_as_it_was() -> Iterator[None]:
    """A command says itself what fails, and silences the log of stores: for this process, where other tests run."""
    loggers = [logging.getLogger(name) for name in ("angos", "angos.storage")]
    levels = [logger.level for logger in loggers]
    handlers = logging.getLogger().handlers
    yield
    logging.getLogger().handlers = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


async def _count_keys() -> int:
    return len((await ListKeys(Prefix("v2/"))).names)


def run(*given: str, operation: Callable[[], Operation[int]] = lambda: Operation(_count_keys())) -> int:
    return frame.run(arguments(*given), lambda _: operation(), lambda count: 40 + count)


def test_the_result_decides_about_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "v2/cat").mkdir(parents=True)
    (tmp_path / "v2/cat/a!").touch()
    assert run("--root", str(tmp_path)) == 41


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A typing error in the name of a folder must not look like an empty registry."""
    missing = tmp_path / "dta"
    assert run("--root", str(missing)) == 1
    assert capsys.readouterr().err == (
        f"angos: there is no store in {missing}; name its folder by --root, or its configuration\n"
    )
    assert not missing.exists()


def test_a_configuration_that_is_wrong_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "angos.toml"
    file.write_text("[blob_store.fs]\nroot_dri = 'x'\n")
    assert run("-c", str(file)) == 1
    assert "blob_store.fs.root_dri" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (StorageUnavailable("the bucket does not answer"), 1, "angos: the bucket does not answer\n"),
        (StorageFull("creating keys: no space"), 1, "angos: creating keys: no space; free some kilobytes there first"),
        (KeyboardInterrupt(), 130, "angos: interrupted; what was done so far counts, and the next run goes on with"),
    ],
)
def test_errors_and_interruptions_are_for_people(
    error: BaseException, code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def failing() -> int:
        raise error

    assert run("--root", str(tmp_path), operation=lambda: Operation(failing())) == code
    assert capsys.readouterr().err.startswith(told)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_terminal_shows_a_bar_that_is_drawn_over_and_removed(clock: Clock) -> None:
    stream = Terminal()
    meter = frame.Meter(stream, clock)
    clock.now += 10
    meter.tell(Tell(Progress("work", "candidates", 50, 200, (("removed", 7), ("kept", 0)))))
    shown = stream.getvalue()
    assert shown == "\r[######..................] candidates: 50 of 200, 7 removed, some 30 s left"
    meter.tell(Tell(Progress("work", "candidates", 51, 200)))
    assert stream.getvalue() == shown, "not more often than somebody can read"
    clock.now += 1
    meter.tell(Tell(Progress("work", "everything", 51, None)))
    last = stream.getvalue().rpartition("\r")[2]
    assert last.rstrip() == "everything: 51 looked at"
    assert len(last) == len(shown) - 1, "the shorter line covers the longer one"
    meter.clear()
    assert stream.getvalue().endswith(" \r")


def test_without_a_terminal_there_is_a_line_now_and_then(clock: Clock) -> None:
    stream = io.StringIO()
    meter = frame.Meter(stream, clock)
    for number in range(1, 26):
        clock.now += 1
        meter.tell(Tell(Progress("work", "candidates", number, 100)))
    assert stream.getvalue().splitlines() == [
        "candidates: 10 of 100, some 90 s left",
        "candidates: 20 of 100, some 80 s left",
    ]


def test_what_was_passed_over_is_named_up_to_a_number(clock: Clock) -> None:
    stream = io.StringIO()
    meter = frame.Meter(stream, clock)
    for number in range(100):
        meter.tell(Tell(Passed("work", f"blob {number}", "it cannot be read")))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "angos: passed over blob 0: it cannot be read"
    assert lines[frame.PASSED_MAX :] == ["angos: more was passed over, only counted from here on"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1.5h", 5400), ("7d", 604800), ("0", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert frame.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1 h", "h", "1w", "1e3", "9999999999", "\u0661"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no duration"):
        frame.duration(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1_440_000_000, "1.4 GB")]
)
def test_sizes(size: int, text: str) -> None:
    assert frame.size_text(size) == text


def test_an_estimate_needs_something_done_and_a_whole() -> None:
    assert estimate(Progress("work", "", 0, 10), 5) == ""
    assert estimate(Progress("work", "", 5, None), 5) == ""
    assert estimate(Progress("work", "", 5, 10), 600) == ", some 10 min left"
    assert summary(Progress("work", "", 5, 10, (("freed_bytes", 9), ("kept", 0)), ended=True)) == (
        "5 looked at, 9 freed bytes"
    )


def test_names_that_are_stored_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file name with a line break forged a line of a report, one with an escape sequence coloured the terminal, and a
    half character in an event of a tag ended `angos tags history` with a traceback."""
    frame.show_some(["na\nme \x1b[31m \ud800 é"], 5)
    assert capsys.readouterr().out == "na\\nme \\x1b[31m \\ud800 é\n"

    async def fail() -> int:
        await Tell(Passed("x", "v2/a\nb", "a\rb"))
        raise StorageUnavailable("reading v2/a\nb")

    assert run("--root", str(tmp_path), operation=lambda: Operation(fail())) == 1
    assert capsys.readouterr().err == "angos: passed over v2/a\\nb: a\\rb\nangos: reading v2/a\\nb\n"
