"""A generator that starts from another run: which weights it takes over, what it refuses, and what it says of where they come from."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from ecgtf import train_generator as training
from ecgtf.callbacks import Stopped
from ecgtf.cli.main import app
from ecgtf.conditions import columns
from ecgtf.dataset import hash_id, read_ids, read_manifest
from ecgtf.ecg import LEADS
from ecgtf.generators.base import Generator
from ecgtf.generators.presets import get_preset
from ecgtf.generators.stages import Stages, Start
from ecgtf.generators.time_vqvae import TimeVQVAE
from ecgtf.run_folder import Run
from ecgtf.sharing import export
from ecgtf.tasks import get_task
from ecgtf.train_generator import train_generator

NETWORK = {"denoiser": {"network_options": {"width": 16, "multipliers": (1, 2)}}}
TOKENS = {
    "tokenizer": {"width": 32, "codes": (64, 64)},
    "prior": {"width": 32, "depth": (1, 1)},
    "enhancer": {"width": 4, "multipliers": (1, 2)},
}
# The learning rate warms up from zero: in a training of one step only codebooks move, which have no gradient.
ONE_STEP = {"task": "rhythm7", "preset": "tiny", "batch_size": 4, "quiet": True, "seed": 3}
DENOISER = ONE_STEP | {
    "kind": "diffwave",
    "options": {"denoiser": {"network_options": {"width": 16, "depth": 2, "cycle": 2}}},
    "steps": (1,),
}
ELSEWHERE = hash_id("a record that the start of the start was trained on")
VQVAE = ONE_STEP | {"kind": "vqvae", "options": TOKENS, "steps": (1, 1, 1)}


def stages_of(kind: str, options: dict, start: Start | None = None, **changes) -> Stages:
    """The stages of a small generator of one second, made as `train_generator` makes them."""
    signal = {"leads": LEADS, "samples": 96, "sampling_rate": 96.0, "scale": [0.2] * 12, "model_leads": "independent"}
    label = {"classes": ("SR", "SB", "AFIB"), "task": "a", "conditions": ("age", "sex")}
    sizes = get_preset(kind, "tiny", changes.pop("objective", None)).with_options(options).with_lengths((1,) * len(options))
    told = [{name: changes.get(name, value) for name, value in known.items()} for known in (signal, label)]
    return Stages(sizes, *told, changes.get("seed", 0), start)


def models_of(stages: Stages) -> dict[str, Generator]:
    models, before = {}, None
    for stage in stages.preset.stages:
        before = models[stage.name] = stages.build(stage, before)
    return models


def begun_with(kind: str, options: dict, **changes) -> Start:
    """A run in `runs/a` whose weights are random, so that none is as a new model has it."""
    last = list(models_of(stages_of(kind, options, **changes)).values())[-1]
    rng = np.random.default_rng(0)
    last.set_weights([rng.normal(size=weight.shape).astype(weight.dtype) for weight in last.get_weights()])
    if kind != "vqvae":
        return Start("runs/a", {"denoiser": last}, frozenset())
    return Start("runs/a", {"tokenizer": last.prior.tokenizer, "prior": last.prior, "enhancer": last}, frozenset())


def assert_same_weights(one: Generator, other: Generator) -> None:
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def assert_same_own_weights(one: Generator, other: Generator, but: frozenset | set = frozenset()) -> None:
    """The same, for all but the frozen tokenizer of a prior, and one more weight."""
    frozen = {id(weight) for weight in one.tokenizer.weights} if hasattr(one, "tokenizer") else set()
    pairs = [(mine, theirs) for mine, theirs in zip(one.weights, other.weights, strict=True) if id(mine) not in frozen | but]
    assert len(pairs) == len(one.weights) - len(frozen | but)
    for mine, theirs in pairs:
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)


# -- weights --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "objective"), [("timediffusion", "diffusion"), ("timediffusion", "flow"), ("diffwave", "flow")]
)
def test_every_weight_carries_over_where_classes_and_conditions_are_the_same(kind, objective):
    options = {"denoiser": {"network_options": {"width": 16}}}
    begun = begun_with(kind, options, objective=objective)
    (model,) = models_of(stages_of(kind, options, begun, objective=objective, seed=1, scale=[0.5] * 12)).values()
    assert_same_weights(model, begun.models["denoiser"])
    assert model.scale == [0.5] * 12  # of the new records
    assert model.seed == 1


def test_each_stage_of_time_vqvae_takes_its_own_weights_and_the_stage_before_as_it_has_become():
    begun = begun_with("vqvae", TOKENS)
    stages = stages_of("vqvae", TOKENS, begun, seed=1, scale=[0.5] * 12)
    models = models_of(stages)
    assert_same_weights(models["tokenizer"], begun.models["tokenizer"])  # codebooks, with their counts and sums, among them
    assert_same_weights(models["enhancer"], begun.models["enhancer"])
    assert models["enhancer"].prior.tokenizer.scale == [0.5] * 12

    tokenizer = models["tokenizer"]
    tokenizer.set_weights([weight + 1 for weight in tokenizer.get_weights()])  # as a training leaves it
    prior = stages.build(stages.preset.stages[1], tokenizer)
    assert_same_weights(prior.tokenizer, tokenizer)
    assert_same_own_weights(prior, begun.models["prior"])


def test_an_enhancer_that_the_start_does_not_have_starts_afresh():
    begun = begun_with("vqvae", TOKENS)
    begun = replace(begun, models={name: begun.models[name] for name in ("tokenizer", "prior")})
    enhancer = models_of(stages_of("vqvae", TOKENS, begun))["enhancer"]
    assert_same_weights(enhancer.prior, begun.models["prior"])
    assert not enhancer.network.get_weights()[-1].any()  # as a new one, it changes nothing


@pytest.mark.parametrize(
    ("kind", "stage", "options", "classes"),
    [
        ("timediffusion", "denoiser", NETWORK, ("AFIB", "SR", "AFLT")),  # as many, others
        ("timediffusion", "denoiser", NETWORK, ("AFIB", "SR")),
        ("vqvae", "prior", TOKENS, ("AFIB", "SR", "AFLT", "SVT")),
    ],
)
def test_vectors_of_other_classes_and_conditions_start_afresh_and_all_else_carries_over(kind, stage, options, classes):
    begun = begun_with(kind, options)
    other = {"classes": classes, "task": "b", "conditions": ("sex", "heart_rate"), "seed": 1}
    model = models_of(stages_of(kind, options, begun, **other))[stage]

    rows, known = (each.condition.get_weights()[0] for each in (model, begun.models[stage]))
    sex, rate = len(classes), len(classes) + columns("sex")  # the first rows of each
    np.testing.assert_array_equal(rows[0], known[2])  # AFIB
    np.testing.assert_array_equal(rows[1], known[0])  # SR
    for place, name in enumerate(classes[2:], 2):  # the classes that are new
        np.testing.assert_array_equal(rows[place], model.condition.fresh(f"class/{name}", 1)[0])
    np.testing.assert_array_equal(rows[sex:rate], known[3 + columns("age") :])
    np.testing.assert_array_equal(rows[rate:], model.condition.fresh("condition/heart_rate", columns("heart_rate")))
    assert_same_own_weights(model, begun.models[stage], but={id(model.condition.embedding)})


@pytest.mark.parametrize(("kind", "stage", "options"), [("timediffusion", "denoiser", NETWORK), ("vqvae", "prior", TOKENS)])
def test_fresh_vectors_are_near_no_learnt_one_where_both_have_the_same_seed(kind, stage, options):
    last = list(models_of(stages_of(kind, options)).values())[-1]
    start = last if kind != "vqvae" else last.prior
    model = models_of(
        stages_of(
            kind, options, Start("runs/a", {stage: start}, frozenset()), classes=("MI", "CD", "HYP"), conditions=("heart_rate",)
        )
    )[stage]
    rows, null = model.condition.get_weights()
    learnt, learnt_null = start.condition.get_weights()
    np.testing.assert_array_equal(null, learnt_null)
    drawn = np.concatenate([learnt, null[None], rows])  # no two of them alike
    distances = np.linalg.norm(drawn[:, None] - drawn[None], axis=-1) / (model.condition.spread * np.sqrt(2 * drawn.shape[1]))
    assert distances[~np.eye(len(drawn), dtype=bool)].min() > 0.5  # independent draws lie at about 1
    assert np.std(rows) == pytest.approx(model.condition.spread, rel=0.2)


DIFFERENT = {  # what is asked for: what is said of it
    "width": (
        {"options": {"denoiser": {"network_options": {"width": 24, "multipliers": (1, 2)}}}},
        "width 16, this one has 24",
    ),
    "blocks": (
        {"options": {"denoiser": {"network_options": {"width": 16, "multipliers": (1, 2), "blocks": 4}}}},
        "blocks its default, this one has 4",
    ),
    "patch": ({"options": {"denoiser": NETWORK["denoiser"] | {"patch": 2}}}, "patch 4, this one has 2"),
    "modelled leads": ({"model_leads": "all"}, "model_leads independent, this one has all"),
    "samples": ({"samples": 100}, "samples 96, this one has 100"),
    "rate": ({"sampling_rate": 100.0}, "sampling_rate 96.0, this one has 100.0"),
    "leads": ({"leads": (*LEADS[:11], "V7")}, "leads I, II, III, .*V6, this one has .*V7"),
}


@pytest.mark.parametrize(("asked", "said"), DIFFERENT.values(), ids=DIFFERENT)
def test_other_networks_are_refused_by_what_differs(asked, said):
    begun = begun_with("timediffusion", NETWORK)
    asked = dict(asked) | ({"model_leads": "all"} if "leads" in asked else {})
    options = asked.pop("options", NETWORK)
    if "leads" in asked:
        begun = begun_with("timediffusion", NETWORK, model_leads="all")
    with pytest.raises(ValueError, match=rf"^runs/a was trained with {said}.* \(denoiser\); expected the same.*$") as told:
        stages_of("timediffusion", options, begun, **asked).check(tf.distribute.get_strategy())
    assert "\n" not in str(told.value)


def test_stages_of_time_vqvae_are_told_apart_in_a_refusal():
    begun = begun_with("vqvae", TOKENS)
    other = TOKENS | {"prior": {"width": 48, "depth": (1, 1)}}
    with pytest.raises(ValueError, match=r"runs/a was trained with width 32, this one has 48 \(prior\)"):
        stages_of("vqvae", other, begun).check(tf.distribute.get_strategy())


# -- runs -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Spares the graphs that draw samples, for which TensorFlow takes longer than for the trainings here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "_shown", lambda *_: {})
        yield


@pytest.fixture(scope="module")
def runs(small_dataset, tmp_path_factory):
    """Finished runs to start from, each trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("starts")

    class Runs(dict):
        def __missing__(self, kind: str) -> Run:
            with pytest.MonkeyPatch.context() as patch:
                if kind == "vqvae":  # as it is before its training, which three stages make long
                    patch.setattr(training.Training, "_fit", lambda *_, **__: None)
                self[kind] = train_generator(data=small_dataset, out=folder / kind, **(VQVAE if kind == "vqvae" else DENOISER))
            self[kind].write_trained_on([*self[kind].trained_on(), ELSEWHERE])
            return self[kind]

    return Runs()


