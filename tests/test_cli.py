"""The command line: the chain without arguments in an empty folder, and what is refused where its runs and data sets are."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import call, refused

from ecgtf.cli.main import app
from ecgtf.ecg import LEADS
from ecgtf.run_folder import Run
from ecgtf.sharing import PRETRAINED

TINY_TRAINING = ["--preset", "tiny", "--steps", "4,4", "--batch-size", "8"]
TRAIN_GENERATOR = ["train-generator", "vqvae", *TINY_TRAINING]
TRAIN_CLASSIFIER = ["train-classifier", "resnet1d", "--preset", "tiny", "--steps", "4"]
FINETUNE = ["finetune", "--real-frac", "0.5", "--preset", "tiny", "--steps", "4", "--pretrain-steps", "4"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The commands of the tour, one after the other in an empty folder; gives the folder and what they printed."""
    folder = tmp_path_factory.mktemp("chain")
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, words in {
            "prepare": ["--limit", "140"],
            "info": ["--json", "--verify"],
            "train-generator": TRAIN_GENERATOR[1:],
            "generate": ["--per-class", "10", "--sampler-steps", "2,2"],
            "finetune": FINETUNE[1:],
            "train-classifier": [*TRAIN_CLASSIFIER[1:], "--json"],
            "evaluate": ["--preset", "tiny"],
            "report": [],
            "plot": ["--out", "ecg.svg"],
        }.items():
            quiet = ["--quiet"] if name in ("prepare", "generate") else []
            code, out, err = call(name, *words, *quiet)
            assert code == 0, (name, err)
            printed[name] = out
        yield folder, printed


def test_the_chain_writes_where_the_next_command_looks(chain):
    folder, _ = chain
    for path in (
        "data/simulated/dataset.json",
        "runs/vqvae/model.keras",
        "data/synthetic/dataset.json",
        "runs/finetuned/metrics.json",
        "runs/resnet1d/model.keras",
        "reports/closeness/closeness.json",
        "reports/closeness/index.html",
        "ecg.svg",
    ):
        assert (folder / path).is_file(), path


def test_json_is_what_design_promises(chain):
    folder, printed = chain
    info = json.loads(printed["info"])
    assert info["leads"] == list(LEADS)
    assert info["splits"]["train"]["classes"].keys() == {"SR", "SB", "ST", "SA", "AFIB", "AFLT", "SVT"}
    assert sum(part["records"] for part in info["splits"].values()) == info["records"] == 140
    assert json.loads(printed["train-classifier"])["task"] == "rhythm7"
    closeness = json.loads((folder / "reports/closeness/closeness.json").read_text())
    assert {"value", "floor", "low", "high", "group"} <= closeness["metrics"]["frechet_distance"].keys()
    assert {entry["group"] for entry in closeness["metrics"].values()} == {
        "distribution",
        "temporal",
        "physiology",
        "utility",
        "privacy",
    }


def test_every_command_of_the_tour_ends_with_what_comes_next(chain):
    _, printed = chain
    for name, last in {
        "train-generator": "wrote runs/vqvae; next: ecgtf generate --run runs/vqvae",
        "finetune": "wrote runs/finetuned; next: ecgtf evaluate",
        "evaluate": "wrote reports/closeness/index.html; next: open it in a browser",
        "report": "wrote reports/closeness/index.html; next: open it in a browser",
        "plot": "wrote ecg.svg; next: open it",
    }.items():
        assert printed[name].splitlines()[-1] == last, name


def test_a_training_says_first_how_to_look_at_it(chain):
    folder, printed = chain
    assert printed["train-generator"].splitlines()[0] == "see it in TensorBoard: tensorboard --logdir runs/vqvae/tensorboard"
    assert list((folder / "runs/vqvae/tensorboard").glob("*/events*"))


