"""The demo leaves alone what is not one (what it makes is seen in `ecgtf demo`)."""

import pytest

from ecgtf.demo import MARK, demo


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path):
    (tmp_path / "data" / "simulated").mkdir(parents=True)
    (tmp_path / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds no demo; it is left as it is"):
            demo(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    (tmp_path / MARK).write_text("{}")
    with pytest.raises(ValueError, match="holds a demo already; use --overwrite"):
        demo(tmp_path)
