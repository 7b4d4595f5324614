"""An operation is a machine: effects out, outcomes in, and a crash cleans nothing up."""

from __future__ import annotations

import asyncio

import pytest

from angos.sansio.effects import (
    AcquireLease,
    Key,
    OperationCancelled,
    ReadKey,
    ReleaseLease,
    StatKey,
    StorageUnavailable,
    Together,
)
from angos.sansio.operation import Done, Operation
from angos.sansio.scopes import leased
from angos.sansio.together import together

KEY = Key("v2/cat/a!")


async def read_twice() -> list[bytes | None]:
    return [await ReadKey(KEY), await read_once()]


async def read_once() -> bytes | None:
    return await ReadKey(KEY)


async def hold_and_read() -> bool:
    async with leased("name", seconds=1, wait_seconds=1) as mine:
        await ReadKey(KEY)
    return mine


def test_replies_go_in_and_the_result_comes_out() -> None:
    operation = Operation(read_twice())
    assert operation.resume() == ReadKey(KEY)
    assert operation.resume(b"1") == ReadKey(KEY)
    assert operation.resume(b"2") == Done([b"1", b"2"])


def test_where_names_the_suspended_calls() -> None:
    operation = Operation(read_twice())
    operation.resume()
    operation.resume(None)
    outer, inner = operation.where().split(" > ")[:2]
    assert outer.startswith("read_twice:")
    assert inner.startswith("read_once:")
    operation.abandon()


def test_awaiting_anything_but_an_effect_is_an_error_that_names_it() -> None:
    async def wrong() -> None:
        await asyncio.sleep(0)

    with pytest.raises(TypeError, match="not an effect"):
        Operation(wrong()).resume()


def test_a_lease_is_given_back_when_its_block_ends_or_fails() -> None:
    operation = Operation(hold_and_read())
    assert operation.resume() == AcquireLease("name", 1, 1)
    assert operation.resume("token") == ReadKey(KEY)
    assert operation.resume(None) == ReleaseLease("name", "token")
    assert operation.resume(None) == Done(True)

    operation = Operation(hold_and_read())
    operation.resume()
    operation.resume("token")
    assert operation.fail(StorageUnavailable("gone")) == ReleaseLease("name", "token")
    with pytest.raises(StorageUnavailable, match="gone"):
        operation.resume(None)


def test_a_cancelled_operation_gives_its_lease_back() -> None:
    operation = Operation(hold_and_read())
    operation.resume()
    operation.resume("token")
    assert operation.fail(OperationCancelled()) == ReleaseLease("name", "token")
    with pytest.raises(OperationCancelled):
        operation.resume(None)


def test_an_abandoned_operation_gives_nothing_back() -> None:
    operation = Operation(hold_and_read())
    operation.resume()
    operation.resume("token")
    operation.abandon()
    assert operation.where() == ""


def test_a_refused_lease_is_not_given_back() -> None:
    operation = Operation(hold_and_read())
    operation.resume()
    operation.resume(None)
    assert operation.resume(None) == Done(False)


def test_fan_out_is_one_effect() -> None:
    async def stat(name: str) -> object:
        return await StatKey(Key(name))

    operation = Operation(together((stat(name) for name in "ab"), limit=2))
    effect = operation.resume()
    assert isinstance(effect, Together)
    assert effect.limit == 2
    assert [child.resume() for child in effect.operations] == [StatKey(Key("a")), StatKey(Key("b"))]
    assert operation.resume((1, 2)) == Done((1, 2))


def test_fan_out_over_nothing_is_no_effect() -> None:
    assert Operation(together([])).resume() == Done(())
