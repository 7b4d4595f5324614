"""Driving operations: replies, failures, cancellation, fan-out, on both loops."""

from __future__ import annotations

import base64
import inspect
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from angos.runtime.access.services import AccessServices
from angos.runtime.access.settings import AccessSettings, ProviderEndpoint, WebhookEndpoint
from angos.runtime.driver import InThread, drive
from angos.runtime.observability.events import EventSink
from angos.runtime.performer import RequestPerformer
from angos.sansio import effects
from angos.sansio.effects import (
    AcquireLease,
    DeleteKeys,
    DrawId,
    Effect,
    Key,
    OperationCancelled,
    ReadClock,
    ReadKey,
    ReleaseLease,
    Sleep,
    StatKey,
    StorageCorrupt,
    StorageUnavailable,
)
from angos.sansio.errors import RegistryError
from angos.sansio.operation import Operation
from angos.sansio.scopes import leased
from angos.sansio.secret import Secret
from angos.sansio.together import together
from tests.conformance.contracts.store import services_on


class Scripted:
    """Answers at once, or after a while, as the key of the effect says; remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[Effect[Any]] = []
        self.running = 0
        self.running_max = 0

    def perform(self, effect: Effect[Any]) -> Any:
        self.seen.append(effect)
        match effect:
            case ReadKey(key):
                if key.startswith("fail"):
                    raise StorageCorrupt(key)
                return key.encode()
            case StatKey(key):
                return self._later(key)
            case AcquireLease():
                return "token"
            case Sleep():
                return anyio.sleep_forever()
            case _:
                return None

    async def _later(self, key: str) -> bytes:
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            await anyio.sleep(0.001)
            if key.startswith("fail"):
                raise StorageUnavailable(key)
            return key.encode()
        finally:
            self.running -= 1


class InThreads:
    """Takes `DeleteKeys` to a thread, where `StatKey` is possible too; remembers in which thread it was asked."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.offer = InThread({DeleteKeys: self._reply}, {StatKey: self._reply})

    def _reply(self, effect: DeleteKeys | StatKey) -> bytes:
        self.threads.append(threading.get_ident())
        text = str(effect)
        if "fail" in text:
            raise StorageUnavailable(text)
        return text.encode()


def delete(name: str) -> DeleteKeys:
    return DeleteKeys((Key(name),))


async def now(name: str) -> Any:
    return await ReadKey(Key(name))


async def later(name: str) -> Any:
    return await StatKey(Key(name))


