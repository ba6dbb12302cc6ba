"""Generators that travel: smaller, and the same but for the last digits."""

import json
from pathlib import Path

import numpy as np
import pytest

import ecgtf
from ecgtf.closeness.physiology import measure
from ecgtf.sharing import PRETRAINED, export, rounded
from ecgtf.train_generator import train_generator


@pytest.fixture(scope="module")
def run(small_dataset, tmp_path_factory) -> Path:
    return train_generator(
        "timediffusion",
        small_dataset,
        tmp_path_factory.mktemp("runs") / "flow",
        objective="flow",
        options={
            "denoiser": {"network_options": {"width": 16, "multipliers": (1, 2)}, "prediction": "velocity", "v_limit": None}
        },
        steps=(3,),
        batch_size=4,
        quiet=True,
    ).folder


def test_an_exported_generator_is_small_and_draws_nearly_the_same(run, tmp_path):
    out = export(run, tmp_path / "shared")
    assert {path.name for path in out.iterdir()} == {"config.json", "model.keras", "trained_on.txt"}
    assert (out / "model.keras").stat().st_size < 0.7 * (run / "model.keras").stat().st_size
    assert (out / "trained_on.txt").read_text() == (run / "trained_on.txt").read_text()
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (run, out))
    assert after["data"] == [Path(before["data"][0]).name]
    assert {name: after[name] for name in ("kind", "classes", "sampling", "versions", "finished")} == {
        name: before[name] for name in ("kind", "classes", "sampling", "versions", "finished")
    }
    one, other = (ecgtf.load_run(folder).generate(per_class=1, seed=3, steps=3)[0] for folder in (run, out))
    assert np.abs(one - other).max() < 0.01 * np.abs(one).max()
    with pytest.raises(ValueError, match="holds a run already"):
        export(run, out)
    with pytest.raises(ValueError, match="is the run itself: name another --out"):
        export(out, out, overwrite=True)
    assert (out / "model.keras").is_file()


@pytest.mark.parametrize("bits", [7, 10])
def test_rounding_keeps_the_digits_it_promises_and_drops_the_others(bits):
    values = np.random.default_rng(0).normal(size=1000).astype("float32") * 10.0 ** np.arange(-5, 5).repeat(100).astype(
        "float32"
    )
    short = rounded(values, bits)
    assert (np.abs(short / values - 1) <= 2.0 ** -(bits + 1)).all()
    assert not (short.view(np.uint32) & np.uint32(2 ** (23 - bits) - 1)).any()
    np.testing.assert_array_equal(rounded(short, bits), short)
    counts = np.arange(3)
    assert rounded(counts, bits) is counts


def test_the_generator_of_the_package_draws_the_rhythms_it_names():
    generator = ecgtf.load_pretrained()
    assert generator.classes == ("SB", "AFIB", "GSVT", "SR")
    generator.batch_size = 32
    signals, labels = generator.generate(per_class=8, seed=1)
    found = measure(signals, generator.model.sampling_rate)
    rates = {name: np.nanmedian(found.heart_rate[member > 0]) for name, member in zip(generator.classes, labels.T, strict=True)}
    assert rates["SB"] < 60 < rates["SR"] < 100 < rates["GSVT"]
    irregular = [np.nanmedian(found.rmssd[labels[:, generator.classes.index(name)] > 0]) for name in ("AFIB", "SR")]
    assert irregular[0] > 1.5 * irregular[1]
    assert np.abs(signals).max() < 10.0  # millivolts
    assert len(generator.run.trained_on()) == 717
    card = (PRETRAINED / "MODEL_CARD.md").read_text()
    assert all(word in card for word in ("CC BY 4.0", "Wagner", "near copies", "Limits"))
