"""What this machine can do at most: `python benchmarks/machine.py`; other benchmarks ask it in turns with what they measure."""

from __future__ import annotations

import os

from workers import Worker, seconds, serve

SIZE = 2048
COPIED = 64 * 2**20  # float32 numbers: 256 MB, beyond every cache


def limits(worker: Worker) -> dict[str, float]:
    """GFLOP/s of a matrix product by precision, and GB/s of a copy in memory, read and written."""
    return {name: worker.ask(name) for name in ("float32", "bfloat16", "memory_bandwidth")}


def described() -> str:
    """The processor and its cores."""
    with open("/proc/cpuinfo") as lines:
        names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return f"{', '.join(sorted(names))}, {len(os.sched_getaffinity(0))} cores"


def _serve() -> None:
    import numpy as np
    import tensorflow as tf

    def product(precision: str):
        square = tf.cast(tf.random.normal((SIZE, SIZE)), precision)
        multiply = tf.function(lambda: tf.matmul(square, square)[0, 0])

        def rate() -> float:
            multiply()
            return 2 * SIZE**3 / seconds(lambda: multiply().numpy(), 5) / 1e9

        return rate

    source, target = np.ones(COPIED, np.float32), np.zeros(COPIED, np.float32)

    def bandwidth() -> float:
        return 2 * source.nbytes / seconds(lambda: np.copyto(target, source), 3) / 1e9

    bandwidth()  # the first copy meets pages that are not there yet
    serve({"float32": product("float32"), "bfloat16": product("bfloat16"), "memory_bandwidth": bandwidth})


if __name__ == "__main__":
    import sys

    if sys.argv[1:] == ["--serve"]:
        _serve()
    else:
        with Worker("machine.py", "--serve") as worker:
            print(described())
            for name, value in limits(worker).items():
                print(f"{name}: {value:.0f} {'GB/s' if name == 'memory_bandwidth' else 'GFLOP/s'}")
