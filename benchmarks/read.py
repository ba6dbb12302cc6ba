"""How fast a training reads its records: `python benchmarks/read.py [DATA] [--records N] [--save]`.

In turns, one pass each over the training split in batches of 64: a bare `TFRecordDataset` (bytes, nothing decoded, in
the order of the files), the same with parsing to millivolts, and `ecgtf.dataset.load` with shuffled records, from memory and from
the shards (after the first reading, whose time stands apart). Without DATA, N simulated records of 1000 x 12 are prepared.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import tensorflow as tf
from machine import described
from tables import compare, options, show, spread
from workers import in_turns

from ecgtf.data_prep.prepare import prepare
from ecgtf.dataset import read_manifest, shard_paths
from ecgtf.stream import stream

BATCH = 64
BARE = "bare TFRecordDataset (bytes)"
PARSED = "TFRecordDataset, parsed to mV"


def passes(data: tf.data.Dataset, records: int) -> float:
    """Records a second of one pass."""
    started = time.perf_counter()
    for _ in data:
        pass
    return records / (time.perf_counter() - started)


def opened(folder: Path, memory_bytes: int) -> tuple[tf.data.Dataset, float]:
    """Shuffled batches of the training split, and the seconds of the first reading."""
    plain = {"balance": 0.0, "balance_sources": 0.0, "seed": 1, "repeat": False, "start_batch": 0, "limit": None}
    started = time.perf_counter()
    data = stream(
        folder, "train", None, batch_size=BATCH, shuffle=True, drop_remainder=False, memory_bytes=memory_bytes, **plain
    )
    return data, time.perf_counter() - started


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--records", type=int, default=10_000)
    arguments = parser.parse_args()
    print(described())
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
            BARE: bare,
            PARSED: bare.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE),
            "load, shuffled, held in memory": held,
            "load, shuffled, from the shards": mapped,
        }
        rates = in_turns({way: lambda data=data: passes(data, records) for way, data in ways.items()}, arguments.rounds)
    print(f"{records} records of {manifest.samples} x {len(manifest.leads)}; first reading {held_seconds:.1f} s to memory, "
          f"{mapped_seconds:.1f} s for the places")  # fmt: skip
    ratios = {way: statistics.median(values) / statistics.median(rates[BARE]) for way, values in rates.items()}
    show(("way", "records/s", "ratio"), [(way, spread(rates[way], 0), f"{ratios[way]:.2f}") for way in rates])
    ours = {f"{way}, over parsing alone": ratio / ratios[PARSED] for way, ratio in ratios.items() if way not in (BARE, PARSED)}
    compare("read", ours, arguments.save)


if __name__ == "__main__":
    main()