@pytest.fixture
def others(make_dataset):
    """Another hospital's records, some of which are those of `small_dataset`."""
    return make_dataset("others", {"train": 6})


def assert_nearly(ones: list, others: list) -> None:
    """The same but for the rounding of an average over one step."""
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


def test_the_command_line_starts_a_run_from_another_task_and_data_set(tmp_path, runs, others, small_dataset):
    start, out = runs["diffwave"], tmp_path / "run"
    words = [
        "train-generator",
        "diffwave",
        "--task",
        "rhythm4",
        "--preset",
        "tiny",
        "--steps",
        "1",
        "--batch-size",
        "4",
        "--quiet",
    ]
    words += ["--set", 'denoiser.network_options={"width": 16, "depth": 2, "cycle": 2}', "--judge", "0", "--seed", "4"]
    result = CliRunner().invoke(app, [*words, "--data", str(others), "--out", str(out), "--from", str(start.folder)])
    assert result.exit_code == 0, result.stderr

    run = Run.load(out)
    model, before = run.load_model(), start.load_model()
    assert run.config["start"] == str(start.folder)
    assert_nearly(model.network.get_weights(), before.network.get_weights())
    rows, known = (each.condition.get_weights()[0] for each in (model, before))
    for name in ("SB", "AFIB", "SR"):
        assert_nearly([rows[model.classes.index(name)]], [known[before.classes.index(name)]])
    assert model.classes == get_task("rhythm4").classes
    assert model.scale == read_manifest(others).statistics["std"] != before.scale
    assert start.config["start"] is None
    new, old = ({hash_id(name) for name in read_ids(folder, "train")} for folder in (others, small_dataset))
    assert set(start.trained_on()) == old | {ELSEWHERE}
    assert run.trained_on() == sorted(new | old | {ELSEWHERE})
    assert len(run.trained_on()) > len(start.trained_on())


