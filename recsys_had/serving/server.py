"""A server of this process: one port, bound before a run is loaded, answered until a signal."""

import asyncio
import errno
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from recsys_had.errors import ConfigError

_GRACE_S = 30


def bind(host: str, port: int) -> socket.socket:
    """A port of this machine; 0 for any that is free.

    Raises:
        ConfigError: there is no such host here, or the port is taken or not allowed.

    >>> with bind("127.0.0.1", 0) as taken:
    ...     taken.getsockname()[1] > 0
    True
    """
    try:
        [family, kind, protocol, _, address] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as cause:
        raise ConfigError(f"--host {host}: is no address of this machine: {cause}.") from cause
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as cause:
        found.close()
        raise _refused(host, port, cause) from cause
    return found


def told_host(address: str) -> str:
    """An address as a URL has it.

    >>> told_host("127.0.0.1"), told_host("::1")
    ('127.0.0.1', '[::1]')
    """
    return f"[{address}]" if ":" in address else address


def run_server(
    app: FastAPI, listener: socket.socket, *, head_timeout_s: float, on_ready: Callable[[], None]
) -> None:
    """Answers requests until SIGTERM or SIGINT, then those in flight, then takes the signal.

    Args:
        app: what answers.
        listener: the port.
        head_timeout_s: seconds until a request's line and headers must have arrived; then the
            connection is closed.
        on_ready: told when the first request would be answered.

    Raises:
        ConfigError: somebody else listens on the port.
    """
    config = uvicorn.Config(
        app,
        http=partial(_Connection, head_timeout_s=head_timeout_s),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    host, port = listener.getsockname()[:2]
    try:
        _Server(config, on_ready).run(sockets=[listener])
    except OSError as cause:
        raise _refused(host, port, cause) from cause


class _Connection(H11Protocol):
    """Waits so long and no longer for a request's head, however its bytes come.

    So it does for the rest of a body that was answered before all of it had come. Between an answer
    and the first byte of the next request uvicorn's own limit holds.
    """

    def __init__(self, *given: Any, head_timeout_s: float, **named: Any) -> None:
        super().__init__(*given, **named)
        self._patience_s = head_timeout_s
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        before = self.conn.their_state
        super().data_received(data)
        if self.conn.their_state is not before:
            self._forget()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.our_state is h11.DONE:
            self._watch()

    def _watch(self) -> None:
        waits = self.conn.their_state is h11.IDLE or self.conn.our_state is h11.DONE
        if waits and self._limit is None:
            self._limit = self.loop.call_later(self._patience_s, self.transport.close)

    def _forget(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()


def _refused(host: str, port: int, cause: OSError) -> ConfigError:
    match cause.errno:
        case errno.EADDRINUSE:
            return ConfigError(
                f"--port {port}: is in use at {host}. Give another, or 0 for any that is free."
            )
        case errno.EACCES:
            return ConfigError(f"--port {port}: is not allowed to this user. Give one above 1023.")
        case errno.EADDRNOTAVAIL:
            return ConfigError(f"--host {host}: is no address of this machine.")
        case _:
            return ConfigError(f"--host {host} --port {port}: cannot be used: {cause}.")
