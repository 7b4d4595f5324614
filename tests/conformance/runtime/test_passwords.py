"""Verifying passwords: what it costs, who waits for whom, and what is remembered."""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import argon2
import pytest
from argon2.exceptions import VerificationError
from hypothesis import given
from hypothesis import strategies as st

from angos.runtime.access import passwords as module
from angos.runtime.access.passwords import Passwords
from angos.runtime.access.phc import check_phc, stand_in
from angos.sansio.effects import PeerUnavailable, VerifyPassword
from angos.sansio.secret import Secret
from tests.conformance.runtime.loops import LOOPS, Run, runner

CHEAP_KIB = 64


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


def phc_of(password: str, passes: int = 1, kind: argon2.Type = argon2.Type.ID) -> Secret:
    return Secret(argon2.PasswordHasher(passes, CHEAP_KIB, 1, type=kind).hash(password))


@pytest.fixture
def passwords() -> Passwords:
    return Passwords({"alice": phc_of("right"), "bob": phc_of("bob's")})


def asked(passwords: Passwords, username: str, password: str) -> Any:
    """The reply, or the coroutine that ends with it."""
    return passwords.verify_password(VerifyPassword(username, Secret(password)))


async def answer(passwords: Passwords, username: str, password: str) -> bool:
    reply = asked(passwords, username, password)
    right: bool = await reply if inspect.iscoroutine(reply) else reply
    return right