async def both(name: str) -> Any:
    return (await ReadKey(Key(name)), await StatKey(Key(name)), await ReadKey(Key(name)))


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Runs an async function on either loop."""

    def run(main: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            with anyio.fail_after(20):
                return await main()

        return anyio.run(bounded, backend=request.param)

    return run


Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def test_replies_come_back_whether_at_once_or_later(run: Run) -> None:
    assert run(lambda: drive(Operation(both("k")), Scripted())) == (b"k", b"k", b"k")


def test_failures_are_raised_where_the_effect_is_awaited(run: Run) -> None:
    async def operation() -> list[str]:
        caught = []
        for effect in (ReadKey(Key("fail now")), StatKey(Key("fail later"))):
            try:
                await effect
            except effects.EffectError as error:
                caught.append(f"{type(error).__name__} {error}")
        return caught

    assert run(lambda: drive(Operation(operation()), Scripted())) == [
        "StorageCorrupt fail now",
        "StorageUnavailable fail later",
    ]


def test_what_an_operation_does_not_handle_comes_out(run: Run) -> None:
    with pytest.raises(StorageCorrupt):
        run(lambda: drive(Operation(now("fail")), Scripted()))


def test_a_long_row_of_immediate_replies_lets_others_run(run: Run) -> None:
    async def busy() -> None:
        for _ in range(2000):
            await ReadKey(Key("k"))

    async def main() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await drive(Operation(busy()), Scripted())
            tasks.cancel_scope.cancel()
        return turns

    assert run(main) >= 10


# --- together ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("kind", [now, later, both])
def test_children_give_their_results_in_order(run: Run, limit: int, kind: Callable[[str], Any]) -> None:
    performer = Scripted()
    names = [str(number) for number in range(40)]
    results = run(lambda: drive(Operation(together([kind(name) for name in names], limit=limit)), performer))
    expected = [name.encode() for name in names]
    assert results == tuple(expected if kind is not both else [(value,) * 3 for value in expected])
    assert performer.running_max <= limit


def test_a_mixture_of_quick_and_slow_children_and_groups_of_groups(run: Run) -> None:
    async def group(name: str) -> tuple[Any, ...]:
        return await together([now(f"{name}.now"), later(f"{name}.later"), both(f"{name}.both")])

    results = run(lambda: drive(Operation(together([group("a"), now("b"), group("c")], limit=2)), Scripted()))
    assert results[1] == b"b"
    assert results[0] == (b"a.now", b"a.later", (b"a.both",) * 3)
    assert results[2] == (b"c.now", b"c.later", (b"c.both",) * 3)


@pytest.mark.parametrize("kind", [now, later])
def test_the_first_failure_in_order_is_raised_after_all_have_ended(run: Run, kind: Callable[[str], Any]) -> None:
    performer = Scripted()
    names = ["a", "fail 1", "b", "fail 2"]
    with pytest.raises(effects.EffectError, match="fail 1"):
        run(lambda: drive(Operation(together([kind(name) for name in names])), performer))
    assert performer.running == 0


def test_children_that_were_not_started_before_a_failure_never_are(run: Run) -> None:
    performer = Scripted()
    coroutines = [later("a"), later("fail"), *(later(f"never {number}") for number in range(20))]
    with pytest.raises(StorageUnavailable):
        run(lambda: drive(Operation(together(coroutines, limit=2)), performer))
    assert len(performer.seen) <= 3
    assert all(inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED for coroutine in coroutines)


def test_a_refusal_of_a_child_reaches_the_parent(run: Run) -> None:
    async def refuse() -> None:
        await StatKey(Key("k"))
        raise RegistryError(404, "BLOB_UNKNOWN", "no")

    async def parent() -> str:
        try:
            await together([refuse(), later("x")])
        except RegistryError as error:
            return error.code
        return ""

    assert run(lambda: drive(Operation(parent()), Scripted())) == "BLOB_UNKNOWN"


# --- cancellation -----------------------------------------------------------------------------------------------------


async def hold_for_ever(name: str) -> None:
    async with leased(name, seconds=60.0, wait_seconds=0.0):
        await Sleep(3600.0)


def test_a_cancelled_operation_releases_what_it_holds(run: Run) -> None:
    performer = Scripted()

    async def main() -> None:
        with anyio.move_on_after(0.01) as scope:
            await drive(Operation(hold_for_ever("a")), performer)
        assert scope.cancelled_caught

    run(main)
    assert performer.seen[-1] == ReleaseLease("a", "token")


def test_cancelled_children_release_what_they_hold(run: Run) -> None:
    performer = Scripted()

    async def main() -> None:
        children = [hold_for_ever("a"), hold_for_ever("b"), now("x"), hold_for_ever("c"), later("never")]
        with anyio.move_on_after(0.01) as scope:
            await drive(Operation(together(children, limit=3)), performer)
        assert scope.cancelled_caught

    run(main)
    released = sorted(effect.name for effect in performer.seen if isinstance(effect, ReleaseLease))
    assert released == ["a", "b", "c"]


def test_clean_up_does_not_take_for_ever(run: Run) -> None:
    async def stubborn() -> None:
        try:
            await Sleep(1.0)
        except OperationCancelled:
            await Sleep(2.0)
            raise

    performer = Scripted()

    async def main() -> None:
        with anyio.move_on_after(0.01) as scope:
            await drive(Operation(stubborn()), performer, cleanup_seconds=0.05)
        assert scope.cancelled_caught

    run(main)
    assert performer.seen == [Sleep(1.0), Sleep(2.0)]


def test_clean_up_that_fails_is_still_a_cancellation(run: Run) -> None:
    async def operation() -> None:
        try:
            await Sleep(1.0)
        except OperationCancelled:
            await StatKey(Key("fail"))

    async def main() -> None:
        with anyio.move_on_after(0.01) as scope:
            await drive(Operation(operation()), Scripted())
        assert scope.cancelled_caught

    run(main)


# --- the performer ----------------------------------------------------------------------------------------------------


def test_every_effect_is_performed(tmp_path: Path) -> None:
    services = services_on(tmp_path)
    kinds = {
        kind
        for kind in vars(effects).values()
        if isinstance(kind, type) and issubclass(kind, Effect) and kind not in (Effect, effects.Together)
    }
    by_body = {effects.StageBody, effects.ReadBody}
    by_serving = {effects.NotePull}  # `angos.runtime.pulls`
    about_access = AccessServices(EventSink()).performers(
        AccessSettings(
            passwords={"alice": Secret("$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$QUJDREVGR0hJSktMTU5PUA")},
            providers=(ProviderEndpoint("ci", "https://idp.example"),),
            webhooks=(WebhookEndpoint("gate", "https://gate.example", timeout_seconds=1),),
            token_secret=Secret(base64.b64encode(bytes(32)).decode()),
        )
    )
    assert kinds == set(services.table) | set(about_access) | by_body | by_serving
    assert len(kinds) >= 17


def test_what_can_be_done_in_a_thread_is_done_in_one_go(run: Run) -> None:
    performer, threads = Scripted(), InThreads()

    async def operation() -> list[Any]:
        replies: list[Any] = [
            await each for each in (StatKey(Key("on the loop")), delete("a"), StatKey(Key("b")), delete("c"))
        ]
        await delete("f")
        return [*replies, await ReadKey(Key("d")), *await together([now("e")])]

    replies = run(lambda: drive(Operation(operation()), performer, threads.offer))
    assert replies[0] == b"on the loop"
    assert [reply.decode() for reply in replies[1:4]] == [str(delete("a")), str(StatKey(Key("b"))), str(delete("c"))]
    assert replies[4:6] == [b"d", b"e"]
    assert len(threads.threads) == 4
    assert len(set(threads.threads[:3])) == 1
    assert threading.get_ident() not in threads.threads
    assert performer.seen == [StatKey(Key("on the loop")), ReadKey(Key("d")), ReadKey(Key("e"))]


def test_failures_in_a_thread_are_raised_where_the_effect_is_awaited(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def operation() -> str:
        try:
            await delete("fail")
        except StorageUnavailable:
            await delete("instead")
        raise RegistryError(400, "UNSUPPORTED", "its own mistake")

    with pytest.raises(RegistryError, match="its own mistake"):
        run(lambda: drive(Operation(operation()), Scripted(), InThreads().offer))
    (line,) = caplog.messages
    assert "StorageUnavailable" in line
    assert "operation:" in line


def test_a_cancelled_operation_cleans_up_after_its_steps_in_a_thread(run: Run) -> None:
    performer, threads = Scripted(), InThreads()
    began, go_on = threading.Event(), threading.Event()

    def wait(effect: DeleteKeys) -> None:
        began.set()
        go_on.wait()

    async def operation() -> None:
        async with leased("l", seconds=1, wait_seconds=1):
            await delete("a")
            await StatKey(Key("b"))
            await ReadKey(Key("never asked"))

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                drive, Operation(operation()), performer, InThread({DeleteKeys: wait}, threads.offer.quick)
            )
            await anyio.to_thread.run_sync(began.wait)
            tasks.cancel_scope.cancel()
            go_on.set()

    run(scenario)
    assert len(threads.threads) == 1  # it came as far as it could without the loop
    assert performer.seen[-1] == ReleaseLease("l", "token")


def test_an_operation_that_is_cancelled_before_its_thread_is_there_cleans_up(run: Run) -> None:
    performer, threads = Scripted(), InThreads()

    async def operation() -> None:
        async with leased("l", seconds=1, wait_seconds=1):
            await delete("a")

    async def scenario() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await drive(Operation(operation()), performer, threads.offer)

    run(scenario)
    assert threads.threads == []
    assert performer.seen[-1] == ReleaseLease("l", "token")


def test_an_unknown_effect_is_a_type_error(tmp_path: Path) -> None:
    class Strange(Effect[None]):
        pass

    with pytest.raises(TypeError, match="Strange"):
        RequestPerformer(services_on(tmp_path), {}).perform(Strange())


def test_time_and_ids_are_real(run: Run, tmp_path: Path) -> None:
    async def operation() -> tuple[int, str, str]:
        began = await ReadClock()
        await Sleep(0.01)
        return await ReadClock() - began, await DrawId(), await DrawId()

    passed, first, second = run(lambda: drive(Operation(operation()), RequestPerformer(services_on(tmp_path), {})))
    assert passed >= 9
    assert first != second
    for drawn in (first, second):
        assert len(drawn) == 36
        assert drawn[14] == "4"
        assert drawn[19] in "89ab"


def test_the_operator_is_told_what_failed_and_where(caplog: pytest.LogCaptureFixture) -> None:
    async def read_damaged() -> bytes | None:
        return await ReadKey(Key("fail/here"))

    async def scenario(operation: Operation[Any]) -> None:
        with pytest.raises(StorageCorrupt):
            await drive(operation, Scripted())

    for operation in (Operation(read_damaged()), Operation(together([read_damaged()]))):
        caplog.clear()
        anyio.run(scenario, operation)
        (line,) = caplog.messages
        assert "StorageCorrupt: fail/here" in line
        assert "read_damaged:" in line
