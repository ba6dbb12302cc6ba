"""How fast a training reads its records: `python benchmarks/read.py [DATA] [--records N]`.

In turns, three times each, one pass over the training split in batches of 64: a bare `TFRecordDataset` (bytes, nothing decoded, in
the order of the files), the same with parsing to millivolts, and `ecgtf.dataset.load` with shuffled records, from memory and from
the shards (after the first reading, whose time stands apart). Without DATA, N simulated records of 1000 x 12 are prepared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import tensorflow as tf

from ecgtf.data_prep.prepare import prepare
from ecgtf.dataset import read_manifest, shard_paths
from ecgtf.stream import stream

ROUNDS, BATCH = 3, 64


def passes(data: tf.data.Dataset, records: int) -> float:
    """Records a second of one pass."""
    started = time.perf_counter()
    for _ in data:
        pass
    return records / (time.perf_counter() - started)


def opened(folder: Path, memory_bytes: int) -> tuple[tf.data.Dataset, float]:
    """Shuffled batches of the training split, and the seconds of the first reading."""
    options = {"balance": 0.0, "balance_sources": 0.0, "seed": 1, "repeat": False, "start_batch": 0, "limit": None}
    started = time.perf_counter()
    data = stream(
        folder, "train", None, batch_size=BATCH, shuffle=True, drop_remainder=False, memory_bytes=memory_bytes, **options
    )
    return data, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--records", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.data or Path(name) / "data"
        if arguments.data is None:
            prepare(None, None, folder, limit=arguments.records)
        manifest = read_manifest(folder)
        files = [str(path) for path in shard_paths(folder, manifest, "train")]
        records = manifest.records_in("train")
        shape = (manifest.samples, len(manifest.leads))

        def parse(examples: tf.Tensor) -> tf.Tensor:
            signal = tf.io.parse_example(examples, {"signal": tf.io.FixedLenFeature([], tf.string)})["signal"]
            return tf.cast(tf.reshape(tf.io.decode_raw(signal, tf.int16), (-1, *shape)), tf.float32) * manifest.resolution_mv

        bare = tf.data.TFRecordDataset(files).batch(BATCH).prefetch(tf.data.AUTOTUNE)
        held, held_seconds = opened(folder, 2**40)
        mapped, mapped_seconds = opened(folder, 0)
        ways = {
            "bare TFRecordDataset (bytes)": bare,
            "TFRecordDataset, parsed to mV": bare.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE),
            "load, shuffled, held in memory": held,
            "load, shuffled, from the shards": mapped,
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, data in ways.items():
                rates[way].append(passes(data, records))
        first = statistics.median(next(iter(rates.values())))
        print(f"{records} records of {manifest.samples} x {len(manifest.leads)}; first reading {held_seconds:.1f} s to memory, "
              f"{mapped_seconds:.1f} s for the places")  # fmt: skip
        print("| way | records/s | spread | ratio |\n|---|---|---|---|")
        for way, values in rates.items():
            middle = statistics.median(values)
            print(f"| {way} | {middle:.0f} | {min(values):.0f}-{max(values):.0f} | {middle / first:.2f} |")


if __name__ == "__main__":
    main()
