"""Whole trainings of each kind of generator: what a run folder holds, the same weights after any end, the same draws anywhere."""

import csv
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import ecgtf
from ecgtf.augment import Augmentation
from ecgtf.conditions import CONDITIONS
from ecgtf.dataset import load_arrays, read_manifest
from ecgtf.run_folder import Run
from ecgtf.synthesis import generate
from ecgtf.train_generator import train_generator

TINY = {"task": "rhythm7", "preset": "tiny", "batch_size": 4, "checkpoint_every": 8, "quiet": True, "seed": 3}

SMALLEST = {  # of each generator: the stage in which it is stopped, and steps of its stages
    "vqvae": (
        "prior",
        (4, 40, 3),
        {"tokenizer": {"width": 32}, "prior": {"width": 32, "depth": (1, 1)}, "enhancer": {"multipliers": (1, 2)}},
    ),
    "diffwave": ("denoiser", (40,), {"denoiser": {"network_options": {"width": 16, "depth": 2, "cycle": 2}}}),
    "timediffusion": ("denoiser", (40,), {"denoiser": {"network_options": {"width": 16, "multipliers": (1, 2)}}}),
}


def asked_for(kind: str) -> dict:
    _, steps, options = SMALLEST[kind]
    return (
        TINY
        | {"kind": kind, "steps": steps, "options": options, "judge": int(kind == "diffwave")}
        | ({"conditions": CONDITIONS} if kind == "diffwave" else {})
    )


