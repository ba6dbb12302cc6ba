"""Drawing from a trained run: data sets, WFDB records, npz, and the Python API."""

import functools
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import wfdb

import ecgtf
from ecgtf.dataset import check_no_leak, hash_id, load_arrays, read_manifest, verify
from ecgtf.ecg import LEADS
from ecgtf.precision import set_precision
from ecgtf.run_folder import Run
from ecgtf.synthesis import FORMATS, TrainedGenerator, class_labels, generate, labels_like
from ecgtf.tasks import get_task
from ecgtf.train_generator import train_generator
from ecgtf.wfdb_io import write_record

FEW = {"sampler_steps": (2, 2), "quiet": True}


@pytest.fixture(scope="module")
def run(small_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "vqvae"
    return train_generator(
        "vqvae", small_dataset, out, task="rhythm7", preset="tiny", steps=(3, 3), batch_size=4, quiet=True
    ).folder


def test_a_synthetic_data_set_is_a_data_set_with_the_generator_as_provenance(run, small_dataset, tmp_path):
    out = generate(run, tmp_path / "set", per_class=3, seed=4, batch_size=8, **FEW)
    manifest = read_manifest(out)
    assert manifest.synthetic
    assert manifest.leads == LEADS
    assert (manifest.splits["train"]["records"], manifest.splits["validation"]["records"]) == (19, 2)
    assert not verify(out)
    labels = np.concatenate([load_arrays(out, split, "rhythm7").labels for split in ("train", "validation")])
    np.testing.assert_array_equal(labels.sum(axis=0), 3)
    trained_on = manifest.generator["trained_on"]
    real = load_arrays(small_dataset, "train")
    assert sorted(trained_on) == sorted(hash_id(name) for name in real.ids)
    check_no_leak(trained_on, load_arrays(small_dataset, "test").ids)
    with pytest.raises(ValueError, match="were used in training"):
        check_no_leak(trained_on, real.ids)


def test_limb_leads_fit_together_exactly_in_what_is_stored(run, tmp_path):
    signals = load_arrays(generate(run, tmp_path / "set", per_class=1, **FEW), "train").signals
    microvolts = {lead: np.rint(signals[..., k] * 1000).astype(int) for k, lead in enumerate(LEADS)}
    np.testing.assert_array_equal(microvolts["III"], microvolts["II"] - microvolts["I"])
    np.testing.assert_array_equal(2 * microvolts["aVR"], -(microvolts["I"] + microvolts["II"]))
    np.testing.assert_array_equal(2 * microvolts["aVL"], 2 * microvolts["I"] - microvolts["II"])
    np.testing.assert_array_equal(2 * microvolts["aVF"], 2 * microvolts["II"] - microvolts["I"])


def test_the_same_weights_and_seed_give_the_same_bytes(run, tmp_path):
    sets = [generate(run, tmp_path / name, per_class=2, seed=seed, **FEW) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, again, other = ([path.read_bytes() for path in sorted(folder.glob("*.tfrecord*"))] for folder in sets)
    assert first == again
    assert first != other


def test_memory_does_not_grow_with_the_records_drawn(run, tmp_path):
    """1,120 records hold 54 MB as arrays; the second of two draws in a process shows what they need beyond the first."""
    code = (
        "import sys, resource; from ecgtf.synthesis import generate; peaks = []\n"
        "for number in (8, 160):\n"
        "    generate(sys.argv[1], f'{sys.argv[2]}/{number}', per_class=number, sampler_steps=(2, 2), quiet=True)\n"
        "    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print(peaks[1] - peaks[0])"
    )
    command = [sys.executable, "-c", code, str(run), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 27_000  # kB


def test_several_classes_at_once_and_none_can_be_asked_for(run):
    labels = np.zeros((3, 7), "float32")
    labels[0, :2] = labels[1, 3] = 1.0
    signals, given = ecgtf.load_run(run).generate(labels, seed=2, steps=(2, 2))
    assert signals.shape == (3, 1000, 12)
    assert np.isfinite(signals).all()
    np.testing.assert_array_equal(given, labels)


def test_labels_like_a_split_are_its_labels(run, small_dataset, tmp_path):
    labels = labels_like(f"{small_dataset}:test", get_task("rhythm7"))
    out = generate(run, tmp_path / "set", like=f"{small_dataset}:test", validation_share=0.0, **FEW)
    np.testing.assert_array_equal(load_arrays(out, "train", "rhythm7").labels, labels)


def test_wfdb_records_are_read_by_wfdb(run, tmp_path):
    out = generate(run, tmp_path / "records", per_class=1, format="wfdb", **FEW)
    names = sorted(path.stem for path in out.glob("*.hea"))
    assert len(names) == 7
    signal, fields = wfdb.rdsamp(str(out / names[0]))
    expected, _ = ecgtf.load_run(run).generate(per_class=1, steps=(2, 2))
    np.testing.assert_allclose(signal, expected[0], atol=0.0005 + 1e-6)
    assert fields["sig_name"] == list(LEADS)
    assert fields["units"] == ["mV"] * 12
    assert any("Dx" in comment for comment in fields["comments"])


def test_wfdb_records_appear_when_all_of_them_are_there(run, tmp_path, monkeypatch):
    written = []

    def stop(folder, name, *arguments):
        written.append(name)
        if len(written) == 3:
            raise KeyboardInterrupt
        return write_record(folder, name, *arguments)

    monkeypatch.setattr("ecgtf.synthesis.write_record", stop)
    with pytest.raises(KeyboardInterrupt):
        generate(run, tmp_path / "records", per_class=1, format="wfdb", **FEW)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    generate(run, tmp_path / "records", per_class=1, format="wfdb", **FEW)
    generate(run, tmp_path / "records", per_class=1, format="wfdb", overwrite=True, **FEW)
    assert len(list((tmp_path / "records").glob("*.hea"))) == 7


def test_the_precision_of_what_was_trained_before_does_not_matter_and_that_asked_for_does(run):
    def drawn(precision="float32"):
        return ecgtf.load_run(run, precision).generate(per_class=1, seed=1, steps=(2, 2))[0]

    expected = drawn()
    set_precision("bfloat16")
    try:
        np.testing.assert_array_equal(drawn(), expected)
    finally:
        set_precision("float32")
    assert np.abs(drawn("bfloat16") - expected).max() > 0
    assert keras.config.dtype_policy().name == "float32"
    with pytest.raises(ValueError, match="unknown precision 'half'"):
        drawn("half")


def test_npz_holds_what_the_python_api_gives(run, tmp_path):
    out = generate(run, tmp_path / "records", per_class=2, format="npz", seed=9, **FEW)
    content = np.load(out)
    signals, labels = ecgtf.load_run(run).generate(per_class=2, seed=9, steps=(2, 2))
    np.testing.assert_array_equal(content["signals"], signals)
    np.testing.assert_array_equal(content["labels"], labels)
    assert tuple(content["leads"]) == LEADS
    assert content["sampling_rate"] == 100.0


def test_batches_are_drawn_through_one_graph_and_cut_to_size(run):
    generator = ecgtf.load_run(run)
    generator.batch_size = 4
    sizes = [len(batch) for batch in generator.batches(class_labels(7, 2)[:10], seed=0, steps=(2, 2))]
    assert sizes == [4, 4, 2]
    (compiled,) = generator._compiled.values()
    assert compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("open_generator", "options"),
    [
        (lambda run: ecgtf.load_run(run), {"steps": (3, 3)}),
        (lambda run: ecgtf.load_pretrained(), {"steps": 3, "sampler": "ddim", "eta": 1.0}),  # noise at each step
    ],
)
def test_a_few_records_are_the_first_ones_of_a_batch_at_less_cost(run, open_generator, options):
    generator, drawn = open_generator(run), []
    draw = generator.model.sample

    @functools.wraps(draw)
    def counted(label, seed, **options):
        drawn.append(label.shape[0])
        return draw(label, seed, **options)

    generator.model.sample = counted
    generator.batch_size = 16
    labels = class_labels(len(generator.classes), 3)
    many = generator.generate(labels[:9], seed=5, **options)[0]
    few = generator.generate(labels[:3], seed=5, **options)[0]
    assert drawn == [16, 4]
    np.testing.assert_allclose(few, many[:3], atol=0.004)  # two steps of what is stored


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_replaced_stays_until_all_is_drawn(run, tmp_path, monkeypatch, format):
    out = generate(run, tmp_path / "set", per_class=1, format=format, **FEW)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def diverged(_, signals):
        raise ValueError("no number")

    monkeypatch.setattr(TrainedGenerator, "_storable", diverged)
    with pytest.raises(ValueError, match="no number"):
        generate(run, out, per_class=2, format=format, overwrite=True, **FEW)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_there_is_not_overwritten_unasked(run, small_dataset, tmp_path):
    out = generate(run, tmp_path / "set", per_class=1, **FEW)
    with pytest.raises(ValueError, match="use --overwrite"):
        generate(run, out, per_class=1, **FEW)
    generate(run, out, per_class=2, overwrite=True, **FEW)
    assert read_manifest(out).records == 14
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds no synthetic data set; it is left as it is"):
        generate(run, tmp_path / "notes", per_class=1, overwrite=True, **FEW)
    with pytest.raises(ValueError, match="holds no set of synthetic records; it is left as it is"):
        generate(run, tmp_path / "notes", per_class=1, format="wfdb", overwrite=True, **FEW)
    with pytest.raises(ValueError, match="holds no synthetic data set; it is left as it is"):
        generate(run, small_dataset, per_class=1, overwrite=True, **FEW)
    assert read_manifest(small_dataset).records
    (tmp_path / "others").mkdir()
    for name, format in (("imagenet.tfrecord-00000-of-00002", "tfrecord"), ("JS00001.hea", "wfdb")):
        (tmp_path / "others" / name).touch()
        with pytest.raises(ValueError, match=r"holds no (synthetic data set|set of synthetic records); it is left as it is"):
            generate(run, tmp_path / "others", per_class=1, format=format, overwrite=True, **FEW)
        (tmp_path / "others" / name).unlink()
    with pytest.raises(ValueError, match="is a file"):
        generate(run, tmp_path / "notes" / "thesis.txt", per_class=1, **FEW)
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"labels": np.ones((3, 2))}, r"expected labels \(n, 7\) of at least 1 record for SR, .*, received shape \(3, 2\)"),
        ({"labels": np.zeros((0, 7))}, r"of at least 1 record for SR, .*, received shape \(0, 7\)"),
        ({"labels": np.full((2, 7), np.nan)}, r"expected labels that are numbers, received \[nan, .*\] for record 0"),
        ({"per_class": 0}, "expected at least 1 record of each class, received 0"),
        ({"batch_size": 0}, "expected a batch_size of at least 1 record, received 0"),
        ({"validation_share": 1.0}, "expected a validation_share of 0 or more and below 1, received 1.0"),
        ({"validation_share": -0.1}, "validation_share .*, received -0.1"),
        ({"validation_share": np.nan}, "validation_share .*, received nan"),
        ({"seed": -1}, "expected a whole number from 0 to 2147483647 as seed, received -1"),
        ({"seed": 2**31}, "as seed, received 2147483648"),
        ({"seed": 0.5}, "as seed, received 0.5"),
        ({"per_class": 1, "labels": np.eye(7)}, "give one of per_class, like and labels, not per_class and labels"),
        ({"per_class": 1, "like": "data/a"}, "not per_class and like"),
        ({"like": "data/a", "labels": np.eye(7)}, "not like and labels"),
    ],
)
def test_a_request_that_is_refused_leaves_the_set_that_it_would_replace(run, tmp_path, asked, says):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.tfrecord-00000-of-00001").write_text("as a set that is there")
    with pytest.raises(ValueError, match=says) as told:
        generate(run, tmp_path / "set", overwrite=True, **FEW | asked)
    assert "\n" not in str(told.value)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["train.tfrecord-00000-of-00001"]