@pytest.mark.parametrize("words", [TRAIN_GENERATOR, FINETUNE, TRAIN_CLASSIFIER], ids=lambda words: words[0])
def test_a_finished_run_says_so_when_resumed_and_takes_no_other_options(chain, monkeypatch, words):
    monkeypatch.chdir(chain[0])
    code, out, _ = call(*words, "--resume")
    assert code == 0
    assert out.splitlines()[-1].endswith("is finished already; nothing to do")
    assert "another configuration (seed: 0 there, 1 now)" in refused(*words, "--resume", "--seed", 1)


def test_ecgs_come_without_any_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("generate", "--pretrained", "--per-class", 1, "--batch-size", 4, "--sampler-steps", 3, "--quiet")
    assert code == 0, err
    assert json.loads(call("info", "data/synthetic", "--task", "rhythm4", "--json")[1])["records"] == 4


@pytest.mark.parametrize("format", ["tfrecord", "npz", "wfdb"])
def test_generate_ends_with_a_command_for_what_it_wrote(chain, monkeypatch, tmp_path, format):
    monkeypatch.chdir(chain[0])
    few = ["--per-class", 2, "--batch-size", 8, "--sampler-steps", 2]
    draw = ["generate", "--pretrained", *few, "--out", tmp_path / "drawn anew"]
    code, out, err = call(*draw, "--format", format)
    assert code == 0, err
    program, *words = shlex.split(out.splitlines()[-1].partition("; next: ")[2])
    assert program == "ecgtf"
    assert words[-2:] == ["--task", "rhythm4"]  # that of the generator, not the default
    quick = {
        "finetune": ["--preset", "tiny", "--steps", 1, "--pretrain-steps", 1, "--out", tmp_path / "run"],
        "evaluate": ["--groups", "temporal", "--out", tmp_path / "report"],
    }
    code, _, err = call(*words, *quick[words[0]], "--quiet")
    assert code == 0, err


def test_commands_to_copy_quote_a_folder_with_blanks(chain, monkeypatch):
    monkeypatch.chdir(chain[0])
    lines = call("simulate", "my ecgs", "--records", 1, "--seconds", 1)[1].splitlines()
    run = Run.load(shutil.copytree("runs/vqvae", "my run"))
    run.config["finished"] = False  # all its steps are done
    run.write_config()
    code, out, err = call(*TRAIN_GENERATOR, "--resume", "--out", "my run")
    assert code == 0, err
    lines += out.splitlines()
    lines += call("export", "--run", "my run", "--out", "my export")[1].splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        "ecgtf prepare wfdb 'my ecgs'",
        "tensorboard --logdir 'my run/tensorboard'",
        "ecgtf generate --run 'my run'",
        "ecgtf generate --run 'my export'",
    ]


