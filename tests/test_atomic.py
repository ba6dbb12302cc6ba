"""Files that appear whole or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest

from ecgtf.atomic import check_free, is_empty, remove_folder, replacing, replacing_folder, write_atomically, write_json


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


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "some" / "set"
    with replacing_folder(folder) as unfinished:
        assert unfinished.is_dir()
        assert is_empty(folder.parent)  # which the leftovers of a kill are found by
        (unfinished / "old").touch()
    with pytest.raises(FileNotFoundError), replacing_folder(folder) as unfinished:
        (unfinished / "none" / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["old"]
    (tmp_path / "some" / f".set.{os.getpid()}.tmp").mkdir()
    (tmp_path / "some" / f".set.{os.getpid()}.tmp" / "half").touch()
    with replacing_folder(folder) as unfinished:
        (unfinished / "new").touch()
    assert list(folder.parent.iterdir()) == [folder]
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_a_link_stays_and_leads_to_the_new_folder(tmp_path):
    place, link = tmp_path / "disk" / "set", tmp_path / "set"
    place.mkdir(parents=True)
    (place / "old").touch()
    link.symlink_to(place)
    with replacing_folder(link) as unfinished:
        (unfinished / "new").touch()
    assert [path.name for path in place.iterdir()] == ["new"]
    remove_folder(link)
    assert list(link.iterdir()) == []
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("below", ["", "sub"])
def test_the_current_folder_is_never_replaced(tmp_path, monkeypatch, below):
    (tmp_path / "set" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "set" / below)
    for folder in (tmp_path / "set", Path(".." if below else ".")):
        with pytest.raises(ValueError, match="the current folder"):
            remove_folder(folder)
        with pytest.raises(ValueError, match="the current folder"), replacing_folder(folder):
            pass
    assert (tmp_path / "set" / "sub").is_dir()


def test_a_disk_is_never_replaced():
    with pytest.raises(ValueError, match="name a folder inside it"), replacing_folder(Path("/proc")):
        pass


def test_what_could_not_be_replaced_comes_back(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old").touch()

    def refused(*_):
        raise OSError("not now")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="not now"), replacing_folder(tmp_path / "set"):
        pass
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["old"]
    assert len(list(tmp_path.iterdir())) == 1


class Killed(BaseException):
    """What nobody catches."""


def test_a_folder_whose_deletion_stops_half_way_is_gone_and_its_rest_is_deleted_next_time(tmp_path, monkeypatch):
    folder, unlink = tmp_path / "run", os.unlink

    def filled():
        folder.mkdir()
        for name in "abc":
            (folder / name).touch()

    def die_behind_the_first(path, **options):
        unlink(path, **options)
        raise Killed

    filled()
    (tmp_path / "run.2").mkdir()
    remove_folder(tmp_path / "run.2")
    assert list(tmp_path.iterdir()) == [folder]
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", die_behind_the_first)
        with pytest.raises(Killed):
            remove_folder(folder)
    assert not folder.exists()
    assert is_empty(tmp_path)
    assert list(tmp_path.iterdir())
    filled()
    remove_folder(folder)
    assert list(tmp_path.iterdir()) == []
    remove_folder(folder)  # that is not there
    remove_folder(tmp_path / "none" / "such")


def test_a_folder_is_free_where_nothing_is_there_that_may_not_be_replaced(tmp_path):
    folder = tmp_path / "run"
    is_run = (folder / "config.json").is_file
    check_free(folder, "run", is_run)
    folder.mkdir()
    (folder / ".model.keras.12.tmp.keras").touch()  # what a kill left
    check_free(folder, "run", is_run)
    (folder / "thesis.tex").touch()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="run is not empty and holds no run; it is left as it is: name another folder"):
            check_free(folder, "run", is_run, overwrite)
    with pytest.raises(ValueError, match=r"thesis.tex is a file; expected a folder for the run"):
        check_free(folder / "thesis.tex", "run", is_run, overwrite=True)
    (folder / "config.json").touch()
    with pytest.raises(ValueError, match="run holds a run already; use --overwrite to replace it, or name another folder"):
        check_free(folder, "run", is_run)
    check_free(folder, "run", is_run, overwrite=True)
