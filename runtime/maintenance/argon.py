"""``angos argon``: the hash of a password, for ``auth.identity.<id>.password``."""

from __future__ import annotations

import argparse
import getpass
import sys

MEMORY_KIB, PASSES, LANES = 19456, 2, 1  # OWASP Password Storage Cheat Sheet; 25 ms and 19 MiB for each login


class NoPassword(Exception):
    """There is nothing to hash. Says why."""


def run(arguments: argparse.Namespace) -> int:
    """Ask for a password and print its hash. Has no options. Gives the exit code.

    On a terminal it is asked for twice and not shown; otherwise it is the first line of standard input.
    """
    try:
        password = _ask() if sys.stdin.isatty() else _read()
    except NoPassword as error:
        print(f"angos: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201
        return 1
    print(hash_password(password))  # noqa: T201
    return 0


def hash_password(password: str) -> str:
    """In PHC form, with a salt of its own."""
    from argon2 import PasswordHasher, Type

    return PasswordHasher(PASSES, MEMORY_KIB, LANES, hash_len=32, salt_len=16, type=Type.ID).hash(password)


def _ask() -> str:
    try:
        password = _checked(getpass.getpass("Password: "))
        if getpass.getpass("The same again: ") != password:
            raise NoPassword("the two passwords are not the same")
    except EOFError:
        raise NoPassword("no password was given") from None
    except UnicodeDecodeError:
        raise NoPassword("the password is not UTF-8 text") from None
    return password


def _read() -> str:
    line = sys.stdin.buffer.readline()
    try:
        return _checked(line.decode("utf-8").removesuffix("\n").removesuffix("\r"))
    except UnicodeDecodeError:
        raise NoPassword("the password is not UTF-8 text") from None


def _checked(password: str) -> str:
    if not password:
        raise NoPassword("the password is empty")
    if "\0" in password:
        raise NoPassword("the password holds a NUL character, which no client can send")
    return password
