"""Files that appear whole or not at all."""

import os

import numpy as np
import pytest

from ecgtf.atomic import is_empty, replacing, write_atomically, write_json


def test_text_bytes_and_json_are_written(tmp_path):
    write_atomically(tmp_path / "a.txt", "µV\n")
    write_atomically(tmp_path / "b.bin", b"\xff\x00")
    write_json(tmp_path / "c.json", {"a": [1]})
    assert (tmp_path / "a.txt").read_bytes() == b"\xc2\xb5V\n"
    assert (tmp_path / "b.bin").read_bytes() == b"\xff\x00"
    assert (tmp_path / "c.json").read_text() == '{\n "a": [\n  1\n ]\n}\n'
    assert len(list(tmp_path.iterdir())) == 3


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("new \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_is_hidden_marked_and_of_this_process(tmp_path):
    path = tmp_path / "weights.npz"
    with replacing(path) as temporary:
        assert temporary == tmp_path / f".weights.npz.{os.getpid()}.tmp"
        temporary.touch()
        assert list(tmp_path.glob("*.tmp")) == [temporary]  # which the leftovers of a preparation are found by
    with replacing(path, ".npz") as temporary:
        np.savez(temporary, a=np.arange(3))  # would append .npz to another name
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_with_nothing_but_what_a_killed_process_left_counts_as_empty(tmp_path):
    assert is_empty(tmp_path)
    with replacing(tmp_path / "config.json") as temporary:
        temporary.touch()
        assert is_empty(tmp_path)
    (tmp_path / "config.json").touch()
    assert not is_empty(tmp_path)
