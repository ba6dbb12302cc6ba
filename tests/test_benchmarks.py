"""What the benchmarks share: tables that say what got slower, and workers that say why they ended."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
TABLES = runpy.run_path(str(FOLDER / "tables.py"))
WORKERS = runpy.run_path(str(FOLDER / "workers.py"))


def test_ratios_are_compared_with_the_last_saved_ones(tmp_path, capsys):
    compare = TABLES["compare"]
    assert compare("steps", {"a": 1.3, "b": 1.0}, save=True, folder=tmp_path) == []
    assert compare("steps", {"a": 1.1, "b": 0.95, "c": 0.1}, save=False, folder=tmp_path) == ["a"]
    assert "slower than saved: a 1.10, was 1.30" in capsys.readouterr().out
    assert compare("steps", {"a": 1.4, "b": 1.0}, save=False, folder=tmp_path) == []  # what was not saved is not compared with
    assert "nothing got slower" in capsys.readouterr().out


def test_saving_one_ratio_keeps_the_others(tmp_path):
    compare = TABLES["compare"]
    compare("steps", {"a": 1.0, "b": 1.0}, save=True, folder=tmp_path)
    compare("steps", {"a": 2.0}, save=True, folder=tmp_path)
    assert compare("steps", {"a": 1.0, "b": 0.5}, save=False, folder=tmp_path) == ["a", "b"]


def test_a_spread_is_the_median_and_the_extremes():
    assert TABLES["spread"]([3.0, 1.0, 2.0]) == "2.0 (1.0-3.0)"


def test_a_worker_that_ends_says_why(tmp_path):
    script = tmp_path / "ends.py"
    script.write_text("raise SystemExit('no such network')")
    with WORKERS["Worker"](script) as worker, pytest.raises(RuntimeError, match="no such network"):
        worker.ask("steps")


def test_a_worker_answers_each_order(tmp_path):
    script = tmp_path / "adds.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); from workers import serve; serve({{'add': lambda a, b: a + b}})"
    )
    with WORKERS["Worker"](script) as worker:
        assert [worker.ask("add", a=1, b=k) for k in range(3)] == [1, 2, 3]
        assert worker.ask("memory") > 0


def test_ways_take_turns():
    calls = []
    ways = {name: lambda name=name: calls.append(name) or len(calls) for name in ("ours", "peer")}
    assert WORKERS["in_turns"](ways, 2) == {"ours": [1, 3], "peer": [2, 4]}
    assert calls == ["ours", "peer"] * 2
