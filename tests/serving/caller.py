"""Calls an application as a server does; starlette's own client needs a further package."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

Message = MutableMapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


def scope(method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """What a server tells of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(key.lower().encode(), text.encode()) for key, text in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


async def ask(
    app: FastAPI,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    receive: Callable[[], Awaitable[Message]],
) -> Answer:
    """One request; ``receive`` gives the messages of its body."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope(method, path, headers or {}), receive, send)
    start, *rest = sent
    found = {key.decode(): text.decode() for key, text in start["headers"]}
    return Answer(start["status"], found, b"".join(message["body"] for message in rest))


def call(
    app: FastAPI,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    chunks: Iterable[bytes] = (b"",),
) -> Answer:
    """One request whose body comes in pieces, and its answer."""
    return asyncio.run(ask(app, method, path, headers=headers, receive=body_of(chunks)))


def body_of(chunks: Iterable[bytes]) -> Callable[[], Awaitable[Message]]:
    """The messages of a body; whoever asks for more is told that the client has left."""
    parts = list(chunks)
    messages = [
        {"type": "http.request", "body": part, "more_body": number + 1 < len(parts)}
        for number, part in enumerate(parts)
    ]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive
