"""The forms that the networks and samplers take beside others that compute the same: `python benchmarks/choices.py [--rounds 7] [--save]`.

The form that ecgtf takes and its alternatives run in turns on the same input: layers in float32 and bfloat16, with their gradients, as in
training; loops around the network in float32. But for augmented batches, alternatives are compared with ours before they are timed. A
ratio above 1 is what the alternative would cost. Which form is right depends on the device: what is chosen by device is chosen in
`ecgtf/generators/fused.py`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from machine import described
from tables import compare, options, show, spread
from workers import in_turns, seconds

from ecgtf.augment import Augmentation, augment, augmented
from ecgtf.ecg import LEADS
from ecgtf.generators import time_diffusion
from ecgtf.generators.diffusion import Diffusion, to_x0
from ecgtf.generators.fused import convolution
from ecgtf.generators.samplers import sample

TAKEN = "as taken"
Forms = dict[str, Callable]

# -- layers: functions of tensors, timed with their gradients ---------------------------------------------------------------------


def dilated(dilation: int) -> Forms:
    """DiffWave's dilated convolution of three taps."""

    def framework(x, kernel):
        return tf.nn.convolution(x, kernel, padding="SAME", dilations=[dilation])  # rearranges the signal, on a CPU

    def shifted(x, kernel):
        ends = tf.pad(x, [[0, 0], [dilation, dilation], [0, 0]])
        return sum(ends[:, k * dilation : k * dilation + x.shape[1]] @ kernel[k] for k in range(3))

    def time_last(x, kernel):
        ends = tf.pad(tf.transpose(x, (0, 2, 1)), [[0, 0], [0, 0], [dilation, dilation]])
        taps = [
            tf.linalg.matmul(kernel[k], ends[..., k * dilation : k * dilation + x.shape[1]], transpose_a=True) for k in range(3)
        ]
        return tf.transpose(sum(taps), (0, 2, 1))

    def grid(x, kernel):
        rows = -(-x.shape[1] // dilation)
        apart = tf.pad(x, [[0, 0], [0, rows * dilation - x.shape[1]], [0, 0]])
        apart = tf.reshape(apart, (-1, rows, dilation, x.shape[2]))
        made = tf.nn.conv2d(apart, kernel[:, None], 1, "SAME")
        return tf.reshape(made, (-1, rows * dilation, kernel.shape[2]))[:, : x.shape[1]]

    return {
        TAKEN: lambda x, kernel: convolution(x, kernel, dilation=dilation),
        "the framework's dilated convolution": framework,
        "three shifted products": shifted,
        "the same, time last": time_last,
        "an undilated convolution of a grid": grid,
        "XLA": tf.function(shifted, jit_compile=True),
    }


def undilated() -> Forms:
    """The U-Net's wide convolution of three taps."""
    return {
        TAKEN: convolution,
        "the framework's convolution": lambda x, kernel: tf.nn.conv1d(x, kernel, 1, "SAME"),
    }


def gate() -> Forms:
    """A gate as DiffWave's, sigmoid(a) tanh(b), behind products that give a and b."""

    def apart(x, kernel):
        a, b = tf.split(kernel, 2, axis=-1)
        return tf.sigmoid(x @ a) * tf.tanh(x @ b)

    def split(x, kernel):
        a, b = tf.split(x @ kernel, 2, axis=-1)
        return tf.sigmoid(a) * tf.tanh(b)

    def one_tanh(x, kernel):
        half = tf.cast(np.repeat([0.5, 1.0], kernel.shape[1] // 2), x.dtype)
        a, b = tf.split(tf.tanh(x @ (kernel * half)), 2, axis=-1)
        return (1 + a) * b * tf.cast(0.5, x.dtype)

    return {TAKEN: apart, "one product for both halves": split, "and one tanh": one_tanh}


def linear_attention() -> Forms:
    """The U-Net's linear attention."""
    heads, size = time_diffusion.HEADS, time_diffusion.HEAD_SIZE

    def by_head(q, k, v):
        q, k, v = (tf.reshape(part, (-1, part.shape[1], heads, size)) for part in (q, k, v))
        context = tf.einsum("bthd,bthe->bhde", tf.nn.softmax(k, axis=1), v)
        mixed = tf.einsum("bhde,bthd->bthe", context, q * tf.cast(size**-0.5, q.dtype))
        return tf.reshape(mixed, (-1, mixed.shape[1], heads * size))

    return {TAKEN: time_diffusion._linear_attention, "head by head": by_head}


def full_attention() -> Forms:
    """The U-Net's attention of its innermost level."""

    framework = keras.ops.dot_product_attention
    return {TAKEN: time_diffusion._full_attention, "keras.ops.dot_product_attention": lambda q, k, v: framework(q, k, v)}


def layers() -> Iterator[tuple[str, Forms, list[tuple[int, ...]]]]:
    """Name, forms and shapes of what they are given."""
    for dilation in (1, 16, 256):
        yield f"dilated convolution, {dilation} apart", dilated(dilation), [(32, 1000, 64), (3, 64, 128)]
    for width, samples in ((128, 500), (512, 125)):
        yield f"convolution of {width} channels", undilated(), [(16, samples, width), (3, width, width)]
    yield "gate", gate(), [(32, 1000, 64), (64, 128)]
    yield "linear attention", linear_attention(), [(16, 1000, 128)] * 3
    yield "full attention", full_attention(), [(16, 125, 4, 32)] * 3


def with_gradients(form: Callable) -> Callable:
    """The output and the gradients of its sum of squares."""

    @tf.function
    def work(*given):
        with tf.GradientTape() as tape:
            tape.watch(given)
            made = form(*given)
            loss = tf.reduce_sum(tf.cast(made, tf.float32) ** 2)
        return made, *tape.gradient(loss, given)

    return work


# -- loops: what happens around the network ---------------------------------------------------------------------------------------


def generator() -> Diffusion:
    """A DiffWave of 64 channels and 20 layers."""
    network = {"width": 64, "depth": 20, "cycle": 10}
    about = {"classes": ("AFIB", "SR"), "task": "benchmark"}
    return Diffusion(LEADS, 1000, 100.0, [1.0] * len(LEADS), network="diffwave", network_options=network, **about)


def sampling(model: Diffusion) -> Forms:
    """Ten evaluations."""
    labels, seed = tf.one_hot(tf.zeros(16, tf.int32), 2), tf.constant([0, 1])
    places, table = model.plan("ddim", 10)
    steps, shares = tf.constant(places, tf.float32), tf.constant(model.schedule.alpha_bar[places], tf.float32)

    @tf.function
    def evaluation(x, step, share):
        return to_x0(model.prediction, model.guided(labels, 1.0)(x, step), x, share)

    def one_by_one():
        x = model.noise_for(labels, seed)[0]
        for k in range(10):
            x = sample(lambda x, _, k=k: evaluation(x, steps[k], shares[k]), x, table[k : k + 1])
        return model.to_signal(x)

    return {
        TAKEN: tf.function(lambda: model.sample(labels, seed, sampler="ddim", steps=10)),
        "a loop of Python over a compiled evaluation": one_by_one,
    }


def guidance(model: Diffusion) -> Forms:
    """An evaluation with guidance."""
    labels = tf.one_hot(tf.zeros(16, tf.int32), 2)
    x, step = tf.random.stateless_normal((16, 1000, 8), (0, 1)), tf.constant(3.0)

    def twice():
        condition = model.condition.with_null(labels)
        told, null = (
            model.predict_with_network(x, tf.fill([16], step), part, None, None) for part in tf.split(condition, 2, axis=0)
        )
        return null + 2.0 * (told - null)

    return {TAKEN: tf.function(lambda: model.guided(labels, 2.0)(x, step)), "two calls": tf.function(twice)}


def step_vectors(model: Diffusion) -> Forms:
    """An evaluation, and one that is given the step's vector ready made."""
    network, x = model.network, tf.random.stateless_normal((16, 1000, 8), (0, 1))
    condition, step = model.condition(tf.one_hot(tf.zeros(16, tf.int32), 2)), tf.fill([16], 3.0)
    ready = network.embedding(step)
    for layer in network.step_layers:
        ready = layer(ready)

    def from_table():
        embedding, step_layers = network.embedding, network.step_layers
        try:
            network.embedding, network.step_layers = lambda _: ready, []
            return network.call(x, step, condition)
        finally:
            network.embedding, network.step_layers = embedding, step_layers

    return {TAKEN: tf.function(lambda: network(x, step, condition)), "step vectors from a table": tf.function(from_table)}


def pipeline(model: Diffusion) -> Forms:
    """Eight training steps on augmented batches of eight."""
    how = Augmentation(gain=0.2, shift_seconds=1.0, wander=0.05, noise=0.02)
    signals, labels = tf.random.stateless_normal((8, 1000, len(LEADS)), (0, 1)), tf.one_hot(tf.zeros(8, tf.int32), 2)
    model.compile(keras.optimizers.Adam(1e-4))
    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda batch: model.train_step(batch)["loss"])
    batches = tf.data.Dataset.from_tensors((signals, labels)).repeat()
    beside = iter(augmented(batches, 0, 0, how, rate=100.0))
    numbers = iter(range(10**9))

    changed = tf.function(lambda number: augment(signals, labels, tf.stack([0, number]), how, rate=100.0))

    def after() -> None:
        for _ in range(8):
            step(changed(tf.constant(next(numbers)))).numpy()

    def overlapped() -> None:
        for _ in range(8):
            step(next(beside)).numpy()

    return {TAKEN: overlapped, "each batch made when it is asked for": after}


# -- the table --------------------------------------------------------------------------------------------------------------------


def check(name: str, found: dict[str, Sequence[tf.Tensor]], most: float) -> None:
    """Ends the run if a form gives something else than ours, by more than this share of the largest value."""
    for form, parts in found.items():
        for part, ours in zip(parts, found[TAKEN], strict=True):
            one, other = (tf.cast(side, tf.float64) for side in (part, ours))
            apart = float(tf.reduce_max(tf.abs(one - other)) / tf.reduce_max(tf.abs(other)))
            if apart > most:
                raise SystemExit(f"{name}, {form}: {apart:.1e} of the largest value apart from ours")


def rows_of(name: str, precision: str, works: Forms, rounds: int) -> tuple[list[tuple], dict[str, float]]:
    """Lines of the table, and the ratios that are compared with the saved ones."""
    for work in works.values():
        work()  # compiles
    found = in_turns({form: lambda work=work: 1000 * seconds(work) for form, work in works.items()}, rounds)
    ours = statistics.median(found.pop(TAKEN))
    ratios = {form: statistics.median(times) / ours for form, times in found.items()}
    rows = [(name, precision, f"{ours:.1f}", form, spread(found[form]), f"{ratio:.2f}") for form, ratio in ratios.items()]
    return rows, {f"{name}, {precision}: {form} over ours": ratio for form, ratio in ratios.items()}


def main() -> None:
    arguments = options(__doc__, rounds=7).parse_args()
    print(described())
    rows, ratios = [], {}

    def add(name: str, precision: str, works: Forms) -> None:
        found = rows_of(name, precision, works, arguments.rounds)
        rows.extend(found[0])
        ratios.update(found[1])

    for precision, most in (("float32", 1e-4), ("bfloat16", 5e-2)):
        for name, forms, shapes in layers():
            given = [tf.cast(0.3 * tf.random.stateless_normal(shape, (0, k)), precision) for k, shape in enumerate(shapes)]
            if name == "linear attention":  # queries are shares
                given[0] = tf.nn.softmax(given[0], axis=-1)
            works = {form: with_gradients(work) for form, work in forms.items()}
            check(name, {form: work(*given) for form, work in works.items()}, most)
            add(
                name,
                precision,
                {form: lambda work=work, given=given: work(*given)[0][0, 0].numpy() for form, work in works.items()},
            )
    model = generator()
    for name, forms in (("sampling", sampling), ("guidance", guidance), ("step vectors", step_vectors)):
        works = forms(model)
        check(name, {form: [work()] for form, work in works.items()}, 1e-3)
        add(name, "float32", {form: lambda work=work: work()[0].numpy() for form, work in works.items()})
    add("batches", "float32", pipeline(model))
    show(("work", "precision", "ours, ms", "instead", "ms", "ratio"), rows)
    compare("choices", ratios, arguments.save)


if __name__ == "__main__":
    main()