def test_a_run_that_does_not_tell_what_it_saw_leaves_the_set_that_it_would_replace(run, tmp_path):
    lost = tmp_path / "run"
    shutil.copytree(run, lost)
    (lost / "trained_on.txt").unlink()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.tfrecord-00000-of-00001").write_text("as a set that is there")
    with pytest.raises(ValueError, match="holds no trained_on"):
        generate(lost, tmp_path / "set", overwrite=True, **FEW)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["train.tfrecord-00000-of-00001"]


def test_bad_requests_are_refused_in_one_line(run, small_dataset, tmp_path):
    generator = ecgtf.load_run(run)
    with pytest.raises(ValueError, match="expected labels \\(n, 7\\)"):
        list(generator.batches(np.eye(4)))
    for refused in (lambda: list(generator.batches(np.zeros((0, 7)))), lambda: generator.generate(np.zeros((0, 7)))):
        with pytest.raises(ValueError, match=r"of at least 1 record .* received shape \(0, 7\)"):
            refused()
    with pytest.raises(ValueError, match="as seed, received 1099511627776"):  # of which 32 bits would be those of seed 0
        generator.generate(per_class=1, seed=2**40)
    with pytest.raises(ValueError, match="one of the two"):
        generator.generate()
    with pytest.raises(ValueError, match="tfrecord, wfdb, npz"):
        generate(run, tmp_path / "set", format="mp3")
    for options in ({"guidance": np.nan}, {"guidance": -1.0}, {"sharpness": 0.0}, {"temperature": (np.inf, 1.0)}):
        with pytest.raises(ValueError, match=r"expected (a|decoding)"):
            generate(run, tmp_path / "set", **options)
    with pytest.raises(ValueError, match="not a run folder"):
        generate(small_dataset, tmp_path / "set")
    unfinished = Run.open(tmp_path / "unfinished", Run.load(run).config | {"finished": False})
    with pytest.raises(ValueError, match="go on with --resume"):
        generate(unfinished.folder, tmp_path / "set")
    assert not (tmp_path / "set").exists()
