"""Signals that wait for the end of a step, so that a checkpoint can be written first."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Interruption:
    """Turns the first SIGINT or SIGTERM into a request; a second one acts at once.

    Outside the main thread, where Python delivers no signals, it does nothing.

    >>> with Interruption() as interruption:
    ...     interruption.requested is None
    True
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            stop(number)
        self.requested = number


def stop(number: int) -> None:
    """Ends the program as a signal does: KeyboardInterrupt, or SystemExit 143 for SIGTERM."""
    if number == signal.SIGTERM:
        raise SystemExit(128 + number)
    raise KeyboardInterrupt
