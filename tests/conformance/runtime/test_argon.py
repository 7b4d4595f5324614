"""``angos argon``: a hash for the configuration."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from angos.runtime.access.phc import check_phc
from angos.runtime.maintenance import argon

PROGRAM = "import argparse, sys; from angos.runtime.maintenance.argon import run; sys.exit(run(argparse.Namespace()))"

INTERRUPT = b"^C"

RunWith = Callable[[bytes], tuple[int, str, str]]


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunWith:
    """Runs it with these bytes on standard input; gives exit code, standard output and standard error."""

    def run(given: bytes) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        code = argon.run(argparse.Namespace())
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def is_hash_of(password: str, printed: str) -> bool:
    return PasswordHasher().verify(printed.strip(), password)


@pytest.mark.parametrize("given", [b"secret", b"secret\n", b"secret\r\n", b"secret\nanother line\n"])
def test_the_first_line_of_standard_input_is_hashed(run_with: RunWith, given: bytes) -> None:
    code, out, err = run_with(given)
    assert (code, err) == (0, "")
    assert out.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert is_hash_of("secret", out)
    assert check_phc(out.strip()) is None


def test_blanks_and_letters_of_all_alphabets_belong_to_the_password(run_with: RunWith) -> None:
    code, out, _ = run_with(" пароль \n".encode())
    assert code == 0
    assert is_hash_of(" пароль ", out)


@pytest.mark.parametrize(
    ("given", "problem"),
    [(b"", "empty"), (b"\n", "empty"), (b"\r\n", "empty"), (b"\xff\n", "not UTF-8"), (b"a\0b\n", "NUL")],
)
def test_what_cannot_be_a_password_is_refused(run_with: RunWith, given: bytes, problem: str) -> None:
    code, out, err = run_with(given)
    assert (code, out) == (1, "")
    assert err.startswith("angos: the password ")
    assert problem in err


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


class TestOnATerminal:
    """A real one: a pseudo-terminal whose other end is the test."""

    def type_into(self, *lines: bytes) -> tuple[int, str, str]:
        """Exit code, what was printed, and what the terminal showed."""
        terminal, inner = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=inner, stdout=subprocess.PIPE, stderr=inner, start_new_session=True
        )
        os.close(inner)
        try:
            shown = b""
            for line in lines:
                while not shown.rstrip(b" ").endswith(b":"):  # a prompt: from now on nothing that is typed is shown
                    shown += os.read(terminal, 1000)
                if line == INTERRUPT:
                    # A signal right before the reading begins is noticed right after it: with the next key.
                    while not _sleeps(process.pid):
                        time.sleep(0.01)
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(terminal, line)
                shown += b"|"
            printed, _ = process.communicate(timeout=30)
            os.set_blocking(terminal, False)
            with contextlib.suppress(OSError):  # nothing more
                shown += os.read(terminal, 1000)
        finally:
            process.kill()
            process.wait()
            os.close(terminal)
        return process.returncode, printed.decode(), shown.decode()

    def test_it_asks_twice_and_shows_nothing(self) -> None:
        code, printed, shown = self.type_into(b"canary\n", b"canary\n")
        assert code == 0, shown
        assert is_hash_of("canary", printed)
        assert "canary" not in shown
        assert "Password: " in shown
        assert "The same again: " in shown

    def test_two_different_ones(self) -> None:
        code, printed, shown = self.type_into(b"canary\n", b"canaries\n")
        assert (code, printed) == (1, "")
        assert "the two passwords are not the same" in shown
        assert "canar" not in shown

    def test_none(self) -> None:
        code, printed, shown = self.type_into(b"\n")
        assert (code, printed) == (1, "")
        assert "the password is empty" in shown

    def test_the_end_of_input(self) -> None:
        code, printed, shown = self.type_into(b"\x04")
        assert (code, printed) == (1, "")
        assert "no password was given" in shown

    def test_an_interruption(self) -> None:
        code, printed, _ = self.type_into(INTERRUPT)
        assert (code, printed) == (1, "")
