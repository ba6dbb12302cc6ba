"""The wheel, installed as a user would, works from another folder."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("ecgtf", "cli", "data_prep", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The `ecgtf` command of an environment that has the wheel, and sees this environment's libraries."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:  # a copy: a `build` folder in the checkout would bring modules that are gone back into the wheel
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, source / name)
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(wheel, check=True, capture_output=True, timeout=300)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=300)
    library = next(environment.glob("lib/python*/site-packages"))
    # only this environment's libraries are borrowed: the path file comes after the wheel's own packages
    (library / "zz_borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = environment / "bin" / "python"
    (built,) = folder.glob("*.whl")
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(built)]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    return environment / "bin" / "ecgtf"


def test_the_wheel_holds_every_package_and_the_page_template(installed):
    library = next(installed.parents[1].glob("lib/python*/site-packages"))
    for name in (
        "cli/main.py",
        "data_prep/prepare.py",
        "generators/base.py",
        "report/base.html.j2",
        "report/figure.html.j2",
        "report/page.html.j2",
        "pretrained/model.keras",
        "pretrained/MODEL_CARD.md",
        "starts/timediffusion/model.keras",
        "starts/README.md",
        "studies/page.html.j2",
        "studies/configs/small.toml",
    ):
        assert (library / "ecgtf" / name).is_file(), name


def test_commands_of_the_wheel_run_from_another_folder(installed, tmp_path):
    def run(*words):
        return subprocess.run([str(installed), *words], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    assert "train-generator" in run("--help").stdout
    where = subprocess.run(
        [str(installed.with_name("python")), "-c", "import ecgtf; print(ecgtf.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(installed.parents[1]) in where.stdout
    for words in (
        ["simulate", "records", "--records", "14"],
        ["prepare", "wfdb", "records"],
        ["info", "data/wfdb", "--verify"],
    ):
        done = run(*words)
        assert done.returncode == 0, done.stderr
    assert "every shard is as the manifest says" in done.stdout
