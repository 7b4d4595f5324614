"""Reloads, as seen by a process that serves: by itself, or as its parent says."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

import anyio
from anyio.to_thread import run_sync

from angos.runtime.server.listener import ListenError
from angos.runtime.server.messages import Kind, Mailbox, Message
from angos.runtime.server.serving import Installation, NotServable, Reloader
from angos.runtime.server.surroundings import Surroundings

LOOK_SECONDS: Final = 0.5  # between two looks for a change

_log = logging.getLogger("angos.reload")


def prepare(reloader: Reloader, candidate: bytes) -> Installation:
    """Raises `NotServable`, whatever goes wrong: what is served with now goes on in any case."""
    try:
        return reloader.prepare(candidate).installation()
    except NotServable:
        raise
    except ListenError as error:
        raise NotServable(str(error)) from None
    except Exception as error:
        _log.exception("a reload failed in the server itself")
        raise NotServable(f"the server failed to prepare it: {type(error).__name__}") from None


def look(reloader: Reloader, *, at_once: bool) -> bytes | None:
    """What to change to, if there is anything. Raises `NotServable` and nothing else: looking does not end a server."""
    try:
        return reloader.look(at_once=at_once)
    except NotServable:
        raise
    except Exception:
        _log.exception("looking for a changed configuration failed in the server itself")
        return None


async def reload_alone(reloader: Reloader, surroundings: Surroundings, hangups: AsyncIterator[signal.Signals]) -> None:
    """In the only process: look for changes, and make them; look and reload at once at each of `hangups`."""
    asked = anyio.Event()

    async def listen() -> None:
        async for _ in hangups:
            asked.set()

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        while True:
            with anyio.move_on_after(LOOK_SECONDS):
                await asked.wait()
            at_once, asked = asked.is_set(), anyio.Event()
            try:
                # A file system that does not answer holds up a thread, never the loop.
                candidate = await run_sync(partial(look, reloader, at_once=at_once), abandon_on_cancel=True)
                if candidate is None:
                    continue
                installation = await run_sync(prepare, reloader, candidate, abandon_on_cancel=True)
            except NotServable as refused:
                reloader.refuse([str(refused)])
            else:
                installation.install(surroundings)
                reloader.accept()


async def reload_as_told(
    mailbox: Mailbox, reloader: Reloader | None, surroundings: Surroundings, on_end: Callable[[], None]
) -> None:
    """In a worker: do what the parent says until it is gone, then call `on_end`."""
    prepared: tuple[int, Installation] | None = None
    while not mailbox.ended:
        await anyio.wait_readable(mailbox)
        for message in mailbox.take():
            if message.kind is Kind.PREPARE and reloader is not None:
                try:
                    installation = await run_sync(prepare, reloader, message.content, abandon_on_cancel=True)
                except NotServable as refused:
                    mailbox.put(Message(Kind.REFUSED, message.round, str(refused).encode()))
                else:
                    prepared = message.round, installation
                    mailbox.put(Message(Kind.PREPARED, message.round))
            elif message.kind is Kind.INSTALL and prepared is not None and prepared[0] == message.round:
                prepared[1].install(surroundings)
                prepared = None
                mailbox.put(Message(Kind.INSTALLED, message.round))
            elif message.kind is Kind.FORGET:
                prepared = None
        while mailbox.has_unsent:
            await anyio.wait_writable(mailbox)
            mailbox.send_rest()
    on_end()
