"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then when piped."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts work done and shows it on standard error.

    Use as a context manager; call `update(done, note)` with the amount done so far.

    Args:
        title: What is going on.
        total: Amount of work; None where the first `update` tells it.
        unit: Plural noun of what is counted.
        quiet: Show nothing.
        interval: Seconds between plain lines.
    """

    def __init__(self, title: str, total: int | None, unit: str, quiet: bool = False, interval: float = 15.0):
        self.title, self.total, self.unit, self.quiet, self.interval = title, total, unit, quiet, interval
        self.start = self.last_line = time.monotonic()
        self.first: int | None = None
        self._bar = self._task = None

    def __enter__(self) -> Progress:
        if self.total is not None:
            self._show_bar()
        return self

    def __exit__(self, *exception) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show_bar(self) -> None:
        """On a terminal, once there is something to show: an error before it is one line."""
        if not self.quiet and self._bar is None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = [
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
            ]
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, note="")

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Shows that `done` of the total is done; `note` stands beside the rate. A `total` replaces the one known so far."""
        if self.quiet:
            return
        self.total = self.total if total is None else total
        now = time.monotonic()
        if self.first is None:  # a resumed run starts its clock at what is already there
            self.first, self.start = done, now
            self._show_bar()
        rate = (done - self.first) / max(now - self.start, 1e-9)
        text = f"{rate:.3g} {self.unit}/s {note}".rstrip() if done > self.first else note
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self.total, note=text)
        elif now - self.last_line >= self.interval or done >= self.total:
            self.last_line = now
            left = f"{(self.total - done) / rate:.0f} s left" if rate > 0 and done < self.total else ""
            parts = (f"{self.title}: {done}/{self.total} {self.unit}", text, left)
            print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)