@pytest.fixture(scope="module")
def whole(small_dataset, tmp_path_factory):
    """Finished runs of each generator, uninterrupted; each is trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("whole")

    class Runs(dict):
        def __missing__(self, kind: str) -> Run:
            self[kind] = train_generator(data=small_dataset, out=folder / kind, **asked_for(kind))
            return self[kind]

    return Runs()


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_finished_run_tells_what_it_was(whole, kind):
    run = whole[kind]
    assert run.finished
    stages = ("tokenizer", "prior", "enhancer") if kind == "vqvae" else ("denoiser",)
    assert tuple(run.config[f"{stage}_steps"] for stage in stages) == SMALLEST[kind][1]
    assert len(run.trained_on()) > 0
    with (run.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["stage"] for row in rows} == set(stages)
    assert ("sample_frechet" in rows[-1]) == (kind == "diffwave")
    events = " ".join(str(path) for path in (run.folder / "tensorboard").rglob("events*"))
    assert all(f"tensorboard/{stage}" in events for stage in stages)


def shown(run: Run) -> dict[tuple[str, str], set[str]]:
    """Tags in the TensorBoard events of each stage and plugin."""
    tags = {}
    for path in (run.folder / "tensorboard").rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                tags.setdefault((path.parent.name, value.metadata.plugin_data.plugin_name), set()).add(value.tag)
    return tags


PACE = {"loss", "val_loss", "gradient_norm", "learning_rate", "samples_per_second"}


def test_a_run_keeps_how_its_records_were_changed_and_goes_on_with_nothing_else(tmp_path, small_dataset, whole):
    usual = "gain=0.2,shift_seconds=2.5,axis=12.0"
    config = Run.load(whole["diffwave"].folder).config
    assert config["augment"] == usual
    old = Run(tmp_path, {name: value for name, value in config.items() if name != "augment"})  # of before it could be chosen
    old.write_config()
    again = asked_for("diffwave") | {"data": small_dataset, "out": tmp_path, "resume": True}
    assert train_generator(**again).config["augment"] == usual
    assert train_generator(augment=Augmentation.parse(usual), **again).finished
    with pytest.raises(ValueError, match=rf"\(augment: {usual} there, none now\)"):
        train_generator(augment=Augmentation(), **again)


def test_tensorboard_shows_losses_pace_codebooks_and_pictures(whole):
    tags = shown(whole["vqvae"])
    assert tags["tokenizer", "scalars"] >= PACE | {"perplexity_low", "perplexity_high", "commitment"}
    assert tags["prior", "scalars"] >= PACE | {"low", "high"}
    assert tags["tokenizer", "images"] == {"reconstructions"}
    assert tags["prior", "images"] == tags["enhancer", "images"] == {"samples"}


def test_tensorboard_shows_noise_levels_and_figures_of_samples(whole):
    tags = shown(whole["diffwave"])
    samples = {"sample_frechet", "sample_heart_rate", "sample_rmssd", "heart_rate_SR"}
    assert tags["denoiser", "scalars"] >= PACE | {f"loss_level_{level}" for level in range(1, 5)} | samples
    assert tags["denoiser", "images"] == {"samples"}


def test_without_validation_records_the_last_weights_are_kept(tmp_path, make_dataset):
    asked = asked_for("timediffusion") | {"steps": (9,)}
    run = train_generator(data=make_dataset("alone", {"train": 2}), out=tmp_path / "run", **asked)
    assert run.finished
    assert not (run.folder / "checkpoints" / "denoiser" / "best.npz").exists()
    with (run.folder / "log.csv").open() as file:
        assert "val_loss" not in next(csv.DictReader(file))


@pytest.mark.parametrize(("kind", "end"), [*((kind, "SIGKILL") for kind in SMALLEST), ("diffwave", "SIGTERM")])
def test_a_stopped_run_resumes_to_the_weights_of_an_uninterrupted_one(tmp_path, small_dataset, whole, kind, end):
    """kill -9, or the SIGTERM of a scheduler, in the middle of a stage, then --resume; a second run of a seed is the first again."""
    out, asked = tmp_path / "stopped", asked_for(kind)
    code = f"from ecgtf.train_generator import train_generator; train_generator(data={str(small_dataset)!r}, out={str(out)!r}, **{asked!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    checkpoints = out / "checkpoints" / SMALLEST[kind][0]
    while not list(checkpoints.glob("ckpt-*.index")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(getattr(signal, end))
    assert process.wait() != 0, "the training came to its end before it could be stopped"
    with pytest.raises(ValueError, match="go on with --resume"):
        Run.load(out).load_model()
    resumed = train_generator(data=small_dataset, out=out, **asked, resume=True).load_model().get_weights()
    for one, other in zip(whole[kind].load_model().get_weights(), resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_records_are_drawn_for_an_age_a_sex_and_a_heart_rate(tmp_path, small_dataset, whole):
    told = whole["diffwave"].folder
    few = {"per_class": 1, "sampler_steps": 2, "quiet": True}
    out = generate(told, tmp_path / "told", age=71.0, sex="female", heart_rate=120.0, **few)
    drawn = load_arrays(out, "train")
    assert set(drawn.ages) == {71.0}
    assert set(drawn.sexes) == {"female"}
    settings = read_manifest(out).generator["settings"]
    assert {name: settings[name] for name in CONDITIONS} == {"age": 71.0, "sex": "female", "heart_rate": 120.0}
    assert whole["diffwave"].config["heart_rates"].keys() == {"", "SR", "SB", "ST", "SA", "AFIB", "AFLT", "SVT"}
    like = load_arrays(
        generate(told, tmp_path / "like", like=f"{small_dataset}:test", validation_share=0.0, sampler_steps=2, quiet=True),
        "train",
    )
    real = load_arrays(small_dataset, "test", "rhythm7")
    assert (like.ages, like.sexes) == (real.ages, real.sexes)
    with pytest.raises(ValueError, match="expected a sex of male or female, received 'f'"):
        generate(told, tmp_path / "other", sex="f", **few)
    assert not (tmp_path / "other").exists()


def test_conditions_that_a_generator_does_not_know_are_refused(tmp_path, whole):
    with pytest.raises(ValueError, match=r"expected conditions among \(none\), received age"):
        generate(whole["timediffusion"].folder, tmp_path / "untold", age=71.0, per_class=1, sampler_steps=2, quiet=True)
    assert not (tmp_path / "untold").exists()


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_run_draws_the_same_in_a_process_that_knows_nothing_of_its_training(tmp_path, whole, kind):
    code = (
        "import sys, numpy, ecgtf; run = ecgtf.load_run(sys.argv[2]); "
        "numpy.save(sys.argv[1], run.generate(per_class=1, seed=7, steps=eval(sys.argv[3]))[0])"
    )
    steps, there = (2, 2) if kind == "vqvae" else 3, tmp_path / "drawn.npy"
    subprocess.run([sys.executable, "-c", code, there, whole[kind].folder, str(steps)], check=True, capture_output=True)
    here, _ = ecgtf.load_run(whole[kind].folder).generate(per_class=1, seed=7, steps=steps)
    np.testing.assert_array_equal(np.load(there), here)
