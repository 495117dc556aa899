"""The HTTP application: POST /score, GET /health, /metrics and /schema.

A request has no way to a file: a body's texts are values, and side tables are the run's.
"""

import asyncio
import time
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys_had.data.problems import quoted
from recsys_had.serving.answers import ARROW, JSON, accepted, json_bytes
from recsys_had.serving.described import card_content, run_content
from recsys_had.serving.metrics import CONTENT_TYPE, Metrics
from recsys_had.serving.request_error import RequestError
from recsys_had.serving.scorer import Limits, Scorer
from recsys_had.suggest import nearest

_UTF8 = {"charset=utf-8", "charset=utf8"}
_PATHS = ("/score", "/health", "/metrics", "/schema")


class _ClientGoneError(Exception):
    """Nobody is there to read an answer."""


def make_app(scorer: Scorer) -> FastAPI:
    """The application around a scorer; every body that is no score or metric is JSON."""
    run = scorer.predictor.run
    about = {**run_content(run), "mode": scorer.predictor.mode.content}
    metrics = Metrics(
        facts={"dataset": run.card.name, "run_digest": run.manifest["digest"]},
        fields=[field.name for field in run.card.fields],
    )
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.add_middleware(_Counting, metrics=metrics)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(HTTPException, _not_routed)

    @app.post("/score")
    async def score(request: Request) -> Response:
        begin = time.perf_counter()
        sent, wanted = _media_type(request), accepted(request.headers.get("accept", ""))
        try:
            with scorer.place():
                body = await _read(request, scorer.limits)
                scored = await scorer.score(body, sent=sent, wanted=wanted)
        except _ClientGoneError:
            # The status of proxies for it; nobody reads it but the metrics.
            return Response(status_code=499)
        metrics.count_scores(
            rows=scored.rows, unseen=scored.unseen, not_a_number=scored.not_a_number
        )
        metrics.observe(time.perf_counter() - begin)
        return Response(
            scored.body, media_type=wanted, headers={"X-Run-Digest": run.manifest["digest"]}
        )

    @app.get("/health")
    async def health() -> Response:
        return Response(json_bytes(about), media_type=JSON)

    @app.get("/schema")
    async def schema() -> Response:
        return Response(json_bytes(card_content(run.card)), media_type=JSON)

    @app.get("/metrics")
    async def told() -> Response:
        text = metrics.text(open_requests=scorer.open_requests)
        return Response(text.encode(), headers={"Content-Type": CONTENT_TYPE})

    return app


class _Counting:
    """Counts the answers of an application by path and status."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in _PATHS else "other"
                self._metrics.count_request(path, message["status"])
            await send(message)

        await self._app(scope, receive, counted)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return Response(json_bytes(error.content), error.status, error.headers, media_type=JSON)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, headers = request.url.path, dict(error.headers or {})
    if error.status_code == 405:
        told = f"{path}: {request.method} is not served here. Use {headers.get('Allow', 'GET')}."
    else:
        told = f"{quoted(path)}: there is no such path.{nearest(path, _PATHS)}"
    return await _refused(request, RequestError(error.status_code, told, headers=headers))


def _media_type(request: Request) -> str:
    """What the body is said to be.

    Raises:
        RequestError: status 415, it is nothing that is read here.
    """
    packed = request.headers.get("content-encoding", "identity").strip().lower()
    if packed != "identity":
        raise RequestError(
            415,
            f"Content-Encoding: must be identity; got {quoted(packed)}. Send the body unpacked; "
            "buffers of an Arrow stream may be packed.",
            headers={"Accept-Encoding": "identity"},
        )
    name, *options = request.headers.get("content-type", "").lower().split(";")
    charset = next(
        (o.strip()[8:].strip('"') for o in options if o.strip().startswith("charset=")), ""
    )
    if name.strip() == ARROW or (name.strip() == JSON and charset in ("", "utf-8", "utf8")):
        return name.strip()
    got = quoted(request.headers["content-type"]) if "content-type" in request.headers else "none"
    raise RequestError(415, f"Content-Type: must be {JSON} (UTF-8) or {ARROW}; got {got}.")


async def _read(request: Request, limits: Limits) -> bytes:
    """The whole body.

    Raises:
        RequestError: status 413, it is too large, as soon as that is known; 408, it does not come.
    """
    if int(request.headers.get("content-length", 0)) > limits.max_body_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            while True:
                message: Any = await request.receive()
                if message["type"] == "http.disconnect":
                    raise _ClientGoneError
                body += message.get("body", b"")
                if len(body) > limits.max_body_bytes:
                    raise _too_large(limits)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as cause:
        raise RequestError(
            408,
            f"body: did not arrive within {limits.body_timeout_s:g} s. Send it faster.",
            headers={"Connection": "close"},
        ) from cause


def _too_large(limits: Limits) -> RequestError:
    return RequestError(
        413,
        f"body: at most {limits.max_body_bytes:,} bytes are read. Send fewer rows, or serve with "
        "--max-body-bytes.",
    )
