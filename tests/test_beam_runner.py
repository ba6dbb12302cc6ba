import subprocess
import sys
import time

import pytest

from ecgtf.data_prep.beam_runner import pipeline_options, run_jobs_on_beam
from ecgtf.data_prep.conversion import Job, Settings, simulated_records, write_job
from ecgtf.data_prep.prepare import prepare
from ecgtf.ecg import LEADS
from ecgtf.workers import run_jobs

SETTINGS = Settings(None, 100.0, 2.0, LEADS, "first", 5, 60)
PARALLEL = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@pytest.fixture
def beam():
    return pytest.importorskip("apache_beam")


def jobs_in(folder, shards=6):
    """60 simulated records in so many shards."""
    folder.mkdir()
    records = list(simulated_records(SETTINGS))
    return [
        Job(folder / f"train.tfrecord-{number:05d}-of-{shards:05d}", records[number::shards], SETTINGS)
        for number in range(shards)
    ]


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def by_file(results):
    return {summary.file: (summary, rejections) for summary, rejections in results}


def fail_at_the_third(job):
    if "00002" in job.path.name:
        raise ValueError("first line\nand second")
    return write_job(job)


def write_slowly(job):
    time.sleep(0.2)
    return write_job(job)


@pytest.mark.parametrize("arguments", [(), PARALLEL], ids=["in this process", "in processes"])
def test_the_same_files_and_results_as_from_the_local_runner(tmp_path, beam, arguments):
    local = by_file(run_jobs(write_job, jobs_in(tmp_path / "local"), workers=1))
    piped = by_file(run_jobs_on_beam(write_job, jobs_in(tmp_path / "beam"), arguments))
    assert len(local) == 6
    assert sum(summary.records for summary, _ in local.values()) == 60
    assert piped == local
    assert content(tmp_path / "beam") == content(tmp_path / "local")


def test_the_order_of_jobs_does_not_matter(tmp_path, beam):
    forth = by_file(run_jobs_on_beam(write_job, jobs_in(tmp_path / "forth")))
    back = by_file(run_jobs_on_beam(write_job, jobs_in(tmp_path / "back")[::-1]))
    assert forth == back
    assert content(tmp_path / "forth") == content(tmp_path / "back")


def test_an_error_in_a_job_is_one_line(tmp_path, beam, capfd):
    with pytest.raises(RuntimeError) as caught:
        list(run_jobs_on_beam(fail_at_the_third, jobs_in(tmp_path / "out")))
    name = "train.tfrecord-00002-of-00006"
    assert str(caught.value) == f"{name} could not be written: ValueError: first line and second"
    assert capfd.readouterr().err == ""
    assert name not in content(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_who_stops_early_gets_no_more_jobs(tmp_path, beam):
    results = run_jobs_on_beam(write_slowly, jobs_in(tmp_path / "out", shards=20))
    next(results)
    results.close()
    files = content(tmp_path / "out")
    assert 1 <= len([name for name in files if name.startswith("train")]) < 20
    assert not any(name.endswith(".tmp") for name in files)


def test_no_jobs_need_no_pipeline():
    assert list(run_jobs_on_beam(write_job, [], ["--runner=Unheard"])) == []


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--direct_num_workers=x"], "^Apache Beam: argument --direct_num_workers: invalid int value: 'x'$"),
        (["--runner=Unheard"], "^Apache Beam: Unexpected pipeline runner: Unheard. Valid values are"),
        (["--runner=unheard.of.Runner"], "^Apache Beam: No module named 'unheard'$"),
    ],
)
def test_options_that_beam_does_not_understand(beam, capfd, arguments, match):
    with pytest.raises(ValueError, match=match):
        pipeline_options(arguments)
    assert capfd.readouterr().err == ""


def test_without_beam_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "apache_beam"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ValueError, match=r"^--runner beam needs Apache Beam; install it with: pip install 'ecgtf\[beam\]'$"):
        list(run_jobs_on_beam(write_job, jobs_in(tmp_path / "out")))
    assert content(tmp_path / "out") == {}


def test_beam_is_imported_when_it_is_used_only():
    code = "import sys, ecgtf.data_prep.beam_runner\nprint('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_preparation_on_beam_leaves_the_same_folder(tmp_path, beam):
    options = {"seconds": 2.0, "limit": 60}
    prepare(None, None, tmp_path / "local", workers=1, **options)
    prepare(None, None, tmp_path / "beam", runner="beam", **options)
    assert content(tmp_path / "beam") == content(tmp_path / "local")


def test_without_beam_nothing_is_replaced(tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare(None, None, out, seconds=2.0, limit=6, workers=1)
    before = content(out)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"install it with: pip install 'ecgtf\[beam\]'"):
        prepare(None, None, out, seconds=2.0, limit=6, overwrite=True, runner="beam")
    assert content(out) == before
