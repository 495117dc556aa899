"""Scorer: requests to scores, one after another, in a thread of its own."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from recsys_had.errors import DataError
from recsys_had.scoring import BatchPredictor, RowColumns, score_columns
from recsys_had.serving.answers import ARROW, arrow_of, json_of
from recsys_had.serving.arrow_body import frame_of_arrow
from recsys_had.serving.json_body import frame_of_json
from recsys_had.serving.request_error import RequestError

_log = logging.getLogger("recsys_had")
# Arrow's buffers may be packed, and its texts stand for one another.
_UNPACKED = 8


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take.

    Args:
        max_body_bytes: bytes of a body. What it unpacks to may be 8 times as much.
        max_rows: rows of a body.
        max_open: requests that are read, wait or are scored at once.
        body_timeout_s: seconds until a body must have arrived.
    """

    max_body_bytes: int = 8 << 20
    max_rows: int = 1 << 16
    max_open: int = 32
    body_timeout_s: float = 60.0


@dataclass(frozen=True)
class Scored:
    """The answer to a request.

    Args:
        body: JSON or an Arrow stream.
        rows: rows scored.
        unseen: per field, values that training never saw.
        not_a_number: scores that are none.
    """

    body: bytes
    rows: int
    unseen: dict[str, int]
    not_a_number: int


class Scorer:
    """Scores bodies with a predictor, in the order they come, so that others are served meanwhile.

    Args:
        predictor: what scores.
        limits: what a request may take.
        extras: make further columns beside the score.
    """

    def __init__(
        self, predictor: BatchPredictor, *, limits: Limits, extras: Sequence[RowColumns] = ()
    ) -> None:
        self.predictor = predictor
        self.limits = limits
        self._extras = extras
        self.open_requests = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the requests that are read, wait or are scored.

        Raises:
            RequestError: status 503, all are taken.
        """
        if self.open_requests >= self.limits.max_open:
            raise RequestError(
                503,
                f"server: has {self.open_requests} requests to answer already. Try again later.",
                headers={"Retry-After": "1"},
            )
        self.open_requests += 1
        try:
            yield
        finally:
            self.open_requests -= 1

    async def score(self, body: bytes, *, sent: str, wanted: str) -> Scored:
        """Scores the rows of a body.

        Args:
            body: what was sent.
            sent: its media type.
            wanted: media type of the answer.

        Raises:
            RequestError: it cannot be read (400), is too large (413) or its rows are not as the
                card says (422); 500, where the fault is not the body's.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._score, body, sent, wanted)

    def close(self) -> None:
        """Ends the thread; what waits is not scored."""
        self._thread.shutdown(cancel_futures=True)

    def _score(self, body: bytes, sent: str, wanted: str) -> Scored:
        try:
            return self._scored(body, sent, wanted)
        except RequestError:
            raise
        except DataError as error:
            raise RequestError.of_data(error) from error
        except BaseException as cause:  # a panic of polars is no Exception
            _log.exception("a request could not be scored; this is a bug in recsys_had:")
            raise RequestError(
                500, "server: could not score these rows; its log says why."
            ) from cause

    def _scored(self, body: bytes, sent: str, wanted: str) -> Scored:
        predictor, limits = self.predictor, self.limits
        card = predictor.run.card
        if sent == ARROW:
            frame = frame_of_arrow(
                body,
                card,
                max_rows=limits.max_rows,
                max_bytes=_UNPACKED * limits.max_body_bytes,
            )
        else:
            frame = frame_of_json(body, card, max_rows=limits.max_rows)
        read = predictor.read_frame(frame)
        columns = score_columns(predictor, read.rows, self._extras)
        return Scored(
            body=arrow_of(columns) if wanted == ARROW else json_of(columns),
            rows=len(read.rows),
            unseen={**read.unseen, **predictor.without_row(read.rows)},
            not_a_number=int(np.isnan(columns["score"].to_numpy()).sum()),
        )