def test_the_command_line_refuses_a_run_of_another_kind_in_one_line(tmp_path, others):
    (tmp_path / "config.json").write_text(json.dumps({"command": "train-classifier", "finished": True}))
    result = CliRunner().invoke(app, ["train-generator", "vqvae", "--data", str(others), "--from", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr == f"error: {tmp_path} is a run of train-classifier; expected a run of train-generator to start from\n"


def test_time_vqvae_begins_with_the_weights_of_its_start_codebooks_included(tmp_path, runs, others, monkeypatch):
    start = runs["vqvae"]
    monkeypatch.setattr(training.Training, "_fit", lambda *_, **__: None)  # what is saved is what a training would begin with
    monkeypatch.setattr(TimeVQVAE, "start_codebooks", lambda *_: pytest.fail("the decoder does not know the codes of k-means"))
    asked = VQVAE | {"steps": (1, 1, 0), "seed": 4}
    run = train_generator(data=others, out=tmp_path / "run", start=start.folder, **asked)
    assert_same_weights(run.load_model("tokenizer"), start.load_model("tokenizer"))
    last, before = run.load_model(), start.load_model()
    assert_same_weights(last, before.prior)  # the last stage of the start is its enhancer
    assert last.scale == read_manifest(others).statistics["std"] != before.scale
    assert set(run.trained_on()) > set(start.trained_on())
    assert set(training._read_start(run.folder, "vqvae", None).models) == {"tokenizer", "prior"}


def test_a_resumed_run_takes_its_checkpoint_and_not_its_start(tmp_path, runs, others, monkeypatch):
    asked = DENOISER | {"data": others, "start": runs["diffwave"].folder, "steps": (4,), "checkpoint_every": 2}
    whole = train_generator(out=tmp_path / "whole", **asked)

    def terminated(_):
        signal.raise_signal(signal.SIGTERM)
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(training.Training, "_shown", lambda *_: {"pictures": terminated})
        with pytest.raises(Stopped):
            train_generator(out=tmp_path / "stopped", **asked)
    another = export(runs["diffwave"].folder, tmp_path / "another")
    with pytest.raises(ValueError, match=r"holds a run of another configuration \(start: "):
        train_generator(out=tmp_path / "stopped", **asked | {"start": another}, resume=True)
    assert_same_weights(train_generator(out=tmp_path / "stopped", **asked, resume=True).load_model(), whole.load_model())


@pytest.mark.parametrize("kind", ["diffwave", "timediffusion", "vqvae"])
def test_a_start_of_each_kind_comes_with_the_package(kind):
    """Its networks are those of today's presets, and nothing but simulated records is behind it."""
    sizes = get_preset(kind, "small")
    begun = training._read_start("simulated", kind, sizes.objective)
    signal = {"leads": LEADS, "samples": 1000, "sampling_rate": 100.0, "scale": [0.2] * 12, "model_leads": "independent"}
    conditions = () if kind == "vqvae" else ("heart_rate",)
    label = {"classes": get_task("superclass").classes, "task": "superclass", "conditions": conditions}
    models = models_of(Stages(sizes, signal, label, start=begun))
    assert set(begun.models) <= set(models)
    assert len(begun.trained_on) == 3202
    assert training.start_run("simulated", kind).config["data"] == ["simulated"]


def test_an_exported_time_vqvae_is_a_start_too(tmp_path, runs):
    begun = training._read_start(export(runs["vqvae"].folder, tmp_path / "exported"), "vqvae", None)
    assert set(begun.models) == {"tokenizer", "prior", "enhancer"}
    assert begun.trained_on == set(runs["vqvae"].trained_on())


def test_what_is_no_such_generator_is_refused_before_a_file_is_touched(tmp_path, runs, others):
    out, start = tmp_path / "run", runs["diffwave"].folder

    def refused(message: str, **changes):
        with pytest.raises(ValueError, match=message) as told:
            train_generator(data=others, out=out, **DENOISER | {"start": start} | changes)
        assert "\n" not in str(told.value)
        assert not out.exists()

    refused("diffwave was trained with kind diffwave, this one has timediffusion", kind="timediffusion", options={})
    refused("diffwave was trained with objective diffusion, this one has flow", objective="flow")
    refused("diffwave was trained with model_leads independent, this one has all", leads="all")
    refused("diffwave was trained with width 16, this one has 32", options={})
    refused("is not a run folder", start=tmp_path / "nothing")
    unfinished = export(start, tmp_path / "unfinished")
    config = json.loads((unfinished / "config.json").read_text())
    (unfinished / "config.json").write_text(json.dumps(config | {"finished": False}))
    refused("unfinished cannot be started from: its training has not come to an end", start=unfinished)


def test_the_run_to_start_from_is_not_overwritten(runs, others):
    start = runs["diffwave"]
    with pytest.raises(ValueError, match="is the run to start from, which stays as it is: name another --out"):
        train_generator(data=others, out=start.folder, start=start.folder, overwrite=True, **DENOISER)
    assert start.load_model()


def test_weights_carry_over_on_several_devices_in_half_precision(tmp_path, runs, others):
    start, out = runs["diffwave"].folder, tmp_path / "run"
    asked = DENOISER | {
        "data": str(others),
        "out": str(out),
        "start": str(start),
        "devices": 2,
        "precision": "bfloat16",
        "seed": 4,
    }
    code = f"from ecgtf import train_generator as t; t.Training._shown = lambda *_: {{}}; t.train_generator(**{asked!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert_nearly(Run.load(out).load_model().get_weights(), Run.load(start).load_model().get_weights())
