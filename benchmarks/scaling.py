"""What a training step and a drawing cost as they grow: `python benchmarks/scaling.py [--rounds 5] [--save]`.

From one case, the small Time-Diffusion with 12 leads x 1000 samples in batches of 16, one thing changes at a time: the batch, the
length, the leads that are modelled, the replicas (logical devices of the same processor), the workers (processes that speak over the
network), the parts of a batch that are gone through one after another, gradient checkpointing. Each case is processes of its own, for
their peak memory. Cost is the time of a step for each record (or sample) over that of the first case: 1 is linear. Then records are
drawn from the shipped generator, for time and memory by their number.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from machine import described
from tables import compare, options, show, spread
from workers import Worker, seconds, serve

BASE = {
    "batch": 16,
    "samples": 1000,
    "model_leads": "independent",
    "replicas": 1,
    "workers": 1,
    "accumulate": 1,
    "gradient_checkpointing": False,
}
CHANGES = [
    {},
    *({"batch": batch} for batch in (4, 32, 64)),
    *({"samples": samples} for samples in (500, 5000)),
    {"model_leads": "all"},
    {"replicas": 2},
    {"workers": 2},
    {"batch": 64, "accumulate": 4},
    {"batch": 64, "gradient_checkpointing": True},
]
DRAWN, EVALUATIONS = (64, 256, 1024), 5


def _serve_training(case: dict) -> None:
    import tensorflow as tf

    from ecgtf.ecg import LEADS
    from ecgtf.generators.diffusion import Diffusion
    from ecgtf.generators.presets import get_preset
    from ecgtf.training import make_optimizer, make_strategy

    (stage,) = get_preset("timediffusion", "small").stages
    strategy = make_strategy(case["replicas"], case["batch"])
    with strategy.scope():
        model = Diffusion(
            LEADS,
            case["samples"],
            100.0,
            [1.0] * len(LEADS),
            classes=("AFIB", "SR"),
            task="benchmark",
            model_leads=case["model_leads"],
            gradient_checkpointing=case["gradient_checkpointing"],
            **stage.options,
        )
        optimizer = make_optimizer(1e-4, 10_000)
        optimizer.build(model.trainable_variables)
        model.compile(optimizer, accumulate=case["accumulate"])
    signals = tf.random.normal((case["batch"], case["samples"], len(LEADS)))
    labels = tf.one_hot(tf.zeros(case["batch"], tf.int32), 2)
    data = tf.data.Dataset.from_tensors((signals, labels)).repeat()
    sharding = tf.data.Options()
    sharding.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = iter(strategy.experimental_distribute_dataset(data.with_options(sharding)))
    model.make_train_function()

    def steps(times: int) -> float:
        return seconds(lambda: float(model.train_function(batches)["loss"]), times)

    serve({"steps": steps})


def _serve_drawing(records: int) -> None:
    import ecgtf
    from ecgtf.synthesis import class_labels

    generator = ecgtf.load_pretrained()
    labels = class_labels(len(generator.classes), records // len(generator.classes))

    def draw(labels) -> float:
        return seconds(lambda: [None for _ in generator.batches(labels, steps=EVALUATIONS)]) / len(labels)

    draw(labels[: generator.batch_size])  # compiles
    serve({"draw": lambda: draw(labels)})


def environments(workers: int) -> list[dict[str, str]]:
    """For each of the workers of a training, the variable by which they find each other."""
    if workers == 1:
        return [{}]
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("localhost", 0))) for _ in range(workers)]
        addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    tasks = [{"type": "worker", "index": index} for index in range(workers)]
    return [{"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task})} for task in tasks]


def measure(case: dict, rounds: int) -> tuple[list[float], float]:
    """Seconds of a step in each round, and the peak memory of all workers."""
    with ExitStack() as stack, ThreadPoolExecutor() as together:
        order = ("scaling.py", "--serve", "training", json.dumps(case))
        workers = [stack.enter_context(Worker(*order, environment=found)) for found in environments(case["workers"])]

        def ask(what: str, **given) -> list[float]:
            return list(together.map(lambda worker: worker.ask(what, **given), workers))

        ask("steps", times=2)
        return [max(ask("steps", times=4)) for _ in range(rounds)], sum(ask("memory"))


def main() -> None:
    arguments = options(__doc__, rounds=5).parse_args()
    print(described())
    rows, ratios, first = [], {}, None
    for change in CHANGES:
        case = BASE | change
        found, memory = measure(case, arguments.rounds)
        each = statistics.median(found) / case["batch"] / case["samples"]
        first = first or each
        name = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in change.items()) or "as described"
        ratios[f"{name}, cost of the first case over its"] = first / each
        rows.append((name, spread([1000 * value for value in found], 0), f"{each / first:.2f}", f"{memory:.2f}"))
    show(("training step", "ms", "cost for each sample", "peak GiB"), rows)
    rows = []
    for records in DRAWN:
        with Worker("scaling.py", "--serve", "drawing", records) as worker:
            found = [1000 * worker.ask("draw") for _ in range(arguments.rounds)]
            rows.append((records, spread(found, 0), f"{worker.ask('memory'):.2f}"))
    show(("records drawn", "ms for each", "peak GiB"), rows)
    compare("scaling", ratios, arguments.save)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve_training(json.loads(sys.argv[3])) if sys.argv[2] == "training" else _serve_drawing(int(sys.argv[3]))
    else:
        main()
