"""Several requests to a bucket at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from anyio import create_task_group

T = TypeVar("T")


async def side_by_side(jobs: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
    """The results, in order. When a job fails, the others are given up and its failure is raised as it is."""
    if len(jobs) == 1:
        return [await jobs[0]()]
    results: dict[int, T] = {}
    failures: list[Exception] = []
    waiting = iter(enumerate(jobs))

    async def work() -> None:
        for index, job in waiting:
            try:
                results[index] = await job()
            except Exception as error:
                failures.append(error)
                tasks.cancel_scope.cancel()

    async with create_task_group() as tasks:
        for _ in range(min(limit, len(jobs))):
            tasks.start_soon(work)
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(jobs))]
