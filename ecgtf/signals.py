"""Signals of the operating system that may wait, or must not be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


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


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Ctrl-C ends the block with a `KeyboardInterrupt`, whatever else came of it.

    Python raises one at once, but native code that it comes to may drop it, or raise another error in its place (TensorFlow: a
    `SystemError`). Where Ctrl-C is not answered by Python, as in a worker process, the block runs as it is.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    came: list[int] = []

    def answer(number: int, frame: FrameType | None) -> None:
        came.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, answer)
    try:
        yield
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