def test_generate_names_a_task_of_ones_own(tmp_path):
    run = shutil.copytree(PRETRAINED, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    own = {"name": "mine", "classes": {name: [name] for name in config["classes"]}}
    (run / "config.json").write_text(json.dumps(config | {"task": own}))
    code, out, err = call("generate", "--run", run, "--per-class", 1, "--sampler-steps", 2, "--out", tmp_path / "drawn")
    assert code == 0, err
    assert out.endswith(f"--synthetic {tmp_path / 'drawn'} --task FILE, the file of the task mine\n")


def test_output_that_nobody_reads_on_is_no_error(chain):
    command = f"{sys.executable} -m ecgtf.cli.main info {chain[0] / 'data/simulated'} --json | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_training_that_is_asked_to_end_says_how_it_goes_on(chain, tmp_path):
    words = ["train-generator", "--data", chain[0] / "data/simulated", "--out", tmp_path / "run", "--preset", "tiny"]
    words += ["--steps", "400,400", "--batch-size", "4", "--checkpoint-every", "2", "--judge", "0"]
    command = [sys.executable, "-m", "ecgtf.cli.main", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        while process.poll() is None and not list((tmp_path / "run").glob("checkpoints/tokenizer/ckpt-*.index")):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert re.search(
        r"stopped a(t|fter) step \d+ of stage tokenizer, of which there is a checkpoint; a training goes on with", errors
    )


def test_ctrl_c_says_what_goes_on_later(tmp_path):
    command = [sys.executable, "-m", "ecgtf.cli.main", "prepare", "--limit", "20000", "--workers", "2", "--quiet"]
    command += ["--out", str(tmp_path / "data")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while process.poll() is None and not list(tmp_path.glob("data/*")):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers, which are just starting, get it too
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert re.fullmatch(r"stopped; a training goes on with --resume, prepare and study when they are called again\n", errors)


@pytest.mark.parametrize("command", ["train-generator", "train-classifier", "finetune"])
@pytest.mark.parametrize("option", ["--learning-rate", "--max-minutes"])
def test_a_training_that_can_learn_nothing_is_refused(chain, monkeypatch, tmp_path, command, option):
    monkeypatch.chdir(chain[0])
    words = [command, *(["--scratch"] if command == "finetune" else []), "--out", tmp_path / "run"]
    for value in ("0", "-1", "nan"):
        assert f"above 0, received {float(value)}" in refused(*words, option, value)
    assert not list(tmp_path.iterdir())


def test_a_damaged_run_is_called_so(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for kind in ("vqvae", "resnet1d"):
        shutil.copytree(chain[0] / "runs" / kind, kind, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    generate = ["generate", "--run", "vqvae", "--out", "set"]
    finetune = ["finetune", "--data", chain[0] / "data/simulated", "--from", "resnet1d", "--out", "tuned", "--preset", "tiny"]
    config = json.loads(Path("vqvae/config.json").read_text())
    for content, says in (
        ("", "vqvae/config.json is damaged"),
        ("{}", "vqvae is no run: its config.json names no command; expected a run of train-generator"),
        (json.dumps({key: config[key] for key in config if key != "kind"}), "vqvae/config.json is damaged (no kind)"),
    ):
        Path("vqvae/config.json").write_text(content)
        assert says in refused(*generate)
    Path("resnet1d/config.json").write_text("{}")
    assert "resnet1d is no run" in refused(*finetune)
    for kind, words in (("vqvae", generate), ("resnet1d", finetune)):
        Path(kind, "config.json").write_text((chain[0] / "runs" / kind / "config.json").read_text())
        model = Path(kind, "model.keras")
        model.write_bytes(model.read_bytes()[:5000])
        assert f"{kind}/model.keras is damaged; train again with --overwrite" in refused(*words)
    assert not Path("set").exists()


def test_existing_output_is_not_touched_unasked(chain, monkeypatch):
    monkeypatch.chdir(chain[0])
    for words in (["prepare"], ["train-generator", "vqvae"], ["generate"], ["finetune"], ["evaluate"]):
        assert "--overwrite" in refused(*words), words


def test_a_flow_is_trained_told_conditions_drawn_from_and_exported(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(chain[0])
    run, drawn, shared = tmp_path / "flow", tmp_path / "drawn", tmp_path / "shared"
    train = ["train-generator", "timediffusion", "--objective", "flow", "--preset", "tiny", "--steps", "2", "--batch-size", "8"]
    options = ["--set", "denoiser.patch=8", "--set", "denoiser.times=uniform", "--conditions", "heart_rate", "--judge", "1"]
    assert call(*train, *options, "--out", run, "--quiet") == (0, "", "")
    config = json.loads((run / "config.json").read_text())
    assert (config["objective"], config["conditions"], config["options"]["denoiser"]["patch"]) == ("flow", ["heart_rate"], 8)
    assert "sample_heart_rate" in (run / "log.csv").read_text()
    code, out, err = call("export", "--run", run, "--out", shared)
    assert (code, out.splitlines()[-1]) == (0, f"wrote {shared}; draw from it anywhere with: ecgtf generate --run {shared}"), (
        err
    )
    draw = ["generate", "--run", shared, "--out", drawn, "--per-class", "1"]
    few = ["--sampler", "euler", "--sampler-steps", "2"]
    assert call(*draw, *few, "--heart-rate", "90", "--quiet") == (0, "", "")
    settings = json.loads((drawn / "dataset.json").read_text())["generator"]["settings"]
    assert {name: settings[name] for name in ("sampler", "steps", "heart_rate")} == {
        "sampler": "euler",
        "steps": 2,
        "heart_rate": 90,
    }
    for words, says in (
        (["--sampler", "ddpm"], "unknown sampler 'ddpm' of flow matching; expected one of euler, heun"),
        (["--sampler-steps", "2,2"], "expected one number of sampling steps"),
        (["--age", "50"], "expected conditions among heart_rate, received age"),
        (["--temperature", "4,0"], "this generator has no sampling option temperature"),
        (["--pretrained"], "give --run or --pretrained, not both"),
    ):
        assert says in refused(*draw[:-4], "--out", tmp_path / "none", *words)
    for words, says in (
        (["--set", "patch=8"], "--set takes STAGE.OPTION=VALUE, such as denoiser.patch=1; received 'patch=8'"),
        (["--set", "denoiser.size=8"], "denoiser has no option 'size'; expected one of times, prediction, v_limit, network"),
        (["--conditions", "weight"], "unknown condition 'weight'; expected one of age, sex, heart_rate"),
    ):
        assert says in refused(*train, *words, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_generate_takes_no_file_for_a_folder_and_no_command_writes_below_one(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(chain[0])
    (tmp_path / "taken").write_text("precious")
    assert "taken is a file; expected a folder" in refused("generate", "--out", tmp_path / "taken")
    for words in (["simulate"], ["prepare", "--out"], ["generate", "--out"], [*TRAIN_GENERATOR, "--out"]):
        assert "a file stands where a folder is expected" in refused(*words, tmp_path / "taken" / "below"), words
    assert (tmp_path / "taken").read_text() == "precious"


def test_a_task_that_does_not_fit_is_refused(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "rhythm4, rhythm7" in refused("info", chain[0] / "data/simulated", "--task", "rhythm5")
    simulated = ["--data", chain[0] / "data/simulated"]
    Path("valves.csv").write_text("code,class\nAS,stenosis\nMR,regurgitation\n")
    assert "no training record has a class of task valves" in refused(
        "train-generator", "vqvae", *simulated, "--task", "valves.csv"
    )
    assert call("prepare", "--limit", 10, "--out", "data/few", "--quiet")[0] == 0
    call("simulate", "sr", "--records", 12, "--rhythms", "SR,AFIB", "--quiet")
    assert call("prepare", "wfdb", "sr", "--out", "data/two", "--quiet")[0] == 0
    line = refused("train-generator", "vqvae", "--data", "data/two", *TINY_TRAINING)
    assert "SB, ST, SA, AFLT, SVT" in line
    assert "--allow-empty" in line
    assert not (tmp_path / "runs").exists()
    assert call("train-generator", "vqvae", "--data", "data/two", *TINY_TRAINING, "--allow-empty", "--quiet")[0] == 0


def test_data_of_another_rate_or_leads_than_the_model_is_refused(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call("prepare", "--limit", 14, "--rate", 200, "--out", "data/fast", "--quiet")[0] == 0
    assert call("prepare", "--limit", 14, "--leads", "I,II,V1", "--out", "data/few", "--quiet")[0] == 0
    synthetic = chain[0] / "data/synthetic"
    for name, what in (("fast", "sampling_rate"), ("few", "leads")):
        assert what in refused("finetune", "--data", f"data/{name}", "--synthetic", synthetic)
        assert what in refused("evaluate", "--real", f"data/{name}", "--synthetic", synthetic)
        run = chain[0] / "runs/resnet1d"
        assert "leads" in refused("finetune", "--data", f"data/{name}", "--from", run) or name == "fast"
        assert call("finetune", "--data", f"data/{name}", "--from", run)[0] == 2


@pytest.mark.parametrize("command", [each.name for each in app.registered_commands])
def test_every_command_has_its_help(command):
    code, out, err = call(command, "--help")
    assert (code, err) == (0, "")
    assert "--seed" in out or "--quiet" in out


def test_help_is_quick_because_it_imports_nothing_heavy():
    heavy = ("tensorflow", "keras", "scipy", "matplotlib", "sklearn", "pandas")
    code = f"import sys; from ecgtf.cli.main import app; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
