"""Signals of the operating system that may wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def watching(number: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether the signal came, which ends nothing in the block.

    Only the main thread may ask for it; in any other the block runs as it is, for Python interrupts none but the main thread.
    """
    came: list[int] = []  # no Event: its lock would not stand a second signal within the handler
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(number, lambda which, _: came.append(which))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(number, signal.SIG_DFL if before is None else before)
