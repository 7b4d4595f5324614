"""The processes that serve: one, or a parent with its workers."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Literal

import anyio

from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.listener import bind, choose_parser, url_of
from angos.runtime.server.serving import HandOver, OpenServing, Reloader, serve_with
from angos.runtime.server.surroundings import Surroundings


def run(
    open_serving: OpenServing,
    options: ServerOptions,
    *,
    loop: Literal["asyncio", "trio"] = "asyncio",
    encrypted: bool = False,
    on_ready: Callable[[Sequence[str]], None],
    hand_over: HandOver = lambda _: None,
    reloader: Reloader | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT, and reload at SIGHUP. Gives the exit code.

    `options` say where to listen and with how many workers; what else they say comes with what is served with.
    `on_ready` gets the URLs once every worker accepts connections; `encrypted` makes them those of TLS. `hand_over` is
    called in each process that serves. Without a `reloader`, SIGHUP ends the process. Raises
    `angos.runtime.server.listener.ListenError`. 1 when workers ended before they had ever been ready: what keeps them
    from starting will not go away by itself.
    """
    choose_parser(options)
    if options.workers > 1:
        from angos.runtime.server.parent import Parent

        return Parent(open_serving, options, loop, encrypted, on_ready, hand_over, reloader).run()
    sockets = bind(options)
    urls = [url_of(bound, encrypted=encrypted) for bound in sockets]
    before = signal.getsignal(signal.SIGHUP)
    if reloader is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # while the loop starts: a change is noticed anyhow
    try:
        anyio.run(_serve_alone, open_serving, sockets, lambda: on_ready(urls), hand_over, reloader, backend=loop)
    finally:
        signal.signal(signal.SIGHUP, before)
    return 0


async def _serve_alone(
    open_serving: OpenServing,
    sockets: Sequence[socket.socket],
    on_ready: Callable[[], None],
    hand_over: HandOver,
    reloader: Reloader | None,
) -> None:
    async with open_serving() as serving, anyio.create_task_group() as group:
        with nullcontext() if reloader is None else anyio.open_signal_receiver(signal.SIGHUP) as hangups:

            def start(surroundings: Surroundings) -> None:
                hand_over(surroundings)
                if reloader is not None and hangups is not None:
                    from angos.runtime.server.reloading import reload_alone

                    group.start_soon(reload_alone, reloader, surroundings, hangups)

            await serve_with(serving, sockets=sockets, on_ready=on_ready, hand_over=start)
            group.cancel_scope.cancel()
