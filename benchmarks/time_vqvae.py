"""Time-VQVAE against the published PyTorch code: `python benchmarks/time_vqvae.py [--rounds 7] [--save]`.

The published code is on no package index. On a machine whose float32 matrix product reached 311 GFLOP/s it trained stage 1 at 82
samples/s (batch 32) and drew 10.5 ECGs/s (batch 64, 10 + 10 decoding steps), 8 leads x 1000 samples, 31 + 250 tokens: 0.26 and 0.034
for each GFLOP/s. The same networks of ours, of the preset `paper`, are put beside the product measured in the same turns.
"""

from __future__ import annotations

import statistics
import sys

from machine import described
from tables import compare, options, show, spread
from workers import Worker, in_turns, seconds, serve

PUBLISHED = {"stage 1, batch 32": 82 / 311, "drawing, batch 64, 10 + 10 steps": 10.5 / 311}
COLUMNS = ("what", "precision", "records/s", "for each GFLOP/s", "published", "ratio")


def _serve(precision: str) -> None:
    import tensorflow as tf

    from ecgtf.ecg import LEADS
    from ecgtf.generators.presets import get_preset
    from ecgtf.generators.time_vqvae import TimeVQVAE
    from ecgtf.generators.token_prior import TokenPrior
    from ecgtf.precision import set_precision
    from ecgtf.training import make_optimizer

    set_precision(precision)
    stages = {stage.name: stage for stage in get_preset("vqvae", "paper").stages}
    sizes = stages["tokenizer"].options | {"downsampling": (32, 8)}
    tokenizer = TimeVQVAE(LEADS, 1000, 100.0, [1.0] * len(LEADS), **sizes)
    tokenizer.compile(make_optimizer(stages["tokenizer"].learning_rate, 1000))
    tokenizer.optimizer.build(tokenizer.trainable_variables)
    prior = TokenPrior(tokenizer, ("AFIB", "SR"), "benchmark", **stages["prior"].options)
    batch = tf.random.normal((32, 1000, len(LEADS))), tf.one_hot(tf.zeros(32, tf.int32), 2)
    labels = tf.one_hot(tf.zeros(64, tf.int32), 2)
    tokenizer.trainable = True
    train = tf.function(lambda: tokenizer.train_step(batch)["loss"])
    draw = tf.function(lambda seed: prior.sample(labels, seed, steps=(10, 10)))
    serve(
        {
            "stage 1, batch 32": lambda: 32 / seconds(lambda: train().numpy(), 3),
            "drawing, batch 64, 10 + 10 steps": lambda: 64 / seconds(lambda: draw(tf.constant([0, 1])).numpy()),
        }
    )


def main() -> None:
    arguments = options(__doc__, rounds=7).parse_args()
    print(described())
    rows, ratios = [], {}
    with Worker("machine.py", "--serve") as machine:
        for precision in ("float32", "bfloat16"):
            with Worker("time_vqvae.py", "--serve", precision) as ours:
                for what, published in PUBLISHED.items():
                    ours.ask(what)  # compiles
                    ways = {"limit": lambda: machine.ask("float32"), "ours": lambda what=what, ours=ours: ours.ask(what)}
                    limit, rates = in_turns(ways, arguments.rounds).values()
                    share = statistics.median(rates) / statistics.median(limit)
                    ratios[f"{what}, {precision}, over the published"] = share / published
                    figures = spread(rates), f"{share:.3f}", f"{published:.3f}", f"{share / published:.2f}"
                    rows.append((what, precision, *figures))
    show(COLUMNS, rows)
    compare("time_vqvae", ratios, arguments.save)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve(sys.argv[2])
    else:
        main()