class Runs:
    """Every run of Argon2, in the order in which they began."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.passwords: list[str] = []
        self.niceness: list[int] = []
        self.at_once_max = 0
        self.gate = threading.Event()
        """Runs do not begin before it is set."""
        self.gate.set()
        self._at_once = 0
        self._real = module._is_right

    def __call__(self, phc: str, password: Secret) -> bool | None:
        self._at_once += 1
        self.at_once_max = max(self.at_once_max, self._at_once)
        self.hashes.append(phc)
        self.passwords.append(password.value)
        self.niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        self.gate.wait()
        right = self._real(phc, password)
        self._at_once -= 1
        return right


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    runs = Runs()
    monkeypatch.setattr(module, "_is_right", runs)
    yield runs
    runs.gate.set()


class TestVerdicts:
    def test_only_the_password_of_the_user_is_right(self, run: Run, passwords: Passwords) -> None:
        async def main() -> list[bool]:
            pairs = [
                ("alice", "right"),
                ("alice", "bob's"),
                ("alice", ""),
                ("bob", "bob's"),
                ("carol", "right"),
                ("", ""),
            ]
            return [await answer(passwords, *pair) for pair in pairs]

        assert run(main) == [True, False, False, True, False, False]

    @pytest.mark.parametrize("kind", list(argon2.Type))
    def test_all_kinds_of_argon2(self, run: Run, kind: argon2.Type) -> None:
        passwords = Passwords({"alice": phc_of("right", kind=kind)})

        async def main() -> list[bool]:
            return [await answer(passwords, "alice", text) for text in ("right", "wrong")]

        assert run(main) == [True, False]

    @pytest.mark.parametrize("text", ["пароль", "\ud800", "a" * 100_000, "a:b", "\0"])
    def test_any_text_can_be_a_password_or_a_name(self, run: Run, passwords: Passwords, text: str) -> None:
        async def main() -> list[bool]:
            return [await answer(passwords, "alice", text), await answer(passwords, text, "right")]

        assert run(main) == [False, False]

    def test_without_any_user_nothing_is_right_and_nothing_is_computed(self) -> None:
        assert asked(Passwords({}), "alice", "right") is False

    def test_a_hash_that_cannot_be_computed_is_not_a_wrong_password(
        self, run: Run, passwords: Passwords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object) -> None:
            raise VerificationError("Memory allocation error")

        monkeypatch.setattr("argon2.low_level.verify_secret", fail)
        with pytest.raises(PeerUnavailable, match="not enough memory"):
            run(lambda: answer(passwords, "alice", "right"))


class TestUnknownUsers:
    """Bug class 8: how long an answer takes must not tell whether there is such a user."""

    def test_an_unknown_name_costs_one_run_of_the_same_cost(self, run: Run, passwords: Passwords, runs: Runs) -> None:
        run(lambda: answer(passwords, "carol", "right"))
        run(lambda: answer(passwords, "alice", "wrong"))
        assert len(runs.hashes) == 2
        assert len({phc.rpartition("$")[0].rpartition("$")[0] for phc in runs.hashes}) == 1
        assert len({len(phc) for phc in runs.hashes}) == 1

    def test_with_several_costs_unknown_names_have_them_as_often_as_known_ones(self, run: Run, runs: Runs) -> None:
        users = {f"user{number}": phc_of("x", passes=1 if number < 3 else 2) for number in range(4)}
        passwords = Passwords(users)

        async def main() -> None:
            for number in range(200):
                await answer(passwords, f"nobody{number}", "x")

        run(main)
        costs = Counter(phc.split("$")[3] for phc in runs.hashes)
        assert set(costs) == {"m=64,t=1,p=1", "m=64,t=2,p=1"}
        assert 100 < costs["m=64,t=1,p=1"] < 190  # three of four, within five standard deviations

    def test_an_unknown_name_keeps_its_cost_in_every_process(self, run: Run, runs: Runs) -> None:
        users = {f"user{number}": phc_of("x", passes=1 + number % 2) for number in range(4)}

        async def main() -> None:
            for passwords in (Passwords(users), Passwords(dict(reversed(users.items())))):
                for number in range(20):
                    await answer(passwords, f"nobody{number}", "x")

        run(main)
        costs = [phc.split("$")[3] for phc in runs.hashes]
        assert costs[:20] == costs[20:]
        assert len(set(costs)) == 2

    @given(st.binary(min_size=8, max_size=64), st.integers(16, 64))
    def test_a_stand_in_has_the_same_cost_and_another_hash(self, salt: bytes, size: int) -> None:
        phc = argon2.low_level.hash_secret(b"x", salt, 1, 8, 1, size, argon2.Type.ID).decode()
        standing_in = stand_in(phc)
        assert check_phc(standing_in) is None
        assert argon2.extract_parameters(standing_in) == argon2.extract_parameters(phc)
        assert module._is_right(standing_in, Secret("x")) is False


class TestBursts:
    def test_the_same_credentials_at_the_same_time_cost_one_run(
        self, run: Run, passwords: Passwords, runs: Runs
    ) -> None:
        verdicts: list[bool] = []

        async def one(password: str) -> None:
            verdicts.append(await answer(passwords, "alice", password))

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                for password in ["right"] * 200 + ["wrong"] * 200:
                    tasks.start_soon(one, password)

        run(main)
        assert sorted(runs.passwords) == ["right", "wrong"]
        assert Counter(verdicts) == {True: 200, False: 200}

    def test_few_run_at_a_time_and_with_low_priority(self, run: Run, passwords: Passwords, runs: Runs) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(answer, passwords, "alice", f"wrong{number}")

        run(main)
        assert len(runs.hashes) == 20
        assert runs.at_once_max <= module.THREADS
        assert passwords._threads == 0
        if sys.platform == "linux":
            assert min(runs.niceness) >= module.NICENESS

    def test_everybody_else_goes_on_meanwhile(self, run: Run, passwords: Passwords, runs: Runs) -> None:
        runs.gate.clear()

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer, passwords, "alice", "right")
                await anyio.wait_all_tasks_blocked()
                runs.gate.set()  # reached only because the loop is free while Argon2 runs

        run(main)

    def test_beyond_the_queue_there_is_no_waiting(
        self, run: Run, passwords: Passwords, runs: Runs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "QUEUE_MAX", 2)
        runs.gate.clear()
        verdicts: list[bool] = []

        async def one(number: int) -> None:
            verdicts.append(await answer(passwords, "alice", f"wrong{number}"))

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(module.THREADS + 2):
                    tasks.start_soon(one, number)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(PeerUnavailable, match="too many passwords are being checked"):
                    asked(passwords, "alice", "right")
                runs.gate.set()
            assert await answer(passwords, "alice", "right")

        run(main)
        assert verdicts == [False] * (module.THREADS + 2)

    def test_waiting_ends(self, run: Run, passwords: Passwords, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
        runs.gate.clear()

        async def main() -> None:
            with pytest.raises(PeerUnavailable, match="too many passwords are being checked"):
                await answer(passwords, "alice", "right")
            runs.gate.set()

        run(main)

    def test_nothing_is_computed_for_those_who_left_the_queue(self, run: Run, passwords: Passwords, runs: Runs) -> None:
        runs.gate.clear()

        async def main() -> None:
            async with anyio.create_task_group() as staying:
                for number in range(module.THREADS):
                    staying.start_soon(answer, passwords, "alice", f"wrong{number}")
                await anyio.wait_all_tasks_blocked()
                async with anyio.create_task_group() as leaving:
                    leaving.start_soon(answer, passwords, "alice", "left")
                    await anyio.wait_all_tasks_blocked()
                    leaving.cancel_scope.cancel()
                staying.start_soon(answer, passwords, "alice", "stayed")
                await anyio.wait_all_tasks_blocked()
                runs.gate.set()

        run(main)
        assert "left" not in runs.passwords
        assert "stayed" in runs.passwords
        assert passwords._threads == 0
        assert not passwords._runs

    def test_one_who_leaves_does_not_take_the_answer_from_the_others(
        self, run: Run, passwords: Passwords, runs: Runs
    ) -> None:
        runs.gate.clear()
        verdicts: list[bool] = []

        async def stay() -> None:
            verdicts.append(await answer(passwords, "alice", "right"))

        async def main() -> None:
            async with anyio.create_task_group() as staying:
                async with anyio.create_task_group() as leaving:
                    leaving.start_soon(answer, passwords, "alice", "right")
                    await anyio.wait_all_tasks_blocked()
                    staying.start_soon(stay)
                    await anyio.wait_all_tasks_blocked()
                    leaving.cancel_scope.cancel()
                runs.gate.set()

        run(main)
        assert verdicts == [True]
        assert runs.passwords == ["right"]


class TestRemembering:
    def test_a_right_password_is_known_at_once_for_a_minute(
        self, run: Run, passwords: Passwords, runs: Runs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seconds = 1000.0
        monkeypatch.setattr(module, "monotonic", lambda: seconds)
        assert run(lambda: answer(passwords, "alice", "right")) is True
        seconds += module.REMEMBERED_SECONDS - 0.1
        assert asked(passwords, "alice", "right") is True
        seconds += 0.2
        assert run(lambda: answer(passwords, "alice", "right")) is True
        assert runs.passwords == ["right"] * 2
        assert asked(passwords, "alice", "right") is True

    def test_it_is_known_for_this_user_only(self, run: Run, passwords: Passwords) -> None:
        async def main() -> list[bool]:
            pairs = [("alice", "right"), ("bob", "right"), ("aliceright", ""), ("", "aliceright"), ("alice", "right ")]
            return [await answer(passwords, *pair) for pair in pairs]

        assert run(main) == [True, False, False, False, False]

    def test_a_wrong_password_is_not(self, run: Run, passwords: Passwords, runs: Runs) -> None:
        async def main() -> None:
            for _ in range(3):
                assert await answer(passwords, "alice", "wrong") is False

        run(main)
        assert len(runs.hashes) == 3

    def test_there_is_a_bound(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "REMEMBERED_MAX", 3)
        passwords = Passwords({f"user{number}": phc_of("x") for number in range(5)})

        async def main() -> None:
            for number in range(5):
                assert await answer(passwords, f"user{number}", "x")

        run(main)
        assert len(passwords._remembered) == 3
        assert asked(passwords, "user4", "x") is True

    def test_nothing_of_the_password_is_kept(self, run: Run, passwords: Passwords) -> None:
        run(lambda: answer(passwords, "alice", "right"))
        assert not passwords._runs
        assert not passwords._queue
        for fingerprint in passwords._remembered:
            assert b"right" not in fingerprint
        other = Passwords(passwords._hashes)
        run(lambda: answer(other, "alice", "right"))
        assert passwords._remembered.keys().isdisjoint(other._remembered)  # the key is another one in each process


class TestHashes:
    """What `check_phc` accepts can be verified."""

    @given(
        st.sampled_from(list(argon2.Type)),
        st.integers(1, 3),
        st.integers(8, 64),
        st.integers(8, 32),
        st.integers(16, 64),
    )
    def test_what_argon2_makes_is_accepted(
        self, kind: argon2.Type, passes: int, memory: int, salt: int, size: int
    ) -> None:
        phc = argon2.PasswordHasher(passes, memory, 1, size, salt, type=kind).hash("x")
        assert check_phc(phc) is None
        assert module._is_right(phc, Secret("x")) is True

    @given(st.data())
    def test_a_damaged_one_is_refused_or_merely_another_hash(self, data: st.DataObject) -> None:
        phc = "$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$" + "QUJDREVGR0hJSktMTU5PUA"
        position = data.draw(st.integers(0, len(phc) - 1))
        replacement = data.draw(st.text(alphabet="0123456789ABab+/=$,.idvmtp\n", max_size=2))
        damaged = phc[:position] + replacement + phc[position + 1 :]
        if check_phc(damaged) is None and int(argon2.extract_parameters(damaged).memory_cost) < 1000:
            assert module._is_right(damaged, Secret("x")) is not None

    @pytest.mark.parametrize(
        ("phc", "problem"),
        [
            ("", "not an Argon2 hash"),
            ("canary", "not an Argon2 hash"),
            ("$2b$12$canarycanarycanarycanary", "not an Argon2 hash"),
            ("$argon2id$m=16,t=1,p=1$c2FsdHNhbHQ$QUJDREVGR0hJSktMTU5PUA", "not an Argon2 hash"),
            ("$argon2id$v=19$m=16,t=1,p=0$c2FsdHNhbHQ$QUJDREVGR0hJSktMTU5PUA", "p=0 is not from 1 to 64"),
            ("$argon2id$v=19$m=16,t=0,p=1$c2FsdHNhbHQ$QUJDREVGR0hJSktMTU5PUA", "t=0 is not from 1 to 1000"),
            ("$argon2id$v=19$m=16,t=1,p=4$c2FsdHNhbHQ$QUJDREVGR0hJSktMTU5PUA", "m=16 is not from 32 "),
            ("$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$QUJDREVGR0hJSktMTU5PUA", "m=4194304 is not from 8 "),
            ("$argon2id$v=19$m=16,t=1,p=1$c2FsdA$QUJDREVGR0hJSktMTU5PUA", "cut off or is not base64"),
            ("$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$QUJDREVG", "cut off or is not base64"),
            ("$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$QUJDREVGR0hJSktMTU5PUA==", "cut off or is not base64"),
            ("$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHR$QUJDREVGR0hJSktMTU5PUA", "cut off or is not base64"),
            ("$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$canary!", "cut off or is not base64"),
        ],
    )
    def test_what_cannot_be_verified_is_named_and_not_quoted(self, phc: str, problem: str) -> None:
        found = check_phc(phc)
        assert found is not None
        assert problem in found
        assert "canary" not in found
