"""Processes that wait for orders, one JSON line each: what is compared runs in its own interpreter, in turns with its rival.

Both sides import this, so it needs the standard library only.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-c", "import sys; from ecgtf.cli.main import main; sys.exit(main())")
"""The command line in a process of its own, before its arguments."""


class Worker:
    """A script under an interpreter; `ask` gives it an order and waits for the answer.

    Args:
        script: File beside this one, or a path.
        arguments: Of the script.
        python: The interpreter, ours by default.
        environment: Variables beside those of this process.
    """

    def __init__(
        self,
        script: str | Path,
        *arguments: object,
        python: str | Path = sys.executable,
        environment: Mapping[str, str] | None = None,
    ):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        command = [str(python), str(Path(__file__).parent / script), *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors, "text": True}
        self._process = subprocess.Popen(command, env=os.environ | (environment or {}), **pipes)

    def ask(self, order: str, **arguments: Any) -> Any:
        """What the worker answers.

        Raises:
            RuntimeError: if it ended; with the end of what it had to say.
        """
        try:
            self._process.stdin.write(json.dumps([order, arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{' '.join(self._process.args)} ended:\n{self._errors.read()[-3000:]}")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(BrokenPipeError):  # it may have ended
            self._process.stdin.close()
        self._process.wait()
        self._errors.close()


def serve(orders: dict[str, Callable]) -> None:
    """Answers until there are no more orders; `memory` is known to every worker."""
    orders = {"memory": peak_memory, **orders}
    for line in sys.stdin:
        order, arguments = json.loads(line)
        print(json.dumps(orders[order](**arguments)), flush=True)


def in_turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list]:
    """What each way gives in each round, a round of one after a round of the other: what the machine does beside falls on all."""
    found: dict[str, list] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    return found


def peak_memory() -> float:
    """The most memory this process had, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Seconds for each of so many calls."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times
